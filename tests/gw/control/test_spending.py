"""gw.control.spending on a real store: sums of a day over machines, restarts and repetitions; metrics; messages to workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gw.config
import gw.control.spending as module
from gw import bus
from gw.call.cost.usage import Used, day_of
from gw.config import Agent, Budget, Config
from gw.control.bus.server import BusServer
from gw.control.calls.registry import Calls
from gw.control.spending import KEEP_S, OTHER, READ_S, Spending
from gw.control.spool import Spool
from gw.control.store import Store
from metrics.declare import AI_COST, AI_TOKENS, BUDGET_DAY
from metrics.page import Page
from tests.gw.control.bus_client import BusClient
from tests.gw.control.stamped import T0, call_sid, ended, stamp, started

CALLER, OTHERS = "+15550001", "+15550002"
TODAY = day_of(T0)


class Sent:
    """Receives messages in place of the workers' connections."""

    def __init__(self) -> None:
        self.news: list[bus.Budget] = []
        self.everything: list[bus.Budget] = []

    def send_budget(self, news: Any, everything: Any) -> None:
        self.news, self.everything = list(news), list(everything())


class Rig:
    """One control process's sums. `pass_s` moves both clocks."""

    def __init__(self, store: Store, page: Page, budget: Budget) -> None:
        self.now_s = 0.0
        self.store = store
        self.page = page
        self.sent = Sent()
        agents = {"default": Agent(model="m", transcription_model="scribe")}
        config = Config(agents=agents, budget=budget)
        self.spending = Spending(
            config,
            store,
            self.sent,
            page,
            clock=lambda: T0 + self.now_s,
            monotonic=lambda: self.now_s,  # type: ignore[arg-type]
        )

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.spending.read_if_due()
        self.spending.step()

    def publish(self, *events: bus.Event) -> None:
        for event in events:
            self.spending.on_event(event)

    def keep(self, *events: bus.Event, instance: str = "i1") -> None:
        """Write events to the store, and report that."""
        self.store.apply(stamp(*events, instance=instance))
        for event in events:
            self.spending.on_stored(event)

    def left(self) -> tuple[float | None, dict[str, float]]:
        """Return the budgets for a worker that has just connected."""
        callers: dict[str, float] = {}
        for message in self.sent.everything:
            callers |= message.callers
        return self.sent.everything[0].day_usd, callers


@pytest.fixture
def page(tmp_path: Path) -> Any:
    made = Page.create(tmp_path / "control.page")
    yield made
    made.close()


@pytest.fixture
def rig(store: Store, page: Page) -> Rig:
    return Rig(store, page, Budget(day_usd=10.0, caller_day_usd=4.0))


def usage(k: int, cost: float | None, *, tokens: int = 100, caller: str = CALLER, model: str = "m", **changes: Any) -> bus.Usage:
    used = [Used(day=changes.pop("day", TODAY), model=model, audio_out=tokens, cost_usd=cost)]
    facts = {"stream_sid": f"MZ{k:032x}", "at": T0, "agent": "default", "caller": caller, **changes}
    return bus.Usage(call_sid(k), used=used, **facts)


def test_what_is_on_its_way_to_the_store_counts(rig: Rig) -> None:
    rig.publish(started(1), usage(1, 1.5))
    rig.pass_s(1.0)
    assert rig.left() == (8.5, {CALLER: 2.5})
    rig.keep(started(1, from_number=CALLER), usage(1, 1.5))
    rig.pass_s(READ_S)
    assert rig.left() == (8.5, {CALLER: 2.5}), "stored and read: counted once"
    rig.publish(usage(1, 2.0), usage(1, 2.0))
    rig.pass_s(1.0)
    assert rig.left() == (8.0, {CALLER: 2.0}), "a repeated report changes nothing"


def test_a_day_is_that_of_all_machines_and_outlives_a_restart(rig: Rig, page: Page) -> None:
    rig.store.apply(stamp(started(1, from_number=CALLER), usage(1, 3.0), started(2, from_number=OTHERS), usage(2, 1.0)))
    rig.store.apply(stamp(started(3, from_number=CALLER), usage(3, 7.0, day="2026-01-01"), instance="i2"))
    rig.pass_s(1.0)
    assert rig.left() == (6.0, {CALLER: 1.0, OTHERS: 3.0})
    again = Rig(rig.store, page, Budget(day_usd=10.0, caller_day_usd=4.0))
    again.publish(usage(1, 3.5))  # of a call that the former process saw begin
    again.pass_s(1.0)
    assert again.left() == (6.0, {CALLER: 1.0, OTHERS: 3.0})
    again.keep(usage(1, 3.5))
    again.pass_s(READ_S)
    assert again.left() == (5.5, {CALLER: 0.5, OTHERS: 3.0})


def test_only_news_is_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_CALLERS", 2)
    rig.publish(*(event for k in (1, 2, 3) for event in (started(k), usage(k, 1.0, caller=f"+{k}"))))
    rig.pass_s(1.0)
    assert [len(message.callers) for message in rig.sent.news] == [2, 1]
    rig.publish(usage(2, 1.5))
    rig.publish(usage(2, 1.5, caller="+2"))
    rig.pass_s(1.0)
    assert [message.callers for message in rig.sent.news] == [{"+2": 2.5}]
    assert [len(message.callers) for message in rig.sent.everything] == [2, 1]


