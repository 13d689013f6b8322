"""The gateway's own exceptions: each with a code, a sentence, and a defined fault.

`code` comes from a closed set and is kept by metrics and store; the sentence is for people. A `ProtocolError` is the peer's fault
and ends at most its own call; a `ConfigError` is the operator's and ends the start.
"""

from __future__ import annotations

from typing import Final, Literal

ProtocolCode = Literal[
    "bad_json",  # not JSON, or not a JSON object
    "bad_type",  # a field has the wrong type
    "missing_field",  # a required field is missing
    "bad_utf8",  # a text message that is not UTF-8
    "bad_base64",  # audio that is not base64
    "binary_message",  # a binary message where only text is allowed
    "oversize_message",  # a message over the leg's limit
    "bad_websocket",  # a violation of RFC 6455
    "frame_flood",  # too many control frames or small fragments
    "message_flood",  # too many messages besides audio
    "media_before_start",  # audio before Twilio's `start`
    "second_start",  # `start` twice on one stream
    "wrong_stream",  # a message for a stream that has not started here
    "wrong_format",  # audio that is not mu-law, 8 kHz, mono
]

#: Close codes of RFC 6455 7.4.1 for violations other than of a message's content.
_CLOSE_CODES: Final[dict[ProtocolCode, int]] = {
    "binary_message": 1003,
    "oversize_message": 1009,
    "bad_websocket": 1002,
    "frame_flood": 1008,
    "message_flood": 1008,
    "media_before_start": 1002,
    "second_start": 1002,
    "wrong_stream": 1002,
}


def close_code(code: ProtocolCode) -> int:
    """Return the websocket's close code for a violation."""
    return _CLOSE_CODES.get(code, 1007)


class GatewayError(Exception):
    """Base class of the gateway's errors. `code` is for machines, the text for people."""

    code: str = "internal_error"


def text_of(error: BaseException) -> str:
    """Return an error as a sentence for people: of a system's error the file and the reason, without its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


class ProtocolError(GatewayError):
    """A peer violated its protocol.

    `detail` names the violation and quotes at most a short piece of the received data.
    """

    def __init__(self, code: ProtocolCode, detail: str) -> None:
        super().__init__(detail)
        self.code: ProtocolCode = code
        self.detail = detail


class StateError(GatewayError):
    """An event in a state that does not allow it: a bug in the gateway."""

    code = "internal_error"


class ConfigError(GatewayError):
    """The configuration is invalid. `problems`: one sentence per key at fault."""

    code = "bad_config"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
