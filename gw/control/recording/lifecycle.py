"""One recording's way through control, a step at a time: from a wish, or from a claim somebody left, to what its row will say.

Pure. `recording_rules` decides what follows Twilio's answers; here are the steps around it: the claim, which needs the store, and
what is heard of the call meanwhile. The recorder does `act` and says what came of it; the explorer of `gw.verify` does the same
with every answer there may be. Never waits, never asks, never reads a clock.

    act        what is done                          what follows
    Claim      the row is claimed                    ours: create | ours since before: list | another's: leave |
                                                     store away: claim here
    ClaimHere  the claim is kept in the spool        ours: list, for the store may have another's | spool away, or the call
                                                     is not alive here: leave
    Reclaim    an earlier process's claim is taken   ours: list | another's: leave
    Create     Twilio is asked for a recording       `recording_rules.decide`
    List       Twilio is asked which there are       `recording_rules.decide`
    Settle     the row is written                    the end
    Later      nothing                               the end: the row stays claimed, the reconcile pass goes on
    Leave      nothing                               the end: the row is somebody else's, or the reconcile pass's
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gw.control.recording import rules
from gw.control.recording.rules import Create, Effort, Later, List, Settle
from gw.control.twilio_api.answers import Listed, RestError, Started

#: What came of a try to claim: the row is ours now; it was ours before this try, so Twilio may have been asked; it is another's;
#: who keeps it is away, and may have written the claim.
Claimed = Literal["ours", "found", "theirs", "away"]
#: The states a row may be taken over from.
Left = Literal["claimed", "failed"]


class Claim(msgspec.Struct, frozen=True):
    """Make the row ours. `lists`: somebody may have asked Twilio before, so its list decides."""

    lists: bool = False


class ClaimHere(msgspec.Struct, frozen=True):
    """The store is away: keep the claim in this host's spool until the store has it."""


class Reclaim(msgspec.Struct, frozen=True):
    """Take over a row that `from_owner`, which is gone or gave up, left in `state`."""

    from_owner: str
    state: Left = "claimed"


class Leave(msgspec.Struct, frozen=True):
    """Do no more. `store_away`: the wish stays in the spool."""

    why: Literal["duplicate", "taken", "store_away"]


Act = Claim | ClaimHere | Reclaim | Create | List | Settle | Later | Leave


class Course(msgspec.Struct, frozen=True):
    """Where one recording stands. `effort` begins anew when the claim is made."""

    act: Act
    effort: Effort
    here: bool = False  # claimed in the spool, which other hosts do not see
    taken: bool = False  # the row turned out to be another's


def wished(now_s: float, retry_s: float, *, lists: bool = False) -> Course:
    """Somebody wishes a recording: the row is to be claimed. `lists`: the wish is not new."""
    return Course(Claim(lists), Effort(began_s=now_s, retry_s=retry_s))


def left_behind(now_s: float, retry_s: float, from_owner: str, *, create: bool, state: Left = "claimed") -> Course:
    """A row that `from_owner` left in `state`. Without `create`, only what Twilio has is settled."""
    return Course(Reclaim(from_owner, state), Effort(began_s=now_s, retry_s=retry_s, asked="list", call_over=not create))


def on_call_over(course: Course) -> Course:
    """The call ended: nothing new is tried for it."""
    return msgspec.structs.replace(course, effort=msgspec.structs.replace(course.effort, call_over=True))


def on_taken(course: Course) -> Course:
    """The store is back and says that the row is another host's: nothing is created here any more."""
    return msgspec.structs.replace(course, taken=True)


def on_held(course: Course, held_s: float) -> Course:
    """Nobody was asked for `held_s`, since Twilio is down."""
    return msgspec.structs.replace(course, effort=rules.held(course.effort, held_s))


def when_due(course: Course, *, owned: bool) -> Course:
    """The wait before `act` is over: is it still to be done? `owned`: the call is alive at a worker of this host.

    A claim other hosts do not see is good for a call that is alive here alone: it may have gone to another host, whose claim this
    one does not see either.
    """
    if isinstance(course.act, Create) and (course.taken or (course.here and not owned)):
        return _left(course, "taken")
    if isinstance(course.act, Create | List):
        return msgspec.structs.replace(course, act=rules.revise(course.effort, course.act))
    return course


def on_claim(course: Course, answer: Claimed, now_s: float) -> Course:
    """A try to claim, here or in the store, or to take over a claim, came back."""
    retry_s = course.effort.retry_s
    match course.act:
        case Reclaim():
            return _begun(course, *rules.resume(now_s, retry_s)) if answer == "ours" else _left(course, "taken")
        case ClaimHere():
            if answer != "ours":
                return _left(course, "store_away")
            return msgspec.structs.replace(_begun(course, *rules.resume(now_s, retry_s)), here=True)
        case Claim(lists=lists):
            if answer == "theirs":
                return _left(course, "duplicate")
            if answer == "away":
                return msgspec.structs.replace(course, act=ClaimHere())
            fresh = answer == "ours" and not lists
            return _begun(course, *(rules.begin(now_s, retry_s) if fresh else rules.resume(now_s, retry_s)))
    raise AssertionError(f"nobody claims at {course.act}")


def on_answer(course: Course, answer: Started | list[Listed] | RestError, now_s: float, chance: float) -> Course:
    """Twilio answered, or did not."""
    effort, action = rules.decide(course.effort, answer, now_s, chance)
    return msgspec.structs.replace(course, act=action, effort=effort)


def _begun(course: Course, effort: Effort, action: rules.Action) -> Course:
    """The claim is ours; what is known of the call stays known."""
    return Course(action, msgspec.structs.replace(effort, call_over=course.effort.call_over), course.here, course.taken)


def _left(course: Course, why: Literal["duplicate", "taken", "store_away"]) -> Course:
    return msgspec.structs.replace(course, act=Leave(why))
