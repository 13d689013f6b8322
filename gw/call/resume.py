"""What becomes of a caller whose stream is over while the call still stands: the question Twilio's `action` webhook asks.

A call that ended as calls do is hung up. One whose AI could not be had is told or handed on, and one that outlasts a drain is
told that it ends. One whose worker died comes back to a live worker, a bounded number of times, so that a call which kills
workers does not kill one after the other. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from gw.call.state import Reason

#: How often one call may come back.
MAX_RESUMES: Final = 3
#: Turn numbers of one stream; those of the call's next stream begin behind them.
TURNS_PER_STREAM: Final = 100_000
#: A call does not last longer than a day (Twilio: 24 hours).
_MAX_AGE_S: Final = 86_400.0

OnLost = Literal["resume", "goodbye"]


class Step(StrEnum):
    """What Twilio is told to do next."""

    HANG_UP = "hang_up"
    GOODBYE = "goodbye"
    TRANSFER = "transfer"
    RESUME = "resume"


def next_step(reason: str, *, resumes: int, on_lost: OnLost) -> Step:
    """`reason`: why the stream's call ended; `resumes`: how often it came back already."""
    if reason in (Reason.FALLBACK_GOODBYE, Reason.SHUTDOWN):
        return Step.GOODBYE
    if reason == Reason.FALLBACK_TRANSFER:
        return Step.TRANSFER
    if reason == Reason.WORKER_LOST:
        return Step.RESUME if on_lost == "resume" and resumes < MAX_RESUMES else Step.GOODBYE
    return Step.HANG_UP


class Resumed(NamedTuple):
    """A stream that goes on with a call: the how manieth time, and when the call's first stream began, epoch seconds."""

    n: int
    began_at: float

    def parameters(self) -> dict[str, str]:
        """As they travel through TwiML."""
        return {"resume": str(self.n), "began": f"{self.began_at:.3f}"}


def parse_resumed(parameters: Mapping[str, str], now_at: float) -> Resumed | None:
    """What a stream's parameters say; None for a call's first stream, and for what no TwiML of ours says."""
    n = parameters.get("resume", "")
    if not (n.isascii() and n.isdecimal() and 1 <= int(n[:4]) <= MAX_RESUMES):
        return None
    try:
        began_at = float(parameters.get("began", ""))
    except ValueError:
        began_at = now_at
    return Resumed(int(n[:4]), began_at if now_at - _MAX_AGE_S <= began_at <= now_at else now_at)
