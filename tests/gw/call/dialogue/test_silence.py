"""gw.call.dialogue.silence: the holding sound, sentences while a tool is slow, the idle limit."""

from __future__ import annotations

from copy import copy

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import silence
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER
from gw.call.dialogue.inputs import Trouble
from gw.call.dialogue.rules import Rules, ToolRules
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_a_caller_who_heard_the_recorded_greeting_waits_for_the_session_with_the_holding_sound() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.on(given.Recorded(1000))
    talk.wait(1000)
    talk.on(given.HeardOut())
    assert do.HoldSound(True) in talk.wait(900)


def test_the_sound_for_a_slow_tool_counts_from_the_later_of_the_call_and_the_end_of_what_is_heard() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1199) == []
    assert talk.wait(1) == [do.HoldSound(True)]
    heard = Talk()
    heard.greet()
    heard.on(given.ResponseStarted("r1"), given.Audio("r1", 700), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
    heard.wait(700)
    assert heard.on(given.HeardOut()) == []
    assert heard.wait(1199) == []
    assert heard.wait(1) == [do.HoldSound(True)]


def test_an_answer_to_a_tool_has_the_sound_when_the_tool_would_have_had_it() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.wait(1000)
    assert talk.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]
    assert (talk.machine.hold_at, talk.machine.filler_at) == (1200, NEVER)
    assert talk.wait(200) == [do.HoldSound(True)]


def test_a_sentence_bridges_a_slow_tool_once_and_then_the_sound() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1200) == [do.Create(Prompt.FILLER, "lookup")]
    talk.speak("r2")
    assert talk.wait(1200) == [do.HoldSound(True)]
    out = talk.on(given.ToolSettled("t1"))
    assert out == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]


def test_the_answer_to_a_tool_waits_for_the_sentence_that_bridges_it() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    talk.wait(1200)
    assert talk.on(given.ToolSettled("t1"), given.ResponseStarted("r2")) == [do.ToolOutput("t1", "settled")]
    assert talk.on(given.Audio("r2", 500), given.ResponseDone("r2")) == [do.Play(), do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize("trouble", [Trouble.NONE, Trouble.PASSING, Trouble.RATE_LIMIT])
def test_a_sentence_that_fails_is_replaced_by_the_sound(trouble: Trouble) -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    talk.wait(1200)
    assert talk.on(given.ResponseStarted("r2"), given.ResponseDone("r2", False, trouble)) == []
    assert talk.wait(0) == [do.HoldSound(True)]
    assert talk.wait(2000) == []


def test_a_sentence_that_a_rate_limit_forbids_is_replaced_by_the_sound() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.on(given.SessionReady(), given.CreateRefused(Trouble.RATE_LIMIT, 9000))
    talk.call("lookup")
    assert talk.wait(1200) == [do.HoldSound(True)]


def test_a_response_that_falls_silent_is_bridged_by_the_holding_sound() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500))
    talk.wait(500)
    assert talk.on(given.Starved()) == []
    assert talk.wait(900) == [do.HoldSound(True)]
    assert talk.on(given.Audio("r1", 500)) == [do.Play(), do.HoldSound(False)]
    assert talk.on(given.Starved(), given.ResponseDone("r1"), given.HeardOut()) == []
    assert talk.wait(5000) == []


def test_a_late_report_of_what_was_heard_delays_no_holding_sound() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500), given.SessionLost(Reason.AI_LOST))
    talk.wait(500)
    assert talk.on(given.Starved()) == []
    assert talk.wait(900) == [do.HoldSound(True)]
    assert talk.on(given.HeardOut()) == []


def test_an_idle_call_is_asked_and_then_ends_with_words() -> None:
    talk = Talk()
    talk.greet()
    for n in (1, 2):
        assert talk.wait(15_000) == [do.Create(Prompt.ARE_YOU_THERE)]
        talk.speak(f"r{n}")
    assert talk.wait(15_000) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r3"), given.Audio("r3", 1000), given.ResponseDone("r3"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.IDLE_LIMIT, False)]


def test_the_rate_limit_of_an_idle_prompt_is_kept_too() -> None:
    talk = Talk(Rules(idle_ms=2000))
    talk.greet()
    assert talk.wait(2000) == [do.Create(Prompt.ARE_YOU_THERE)]
    talk.on(given.ResponseStarted("r1"), given.ResponseDone("r1", False, Trouble.RATE_LIMIT, 6000))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.wait(5900) == [do.HoldSound(True)]
    assert talk.wait(200) == [do.Create(Prompt.ANSWER)]


def test_missing_frames_are_replaced_until_they_are_back() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.FramesBack()) == []
    assert talk.on(given.FramesMissing()) == [do.FillSilence(True)]
    assert talk.on(given.FramesMissing()) == []
    assert talk.on(given.FramesBack()) == [do.FillSilence(False)]
    assert talk.on(given.FramesBack()) == []


@pytest.mark.parametrize("tool", [ToolRules(filler="none"), ToolRules(waits=False), ToolRules(leaves=Reason.TRANSFERRED)])
def test_tools_that_need_no_bridge_have_none(tool: ToolRules) -> None:
    talk = Talk(Rules(tools={"other": tool, "lookup": ToolRules()}))
    talk.greet()
    talk.call("lookup", "other")
    assert [name for _, name in silence.fillers(talk.machine)] == ["lookup"]


def test_a_bridge_whose_tool_is_settled_is_not_built() -> None:
    talk = Talk()
    talk.greet()
    facts = copy(talk.machine)
    silence.on_filler_at(talk.machine)
    assert talk.machine == facts


def test_the_idle_limit_begins_with_the_quiet() -> None:
    talk = Talk(Rules(idle_ms=15_000))
    talk.greet()
    talk.now_ms = 9000
    talk.on(given.CallerText("c0"))
    assert talk.machine.idle_at == 15_000, "it runs on"
    talk.on(given.SpeechStarted("c1"))
    assert talk.machine.idle_at == NEVER


def test_an_owed_answer_has_no_sound_while_the_call_closes() -> None:
    talk = Talk(Rules(hold_after_ms=900))
    talk.greet()
    assert talk.on(given.BudgetSpent()) == [do.Create(Prompt.CLOSING)]
    assert talk.wait(5000) == []


def test_the_first_wait_that_is_due_is_bridged() -> None:
    tools = {"slow": ToolRules(), "quick": ToolRules(filler="say", filler_after_ms=500)}
    talk = Talk(Rules(tools=tools))
    talk.greet()
    talk.call("slow", "quick")
    assert (talk.machine.hold_at, talk.machine.filler_at) == (NEVER, 500)
    assert talk.wait(500) == [do.Create(Prompt.FILLER, "quick")]
    assert talk.machine.filler_at == NEVER, "the agent is awaited"
