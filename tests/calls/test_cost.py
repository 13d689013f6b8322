"""Usage and cost in whole calls: what the AI reported is what the store has, and a budget ends calls with words."""

from __future__ import annotations

import time
from typing import Any, Final

import pytest

import gw.config
from gw.call.cost.usage import KINDS, day_of
from gw.call.dialogue.commands import Prompt
from gw.call.prompts import budget_warning, text_of
from gw.config import Agent, Budget, Overflow, Price
from gw.twin.ai.ledger import AiLedger
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World
from tests.calls.hearing import WORD
from tests.calls.held import Case, Held, hold_all, requested, says
from tests.calls.shared import Outcome
from tests.timing import scaled

SCRIBE: Final = "scribe"
PRICE: Final = Price(text_in=4.0, text_cached=0.4, text_out=24.0, audio_in=32.0, audio_cached=0.4, audio_out=64.0)
#: By model. A greeting of a second speaks 20 tokens: 0.08 USD at the price of `steep`, all of the budget at that of `dear`.
PRICES: Final = {
    "plain": PRICE,
    SCRIBE: Price(text_out=10.0, audio_in=6.0),
    "steep": Price(audio_out=4200.0),
    "dear": Price(audio_out=6000.0),
}
BUDGET: Final = Budget(call_usd=0.1, day_usd=1000.0, caller_day_usd=0.2)
SPENDER: Final = "+15550009999"
TURN: Final = (Step("say", "quiet", 0.4, audio=WORD), Step("hang_up", "quiet", 1.2, patience_s=6.0))
NOBODY: Final = (Step("hang_up", wait_s=scaled(20.0)),)


def _case(model: str, steps: tuple[Step, ...], number: str = "") -> Case:
    agent = {"model": model, "transcription_model": SCRIBE}
    return Case(says(1.0), steps=steps, agent=agent, plan={"from_number": number or f"+1555000{len(model):04}"})


CASES: Final = {
    "plain": _case("plain", TURN),
    "unpriced": _case("free-of-charge", TURN),
    "near": _case("steep", (Step("hang_up", "quiet", 1.2),)),
    "spent": _case("dear", NOBODY, SPENDER),
}


class Seen:
    """Results after the calls."""

    metrics: dict[str, float]
    spoken: list[str]
    status: dict[str, Any]
    listed: dict[str, float | None]


def _after(world: World, outcome: Outcome) -> None:
    """A caller whose day is spent calls again; the figures are read."""
    gateway = world.gateway
    board = gateway.worker.context.budget_board
    gateway.until(lambda: board.is_spent(SPENDER), "the worker knows the caller's spent day")
    again = world.twilio.place(CallPlan(agent="plain", from_number=SPENDER, hang_up=False, max_s=scaled(5.0)))
    assert again.wait(scaled(10.0))
    refused = 'gw_overflow_calls_total{reason="budget"}'
    gateway.until(lambda: gateway.metrics()[refused] > 0, "a page of metrics that was rendered since")
    Seen.spoken, Seen.metrics = again.spoken, gateway.metrics()
    Seen.status = gateway.control._health.status()["budget"]
    Seen.listed = {row.call_sid: row.cost_usd for row in gateway.store.calls()}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> dict[str, Held]:
    media = gw.config.Media(ai_answer_s=scaled(2.0), holding_sound=False)
    sections = {"prices": PRICES, "budget": BUDGET}
    return hold_all(tmp_path_factory.mktemp("cost"), shared_store, media, CASES, head_start_s={}, then=_after, **sections)


def _tokens(session: AiLedger) -> dict[str, int]:
    """Sum what the AI reported, of its own model."""
    sums = dict.fromkeys(KINDS, 0)
    for usage in (response.usage for response in session.responses if response.usage):
        into, out = usage["input_token_details"], usage["output_token_details"]
        for kind in ("text", "audio"):
            cached = into["cached_tokens_details"][f"{kind}_tokens"]
            sums[f"{kind}_in"] += into[f"{kind}_tokens"] - cached
            sums[f"{kind}_cached"] += cached
            sums[f"{kind}_out"] += out[f"{kind}_tokens"]
    return sums


