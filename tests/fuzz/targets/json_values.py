"""JSON by the standard library: the second opinion on what a message holds."""

from __future__ import annotations

import json
from typing import Any


class _RepeatedNameError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedNameError
    return found


def json_value(data: bytes) -> Any:
    """Return the value, U+FFFD for halves of surrogate pairs.

    None: an object repeats a name, where readers choose differently.

    Raises: ValueError for bytes that are not JSON.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    except (_RepeatedNameError, RecursionError):
        return None
