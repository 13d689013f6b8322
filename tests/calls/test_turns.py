"""The wait for an answer in whole calls: the event, the metrics and the caller's ear agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

import gw.config
from gw.config import Hooks, Tool, Turns
from gw.twin.ai.faults import Call
from gw.twin.hooks import HookTwin
from gw.twin.twilio.steps import Step
from tests.calls.conftest import World
from tests.calls.gateway import HOOK_SECRET
from tests.calls.hearing import WORD
from tests.calls.held import Case, Held, hold_all, says
from tests.calls.shared import Outcome
from tests.timing import scaled

THINKING_MS: Final = 600
TOOL_MS: Final = 1100
PAUSE_MS: Final = 300
SPEAKS: Final = Step("say", "quiet", 0.3, audio=WORD)
LISTENS: Final = Step("hang_up", "quiet", TOOL_MS / 1000 + 1.5, patience_s=12.0)
AGENT: Final = {"tools": ("hang_up", "slow"), "turns": Turns(silence_ms=PAUSE_MS)}
CASES: Final = {
    "thinks": Case(says(0.6, 0.6, thinking_s=THINKING_MS / 1000), steps=(SPEAKS, LISTENS), agent=AGENT),
    "calls": Case(says(0.6, answers=(b"", bytes(4800)), calls={2: (Call("slow"),)}), steps=(SPEAKS, LISTENS), agent=AGENT),
    "greets": Case(says(0.6), steps=(LISTENS,), agent=AGENT),
}
METRICS: dict[str, float] = {}


def _after(world: World, _: Outcome) -> None:
    counts = [f'gw_turn_latency_seconds_count{{agent="{name}"}}' for name in ("thinks", "calls")]
    gateway = world.gateway
    gateway.until(lambda: all(gateway.metrics()[count] for count in counts), "a page of metrics that was rendered since")
    METRICS.update(gateway.metrics())


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Iterator[dict[str, Held]]:
    with HookTwin(HOOK_SECRET) as hooks:
        hooks.slow_s = TOOL_MS / 1000
        yield hold_all(
            tmp_path_factory.mktemp("turns"),
            shared_store,
            gw.config.Media(holding_sound=False, ai_answer_s=scaled(4.0)),
            CASES,
            head_start_s={},
            then=_after,
            tools={"slow": Tool(url=hooks.url("slow/slow"), filler="none")},
            hooks=Hooks(allow_networks=("127.0.0.1/32",)),
        )


def _wait(held: dict[str, Held], name: str) -> dict[str, int]:
    (wait,) = held[name].events("answered")
    return wait


@pytest.mark.parametrize(("name", "part", "least_ms"), [("thinks", "ai_ms", THINKING_MS), ("calls", "tool_ms", TOOL_MS)])
def test_a_wait_is_charged_to_its_cause(held: dict[str, Held], name: str, part: str, least_ms: int) -> None:
    wait = _wait(held, name)
    others = {other: wait[other] for other in ("ai_ms", "tool_ms", "gateway_ms") if other != part}
    assert wait["pause_ms"] == PAUSE_MS
    assert wait[part] >= least_ms - 20
    assert max(others.values()) < least_ms / 2 + held[name].slack_s * 1000, wait
    assert wait["ms"] == wait["pause_ms"] + wait[part] + sum(others.values())


@pytest.mark.parametrize("name", ["thinks", "calls"])
def test_the_caller_hears_the_answer_when_the_wait_ends(held: dict[str, Held], name: str) -> None:
    """The caller's turn ends by the AI's clock, after the pause, so the ear's figure has the pause and the wait's parts."""
    one = held[name]
    caller, agent = one.turns("caller")[0], one.turns("agent")[-1]
    assert _wait(held, name)["item"] == agent["item_id"]
    spoke_ms = len(WORD) / 8
    heard_ms = agent["start_ms"] - caller["start_ms"] - spoke_ms
    assert abs(heard_ms - _wait(held, name)["ms"]) < PAUSE_MS + 2 * one.slack_s * 1000, (caller, agent, one.events("answered"))


def test_a_greeting_is_not_an_answer(held: dict[str, Held]) -> None:
    assert held["greets"].events("answered") == []
    assert METRICS['gw_turn_latency_seconds_count{agent="greets"}'] == 0.0


def test_metrics_have_the_same_waits(held: dict[str, Held]) -> None:
    waits = [_wait(held, name) for name in ("thinks", "calls")]
    for name, wait in zip(("thinks", "calls"), waits, strict=True):
        assert METRICS[f'gw_turn_latency_seconds_sum{{agent="{name}"}}'] == pytest.approx(wait["ms"] / 1000)
        assert wait["agent"] == name
    for part in ("pause", "ai", "tool", "gateway"):
        total = sum(wait[f"{part}_ms"] for wait in waits) / 1000
        assert METRICS[f'gw_turn_latency_part_seconds_sum{{part="{part}"}}'] == pytest.approx(total)
        assert METRICS[f'gw_turn_latency_part_seconds_count{{part="{part}"}}'] == 2.0


def test_the_processes_report_themselves(held: dict[str, Held]) -> None:
    assert METRICS['gw_process_resident_bytes{process="control"}'] > 10e6
    assert METRICS['gw_process_cpu_seconds_total{process="control"}'] > 0.0
    assert METRICS['gw_process_open_fds{process="control"}'] > 5.0
    assert [name for name in METRICS if name.startswith("gw_build_info{")]
