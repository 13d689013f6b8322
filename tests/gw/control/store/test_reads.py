"""gw.control.store.reads on both databases: selection, order and limits of the lists."""

from __future__ import annotations

from gw import bus
from gw.control.rows import CallFilter
from gw.control.store import Store
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started

SID = call_sid(1)


def test_the_gateway_that_resumed_a_call_owns_it(store: Store) -> None:
    """The gateway that lost the call must not end it after a restart; its new one must find it."""
    store.apply(stamp(started(1), started(2)))
    store.apply(stamp(bus.CallEvent(call_sid(2), "resumed", T0 + 5, {"n": 1}), gateway="gw-2", instance="i2"))
    assert [[c.call_sid for c in store.open_calls(gateway=one)] for one in ("gw-1", "gw-2")] == [[call_sid(1)], [call_sid(2)]]
    store.apply(stamp(bus.CallEvent(call_sid(2), "resumed", T0 + 9, {"n": 2}), gateway="gw-1", instance="i3"))
    assert [[c.call_sid for c in store.open_calls(gateway=one)] for one in ("gw-1", "gw-2")] == [[call_sid(1), call_sid(2)], []]


def test_lists_have_limits(store: Store) -> None:
    store.apply(stamp(*(started(k) for k in range(1, 8))))
    assert [c.call_sid for c in store.calls(limit=2)] == [call_sid(7), call_sid(6)]
    assert store.calls(limit=-1) == []


def test_an_unknown_call_has_no_row(store: Store) -> None:
    assert (store.call("CAx"), store.recording("CAx")) == (None, None)


def test_statuses_are_those_of_open_calls(store: Store) -> None:
    store.apply(stamp(started(1), started(2), ended(2)))
    forms = [{"CallSid": call_sid(k), "CallStatus": "completed"} for k in (1, 2, 3)]
    store.apply(stamp(*(bus.Webhook("status", T0, form) for form in forms), instance="i2"))
    assert store.statuses_of_open_calls() == [(call_sid(1), forms[0])]


def test_the_ends_of_several_calls_are_one_answer(store: Store) -> None:
    store.apply(stamp(started(1), started(2), ended(2)))
    ends = store.ends_of_calls([call_sid(k) for k in (1, 2, 3)])
    assert {sid: end.ended_at is not None for sid, end in ends.items()} == {call_sid(1): False, call_sid(2): True}
    assert {end.gateway for end in ends.values()} == {"gw-1"}


def test_a_call_lists_its_turns_as_spoken_and_its_events_by_time(store: Store) -> None:
    events = [bus.Turn(SID, n, "agent", f"turn {n}", "", start_ms) for n, start_ms in ((1, 900), (2, 100), (3, 100))]
    digits = [bus.CallEvent(SID, "dtmf", T0 + at, {"digit": str(at)}) for at in (9, 5)]
    store.apply(stamp(started(), *events, *digits))
    call = store.call(SID)
    assert call is not None
    assert [turn.n for turn in call.turns] == [2, 3, 1]
    assert [event.data["digit"] for event in call.events] == ["5", "9"]


def test_a_filter_selects_calls(store: Store) -> None:
    changes: list[dict[str, object]] = [{}, {"agent": "sales"}, {"from_number": "+15550001"}, {"to_number": "+15550001"}]
    store.apply(stamp(*(started(k, **change) for k, change in enumerate(changes, 1)), ended(1, "ai_hangup"), ended(4)))
    store.apply(stamp(started(5), host="h2", instance="i2"))

    def found(**conditions: object) -> list[int]:
        return [int(c.call_sid[2:], 16) for c in store.calls(which=CallFilter(**conditions))]  # type: ignore[arg-type]

    assert found() == [5, 4, 3, 2, 1]
    assert found(since=T0 + 3) == [5, 4, 3]
    assert found(agent="sales") == [2]
    assert found(number="+15550001") == [4, 3]
    assert found(machine="h2") == [5]
    assert found(reason="ai_hangup") == [1]
    assert found(number="+15550001", reason="caller_hangup") == [4]


def test_the_worst_calls_have_the_longest_gaps(store: Store) -> None:
    gaps = {1: 40, 2: 900, 3: None, 4: 0}
    store.apply(
        stamp(
            *(started(k) for k in (*gaps, 5)),
            *(ended(k, **({"underrun_ms": g} if g is not None else {})) for k, g in gaps.items()),
        )
    )
    worst = store.calls(which=CallFilter(worst=True), limit=2)
    assert [(c.call_sid, c.underrun_ms) for c in worst] == [(call_sid(2), 900), (call_sid(1), 40)]
