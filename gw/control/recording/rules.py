"""What follows each answer on the way from "this call should be recorded" to exactly one recording.

Pure. Decides from an effort's past, Twilio's answer and the time whether to create, to list or to settle the row. The one rule
behind the table: a create is not idempotent, so after an answer that leaves open whether Twilio did it (`timeout`, `server`, or
a control process that died meanwhile) the call's recordings are listed before another create. Never waits, never sends, never
reads a clock.

    answer to a create                 what follows
    started                            settle: started
    not_in_progress                    the call is just being answered: create at +0.3, +0.9, +1.8 s, then settle: failed
    busy, unreachable                  nothing happened: back off, create
    server, timeout                    unclear: back off, list
    gone, unauthorized, rejected       settle: failed

    answer to a list                   what follows
    a recording of ours                settle: as it stands
    none                               create, unless the call is over
    busy, unreachable, server, timeout back off, list
    anything else                      settle: failed

A backoff that would last longer than `retry_s` in all leaves the row as it is: nobody may say `failed` of a recording about which
Twilio said nothing. The reconcile pass takes such a row up again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from gw.control.twilio_api.answers import Kind, Listed, RestError, Started

#: Waits before each further create after 21220. Community evidence: the error passes within a second of the answer.
BECOMING_WAITS_S: Final = (0.3, 0.6, 0.9)
#: The first wait of the backoff; each further one doubles up to the last.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LAST_S: Final = 8.0
#: A wait is its nominal length times 1 -+ this, so that calls that failed together do not come back together.
JITTER: Final = 0.5
#: How Twilio names a recording made by the request of ours.
OUR_SOURCE: Final = "StartCallRecordingAPI"

RowState = Literal["started", "completed", "absent", "failed"]

#: Nothing happened at Twilio: the same request may be sent again.
_CLEAR: Final[frozenset[Kind]] = frozenset({"busy", "unreachable"})
#: Twilio may have done it.
_UNCLEAR: Final[frozenset[Kind]] = frozenset({"server", "timeout"})


class Create(msgspec.Struct, frozen=True):
    """Ask Twilio for a recording, after a wait."""

    after_s: float = 0.0


class List(msgspec.Struct, frozen=True):
    """Ask Twilio which recordings the call has, after a wait."""

    after_s: float = 0.0


class Settle(msgspec.Struct, frozen=True):
    """Write the row's state; the effort is over."""

    state: RowState
    recording_sid: str = ""
    duration_s: int = -1
    error_code: str = ""
    error_text: str = ""


class Later(msgspec.Struct, frozen=True):
    """Twilio gave no clear answer for as long as one effort lasts: the row stays claimed, and the reconcile pass goes on."""

    error_code: str
    error_text: str


Action = Create | List | Settle | Later

_CALL_ENDED: Final = Settle(state="failed", error_code="call_ended", error_text="the call ended before a recording was made")


class Effort(msgspec.Struct, frozen=True):
    """The past of one call's recording. `asked` is what Twilio was asked last."""

    began_s: float  # monotonic
    retry_s: float  # how long one effort tries transient failures again
    asked: Literal["create", "list"] = "create"
    becoming_tries: int = 0  # creates answered 21220 that were tried again
    backoffs: int = 0
    call_over: bool = False  # set by whoever learns that the call ended


def begin(now_s: float, retry_s: float) -> tuple[Effort, Action]:
    """A claim that was just made: nobody has asked Twilio yet."""
    return Effort(began_s=now_s, retry_s=retry_s, asked="create"), Create()


def resume(now_s: float, retry_s: float) -> tuple[Effort, Action]:
    """A claim of an earlier process: a create may have been sent, so its outcome is unclear."""
    return Effort(began_s=now_s, retry_s=retry_s, asked="list"), List()


