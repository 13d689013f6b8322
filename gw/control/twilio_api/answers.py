"""What Twilio's REST API may answer, as values: what it did, what it lists, and one typed error for everything else.

Pure. Decides what a status and an error number mean together: whether Twilio did the thing, did not, or may have.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from gw.errors import GatewayError

Kind = Literal[
    "not_in_progress",  # 21220: the call is not in progress (yet, or any more)
    "gone",  # 20404 or 404: no such call
    "unauthorized",  # 20003, 401 or 403: the credentials do not open this door
    "busy",  # 20429, 429 or 16114: not processed, try again later
    "server",  # 5xx: Twilio failed, whatever the body looks like
    "timeout",  # sent, and no answer we understand: the outcome is unclear
    "unreachable",  # never sent: no name, no connection, no trusted certificate
    "rejected",  # any other refusal: trying again would not help
]

#: What of Twilio's (or a proxy's) sentence is kept: enough for a person, bounded for the store.
MAX_TEXT: Final = 300
_BUSY_CODES: Final = frozenset({20429, 16114})
_UNAUTHORIZED_CODES: Final = frozenset({20003})


class Started(msgspec.Struct, frozen=True):
    """A recording was created."""

    sid: str
    status: str


class Listed(msgspec.Struct, frozen=True):
    """A recording of a call, as Twilio lists it. `duration_s` is -1 where Twilio gives none yet."""

    sid: str
    status: str  # in-progress | paused | stopped | processing | completed | absent
    source: str
    channels: int
    duration_s: int
    error_code: int


class RestError(GatewayError):
    """A request that did not succeed, or may not have. `code` is Twilio's number, 0 where there is none."""

    def __init__(self, kind: Kind, code: int, status: int, text: str) -> None:
        super().__init__(f"{kind} ({code or status}): {text}" if code or status else f"{kind}: {text}")
        self.kind: Kind = kind
        self.code: str = str(code or "")
        self.number = code
        self.status = status
        self.text = text[:MAX_TEXT]

    @property
    def label(self) -> str:
        """The short word a row keeps: Twilio's number where it gave one, else the kind."""
        return self.code or self.kind


def classify(status: int, code: int) -> Kind:
    """What an HTTP status and Twilio's error number mean together.

    Source: Twilio REST errors 21220, 20404, 20003, 20429, 16114.
    """
    if code == 21220:
        return "not_in_progress"
    if code == 20404 or status == 404:
        return "gone"
    if code in _UNAUTHORIZED_CODES or status in (401, 403):
        return "unauthorized"
    if code in _BUSY_CODES or status == 429:
        return "busy"
    if status >= 500:
        return "server"
    return "rejected"


def parse_count(value: object) -> int | None:
    """A count that Twilio sends as a number or as text; None unless it is a whole number of at most nine digits."""
    text = "" if value is None else str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
