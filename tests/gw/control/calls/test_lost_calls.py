"""A call whose worker is gone is ended, with retries while the spool fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import gw.config
from gw import bus
from gw.control.calls import lost_calls
from gw.control.calls.lost_calls import LostCalls
from gw.control.rows import CallRow
from gw.control.spool import Spool, SpoolError
from gw.control.store import Stamped, Store, StoreUnavailable
from metrics import declare
from metrics.page import Page
from tests import schema
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started
from tests.timing import scaled

THIRD = "CA" + "3" * 32


class Rig:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        schema.upgrade(self.store)
        self.notified = 0
        self.lost = LostCalls(self.spool, self.page, notify=self.notify)
        self.lost.start()

    def notify(self) -> None:
        self.notified += 1

    def ends(self) -> list[bus.Event]:
        return [bus.decode_event(entry.body) for entry in self.spool.batch(100)]

    def wait(self, calls: int) -> list[bus.CallEnded]:
        with gevent.Timeout(scaled(20)):
            while self.spool.backlog() < calls:
                gevent.sleep(0.01)
        ends = self.ends()
        assert all(isinstance(end, bus.CallEnded) for end in ends)
        return ends  # type: ignore[return-value]

    def forward(self) -> None:
        entries = self.spool.batch(100)
        self.store.apply(
            [Stamped(bus.decode_event(entry.body), "here", entry.worker, entry.instance, entry.n) for entry in entries]
        )
        self.spool.remove([entry.id for entry in entries])

    def stop(self) -> None:
        self.lost.stop()
        self.spool.close()
        self.store.close()
        self.page.close()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(lost_calls, "GRACE_S", 0.01)
    monkeypatch.setattr(lost_calls, "RETRY_S", 0.01)
    rig = Rig(tmp_path)
    yield rig
    rig.stop()


def test_a_lost_call_ends_as_worker_lost(rig: Rig) -> None:
    rig.spool.append("w0", [(1, bus.encode_event(call_started()))])
    rig.lost.add({CALL}, at=5000.0)
    with gevent.Timeout(scaled(20)):
        while rig.spool.backlog() < 2:
            gevent.sleep(0.01)
    rig.forward()
    row = rig.store.call(CALL)
    assert row is not None
    assert (row.reason, row.result, row.ended_at) == ("worker_lost", "own_error", 5000.0)
    assert row.quality is None, "no worker measured the call"
    assert rig.page.counter(declare.CALLS_ENDED, reason="worker_lost").value == 1
    assert rig.notified == 1


def test_a_spool_that_fails_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    append, failures = rig.spool.append, [3]

    def sometimes(instance: str, items: list[tuple[int, bytes]], **rest: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise SpoolError("the disk is full")
        append(instance, items, **rest)

    monkeypatch.setattr(rig.spool, "append", sometimes)
    rig.lost.add({CALL})
    rig.lost.add({OTHER})
    assert {end.call_sid for end in rig.wait(2)} == {CALL, OTHER}


def test_pending_ends_are_written_at_the_stop(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.lost.add({CALL})
    rig.lost.stop()
    assert [end.call_sid for end in rig.ends()] == [CALL]  # type: ignore[union-attr]
    rig.stop()


def test_orphans_of_earlier_workers_are_ended(rig: Rig) -> None:
    for call_sid in (CALL, OTHER, THIRD):
        rig.store.apply([Stamped(call_started(call_sid), "vm1", 0, "w0", 1, "here" if call_sid != THIRD else "elsewhere")])
    rig.lost.watch_orphans(rig.store, "here", {OTHER}.__contains__)
    assert [end.call_sid for end in rig.wait(1)] == [CALL]


def test_orphans_wait_for_the_store(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.store.apply([Stamped(call_started(), "vm1", 0, "w0", 1, "here")])
    open_calls, failures = rig.store.open_calls, [3]

    def sometimes(*, gateway: str) -> list[dict[str, object]]:
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailable("away")
        return open_calls(gateway=gateway)

    monkeypatch.setattr(rig.store, "open_calls", sometimes)
    rig.lost.watch_orphans(rig.store, "here", is_known=set[str]().__contains__)
    assert [end.call_sid for end in rig.wait(1)] == [CALL]


def test_a_call_whose_end_waits_in_the_spool_is_not_lost(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls ended while the store was away, and control was replaced meanwhile: they were counted twice, as lost too."""
    rig.store.apply([Stamped(call_started(call_sid), "vm1", 0, "w0", 1, "here") for call_sid in (CALL, OTHER)])
    rig.spool.append("w0", [(2, bus.encode_event(call_ended()))])
    asked = gevent.event.Event()
    open_calls = rig.store.open_calls

    def ask(*, gateway: str) -> list[CallRow]:
        asked.set()
        return open_calls(gateway=gateway)

    monkeypatch.setattr(rig.store, "open_calls", ask)
    rig.lost.watch_orphans(rig.store, "here", is_known=set[str]().__contains__)
    assert not asked.wait(0.1), "the store does not have the end yet"
    rig.forward()
    assert [end.call_sid for end in rig.wait(1)] == [OTHER]


def test_a_real_end_supersedes(rig: Rig) -> None:
    rig.spool.append("w0", [(1, bus.encode_event(call_started()))])
    rig.lost.add({CALL})
    with gevent.Timeout(scaled(20)):
        while rig.spool.backlog() < 2:
            gevent.sleep(0.01)
    rig.spool.append("w0", [(2, bus.encode_event(call_ended()))])
    rig.forward()
    row = rig.store.call(CALL)
    assert row is not None
    assert row.reason == "caller_hangup"


def test_an_end_that_was_spooled_meanwhile_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store was slow: the call's end came during the read, and the registry has dropped the call."""
    monkeypatch.setattr(lost_calls, "STORED_S", -1.0)
    rig.store.apply([Stamped(call_started(call_sid), "vm1", 0, "w0", 1, "here") for call_sid in (CALL, OTHER)])
    open_calls = rig.store.open_calls

    def late(*, gateway: str) -> list[CallRow]:
        rows = open_calls(gateway=gateway)
        if len(rows) == 2:
            rig.spool.append("w0", [(2, bus.encode_event(call_ended()))])
            gevent.spawn(rig.forward)
        else:
            monkeypatch.setattr(lost_calls, "STORED_S", scaled(20.0))
        return rows

    monkeypatch.setattr(rig.store, "open_calls", late)
    rig.lost.watch_orphans(rig.store, "here", is_known=set[str]().__contains__)
    with gevent.Timeout(scaled(20)):
        while rig.notified == 0:
            gevent.sleep(0.01)
    assert [end.call_sid for end in rig.ends()] == [OTHER]  # type: ignore[union-attr]