def decide(effort: Effort, outcome: Started | Sequence[Listed] | RestError, now_s: float, chance: float) -> tuple[Effort, Action]:
    """The effort after `outcome`, and what to do next. `chance` in [0, 1) spreads the waits."""
    if isinstance(outcome, Started):
        return effort, Settle(state="started", recording_sid=outcome.sid)
    if isinstance(outcome, RestError):
        return _after_error(effort, outcome, now_s, chance)
    ours = best_of(outcome)
    if ours is not None:
        return effort, settled(ours)
    if effort.call_over:
        return effort, _CALL_ENDED
    return msgspec.structs.replace(effort, asked="create"), Create()


def held(effort: Effort, held_s: float) -> Effort:
    """The effort after a wait in which nobody was asked: it does not count against `retry_s`."""
    return msgspec.structs.replace(effort, began_s=effort.began_s + held_s)


def revise(effort: Effort, action: Action) -> Action:
    """The action as it is worth taking once its wait is over: no further create for a call that ended meanwhile.

    The first create is sent even then: a stream may end before its call does, and Twilio knows.
    """
    if isinstance(action, Create) and effort.call_over and (effort.becoming_tries or effort.backoffs):
        return _CALL_ENDED
    return action


def best_of(listed: Sequence[Listed], sid: str = "") -> Listed | None:
    """The recording that is the row's: the one with `sid`, else one that our request made, live ones before absent ones."""
    named = [entry for entry in listed if sid and entry.sid == sid]
    made = [entry for entry in listed if entry.source == OUR_SOURCE]
    candidates = named if sid else sorted(made, key=lambda entry: entry.status == "absent")
    return candidates[0] if candidates else None


def speaks_of(settle: Settle, recording_sid: str) -> bool:
    """Whether an outcome may be written to a row that has this recording, or none.

    Another recording's does not; nor does the failure of an effort that learnt of none: a webhook knew better meanwhile.
    """
    return not recording_sid or settle.recording_sid == recording_sid


def settled(entry: Listed) -> Settle:
    """The row's state for a recording as Twilio lists it. Anything between the start and the end counts as started."""
    if entry.status == "completed":
        return Settle(state="completed", recording_sid=entry.sid, duration_s=entry.duration_s)
    if entry.status == "absent":
        code = str(entry.error_code) if entry.error_code else "absent"
        return Settle(state="absent", recording_sid=entry.sid, error_code=code)
    return Settle(state="started", recording_sid=entry.sid)


def _after_error(effort: Effort, error: RestError, now_s: float, chance: float) -> tuple[Effort, Action]:
    if error.kind == "not_in_progress" and effort.asked == "create":
        if effort.call_over or effort.becoming_tries >= len(BECOMING_WAITS_S):
            return effort, _failed(error)
        wait_s = BECOMING_WAITS_S[effort.becoming_tries]
        return msgspec.structs.replace(effort, becoming_tries=effort.becoming_tries + 1), Create(wait_s)
    if error.kind in _UNCLEAR or (error.kind in _CLEAR and effort.asked == "list"):
        # an unclear create of a call that is over is still looked for: the recording may exist
        return _back_off(effort, error, now_s, chance, "list")
    if error.kind in _CLEAR and not effort.call_over:
        return _back_off(effort, error, now_s, chance, "create")
    return effort, _failed(error)


def _back_off(
    effort: Effort, error: RestError, now_s: float, chance: float, asked: Literal["create", "list"]
) -> tuple[Effort, Action]:
    nominal_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0**effort.backoffs)
    wait_s = nominal_s * (1.0 - JITTER + 2.0 * JITTER * chance)
    if now_s + wait_s - effort.began_s > effort.retry_s:
        return effort, Later(error.label, error.text)
    following = msgspec.structs.replace(effort, asked=asked, backoffs=effort.backoffs + 1)
    return following, (List(wait_s) if asked == "list" else Create(wait_s))


def _failed(error: RestError) -> Settle:
    return Settle(state="failed", error_code=error.label, error_text=error.text)
