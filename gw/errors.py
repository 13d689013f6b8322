"""What can go wrong, whose fault it is and how far it reaches.

Every error of ours carries a short `code` from a closed set (metrics and store keep it) and a sentence for people. A
`ProtocolError` is the peer's fault and ends at most its own call; a `ConfigError` is the operator's and ends the start.
"""

from __future__ import annotations

from typing import Literal

ProtocolCode = Literal[
    "bad_json",  # not JSON, or not a JSON object
    "bad_type",  # a field has the wrong type
    "missing_field",  # a field we need is not there
    "bad_utf8",  # a text message that is not UTF-8
    "bad_base64",  # audio that is not base64
    "binary_message",  # a binary message where only text is spoken
    "oversize_message",  # a message over the leg's limit
    "bad_websocket",  # a violation of RFC 6455
    "media_before_start",  # audio before Twilio's `start`
    "second_start",  # `start` twice on one stream
    "wrong_stream",  # a message for another stream than the one that started
    "wrong_format",  # audio that is not mu-law, 8 kHz, mono
]


class GatewayError(Exception):
    """The root of our errors. `code` is for machines, the text for people."""

    code: str = "internal_error"


class ProtocolError(GatewayError):
    """A peer sent what its protocol does not allow.

    The sentence says what was wrong, never quotes more than a short piece of what arrived.
    """

    def __init__(self, code: ProtocolCode, detail: str) -> None:
        super().__init__(detail)
        self.code: ProtocolCode = code
        self.detail = detail


class StateError(GatewayError):
    """Our own fault: an event in a state that does not allow it."""

    code = "internal_error"


class ConfigError(GatewayError):
    """The configuration cannot be used; `problems` names every key at fault, one sentence each."""

    code = "bad_config"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
