"""gw.control.fleet: the lease on an id, heartbeats, calls of gateways that are gone, and the commands over all gateways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gw.config
from gw.control import fleet
from gw.control.admin.machine import MachineState
from gw.control.admin.server import CommandError
from gw.control.fleet import STEADY_S, Fleet, Lease, gone_after_s, listed
from gw.control.identity import Identity
from gw.control.store import Report, Store, StoreUnavailable
from gw.control.store.gateways import SILENT_S
from gw.scoreboard import ProcessState, Scoreboard
from metrics.page import Page
from tests import schema
from tests.gw.control.stamped import call_sid, stamp, started
from tests.gw.control.store.test_gateways import change, silence
from tests.timing import scaled

LONGEST_CALL_S = 30.0


class One:
    """A gateway's part of a fleet."""

    def __init__(self, folder: Path, store: Store, gateway: str, fingerprint: str) -> None:
        self.store = store
        self.scoreboard = Scoreboard.private()
        self.row = self.scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self.page = Page.create(folder / f"{gateway}-{fingerprint}.page")
        self.drains: list[bool] = []
        self.machine = MachineState(self.scoreboard, self.row, self.page, drain_workers=self.drain, is_orphan=lambda: False)
        identity = Identity(gateway, fingerprint, folder / "gateway-id")
        self.name = f"vm-{fingerprint}"
        self.lease = Lease(store, identity, lambda: Report(gateway, fingerprint, self.name, "0.1", ready=True))
        self.owned: set[str] = set()
        self.ended: list[str] = []
        self.backlog = 0
        self.schema_problem = ""
        self.fleet = Fleet(
            store,
            self.lease,
            identity,
            self.machine,
            longest_call_s=LONGEST_CALL_S,
            owned=lambda: self.owned,
            end_calls=self.ended.extend,
            backlog=lambda: self.backlog,
            require_schema=self.require_schema,
        )

    def drain(self, on: bool) -> int:
        self.drains.append(on)
        return 2

    def require_schema(self) -> None:
        if self.schema_problem:
            raise StoreUnavailable(self.schema_problem)

    def lead(self) -> None:
        """Beat as a gateway that has been heard for long enough to look after others."""
        for _ in range(2):  # calls are ended at the second look
            self.fleet._steady_s = time.monotonic() - STEADY_S
            self.fleet._lead_s = 0.0
            self.fleet.beat()

    def ask(self, command: str, **fields: Any) -> Any:
        return self.fleet.commands()[command].run(fields)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.made: list[One] = []

    def one(self, gateway: str = "gw-1", fingerprint: str = "a") -> One:
        self.made.append(One(self.folder, self.store, gateway, fingerprint))
        return self.made[-1]

    def state(self, gateway: str = "gw-1") -> str:
        return next(row.state for row in listed(*self.store.gateways(), gone_after_s(LONGEST_CALL_S)) if row.gateway == gateway)

    def close(self) -> None:
        for one in self.made:
            one.fleet.stop()
            one.page.close()
        self.store.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(fleet, "LOOK_S", 0.01)
    made = Rig(tmp_path)
    yield made
    made.close()


def test_a_lease_is_held_until_it_may_have_passed_to_another(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rig.one()
    assert not one.lease.may_settle()
    one.fleet.beat()
    assert one.lease.may_settle()
    began_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began_s + SILENT_S + 1)
    assert not one.lease.may_settle(), "a process that did not run for a while, or a store that was away"
    one.fleet.beat()
    assert one.lease.may_settle()


