"""gw.call.answer_clock: the wait for an answer and its parts, through the machine that every call uses."""

from __future__ import annotations

import pytest

from gw.call.answer_clock import NO_FRAME, AnswerClock, Wait
from gw.call.dialogue import inputs as given
from gw.call.dialogue.inputs import Input
from gw.call.dialogue.machine import Dialogue
from gw.call.dialogue.rules import Rules, ToolRules
from gw.call.state import Reason

PAUSE_MS = 500


class Talk:
    """A dialogue whose clock runs beside it, as at the edge."""

    def __init__(self, **rules: object) -> None:
        rules = {"tools": {"lookup": ToolRules(filler="none")}, **rules}
        self.machine = Dialogue.begin(Rules(**rules), 0)  # type: ignore[arg-type]
        self.clock = AnswerClock(PAUSE_MS)
        self.now_ms = 0
        self.on(given.SessionReady(), given.ResponseStarted("r0"), given.Audio("r0"), given.ResponseDone("r0"), given.HeardOut())

    def on(self, *events: Input) -> None:
        for event in events:
            self.machine.on(event, self.now_ms)
            self.clock.follow(self.machine)

    def wait(self, ms: int) -> None:
        until_ms = self.now_ms + ms
        while self.machine.deadline_ms <= until_ms:
            self.now_ms = self.machine.deadline_ms
            self.machine.tick(self.now_ms)
            self.clock.follow(self.machine)
        self.now_ms = until_ms

    def speak(self, item: str = "c1") -> None:
        """Let the caller speak a turn."""
        self.on(given.SpeechStarted(item))
        self.wait(1000)
        self.on(given.SpeechStopped(item))

    def answer(self, response_id: str, queue_ms: int = 0) -> Wait | None:
        """Let the AI's first audio come, and its first frame leave. Returns the wait, if the audio is an answer."""
        self.on(given.ResponseStarted(response_id), given.Audio(response_id, 4000))
        if not self.clock.is_answered:
            return None
        self.clock.on_queued("i1", 7)
        assert self.clock.frame == 7
        return self.clock.on_sent(self.now_ms + queue_ms)


def test_an_answer_of_the_ai_alone() -> None:
    talk = Talk()
    talk.speak()
    talk.wait(200)
    wait = talk.answer("r1", queue_ms=15)
    assert wait == Wait("i1", PAUSE_MS, 200, 0, 15)
    assert wait.total_ms == 715
    assert (talk.clock.is_answered, talk.clock.frame) == (False, NO_FRAME)


def test_time_of_a_tool_is_its_own_part() -> None:
    talk = Talk()
    talk.speak()
    talk.wait(300)
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
    talk.wait(2000)
    talk.on(given.ToolSettled("t1"))
    talk.wait(400)
    assert talk.answer("r2") == Wait("i1", PAUSE_MS, 700, 2000, 0)


def test_a_filler_belongs_to_the_tool() -> None:
    talk = Talk(tools={"lookup": ToolRules(filler="say", filler_after_ms=1000)})
    talk.speak()
    talk.on(given.ResponseStarted("r1"), given.ToolCall("r1", "t1", "lookup"), given.ResponseDone("r1"))
    talk.wait(1200)
    assert talk.machine.filling
    assert talk.answer("r2") is None
    talk.on(given.ResponseDone("r2"), given.HeardOut())
    talk.wait(800)
    talk.on(given.ToolSettled("t1"))
    assert talk.answer("r3") == Wait("i1", PAUSE_MS, 0, 2000, 0)


def test_a_lost_session_is_the_ai_s() -> None:
    talk = Talk()
    talk.speak()
    talk.wait(100)
    talk.on(given.SessionLost(Reason.AI_LOST))
    talk.wait(900)
    talk.on(given.SessionReady())
    talk.wait(250)
    wait = talk.answer("r1")
    assert wait is not None
    assert (wait.ai_ms, wait.gateway_ms) == (1250, 0)


def test_a_judged_interruption_is_the_gateway_s() -> None:
    talk = Talk(interruptions="gateway")
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 9000), given.ResponseDone("r1"))
    talk.wait(1000)
    talk.on(given.SpeechStarted("c1"))
    talk.wait(200)
    talk.on(given.SpeechStopped("c1"))
    talk.wait(150)
    talk.on(given.CallerText("c1"))
    talk.wait(300)
    wait = talk.answer("r2")
    assert wait is not None
    assert (wait.gateway_ms, wait.ai_ms) == (150, 300)


def test_noise_is_not_a_turn() -> None:
    talk = Talk(interruptions="gateway")
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 9000))
    talk.wait(500)
    talk.on(given.SpeechStarted("c1"), given.SpeechStopped("c1"))
    talk.wait(1000)
    talk.on(given.Audio("r1", 9000))
    assert not talk.clock.is_answered
    talk.on(given.ResponseDone("r1"), given.HeardOut())
    assert talk.answer("r2") is None


def test_a_caller_who_speaks_again_begins_another_wait() -> None:
    talk = Talk()
    talk.speak("c1")
    talk.wait(250)
    talk.speak("c2")
    talk.wait(120)
    wait = talk.answer("r1")
    assert wait is not None
    assert wait.ai_ms == 120


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_before_the_first_frame_leaves_no_wait(when: str) -> None:
    talk = Talk()
    talk.speak("c1")
    talk.on(given.ResponseStarted("r1"), given.Audio("r1", 4000))
    if when == "after":
        talk.clock.on_queued("i1", 7)
    talk.on(given.SpeechStarted("c2"))
    assert (talk.clock.is_answered, talk.clock.frame) == (False, NO_FRAME)


def test_a_greeting_and_keys_are_not_measured() -> None:
    talk = Talk()
    assert not talk.clock.is_answered
    talk.on(given.Key("1"), given.Key("#"))
    talk.wait(300)
    assert talk.answer("r1") is None


def test_an_end_without_an_answer_ends_the_wait() -> None:
    talk = Talk()
    talk.speak()
    talk.on(given.EndWanted(Reason.ADMIN_HANGUP))
    assert not talk.clock.is_answered
