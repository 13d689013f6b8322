"""gw.call.dialogue.ending: each end, its last words, and the goodbye that is taken back."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import ending
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Command, Prompt
from gw.call.dialogue.facts import NEVER, Phase, Response
from gw.call.dialogue.inputs import Trouble
from gw.call.dialogue.rules import CLOSING_MS, MAX_TAKEN_BACK, TOOL_MARGIN_MS, Rules, ToolRules
from gw.call.digits import Asked
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


# -- an outbound call that no person answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "out"),
    [
        (given.AnsweredBy("machine"), [do.Interrupt("machine")]),
        (given.AnsweredBy("machine", 4000), [do.Interrupt("machine"), do.Play()]),
        (given.AnsweredBy("fax", 4000), [do.Interrupt("machine")]),
    ],
)
def test_a_machine_is_left_the_message_alone(verdict: given.AnsweredBy, out: list[Command]) -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ResponseDone("r1"))
    assert talk.on(verdict)[: len(out)] == out
    assert talk.machine.closing is Reason.MACHINE
    if do.Play() in out:
        assert talk.machine.phase is Phase.CLOSING
        assert talk.on(given.AnsweredBy("person"), given.SpeechStarted("c1"), given.Audio("r1")) == [], "the first verdict counts"
        assert talk.on(given.HeardOut()) == [do.End(Reason.MACHINE, False)]
    assert talk.machine.phase is Phase.ENDED


def test_a_person_changes_nothing_whatever_is_said_later() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.AnsweredBy("person"), given.AnsweredBy("machine", 4000)) == []
    assert talk.machine.phase is Phase.TALK


@pytest.mark.parametrize("has_begun", [True, False])
def test_no_response_follows_the_verdict(*, has_begun: bool) -> None:
    talk = Talk()
    talk.on(given.SessionReady(), *([given.ResponseStarted("r0")] if has_begun else []))
    assert talk.on(given.AnsweredBy("machine", 4000)) == [do.Cancel(), do.Play()]
    assert talk.machine.plays
    assert talk.on(given.Audio("r0")) == []


# -- the other ends -------------------------------------------------------------------------------------------------------


def test_an_agent_that_hangs_up_without_a_word_is_asked_for_one_once() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.ResponseDone("r1")) == [do.Create(Prompt.GOODBYE)]
    assert talk.on(given.ResponseStarted("r2"), given.ResponseDone("r2"))[:1] == [do.Note("answer_failed")]
    talk.on(given.ResponseStarted("r3"), given.Audio("r3", 900), given.ResponseDone("r3"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_a_hang_up_after_its_response_ended_asks_for_a_goodbye_too() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ResponseDone("r1"))
    talk.machine.debt = None
    assert talk.on(given.ToolCall("r1", "t1", "hang_up")) == [do.ToolOutput("t1", "ok"), do.Create(Prompt.GOODBYE)]


def test_a_goodbye_is_taken_back_a_bounded_number_of_times() -> None:
    talk = Talk()
    talk.greet()
    for n in range(MAX_TAKEN_BACK + 1):
        talk.on(given.ResponseStarted(f"r{n}"), given.Audio(f"r{n}", 2000), given.ToolCall(f"r{n}", f"t{n}", "hang_up"))
        out = talk.on(given.SpeechStarted(f"c{n}"))
        assert (do.Note("goodbye_taken_back") in out) == (n < MAX_TAKEN_BACK)
        talk.on(given.ResponseDone(f"r{n}", n == MAX_TAKEN_BACK), given.SpeechStopped(f"c{n}"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_an_ai_that_is_given_up_finishes_its_queued_words_then_twilio_speaks() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.SpeechStarted("c1"))
    out = talk.on(given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING))
    assert out == [
        do.Note("ai_leg_lost", Reason.AI_REFUSED),
        do.ReleaseAudio(),
        do.Note("fallback", Reason.AI_REFUSED),
    ]
    assert talk.on(given.HeardOut()) == [do.End(Reason.FALLBACK_GOODBYE, True)]


def test_an_ai_that_is_given_up_while_the_caller_speaks_is_silent() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 60_000))
    talk.on(given.SpeechStarted("c1"))
    ending.fall_back(talk.machine, Reason.AI_STALLED)
    assert talk.machine.out[-3:] == [do.Note("fallback", Reason.AI_STALLED), do.Interrupt("cut"), do.ReleaseAudio()]
    assert talk.machine.response is Response.NONE


def test_a_limit_announces_no_second_end() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=5000))
    talk.greet()
    talk.on(
        given.ResponseStarted("r1"), given.Audio("r1", 15_000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1")
    )
    assert talk.on(given.BudgetNear()) == []
    assert talk.wait(16_500) == [], "no warning either"
    assert talk.machine.closing is Reason.AI_HANGUP


def test_without_a_session_a_limit_has_no_closing_words() -> None:
    talk = Talk(Rules(max_call_ms=3000, warn_ms=1000, window_ms=60_000, open_ms=60_000))
    assert do.End(Reason.DURATION_LIMIT, True) in talk.wait(3000)


def test_the_longest_call_ends_at_last_whatever_is_under_way() -> None:
    talk = Talk(Rules(max_call_ms=20_000, warn_ms=0))
    talk.greet()
    talk.machine.limit_at = NEVER  # the end was not decided by the limit
    talk.on(given.ResponseStarted("r1"))
    assert do.End(Reason.DURATION_LIMIT, True) in talk.machine.tick(20_000 + CLOSING_MS + talk.machine.rules.goodbye_ms)


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        (Reason.CALLER_HANGUP, do.End(Reason.CALLER_HANGUP, False)),
        (Reason.PHONE_LOST, do.End(Reason.AI_HANGUP, True)),
    ],
)
def test_the_end_of_the_stream_during_a_goodbye(reason: Reason, end: do.End) -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    assert talk.on(given.StreamEnded(reason)) == [end]


def test_who_hangs_up_on_the_fallback_was_given_up() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING))
    assert talk.on(given.StreamEnded(Reason.CALLER_HANGUP)) == [do.End(Reason.FALLBACK_GOODBYE, False)]


def test_the_stream_that_was_left_ended_on_purpose() -> None:
    talk = Talk(Rules(tools={"transfer": ToolRules(leaves=Reason.TRANSFERRED)}))
    talk.greet()
    assert talk.call("transfer") == [do.WantTool("t1")]
    assert talk.on(given.StreamEnded(Reason.CALLER_HANGUP)) == [do.End(Reason.TRANSFERRED, False)]


def test_an_operator_ends_the_call_with_words() -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.EndWanted(Reason.ADMIN_HANGUP)) == [do.End(Reason.ADMIN_HANGUP, True)]


def test_the_end_answers_each_tool_call_once_and_keeps_those_in_the_background() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(), "book": ToolRules(waits=False)}))
    talk.greet()
    talk.call("lookup", "book")
    assert talk.on(given.BudgetSpent())[:1] == [do.ToolOutput("t1", "cancelled")]
    assert [tool.call_id for tool in talk.machine.open_tools] == ["t2"]
    assert talk.on(given.ToolSettled("t2")) == [do.ToolResult("t2", "settled")]


def test_a_silent_hang_up_is_asked_for_words_again_after_it_was_taken_back() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.ResponseDone("r1")) == [do.Create(Prompt.GOODBYE)]
    assert talk.on(given.SpeechStarted("c1")) == [do.Note("goodbye_taken_back")]
    talk.on(given.SpeechStopped("c1"), given.ResponseStarted("r2"), given.ResponseDone("r2"), given.ResponseStarted("r3"))
    talk.on(given.ToolCall("r3", "t2", "hang_up"))
    assert talk.on(given.ResponseDone("r3")) == [do.Create(Prompt.GOODBYE)]


def test_a_decided_end_ends_what_waited_for_a_quiet_moment() -> None:
    talk = Talk(Rules(tools={"transfer": ToolRules(leaves=Reason.TRANSFERRED)}))
    talk.greet()
    talk.on(given.Key("1"), given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "transfer"))
    talk.machine.filling = "lookup"
    talk.on(given.BudgetSpent())
    assert (talk.machine.leaving, talk.machine.left_for, talk.machine.keys, talk.machine.filling) == ("", None, "", "")
    assert talk.machine.keys_at == talk.machine.tools_by == NEVER


def _leaving() -> Talk:
    """A call whose transfer control was asked for."""
    talk = Talk(Rules(tools={"transfer": ToolRules(timeout_ms=6000, leaves=Reason.TRANSFERRED)}))
    talk.greet()
    asked = talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "transfer"), given.ResponseDone("r1"))
    assert asked == [do.WantTool("t1")]
    return talk


def test_a_limit_waits_for_a_call_that_leaves_its_stream() -> None:
    talk = _leaving()
    assert talk.on(given.BudgetSpent()) == []
    assert talk.on(given.StreamEnded(Reason.CALLER_HANGUP)) == [do.End(Reason.TRANSFERRED, False)]
    refused = _leaving()
    refused.on(given.BudgetSpent())
    assert refused.on(given.ToolSettled("t1")) == [do.ToolOutput("t1", "settled"), do.Create(Prompt.CLOSING)]


@pytest.mark.parametrize("ends", ["a goodbye", "a lost AI"])
def test_no_end_overtakes_a_transfer(ends: str) -> None:
    def ending_call() -> Talk:
        talk = _leaving()
        if ends == "a goodbye":
            talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ToolCall("r2", "t2", "hang_up"))
            assert talk.on(given.ResponseDone("r2"), given.HeardOut()) == []
        else:
            lost = talk.on(given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING))
            assert not any(isinstance(one, do.End) for one in lost)
        return talk

    assert ending_call().on(given.StreamEnded(Reason.CALLER_HANGUP)) == [do.End(Reason.TRANSFERRED, False)]
    refused = ending_call().on(given.ToolSettled("t1"))
    reason = Reason.AI_HANGUP if ends == "a goodbye" else Reason.FALLBACK_GOODBYE
    assert [one.reason for one in refused if isinstance(one, do.End)] == [reason]


@pytest.mark.parametrize("starts", [True, False])
def test_words_that_began_before_a_limit_are_not_its_closing_words(starts: bool) -> None:
    talk = Talk()
    assert do.Create(Prompt.GREETING) in talk.on(given.SessionReady())
    if starts:
        talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000))
    talk.on(given.BudgetSpent(), given.ResponseStarted("r1"), given.Audio("r1", 1000), given.ResponseDone("r1"))
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.BUDGET, False)]


@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_that_crosses_the_request_for_closing_words_is_not_these(is_late: bool) -> None:
    """`is_late`: the AI's answer has begun to sound when its refusal comes."""
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.ResponseDone("r1"), given.HeardOut())
    assert talk.on(given.BudgetSpent()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r2"))
    crossing = [given.CreateRefused(Trouble.CROSSED), given.Audio("r2", 1000)]
    talk.on(*(reversed(crossing) if is_late else crossing), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r3"), given.Audio("r3", 1000), given.ResponseDone("r3"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.BUDGET, False)]


@pytest.mark.parametrize("words", [True, False])
def test_closing_words_are_asked_for_behind_a_crossing_answer_that_calls_a_tool(words: bool) -> None:
    talk = Talk()
    talk.greet()
    assert talk.on(given.BudgetSpent()) == [do.Create(Prompt.CLOSING)]
    talk.on(given.ResponseStarted("r2"), given.CreateRefused(Trouble.CROSSED))
    talk.on(*[given.Audio("r2", 1000)] * words, given.ToolCall("r2", "t1", "hang_up"))
    asked = talk.on(given.ResponseDone("r2"), *[given.HeardOut()] * words)
    assert asked == [do.Create(Prompt.CLOSING)]


def test_a_goodbye_that_a_late_refusal_crosses_is_one_goodbye() -> None:
    talk = Talk(Rules(collect_keys=True))
    talk.greet()
    assert do.Create(Prompt.ANSWER) in talk.on(given.Key("1"), given.Key("#"))
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ToolCall("r2", "t1", "hang_up"))
    talk.on(given.CreateRefused(Trouble.CROSSED), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


def test_an_answer_to_speech_while_closing_is_not_the_closing_words() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 1000), given.BudgetSpent(), given.ResponseDone("r1"))
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 1000), given.ResponseDone("r2"))
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]