def test_a_copy_of_a_live_gateway_is_a_duplicate(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    original, copy = rig.one(), rig.one(fingerprint="b")
    monkeypatch.setattr(fleet, "BEAT_S", 0.05)
    assert not original.fleet.is_duplicate()
    original.fleet.start()
    assert copy.fleet.is_duplicate()
    assert copy.lease.problem == (
        "another gateway, on vm-a, runs with the id gw-1: var_dir was copied. "
        f"Stop the copy, delete {rig.folder}/gateway-id there, and start it again"
    )
    assert (copy.lease.held.is_set(), copy.lease.may_settle()) == (False, False)
    copy.owned = {call_sid(1)}
    assert not copy.fleet.is_duplicate(), "it has calls: it goes on without the lease"
    assert copy.lease.problem
    copy.owned = set()
    worker = copy.scoreboard.take_row(0)
    worker.state, worker.calls, worker.capacity = ProcessState.UP, 1, 5
    assert not copy.fleet.is_duplicate(), "its workers have calls and are not connected yet"


def test_a_holder_that_is_not_heard_again_proves_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine lost power a moment ago, and is back before its silence is certain."""
    rig.one().fleet.beat()
    monkeypatch.setattr(fleet, "WATCH_S", 0.05)
    again = rig.one(fingerprint="b")
    assert not again.fleet.is_duplicate()
    assert not again.lease.may_settle()
    again.fleet.beat()
    assert again.lease.problem, "not ready meanwhile"
    silence(rig.store)
    again.fleet.beat()
    assert (again.lease.may_settle(), again.lease.problem) == (True, "")


def test_a_gateway_that_was_silent_does_without_the_lease(rig: Rig) -> None:
    first, second = rig.one(), rig.one(fingerprint="b")
    first.fleet.beat()
    silence(rig.store)
    second.fleet.beat()
    first.fleet.beat()
    assert (first.lease.may_settle(), bool(first.lease.problem)) == (False, True)
    second.fleet.leave()
    first.fleet.beat()
    assert (first.lease.may_settle(), first.lease.problem) == (True, "")


def test_a_store_that_is_away_delays_no_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one = rig.one()
    one.schema_problem = "the store is away"
    assert not one.fleet.is_duplicate()
    assert (one.lease.problem, one.lease.held.is_set()) == ("", False)
    one.schema_problem = ""
    monkeypatch.setattr(fleet, "CLAIM_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "claim_gateway", lambda *_, **__: gevent.sleep(scaled(20)))
        assert not one.fleet.is_duplicate()
        one.owned = {call_sid(1)}
        assert not one.fleet.is_duplicate()
    monkeypatch.setattr(fleet, "RETRY_S", 0.01)
    one.schema_problem = "the store is away"
    one.fleet.start()
    gevent.sleep(0.05)
    assert not one.lease.held.is_set()
    one.schema_problem = ""
    assert one.lease.held.wait(scaled(10)), "the next heartbeat takes it"


def test_a_stop_is_noted_by_the_holder(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, copy = rig.one(), rig.one(fingerprint="b")
    one.fleet.beat()
    copy.fleet.leave()
    assert rig.state() == "live"
    with monkeypatch.context() as patch:
        patch.setattr(fleet, "CLAIM_S", 0.01)
        patch.setattr(rig.store, "stop_gateway", lambda *_: gevent.sleep(scaled(20)))
        one.fleet.leave()
    assert rig.state() == "live", "a store that is away delays no stop"
    one.fleet.leave()
    assert rig.state() == "stopped"


def test_the_smallest_live_id_ends_the_calls_of_gateways_that_are_gone(rig: Rig) -> None:
    first, second, gone = rig.one("gw-1"), rig.one("gw-2"), rig.one("gw-3")
    at = time.time() - 1000.0
    rig.store.apply(stamp(started(1, started_at=at), started(2, started_at=at), gateway="gw-3"))
    for one in (gone, first, second):
        one.fleet.beat()
    first.lead()
    assert (first.ended, first.fleet.adopted()) == ([], []), "all are heard"
    silence(rig.store, "gw-3")
    second.lead()
    first.lead()
    assert (first.fleet.adopted(), second.fleet.adopted()) == (["gw-3"], [])
    assert (first.ended, second.ended) == ([], []), "its calls may be alive"
    silence(rig.store, "gw-3", gone_after_s(LONGEST_CALL_S) + 1)
    first.owned = {call_sid(2)}
    second.lead()
    first.lead()
    assert (first.ended, second.ended) == ([call_sid(1)], [])
    silence(rig.store, "gw-1")
    second.lead()
    assert sorted(second.ended) == [call_sid(1), call_sid(2)], "the next id follows"
    assert second.fleet.adopted() == ["gw-1", "gw-3"], "the latest first"


def test_calls_are_ended_only_once_others_had_time_to_be_heard(rig: Rig) -> None:
    """After an outage of the store every gateway seems gone to the first one that is back."""
    one, other = rig.one("gw-1"), rig.one("gw-2")
    for each in (one, other):
        each.fleet.beat()
    rig.store.apply(stamp(started(1, started_at=time.time() - 1000.0), gateway="gw-2"))
    silence(rig.store, "gw-2", 900.0)
    one.fleet.beat()
    assert one.ended == []
    one.backlog = 1
    one.lead()
    assert one.ended == [], "the end may be in the spool"
    one.backlog = 0
    one.lead()
    assert one.ended == [call_sid(1)]


def test_a_clock_that_jumped_ends_no_call(rig: Rig) -> None:
    """The database failed over to a server with another time. Every gateway seems gone until its next heartbeat."""
    one, other = rig.one("gw-1"), rig.one("gw-2")
    for each in (one, other):
        each.fleet.beat()
    rig.store.apply(stamp(started(1, started_at=time.time() - 1000.0), gateway="gw-2"))
    silence(rig.store, "gw-2", 900.0)
    for _ in range(3):
        one.fleet._steady_s, one.fleet._lead_s = time.monotonic() - STEADY_S, 0.0
        one.fleet.beat()
        other.fleet.beat()
    assert one.ended == []


def test_gateways_that_are_gone_for_a_week_are_removed(rig: Rig) -> None:
    one, other = rig.one("gw-1"), rig.one("gw-2")
    for each in (one, other):
        each.fleet.beat()
    silence(rig.store, "gw-2", fleet.KEEP_S + 60)
    one.lead()
    assert [row.gateway for row in rig.store.gateways()[1]] == ["gw-1"]


def test_without_the_lease_no_other_gateway_is_looked_after(rig: Rig) -> None:
    original, copy, gone = rig.one(), rig.one(fingerprint="b"), rig.one("gw-3")
    for each in (original, gone):
        each.fleet.beat()
    rig.store.apply(stamp(started(1, started_at=time.time() - 1000.0), gateway="gw-3"))
    silence(rig.store, "gw-3", 900.0)
    copy.lead()
    assert (copy.ended, copy.fleet.adopted()) == ([], [])


def test_all_gateways_are_listed_with_their_states(rig: Rig) -> None:
    for gateway in ("gw-1", "gw-2", "gw-3", "gw-4"):
        rig.one(gateway).fleet.beat()
    silence(rig.store, "gw-2")
    silence(rig.store, "gw-3", gone_after_s(LONGEST_CALL_S) + 1)
    rig.store.stop_gateway("gw-4", "a")
    found = rig.made[0].ask("fleet")
    assert {row.gateway: row.state for row in found} == {"gw-1": "live", "gw-2": "silent", "gw-3": "gone", "gw-4": "stopped"}
    assert found[1].heartbeat_age_s >= SILENT_S


def test_a_drain_reaches_another_gateway(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = rig.one("gw-1", "a"), rig.one("gw-2", "b")
    monkeypatch.setattr(fleet, "BEAT_S", 0.01)
    for each in (here, there):
        each.fleet.beat()
        each.fleet.start()
    assert here.ask("drain_machine", machine="vm-b") == {"gateway": "gw-2", "machine": "vm-b", "draining": True}
    assert (there.drains, there.machine.drained, here.drains) == ([True], True, [])
    assert here.ask("drain_machine", machine="gw-2", on=False)["draining"] is False
    assert there.drains == [True, False]
    assert here.ask("drain_machine", machine="vm-a") == {"gateway": "gw-1", "machine": "vm-a", "draining": True, "workers": 2}
    assert here.drains == [True]


def test_a_drain_that_is_not_answered_is_an_error_and_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = rig.one("gw-1", "a"), rig.one("gw-2", "b")
    for each in (here, there):
        each.fleet.beat()
    monkeypatch.setattr(fleet, "DRAIN_S", 0.05)
    with pytest.raises(CommandError, match=r"vm-b \(gw-2\) has not answered") as caught:
        here.ask("drain_machine", machine="vm-b")
    assert caught.value.code == "timeout"
    there.fleet.beat()
    assert there.drains == [True]


def test_a_copy_follows_no_drain_of_the_original(rig: Rig) -> None:
    original, copy = rig.one(), rig.one(fingerprint="b")
    original.fleet.beat()
    rig.store.ask_drain("gw-1", on=True)
    copy.fleet.beat()
    assert copy.drains == []


def test_a_machine_must_be_named_clearly(rig: Rig) -> None:
    for gateway in ("gw-1", "gw-2", "gw-3"):
        rig.one(gateway).fleet.beat()
    change(rig.store, "gw-3", machine="vm-c")
    silence(rig.store, "gw-3")
    with pytest.raises(CommandError, match="2 gateways run on vm-a; use the id of one instead: gw-1, gw-2"):
        rig.made[0].ask("drain_machine", machine="vm-a")
    with pytest.raises(CommandError, match="no live gateway on a machine 'vm-c'; the live ones: vm-a"):
        rig.made[0].ask("drain_machine", machine="vm-c")
    with pytest.raises(CommandError):
        rig.made[0].ask("drain_machine", machine="")


def test_a_failed_heartbeat_is_followed_by_the_next(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = rig.one()
    monkeypatch.setattr(fleet, "BEAT_S", 0.01)
    monkeypatch.setattr(fleet, "RETRY_S", 0.01)
    failures = [RuntimeError("by design"), StoreUnavailable("away"), StoreUnavailable("away")]
    claim = rig.store.claim_gateway

    def sometimes(report: Report, *, begins: bool = False) -> Any:
        if failures:
            raise failures.pop()
        return claim(report, begins=begins)

    monkeypatch.setattr(rig.store, "claim_gateway", sometimes)
    with caplog.at_level("INFO"):
        one.fleet.start()
        assert one.lease.held.wait(scaled(10))
    assert caplog.text.count("no heartbeat: away") == 1
    assert "a heartbeat failed" in caplog.text
