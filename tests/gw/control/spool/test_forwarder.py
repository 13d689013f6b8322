"""gw.control.spool.forwarder: every entry reaches the store despite outages, and poison stops no other entry."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gw.config
from gw import bus
from gw.control.spool import Spool
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Stamped, Store, StoreError, StoreUnavailable
from gw.control.store.reads import list_turns
from tests import schema
from tests.examples import examples
from tests.gw.control.stamped import ACCOUNT, T0, call_sid, ended, started, turn
from tests.mariadb import PASSWORD, MariaDB
from tests.timing import scaled


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


def fill(spool: Spool, events: Sequence[bus.Event], instance: str = "i1", worker: int = 0) -> None:
    first = spool.last(instance) + 1
    spool.append(instance, [(n, bus.encode_event(event)) for n, event in enumerate(events, first)], worker=worker)


class Running:
    """A forwarder in its greenlet."""

    def __init__(
        self, spool: Spool, store: Store, batch: int = 200, on_stored: Callable[[bus.Event], None] = lambda _event: None
    ) -> None:
        self.backlogs: list[int] = []
        self.refusing: list[bool] = []
        self.spool = spool
        self.forwarder = Forwarder(
            spool,
            store,
            host="h1",
            on_backlog=self.backlogs.append,
            on_refusing=self.refusing.append,
            batch=batch,
            retry_min_s=0.02,
            retry_max_s=0.1,
        )
        self.forwarder.subscribe(on_stored)
        self.greenlet = gevent.spawn(self.forwarder.run)

    def wait_empty(self, seconds: float = 30) -> None:
        with gevent.Timeout(scaled(seconds)):
            while self.spool.backlog():
                gevent.sleep(0.01)

    def end(self) -> None:
        self.forwarder.stop()
        self.greenlet.get(timeout=scaled(20))


@pytest.fixture
def running(spool: Spool, store: Store) -> Iterator[Running]:
    made = Running(spool, store)
    yield made
    made.end()


def test_spooled_events_are_stored(running: Running, spool: Spool, store: Store) -> None:
    fill(spool, [started(k) for k in range(1, 500)], worker=3)
    running.forwarder.notify()
    running.wait_empty()
    assert len(store.calls(limit=1000)) == 499
    assert {(c.host, c.worker, c.instance) for c in store.calls()} == {("h1", 3, "i1")}
    running.end()
    assert running.backlogs[-1] == 0
    assert (running.forwarder.written, running.forwarder.retries, running.forwarder.last_problem) == (499, 0, "")


def test_waiting_entries_are_written_after_a_stop(spool: Spool, store: Store) -> None:
    fill(spool, [started(k) for k in range(1, 30)])
    forwarder = Forwarder(spool, store, host="h1", on_backlog=lambda _: None, batch=10)
    forwarder.stop()
    forwarder.run()
    assert (spool.backlog(), len(store.calls())) == (0, 29)


def test_the_subscriber_acts_before_the_entry_leaves_the_spool(spool: Spool, store: Store) -> None:
    """Acts before an outage are not repeated with the rest of the batch."""
    received: list[tuple[bus.Event, bool, int]] = []

    def on_stored(event: bus.Event) -> None:
        received.append((event, bool(store.calls()), spool.backlog()))
        if len(received) == 2:
            raise StoreUnavailable("away")

    fill(spool, [started(1), started(2), started(3)])
    running = Running(spool, store, on_stored=on_stored)
    running.wait_empty()
    running.end()
    assert received == [(started(k), True, backlog) for k, backlog in ((1, 3), (2, 3), (2, 2), (3, 2))]
    assert (running.forwarder.retries, running.forwarder.written) == (1, 3)


class Fussy(Store):
    """A real store that refuses one event permanently, and at times is unavailable."""

    refused = ""
    unavailable = 0

    def apply(self, events: Sequence[Stamped]) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise StoreUnavailable("away")
        if any(isinstance(s.event, bus.Turn) and s.event.text == self.refused for s in events):
            raise StoreError("refused permanently")
        super().apply(events)


@pytest.fixture
def fussy(tmp_path: Path) -> Iterator[Fussy]:
    made = Fussy(gw.config.Store(url=f"sqlite:///{tmp_path}/s.db"), "")
    schema.upgrade(made)
    yield made
    made.close()


def test_poison_is_found_and_set_aside_with_its_reason(spool: Spool, fussy: Fussy) -> None:
    fussy.refused = "poison"
    fill(spool, [turn(n=n, text="poison" if n in (1, 77, 78) else "fine") for n in range(1, 101)])
    spool.append("i1", [(101, b"not an event"), (102, bus.encode_event(turn(n=101)))])
    running = Running(spool, fussy)
    running.wait_empty()
    running.end()
    assert [(poisoned.n, poisoned.why) for poisoned in spool.list_poison(100)] == [
        (1, "StoreError: refused permanently"),
        (77, "StoreError: refused permanently"),
        (78, "StoreError: refused permanently"),
        (101, spool.list_poison(100)[3].why),
    ]
    assert spool.list_poison(100)[3].why.startswith("BusError: ")
    assert len(fussy._backend.read(partial(list_turns, call_sid=call_sid(1)))) == 98
    assert (running.forwarder.set_aside, running.forwarder.written) == (4, 98)


def test_a_store_that_refuses_everything_poisons_nothing(spool: Spool, fussy: Fussy, caplog: pytest.LogCaptureFixture) -> None:
    fussy.refused = "poison"
    fill(spool, [turn(n=n, text="poison") for n in range(1, 5)])
    running = Running(spool, fussy)
    with gevent.Timeout(scaled(10)):
        while running.forwarder.retries < 2:
            gevent.sleep(0.01)
    assert (spool.backlog(), spool.list_poison(100), running.refusing[-1]) == (4, [], True)
    assert running.forwarder.last_problem == "the store refuses every event: refused permanently"
    assert [entry.levelname for entry in caplog.records] == ["ERROR"]
    fussy.refused = ""
    running.wait_empty()
    running.end()
    assert (spool.list_poison(100), running.forwarder.written, running.refusing[-1]) == ([], 4, False)


def test_a_second_refusal_in_a_row_waits_for_an_accepted_event(spool: Spool, fussy: Fussy) -> None:
    """Events may come one at a time; a store that refuses everything must not set all of them aside."""
    fussy.refused = "poison"
    running = Running(spool, fussy)
    for n in (1, 2):
        fill(spool, [turn(n=n, text="poison")])
        running.forwarder.notify()
        with gevent.Timeout(scaled(10)):
            while running.forwarder.retries + running.forwarder.set_aside < n:
                gevent.sleep(0.01)
    assert ([entry.n for entry in spool.list_poison(9)], spool.backlog()) == ([1], 1)
    fill(spool, [turn(n=3)])
    running.wait_empty()
    running.end()
    assert ([entry.n for entry in spool.list_poison(9)], running.forwarder.written) == ([1, 2], 1)


def test_an_unexpected_exception_sets_nothing_aside(spool: Spool, fussy: Fussy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(events: Sequence[Stamped]) -> None:
        raise IndexError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(fussy, "apply", fail)
        fill(spool, [started(1), ended(1)])
        running = Running(spool, fussy)
        with gevent.Timeout(scaled(10)):
            while not running.forwarder.retries:
                gevent.sleep(0.01)
    running.wait_empty()
    running.end()
    assert (spool.list_poison(100), running.forwarder.written) == ([], 2)


def test_an_event_that_becomes_no_row_is_set_aside(spool: Spool, fussy: Fussy) -> None:
    fill(spool, [turn(n=1), bus.FirstAudio(call_sid(1), "noon"), turn(n=2)])  # type: ignore[arg-type]
    running = Running(spool, fussy)
    running.wait_empty()
    running.end()
    assert ([entry.n for entry in spool.list_poison(9)], running.forwarder.written) == ([2], 2)


def test_a_store_that_is_away_poisons_nothing(spool: Spool, fussy: Fussy) -> None:
    fussy.unavailable = 4
    fill(spool, [started(1)])
    running = Running(spool, fussy)
    running.wait_empty()
    running.end()
    assert (spool.list_poison(100), running.forwarder.retries, running.forwarder.last_problem) == ([], 4, "")
    assert running.backlogs[:5] == [1, 1, 1, 1, 0]


def test_the_backlog_is_reported_while_the_store_hangs(spool: Spool, fussy: Fussy, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, answers = Event(), Event()

    def hang(events: Sequence[Stamped]) -> None:
        hanging.set()
        assert answers.wait(scaled(10))
        Store.apply(fussy, events)

    monkeypatch.setattr(fussy, "apply", hang)
    fill(spool, [started(1)])
    running = Running(spool, fussy)
    assert hanging.wait(scaled(10))
    assert running.backlogs == []
    for k in (2, 3):
        fill(spool, [started(k)])
        running.forwarder.notify()
    assert running.backlogs == [2, 3]
    answers.set()
    running.wait_empty()
    running.end()
    assert running.backlogs[-1] == 0


def test_without_tables_it_waits_for_them(spool: Spool, tmp_path: Path) -> None:
    store = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/s.db"), "")
    fill(spool, [started(1)])
    running = Running(spool, store)
    with gevent.Timeout(scaled(10)):
        while not running.forwarder.last_problem:
            gevent.sleep(0.01)
    assert "calls" in running.forwarder.last_problem
    store.upgrade()
    running.wait_empty()
    running.end()
    assert spool.list_poison(100) == []
    store.close()


def test_stop_ends_a_pause_immediately(spool: Spool) -> None:
    store = Store(gw.config.Store(url="mysql+pymysql://u@127.0.0.1:1/db"), "")
    fill(spool, [started(1)])
    forwarder = Forwarder(spool, store, host="h", on_backlog=lambda _: None, retry_min_s=3600, retry_max_s=3600)
    greenlet = gevent.spawn(forwarder.run)
    with gevent.Timeout(scaled(10)):
        while not forwarder.retries:
            gevent.sleep(0.01)
    forwarder.stop()
    greenlet.get(timeout=scaled(10))
    assert spool.backlog() == 1
    store.close()


def test_a_closed_spool_does_not_end_the_forwarder(tmp_path: Path, fussy: Fussy) -> None:
    spool = Spool(tmp_path / "other.db")
    spool.append("a", [(1, b"waits")])
    running = Running(spool, fussy)
    spool.close()
    running.forwarder.notify()
    with gevent.Timeout(scaled(10)):
        while not running.forwarder.retries:
            gevent.sleep(0.01)
    running.end()


def test_pauses_grow_and_are_bounded(spool: Spool, fussy: Fussy) -> None:
    forwarder = Forwarder(spool, fussy, host="h", on_backlog=lambda _: None, retry_min_s=1, retry_max_s=8)
    for failures, longest in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (5000, 8)]:
        forwarder._failures = failures
        pauses = [forwarder._pause_s() for _ in range(50)]
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_a_server_gone_and_back_costs_no_event(
    harm: str, spool: Spool, mariadb: MariaDB, mariadb_config: gw.config.Store, tmp_path: Path
) -> None:
    config = gw.config.Store(url=mariadb_config.url, connect_timeout_s=scaled(0.5), statement_timeout_s=scaled(1.0))
    store = Store(config, PASSWORD)
    store.upgrade()
    running = Running(spool, store, batch=50)
    fill(spool, [started(k) for k in range(1, 100)])
    running.forwarder.notify()
    running.wait_empty()
    getattr(mariadb, harm)()
    for k in range(100, 200):
        fill(spool, [started(k), turn(k), bus.StartRecording(call_sid(k), ACCOUNT, T0), ended(k)])
        running.forwarder.notify()
    with gevent.Timeout(scaled(20)):
        while not running.forwarder.retries:
            gevent.sleep(0.02)
    assert spool.backlog() >= 350
    assert running.forwarder.last_problem
    mariadb.revive()
    running.wait_empty()
    assert len(store.calls(limit=1000)) == 199
    assert len(store.recordings(limit=1000)) == 100
    assert spool.list_poison(100) == []
    assert store.call(call_sid(150)).reason == "caller_hangup"  # type: ignore[union-attr]
    running.end()
    store.close()


# -- any order, any number of times -----------------------------------------------------------------------------------

EVENTS = [
    event
    for k in (1, 2, 3)
    for event in (
        started(k),
        bus.FirstAudio(call_sid(k), T0 + k),
        bus.StartRecording(call_sid(k), ACCOUNT, T0 + k),
        turn(k, 1),
        turn(k, 2, interrupted=True),
        bus.CallEvent(call_sid(k), "dtmf", T0 + k, {"digit": str(k)}),
        bus.Webhook("recording", T0 + k, {"CallSid": call_sid(k), "RecordingStatus": "completed"}),
        ended(k, reason="worker_lost", result="own_error", at=T0 + 90),
        ended(k, reason="ai_hangup", at=T0 + 50),
        ended(k, reason="phone_lost", result="peer_error", at=T0 + 40),
        ended(k, reason="phone_silent", result="peer_error", at=T0 + 95),
    )
]
#: Numbers of the databases that the examples use.
NUMBERS = itertools.count()
STAMPED = [Stamped(event, "h1", 0, "i1", n) for n, event in enumerate(EVENTS, 1)]


def everything(store: Store) -> list[object]:
    return [store.call(call_sid(k)) for k in (1, 2, 3)] + [sorted(store.recordings(), key=lambda r: r.call_sid)]


def in_batches(store: Store, events: list[Stamped], sizes: random.Random) -> None:
    while events:
        size = sizes.randint(1, 8)
        store.apply(events[:size])
        events = events[size:]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with empty tables, to be copied."""
    made = tmp_path_factory.mktemp("empty") / "store.db"
    store = Store(gw.config.Store(url=f"sqlite:///{made}"), "")
    store.upgrade()
    store.close()
    return made


@pytest.fixture(scope="module")
def in_order(empty: Path) -> list[object]:
    """The rows after each event came once and in sequence."""
    copy = shutil.copy(empty, empty.with_name("in_order.db"))
    store = Store(gw.config.Store(url=f"sqlite:///{copy}"), "")
    store.apply(STAMPED)
    rows = everything(store)
    store.close()
    return rows


@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(again=st.lists(st.sampled_from(STAMPED), max_size=30), order=st.randoms(use_true_random=False))
def test_any_order_with_duplicates_leaves_the_same_rows(
    again: list[Stamped], order: random.Random, empty: Path, in_order: list[object]
) -> None:
    copy = shutil.copy(empty, empty.with_name(f"mixed{next(NUMBERS)}.db"))  # a failed example must not reach the next one
    events = [*STAMPED, *again]
    order.shuffle(events)
    with closing(Store(gw.config.Store(url=f"sqlite:///{copy}"), "")) as mixed:
        in_batches(mixed, events, order)
        assert everything(mixed) == in_order
