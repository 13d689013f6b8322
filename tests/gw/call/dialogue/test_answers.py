"""gw.call.dialogue.answers: when an owed answer is requested."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import pytest

from gw.call.dialogue import answers
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Facts, Response
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.rules import CANCEL_MS, MAX_WAIT_MS, SILENT_MS, Rules, ToolRules
from gw.call.state import Reason
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


@pytest.mark.parametrize(
    ("before", "may"),
    [
        ((given.Key("1"), given.Key("#")), False),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1")), True),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.SpeechStarted("c2")), False),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.SessionLost(Reason.AI_LOST)), False),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.CreateRefused(Trouble.RATE_LIMIT)), False),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.ResponseStarted("r1")), False),
    ],
)
def test_a_response_is_requested_while_the_caller_is_silent_and_none_is_under_way(
    before: tuple[Input, ...], *, may: bool
) -> None:
    talk = Talk()
    talk.greet()
    assert not answers.may_ask(talk.machine), "nothing is owed"
    talk.on(*before)
    assert answers.may_ask(talk.machine) == may


def test_closing_words_wait_for_the_sentence() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ResponseDone("r1"), given.BudgetSpent())
    assert (talk.machine.debt, answers.may_ask(talk.machine)) == (Prompt.CLOSING, False)
    assert talk.on(given.HeardOut()) == [do.Create(Prompt.CLOSING)]


def test_nothing_is_owed_once_the_end_is_decided() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"))
    answers.owe(talk.machine, Prompt.ANSWER)
    assert talk.machine.debt is None


def test_a_rate_limit_is_waited_for_within_its_bounds() -> None:
    talk = Talk()
    for asked_ms, waited_ms in ((0, 1000), (4000, 4000), (60_000, MAX_WAIT_MS)):
        answers.wait(talk.machine, asked_ms)
        assert talk.machine.wait_by == waited_ms


def test_a_request_that_the_caller_cuts_is_cancelled_and_its_response_dropped() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.Key("1"), given.Key("#"))
    assert talk.on(given.SpeechStarted("c1")) == [do.Cancel()]
    assert talk.on(given.ResponseStarted("r1"), given.Audio("r1"), given.ResponseDone("r1", False)) == []


@pytest.mark.parametrize("owes", [True, False])
def test_a_response_whose_end_never_comes_is_over_after_its_bound(*, owes: bool) -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    assert talk.wait(900) == [do.Cancel(), do.Interrupt("cut"), do.ReleaseAudio()]
    if owes:
        assert talk.on(given.SpeechStopped("c1")) == []
        assert talk.wait(CANCEL_MS) == [do.Create(Prompt.ANSWER)]
    else:
        assert talk.wait(CANCEL_MS) == []
    assert talk.machine.cancel_by == NEVER


@pytest.mark.parametrize("sign", [given.Alive(), given.SpeechStopped("c1"), given.CallerText("c1"), None])
def test_a_session_that_goes_silent_with_a_cut_response_is_replaced(sign: given.Input | None) -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    talk.wait(900)
    talk.wait(CANCEL_MS)
    if sign is not None:
        talk.on(sign)
    silent = talk.wait(SILENT_MS)
    assert (do.Note("ai_leg_lost", Reason.AI_STALLED) in silent) == (sign is None)
    assert talk.machine.is_ready == (sign is not None)
    assert talk.machine.silent_by == NEVER


def test_a_timer_of_a_response_that_ended_has_no_effect() -> None:
    talk = Talk()
    talk.greet()
    facts = copy(talk.machine)
    answers.on_cancel_by(talk.machine)
    answers.on_wait_by(talk.machine)
    assert talk.machine == facts


def test_a_sentence_while_a_tool_is_slow_names_its_tool() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1200) == [do.Create(Prompt.FILLER, "lookup")]


def test_an_answer_that_was_dropped_and_never_ended_is_owed_still() -> None:
    talk = Talk(Rules(interruptions="none"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.SpeechStarted("c1"))
    assert talk.on(given.Audio("r1")) == [do.Cancel()]
    assert talk.machine.ask_at == NEVER
    talk.wait(CANCEL_MS)
    assert talk.machine.ask_at == CANCEL_MS


def with_traces() -> Facts:
    """Facts of a response that spoke and called a tool."""
    facts = Talk().machine
    facts.is_ready, facts.now = True, 1000
    facts.response, facts.response_id, facts.asked = Response.ACTIVE, "r1", Prompt.ANSWER
    facts.has_audio = facts.has_tool = facts.has_new_tool = facts.survives = True
    facts.answer_by, facts.cancel_by = 2000, 3000
    return facts


def traces(facts: Facts) -> tuple[bool, ...]:
    return (facts.has_audio, facts.has_tool, facts.has_new_tool, facts.survives)


def test_a_request_has_its_deadline_and_no_trace_of_the_last_response() -> None:
    facts = with_traces()
    facts.debt, facts.ask_at = Prompt.GREETING, 1000
    answers.ask(facts)
    assert (facts.response, facts.response_id, facts.asked) == (Response.REQUESTED, "", Prompt.GREETING)
    assert (facts.ask_at, facts.answer_by) == (NEVER, 1000 + facts.rules.answer_ms)
    assert not any(traces(facts))


def test_a_response_that_is_over_leaves_no_trace() -> None:
    facts = with_traces()
    answers.clear_response(facts)
    assert (facts.response, facts.response_id, facts.asked) == (Response.NONE, "", None)
    assert facts.answer_by == facts.cancel_by == NEVER
    assert not any(traces(facts))


@pytest.mark.parametrize(
    ("response", "owed", "insisted", "insists", "expected"),
    [
        (Response.NONE, None, False, False, (False, False)),
        (Response.NONE, None, True, False, (False, False)),
        (Response.NONE, Prompt.ANSWER, False, False, (False, False)),
        (Response.NONE, Prompt.ANSWER, True, False, (True, False)),
        (Response.NONE, None, False, True, (True, False)),
        (Response.REQUESTED, None, False, False, (False, False)),
        (Response.REQUESTED, None, False, True, (True, True)),
        (Response.ACTIVE, None, False, False, (False, True)),
    ],
)
def test_a_response_under_way_pays_no_debt_that_came_later(
    response: Response, owed: Prompt | None, expected: tuple[bool, bool], *, insisted: bool, insists: bool
) -> None:
    """`expected`: a response that begins cannot pay it; neither can the one under way."""
    facts = with_traces()
    facts.response, facts.debt, facts.insists, facts.attempts = response, owed, insisted, 2
    answers.owe(facts, Prompt.REPEAT, 500, insists=insists)
    assert (facts.debt, facts.attempts, facts.ask_at) == (Prompt.REPEAT, 0, 1500)
    assert (facts.insists, facts.survives) == expected


def test_an_answer_is_ordinarily_owed_immediately_and_paid_by_any_response() -> None:
    facts = with_traces()
    answers.owe(facts, Prompt.ANSWER)
    assert (facts.ask_at, facts.insists) == (1000, False)


def test_a_debt_that_replaces_all_others_begins_anew() -> None:
    facts = with_traces()
    for prompt, ask_at in ((Prompt.GOODBYE, 1000), (None, NEVER)):
        facts.insists, facts.attempts = True, 2
        answers.owe_only(facts, prompt)
        assert (facts.debt, facts.insists, facts.attempts, facts.ask_at) == (prompt, False, 0, ask_at)


def test_what_is_cut_has_a_bound_on_its_end() -> None:
    facts = with_traces()
    answers.drop_response(facts, cancel=False)
    assert (facts.response, facts.dropped, facts.answer_by, facts.cancel_by) == (Response.CUT, ("r1",), NEVER, 1000 + CANCEL_MS)
    facts = with_traces()
    answers.cancel_request(facts)
    assert (facts.response, facts.cut_requests, facts.answer_by, facts.cancel_by) == (Response.CUT, 1, NEVER, 1000 + CANCEL_MS)


@pytest.mark.parametrize("over", [answers.on_cancel_by, answers.end_cut_response])
@pytest.mark.parametrize(
    ("debt", "ask_at", "expected"), [(None, NEVER, NEVER), (Prompt.ANSWER, NEVER, 1000), (Prompt.ANSWER, 1900, 1900)]
)
def test_an_answer_owed_at_the_end_of_a_cut_response_is_requested(
    over: Callable[[Facts], None], debt: Prompt | None, ask_at: int, expected: int
) -> None:
    facts = with_traces()
    facts.response, facts.debt, facts.ask_at = Response.CUT, debt, ask_at
    over(facts)
    assert (facts.response, facts.ask_at) == (Response.NONE, expected)