def _cost(tokens: dict[str, int], price: Price) -> float:
    return sum(count * getattr(price, kind) for kind, count in tokens.items()) / 1e6


def _by_model(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {one["model"]: {kind: one[kind] for kind in KINDS} for one in row["used"]}


def test_the_store_has_what_the_ai_reported(calls: dict[str, Held]) -> None:
    row, (session,) = calls["plain"].row, calls["plain"].sessions
    own, written = _tokens(session), dict.fromkeys(KINDS, 0)
    written["audio_in"] = sum(one["input_token_details"]["audio_tokens"] for one in session.transcriptions)
    written["text_out"] = sum(one["output_tokens"] for one in session.transcriptions)
    assert _by_model(row) == {"plain": own, SCRIBE: written}
    assert all(own[kind] for kind in KINDS), "the conversation had tokens of every kind"
    assert row["usage"] == {kind: own[kind] + written[kind] for kind in KINDS}
    assert row["cost_usd"] == pytest.approx(_cost(own, PRICE) + _cost(written, PRICES[SCRIBE]), abs=6e-7)
    assert row["cost_usd"] == round(row["cost_usd"], 6)
    assert Seen.listed[row["call_sid"]] == row["cost_usd"]
    assert {one["day"] for one in row["used"]} <= {day_of(time.time() - 600), day_of(time.time())}


def test_without_a_price_a_call_has_tokens_and_no_cost(calls: dict[str, Held]) -> None:
    row = calls["unpriced"].row
    assert row["usage"]["audio_out"] > 0
    assert row["cost_usd"] is None
    assert row["reason"] == "caller_hangup", "no limit on a cost that is not known"


def test_the_agent_is_warned_of_a_budget_that_is_nearly_spent(calls: dict[str, Held]) -> None:
    one = calls["near"]
    assert budget_warning() in [item.text for item in one.sessions[0].items]
    assert one.events("budget_near") == [{"of": "call", "spent_usd": one.row["cost_usd"]}]
    assert (one.row["reason"], one.call.closed_by) == ("caller_hangup", "caller")


def test_a_spent_budget_ends_the_call_with_words_of_the_agent(calls: dict[str, Held]) -> None:
    one = calls["spent"]
    assert requested(one.sessions[0]) == [Agent().greeting, text_of(Prompt.CLOSING, "")]
    assert [one.is_whole(response) for response in one.responses] == [True, True]
    assert (one.row["reason"], one.row["result"], one.call.spoken) == ("budget", "success", [])


def test_a_caller_whose_day_is_spent_hears_the_overflow(calls: dict[str, Held]) -> None:
    assert Seen.spoken == [Overflow().text]
    assert Seen.metrics['gw_overflow_calls_total{reason="budget"}'] == 1


def test_metrics_and_day_have_the_sum_of_the_calls(calls: dict[str, Held]) -> None:
    rows = [one.row for one in calls.values()]
    for kind in KINDS:
        by_model = {
            model: Seen.metrics[f'gw_ai_tokens_total{{kind="{kind}",model="{model}"}}'] for model in ("plain", SCRIBE, "dear")
        }
        for model, tokens in by_model.items():
            assert tokens == sum(_by_model(row).get(model, {}).get(kind, 0) for row in rows), (model, kind)
    total = 0.0
    for name, one in calls.items():
        cost = one.row["cost_usd"] or 0.0
        total += cost
        assert Seen.metrics[f'gw_ai_cost_usd_total{{agent="{name}"}}'] == pytest.approx(cost, abs=1e-6)
    assert Seen.metrics['gw_ai_tokens_total{kind="audio_out",model="other"}'] == 0
    assert Seen.status["limit_usd"] == BUDGET.day_usd
    assert Seen.status["spent_usd"] == pytest.approx(total, abs=1e-5)
    assert Seen.metrics["gw_budget_day_spent_ratio"] == pytest.approx(total / BUDGET.day_usd, abs=1e-7)
