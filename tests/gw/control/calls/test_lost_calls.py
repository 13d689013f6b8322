"""A call whose worker is gone gets its end, after its beginning, once the disk takes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

import gw.config
from gw import bus
from gw.control.calls import lost_calls
from gw.control.calls.lost_calls import LostCalls
from gw.control.spool import Spool, SpoolError
from gw.control.store import Stamped, Store, StoreUnavailable
from metrics import declare
from metrics.page import Page
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started
from tests.timing import scaled

THIRD = "CA" + "3" * 32


class House:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/store.db"), "")
        self.store.upgrade()
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

    def drain(self) -> None:
        entries = self.spool.batch(100)
        self.store.apply(
            [Stamped(bus.decode_event(entry.body), "here", entry.worker, entry.instance, entry.n) for entry in entries]
        )
        self.spool.done([entry.id for entry in entries])

    def stop(self) -> None:
        self.lost.stop()
        self.spool.close()
        self.store.close()
        self.page.close()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(lost_calls, "GRACE_S", 0.01)
    monkeypatch.setattr(lost_calls, "RETRY_S", 0.01)
    house = House(tmp_path)
    yield house
    house.stop()


def test_a_lost_call_ends_as_worker_lost(house: House) -> None:
    house.spool.append("w0", [(1, bus.encode_event(call_started()))])
    house.lost.add({CALL}, at=5000.0)
    with gevent.Timeout(scaled(20)):
        while house.spool.backlog() < 2:
            gevent.sleep(0.01)
    house.drain()
    row = house.store.call(CALL)
    assert row is not None
    assert (row.reason, row.result, row.ended_at) == ("worker_lost", "own_error", 5000.0)
    assert row.quality is None, "nobody measured it"
    assert house.page.counter(declare.CALLS_ENDED, reason="worker_lost").value == 1
    assert house.notified == 1


def test_a_spool_that_fails_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    append, failures = house.spool.append, [3]

    def sometimes(instance: str, items: list[tuple[int, bytes]], *, worker: int = -1) -> None:
        if failures[0]:
            failures[0] -= 1
            raise SpoolError("the disk is full")
        append(instance, items, worker=worker)

    monkeypatch.setattr(house.spool, "append", sometimes)
    house.lost.add({CALL})
    house.lost.add({OTHER})
    assert {end.call_sid for end in house.wait(2)} == {CALL, OTHER}


def test_what_is_pending_at_the_end_is_still_written(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.lost.add({CALL})
    house.lost.stop()
    assert [end.call_sid for end in house.ends()] == [CALL]  # type: ignore[union-attr]
    house.stop()


def test_orphans_of_earlier_workers_are_ended(house: House) -> None:
    for call_sid in (CALL, OTHER, THIRD):
        house.store.apply([Stamped(call_started(call_sid), "here" if call_sid != THIRD else "elsewhere", 0, "w0", 1)])
    done: list[bool] = []
    house.lost.watch_orphans(house.store, "here", owned=lambda: {OTHER}, done=lambda: done.append(True))
    assert [end.call_sid for end in house.wait(1)] == [CALL]
    assert done == [True]


def test_orphans_wait_for_the_store(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.store.apply([Stamped(call_started(), "here", 0, "w0", 1)])
    open_calls, failures = house.store.open_calls, [3]

    def sometimes(*, host: str) -> list[dict[str, object]]:
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailable("away")
        return open_calls(host=host)

    monkeypatch.setattr(house.store, "open_calls", sometimes)
    house.lost.watch_orphans(house.store, "here", owned=set, done=lambda: None)
    assert [end.call_sid for end in house.wait(1)] == [CALL]


def test_a_real_end_still_wins(house: House) -> None:
    house.spool.append("w0", [(1, bus.encode_event(call_started()))])
    house.lost.add({CALL})
    with gevent.Timeout(scaled(20)):
        while house.spool.backlog() < 2:
            gevent.sleep(0.01)
    house.spool.append("w0", [(2, bus.encode_event(call_ended()))])
    house.drain()
    row = house.store.call(CALL)
    assert row is not None
    assert row.reason == "caller_hangup"
