"""gw.call.dialogue.ending: each end, its last words, and the goodbye that is taken back."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import Phase
from gw.call.dialogue.rules import Rules
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_a_goodbye_ends_once_the_sound_into_it_was_noise() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    assert talk.on(given.HeardOut()) == []
    assert talk.wait(300) == [do.DeleteItem("c1"), do.End(Reason.AI_HANGUP, False)]


def test_the_longest_call_ends_although_the_caller_speaks_into_its_end() -> None:
    talk = Talk(Rules(interruptions="gateway", max_call_ms=20_000, warn_ms=0, cut_after_ms=900))
    talk.greet()
    talk.wait(19_500)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    assert talk.wait(1000) == [do.Cancel(), do.Interrupt("cut"), do.ReleaseAudio()]
    talk.on(given.ResponseDone("r1", False))
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.CLOSING)]
    talk.speak("r2")
    assert talk.machine.closing is Reason.DURATION_LIMIT
    assert talk.machine.phase is Phase.ENDED


def test_a_spent_budget_is_announced_and_ends_the_call_after_its_sentence() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.BudgetNear()) == [do.WarnOfEnd("budget")]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.BudgetSpent()) == [], "the sentence is heard first"
    talk.on(given.ResponseDone("r1"))
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.BUDGET, False)]


def test_where_the_agent_does_not_close_a_spent_budget_twilio_speaks() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.BudgetSpent()) == [do.Create(Prompt.CLOSING)]
    assert talk.wait(10_000) == [do.End(Reason.BUDGET, True)]


def test_a_goodbye_is_not_taken_back_beyond_the_budget() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 8000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.BudgetSpent())
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_goodbye_is_not_taken_back_beyond_the_longest_call() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=0))
    talk.greet()
    talk.wait(14_000)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 8000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.wait(6500)
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_goodbye_is_heard_and_can_be_taken_back() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 2000))
    assert talk.on(given.ToolCall("r1", "t1", "hang_up")) == [do.ToolOutput("t1", "ok")]
    assert talk.on(given.SpeechStarted("c1")) == [do.Note("goodbye_taken_back"), do.Interrupt()]
    talk.on(given.ResponseDone("r1", False), given.SpeechStopped("c1"))
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 2000), given.ToolCall("r2", "t2", "hang_up"), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_hang_up_leaves_no_call_open() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 900), given.ToolCall("r1", "t1", "lookup"))
    out = talk.on(given.ToolCall("r1", "t2", "hang_up"), given.ToolCall("r1", "t3", "lookup"))
    assert out == [do.ToolOutput("t2", "ok"), do.ToolOutput("t1", "cancelled"), do.ToolOutput("t3", "cancelled")]


def test_the_longest_call_is_announced() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=8000, idle_ms=60_000))
    talk.greet()
    assert talk.wait(12_000) == [do.WarnOfEnd()]
    assert talk.wait(8000) == [do.Create(Prompt.CLOSING)]
    assert talk.wait(10_000) == [do.End(Reason.DURATION_LIMIT, True)]


def test_an_agent_that_hangs_up_while_the_caller_speaks_is_back_in_the_conversation() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    out = talk.on(given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert out == [do.ToolOutput("t1", "ok"), do.Note("goodbye_taken_back")]
    talk.on(given.SpeechStopped("c1"))
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]
