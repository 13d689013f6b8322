"""What both legs' JSON has in common: text that must be UTF-8, JSON that must be an object, and whose fault it is when not.

msgspec decodes a message once, typed; only where that fails the message is looked at again, to tell which kind of failure it
was. Every failure of a peer's text is one `ProtocolError`, never another error, whatever the bytes. Never quotes more than a
short piece of what arrived.
"""

from __future__ import annotations

from typing import Final, NoReturn, TypeVar

import msgspec

from gw.errors import ProtocolError

#: How much of a peer's words goes into our sentences and labels.
QUOTE_CHARS: Final = 120

_T = TypeVar("_T")


def short(text: str) -> str:
    """A piece of a peer's text that is safe to keep."""
    return text if len(text) <= QUOTE_CHARS else text[: QUOTE_CHARS - 3] + "..."


def decode_text(data: str | bytes) -> str | bytes:
    """A text message as text, or as it came where it is ASCII. Raises ProtocolError(bad_utf8) (RFC 6455 §5.6)."""
    if isinstance(data, str) or data.isascii():
        return data
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("bad_utf8", f"a text message that is not UTF-8, at byte {error.start}") from error


def decode(decoder: msgspec.json.Decoder[_T], text: str | bytes | msgspec.Raw) -> _T:
    """One message, or a part of one that was kept raw, typed.

    Raises: ProtocolError(bad_json, bad_utf8); msgspec.ValidationError where it is JSON of another shape, for `refuse`.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise ProtocolError("bad_json", short(str(error))) from error
    except RecursionError as error:  # msgspec bounds the nesting by Python's own limit
        raise ProtocolError("bad_json", "JSON nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ProtocolError("bad_utf8", "a text message with half a surrogate pair") from error


def refuse(error: msgspec.ValidationError, part: str = "") -> NoReturn:
    """Raise what a decoding of the wrong shape means: ProtocolError(missing_field, bad_type, bad_json).

    `part` names the field that was decoded, when it was not the whole message.
    """
    reason = str(error)
    sentence = short(f"in `{part}`: {reason}" if part else reason)
    if reason.startswith("Object missing required field"):
        raise ProtocolError("missing_field", sentence) from error
    # Without a path the text itself is at fault: no object at all. A whole message like that is not this protocol's JSON.
    raise ProtocolError("bad_type" if part or " - at `" in reason else "bad_json", sentence) from error
