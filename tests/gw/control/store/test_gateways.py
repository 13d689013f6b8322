"""gw.control.store.gateways on both databases: one holder of an id, heartbeats, and calls whose gateway is gone."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from sqlalchemy import Connection

from gw import bus
from gw.control.rows import GatewayRow
from gw.control.store import Report, Store, gateways, tables
from gw.control.store.gateways import SILENT_S, ClaimStep, claim_step, is_live
from tests.conftest import StoreMaker
from tests.gw.control.stamped import call_sid, ended, stamp, started
from tests.timing import scaled

ID = "gw-1"


def report(gateway: str = ID, fingerprint: str = "here", **changes: Any) -> Report:
    return Report(gateway, fingerprint, "vm1", "0.1", **changes)


def change(store: Store, gateway: str = ID, **values: Any) -> None:
    """Set columns of a gateway's row."""
    update = tables.gateways.update().where(tables.gateways.c.gateway == gateway).values(values)
    store._backend.write(lambda connection: connection.execute(update))


def silence(store: Store, gateway: str = ID, seconds: float = SILENT_S + 1) -> None:
    change(store, gateway, heartbeat_at=store.gateways()[0] - seconds)


def row(fingerprint: str = "here", *, age_s: float = 0.0, stopped_at: float | None = None) -> GatewayRow:
    return GatewayRow(
        gateway=ID,
        machine="vm1",
        version="0.1",
        fingerprint=fingerprint,
        started_at=1.0,
        heartbeat_at=1000.0 - age_s,
        stopped_at=stopped_at,
        ready=True,
        drained=False,
        calls=0,
        capacity=0,
    )


@pytest.mark.parametrize(
    ("before", "step"),
    [
        (None, "free"),
        (row(), "ours"),
        (row(age_s=1e6), "ours"),
        (row(stopped_at=999.0), "ours"),
        (row("there"), "held"),
        (row("there", age_s=SILENT_S - 0.01), "held"),
        (row("there", age_s=-60.0), "held"),
        (row("there", age_s=SILENT_S), "taken_over"),
        (row("there", stopped_at=999.0), "free"),
    ],
)
def test_who_may_have_an_id(before: GatewayRow | None, step: ClaimStep) -> None:
    assert claim_step(before, "here", 1000.0) == step


@pytest.mark.parametrize(
    ("one", "live"), [(row(), True), (row(age_s=SILENT_S), False), (row(stopped_at=999.0), False), (row(age_s=-5.0), True)]
)
def test_a_gateway_is_live_while_it_is_heard(one: GatewayRow, live: bool) -> None:
    assert is_live(one, 1000.0) is live


def test_an_id_is_claimed_and_renewed(store: Store) -> None:
    first = store.claim_gateway(report(ready=True, calls=3, capacity=10), begins=True)
    assert (first.step, first.before) == ("free", None)
    again = store.claim_gateway(report(drained=True))
    assert again.step == "ours"
    assert again.before is not None and (again.before.ready, again.before.calls, again.before.capacity) == (True, 3, 10)
    now, (found,) = store.gateways()
    assert (found.machine, found.version, found.ready, found.drained, found.calls) == ("vm1", "0.1", False, True, 0)
    assert abs(now - time.time()) < scaled(20)
    assert found.started_at == pytest.approx(first.now, abs=1e-4)
    assert found.started_at <= found.heartbeat_at <= now
    store.claim_gateway(report(), begins=True)
    assert store.gateways()[1][0].started_at > found.started_at, "another process of it"


def test_a_copy_waits_for_the_silence_of_the_holder(store: Store) -> None:
    store.claim_gateway(report(), begins=True)
    held = store.claim_gateway(report(fingerprint="there"), begins=True)
    assert held.step == "held"
    assert store.gateways()[1] == [held.before], "nothing was written"
    silence(store)
    assert store.claim_gateway(report(fingerprint="there")).step == "taken_over"
    assert store.gateways()[1][0].fingerprint == "there"
    assert store.claim_gateway(report()).step == "held", "its last holder is the copy now"


def test_a_gateway_that_stopped_is_free_for_a_copy(store: Store) -> None:
    store.claim_gateway(report(ready=True, calls=2), begins=True)
    store.stop_gateway(ID, "there")
    assert store.gateways()[1][0].stopped_at is None, "only its holder stops it"
    store.stop_gateway(ID, "here")
    stopped = store.gateways()[1][0]
    assert (stopped.stopped_at is not None, stopped.ready, stopped.calls) == (True, False, 0)
    assert store.claim_gateway(report(fingerprint="there")).step == "free"
    assert store.gateways()[1][0].stopped_at is None


