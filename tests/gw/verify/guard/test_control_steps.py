"""Steps of one control process: claims, requests, writes, passes and webhooks, each from a state made by hand."""

from __future__ import annotations

import pytest

from gw.control.recording.lifecycle import Claim, Create, Lifecycle, Outcome
from gw.verify.explorer import FREE, SURE, Step
from gw.verify.guard import claim_row as ops
from gw.verify.guard.claim_row import ABSENT, RowStore
from gw.verify.guard.control_steps import ControlSteps
from gw.verify.guard.parts import NOW_S, Parts
from gw.verify.guard.state import NEVER, ControlState, Hook, ModelState, StreamState

STREAM = StreamState(0, heard=True)
CLAIM = Lifecycle(Claim(), NOW_S, 30.0)
CREATE = Lifecycle(Create(), NOW_S, 30.0)


def steps(parts: Parts, rows: RowStore, state: ModelState, *faults: str) -> dict[str, Step[ModelState]]:
    made: list[Step[ModelState]] = []
    ControlSteps(parts, rows, frozenset(faults)).add(state, made)
    return {step.label: step for step in made}


def one(control: ControlState, **fields: object) -> ModelState:
    return ModelState(1, (STREAM,), (control,), **fields)  # type: ignore[arg-type]


def test_a_control_that_is_due_comes_back(parts: Parts, rows: RowStore) -> None:
    back = steps(parts, rows, one(ControlState(life=2, back_ms=0)))["control is back"]
    assert (back.kind, back.state.controls[0].up) == (SURE, True)
    assert steps(parts, rows, one(ControlState(life=2, back_ms=500))) == {}


def test_a_row_is_claimed_once(parts: Parts, rows: RowStore) -> None:
    claimed = steps(parts, rows, one(ControlState(lifecycle=CLAIM)))["control claims the row"].state
    assert claimed.controls[0].lifecycle == CREATE
    row = rows.apply(ABSENT, ops.ClaimRow("B/1")).form
    found = steps(parts, rows, one(ControlState(lifecycle=CLAIM), row=row))["control finds the row claimed"].state
    assert found.controls[0].lifecycle is None


def test_a_claims_answer_may_be_lost(parts: Parts, rows: RowStore) -> None:
    lost = steps(parts, rows, one(ControlState(lifecycle=CLAIM)), "commit unclear")[
        "control claims the row, and the answer is lost"
    ]
    assert (lost.kind, lost.state.budget) == (FREE, 0)


def test_without_the_store_the_claim_goes_into_the_spool(parts: Parts, rows: RowStore) -> None:
    away = steps(parts, rows, one(ControlState(lifecycle=CLAIM), store_ms=1000))["control cannot claim: the store is away"].state
    held = steps(parts, rows, away)["control claims in its spool"].state
    assert held.controls[0].here == 1
    delivered = steps(parts, rows, held._replace(store_ms=0))["control delivers its claim to the store"].state
    row = rows.row(delivered.row)
    assert row is not None
    assert (row.state, row.owner, delivered.controls[0].here) == ("claimed", "A/1", 0)


@pytest.mark.parametrize(("over", "answer", "made"), [(False, "started RE1", 1), (True, "21220", 0)])
def test_a_create_makes_a_recording_on_a_live_call(parts: Parts, rows: RowStore, over: bool, answer: str, made: int) -> None:
    (step,) = steps(parts, rows, one(ControlState(lifecycle=CREATE), over=over)).values()
    assert (step.state.controls[0].answer, len(step.state.recordings)) == (answer, made)


def test_a_create_may_fail_before_or_after_it_took_effect(parts: Parts, rows: RowStore) -> None:
    ends = steps(parts, rows, one(ControlState(lifecycle=CREATE)), "503", "20429")
    assert len(ends["control asks Twilio to create: 503, but it is made"].state.recordings) == 1
    assert ends["control asks Twilio to create: 503, nothing is made"].state.recordings == ()
    assert ends["control asks Twilio to create: 20429"].state.controls[0].answer == "20429"


def test_an_outcome_waits_for_the_store(parts: Parts, rows: RowStore) -> None:
    row = rows.apply(ABSENT, ops.ClaimRow("A/1")).form
    writes = one(ControlState(lifecycle=Lifecycle(Outcome("started", "RE1"), NOW_S, 30.0)), row=row)
    written = steps(parts, rows, writes)["control writes the row: started"].state
    assert written.controls[0].lifecycle is None
    held = steps(parts, rows, writes._replace(store_ms=1000))["control cannot write the row: the store is away"].state
    assert held.controls[0].holding
    late = held._replace(controls=(held.controls[0]._replace(wait_ms=0),))
    assert steps(parts, rows, late)["control gives up writing the row"].state.controls[0].lifecycle is None


def test_the_pass_takes_up_an_old_wish(parts: Parts, rows: RowStore) -> None:
    row = rows.apply(ABSENT, ops.WriteWish()).form
    taken = steps(parts, rows, one(ControlState(), row=row, age_ms=60_000))["control: the pass takes the row up"].state
    assert taken.controls[0].lifecycle is not None
    assert steps(parts, rows, one(ControlState(), row=row)) == {}


def test_a_webhook_reaches_any_control_that_runs(parts: Parts, rows: RowStore) -> None:
    row = rows.apply(ABSENT, ops.ClaimRow("A/1")).form
    hook = Hook("in-progress", 1)
    two = ModelState(
        1, (STREAM,), (ControlState(), ControlState(back_ms=NEVER)), hooks=(hook,), row=row, recordings=("in-progress",)
    )
    arrivals = steps(parts, rows, two)
    for who in ("control A", "control B"):
        after = rows.row(arrivals[f"webhook 'recording 1 in-progress' reaches {who}"].state.row)
        assert after is not None
        assert after.state == "started"
    late = steps(parts, rows, two._replace(hooks=(hook._replace(late_ms=5),)))
    assert not any("webhook" in label for label in late)


def test_the_calls_end_reaches_the_recorder(parts: Parts, rows: RowStore) -> None:
    state = one(ControlState(lifecycle=CREATE, wait_ms=300), hooks=(Hook("over", 0),), over=True)
    lifecycle = steps(parts, rows, state)["webhook 'the call's end' reaches control"].state.controls[0].lifecycle
    assert lifecycle is not None
    assert lifecycle.call_over
