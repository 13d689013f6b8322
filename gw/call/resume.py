"""The next step for a caller whose stream ended while the call continues: the answer to Twilio's `action` webhook.

The stream is not the call: a call whose stream or worker broke resumes on another stream, at most MAX_RESUMES times, so that a
call that kills workers does not kill them all. A call whose first stream never began gets another one, once. A call that left its
stream, for a transfer or for digits, comes back by another webhook (`gw.call.leave`). After a fallback the caller is transferred
or hears a goodbye. Any other end is a hang-up, with words before it if the caller has heard none. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from gw.call.leave import OUTCOMES, is_key
from gw.call.state import Reason, Result, result_of

#: Resumes of one call after a failure.
MAX_RESUMES: Final = 3
#: Streams of one call after its first one: those, and returns from transfers and digits.
MAX_STREAMS: Final = 40
#: Turn numbers per stream; those of the call's next stream start above them.
TURNS_PER_STREAM: Final = 100_000
_NUMBERS: Final = tuple(str(n + 1) for n in range(MAX_STREAMS))
#: Longest call (Twilio: 24 hours).
_MAX_AGE_S: Final = 86_400.0

#: Ends of a stream that the call leaves on purpose, to come back unless a transfer succeeds.
LEFT: Final = frozenset({Reason.TRANSFERRED, Reason.DIGITS_SENT})
#: Ends of a stream that leave the caller on the line.
RESUMABLE: Final = LEFT | {
    Reason.NO_STREAM,
    Reason.WORKER_LOST,
    Reason.PHONE_LOST,
    Reason.PHONE_SILENT,
    Reason.PHONE_LEG_STALLED,
    Reason.INTERNAL_ERROR,
}
#: Ends after which the caller hears a closing; after the others, an apology.
_NORMAL: Final = frozenset(reason for reason in Reason if result_of(reason) is Result.SUCCESS) - {Reason.SHUTDOWN}

OnLost = Literal["resume", "goodbye"]


class NextStep(StrEnum):
    """The next action of Twilio."""

    HANG_UP = "hang_up"
    GOODBYE = "goodbye"
    TRANSFER = "transfer"
    RESUME = "resume"


def next_step(reason: str, *, resumes: int, on_lost: OnLost, speak: bool = False) -> NextStep:
    """Choose the next step.

    `reason`: why the stream ended; `resumes`: how often the call has resumed after a failure; `speak`: the caller is owed words.
    """
    if reason in RESUMABLE:
        return NextStep.RESUME if on_lost == "resume" and resumes < MAX_RESUMES else NextStep.GOODBYE
    if reason == Reason.FALLBACK_TRANSFER:
        return NextStep.TRANSFER
    if speak or reason in (Reason.FALLBACK_GOODBYE, Reason.SHUTDOWN):
        return NextStep.GOODBYE
    return NextStep.HANG_UP


def is_normal(reason: str) -> bool:
    """Return whether the last words are a closing and not an apology."""
    return reason in _NORMAL


class Resumed(NamedTuple):
    """A stream that resumes a call.

    `n`: the number of resumes so far; `began_at`: start of the first stream, epoch seconds; `after`: why the last stream ended.
    `left`: the key of a transfer, or of digits, from which the call returns; `outcome`: how that ended.
    """

    n: int
    began_at: float
    after: str = ""
    left: str = ""
    outcome: str = ""

    @property
    def was_heard(self) -> bool:
        """False if no earlier stream began: the caller is greeted as at the first one."""
        return self.after != Reason.NO_STREAM

    def parameters(self) -> dict[str, str]:
        """Return the stream parameters for TwiML."""
        more = {"left": self.left, "outcome": self.outcome} if self.left else {}
        return {"resume": str(self.n), "began": f"{self.began_at:.3f}", "after": self.after, **more}


def parse_resumed(parameters: Mapping[str, str], now_at: float) -> Resumed | None:
    """Parse a stream's parameters; None for a call's first stream, and for invalid values."""
    n = parameters.get("resume")
    if n not in _NUMBERS:
        return None
    try:
        began_at = float(parameters.get("began", ""))
    except ValueError:
        began_at = now_at
    after = parameters.get("after", "")
    is_plausible = now_at - _MAX_AGE_S <= began_at <= now_at
    left, outcome = parameters.get("left", ""), parameters.get("outcome", "")
    is_known = is_key(left) and outcome in OUTCOMES
    return Resumed(
        int(n),
        began_at if is_plausible else now_at,
        after if after in RESUMABLE else "",
        left if is_known else "",
        outcome if is_known else "",
    )
