"""gw.call.dialogue.speech: turns of the caller, and interruptions."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import Floor
from gw.call.dialogue.rules import AFTER_TOOL_MS, MAX_SPEECH_MS, MAX_TAKEN_BACK, OWN_RESPONSE_MS, Rules, ToolRules
from gw.call.state import Reason
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


def test_an_agent_that_finishes_is_not_interrupted_and_answers_afterwards() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1")) == []
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]


def test_who_speaks_into_the_goodbye_of_an_agent_that_finishes_takes_it_back() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1")) == [do.Note("goodbye_taken_back")]


def test_the_last_goodbye_is_spoken_to_its_end() -> None:
    talk = Talk()
    talk.greet()
    talk.machine.taken_back = MAX_TAKEN_BACK
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1")) == []
    assert talk.machine.plays


def test_closing_words_that_are_cut_were_not_spoken() -> None:
    talk = Talk(Rules(interruptions="gateway", max_call_ms=10_000, warn_ms=0))
    talk.greet()
    talk.wait(9500)
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 8000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.SpeechStarted("c1"))
    assert talk.machine.has_spoken
    ended = do.End(Reason.AI_HANGUP, True)
    assert talk.wait(900) == [do.Interrupt("cut"), do.ReleaseAudio(), ended], "beyond the longest call Twilio speaks"


def test_a_request_that_has_not_begun_is_cut() -> None:
    talk = Talk()
    talk.on(given.SessionReady())
    assert talk.on(given.SpeechStarted("c1")) == [do.Cancel()]
    assert talk.on(given.SpeechStopped("c1"), given.ResponseStarted("r0")) == [], "it is the one that was cancelled"
    assert talk.machine.response_id in talk.machine.dropped


def test_a_turn_that_ends_twice_is_answered_once() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.speak("r1")
    talk.on(given.SpeechStopped("c1"))
    assert talk.wait(2000) == []


def test_a_turn_that_the_ai_never_ends_is_over_after_its_bound() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"))
    talk.wait(MAX_SPEECH_MS)
    assert not talk.machine.speaks
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]


def test_words_decide_about_their_own_turn_only() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c2"), given.SpeechStopped("c2"))
    assert talk.on(given.CallerText("c1")) == []
    assert not talk.machine.has_text
    assert talk.on(given.CallerText("c2", meaningful=False)) == [do.DeleteItem("c2")]
    assert (talk.machine.has_text, talk.machine.floor) == (True, Floor.OPEN)
    assert talk.on(given.CallerText("c2")) == [], "it is decided"


def test_who_speaks_until_all_is_heard_interrupts_nothing() -> None:
    talk = Talk(Rules(interruptions="gateway", tools={"lookup": ToolRules(cancels=True)}))
    talk.greet()
    talk.call("lookup")
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 500), given.ResponseDone("r2"), given.SpeechStarted("c1"))
    assert talk.on(given.HeardOut()) == [do.ReleaseAudio(), do.ToolOutput("t1", "cancelled"), do.CancelTool("t1")]
    assert talk.machine.speaks
    assert talk.on(given.SpeechStopped("c1")) == [do.Create(Prompt.ANSWER)]


def test_who_interrupts_the_goodbye_is_back_in_the_conversation() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.on(given.SpeechStarted("c1")) == [do.Note("goodbye_taken_back"), do.Interrupt()]


def test_who_interrupts_drops_the_late_audio_of_ended_responses_and_is_owed_no_answer_to_keys() -> None:
    talk = Talk()
    talk.greet()
    talk.speak("r1")
    talk.machine.sent_keys, talk.machine.prompts, talk.machine.debt = "1", 2, Prompt.ANSWER
    talk.on(given.SpeechStarted("c1"))
    assert talk.machine.debt is None
    assert (talk.machine.dropped, talk.machine.ended) == (("r0", "r1"), ())
    assert (talk.machine.sent_keys, talk.machine.prompts) == ("", 0)


@pytest.mark.parametrize(
    ("debt", "insisted", "sent_keys", "expected"),
    [
        (None, True, "", (OWN_RESPONSE_MS, False)),
        (Prompt.ANSWER, False, "", (OWN_RESPONSE_MS, False)),
        (Prompt.ANSWER, True, "", (AFTER_TOOL_MS, False)),
        (Prompt.ANSWER, True, "1", (AFTER_TOOL_MS, True)),
    ],
)
def test_the_ai_answers_a_turn_itself_and_results_with_it_but_no_keys(
    debt: Prompt | None, sent_keys: str, expected: tuple[int, bool], *, insisted: bool
) -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"))
    talk.machine.debt, talk.machine.insists, talk.machine.sent_keys = debt, insisted, sent_keys
    talk.on(given.SpeechStopped("c1"))
    assert (talk.machine.ask_at, talk.machine.insists) == expected


@pytest.mark.parametrize("stops", [True, False])
def test_who_speaks_until_all_is_heard_gives_up_what_an_interruption_does(*, stops: bool) -> None:
    talk = Talk(Rules(interruptions="gateway", tools={"lookup": ToolRules(cancels=True)}))
    talk.greet()
    talk.call("lookup")
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 500), given.ResponseDone("r2"), given.SpeechStarted("c1"))
    talk.on(*([given.SpeechStopped("c1")] if stops else []))
    assert do.CancelTool("t1") in talk.on(given.HeardOut())
    assert not talk.machine.plays


def test_who_speaks_until_the_goodbye_is_heard_takes_it_back() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.SpeechStarted("c1"))
    assert talk.on(given.HeardOut()) == [do.Note("goodbye_taken_back"), do.ReleaseAudio()]


def test_an_interruption_gives_up_tools_that_ask_for_it() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(cancels=True)}))
    talk.greet()
    talk.call("lookup")
    assert talk.on(given.SpeechStarted("c1")) == [do.ToolOutput("t1", "cancelled"), do.CancelTool("t1")]
