"""gw.control.health: readiness, status and gauges over real parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import msgspec
import pytest

import gw.config
from gw.config import Config
from gw.control import health
from gw.control.admin.machine import MachineState
from gw.control.bus.server import BusServer
from gw.control.calls.registry import Calls
from gw.control.health import Health
from gw.control.jobs.service import Jobs
from gw.control.recording.claims import Claims
from gw.control.spool import Spool
from gw.control.store import Store
from gw.control.twilio_api.accounts import Accounts
from gw.scoreboard import ReloadReport, Scoreboard
from metrics import declare
from metrics.page import Page
from tests.gw.control.bus_client import BusClient
from tests.timing import scaled


class Rig:
    def __init__(self, folder: Path) -> None:
        self.page = Page.create(folder / "control.page")
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        self.spool = Spool(folder / "spool.db")
        self.bus = BusServer(folder / "bus.sock", self.spool, Calls(), on_lost=lambda _: None)
        self.bus.start()
        self.path = folder / "bus.sock"
        self.scoreboard = Scoreboard.private()
        row = self.scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self.machine = MachineState(self.scoreboard, row, self.page, drain_workers=self.bus.drain, is_orphan=lambda: False)
        config = Config(
            ops=gw.config.Ops(var_dir=str(folder)),
            twilio=gw.config.Twilio(
                account_sid="AC" + "0" * 32, accounts={"support": gw.config.Subaccount(account_sid="AC" + "1" * 32)}
            ),
            secrets=gw.config.Secrets(twilio_auth_token="secret"),
        )
        accounts = Accounts(config)
        self.breaker, self.other_breaker = (account.breaker for account in accounts)
        self.store_problem = self.lease_problem = ""
        self.stopping = False
        self.schema_state = "unknown"
        self.health = Health(
            config,
            self.page,
            store=self.store,
            store_problem=lambda: self.store_problem,
            spool=self.spool,
            claims=Claims(self.spool, claimant="host:0"),
            bus=self.bus,
            machine=self.machine,
            accounts=accounts,
            jobs=Jobs(self.spool, self.page, [], settle=self.bus.settle),
            is_stopping=lambda: self.stopping,
            schema_state=lambda: self.schema_state,
            gateway="gw-1",
            lease_problem=lambda: self.lease_problem,
        )

    def worker(self, *, draining: bool = False) -> BusClient:
        client = BusClient(self.path)
        client.status(draining=draining)
        with gevent.Timeout(scaled(20)):
            while not [worker for worker in self.bus.workers() if worker.connected and worker.draining == draining]:
                gevent.sleep(0.01)
        return client

    def close(self) -> None:
        self.bus.stop()
        self.store.close()
        self.spool.close()
        self.page.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def readiness(rig: Rig) -> tuple[bool, list[str]]:
    found = rig.health.readiness()
    return found.ready, found.reasons


def test_calls_need_a_worker(rig: Rig) -> None:
    assert readiness(rig) == (False, ["no worker is connected"])
    worker = rig.worker()
    assert readiness(rig) == (True, [])
    worker.status(draining=True)
    with gevent.Timeout(scaled(20)):
        while readiness(rig) != (False, ["every worker drains"]):
            gevent.sleep(0.01)
    worker.close()


def test_a_drained_or_stopping_machine_is_not_ready(rig: Rig) -> None:
    worker = rig.worker()
    rig.scoreboard.drained = True
    assert readiness(rig) == (False, ["drained by an operator"])
    rig.scoreboard.drained = False
    rig.stopping = True
    assert readiness(rig) == (False, ["the gateway stops"])
    worker.close()


def test_a_gateway_whose_id_is_held_elsewhere_is_not_ready(rig: Rig) -> None:
    worker = rig.worker()
    rig.lease_problem = "another gateway has the id"
    assert readiness(rig) == (False, ["another gateway has the id"])
    assert rig.health.status()["gateway"] == "gw-1"
    worker.close()


def test_other_problems_are_reported_and_do_not_change_readiness(rig: Rig) -> None:
    worker = rig.worker()
    rig.health._config = msgspec.structs.replace(rig.health._config, recording=gw.config.Recording(enabled=False))
    rig.store_problem = "it is away"
    rig.bus.spool_problem = "the disk is full"
    rig.bus._version_problem = "worker 1 speaks 9"
    rig.bus._refused_s = time.monotonic()
    for _ in range(20):
        rig.breaker.on_error("unreachable", "no answer", time.monotonic())
        rig.other_breaker.on_error("unauthorized", "refused", time.monotonic())
    ready, reasons = readiness(rig)
    assert ready
    assert reasons == [
        "events stay with the workers, the disk is full",
        "worker 1 speaks 9: that worker keeps its events",
        "recordings wait, Twilio's REST API is down: no answer",
        "recordings wait, Twilio's REST API is down for the account support: refused",
        "the store accepts no events, 0 wait in the spool: it is away",
    ]
    worker.close()
    assert readiness(rig)[0], "while the spool fails workers reconnect repeatedly"


def test_a_spool_that_cannot_be_written_ends_readiness_where_calls_are_recorded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = rig.worker()
    rig.bus.spool_problem = "the disk is full"
    assert readiness(rig) == (
        False,
        ["calls would not be recorded, the disk is full", "events stay with the workers, the disk is full"],
    )
    monkeypatch.setattr(health, "SPOOL_LOOK_S", 0.01)
    watching = gevent.spawn(rig.health.watch_spool)
    with gevent.Timeout(scaled(10)):
        while not readiness(rig)[0]:
            gevent.sleep(0.01)
    watching.kill()
    monkeypatch.setattr(health, "FULL_BYTES", 1 << 62)
    monkeypatch.setattr(health, "GAUGES_S", 0.01)
    keeping = gevent.spawn(rig.health.keep_gauges)
    with gevent.Timeout(scaled(10)):
        while readiness(rig)[0]:
            gevent.sleep(0.01)
    keeping.kill()
    assert "(ops.var_dir) is full: free some of it" in readiness(rig)[1][0]
    worker.close()


def test_a_store_that_hangs_is_asked_once_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def hang() -> tuple[str, str]:
        asked.append(time.monotonic())
        gevent.sleep(scaled(60))
        return "", ""

    monkeypatch.setattr(health, "PROBE_S", 0.01)
    monkeypatch.setattr(rig.store, "current", hang)
    assert [rig.health.status()["store"]["reachable"] for _ in range(3)] == [False] * 3
    assert len(asked) == 1


def test_status_asks_the_store_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = rig.health.status()
    assert shown["jobs"] == {"open": 0, "oldest_s": 0.0}
    assert (shown["store"]["kind"], shown["twilio"]["circuit"], shown["backlog"], shown["calls"]) == ("sqlite", "closed", 0, 0)
    assert shown["twilio"]["accounts"] == {"support": {"circuit": "closed", "opened": 0, "problem": ""}}
    rig.store.upgrade()
    store = rig.health.status()["store"]
    assert (store["reachable"], store["problem"]) == (True, "")
    assert store["revision"] == rig.store.current()[1]
    monkeypatch.setattr(health, "PROBE_S", 0.01)
    monkeypatch.setattr(rig.store, "current", lambda: gevent.sleep(scaled(60)))
    store = rig.health.status()["store"]
    assert (store["reachable"], store["problem"]) == (False, "no answer within 0.01 s: check the server of store.url")


def test_gauges_follow_the_workers(rig: Rig) -> None:
    worker = rig.worker()
    keeping = gevent.spawn(rig.health.keep_gauges)
    gevent.sleep(0)
    values = {state: rig.page.gauge(declare.WORKERS, state=state).value for state in declare.WORKERS.labels["state"]}
    assert {state: value for state, value in values.items() if value} == {"up": 1.0}
    keeping.kill()
    worker.close()


def test_gauges_show_what_an_operator_must_know(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "GAUGES_S", 0.01)
    gauges = (declare.READY, declare.DRAINED, declare.RELOAD_FAILED)

    def shown() -> tuple[list[float], list[str]]:
        gevent.sleep(0.05)
        states = declare.STORE_SCHEMA.labels["state"]
        present = [state for state in states if rig.page.gauge(declare.STORE_SCHEMA, state=state).value]
        return [rig.page.gauge(gauge).value for gauge in gauges], present

    keeping = gevent.spawn(rig.health.keep_gauges)
    assert shown() == ([0.0, 0.0, 0.0], ["unknown"])
    assert rig.page.gauge(declare.DISK_FREE).value > 0
    worker = rig.worker()
    rig.schema_state = "ahead"
    rig.scoreboard.publish_report(ReloadReport(1, "failed", "", "no such file", has_failed=True))
    assert shown() == ([1.0, 0.0, 1.0], ["ahead"])
    rig.scoreboard.drained = True
    rig.scoreboard.publish_report(ReloadReport(2, "done", reloaded_at=1234.5))
    assert shown() == ([0.0, 1.0, 0.0], ["ahead"])
    assert rig.page.gauge(declare.RELOAD_TIME).value == 1234.5
    assert rig.page.gauge(declare.START_TIME).value == rig.health.status()["started_at"]
    assert rig.page.gauge(declare.PROCESS_RSS, process="control").value > 0
    keeping.kill()
    worker.close()
