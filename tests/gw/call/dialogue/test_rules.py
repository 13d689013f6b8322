"""gw.call.dialogue.rules: the configuration as rules of a dialogue."""

from __future__ import annotations

from typing import Any

import pytest

from gw.call.dialogue.rules import MCP_APPROVAL, MCP_CALL, TOOL_MARGIN_MS, Rules, ToolRules, rules_of
from gw.call.state import Reason
from gw.config import Agent, Keys, Mcp, Media, Say, Tool, Turns

MEDIA = Media()


def _rules(media: Media = MEDIA, *, provider: Any = "openai", **turns: Any) -> Rules:
    return rules_of(Agent(provider=provider, turns=Turns(**turns)), media, resumes=False)


def test_the_defaults_of_both_agree() -> None:
    assert _rules() == Rules()


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ({"ai_answer_s": 4.5}, {"answer_ms": 4500}),
        ({"ai_stall_s": 2.0}, {"stall_ms": 2000}),
        ({"ai_connect_s": 2.0}, {"open_ms": 2000}),
        ({"ai_reconnect_s": 0.0}, {"window_ms": 0}),
        ({"goodbye_s": 3.0}, {"goodbye_ms": 3000}),
        ({"hold_after_s": 1.5}, {"hold_after_ms": 1500}),
        ({"max_call_s": 90.0}, {"max_call_ms": 90_000}),
    ],
)
def test_limits_of_the_media(media: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _rules(Media(**media)) == Rules()._replace(**expected)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ({"interruptions": "gateway"}, {"interruptions": "gateway"}),
        ({"min_speech_ms": 250}, {"cut_after_ms": 750}),
        ({"silence_ms": 300}, {"cut_after_ms": 700}),
        ({"silence_ms": 1700}, {"cut_after_ms": 2000}),  # by then the pause ends anyway
        ({"resume_after_s": 1.5}, {"resume_after_ms": 1500}),
        ({"protect_greeting_ms": 900}, {"protect_greeting_ms": 900}),
        ({"warn_before_end_s": 0.0}, {"warn_ms": 0}),
    ],
)
def test_turn_taking(turns: dict[str, Any], expected: dict[str, Any]) -> None:
    assert _rules(**turns) == Rules()._replace(**expected)


@pytest.mark.parametrize(
    ("limit_s", "turns", "expected"),
    [
        (120.0, {"idle_prompt_s": 20.0, "idle_prompts": 3}, (20_000, 3)),
        (30.0, {}, (10_000, 2)),  # the limit bounds the whole silence
        (120.0, {"idle_prompts": 0}, (120_000, 0)),
        (120.0, {"idle_prompt_s": 0.0}, (120_000, 0)),
    ],
)
def test_silence(limit_s: float, turns: dict[str, Any], expected: tuple[int, int]) -> None:
    rules = _rules(Media(idle_limit_s=limit_s), **turns)
    assert (rules.idle_ms, rules.idle_prompts) == expected


def test_the_parrot_is_not_prompted_and_gets_each_key() -> None:
    assert _rules(provider="parrot") == Rules(idle_ms=120_000, idle_prompts=0, collect_keys=False)


def test_keys() -> None:
    agent = Agent(provider="openai", keys=Keys(mode="each", max_digits=4))
    assert rules_of(agent, MEDIA, resumes=False) == Rules(collect_keys=False, max_keys=4)


def test_without_a_greeting_the_caller_speaks_first() -> None:
    assert not rules_of(Agent(greeting=""), MEDIA, resumes=False).greets


def test_earlier_streams_count_towards_the_longest_call() -> None:
    rules = rules_of(Agent(), Media(max_call_s=60.0), resumes=True, elapsed_ms=45_000)
    assert (rules.resumes, rules.max_call_ms) == (True, 15_000)
    assert rules_of(Agent(), Media(max_call_s=60.0), resumes=True, elapsed_ms=61_000).max_call_ms == 0


def test_tools_of_the_agent() -> None:
    tools = {
        "lookup": Tool(url="https://example.com/", timeout_s=2.5, filler="none", filler_after_s=0.5, on_interrupt="cancel"),
        "book": Tool(url="https://example.com/", mode="background", filler=Say(say="One moment.")),
        "other": Tool(url="https://example.com/"),
    }
    found = rules_of(Agent(provider="openai", tools=("lookup", "book")), MEDIA, tools, resumes=False)
    assert found.tools == {
        "lookup": ToolRules(timeout_ms=2500, filler="none", filler_after_ms=500, cancels=True),
        "book": ToolRules(waits=False, filler="say"),
    }
    assert found.hang_up_tool == "", "the agent does not have it"


def test_tools_that_are_built_in() -> None:
    agent = Agent(provider="openai", tools=("transfer", "send_digits", "collect_digits", "hang_up"))
    leaves = ToolRules(timeout_ms=6000, cancels=True)
    assert rules_of(agent, MEDIA, resumes=False).tools == {
        "transfer": leaves._replace(leaves=Reason.TRANSFERRED),
        "send_digits": leaves._replace(leaves=Reason.DIGITS_SENT),
        "collect_digits": ToolRules(timeout_ms=180_000, filler="none", collects=True),
    }
    assert rules_of(agent, MEDIA, resumes=False).hang_up_tool == "hang_up"


def test_calls_of_remote_servers_have_a_bound_and_approvals_continue_after_a_second() -> None:
    agent = Agent(provider="openai", mcp=(Mcp(),))
    assert rules_of(agent, MEDIA, resumes=False).tools == {
        MCP_CALL: ToolRules(timeout_ms=60_000),
        MCP_APPROVAL: ToolRules(timeout_ms=1000 - TOOL_MARGIN_MS, filler="none", yields=True),
    }
