"""One recording's way through control, a step at a time: from a wish, or from a claim somebody left, to what its row will say.

Pure. `recording_rules` decides what follows Twilio's answers; here are the steps around it: the claim, which needs the store, and
what is heard of the call meanwhile. The recorder does `act` and says what came of it; the explorer of `gw.verify` does the same
with every answer there may be. Never waits, never asks, never reads a clock.

    act        what is done                          what follows
    Claim      the row is claimed                    ours: create | ours since before: list | another's: leave |
                                                     store away: wait, claim, then leave
    Reclaim    an earlier process's claim is taken   ours: list | another's: leave
    Create     Twilio is asked for a recording       `recording_rules.decide`
    List       Twilio is asked which there are       `recording_rules.decide`
    Settle     the row is written                    the end
    Leave      nothing                               the end: the row is somebody else's, or the reconcile pass's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gw.control import recording_rules as rules
from gw.control.recording_rules import Create, Effort, List, Settle
from gw.control.rest_answers import Listed, RestError, Started

#: Waits between tries of a claim while the store is away: the first doubles up to the last, spread by half.
STORE_WAIT_FIRST_S: Final = 0.1
STORE_WAIT_LAST_S: Final = 2.0

#: What came of a try to claim: the row is ours now; it was ours before this try, so Twilio may have been asked; it is another's;
#: the store is away and may have written the claim.
Claimed = Literal["ours", "found", "theirs", "away"]


class Claim(msgspec.Struct, frozen=True):
    """Make the row ours, after a wait. `unclear`: an earlier try may have been written, so the row is read first."""

    after_s: float = 0.0
    unclear: bool = False


class Reclaim(msgspec.Struct, frozen=True):
    """Take over the claim of `from_owner`, which is gone."""

    from_owner: str
    after_s: float = 0.0


class Leave(msgspec.Struct, frozen=True):
    """Do no more. `store_away`: the wish stays in the spool."""

    why: Literal["duplicate", "taken", "store_away"]


Act = Claim | Reclaim | Create | List | Settle | Leave


class Course(msgspec.Struct, frozen=True):
    """Where one recording stands. `effort` begins anew when the claim is made."""

    act: Act
    effort: Effort
    store_tries: int = 0


def wished(now_s: float, retry_s: float) -> Course:
    """Somebody wishes a recording: the row is to be claimed."""
    return Course(Claim(), Effort(began_s=now_s, retry_s=retry_s))


def left_behind(now_s: float, retry_s: float, from_owner: str, *, create: bool) -> Course:
    """A row that `from_owner` claimed and left. Without `create`, only what Twilio has is settled."""
    return Course(Reclaim(from_owner), Effort(began_s=now_s, retry_s=retry_s, asked="list", call_over=not create))


def on_call_over(course: Course) -> Course:
    """The call ended: nothing new is tried for it."""
    return msgspec.structs.replace(course, effort=msgspec.structs.replace(course.effort, call_over=True))


def is_claim_of(owner: str, row: Mapping[str, Any] | None) -> bool:
    """Whether the row stands claimed by `owner`: by a try whose answer was lost, or by an earlier course that could not end it.

    Which of the two, nobody can tell: Twilio may have been asked already.
    """
    return row is not None and row["owner"] == owner and row["state"] == "claimed"


def when_due(course: Course) -> Course:
    """The wait before `act` is over: is it still worth doing?"""
    if isinstance(course.act, Create | List):
        return msgspec.structs.replace(course, act=rules.revise(course.effort, course.act))
    return course


def on_claim(course: Course, answer: Claimed, now_s: float, chance: float) -> Course:
    """A try to claim, or to take over a claim, came back. `chance` in [0, 1) spreads the waits."""
    if isinstance(course.act, Reclaim):
        return _begun(course, *rules.resume(now_s, course.effort.retry_s)) if answer == "ours" else _left(course, "taken")
    if answer == "ours":
        return _begun(course, *rules.begin(now_s, course.effort.retry_s))
    if answer == "found":
        return _begun(course, *rules.resume(now_s, course.effort.retry_s))
    if answer == "theirs":
        return _left(course, "duplicate")
    nominal_s = min(STORE_WAIT_LAST_S, STORE_WAIT_FIRST_S * 2.0**course.store_tries)
    if now_s + nominal_s - course.effort.began_s > course.effort.retry_s:
        return _left(course, "store_away")
    again = Claim(nominal_s * (0.5 + chance), unclear=True)
    return msgspec.structs.replace(course, act=again, store_tries=course.store_tries + 1)


def on_answer(course: Course, answer: Started | list[Listed] | RestError, now_s: float, chance: float) -> Course:
    """Twilio answered, or did not."""
    effort, action = rules.decide(course.effort, answer, now_s, chance)
    return msgspec.structs.replace(course, act=action, effort=effort)


def _begun(course: Course, effort: Effort, action: rules.Action) -> Course:
    """The claim is ours; what is known of the call stays known."""
    return Course(action, msgspec.structs.replace(effort, call_over=course.effort.call_over))


def _left(course: Course, why: Literal["duplicate", "taken", "store_away"]) -> Course:
    return msgspec.structs.replace(course, act=Leave(why))
