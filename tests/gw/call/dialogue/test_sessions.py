"""gw.call.dialogue.sessions: a session that is lost, and one that expires."""

from __future__ import annotations

from copy import copy

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import sessions
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.facts import NEVER, Phase, Response, Successor
from gw.call.dialogue.inputs import Input, Trouble
from gw.call.dialogue.rules import (
    LIFETIME_MS,
    LISTEN_AGAIN_MS,
    LISTEN_MS,
    MAX_OPENS,
    MAX_UNREADABLE,
    MIN_LIFETIME_MS,
    OPEN_PAUSES_MS,
    ROLLOVER_FORCED_MS,
    ROLLOVER_QUIET_MS,
    ROLLOVER_RETRY_MS,
    STABLE_MS,
    TEXT_MS,
    UNREADABLE_WINDOW_MS,
    Rules,
    ToolRules,
)
from gw.call.state import Reason
from tests.gw.call.dialogue.talk import Talk


def test_results_that_came_before_their_response_ended_are_answered_by_the_next_session() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ToolSettled("t1"))
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.SessionReady()) == [do.Restate()]
    assert talk.wait(400) == [do.Create(Prompt.ANSWER)]


def test_a_session_lost_in_a_sentence_is_replaced_and_continues() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 500))
    assert talk.on(given.SessionLost(Reason.AI_LOST)) == [do.Note("ai_leg_lost", Reason.AI_LOST), do.OpenSession(200)]
    assert talk.on(given.SessionReady()) == [do.Restate()]
    assert talk.wait(500) == [do.Create(Prompt.CONTINUE)]


def test_a_session_that_is_ready_takes_the_place_of_one_that_dies() -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    assert talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS) == [do.OpenSuccessor()]
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000))
    assert talk.on(given.SuccessorReady()) == []
    assert talk.on(given.SessionLost(Reason.AI_CLOSED)) == [do.Note("ai_leg_lost", Reason.AI_CLOSED), do.Swap(), do.Restate()]
    assert talk.wait(400) == [do.Create(Prompt.CONTINUE)]


@pytest.mark.parametrize("comes", [True, False])
def test_a_rollover_waits_for_the_words_of_the_caller(*, comes: bool) -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.speak("r1")
    talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS)
    assert talk.on(given.SuccessorReady()) == []
    assert talk.wait(TEXT_MS - 1) == []
    out = talk.on(given.CallerText("c1")) if comes else talk.wait(1)
    assert out == [do.Swap(), do.Restate()]


def test_events_that_cost_a_session_do_not_count_against_the_next() -> None:
    talk = Talk()
    talk.greet()
    talk.on(*[given.Unreadable()] * MAX_UNREADABLE)
    assert not talk.machine.is_ready
    assert talk.on(given.Unreadable()) == [do.Note("ai_unreadable")]
    assert talk.on(given.SessionReady())[:1] == [do.Restate()]


@pytest.mark.parametrize(
    ("rules", "prompt"),
    [
        (Rules(), Prompt.GREETING),
        (Rules(resumes=True), Prompt.RETURN),
        (Rules(resumes=True, returns=True), Prompt.RETURNED),
        (Rules(greets=False), None),
    ],
)
def test_the_first_session_speaks_first_if_the_agent_does(rules: Rules, prompt: Prompt | None) -> None:
    talk = Talk(rules)
    assert talk.on(given.SessionReady()) == [do.Restate(), *([do.Create(prompt)] if prompt else [])]
    assert talk.on(given.SessionReady()) == [], "it is ready already"


def test_the_lifetime_of_a_session_is_bounded_and_an_implausible_one_ignored() -> None:
    for lifetime_ms, used_ms in ((MIN_LIFETIME_MS - 1, LIFETIME_MS), (900_000, 900_000), (10**9, LIFETIME_MS)):
        talk = Talk()
        talk.on(given.SessionReady(lifetime_ms))
        assert talk.machine.quiet_at == used_ms - ROLLOVER_QUIET_MS
        assert talk.machine.forced_at == used_ms - ROLLOVER_FORCED_MS
    talk = Talk()
    talk.on(given.SessionReady(MIN_LIFETIME_MS))
    assert talk.machine.quiet_at == MIN_LIFETIME_MS // 2


def test_results_and_keys_that_came_without_a_session_are_the_first_the_next_one_gets() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    talk.on(given.SessionLost(Reason.AI_LOST), given.ToolSettled("t1"), given.Key("1"), given.Key("#"))
    assert talk.on(given.SessionReady()) == [do.Restate(), do.ToolOutput("t1", "settled"), do.SendKeys("1")]
    assert (talk.machine.sent_keys, talk.machine.held_keys, talk.machine.held_results) == ("1", "", ())


