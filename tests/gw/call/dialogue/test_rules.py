"""gw.call.dialogue.rules: the configuration as rules of a dialogue."""

from __future__ import annotations

from typing import Any

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.rules import MCP_APPROVAL, MCP_CALL, TOOL_MARGIN_MS, Rules, ToolRules, rules_of
from gw.call.digits import Asked
from gw.call.state import Reason
from gw.config import Agent, Keys, Mcp, Media, Say, Tool, Turns
from tests.gw.call.dialogue.talk import Talk

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


# -- the numbers of every dialogue ----------------------------------------------------------------------------------------

PATIENT = Rules(
    greets=False,
    idle_ms=10**7,
    hold_after_ms=10**7,
    tools={"lookup": ToolRules(filler="none"), "digits": ToolRules(filler="none", collects=True)},
)
READY, LOST, UNREADABLE = given.SessionReady(), given.SessionLost(Reason.AI_LOST), given.Unreadable()
KEYS = (given.Key("1"), given.Key("#"))
TURN = (given.SpeechStarted("c1"), given.SpeechStopped("c1"))
SENTENCE = (given.ResponseStarted("r1"), given.Audio("r1", 2000))
EMPTY = (given.ResponseStarted("r1"), given.ResponseDone("r1"))
LOOKUP = (given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
SECRET = given.ToolCall("r1", "t1", "digits", asked=Asked(is_sensitive=True))
HANG_UPS = tuple(given.ToolCall("r1", f"t{n}", "hang_up") for n in range(3))
SHORT_LIFE = (given.SessionReady(60_000), 30_000)


def _after(*steps: Input | int, rules: Rules = PATIENT) -> Talk:
    """Take these steps: inputs, and times to wait in milliseconds."""
    talk = Talk(rules)
    for step in steps:
        if isinstance(step, int):
            talk.wait(step)
        else:
            talk.on(step)
    return talk


@pytest.mark.parametrize(
    ("steps", "fact", "value"),
    [
        ((READY, *TURN), "ask_at", 700),
        ((READY, *TURN, *EMPTY), "ask_at", 300),
        ((READY, *TURN, *EMPTY, *EMPTY), "ask_at", 1000),
        ((READY, *LOOKUP, given.SpeechStarted("c1"), given.ToolSettled("t1"), given.SpeechStopped("c1")), "ask_at", 300),
        ((READY, *SENTENCE, LOST, READY), "ask_at", 400),
        ((READY, given.SpeechStarted("c1"), LOST, READY), "ask_at", 900),
        ((READY, *KEYS, given.CreateRefused(Trouble.RATE_LIMIT, 60_000)), "wait_by", 20_000),
        ((READY, *KEYS, given.SpeechStarted("c1")), "cancel_by", 500),
        ((READY, *SENTENCE, given.SpeechStarted("c1"), 500), "silent_by", 2000),
        ((READY, given.SpeechStarted("c1")), "speech_by", 60_000),
        ((READY, given.BudgetSpent()), "close_by", 10_000),
        ((READY, given.Key("1")), "keys_at", 3000),
        ((READY, *LOOKUP), "tools_by", 8000 + 5000),
        ((READY, SECRET), "digits_at", 6000),
        ((READY, *SENTENCE), "heard_by", 2000 + 2000),
        ((READY, given.Audio("r1", 12_000), *KEYS), "ask_at", 12_000 - 5000),
        ((LOST,), "open_by", 200 + 5000),
        ((LOST,) * 2, "open_by", 400 + 5000),
        ((LOST,) * 3, "open_by", 800 + 5000),
        ((LOST,) * 4, "open_by", 1600 + 5000),
        ((LOST,) * 5, "open_by", 2000 + 5000),
        ((given.SessionReady(59_999),), "quiet_at", 3_600_000 - 300_000),
        ((given.SessionReady(60_000),), "quiet_at", 30_000),
        ((READY,), "forced_at", 3_600_000 - 30_000),
        ((*SHORT_LIFE, given.SuccessorFailed()), "quiet_at", 30_000 + 5000),
        ((given.SpeechStarted("c1"), *SHORT_LIFE, given.SpeechStopped("c1"), given.SuccessorReady()), "text_by", 33_000),
        ((READY, *(UNREADABLE,) * 4), "is_ready", True),
        ((READY, *(UNREADABLE,) * 5), "is_ready", False),
        ((READY, UNREADABLE, 9999, *(UNREADABLE,) * 4), "is_ready", False),
        ((READY, UNREADABLE, 10_000, *(UNREADABLE,) * 4), "is_ready", True),
        ((LOST,) * 10, "closing", None),
        ((LOST,) * 11, "closing", Reason.FALLBACK_GOODBYE),
        ((LOST, READY, 9999, LOST), "opens", 2),
        ((LOST, READY, 10_000, LOST), "opens", 1),
        ((READY, given.SpeechStarted("c1"), *HANG_UPS[:2]), "closing", None),
        ((READY, given.SpeechStarted("c1"), *HANG_UPS), "closing", Reason.AI_HANGUP),
    ],
)
def test_each_wait_has_its_length_and_each_count_its_bound(steps: tuple[Input | int, ...], fact: str, value: object) -> None:
    assert getattr(_after(*steps).machine, fact) == value


def test_words_of_a_short_sound_are_awaited_for_a_moment() -> None:
    talk = _after(READY, *SENTENCE, *TURN, rules=PATIENT._replace(interruptions="gateway"))
    assert talk.machine.judge_at == 300


def test_the_number_of_tool_calls_is_bounded() -> None:
    assert len(_after(READY, *(given.ToolCall("r1", f"t{n}", "lookup") for n in range(9))).machine.open_tools) == 8
    talk = _after(READY)
    out = [
        command for n in range(201) for command in talk.on(given.ToolCall("r1", f"t{n}", "lookup"), given.ToolSettled(f"t{n}"))
    ]
    assert sum(isinstance(command, do.WantTool) for command in out) == 100
    assert len(talk.machine.answered) == 200, "later identifiers are kept too"
