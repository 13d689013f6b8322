"""JSON Schema of a tool's arguments. The library is imported on use: a worker, or a gateway without tools, does without.

A reference leads to a part of the same schema: nothing is fetched, neither when a schema is checked nor when arguments are.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from gw.errors import GatewayError

#: Longest problem that is shown: the library quotes the value.
MAX_PROBLEM_CHARS: Final = 300
#: The version of a schema that names none.
_VERSION: Final = "https://json-schema.org/draft/2020-12/schema"
#: Uses of a keyword in one check, 10 us each. Arguments of 16 KiB take some thousand with an ordinary schema.
STEPS: Final = 20_000
#: CPU time of one check, for patterns: a step may be one. More than all steps take.
CPU_S: Final = 0.5
#: Until the limit is applied again: a callback of the garbage collector may have swallowed its error.
AGAIN_S: Final = 0.02
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
#: Keywords whose values are data, not schemas.
_DATA: Final = ("enum", "const", "default", "examples")


#: The check of one keyword: validator, the keyword's value, the instance, the schema.
_Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class SchemaError(GatewayError):
    """A text that is not a usable schema. The sentence names the place within it."""

    code = "bad_schema"


class _TooManyStepsError(GatewayError):
    """Arguments took more steps than a check may have."""

    code = "bad_arguments"


class _TooSlowError(GatewayError):
    """Arguments took more time than a check may have."""

    code = "bad_arguments"


def _too_slow(_signal: int, _frame: object) -> None:
    raise _TooSlowError


@contextmanager
def _bounded_cpu(seconds: float) -> Iterator[None]:
    """Limit a block that does not wait to this CPU time of the process: a pattern may take exponential time, in one call of `re`.

    The signal's handler runs within `re`, which looks for signals while it backtracks. Outside the main thread there is no limit.
    """
    if threading.get_native_id() != os.getpid():  # `threading` itself takes each greenlet for a thread
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, AGAIN_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


class Schema:
    """A schema of an object, checked once; `problem` checks arguments against it.

    A check is bounded: the arguments are a model's, and a recursive schema with alternatives, or a pattern with repetitions of
    repetitions, takes exponential time.
    """

    def __init__(self, text: str) -> None:
        """Raises SchemaError."""
        import jsonschema  # type: ignore[import-untyped]
        import referencing

        schema = _object(text)
        named = schema.pop("$schema", _VERSION)  # without it, the library keeps to the bounded class in references
        kind = jsonschema.validators.validator_for({"$schema": named}, None) if isinstance(named, str) else None
        if kind is None:
            raise SchemaError(f"$schema names {_short(json.dumps(named))}; expected a version of JSON Schema, such as {_VERSION}")
        self._left = STEPS
        keywords = {name: self._counted(check) for name, check in {**kind.VALIDATORS, "uniqueItems": _unique_items}.items()}
        try:
            kind.check_schema(schema)
            _check_references(schema, named)
            self._validator = jsonschema.validators.extend(kind, keywords)(schema, registry=referencing.Registry())
            self.problem({})  # a schema that refers to itself only would never end
        except jsonschema.SchemaError as error:
            raise SchemaError(_sentence(error)) from None
        except RecursionError:
            raise SchemaError("it is nested too deeply") from None

    def problem(self, arguments: dict[str, Any]) -> str:
        """Return the first problem of the arguments, with its place, or "". Raises RecursionError for endless nesting."""
        self._left = STEPS
        try:
            with _bounded_cpu(CPU_S):
                error = next(self._validator.iter_errors(arguments), None)
        except _TooManyStepsError:
            return f"the check takes more than {STEPS} steps"
        except _TooSlowError:
            return f"the check takes more than {CPU_S:g} s, because of a pattern"
        return "" if error is None else _sentence(error)

    def _counted(self, check: _Check) -> _Check:
        """Return the check of a keyword, with each of its uses counted."""

        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            self._left -= 1
            if self._left < 0:
                raise _TooManyStepsError
            yield from check(validator, value, instance, schema) or ()

        return counted


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    """Check the keyword in one pass; the library's check takes 10 s for 2000 objects."""
    import jsonschema

    if wanted and isinstance(instance, list) and len({_canonical(item) for item in instance}) < len(instance):
        yield jsonschema.ValidationError("an item is there twice")


def _canonical(value: Any) -> str:
    """Return the same text for equal JSON values: 1 equals 1.0, and not true."""
    return json.dumps(_whole_numbers(value), sort_keys=True)


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


def _check_references(schema: dict[str, Any], version: str) -> None:
    """Raise SchemaError for a reference that leads out of the schema, or nowhere."""
    import referencing
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import specification_with

    resource = specification_with(version).create_resource(schema)
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
            if name == "$schema" and isinstance(inner, str):
                raise SchemaError(f"at {at}: a version is named at the top only")
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
