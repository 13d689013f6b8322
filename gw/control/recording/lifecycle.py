"""State machine of one call's recording: from a wish, or an abandoned claim, to the outcome written into its row.

Pure. A `Lifecycle` names the next action; the recorder takes that action and reports the result by an `on_` method, which returns
the following `Lifecycle`. The explorer of `gw.verify` does the same with every possible result. `TRANSITIONS` is the machine:

    action      done by the recorder              result                             next
    Claim       claims the row in the store       ours                               Create
                                                  found: Twilio may have been asked  List
                                                  theirs                             Leave
                                                  away: the store is unavailable     ClaimHere
    ClaimHere   keeps the claim in the spool      ours                               List: another host may have a claim too
                                                  away, or the call lives elsewhere  Leave
    Reclaim     takes over an abandoned claim     ours                               List
                                                  theirs                             Leave
    Create      asks Twilio for a recording       started                            Outcome: started
                                                  not_in_progress                    Create at +0.3, +0.9, +1.8 s, then failed
                                                  gone, of a call alive here         the same: Twilio does not know it yet
                                                  busy, unreachable, unauthorized    Create after a backoff: nothing happened
                                                  server, timeout                    List after a backoff: unclear
                                                  rejected, or gone otherwise        Outcome: failed
    List        lists the call's recordings       listed: one that we made           Outcome: as listed
                                                  none                               Create, unless the call is over
                                                  gone, of a call alive here         List at +0.3, +0.9, +1.8 s, then failed
                                                  gone otherwise, not_in_progress,
                                                  rejected                           Outcome: failed
                                                  any other error                    List after a backoff
    Outcome     writes the row                    final
    Later       nothing                           final: the row stays claimed, for the reconcile pass
    Leave       nothing                           final: another process, or the reconcile pass, handles the row

One rule is behind the table: a create is not idempotent. After an answer that leaves open whether Twilio made a recording
(`timeout`, `server`, or a control process that died), the call's recordings are listed before another create. A backoff beyond
`retry_s` ends in `Later`: without a clear answer from Twilio the row must not become `failed`. The time that Twilio requests in
Retry-After does not count. Refused credentials are the operator's to repair, so the recording waits for them too.

A create refused because the call is over (`call_over`) does not count as failed: the caller hung up in the first moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from gw.control.twilio_api.answers import Kind, Listed, RestError, Started

#: Waits before each further request after 21220 or 404: Twilio answers both for a moment to calls that are alive.
#: Community evidence: 21220 passes within a second of the answer; twilio/twilio-node#936 on 404.
BECOMING_WAITS_S: Final = (0.3, 0.6, 0.9)
#: The first wait of the backoff; each further one doubles up to the last.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LAST_S: Final = 8.0
#: A wait is its nominal length times 1 -+ this, so that calls that failed together do not retry together.
JITTER: Final = 0.5
#: Twilio's `source` of a recording that our request made.
OUR_SOURCE: Final = "StartCallRecordingAPI"
#: Our code of a call that was over before Twilio could record it.
CALL_OVER: Final = "call_over"
#: Twilio's statuses of a recording without audio.
LOST: Final = ("absent", "failed")

#: States in which a row may be abandoned.
Abandoned = Literal["claimed", "failed"]


# -- actions ----------------------------------------------------------------------------------------------------------------


class Claim(msgspec.Struct, frozen=True):
    """Claim the row. `lists`: Twilio may have been asked before, so its list decides."""

    lists: bool = False


class ClaimHere(msgspec.Struct, frozen=True):
    """Keep the claim in this host's spool until the store is back."""


class Reclaim(msgspec.Struct, frozen=True):
    """Take over a row that `from_owner`, which is gone or gave up, left in `state`."""

    from_owner: str
    state: Abandoned = "claimed"


class Create(msgspec.Struct, frozen=True):
    """Ask Twilio for a recording, after a wait."""

    after_s: float = 0.0


class List(msgspec.Struct, frozen=True):
    """Ask Twilio for the call's recordings, after a wait."""

    after_s: float = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """Write this into the row. `error_code` is Twilio's number, or our own short code."""

    state: Literal["started", "completed", "absent", "failed"]
    recording_sid: str = ""
    duration_s: int = -1
    error_code: str = ""
    error_text: str = ""

    def applies_to(self, recording_sid: str) -> bool:
        """Return whether a row with this recording, empty for none, may get the outcome.

        The outcome of another recording may not. Nor may a failure without a recording: a webhook reported one meanwhile.
        """
        return not recording_sid or self.recording_sid == recording_sid


class Later(msgspec.Struct, frozen=True):
    """Leave the row claimed for the reconcile pass: Twilio gave no clear answer within `retry_s`."""

    error_code: str
    error_text: str