def test_attempts_at_the_first_session_are_noted_once_and_end_in_the_fallback() -> None:
    talk = Talk(Rules(window_ms=8000, open_ms=5000, hold_after_ms=60_000))
    assert talk.on(given.SessionLost(Reason.AI_LOST)) == [do.Note("ai_leg_lost", Reason.AI_LOST), do.OpenSession(200)]
    assert talk.machine.open_by == 5200
    assert talk.wait(5200) == [do.OpenSession(400)]
    assert talk.machine.open_by == 8000, "no longer than the window"
    assert talk.wait(2800) == [do.Note("fallback", Reason.AI_TIMEOUT), do.End(Reason.FALLBACK_GOODBYE, True)]


def test_a_rate_limit_moves_the_next_attempt_and_a_lasting_refusal_ends_them() -> None:
    talk = Talk()
    assert do.OpenSession(3000) in talk.on(given.SessionLost(Reason.AI_RATE_LIMITED, Trouble.RATE_LIMIT, 3000))
    talk = Talk()
    assert do.Note("fallback", Reason.AI_REFUSED) in talk.on(given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING))


def test_attempts_are_bounded_within_a_long_window() -> None:
    talk = Talk(Rules(window_ms=10**6, hold_after_ms=10**6))
    pauses = []
    while talk.machine.phase is Phase.TALK:
        pauses += [
            command.pause_ms for command in talk.on(given.SessionLost(Reason.AI_LOST)) if isinstance(command, do.OpenSession)
        ]
    assert pauses == [*OPEN_PAUSES_MS, *[OPEN_PAUSES_MS[-1]] * (MAX_OPENS - len(OPEN_PAUSES_MS))]


def test_a_session_that_lasted_gives_the_next_one_the_whole_window() -> None:
    talk = Talk(Rules(window_ms=8000))
    talk.now_ms = 3000
    talk.on(given.SessionReady())
    assert talk.machine.window_ms == 5000
    talk.now_ms += STABLE_MS
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert (talk.machine.window_ms, talk.machine.opens) == (8000, 1)
    talk = Talk(Rules(window_ms=8000))
    talk.now_ms = 6000
    talk.on(given.SessionReady(), given.SessionLost(Reason.AI_LOST))
    talk.now_ms = 7000
    talk.on(given.SessionReady())
    assert talk.machine.window_ms == 8000 - 6000 - 1000
    talk.on(given.SessionLost(Reason.AI_LOST))
    talk.now_ms = 9500
    talk.on(given.SessionReady())
    assert talk.machine.window_ms == 0


def test_a_session_lost_in_the_goodbye_is_not_replaced() -> None:
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"))
    assert talk.on(given.SessionLost(Reason.AI_LOST)) == [do.Note("ai_leg_lost", Reason.AI_LOST)]
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, True)], "the sentence broke off"
    talk = Talk()
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 3000), given.ToolCall("r1", "t1", "hang_up"), given.ResponseDone("r1"))
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.on(given.HeardOut()) == [do.End(Reason.AI_HANGUP, False)]


@pytest.mark.parametrize(
    ("before", "debt"),
    [
        ((given.SpeechStarted("c1"),), Prompt.REPEAT),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1")), Prompt.REPEAT),
        ((given.SpeechStarted("c1"), given.SpeechStopped("c1"), given.CallerText("c1")), Prompt.ANSWER),
        ((given.ResponseStarted("r1"), given.Audio("r1")), Prompt.CONTINUE),
        ((given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup")), None),
        ((given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ToolSettled("t1")), Prompt.ANSWER),
    ],
)
def test_what_a_lost_session_owed_the_next_one_owes(before: tuple[Input, ...], debt: Prompt | None) -> None:
    talk = Talk(Rules(hold_after_ms=60_000, tools={"lookup": ToolRules(filler="none")}))
    talk.greet()
    talk.on(*before, given.SessionLost(Reason.AI_LOST))
    assert talk.machine.debt is debt
    talk.on(given.SessionReady())
    listens_ms = LISTEN_AGAIN_MS if debt is Prompt.REPEAT else LISTEN_MS
    assert talk.wait(listens_ms - 1) == []
    assert talk.wait(1) == ([do.Create(debt)] if debt else [])


def test_a_response_without_a_sound_is_owed_as_before() -> None:
    talk = Talk()
    talk.on(given.SessionReady(), given.ResponseStarted("r0"), given.SessionLost(Reason.AI_LOST))
    assert talk.machine.debt is Prompt.GREETING


def test_a_sentence_for_a_slow_tool_is_not_owed_by_the_next_session() -> None:
    talk = Talk(Rules(tools={"lookup": ToolRules(filler="say")}))
    talk.greet()
    talk.call("lookup")
    assert talk.wait(1200) == [do.Create(Prompt.FILLER, "lookup")]
    talk.on(given.SessionLost(Reason.AI_LOST))
    assert talk.machine.debt is None


def test_unreadable_events_cost_the_session_if_they_are_many_within_a_window() -> None:
    talk = Talk(Rules(idle_ms=10**6))
    talk.greet()
    for n in range(3 * MAX_UNREADABLE):
        assert talk.on(given.Unreadable()) == ([do.Note("ai_unreadable")] if n == 0 else [])
        talk.now_ms += UNREADABLE_WINDOW_MS // 2
    assert talk.machine.is_ready


def test_a_successor_that_failed_is_tried_again() -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000))
    talk.greet()
    assert talk.on(given.SuccessorReady(), given.SuccessorFailed()) == [], "none was opened"
    talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS)
    talk.on(given.SuccessorFailed())
    assert talk.wait(ROLLOVER_RETRY_MS - 1) == []
    assert talk.wait(1) == [do.OpenSuccessor()]


