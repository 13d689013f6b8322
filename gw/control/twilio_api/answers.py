"""Answers of Twilio's REST API as values: a result, a listing, or one typed error for everything else.

Pure. The error's kind, from HTTP status and error number, states whether Twilio did the thing, did not, or may have.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final, Literal

import msgspec

from gw.errors import GatewayError

Kind = Literal[
    "not_in_progress",  # 21220: the call is not in progress (yet, or any more)
    "gone",  # 20404 or 404: no such call
    "unauthorized",  # 20003, 401 or 403: the credentials are refused
    "busy",  # 20429, 429 or 16114: not processed, try again later
    "server",  # 5xx: Twilio failed, whatever the body looks like
    "timeout",  # sent, but without a readable answer: the outcome is unclear
    "unreachable",  # never sent: no address, no connection, no trusted certificate
    "rejected",  # any other refusal: a retry would not help
]

#: Kinds after which Twilio has not carried out a request, and after which it may have.
UNPROCESSED: Final[frozenset[Kind]] = frozenset({"busy", "unreachable"})
UNCLEAR: Final[frozenset[Kind]] = frozenset({"server", "timeout"})
#: Characters kept of the message of Twilio or a proxy: enough for a person, bounded for the store.
MAX_TEXT: Final = 300
#: Longest wait that a Retry-After may cause.
MAX_RETRY_AFTER_S: Final = 60.0
_BUSY_CODES: Final = frozenset({20429, 16114})
_UNAUTHORIZED_CODES: Final = frozenset({20003})


class Started(msgspec.Struct, frozen=True):
    """A recording was created."""

    sid: str
    status: str


class Listed(msgspec.Struct, frozen=True):
    """A recording in a call's listing. `duration_s` is -1 while Twilio has none."""

    sid: str
    status: str  # in-progress | paused | stopped | processing | completed | absent | failed
    source: str
    channels: int
    duration_s: int
    error_code: int


class RestError(GatewayError):
    """A request that did not succeed, or may not have. `code` is Twilio's number, 0 without one."""

    def __init__(self, kind: Kind, code: int, status: int, text: str, retry_after_s: float = 0.0) -> None:
        """`retry_after_s`: the time before a further request, as Twilio asks."""
        super().__init__(f"{kind} ({code or status}): {text}" if code or status else f"{kind}: {text}")
        self.kind: Kind = kind
        self.code: str = str(code or "")
        self.number = code
        self.status = status
        self.text = text[:MAX_TEXT]
        self.retry_after_s = retry_after_s

    @property
    def label(self) -> str:
        """The error code kept in a row: Twilio's number, else the kind."""
        return self.code or self.kind


def classify(status: int, code: int) -> Kind:
    """Classify an error by its HTTP status and Twilio's error number, 0 without one.

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


def parse_retry_after(value: str, now: float) -> float:
    """Parse a Retry-After field, seconds or an HTTP date, at epoch time `now`.

    Returns: seconds to wait, at most MAX_RETRY_AFTER_S; 0.0 for a value in the past or without a meaning.
    Source: RFC 9110 10.2.3.
    """
    seconds: float | None = parse_count(value)
    if seconds is None:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return min(MAX_RETRY_AFTER_S, max(0.0, seconds))


def parse_count(value: object) -> int | None:
    """Parse a count that Twilio sends as a number or as text. None unless it has one to nine digits."""
    text = "" if value is None else str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