def test_one_of_two_simultaneous_claims_has_the_id(open_store: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [open_store() for _ in range(2)]
    stores[0].upgrade()
    clock = gateways.clock

    def slow(connection: Connection) -> float:
        time.sleep(0.05) if connection.dialect.name == "sqlite" else gevent.sleep(0.05)
        return clock(connection)

    monkeypatch.setattr(gateways, "clock", slow)  # both have found no row by then
    reports = (report(), report(fingerprint="there"))
    claims = [gevent.spawn(one.claim_gateway, each, begins=True) for one, each in zip(stores, reports, strict=True)]
    gevent.joinall(claims, timeout=scaled(30), raise_error=True)
    assert sorted(claim.value.step for claim in claims) == ["free", "held"]


def test_a_drain_is_asked_for_and_answered(store: Store) -> None:
    store.claim_gateway(report(), begins=True)
    store.claim_gateway(report("gw-2"), begins=True)
    store.ask_drain(ID, on=True)
    assert {one.gateway: one.drain_asked for one in store.gateways()[1]} == {ID: True, "gw-2": None}
    claimed = store.claim_gateway(report())
    assert claimed.before is not None and claimed.before.drain_asked is True, "a heartbeat does not remove it"
    store.ask_drain(ID, on=False)
    store.answer_drain(ID, on=True)
    assert store.gateways()[1][0].drain_asked is False, "another request replaced it"
    store.answer_drain(ID, on=False)
    assert (store.gateways()[1][0].drain_asked, store.gateways()[1][0].drained) == (None, False)


def test_gateways_that_are_gone_are_removed(store: Store) -> None:
    for gateway in ("gw-1", "gw-2"):
        store.claim_gateway(report(gateway), begins=True)
    silence(store, "gw-2", 100.0)
    assert store.forget_gateways(200.0) == 0
    assert store.forget_gateways(99.0) == 1
    assert [one.gateway for one in store.gateways()[1]] == ["gw-1"]


def test_calls_of_gateways_that_are_gone(store: Store) -> None:
    """A call belongs to the gateway that resumed it last. Rows of a version without ids have none."""
    for gateway in ("gw-1", "gw-2"):
        store.claim_gateway(report(gateway), begins=True)
    silence(store, "gw-2", 100.0)
    old, new = time.time() - 200.0, time.time() - 50.0
    cases = [  # gateway, start, whether the call is abandoned
        ("gw-1", old, False),
        ("gw-2", old, True),
        ("gw-2", new, False),
        ("gw-3", old, True),
        ("", old, True),
        ("", new, False),
    ]
    for n, (gateway, at, _) in enumerate(cases):
        store.apply(stamp(started(n, started_at=at), gateway=gateway, instance=f"i{n}"))
    store.apply(stamp(started(10, started_at=old), ended(10, at=old), gateway="gw-2", instance="e"))
    store.apply(stamp(started(11, started_at=old), gateway="gw-2", instance="r1"))
    store.apply(stamp(bus.CallEvent(call_sid(11), "resumed", old + 5, {"n": 1}), gateway="gw-1", instance="r2"))
    store.apply(stamp(started(12, started_at=old), gateway="gw-1", instance="r3"))
    store.apply(stamp(bus.CallEvent(call_sid(12), "resumed", old + 5, {"n": 1}), gateway="gw-2", instance="r4"))
    store.apply(stamp(bus.FirstAudio(call_sid(13), old), gateway="gw-2", instance="f1"))
    wanted = [call_sid(n) for n, (_, _, abandoned) in enumerate(cases) if abandoned] + [call_sid(12), call_sid(13)]
    assert [one.call_sid for one in store.abandoned_calls(90.0)] == wanted
    assert [one.call_sid for one in store.abandoned_calls(150.0) if one.gateway == "gw-2"] == [], "not silent for that long"


def test_rows_name_their_gateway(store: Store) -> None:
    store.apply(stamp(started(), bus.CallEvent(call_sid(1), "keys", 1.0, {}), gateway="gw-7"))
    call = store.call(call_sid(1))
    assert call is not None
    assert (call.gateway, [event.gateway for event in call.events]) == ("gw-7", ["gw-7"])
