"""gw.call.dialogue.sessions: a session that is lost, and one that expires."""

from __future__ import annotations

import pytest

from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue.commands import Prompt
from gw.call.dialogue.rules import LIFETIME_MS, MAX_UNREADABLE, ROLLOVER_QUIET_MS, TEXT_MS, Rules
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
    out = talk.on(given.CallerText("c1")) if comes else talk.wait(TEXT_MS)
    assert out == [do.Swap(), do.Restate()]


def test_events_that_cost_a_session_do_not_count_against_the_next() -> None:
    talk = Talk()
    talk.greet()
    talk.on(*[given.Unreadable()] * MAX_UNREADABLE)
    assert not talk.machine.is_ready
    assert talk.on(given.Unreadable()) == [do.Note("ai_unreadable")]
    assert talk.on(given.SessionReady())[:1] == [do.Restate()]
