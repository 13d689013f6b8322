"""The next step for a caller whose stream ended while the call continues: the answer to Twilio's `action` webhook.

A call that ended normally is hung up. After a fallback the caller hears a goodbye or is transferred; a call that outlasts a drain
gets the goodbye. A call whose worker died resumes on a live worker, at most MAX_RESUMES times, so that a call that kills workers
does not kill them all. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from gw.call.state import Reason

#: Resumes of one call.
MAX_RESUMES: Final = 3
#: Turn numbers per stream; those of the call's next stream start above them.
TURNS_PER_STREAM: Final = 100_000
_NUMBERS: Final = tuple(str(n + 1) for n in range(MAX_RESUMES))
#: Longest call (Twilio: 24 hours).
_MAX_AGE_S: Final = 86_400.0

OnLost = Literal["resume", "goodbye"]


class NextStep(StrEnum):
    """The next action of Twilio."""

    HANG_UP = "hang_up"
    GOODBYE = "goodbye"
    TRANSFER = "transfer"
    RESUME = "resume"


def next_step(reason: str, *, resumes: int, on_lost: OnLost) -> NextStep:
    """Choose the next step. `reason`: why the call ended; `resumes`: how often it has resumed."""
    if reason in (Reason.FALLBACK_GOODBYE, Reason.SHUTDOWN):
        return NextStep.GOODBYE
    if reason == Reason.FALLBACK_TRANSFER:
        return NextStep.TRANSFER
    if reason == Reason.WORKER_LOST:
        return NextStep.RESUME if on_lost == "resume" and resumes < MAX_RESUMES else NextStep.GOODBYE
    return NextStep.HANG_UP


class Resumed(NamedTuple):
    """A stream that resumes a call. `n`: the number of resumes so far; `began_at`: start of the first stream, epoch seconds."""

    n: int
    began_at: float

    def parameters(self) -> dict[str, str]:
        """Return the stream parameters for TwiML."""
        return {"resume": str(self.n), "began": f"{self.began_at:.3f}"}


def parse_resumed(parameters: Mapping[str, str], now_at: float) -> Resumed | None:
    """Parse a stream's parameters; None for a call's first stream, and for invalid values."""
    n = parameters.get("resume")
    if n not in _NUMBERS:
        return None
    try:
        began_at = float(parameters.get("began", ""))
    except ValueError:
        began_at = now_at
    return Resumed(int(n), began_at if now_at - _MAX_AGE_S <= began_at <= now_at else now_at)