def test_the_verdict_ends_a_judged_interruption() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ResponseDone("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.AnsweredBy("machine", 4000)) == [do.Interrupt("machine"), do.ReleaseAudio(), do.Play()]


def test_the_end_lets_the_recording_hear_the_caller_again() -> None:
    talk = Talk(Rules(tools={"digits": ToolRules(timeout_ms=20_000, collects=True)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "digits", asked=Asked(is_sensitive=True)))
    ended = do.End(Reason.PHONE_LOST, True)
    assert talk.on(given.StreamEnded(Reason.PHONE_LOST)) == [do.Conceal(False), ended]


def test_who_speaks_while_the_agent_hangs_up_takes_it_back_a_bounded_number_of_times() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.SpeechStarted("c1"))
    for n in range(1, MAX_TAKEN_BACK + 1):
        assert do.Note("goodbye_taken_back") in talk.on(given.ToolCall("r1", f"t{n}", "hang_up"))
        assert talk.machine.taken_back == n
    assert talk.on(given.ToolCall("r1", "t9", "hang_up")) == [do.ToolOutput("t9", "ok")]
    assert talk.machine.phase is Phase.CLOSING


@pytest.mark.parametrize(("plays", "has_audio"), [(True, False), (False, True), (False, False)])
def test_a_goodbye_was_spoken_if_the_agent_is_heard_or_its_response_has_words(*, plays: bool, has_audio: bool) -> None:
    talk = Talk()
    talk.greet()
    talk.machine.plays, talk.machine.has_audio, talk.machine.response = plays, has_audio, Response.ACTIVE
    ending.hang_up(talk.machine)
    assert talk.machine.has_spoken == (plays or has_audio)
    assert not talk.machine.has_asked_goodbye, "the response may bring one"


def test_a_goodbye_is_requested_from_an_agent_that_hangs_up_in_silence() -> None:
    talk = Talk()
    talk.greet()
    ending.hang_up(talk.machine)
    assert (talk.machine.debt, talk.machine.has_asked_goodbye) == (Prompt.GOODBYE, True)


def test_a_decided_end_keeps_the_bound_of_what_runs_in_the_background_and_adds_to_what_is_heard() -> None:
    book = ToolRules(waits=False)
    talk = Talk(Rules(tools={"lookup": ToolRules(timeout_ms=1000), "book": book, "order": book._replace(timeout_ms=9000)}))
    talk.greet()
    talk.call("lookup", "book", "order")
    talk.on(given.ResponseStarted("r2"), given.Audio("r2", 3000))
    ending.begin_closing(talk.machine, Reason.BUDGET, 500)
    assert talk.machine.tools_by == 8000 + TOOL_MARGIN_MS
    assert talk.machine.close_by == talk.machine.heard_by + 500


def test_a_decided_end_without_a_session_answers_no_tool_and_one_collection_is_over() -> None:
    talk = Talk(Rules(tools={"digits": ToolRules(timeout_ms=20_000, collects=True)}))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "digits", asked=Asked(is_sensitive=True)))
    talk.machine.is_ready, talk.machine.out = False, []
    ending.begin_closing(talk.machine, Reason.BUDGET, 500)
    assert talk.machine.out == [do.Conceal(False)]
    assert talk.machine.collection is None


def test_the_message_for_a_machine_has_its_bound() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.AnsweredBy("machine", 4000))
    assert talk.machine.heard_by == 4000 + talk.machine.heard_ms