def test_no_successor_is_opened_without_a_session() -> None:
    talk = Talk()
    sessions.on_quiet_at(talk.machine)
    assert talk.machine.successor is Successor.NONE


def test_shortly_before_the_end_a_session_is_replaced_although_something_is_owed() -> None:
    talk = Talk()
    talk.greet()
    talk.call("lookup")
    assert not sessions.may_swap(talk.machine), "an answer is owed"
    talk.machine.forced_at = NEVER
    assert sessions.may_swap(talk.machine)
    facts = copy(talk.machine)
    sessions.on_forced_at(talk.machine)
    assert talk.machine == facts
    talk.machine.speaks = True
    assert not sessions.may_swap(talk.machine), "the caller speaks"
    talk.machine.speaks = False
    talk.on(given.ResponseStarted("r2"))
    assert not sessions.may_swap(talk.machine), "a response is under way"


def test_the_return_of_a_call_is_answered_by_no_other_response() -> None:
    talk = Talk(Rules(resumes=True, returns=True))
    talk.on(given.SessionReady())
    assert talk.machine.insists


def test_requests_that_the_old_session_had_are_not_the_new_one_s() -> None:
    talk = Talk(Rules(idle_prompts=0, idle_ms=10_000_000, interruptions="none"))
    talk.greet()
    talk.wait(LIFETIME_MS - ROLLOVER_QUIET_MS)
    talk.machine.cut_requests, talk.machine.response, talk.machine.cancel_by = 1, Response.CUT, talk.now_ms + 500
    assert talk.on(given.SuccessorReady(LIFETIME_MS)) == [do.Swap(), do.Restate()]
    assert (talk.machine.cut_requests, talk.machine.response, talk.machine.successor) == (0, Response.NONE, Successor.NONE)
    assert talk.machine.cancel_by == NEVER


@pytest.mark.parametrize(("window_ms", "opens"), [(OPEN_PAUSES_MS[0], False), (OPEN_PAUSES_MS[0] + 1, True)])
def test_an_attempt_needs_time_after_its_pause(window_ms: int, *, opens: bool) -> None:
    out = Talk(Rules(window_ms=window_ms)).on(given.SessionLost(Reason.AI_LOST))
    assert (do.OpenSession(OPEN_PAUSES_MS[0]) in out) == opens


@pytest.mark.parametrize(("later_ms", "is_ready"), [(UNREADABLE_WINDOW_MS - 1, False), (UNREADABLE_WINDOW_MS, True)])
def test_unreadable_events_count_within_their_window(later_ms: int, *, is_ready: bool) -> None:
    talk = Talk()
    talk.greet()
    talk.now_ms = 1000
    talk.on(given.Unreadable())
    talk.now_ms += later_ms
    talk.on(*[given.Unreadable()] * (MAX_UNREADABLE - 1))
    assert talk.machine.is_ready == is_ready


def test_a_lost_session_leaves_no_trace_and_no_closing_words() -> None:
    talk = Talk(Rules(interruptions="gateway"))
    talk.greet()
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 5000), given.SpeechStarted("c1"))
    talk.machine.sent_keys, talk.machine.cut_requests = "1", 2
    assert do.ReleaseAudio() in talk.on(given.SessionLost(Reason.AI_LOST))
    assert (talk.machine.held_keys, talk.machine.sent_keys, talk.machine.cut_requests) == ("1", "", 0)
    talk = Talk()
    talk.greet()
    talk.on(given.BudgetSpent())
    assert talk.on(given.SessionLost(Reason.AI_LOST)) == [do.Note("ai_leg_lost", Reason.AI_LOST), do.End(Reason.BUDGET, True)]
