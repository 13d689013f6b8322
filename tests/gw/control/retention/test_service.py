"""gw.control.retention.service: one gateway at a time, never before the events that wait."""

from __future__ import annotations

import os
import time
from functools import partial

import gevent
import pytest

from gw.control.jobs import lifecycle, table
from gw.control.jobs.table import Wanted
from gw.control.retention import service
from gw.control.store import StoreUnavailable
from metrics import declare
from tests.gw.control.retention.rig import Rig
from tests.gw.control.stamped import call_sid
from tests.timing import scaled


def test_old_calls_are_removed_after_their_recordings(rig: Rig) -> None:
    rig.recorded(1, days_old=100)
    rig.call(2, days_old=100)
    rig.call(3, days_old=10)
    rig.retention(keep_days=90, twilio_days=30).pass_over()
    assert [call.call_sid for call in rig.store.calls()] == [call_sid(3)]
    assert rig.twin.recordings == {}
    assert rig.page.counter(declare.CALLS_PURGED).value == 2
    assert len(list(rig.files.rglob("*.wav"))) == 1, "a downloaded file is the user's"


def test_parts_of_downloads_do_not_outlast_their_calls(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gateway looks in its own folder, also one that never has the lease."""
    rig.recorded(1, days_old=100)
    rig.twin.fail("cut", operation="media")
    rig.recordings().pass_over(lambda: True)
    [part] = rig.files.rglob("*.part")
    rig.twin.recordings.clear()  # the rest of it will not come
    retention = rig.retention(keep_days=90)
    retention.pass_over()
    assert rig.store.calls() == []
    assert part.exists(), "it was used today"
    os.utime(part, (0, 0))
    retention.pass_over()
    assert part.exists(), "parts are looked for once a day"
    now = time.time()
    assert rig.store.take_lease(service.LEASE, "another", now, now + 60)
    rig.retention(keep_days=90, fetches=False).pass_over()
    assert part.exists(), "the folder is not the gateway's"
    rig.retention(keep_days=90).pass_over()
    assert list(rig.files.rglob("*.part")) == []


def test_the_results_of_old_calls_are_removed_too(rig: Rig) -> None:
    for n, at in ((1, time.time() - 100 * 86_400), (2, time.time())):
        job = lifecycle.want(f"j{n}", "tool", call_sid(n), "{}", deadline_at=0.0, now=at)
        rig.spool.append("w", [], jobs={n: [Wanted(job, 9)]})
    rig.spool.transact(partial(table.turn, ended=(), free={}, now=time.time()))
    rig.retention(keep_days=90).pass_over()
    assert [job.id for job in rig.spool.transact(partial(table.find, ids=["j1", "j2"]))] == ["j2"]


def test_another_gateway_waits_for_the_lease(rig: Rig) -> None:
    rig.call(1, days_old=100)
    one, other = rig.retention(owner="a", keep_days=90), rig.retention(owner="b", keep_days=90)
    now = time.time()
    assert rig.store.take_lease(service.LEASE, "a", now, now + 60)
    other.pass_over()
    assert len(rig.store.calls()) == 1
    one.pass_over()
    assert rig.store.calls() == []
    rig.call(2, days_old=100)
    other.pass_over()
    assert rig.store.calls() == [], "it was released"


def test_a_gateway_without_its_id_removes_nothing(rig: Rig) -> None:
    """A copy has the same lease as its original."""
    rig.call(1, days_old=100)
    rig.may_settle = False
    retention = rig.retention(keep_days=90)
    retention.pass_over()
    assert len(rig.store.calls()) == 1
    rig.may_settle = True
    retention.pass_over()
    assert rig.store.calls() == []


def test_events_come_first(rig: Rig) -> None:
    rig.call(1, days_old=100)
    rig.spool.append("w", [(n, b"x") for n in range(1, service.BACKLOG + 1)])
    retention = rig.retention(keep_days=90)
    retention.pass_over()
    assert len(rig.store.calls()) == 1
    rig.spool.remove([entry.id for entry in rig.spool.batch(1)])
    retention.pass_over()
    assert rig.store.calls() == []


def test_a_sweep_continues_in_the_next_pass(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(1, 151):
        rig.call(k, days_old=100)
    monkeypatch.setattr(service, "WORK_S", 0.0)
    retention = rig.retention(keep_days=90)
    retention.pass_over()
    assert len(rig.store.calls(limit=1000)) == 50
    retention.pass_over()
    assert rig.store.calls() == []
    rig.call(200, days_old=100)
    for _ in range(3):  # ends the sweep; the next one is not due
        retention.pass_over()
    assert len(rig.store.calls()) == 1


def test_the_greenlet_survives_the_store(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_S", 0.0)
    monkeypatch.setattr(service, "PASS_S", 0.01)
    rig.call(1, days_old=100)
    retention = rig.retention(keep_days=90, signed=False)
    errors = iter((StoreUnavailable("away"), ValueError("a fault")))

    def require() -> None:
        for error in errors:
            raise error

    monkeypatch.setattr(retention, "_require_schema", require)
    retention.start()
    with gevent.Timeout(scaled(10)):
        while rig.store.calls():
            gevent.sleep(0.01)


def test_nothing_runs_where_everything_is_kept(rig: Rig) -> None:
    retention = rig.retention(keep_days=0, fetches=False)
    retention.start()
    assert retention._greenlet is None
