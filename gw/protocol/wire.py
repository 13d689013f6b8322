"""JSON decoding shared by both legs: UTF-8 text, one typed decode, one `ProtocolError`.

msgspec decodes a message once, typed. Only a failed message is examined again, to name the kind of failure. Any bytes give a
value or one `ProtocolError`, which quotes at most QUOTE_CHARS of the peer's text.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final, NoReturn, Protocol, TypeVar

import msgspec

from gw.errors import ProtocolError

#: Length of a peer's text in error messages and labels.
QUOTE_CHARS: Final = 120

#: Half surrogates replaced in one message. A cut text holds one.
MAX_HALVES: Final = 100
#: Longest message in which they are replaced, in 0.4 ms at worst.
_MAX_HALVES_BYTES: Final = 32 << 10
#: Any text without half a surrogate, and the escape of one behind it.
_HALF: Final = re.compile(
    rb"((?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+)\\u[dD][89a-fA-F][0-9a-fA-F]{2}", re.DOTALL
)

_T = TypeVar("_T")


class Head(Protocol):
    """A message of which only the kind is decoded."""

    kind: str


_HeadT = TypeVar("_HeadT", bound=Head)


def short(text: str) -> str:
    """Cut a peer's text to QUOTE_CHARS."""
    return text if len(text) <= QUOTE_CHARS else text[: QUOTE_CHARS - 3] + "..."


def decode_text(data: str | bytes) -> str | bytes:
    """Decode a text message; ASCII bytes are returned unchanged.

    Raises: ProtocolError(bad_utf8) (RFC 6455 §5.6).
    """
    if isinstance(data, str) or data.isascii():
        return data
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("bad_utf8", f"a text message is not UTF-8 at byte {error.start}") from error


def without_halves(data: bytes) -> bytes:
    """Replace escaped halves of surrogate pairs in JSON by U+FFFD: an AI cut its text within a character.

    Returns: the same object without such halves, or if the message is too long. Halves beyond MAX_HALVES are left.
    """
    parts, at = [], 0
    for _ in range(MAX_HALVES if len(data) <= _MAX_HALVES_BYTES else 0):
        found = _HALF.match(data, at)
        if found is None:
            break
        parts.append(found[1])
        at = found.end()
    return b"\\ufffd".join((*parts, data[at:])) if parts else data


def decode(decoder: msgspec.json.Decoder[_T], text: str | bytes | msgspec.Raw) -> _T:
    """Decode one message, or a raw part of one, to its type.

    Raises: ProtocolError(bad_json, bad_utf8); msgspec.ValidationError for JSON of another shape, see `refuse`.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise ProtocolError("bad_json", short(str(error))) from error
    except RecursionError as error:  # msgspec bounds the nesting by Python's recursion limit
        raise ProtocolError("bad_json", "JSON nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ProtocolError("bad_utf8", "a text message holds half a surrogate pair") from error


def refuse(error: msgspec.ValidationError, part: str = "") -> NoReturn:
    """Raise the ProtocolError of a failed decode: missing_field, bad_type or bad_json.

    `part` names the field that was decoded, if not the whole message.
    """
    reason = str(error)
    sentence = short(f"in `{part}`: {reason}" if part else reason)
    if reason.startswith("Object missing required field"):
        raise ProtocolError("missing_field", sentence) from error
    # msgspec names no path if the text itself is wrong, for example an array: a whole message like that is bad JSON.
    raise ProtocolError("bad_type" if part or " - at `" in reason else "bad_json", sentence) from error


def unknown_kind(
    head: msgspec.json.Decoder[_HeadT], text: str | bytes, known: Container[str], error: msgspec.ValidationError
) -> str:
    """Return the shortened kind of a message that failed to decode.

    `error`: the failure of the typed decode, raised by `refuse` for a known kind.
    Raises: ProtocolError(missing_field, bad_type, bad_json).
    """
    try:
        kind = decode(head, text).kind
    except msgspec.ValidationError as head_error:
        refuse(head_error)
    if kind in known:
        refuse(error)
    return short(kind)
