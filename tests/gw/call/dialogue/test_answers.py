"""gw.call.dialogue.answers: when an owed answer is requested."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.inputs import Trouble
from gw.call.dialogue.rules import Rules
from tests.gw.call.dialogue.talk import Talk


def test_an_answer_that_does_not_come_is_requested() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.wait(800) == [do.Create(Prompt.ANSWER)]


def test_an_agent_that_calls_tools_without_end_does_not_run_far_ahead_of_the_ear() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 12_000), given.ToolCall("r1", "t1", "unknown"))
    assert talk.on(given.ResponseDone("r1")) == []
    assert talk.wait(6999) == []
    assert talk.wait(1) == [do.Create(Prompt.ANSWER)]


def test_a_rate_limit_keeps_the_session_and_waits() -> None:
    talk = Talk(Rules(hold_after_ms=60_000))
    talk.on(given.SessionReady())
    assert talk.on(given.CreateRefused(Trouble.RATE_LIMIT, 4000)) == [do.Note("answer_failed")]
    assert talk.wait(3999) == []
    assert talk.wait(1) == [do.Create(Prompt.GREETING)]
