"""gw.control.store.events: events of any content become rows, by statements that every server accepts."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from pymysql.cursors import RE_INSERT_VALUES
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

from gw import bus
from gw.call.cost.usage import Used
from gw.call.quality import Quality
from gw.control.store import Stamped, Store, events, tables
from gw.control.store.events import Rows
from gw.control.store.reads import list_turns
from gw.control.store.values import Fit
from tests.examples import examples
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started, turn

#: The values msgpack can encode: 64 bits of either sign, any float, any text valid in UTF-8.
_INTS = st.integers(-(2**63), 2**64 - 1)
_FLOATS = st.floats()
_TEXTS = st.text(max_size=40) | st.text(alphabet="\x00'\"\\%s:😀 ä", max_size=200)
_SIDS = st.sampled_from(["", "CA1", "CA2"]) | _TEXTS
_DATA = st.dictionaries(_TEXTS, st.none() | st.booleans() | _INTS | _FLOATS | _TEXTS, max_size=6)
_QUALITY: st.SearchStrategy[Quality] = st.builds(
    Quality, frames_sent=_INTS, send_p50_s=_FLOATS, underrun_ms=_INTS, dropped_frames=st.dictionaries(_TEXTS, _INTS, max_size=4)
)
_USED = st.builds(Used, day=_TEXTS, model=_TEXTS, text_in=_INTS, audio_out=_INTS, cost_usd=st.none() | _FLOATS)
_EVENTS: st.SearchStrategy[bus.Event] = st.one_of(
    st.builds(
        bus.CallStarted,
        _SIDS, _TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS, _FLOATS, _FLOATS,
    ),
    st.builds(bus.FirstAudio, _SIDS, _FLOATS),
    st.builds(bus.StartRecording, _SIDS, _TEXTS, _FLOATS),
    st.builds(bus.Turn, _SIDS, _INTS, _TEXTS, _TEXTS, _TEXTS, _INTS, st.booleans(), st.none() | _INTS),
    st.builds(bus.CallEnded, _SIDS, _FLOATS, _TEXTS, _TEXTS, _TEXTS, _QUALITY),
    st.builds(bus.Usage, _SIDS, _TEXTS, _FLOATS, _TEXTS, _TEXTS, st.lists(_USED, max_size=2)),
    st.builds(bus.CallEvent, _SIDS, _TEXTS, _FLOATS, _DATA),
    st.builds(bus.Webhook, _TEXTS, _FLOATS, st.dictionaries(st.just("CallSid") | _TEXTS, _TEXTS, max_size=5)),
    st.builds(bus.JobWanted, _TEXTS, _TEXTS, _SIDS, _INTS, _TEXTS),
)  # fmt: skip
_STAMPED = st.builds(Stamped, _EVENTS, _TEXTS, st.integers(-1, 64), _TEXTS, _INTS)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(batch=st.lists(_STAMPED, min_size=1, max_size=12))
def test_no_event_is_refused(store: Store, batch: list[Stamped]) -> None:
    carried = [stamped._replace(event=bus.decode_event(bus.encode_event(stamped.event))) for stamped in batch]
    store.apply(carried)
    store.apply(carried[::-1])
    for stamped in carried:
        if isinstance(stamped.event, bus.Turn) and stamped.event.call_sid:
            assert store._backend.read(partial(list_turns, call_sid=stamped.event.call_sid[:64]))


def mysql_8() -> MySQLDialect_pymysql:
    dialect = MySQLDialect_pymysql()
    dialect._set_mariadb(False, (8, 0, 36))
    dialect._requires_alias_for_on_duplicate_key = True  # the dialect sets this when it connects to such a server
    return dialect


@pytest.mark.parametrize("table", ["calls", "turns", "recordings", "call_quality", "events"])
def test_an_upsert_is_one_statement_on_every_server(table: str) -> None:
    for dialect, word in [(mysql_8(), "AS new"), (MySQLDialect_pymysql(is_mariadb=True), "VALUES(")]:
        key = ("instance", "n") if table == "events" else ("call_sid",)
        statement = events.merge_statement(
            tables.metadata.tables[table], key, [c.name for c in tables.metadata.tables[table].c], dialect.name
        )
        sql = str(statement.compile(dialect=dialect))
        assert word in sql
        assert RE_INSERT_VALUES.match(sql), f"PyMySQL would send a statement for each row: {sql}"


def test_the_upsert_of_usage_is_one_statement_on_every_server() -> None:
    for dialect, word in [(mysql_8(), "AS new"), (MySQLDialect_pymysql(is_mariadb=True), "VALUES(")]:
        sql = str(events.grow_statement(dialect.name).compile(dialect=dialect))
        assert word in sql
        assert RE_INSERT_VALUES.match(sql), f"PyMySQL would send a statement for each row: {sql}"


class Collected:
    """Collects the rows of events."""

    def __init__(self) -> None:
        self.rows = Rows(Fit())

    def __call__(self, *facts: bus.Event, **stamp_facts: Any) -> Rows:
        for stamped in stamp(*facts, **stamp_facts):
            self.rows.add(stamped)
        return self.rows


def test_each_event_is_a_row_of_its_table() -> None:
    rows = Collected()(
        started(), turn(), ended(), bus.StartRecording(call_sid(1), "", 1.0), bus.Webhook("action", 1.0, {"a": "b"})
    )
    counts = [len(part) for part in (rows.calls, rows.ends, rows.turns, rows.recordings, rows.quality, rows.events)]
    assert counts == [2, 1, 1, 1, 1, 1]
    assert rows.fit.cut == 0


def test_an_unknown_value_is_null_so_that_a_later_event_can_fill_it() -> None:
    rows = Collected()(started(agent="", from_number=""), worker=-1, host="")
    assert {name for name, value in asdict(rows.calls[0]).items() if value is None} == {
        "agent", "from_number", "first_audio_at", "worker", "host", "ended_at", "reason", "result", "detail"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "kind", "at"),
    [
        (started(call_sid=""), "call_started", started().started_at),
        (bus.FirstAudio("", 5.0), "first_audio", 5.0),
        (bus.StartRecording("", "AC", 6.0), "start_recording", 6.0),
        (turn(text="who?", call_sid=""), "turn", 0.0),
        (bus.CallEnded("", 7.0, "token_forged", "peer_error", "x", Quality()), "call_ended", 7.0),
    ],
)
def test_an_event_without_a_call_is_stored_as_an_event_only(event: bus.Event, kind: str, at: float) -> None:
    rows = Collected()(event)
    (row,) = rows.events
    assert (row.call_sid, row.kind, row.at) == (None, kind, at)
    assert "call_sid" in row.data
    assert not (rows.calls or rows.ends or rows.turns or rows.recordings or rows.quality)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_call_that_continues_has_no_end(store: Store, order: tuple[int, ...]) -> None:
    """In whichever sequence the workers' events arrive: `top` and `calls list --live` show it."""
    lost = bus.CallEnded(call_sid(1), T0 + 5, "phone_lost", "peer_error", "broken", Quality())
    facts = [started(), lost, bus.CallEvent(call_sid(1), "resumed", T0 + 6, {"n": 1, "after": "phone_lost"})]
    for at in order:
        store.apply(stamp(facts[at], instance=f"i{at}"))
    assert [row.call_sid for row in store.calls(open_only=True)] == [call_sid(1)]
    store.apply(stamp(ended(at=T0 + 9), instance="i9"))
    row = store.call(call_sid(1))
    assert row and (row.reason, row.ended_at) == ("caller_hangup", T0 + 9)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_end_of_the_last_stream_is_the_call_s(store: Store, order: tuple[int, ...]) -> None:
    facts = [
        bus.CallEvent(call_sid(1), "resumed", T0 + 6, {"n": 1, "after": "phone_lost"}),
        bus.CallEnded(call_sid(1), T0 + 5, "phone_lost", "peer_error", "broken", Quality()),
        bus.CallEnded(call_sid(1), T0 + 8, "phone_silent", "peer_error", "silent", Quality()),
    ]
    store.apply(stamp(started()))
    for at in order:
        store.apply(stamp(facts[at], instance=f"i{at}"))
    row = store.call(call_sid(1))
    assert row and (row.reason, row.ended_at) == ("phone_silent", T0 + 8)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_caller_who_leaves_a_transfer_ends_the_call(store: Store, is_reversed: bool) -> None:
    left_at = T0 + 70.0
    left = bus.CallEvent(call_sid(1), "transfer_ended", left_at, {"target": "sales", "status": "canceled"})
    batch = stamp(started(), ended(reason="transferred"), left)
    for one in batch[::-1] if is_reversed else batch:
        store.apply([one])
    row = store.call(call_sid(1))
    assert row is not None and row.quality is not None
    assert (row.reason, row.result, row.ended_at, row.quality.frames_sent) == ("caller_hangup", "success", left_at, 100)
    assert row.detail == "the caller hung up before the transfer to sales was connected"


