"""Each fault spends the budget, and suspends the promise if it takes time."""

from __future__ import annotations

import pytest

from gw.verify.explorer import FREE, Step
from gw.verify.guard.fault_steps import BUS_LATE_MS, HOOK_LATE_MS, POOL_FULL_MS, STORE_LONG_MS, STORE_SHORT_MS, FaultSteps
from gw.verify.guard.state import LOST, NEVER, ControlState, Hook, ModelState, StreamState, recorded

OPEN = StreamState(0, flag=True, heard=True, due_ms=2000)


def end(state: ModelState, stream: StreamState) -> StreamState:
    return stream._replace(phase="ended")


def steps(state: ModelState, *faults: str, moves: bool = False) -> dict[str, Step[ModelState]]:
    made: list[Step[ModelState]] = []
    FaultSteps(frozenset(faults), end, moves=moves).add(state, made)
    assert all(step.kind == FREE and step.state.budget == state.budget - 1 for step in made)
    return {step.label: step for step in made}


def state(stream: StreamState = OPEN, *, hosts: int = 1, **fields: object) -> ModelState:
    return ModelState(2, (stream,), (ControlState(),) * hosts, **fields)  # type: ignore[arg-type]


def test_the_pool_is_full_only_while_the_guard_waits() -> None:
    full = steps(state(), "pool full")["worker 1: the pool is full"].state
    assert full.streams[0].full_ms == POOL_FULL_MS
    assert steps(state(OPEN._replace(guard_started=True)), "pool full") == {}


def test_a_stream_drops_unless_drops_are_free() -> None:
    dropped = steps(state(), "stream drops")["worker 1: the stream drops, the call lives"].state
    assert dropped.streams[0].phase == "ended"
    assert steps(state(), "stream drops", moves=True) == {}


def test_a_killed_workers_events_arrive_or_are_lost() -> None:
    ends = steps(state(OPEN._replace(outbox=("record",))), "worker killed")
    assert ends["worker 1 is killed, its sent events arrive"].state.streams[0].outbox == ("record",)
    assert ends["worker 1 is killed, its sent events are lost"].state.streams[0].outbox == ()


def test_a_slow_bus_suspends_the_promise() -> None:
    late = steps(state(OPEN._replace(outbox=("record",))), "bus delayed")["worker 1: the bus is slow"].state
    assert (late.streams[0].late_ms, late.streams[0].due_ms) == (BUS_LATE_MS, NEVER)


def test_a_killed_control_keeps_its_spool_and_loses_its_work() -> None:
    busy = state(OPEN._replace(outbox=("record",)))._replace(controls=(ControlState(wish=True, here=1, holding=True),))
    after = steps(busy, "control killed")["control is killed"].state
    control = after.controls[0]
    assert (control.up, control.life, control.wish, control.here, control.holding) == (False, 2, True, 1, False)
    assert (after.streams[0].again, after.streams[0].due_ms) == (True, NEVER)


def test_a_lost_host_takes_its_stream_and_never_the_last_host() -> None:
    after = steps(state(hosts=2), "host lost")["host A is lost permanently"].state
    assert (after.controls[0].back_ms, after.streams[0].phase, after.refused) == (LOST, "dead", True)
    assert steps(state(), "host lost") == {}


@pytest.mark.parametrize(
    ("fault", "label", "away_ms"),
    [
        ("store down", "the store goes away for 1 s", STORE_SHORT_MS),
        ("store down for long", "the store goes away for 40 s", STORE_LONG_MS),
    ],
)
def test_the_store_is_away_for_a_while(fault: str, label: str, away_ms: int) -> None:
    assert steps(state(), fault)[label].state.store_ms == away_ms
    assert steps(state(store_ms=1), fault) == {}


def test_a_webhook_is_lost_or_late() -> None:
    hooked = state(hooks=(Hook("completed", 1),))
    assert steps(hooked, "webhook never")["webhook 'completed' never comes"].state.hooks == ()
    assert steps(hooked, "webhook late")["webhook 'completed' is late"].state.hooks == (Hook("completed", 1, HOOK_LATE_MS),)


def test_a_recording_is_absent_after_the_calls_end() -> None:
    after = steps(recorded(state()), "recording absent")["the call ends, its recording is absent"].state
    assert (after.over, after.recordings, after.streams[0].phase) == (True, ("absent",), "ended")
    assert steps(state(), "recording absent") == {}
