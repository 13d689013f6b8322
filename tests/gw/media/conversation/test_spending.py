"""gw.media.conversation.spending: reports in time, and one notice for each level of a limit."""

from __future__ import annotations

import time
from time import monotonic
from typing import Any, NamedTuple

from gw import bus
from gw.call.cost.budget import Level
from gw.call.cost.usage import day_of
from gw.config import Agent, Budget, Price
from gw.media.call_events import CallEvents
from gw.media.conversation.spending import REPORT_S, CallSpending
from gw.media.shared.context import MediaContext
from gw.protocol.ai import NO_TOKENS, Tokens
from gw.protocol.twilio import Start
from tests.gw.media.support import ACCOUNT, CALL, STREAM, ContextMaker


def of(emitted: list[bus.Event], kind: type) -> list[Any]:
    return [event for event in emitted if isinstance(event, kind)]


ONE_USD = Tokens(audio_out=1_000_000)


class Rig(NamedTuple):
    context: MediaContext
    emitted: list[bus.Event]
    spending: CallSpending
    levels: list[Level]

    def check(self) -> list[Level]:
        self.spending.check(self.levels.append)
        return self.levels


def _rig(contexts: ContextMaker, budget: Budget, **parameters: str) -> Rig:
    agent = Agent(model="m")
    prices = {"m": Price(audio_out=1.0)}
    context, emitted = contexts.context(agents={"default": agent}, prices=prices, budget=budget)
    start = Start(STREAM, ACCOUNT, CALL, {"caller": "+1", "direction": "inbound", **parameters})
    events = CallEvents(context, start, started_s=monotonic(), started_at=time.time())
    return Rig(context, emitted, CallSpending(context, events, start, "default", agent), [])


def test_news_is_reported_in_time_and_once(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget())
    now_s = monotonic()
    rig.spending.add("m", NO_TOKENS)
    rig.spending.report_in_time(now_s + REPORT_S + 1)
    assert rig.emitted == [], "no news"
    rig.spending.add("m", ONE_USD)
    rig.spending.report_in_time(now_s + REPORT_S + 2)
    assert rig.emitted == [], "it is not time"
    for later_s in (2, 3):
        rig.spending.report_in_time(now_s + later_s * REPORT_S + 2)
    (report,) = of(rig.emitted, bus.Usage)
    assert (report.call_sid, report.stream_sid, report.agent, report.caller) == (CALL, STREAM, "default", "+1")
    assert report.used == rig.spending.used()
    assert report.used[0].cost_usd == 1.0


def test_an_outbound_call_has_no_caller(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget(), direction="outbound-api")
    rig.spending.add("m", ONE_USD)
    rig.spending.report(monotonic())
    assert of(rig.emitted, bus.Usage)[0].caller == ""


def test_each_level_of_a_call_is_passed_on_and_noted_once(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget(call_usd=2.5))
    rig.spending.add("m", ONE_USD)
    assert rig.check() == []
    rig.spending.add("m", ONE_USD)
    rig.check()
    assert rig.check() == [Level.NEAR]
    rig.spending.add("m", ONE_USD)
    rig.check()
    assert rig.check() == [Level.NEAR, Level.SPENT]
    assert [(note.kind, note.data) for note in of(rig.emitted, bus.CallEvent)] == [
        ("budget_near", {"of": "call", "spent_usd": 2.0}),
        ("budget_spent", {"of": "call", "spent_usd": 3.0}),
    ]


def test_earlier_streams_of_the_call_count(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget(call_usd=2.5))
    rig.spending.earlier_usd = 1.6
    rig.spending.add("m", ONE_USD)
    assert rig.check() == [Level.SPENT]


def test_what_is_left_for_the_caller_is_less_what_was_not_reported(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget(caller_day_usd=10.0))
    rig.context.budget_board.on_budget(bus.Budget(day_of(time.time()), None, {"+1": 1.5}))
    assert rig.check() == [Level.NEAR]
    rig.spending.add("m", ONE_USD)
    assert rig.check() == [Level.NEAR]
    rig.spending.report(monotonic())  # control sums it from here on
    rig.context.budget_board.on_budget(bus.Budget(day_of(time.time()), None, {"+1": 0.5}))
    assert rig.check() == [Level.NEAR]
    rig.spending.add("m", ONE_USD)
    assert rig.check() == [Level.NEAR, Level.SPENT]


def test_without_limits_no_cost_is_too_high(contexts: ContextMaker) -> None:
    rig = _rig(contexts, Budget())
    rig.spending.add("m", Tokens(audio_out=10**12))
    assert rig.check() == []
