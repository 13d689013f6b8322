"""Record of an AI session, for comparison with the gateway's own figures.

Plain values, written by the session, read by tests, demo and bench. Times are `time.monotonic()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from gw.twin.sound import BYTES_PER_MS, find_tag

KEPT_EVENTS: Final = 10_000
KEPT_UPLINK_BYTES: Final = 64 << 20  # over two hours of one caller
_TAG_WITHIN_BYTES: Final = 1 << 16  # a tag is at the start of the call


class Received(NamedTuple):
    """A client event other than audio."""

    at_s: float
    kind: str
    body: Mapping[str, Any]


class Truncate(NamedTuple):
    """`conversation.item.truncate`, and whether it was accepted."""

    at_s: float
    item_id: str
    audio_end_ms: int
    accepted: bool


class SentError(NamedTuple):
    """An error event sent to the client."""

    at_s: float
    code: str
    message: str


class Delta(NamedTuple):
    """One piece of sent audio."""

    at_s: float
    size: int


@dataclass(slots=True)
class SentResponse:
    """A response and its audio item."""

    number: int  # 1 for the session's first
    response_id: str
    item_id: str
    asked: bool  # by response.create; else started by voice detection
    intended: bytes
    words: str
    created_s: float
    audio: bytearray = field(default_factory=bytearray)  # sent so far
    deltas: list[Delta] = field(default_factory=list)
    status: str = "in_progress"
    reason: str = ""  # of a cancellation
    done_s: float | None = None
    truncated_ms: int | None = None

    @property
    def is_active(self) -> bool:
        return self.status == "in_progress"

    @property
    def sent_ms(self) -> int:
        """Length of the item so far: the bound on a truncate."""
        return len(self.audio) // BYTES_PER_MS


@dataclass(slots=True)
class AiLedger:
    """Record of one session."""

    index: int
    path: str
    model: str
    headers: Mapping[str, str]
    connected_s: float
    ready_s: float | None = None  # session.updated was sent
    updates: list[Mapping[str, Any]] = field(default_factory=list)  # each session.update's `session`
    responses: list[SentResponse] = field(default_factory=list)
    uplink: bytearray = field(default_factory=bytearray)  # the caller's audio as received
    appends: int = 0
    first_append_s: float | None = None
    last_append_s: float | None = None
    events: deque[Received] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    truncates: list[Truncate] = field(default_factory=list)
    errors: list[SentError] = field(default_factory=list)
    tool_outputs: list[Mapping[str, Any]] = field(default_factory=list)
    turns_ms: list[tuple[int, int]] = field(default_factory=list)  # the caller's turns: start and end
    violations: list[str] = field(default_factory=list)  # acts of the client that are allowed but careless
    closed_s: float | None = None
    closed_by: str = ""  # peer, us, lost, silence
    close_code: int | None = None

    @property
    def is_over(self) -> bool:
        return self.closed_s is not None

    @property
    def audio(self) -> bytes:
        """Audio of all responses, in sequence."""
        return b"".join(bytes(response.audio) for response in self.responses)

    @property
    def tag(self) -> int | None:
        """The number that the caller's first audio carried; it identifies the call."""
        return find_tag(bytes(self.uplink[:_TAG_WITHIN_BYTES]))

    def kinds(self) -> list[str]:
        """Return the types of the client events other than audio, in sequence."""
        return [event.kind for event in self.events]
