"""gw.call.dialogue.responses: responses that answer, fail, are empty, or call tools."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Phase
from gw.call.dialogue.inputs import Trouble
from gw.call.dialogue.rules import Rules
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_the_agent_answers_without_a_request() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1")) == []
    assert talk.on(given.Audio("r1", 4000)) == [do.Play()]
    assert talk.wait(4000) == []


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (given.ResponseDone("r1"), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.PASSING), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.RATE_LIMIT), Reason.AI_RATE_LIMITED),
    ],
)
def test_an_empty_or_failed_answer_is_requested_twice_more_then_the_fallback_speaks(
    ending: given.ResponseDone, cause: Reason
) -> None:
    talk = Talk(Rules(hold_after_ms=60_000))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    for n, pause_ms in enumerate((300, 1000), 1):
        ended = ending._replace(response_id=f"r{n}")
        assert talk.on(given.ResponseStarted(f"r{n}"), ended) == [do.Note("answer_failed")]
        assert talk.wait(1000 if ending.trouble is Trouble.RATE_LIMIT else pause_ms) == [do.Create(Prompt.ANSWER)]
    out = talk.on(given.ResponseStarted("r3"), ending._replace(response_id="r3"))
    assert out == [do.Note("fallback", cause), do.End(Reason.FALLBACK_GOODBYE, True)]
    assert talk.machine.deadline_ms == NEVER


def test_arguments_over_their_bound_are_not_sent() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    called = given.ToolCall("r1", "t1", "lookup", is_readable=False)
    assert talk.on(called, given.ResponseDone("r1")) == [do.ToolOutput("t1", "invalid_arguments"), do.Create(Prompt.ANSWER)]


def test_an_agent_without_the_tool_cannot_hang_up() -> None:
    talk = Talk(Rules(hang_up_tool=""))
    talk.greet()
    assert talk.call("hang_up") == [do.ToolOutput("t1", "unknown_tool"), do.Create(Prompt.ANSWER)]
    assert talk.machine.phase is Phase.TALK


def test_a_call_that_comes_again_while_it_is_open_causes_no_answer() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r2"), given.Audio("r2", 500))
    assert talk.on(given.ToolCall("r2", "t1", "lookup"), given.ResponseDone("r2")) == [do.Note("tool_repeated")]
    assert talk.on(given.HeardOut(), given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.ANSWER)]


def test_an_agent_that_finishes_does_not_begin_in_mid_sentence() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.Audio("r1")) == [do.Cancel()]
    talk.on(given.SpeechStopped("c1"))
    assert talk.on(given.Audio("r1"), given.ResponseDone("r1", completed=False)) == []
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]


@pytest.mark.parametrize("rules", [Rules(interruptions="none"), Rules(interruptions="gateway", protect_greeting_ms=2000)])
def test_the_rest_of_a_sentence_does_not_answer_what_the_caller_said_into_it(rules: Rules) -> None:
    talk = Talk(rules)
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == []
    assert talk.wait(1000) == []
    assert talk.on(given.Audio("r1", 2500)) == [do.Play()]
    assert talk.on(given.ResponseDone("r1")) == [do.Create(Prompt.ANSWER)]
    talk.speak("r2")
    assert talk.wait(5000) == []


def test_the_ai_s_own_response_answers_what_the_caller_said_into_a_sentence() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.on(given.SessionReady(), given.ResponseStarted("r1"), given.Audio("r1", 3000))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.Audio("r1", 3000), given.ResponseDone("r1"))
    talk.speak("r2")
    assert talk.wait(5000) == []
