"""gw.control.store.reads on both databases: selection, order and limits of the lists."""

from __future__ import annotations

import msgspec
import pytest

from gw import bus
from gw.call.cost.usage import Used
from gw.control.rows import CallFilter
from gw.control.store import Store
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started

SID = call_sid(1)


def test_the_gateway_that_resumed_a_call_owns_it(store: Store) -> None:
    """The gateway that lost the call must not end it after a restart; its new one must find it."""
    store.apply(stamp(started(1), started(2)))
    store.apply(stamp(bus.CallEvent(call_sid(2), "resumed", T0 + 5, {"n": 1}), gateway="gw-2", instance="i2"))
    assert [[c.call_sid for c in store.open_calls(gateway=one)] for one in ("gw-1", "gw-2")] == [[call_sid(1)], [call_sid(2)]]
    assert {sid: end.gateway for sid, end in store.ends_of_calls([call_sid(1), call_sid(2)]).items()} == {
        call_sid(1): "gw-1",
        call_sid(2): "gw-2",
    }
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


def _used(
    k: int, cost: float | None, *, stream: str = "MZ1", day: str = "2026-11-28", tokens: int = 10, model: str = "m"
) -> bus.Usage:
    used = [Used(day=day, model=model, audio_out=tokens, cost_usd=cost)]
    return bus.Usage(call_sid(k), stream, T0, "default", "", used)


def test_usage_only_grows_in_whatever_sequence_it_comes(store: Store) -> None:
    reports = [_used(1, 0.5, tokens=5), _used(1, 1.0, tokens=10), _used(1, 0.25, stream="MZ2"), _used(1, None, model="bare")]
    last = msgspec.structs.replace(
        ended(1), stream_sid="MZ1", used=[Used(day="2026-11-28", model="m", audio_out=12, cost_usd=1.2)]
    )
    for sequence in ([started(1), *reports, last], [last, *reports[::-1], started(1)]):
        store.apply(stamp(*sequence, instance=f"i{sequence[0]}"[:20]))
        call = store.call(SID)
        assert call is not None
        assert (call.usage["audio_out"], call.cost_usd, len(call.used)) == (32, 1.45, 3)
        assert call.usage.keys() == {"text_in", "text_cached", "text_out", "audio_in", "audio_cached", "audio_out"}
        assert [row.cost_usd for row in store.calls()] == [1.45]


def test_a_call_without_a_price_has_no_cost(store: Store) -> None:
    store.apply(stamp(started(1), _used(1, None), started(2)))
    for k, tokens in ((1, 10), (2, 0)):
        call = store.call(call_sid(k))
        assert call is not None
        assert (call.usage["audio_out"], call.cost_usd) == (tokens, None)
    assert [row.cost_usd for row in store.calls()] == [None, None]


def test_the_cost_of_a_day_is_the_stores_also_by_caller(store: Store) -> None:
    day = "2026-11-28"
    store.apply(stamp(started(1, from_number="+1"), _used(1, 1.0), _used(1, 0.5, stream="MZ2"), _used(1, 9.0, day="2026-11-29")))
    store.apply(
        stamp(started(2, from_number="+1"), _used(2, 2.0), started(3, from_number="+3"), _used(3, 0.1), host="h2", instance="i2")
    )
    store.apply(stamp(started(4, direction="outbound-api"), _used(4, 4.0), _used(5, None), instance="i3"))
    assert store.spent_on(day) == pytest.approx(7.6)
    assert store.spent_by_callers(day, 10) == {"+1": pytest.approx(3.5), "+3": pytest.approx(0.1)}
    assert list(store.spent_by_callers(day, 1)) == ["+1"]
    assert (store.spent_on("2026-11-30"), store.spent_by_callers("2026-11-30", 10)) == (0.0, {})
    store.forget(call_sid(1))
    assert store.spent_on(day) == pytest.approx(6.1)