class Leave(msgspec.Struct, frozen=True):
    """Do no more. `store_away`: the wish stays in the spool."""

    reason: Literal["duplicate", "taken", "store_away"]


Action = Claim | ClaimHere | Reclaim | Create | List | Outcome | Later | Leave

# -- the table --------------------------------------------------------------------------------------------------------------

#: Result of a claim. `found`: the row was ours before, or the store was away, so Twilio may have been asked. `away`: the claim
#: may have been written.
ClaimResult = Literal["ours", "found", "theirs", "away"]
Result = ClaimResult | Literal["started", "listed", "none"] | Kind
Transition = Literal[
    "claim_here",
    "create",
    "create_soon",  # the call is being answered: after the next of BECOMING_WAITS_S
    "create_alive",  # the same, while the call is alive here; otherwise `fail`
    "create_later",  # after a backoff
    "list",
    "list_soon",
    "list_alive",
    "list_later",  # after a backoff
    "record",  # the recording that Twilio named
    "fail",  # with Twilio's error
    "call_ended",
    "duplicate",
    "taken",
    "store_away",
]

TRANSITIONS: Final[dict[type[Action], dict[Result, Transition]]] = {
    Claim: {"ours": "create", "found": "list", "theirs": "duplicate", "away": "claim_here"},
    ClaimHere: {"ours": "list", "away": "store_away"},
    Reclaim: {"ours": "list", "theirs": "taken"},
    Create: {
        "started": "record",
        "not_in_progress": "create_soon",
        "busy": "create_later",
        "unreachable": "create_later",
        "server": "list_later",
        "timeout": "list_later",
        "gone": "create_alive",
        "unauthorized": "create_later",
        "rejected": "fail",
    },
    List: {
        "listed": "record",
        "none": "create",
        "busy": "list_later",
        "unreachable": "list_later",
        "server": "list_later",
        "timeout": "list_later",
        "not_in_progress": "fail",
        "gone": "list_alive",
        "unauthorized": "list_later",
        "rejected": "fail",
    },
}
#: Steps after Twilio's answers that change once the call is over: nothing is created. An unclear create is still looked for.
ONCE_OVER: Final[dict[Transition, Transition]] = {
    "create": "call_ended",
    "create_soon": "fail",
    "create_later": "fail",
    "list_soon": "fail",
}
#: Steps that need a call alive at a worker of this host.
ALIVE: Final[dict[Transition, Transition]] = {"create_alive": "create_soon", "list_alive": "list_soon"}

_CALL_ENDED: Final = Outcome("failed", error_code="call_ended", error_text="the call ended before a recording was made")
_CALL_OVER: Final = Outcome("failed", error_code=CALL_OVER, error_text="the call was over before Twilio could record it")
_FIXED: Final[dict[Transition, Action]] = {
    "claim_here": ClaimHere(),
    "create": Create(),
    "list": List(),
    "call_ended": _CALL_ENDED,
    "duplicate": Leave("duplicate"),
    "taken": Leave("taken"),
    "store_away": Leave("store_away"),
}


