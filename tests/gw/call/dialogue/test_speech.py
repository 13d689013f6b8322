"""gw.call.dialogue.speech: turns of the caller, and interruptions."""

from __future__ import annotations

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.rules import Rules
from tests.gw.call.dialogue.talk import Talk


def test_an_interruption_discards_and_late_audio_is_dropped() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"))
    assert talk.on(given.SpeechStarted("c1")) == [do.Interrupt()]
    assert talk.on(given.Audio("r1"), given.ResponseDone("r1", False)) == []


def test_a_cough_costs_no_word_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    assert talk.on(given.SpeechStarted("c1")) == [do.HoldAudio()]
    assert talk.wait(300) == []
    assert talk.on(given.SpeechStopped("c1")) == [do.ReleaseAudio()]
    assert talk.wait(300) == [do.DeleteItem("c1")]


def test_a_short_answer_at_the_end_of_the_agents_words_is_a_turn_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 300), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == [do.HoldAudio(), do.ReleaseAudio()]
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.ANSWER)]


def test_words_of_a_short_sound_cut_although_the_agent_speaks_again() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    assert talk.on(given.SpeechStopped("c1")) == [do.ReleaseAudio()]
    assert talk.wait(200) == []
    assert talk.on(given.CallerText("c1")) == [do.Cancel(), do.Interrupt("cut_words")]
    assert talk.on(given.ResponseDone("r1", False)) == [do.Create(Prompt.ANSWER)]


def test_a_word_cuts_where_the_gateway_judges() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    talk.on(given.SpeechStarted("c1"))
    assert talk.wait(900) == [do.Cancel(), do.Interrupt("cut"), do.ReleaseAudio()]
    talk.on(given.ResponseDone("r1", False))
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.ANSWER)]


def test_a_turn_whose_start_was_not_reported_is_answered() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStopped("c1"))
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]
    judged = Talk(Rules(interruptions="gateway"))
    judged.greet()
    judged.on(given.ResponseStarted("r1"), given.Audio("r1", 5000))
    assert judged.on(given.SpeechStopped("c1")) == [do.HoldAudio(), do.ReleaseAudio()]
    assert judged.on(given.CallerText("c1")) == [do.Cancel(), do.Interrupt("cut_words")]
