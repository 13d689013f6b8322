"""gw.call.dialogue.responses: responses that answer, fail, are empty, or call tools."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gw.call.dialogue import commands as do
from gw.call.dialogue import ending
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Phase, Response
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.rules import Rules, ToolRules
from gw.call.digits import Asked
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_the_agent_answers_without_a_request() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1")) == []
    assert talk.on(given.Audio("r1", 4000)) == [do.Play()]
    assert talk.wait(4000) == []


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (given.ResponseDone("r1"), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.PASSING), Reason.AI_NO_ANSWER),
        (given.ResponseDone("r1", False, Trouble.RATE_LIMIT), Reason.AI_RATE_LIMITED),
    ],
)
def test_an_empty_or_failed_answer_is_requested_twice_more_then_the_fallback_speaks(
    ended: given.ResponseDone, cause: Reason
) -> None:
    talk = Talk(Rules(hold_after_ms=60_000))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    for n, pause_ms in enumerate((300, 1000), 1):
        done = replace(ended, response_id=f"r{n}")
        assert talk.on(given.ResponseStarted(f"r{n}"), done) == [do.Note("answer_failed")]
        assert talk.wait(1000 if ended.trouble is Trouble.RATE_LIMIT else pause_ms) == [do.Create(Prompt.ANSWER)]
    out = talk.on(given.ResponseStarted("r3"), replace(ended, response_id="r3"))
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


# -- reports that are late, double or missing -----------------------------------------------------------------------------


def test_a_response_that_begins_while_the_caller_speaks_is_cancelled_and_not_played() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"))
    assert talk.on(given.ResponseStarted("r1")) == [do.Cancel()]
    assert talk.on(given.Audio("r1"), given.ResponseStarted("r1")) == []
    assert talk.on(given.ResponseDone("r1", False), given.ResponseDone("r1", False)) == []


def test_a_dropped_response_without_identifier_hides_no_later_one() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.ResponseStarted(""), given.SpeechStopped("c1"), given.ResponseStarted(""))
    assert talk.on(given.Audio("")) == [do.Play()]


def test_a_request_that_was_cut_begins_and_ends_without_a_second_cancel() -> None:
    talk = Talk()
    talk.on(given.SessionReady(), given.SpeechStarted("c1"))
    assert talk.on(given.ResponseStarted("r0")) == [], "it was cancelled before"
    assert talk.machine.cut_requests == 0
    talk.on(given.SpeechStopped("c1"))
    assert talk.on(given.ResponseDone("r0", False)) == []
    assert talk.wait(700) == [do.Create(Prompt.ANSWER)]


def test_a_cut_response_that_ends_late_lets_the_owed_answer_be_requested() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"), given.Audio("r1"))
    talk.machine.speaks = False
    assert talk.on(given.ResponseDone("r1", False)) == [do.Create(Prompt.ANSWER)]


def test_nothing_the_ai_says_is_played_after_the_fallback() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    ending.fall_back(talk.machine, Reason.AI_STALLED)
    assert talk.on(given.Audio("r2"), given.ResponseStarted("r2")) == [do.Cancel()]


def test_audio_shows_a_start_that_was_not_reported() -> None:
    talk = Talk()
    talk.on(given.SessionReady())
    assert talk.on(given.Audio("r0", 500)) == [do.Play()]
    assert (talk.machine.response, talk.machine.debt) == (Response.ACTIVE, None)


def test_late_audio_of_an_ended_response_is_played_and_begins_no_other() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.Key("1"), given.Key("#"))
    assert talk.on(given.Audio("r0", 200)) == [do.Play()]
    assert talk.machine.response is Response.REQUESTED


def test_audio_of_another_response_is_not_played_while_the_caller_speaks() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.Audio("r9")) == []


def test_the_end_of_an_older_response_ends_nothing() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    assert talk.on(given.ResponseDone("r0")) == []
    assert talk.machine.response is Response.ACTIVE


def test_the_last_ended_responses_are_kept() -> None:
    talk = Talk()
    talk.greet()
    for n in range(1, 7):
        talk.speak(f"r{n}")
    assert talk.machine.ended == ("r3", "r4", "r5", "r6")


def test_any_sign_of_a_response_that_speaks_moves_its_bound() -> None:
    talk = Talk(Rules(answer_ms=15_000, stall_ms=5000))
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    talk.now_ms = 1000
    talk.on(given.Alive())
    assert talk.machine.answer_by == 15_000, "no words yet"
    talk.on(given.Audio("r1", 9000))
    talk.now_ms = 2000
    talk.on(given.Alive())
    assert talk.machine.answer_by == 7000


# -- failures -------------------------------------------------------------------------------------------------------------


def test_an_answer_that_breaks_off_is_continued() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 100))
    assert talk.on(given.ResponseDone("r1", False, Trouble.PASSING)) == [do.Note("answer_failed")]
    talk.on(given.HeardOut())
    assert talk.wait(300) == [do.Create(Prompt.CONTINUE)]


def test_an_idle_prompt_that_fails_is_not_repeated() -> None:
    talk = Talk(Rules(idle_ms=2000))
    talk.greet()
    assert talk.wait(2000) == [do.Create(Prompt.ARE_YOU_THERE)]
    assert talk.on(given.ResponseStarted("r1"), given.ResponseDone("r1", False, Trouble.PASSING)) == []
    assert talk.machine.debt is None


def test_closing_words_that_fail_are_left_to_twilio() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.BudgetSpent(), given.ResponseStarted("r1"))
    assert talk.on(given.ResponseDone("r1", False, Trouble.LASTING)) == [do.End(Reason.BUDGET, True)]


def test_closing_words_are_spoken_once_their_audio_came() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.BudgetSpent(), given.ResponseStarted("r1"), given.Audio("r1", 900))
    assert talk.machine.has_spoken
    talk.on(given.ResponseDone("r1", False, Trouble.PASSING))
    assert not talk.machine.has_spoken, "they broke off"


def test_a_request_that_meets_the_ai_s_own_response_is_paid_by_it_unless_it_insists() -> None:
    for event, debt in ((given.SpeechStopped("c1"), None), (given.Key("#"), Prompt.ANSWER)):
        talk = Talk()
        talk.greet()
        talk.on(given.SpeechStarted("c1") if debt is None else given.Key("1"), event)
        talk.wait(700)
        assert talk.machine.response is Response.REQUESTED
        talk.on(given.ResponseStarted("r1"), given.CreateRefused(Trouble.CROSSED), given.Audio("r1"))
        assert talk.machine.debt is debt
        assert talk.on(given.ResponseDone("r1"), given.HeardOut()) == ([do.Create(debt)] if debt else [])


def test_a_refused_request_is_repeated_after_the_wait_that_it_asks_for() -> None:
    talk = Talk()
    talk.on(given.SessionReady())
    assert talk.on(given.CreateRefused(Trouble.RATE_LIMIT, 4000)) == [do.Note("answer_failed")]
    talk.wait(3999)
    assert talk.wait(1) == [do.Create(Prompt.GREETING)]


def test_a_response_that_begins_after_keys_and_speech_does_not_answer_the_keys() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.Key("1"), given.Key("#"), given.SpeechStopped("c1"))
    talk.speak("r1")
    assert talk.machine.debt is Prompt.ANSWER
    assert do.Create(Prompt.ANSWER) in talk.wait(700)


def test_a_request_that_meets_a_cut_response_cancels_it_and_is_repeated() -> None:
    talk = Talk()
    talk.on(given.SessionReady())
    assert talk.on(given.CreateRefused(Trouble.CROSSED)) == [do.Cancel(), do.Note("answer_failed")]
    assert talk.wait(300) == [do.Create(Prompt.GREETING)]


def test_a_refusal_of_a_request_that_was_cut_costs_nothing() -> None:
    talk = Talk()
    talk.on(given.SessionReady(), given.SpeechStarted("c1"))
    assert talk.on(given.CreateRefused(Trouble.PASSING)) == []
    assert (talk.machine.cut_requests, talk.machine.attempts) == (0, 0)
    assert talk.on(given.CreateRefused(Trouble.PASSING)) == [], "there is no request"


def test_a_silent_response_costs_its_session_and_at_last_the_ai() -> None:
    talk = Talk(Rules(answer_ms=4000, window_ms=60_000, hold_after_ms=10**6))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.CallerText("c1"))
    for _ in range(2):
        talk.wait(700)
        assert talk.wait(4000)[:1] == [do.Note("ai_leg_lost", Reason.AI_STALLED)]
        talk.on(given.SessionReady())
    talk.wait(700)
    assert talk.wait(4000) == [do.Note("fallback", Reason.AI_STALLED), do.End(Reason.FALLBACK_GOODBYE, True)]


# -- tool calls -----------------------------------------------------------------------------------------------------------


def test_a_hang_up_of_a_response_that_was_cut_does_not_end_the_call() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.ToolCall("r1", "t1", "hang_up")) == [do.ToolOutput("t1", "ok")]
    assert talk.machine.phase is Phase.TALK


def test_a_call_whose_response_is_over_is_carried_out() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.ToolCall("r0", "t1", "lookup")) == [do.WantTool("t1")]
    assert (talk.machine.has_tool, talk.machine.tools) == (False, 1)


def test_a_call_in_the_goodbye_is_cancelled() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.ToolCall("r1", "t2", "lookup")) == [do.ToolOutput("t2", "cancelled")]


def test_the_caller_is_asked_for_one_thing_at_a_time() -> None:
    talk = Talk(Rules(tools={"digits": ToolRules(timeout_ms=20_000, collects=True)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    assert talk.on(given.ToolCall("r1", "t1", "digits", asked=Asked())) == [do.Collect("t1")]
    assert talk.on(given.ToolCall("r1", "t2", "digits", asked=Asked())) == [do.ToolOutput("t2", "busy")]


def test_the_end_of_a_response_that_hung_up_without_a_word_asks_for_one() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.ResponseDone("r1")) == [do.Create(Prompt.GOODBYE)]


def test_audio_of_another_response_does_not_count_as_words_of_the_active_one() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1"))
    assert talk.on(given.Audio("r9", 100)) == [do.Play()]
    assert (talk.machine.has_audio, talk.machine.debt) == (False, Prompt.ANSWER)


def test_a_response_that_calls_a_tool_has_not_failed() -> None:
    talk = Talk()
    talk.greet()
    talk.machine.attempts = 2
    talk.call("lookup")
    assert talk.machine.attempts == 0


# -- a response and the traces of another ---------------------------------------------------------------------------------


def test_a_dropped_response_is_known_after_its_end() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.SpeechStarted("c1"), given.ResponseDone("r1", False))
    talk.on(given.SpeechStopped("c1"), given.ResponseStarted("r1"))
    assert talk.machine.response is Response.NONE
    assert talk.on(given.ResponseStarted("r2"), given.Audio("r1")) == []
    assert "r1" in talk.machine.dropped


def test_the_end_of_a_dropped_response_ends_no_other_that_is_cut() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.ResponseStarted("r1"), given.ResponseStarted("r2"), given.ResponseDone("r1", False))
    assert (talk.machine.response, talk.machine.response_id) == (Response.CUT, "r2")


def test_each_cut_request_begins_once() -> None:
    talk = Talk()
    talk.greet()
    talk.machine.cut_requests = 2
    talk.on(given.ResponseStarted("r1"))
    assert talk.machine.cut_requests == 1


def test_a_response_that_begins_takes_over_no_trace_of_another() -> None:
    talk = Talk(Rules(tools={"approval": ToolRules(yields=True, filler="none")}))
    talk.greet()
    talk.call("approval")
    facts = talk.machine
    facts.has_audio = facts.has_tool = facts.has_new_tool = True
    facts.debt, facts.ask_at, facts.cancel_by = Prompt.ANSWER, 900, 500
    assert talk.on(given.ResponseStarted("r2")) == [do.ToolOutput("t1", "yielded")]
    assert not (facts.has_audio or facts.has_tool or facts.has_new_tool)
    assert facts.ask_at == facts.cancel_by == NEVER


def test_first_words_pay_the_debt_and_its_keys_and_move_the_bound() -> None:
    talk = Talk(Rules(protect_greeting_ms=1000))
    talk.greet()
    assert talk.machine.protect_by == 1000
    talk.wait(1000)
    talk.on(given.Key("1"), given.Key("#"), given.ResponseStarted("r1"), given.Audio("r1"))
    assert (talk.machine.sent_keys, talk.machine.answer_by) == ("", 1000 + talk.machine.rules.stall_ms)
    assert talk.machine.protect_by == NEVER, "only a greeting is protected"
    assert not talk.machine.has_spoken


@pytest.mark.parametrize(
    ("end", "spoken"), [(given.BudgetSpent(), False), (given.ToolCall("r1", "t1", "hang_up"), True), (given.Alive(), False)]
)
def test_the_rest_of_a_sentence_is_the_last_word_of_an_agent_that_hung_up(end: Input, *, spoken: bool) -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), end, given.Audio("r1"))
    assert talk.machine.has_spoken == spoken


def test_a_goodbye_stays_spoken_although_an_empty_response_follows() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.ResponseStarted("r2"), given.ResponseDone("r2", False))
    assert talk.machine.has_spoken


def test_a_requested_response_may_end_without_a_start() -> None:
    talk = Talk()
    talk.on(given.SessionReady())
    assert talk.on(given.ResponseDone("r9", False, Trouble.RATE_LIMIT, 4000)) == [do.Note("answer_failed")]
    assert (talk.machine.response, talk.machine.wait_by) == (Response.NONE, 4000)


def test_an_answer_that_is_spoken_ends_the_count_of_failures() -> None:
    talk = Talk()
    talk.greet()
    talk.machine.attempts = 2
    talk.speak("r1")
    assert talk.machine.attempts == 0


def test_a_lasting_refusal_of_an_idle_prompt_ends_the_call() -> None:
    talk = Talk(Rules(idle_ms=2000))
    talk.greet()
    talk.wait(2000)
    out = talk.on(given.ResponseStarted("r1"), given.ResponseDone("r1", False, Trouble.LASTING))
    assert do.Note("fallback", Reason.AI_REFUSED) in out


@pytest.mark.parametrize(
    ("response", "response_id", "cut_requests", "expected"),
    [
        (Response.CUT, "", 1, Response.NONE),
        (Response.CUT, "r1", 1, Response.CUT),
        (Response.CUT, "", 2, Response.CUT),
        (Response.ACTIVE, "", 1, Response.ACTIVE),
    ],
)
def test_the_refusal_of_a_cut_request_ends_the_last_of_them(
    response: Response, response_id: str, cut_requests: int, expected: Response
) -> None:
    talk = Talk()
    talk.greet()
    talk.machine.response, talk.machine.response_id, talk.machine.cut_requests = response, response_id, cut_requests
    talk.on(given.CreateRefused(Trouble.RATE_LIMIT, 4000))
    assert (talk.machine.response, talk.machine.wait_by) == (expected, 4000)


@pytest.mark.parametrize("debt", [None, Prompt.REPEAT])
def test_an_answer_that_insists_is_owed_behind_the_response_that_crossed_its_request(debt: Prompt | None) -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"))
    talk.machine.asked, talk.machine.asked_insists, talk.machine.debt = Prompt.ANSWER, True, debt
    talk.on(given.CreateRefused(Trouble.CROSSED))
    assert (talk.machine.debt, talk.machine.survives) == (debt or Prompt.ANSWER, True)


def test_a_response_that_the_ai_continues_with_pays_for_what_an_earlier_debt_insisted_on() -> None:
    """Else the caller hears two answers after an approval."""
    talk = Talk(Rules(tools={"mcp": ToolRules(timeout_ms=60_000, yields=True)}))
    talk.greet()
    talk.on(given.Key("1"), given.Key("#"), given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "mcp"))
    talk.on(given.ResponseDone("r1"))
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ResponseDone("r2"))
    assert talk.machine.debt is None


def test_a_call_moves_the_bound_of_its_response_and_a_repeated_one_is_not_new() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.now_ms = 1000
    talk.on(given.ResponseStarted("r2"), given.ToolCall("r2", "t1", "lookup"))
    assert (talk.machine.has_tool, talk.machine.has_new_tool) == (True, False)
    talk.now_ms = 2000
    talk.on(given.ToolCall("r2", "t2", "lookup"), given.ToolCall("r2", "t1", "lookup"))
    assert (talk.machine.has_new_tool, talk.machine.answer_by) == (True, 2000 + talk.machine.rules.answer_ms)


def test_the_call_is_left_once() -> None:
    talk = Talk(Rules(tools={"transfer": ToolRules(leaves=Reason.TRANSFERRED)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "transfer"))
    assert talk.on(given.ToolCall("r1", "t2", "transfer")) == [do.ToolOutput("t2", "busy")]


def test_a_response_that_calls_tools_pays_the_debt_before_it_and_no_later_one() -> None:
    talk = Talk(Rules(interruptions="none", tools={"lookup": ToolRules()}))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.call("lookup")
    assert talk.machine.debt is None
    talk.on(given.ResponseStarted("r2"), given.SpeechStarted("c2"), given.SpeechStopped("c2"))
    talk.on(given.ToolCall("r2", "t2", "lookup"), given.ResponseDone("r2"))
    assert (talk.machine.debt, talk.machine.ask_at) == (Prompt.ANSWER, 700)
    talk = Talk()
    talk.greet()
    talk.call("unknown")
    assert talk.machine.insists, "no response of the AI's own answers its output"
