"""JSON Schema of a tool's arguments. The library is imported on use: a worker, or a gateway without tools, does without.

A reference leads to a part of the same schema: nothing is fetched, neither when a schema is checked nor when arguments are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from gw.errors import GatewayError

#: Longest problem that is shown: the library quotes the value.
MAX_PROBLEM_CHARS: Final = 300
#: The version of a schema that names none.
_VERSION: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
#: Keywords whose values are data, not schemas.
_DATA: Final = ("enum", "const", "default", "examples")


class SchemaError(GatewayError):
    """A text that is not a usable schema. The sentence names the place within it."""

    code = "bad_schema"


class Schema:
    """A schema of an object, checked once; `problem` checks arguments against it."""

    def __init__(self, text: str) -> None:
        """Raises SchemaError."""
        import jsonschema  # type: ignore[import-untyped]
        import referencing

        schema = _object(text)
        named = schema.get("$schema", _VERSION)
        kind = jsonschema.validators.validator_for({"$schema": named}, None) if isinstance(named, str) else None
        if kind is None:
            raise SchemaError(f"$schema names {_short(json.dumps(named))}; expected a version of JSON Schema, such as {_VERSION}")
        try:
            kind.check_schema(schema)
            _check_references(schema)
            self._validator = kind(schema, registry=referencing.Registry())
            self.problem({})  # a schema that refers to itself only would never end
        except jsonschema.SchemaError as error:
            raise SchemaError(_sentence(error)) from None
        except RecursionError:
            raise SchemaError("it is nested too deeply") from None

    def problem(self, arguments: dict[str, Any]) -> str:
        """Return the first problem of the arguments, with its place, or "". Raises RecursionError for endless nesting."""
        error = next(self._validator.iter_errors(arguments), None)
        return "" if error is None else _sentence(error)


def _object(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except RecursionError:
        raise SchemaError("it is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"it is not JSON: {error}") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise SchemaError('it is not the schema of an object; expected {"type": "object", "properties": {...}}')
    return schema


def _check_references(schema: dict[str, Any]) -> None:
    """Raise SchemaError for a reference that leads out of the schema, or nowhere."""
    import referencing
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = referencing.Registry().resolver_with_root(resource)
    for place, reference in _references(schema, ""):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            raise SchemaError(f"at {place}: {_short(json.dumps(reference))} leads to no part of this schema") from None


def _references(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _references(inner, f"{place}[{number}]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            at = f"{place}.{name}" if place else name
            if name in _REFERENCES and isinstance(inner, str):
                yield at, inner
            elif name not in _DATA or place.endswith("properties"):
                yield from _references(inner, at)


def _sentence(error: Any) -> str:
    """Return an error of the library as `at a.b[0]: text`."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    return _short(f"at {place}: {error.message}" if place else str(error.message))


def _short(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_CHARS else f"{text[:MAX_PROBLEM_CHARS]}..."