def test_a_new_day_begins_with_nothing_spent(rig: Rig) -> None:
    rig.publish(started(1), usage(1, 9.0))
    rig.pass_s(1.0)
    assert rig.page.gauge(BUDGET_DAY).value == 0.9
    rig.pass_s(86_400.0)
    assert rig.left() == (10.0, {})
    assert rig.page.gauge(BUDGET_DAY).value == 0.0


def test_a_read_that_ends_on_the_next_day_is_dropped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.store.apply(stamp(started(1), usage(1, 3.0)))
    read = rig.store.spent_on

    def slow(day: str) -> float:
        rig.now_s += 86_400.0
        rig.spending.step()
        return read(day)

    monkeypatch.setattr(rig.store, "spent_on", slow)
    rig.spending.read_if_due()
    rig.spending.step()
    assert rig.left() == (10.0, {})


def test_the_operator_is_warned_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for cost in (7.9, 8.0, 8.5, 10.0, 11.0):
        rig.publish(started(1), usage(1, cost))
        rig.pass_s(1.0)
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[0] for text in texts] == ["the budget of the day is nearly spent", "the budget of the day is spent"]


def test_without_the_store_the_sum_continues(rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig.store.apply(stamp(started(1), usage(1, 3.0)))
    rig.pass_s(1.0)
    rig.spending._store = Store(gw.config.Store(url=f"sqlite:///{tmp_path}/no-folder/store.db"), "")
    rig.publish(started(2), usage(2, 1.0))
    for _ in range(3):
        rig.pass_s(READ_S)
    assert rig.left()[0] == 6.0
    assert len(caplog.records) == 1
    assert rig.spending.problem


def test_an_outbound_call_has_no_caller(rig: Rig) -> None:
    rig.publish(started(1), usage(1, 1.0, caller=""))
    rig.keep(started(2, direction="outbound-api", from_number=CALLER), usage(2, 1.0))
    rig.pass_s(1.0)
    assert rig.left() == (8.0, {})


def test_metrics_count_what_grew(rig: Rig) -> None:
    rig.publish(started(1), usage(1, 1.0), usage(1, 1.5, tokens=150), usage(1, 1.5, tokens=150))
    rig.publish(started(2), usage(2, 2.0, tokens=7, model="gone", agent="gone"))
    rig.publish(usage(3, 5.0, tokens=900), usage(3, 5.5, tokens=901))  # its beginning was counted by a former process
    counted = rig.spending.counters()
    assert {key: value for key, (value,) in counted[AI_TOKENS].items() if value} == {
        ("m", "audio_out"): 151.0,
        (OTHER, "audio_out"): 7.0,
    }
    assert dict(counted[AI_COST]) == {("default",): (2.0,), (OTHER,): (2.0,)}
    assert len(counted[AI_TOKENS]) == 6 * 3, "every configured model, from the start"


def test_a_call_that_resumes_has_the_cost_of_all_its_streams(rig: Rig) -> None:
    rig.publish(started(1), usage(1, 1.0), ended(1), started(1, stream_sid="MZ2"), usage(1, 0.5, stream_sid="MZ2"))
    assert (rig.spending.spent_usd(call_sid(1)), rig.spending.spent_usd(call_sid(9))) == (1.5, 0.0)


def test_an_ended_call_is_dropped_once_the_store_has_it(rig: Rig) -> None:
    events = (started(1), usage(1, 1.0))
    rig.publish(*events, ended(1))
    rig.pass_s(KEEP_S + 1)
    assert rig.spending.spent_usd(call_sid(1)) == 1.0, "not stored yet"
    rig.keep(*events, ended(1))
    rig.pass_s(READ_S)
    rig.pass_s(KEEP_S + 1)
    assert rig.spending.spent_usd(call_sid(1)) == 0.0
    assert rig.left()[0] == 9.0


def test_without_limits_nothing_is_read_or_sent(store: Store, page: Page) -> None:
    rig = Rig(store, page, Budget(call_usd=1.0))
    store.close()
    rig.publish(started(1), usage(1, 1.0), ended(1))
    rig.pass_s(KEEP_S + 1)
    assert (rig.sent.everything, rig.spending.problem, rig.spending.spent_usd(call_sid(1))) == ([], "", 0.0)
    assert rig.spending.day() == {"day": TODAY, "spent_usd": None, "limit_usd": None}


def test_a_worker_gets_everything_first_and_then_news(tmp_path: Path, store: Store, page: Page) -> None:
    """Over the real bus."""
    spool = Spool(tmp_path / "spool.db")
    server = BusServer(tmp_path / "bus.sock", spool, Calls(), on_lost=lambda calls: None)
    server.start()
    worker = BusClient(tmp_path / "bus.sock")
    try:
        worker.await_ack(worker.send(started(1)))
        for news in ([bus.Budget(TODAY, 3.0)], [bus.Budget(TODAY, 2.0)]):
            server.send_budget(news, lambda: [bus.Budget(TODAY, 3.0, {CALLER: 1.0})])
        assert [worker.command(), worker.command()] == [bus.Budget(TODAY, 3.0, {CALLER: 1.0}), bus.Budget(TODAY, 2.0)]
    finally:
        worker.close()
        server.stop()
        spool.close()