class Lifecycle(msgspec.Struct, frozen=True):
    """One recording under way: the next action, and the history that decides what follows."""

    action: Action
    began_s: float  # monotonic; set anew by the claim
    retry_s: float  # how long transient failures are retried
    becoming_tries: int = 0  # requests answered 21220 or 404 and retried
    backoffs: int = 0
    call_over: bool = False
    here: bool = False  # claimed in the spool, which other hosts do not see
    taken: bool = False  # the row turned out to be another host's

    def on_call_over(self) -> Lifecycle:
        """The call ended: nothing new is tried for it."""
        return msgspec.structs.replace(self, call_over=True)

    def on_taken(self) -> Lifecycle:
        """The store is back and has another host's claim: nothing is created here any more."""
        return msgspec.structs.replace(self, taken=True)

    def on_held(self, held_s: float) -> Lifecycle:
        """Twilio is down, and was not asked for `held_s`. That time does not count against `retry_s`."""
        return msgspec.structs.replace(self, began_s=self.began_s + held_s)

    def when_due(self, *, owned: bool) -> Lifecycle:
        """Revise the action when its wait is over.

        `owned`: the call is alive at a worker of this host. A claim in the spool permits a create only for such a call: another
        host may have the call, and a claim in its own spool.

        The first create is sent even after the call's end: a stream may end before its call does, and Twilio's answer decides.
        """
        if not isinstance(self.action, Create):
            return self
        if self.taken or (self.here and not owned):
            return self._next(_FIXED["taken"])
        if self.call_over and (self.becoming_tries or self.backoffs):
            return self._next(_CALL_ENDED if self.backoffs else _CALL_OVER)
        return self

    def on_claim(self, result: ClaimResult, now_s: float) -> Lifecycle:
        """Result of a claim in the store, a claim in the spool, or a takeover. Raises KeyError in another state."""
        if isinstance(self.action, Claim) and self.action.lists and result == "ours":
            result = "found"
        step = TRANSITIONS[type(self.action)][result]
        here = self.here or (step == "list" and isinstance(self.action, ClaimHere))
        return msgspec.structs.replace(self, action=_FIXED[step], began_s=now_s, here=here)

    def on_answer(self, answer: Started | Sequence[Listed] | RestError, now_s: float, chance: float, *, owned: bool) -> Lifecycle:
        """Twilio's answer, or the lack of one. Raises KeyError in another state.

        `chance` in [0, 1) spreads the waits; `owned`: the call is alive at a worker of this host.
        """
        result, outcome = _read(answer)
        step = TRANSITIONS[type(self.action)][result]
        if step in ALIVE:
            step = ALIVE[step] if owned else "fail"
        if self.call_over:
            step = ONCE_OVER.get(step, step)
        if step in ("create_soon", "list_soon"):
            if self.becoming_tries < len(BECOMING_WAITS_S):
                kind = Create if step == "create_soon" else List
                soon = kind(BECOMING_WAITS_S[self.becoming_tries])
                return msgspec.structs.replace(self, action=soon, becoming_tries=self.becoming_tries + 1)
            step = "fail"
        if step == "fail" and isinstance(self.action, Create) and result in ("not_in_progress", "gone"):
            hung_up = (self.call_over or not owned) and not self.backoffs
            return self._next(_CALL_OVER if hung_up else outcome)
        if step in ("record", "fail"):
            return self._next(outcome)
        if step in ("create_later", "list_later"):
            asked_s = answer.retry_after_s if isinstance(answer, RestError) else 0.0
            return self.on_held(asked_s)._back_off(Create if step == "create_later" else List, outcome, now_s, chance, asked_s)
        return self._next(_FIXED[step])

    def _next(self, action: Action) -> Lifecycle:
        return msgspec.structs.replace(self, action=action)

    def _back_off(self, then: type[Create | List], failed: Outcome, now_s: float, chance: float, asked_s: float) -> Lifecycle:
        nominal_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0**self.backoffs)
        wait_s = asked_s + nominal_s * (1.0 - JITTER + 2.0 * JITTER * chance)
        if now_s + wait_s - self.began_s > self.retry_s:
            return self._next(Later(failed.error_code, failed.error_text))
        return msgspec.structs.replace(self, action=then(wait_s), backoffs=self.backoffs + 1)


def begin(now_s: float, retry_s: float, *, lists: bool = False) -> Lifecycle:
    """A recording is wanted. `lists`: the wish is not new, so Twilio may have been asked."""
    return Lifecycle(Claim(lists), now_s, retry_s)


def resume_claim(now_s: float, retry_s: float, from_owner: str, *, create: bool, state: Abandoned = "claimed") -> Lifecycle:
    """A row was left in `state` by `from_owner`. Without `create`, only an existing recording is looked for."""
    return Lifecycle(Reclaim(from_owner, state), now_s, retry_s, call_over=not create)


def best_of(listed: Sequence[Listed], sid: str = "") -> Listed | None:
    """The row's recording: the one with `sid`, else one that our request made, those without audio last."""
    if sid:
        return next((entry for entry in listed if entry.sid == sid), None)
    ours = [entry for entry in listed if entry.source == OUR_SOURCE]
    return min(ours, key=lambda entry: entry.status in LOST, default=None)


def outcome_of(entry: Listed) -> Outcome:
    """The outcome for a recording as Twilio lists it. Any status between the start and the end counts as started."""
    if entry.status == "completed":
        return Outcome("completed", entry.sid, entry.duration_s)
    if entry.status in LOST:
        return lost(entry.status, entry.sid, str(entry.error_code or ""))
    return Outcome("started", entry.sid)


def lost(status: str, sid: str, error_code: str) -> Outcome:
    """The outcome for a recording with one of the statuses in LOST: the row becomes `absent`, whatever Twilio calls it.

    Twilio's `failed` is not documented in its API, only in a help article: an encrypted recording without a key, or an internal
    error.
    """
    if status == "failed":
        return Outcome("absent", sid, error_code=error_code or "recording_failed", error_text="the recording failed at Twilio")
    return Outcome("absent", sid, error_code=error_code or "absent")


def _read(answer: Started | Sequence[Listed] | RestError) -> tuple[Result, Outcome]:
    """The result that `answer` is in the table, and the outcome if the lifecycle ends here."""
    if isinstance(answer, Started):
        return "started", Outcome("started", answer.sid)
    if isinstance(answer, RestError):
        return answer.kind, Outcome("failed", error_code=answer.label, error_text=answer.text)
    ours = best_of(answer)
    return ("none", _CALL_ENDED) if ours is None else ("listed", outcome_of(ours))