TRANSFER = ("transferred", "transferred", "an operator transferred the caller")
HANG_UP = ("hung_up", "admin_hangup", "an operator hung up")


@pytest.mark.parametrize(("kind", "reason", "detail"), [TRANSFER, HANG_UP])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (0, 1, 2, 1, 2), (0, 2, 1, 2, 1)])
def test_the_act_of_an_operator_of_another_gateway_decides_the_end(
    store: Store, order: tuple[int, ...], kind: str, reason: str, detail: str
) -> None:
    act = bus.CallEvent(call_sid(1), kind, T0 + 61.0, {})
    (other,) = stamp(act, instance="admin-1", worker=-1, host="h2", gateway="gw-2")
    batch = [*stamp(started(), ended()), other]
    for n in order:
        store.apply([batch[n]])
    store.apply(stamp(started(2), ended(2)))
    rows = [store.call(call_sid(k)) for k in (1, 2)]
    assert [row and (row.reason, row.result, row.detail, row.gateway, row.ended_at) for row in rows] == [
        (reason, "success", detail, "gw-1", T0 + 60.0),
        ("caller_hangup", "success", "", "gw-1", T0 + 60.0),
    ]


@pytest.mark.parametrize(("kind", "reason", "detail"), [TRANSFER, HANG_UP])
def test_an_act_on_a_call_that_the_store_lacks_leaves_none_to_be_taken_for_abandoned(
    store: Store, kind: str, reason: str, detail: str
) -> None:
    store.apply(stamp(bus.CallEvent(call_sid(1), kind, T0 + 61.0, {}), instance="admin-1", worker=-1))
    assert store.call(call_sid(1)) is None
    assert store.calls(open_only=True) == []
    store.apply(stamp(started(), ended()))
    row = store.call(call_sid(1))
    assert row and (row.reason, row.detail) == (reason, detail)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_call_that_was_transferred_and_then_ended_by_operators_was_transferred(store: Store, order: tuple[int, ...]) -> None:
    acts = [bus.CallEvent(call_sid(1), kind, T0 + 61.0, {}) for kind, _, _ in (TRANSFER, HANG_UP)]
    batch = stamp(ended(), *acts)
    for n in order:
        store.apply([batch[n]])
    row = store.call(call_sid(1))
    assert row and (row.reason, row.detail) == TRANSFER[1:]
