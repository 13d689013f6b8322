"""Mutants of the guard, its callers and the recorder, each caught by the expected invariant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from gw.control.bus import server
from gw.control.calls import status_callbacks
from gw.control.recording import lifecycle, reconcile, recorder
from gw.control.recording import rows as recording_rows
from gw.control.recording.lifecycle import Action, Claim, ClaimHere, Create, List, Reclaim, Result, Transition
from gw.control.store import events, recordings
from gw.media import ai_out, tx
from gw.verify.changes import Cell, Change, Value, changed
from gw.verify.explorer import Explorer
from gw.verify.guard import model
from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.model import (
    ANNOUNCED,
    ASKED_ONCE,
    NOT_BEFORE,
    NOT_BLOCKED,
    ONE,
    PROMPT,
    SETTLES,
    STARTED,
    TRUE,
    GuardModel,
    Scenario,
)

GUARD = "gw.call.guard:RecordingGuard.may_start"
TURN, RUN, COUNT = "gw.media.ai_out:AiOut._ask", "gw.media.ai_out:AiOut.run", "gw.media.tx:Tx._count"
assert ai_out, tx
LIFECYCLE, ROWS, STORE = lifecycle.__name__, recording_rows.__name__, recordings.__name__
ON_EVENT, TAKE_UP = f"{recorder.__name__}:Recorder.on_event", f"{recorder.__name__}:Recorder.take_up"
NEXT, PASS, LOOK = (f"{reconcile.__name__}:{name}" for name in ("reconcile_step", "Reconciler.pass_over", "Reconciler._look"))


class Mutant(NamedTuple):
    """A change of production code, faults that expose it, and the invariant that catches it."""

    name: str
    change: Change
    caught_by: str
    faults: str = ""
    budget: int = 1
    hosts: int = 1
    notice: bool = False
    of_the_store: bool = False  # the store's answers must not come from the cache


def in_store(name: str, change: Change, caught_by: str, faults: str = "", budget: int = 1, hosts: int = 1) -> Mutant:
    return Mutant(name, change, caught_by, faults, budget, hosts, of_the_store=True)


def transition(action: type[Action], result: Result, then: Transition) -> Cell:
    """Another transition after `result` of `action`."""
    return Cell(f"{LIFECYCLE}:TRANSITIONS", action, result, then)


MUTANTS = (
    # -- the guard and its callers
    Mutant("the guard does not store its start", Change(GUARD, "self.recording_started = True", "pass"), ASKED_ONCE),
    Mutant("the guard does not check the flag", Change(GUARD, " or not first_audio_sent", ""), NOT_BEFORE),
    Mutant("the guard does not wait for the notice", Change(GUARD, "not self.is_announced or ", ""), ANNOUNCED, notice=True),
    Mutant(
        "the guard waits for ever after the notice",
        Change(GUARD, "not self.is_announced or ", "self.is_announced or "),
        PROMPT,
        notice=True,
    ),
    Mutant("the guard passes over a full pool", Change(GUARD, " or not pool_has_room", ""), NOT_BLOCKED, "pool full"),
    Mutant(
        "a full pool uses up the start",
        Change(
            GUARD,
            "if not self.enabled or self.recording_started or not first_audio_sent or not pool_has_room:",
            "if first_audio_sent and not pool_has_room:\n        self.recording_started = True\n    if self.recording_started:",
        ),
        PROMPT,
        "pool full",
    ),
    Mutant("the guard is never asked", Change(TURN, "if self._guard.may_start", "if False and self._guard.may_start"), PROMPT),
    Mutant(
        "the guard is asked only while there is audio",
        Change(TURN, "if self._guard.may_start", "if not self.playout.is_empty and self._guard.may_start"),
        PROMPT,
    ),
    Mutant("the guard is asked before the flag", Change(TURN, "first_audio_sent=sent", "first_audio_sent=True"), NOT_BEFORE),
    Mutant("AI-out asks no more when it ends", Change(RUN, "for _ in range(LAST_ASKS):", "for _ in ():"), ASKED_ONCE),
    Mutant("AI-out waits for audio without a bound", Change(RUN, "self._wake.wait(TURN_S)", "self._wake.wait()"), PROMPT),
    Mutant("AI-out's turns are too far apart", Value("gw.media.ai_out:TURN_S", 3.0), PROMPT),
    Mutant("TX never sets the flag", Change(COUNT, "self.first_audio_sent = True", "pass"), PROMPT),
    Mutant(
        "TX sets the flag for a frame that did not leave",
        Change(COUNT, "if taken and not self.first_audio_sent", "if not self.first_audio_sent"),
        NOT_BEFORE,
        "kernel full",
    ),
    # -- the bus and the recorder
    Mutant(
        "control takes a new event for an old one",
        Change(f"{server.__name__}:sort_messages", "message.n <= last", "message.n <= last + 1"),
        STARTED,
    ),
    Mutant("the recorder ignores the wish", Change(ON_EVENT, "case bus.StartRecording():", "case bus.FirstAudio():"), PROMPT),
    Mutant(
        "a stream's end is taken for the call's",
        Change(ON_EVENT, "case _:", "case bus.CallEnded():\n            self.on_call_over(event.call_sid)\n        case _:"),
        STARTED,
        "stream drops,20429",
        2,
    ),
    Mutant("another claimant's row is recorded anyway", transition(Claim, "theirs", "create"), ONE, "stream drops"),
    Mutant(
        "a claim in the spool creates without a list",
        transition(ClaimHere, "ours", "create"),
        ONE,
        "stream drops,store down for long",
        2,
    ),
    Mutant("an old wish creates without a list", transition(Claim, "found", "create"), TRUE, "stream drops,store down", 2),
    Mutant(
        "a row becomes failed without Twilio's answer",
        Change(f"{LIFECYCLE}:Lifecycle._back_off", "Later(failed.error_code, failed.error_text)", "failed"),
        STARTED,
        "time-out",
        3,
    ),
    Mutant("a dead process's claim creates without a list", transition(Reclaim, "ours", "create"), ONE, "control killed"),
    Mutant(
        "a claim of a dead process is claimed anew",
        Change(TAKE_UP, "lifecycle.resume_claim(", "lifecycle.begin(time.monotonic(), self._retry_s) or lifecycle.resume_claim("),
        SETTLES,
        "control killed",
    ),
    # -- what follows Twilio's answers
    Mutant("a time-out ends the attempt", transition(Create, "timeout", "fail"), STARTED, "time-out"),
    Mutant("a listing's time-out ends the attempt", transition(List, "timeout", "fail"), STARTED, "time-out", 2),
    Mutant("a 5xx ends the attempt", transition(Create, "server", "fail"), STARTED, "503"),
    Mutant("a create with a 5xx is repeated without a list", transition(Create, "server", "create_later"), ONE, "503"),
    Mutant("a create with a time-out is repeated without a list", transition(Create, "timeout", "create_later"), ONE, "time-out"),
    Mutant("an empty listing ends the attempt", transition(List, "none", "call_ended"), STARTED, "time-out"),
    Mutant("a listing finds no recording of ours", Value(f"{LIFECYCLE}:OUR_SOURCE", "Somebody"), ONE, "time-out"),
    Mutant("a busy Twilio ends the attempt", transition(Create, "busy", "fail"), STARTED, "20429"),
    Mutant("a call just being answered ends the attempt", transition(Create, "not_in_progress", "fail"), PROMPT, "21220"),
    Mutant("a call that is new to Twilio ends the attempt", transition(Create, "gone", "fail"), PROMPT, "20404"),
    Mutant("21220 is tried too slowly", Value(f"{LIFECYCLE}:BECOMING_WAITS_S", (0.3, 0.6, 1.5)), PROMPT, "21220", 3),
    Mutant(
        "a complete recording is read as started",
        Change(f"{LIFECYCLE}:outcome_of", 'Outcome("completed"', 'Outcome("started"'),
        SETTLES,
        "webhook never",
    ),
    Mutant(
        "a failed recording is read as started",
        Value(f"{LIFECYCLE}:LOST", ("absent",)),
        SETTLES,
        "recording failed,webhook never",
        2,
    ),
    # -- rows, webhooks and the reconcile pass
    Mutant(
        "a completed webhook is read as absent",
        Change(f"{status_callbacks.__name__}:recording_outcome", 'Outcome("completed", sid,', 'Outcome("absent", sid,'),
        TRUE,
    ),
    Mutant(
        "a dead process's claim is not taken up", Change(NEXT, 'return "take_up"', 'return "leave"'), SETTLES, "control killed"
    ),
    Mutant("an old wish is not taken up", Change(NEXT, 'return "want" if', 'return "leave" if'), STARTED, "control killed"),
    Mutant(
        "a started recording is not looked at", Change(NEXT, 'return "look" if', 'return "leave" if'), SETTLES, "webhook never"
    ),
    Mutant(
        "a lost host's claim is left",
        Change(NEXT, 'return "close" if', 'return "leave" if'),
        SETTLES,
        "host lost",
        hosts=2,
    ),
    Mutant(
        "a claim of another host is taken immediately",
        Change(NEXT, 'case "claimed" if ours:', 'case "claimed" if True:'),
        ONE,
        "commit unclear",
        hosts=2,
    ),
    in_store(
        "a claim takes any row",
        Change(
            f"{STORE}:claim_existing",
            "recordings.c.call_sid == fit.text(call_sid, SID_CHARS), recordings.c.state.in_(list(states))",
            "recordings.c.call_sid == fit.text(call_sid, SID_CHARS)",
        ),
        ONE,
        "stream drops",
    ),
    in_store(
        "a wish undoes a claim",
        Change(
            f"{events.__name__}:merge_statement",
            "set_={name: func.coalesce(table.c[name], lite.excluded[name]) for name in gaps}",
            "set_={name: func.coalesce(lite.excluded[name], table.c[name]) for name in gaps}",
        ),
        ONE,
        "stream drops",
    ),
    in_store(
        "completed comes before started",
        Value(f"{STORE}:STATES", ("wanted", "claimed", "failed", "completed", "started", "absent")),
        SETTLES,
    ),
    in_store(
        "an outcome is not written",
        Change(f"{ROWS}:RecordingRows._write_alone", "self._store.update_recording(call_sid, **fields)", "pass"),
        SETTLES,
    ),
)


@pytest.fixture(scope="module")
def rows() -> Iterator[RowStore]:
    made = RowStore()
    yield made
    made.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant, rows: RowStore) -> None:
    faults = frozenset(filter(None, mutant.faults.split(",")))
    assert faults <= model.ALL_FAULTS
    scenario = Scenario(mutant.name, faults, mutant.budget if faults else 0, mutant.hosts, notice=mutant.notice)
    own = RowStore() if mutant.of_the_store else rows
    try:
        with changed(mutant.change):
            seen = Explorer(GuardModel(scenario, own), max_states=60_000, stop_at_first=mutant.caught_by == ONE).run()
    finally:
        if mutant.of_the_store:
            own.close()
    caught = {violation.invariant for violation in seen.violations}
    assert mutant.caught_by in caught, f"caught by {sorted(caught)}, {seen.states} states"


@pytest.mark.parametrize("hosts", [1, 2])
def test_without_a_mutant_nothing_is_found(rows: RowStore, hosts: int) -> None:
    faults = frozenset({"control killed", "time-out", "stream drops"})
    seen = Explorer(GuardModel(Scenario("as it is", faults, 1, hosts), rows), max_states=60_000).run()
    assert seen.complete
    assert seen.violations == ()
