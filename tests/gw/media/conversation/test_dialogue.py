"""gw.media.conversation.dialogue: inputs reach the machine, and each command the part of the call it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, get_args

import gevent
import pytest

from gw import bus
from gw.call.audio.playout import HOLDING
from gw.call.dialogue import commands as do
from gw.call.dialogue import inputs as given
from gw.call.dialogue import machine
from gw.call.dialogue.commands import Command
from gw.call.dialogue.facts import NEVER
from gw.call.dialogue.inputs import Trouble
from gw.call.state import Reason, Result, State
from gw.config import Agent, Transfer, Turns
from gw.media.ai.leg import AiLegError
from gw.media.ai_in import AiIn
from gw.media.ai_side import SEND_BATCH
from gw.media.call import Call
from gw.media.conversation import dialogue
from gw.media.conversation.dialogue import _ACTS, _NOTES, DEAD_AIR_MS
from gw.media.conversation.tools import _OUTPUTS
from gw.protocol import ai
from tests.gw.media.support import ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer, until


class Rig:
    """A call with a ready AI leg in memory, and the dialogue's greenlet."""

    def __init__(self, contexts: ContextMaker, *, signed: bool = False, **agent: Any) -> None:
        media = {"ai_stall_s": 0.3, "ai_answer_s": 0.5, "goodbye_s": 1.0}
        self.context, self.emitted = contexts.context(media=media, signed=signed)
        self.transport, self.peer = transport_and_peer()
        self.call = call_of(self.context, Agent(**{"provider": "openai", "greeting": "", **agent}), self.transport)
        self.call.ai._new_leg = FakeLeg
        self.leg = FakeLeg()
        put_in_place(self.call, self.leg)
        self.call.dialogue.on(given.SessionReady())
        self.leg.sent.clear()
        self.ai_in = AiIn(self.call)
        self.greenlet = gevent.spawn(self.call.dialogue.run)

    def receive(self, *events: ai.AiEvent) -> None:
        self.ai_in._dispatch(list(events), self.call.ai.number)

    def speak(self, response_id: str = "r1", ms: int = 200) -> None:
        audio = ai.AudioDelta(response_id, f"i-{response_id}", bytes(8 * ms))
        self.receive(ai.ResponseStarted(response_id), audio, ai.ResponseDone(response_id, "completed", ""))

    def notes(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.emitted if isinstance(event, bus.CallEvent) and event.kind == kind]

    def close(self) -> None:
        self.call.dialogue.stop()
        self.greenlet.kill()
        self.transport.shut()
        self.peer.close()


@pytest.fixture
def rig(contexts: ContextMaker) -> Iterator[Rig]:
    made = Rig(contexts)
    yield made
    made.close()


def commands() -> set[type]:
    return set(Command.__args__)


def test_every_command_has_an_act() -> None:
    assert set(_ACTS) == commands()


def test_every_note_and_output_of_the_machine_has_words() -> None:
    parts = (path for path in Path(machine.__file__).parent.glob("*.py") if path.stem not in ("commands", "inputs"))
    source = "".join(path.read_text() for path in parts)
    assert all(f'Note("{name}"' in source for name in _NOTES)
    assert source.count("do.Note(") == sum(source.count(f'do.Note("{name}"') for name in _NOTES)
    assert all(f'"{result}"' in source for result in _OUTPUTS)
    assert set(_OUTPUTS) == set(get_args(do.ToolOutcome)) - {"settled", "started", "yielded"}


def test_keys_are_sent_together_and_answered_and_noted_without_their_digits(rig: Rig) -> None:
    for digit in "123#":
        rig.call.on_key(digit)
    assert rig.leg.sent == [("send_keys", "123"), ("create_response",)]
    assert rig.notes("keys") == [{"count": 1}] * 4


def test_an_answer_that_fails_is_requested_again_until_the_ai_is_given_up(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    for n in range(3):
        rig.receive(ai.ResponseStarted(f"r{n}"), ai.ResponseDone(f"r{n}", "failed", "server error", "passing"))
        if n < 2:
            until(lambda n=n: len(rig.leg.of("create_response")) == n + 1)
    assert rig.call.state.reason is Reason.FALLBACK_GOODBYE
    assert rig.call.ending.detail == "ai_no_answer: server error"
    assert [len(rig.notes(kind)) for kind in ("answer_failed", "response_failed", "fallback")] == [2, 3, 1]


def test_a_lasting_error_ends_with_the_fallback_immediately(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "failed", "no money", "lasting"))
    assert rig.call.ending.detail == "ai_refused: no money"
    assert rig.leg.of("create_response") == []


def test_a_sentence_that_is_heard_after_the_ai_was_given_up_keeps_its_share(rig: Rig) -> None:
    call = rig.call
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)))
    while call.downlink.playout.pop() is not None:
        call.downlink.pacer.deadline(monotonic())
        call.downlink.pacer.on_sent(monotonic())
    call.dialogue.machine.attempts = 2
    until(lambda: rig.notes("fallback"), "the response goes silent for the third time")
    rig.receive(ai.AgentTranscript("r1", "i1", "a long answer"))
    call.end(Reason.CALLER_HANGUP)
    call.report_end()
    (turn,) = [event for event in rig.emitted if isinstance(event, bus.Turn)]
    assert (turn.text, turn.heard_ms) == ("a long answer", 200)


@pytest.mark.parametrize("end", ["returns", "speaks"])
def test_a_transfer_that_waits_for_its_words_is_known_to_the_next_session(contexts: ContextMaker, end: str) -> None:
    """Its output comes to that session: an AI refuses the output of a call that its conversation lacks."""
    agent = {"tools": ("hang_up", "transfer"), "transfer": Transfer(targets={"sales": "+15550100"})}
    rig = Rig(contexts, **agent)
    try:
        wish = ai.ToolCall("r1", "i2", "call_1", "transfer", '{"target":"sales"}')
        rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(8 * 200)), wish)
        rig.receive(ai.ResponseDone("r1", "completed", ""))
        rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
        rig.call.dialogue.on(given.SessionReady())
        leg = rig.call.ai.leg
        assert isinstance(leg, FakeLeg)
        assert leg is not rig.leg
        assert leg.of("state_call") == [("call_1", "transfer", '{"target":"sales"}')]
        assert leg.of("tool_output") == []
        if end == "speaks":
            rig.receive(ai.SpeechStarted("c1", 0))
            assert leg.of("tool_output") == [("call_1", _OUTPUTS["cancelled"][1])]
        else:
            rig.call.dialogue.on(given.HeardOut())
            assert len(rig.notes("leaving")) == 1
    finally:
        rig.close()


def test_an_ai_that_closes_while_the_caller_is_transferred_is_left(contexts: ContextMaker) -> None:
    """A read of a closed leg fails without a wait: AI-in would never give the hub back."""
    rig = Rig(contexts, signed=True, fallback="transfer", transfer_to="+15550100")
    reads: list[Reason | None] = []

    def read() -> list[ai.AiEvent]:
        reads.append(rig.call.state.reason)
        if len(reads) > 9:
            rig.call.ending.end(Reason.INTERNAL_ERROR)
        raise AiLegError(Reason.AI_CLOSED, "closed with 1000")

    try:
        rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
        rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "failed", "no money", "lasting"))
        assert len(rig.notes("transfer_wanted")) == 1
        rig.leg.read = read
        rig.ai_in.run()
        assert reads == [None]
        assert rig.call.state.reason is None
    finally:
        rig.close()


def test_a_goodbye_that_the_caller_interrupts_is_taken_back(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(8000)))
    rig.receive(ai.ToolCall("r1", "i2", "call_1", "hang_up", "{}"), ai.ResponseDone("r1", "completed", ""))
    assert rig.call.state.now is State.CLOSING
    rig.receive(ai.SpeechStarted("c1", 0))
    assert rig.call.state.now is State.ACTIVE
    assert rig.call.downlink.playout.is_empty
    assert rig.notes("goodbye_taken_back") == [{}]


def test_a_goodbye_that_is_heard_ends_the_call(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(160)))
    rig.receive(ai.ToolCall("r1", "i2", "call_1", "hang_up", "{}"), ai.ResponseDone("r1", "completed", ""))
    rig.call.downlink.playout.clear(0)
    rig.call.check(monotonic())
    assert rig.call.state.reason is Reason.AI_HANGUP
    assert rig.call.ending.result is Result.SUCCESS


def test_a_stall_of_the_process_does_not_end_a_goodbye_that_is_still_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(16_000)))
    rig.receive(ai.ToolCall("r1", "i2", "call_1", "hang_up", "{}"), ai.ResponseDone("r1", "completed", ""))
    machine, now_ms = rig.call.dialogue.machine, dialogue._now_ms
    monkeypatch.setattr(dialogue, "_now_ms", lambda: now_ms() + 5000)
    bound_ms = machine.heard_by
    rig.call.dialogue._alarm.set()
    until(lambda: machine.heard_by != bound_ms)
    assert machine.plays
    assert not rig.call.state.has_ended


def test_a_lost_session_is_replaced_and_receives_the_conversation(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"), ai.CallerTranscript("c1", "What time is it?"))
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
    assert rig.call.state.now is State.CONNECTING
    assert rig.notes("ai_leg_lost") == [{"reason": "ai_lost", "detail": "the socket broke"}]
    leg: Any = rig.call.ai.leg
    assert leg is not rig.leg
    rig.call.dialogue.on(given.SessionReady())
    assert rig.call.state.now is State.ACTIVE
    assert leg.of("say")[0][:2] == ("caller", "What time is it?")
    until(lambda: leg.of("create_response"), "the answer is owed by the new session")
    assert rig.notes("ai_leg_replaced") == [{"reason": "lost"}]
    assert rig.context.cells.reconnects["lost"].value == 1


def test_a_response_that_goes_silent_costs_the_session(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(160)))
    until(lambda: rig.call.state.now is State.CONNECTING)
    assert rig.notes("ai_leg_lost")[0]["reason"] == "ai_stalled"


def test_arguments_of_a_tool_call_are_a_sign_of_life(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(160)))
    for _ in range(10):
        gevent.sleep(0.05)
        rig.receive(ai.ResponseAlive("r1"))
    assert rig.call.state.now is State.ACTIVE


@pytest.mark.parametrize("reason", [Reason.PHONE_LOST, Reason.ADMIN_HANGUP, Reason.SHUTDOWN, Reason.INTERNAL_ERROR])
def test_an_end_from_outside_keeps_its_reason(rig: Rig, reason: Reason) -> None:
    rig.call.end(reason, "why")
    assert (rig.call.state.reason, rig.call.ending.detail) == (reason, "why")


def test_words_that_a_stall_in_their_middle_delayed_are_not_over_at_their_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialogue's timer was not late: a goodbye lost its end after stalls of more than two seconds together."""
    rig.speak(ms=2000)
    machine = rig.call.dialogue.machine
    heard_by = machine.heard_by
    monkeypatch.setattr(dialogue, "_now_ms", lambda: heard_by + 1)
    rig.call.dialogue._alarm.set()
    until(lambda: machine.heard_by != heard_by)
    assert machine.plays
    assert machine.heard_by > heard_by + 1500


def test_an_interruption_cuts_and_truncates(rig: Rig) -> None:
    rig.speak(ms=1000)
    rig.receive(ai.AgentTranscript("r1", "i-r1", "a long answer"), ai.SpeechStarted("c1", 40))
    assert rig.leg.of("truncate") == [("i-r1", 0)]
    assert rig.call.downlink.playout.is_empty
    (turn,) = [event for event in rig.emitted if isinstance(event, bus.Turn)]
    assert (turn.text, turn.interrupted, turn.heard_ms) == ("a long answer", True, 0)


def test_an_interruption_that_is_judged_holds_the_audio_and_resumes_it(contexts: ContextMaker) -> None:
    rig = Rig(contexts, turns=Turns(interruptions="gateway"))
    try:
        rig.speak(ms=2000)
        queued_s = rig.call.downlink.queued_s(monotonic())
        rig.receive(ai.SpeechStarted("c1", 40))
        assert rig.call.downlink.tx.held
        rig.receive(ai.SpeechStopped("c1"))
        assert not rig.call.downlink.tx.held
        rig.receive(ai.CallerTranscript("c1", "Mm-hmm."))
        assert rig.leg.of("delete_item") == ["c1"]
        assert rig.context.cells.interruptions["resumed"].value == 1
        assert rig.call.downlink.queued_s(monotonic()) >= queued_s - 0.1
    finally:
        rig.close()


def test_words_judged_as_an_interruption_cut_and_are_answered(contexts: ContextMaker) -> None:
    rig = Rig(contexts, turns=Turns(interruptions="gateway"))
    try:
        rig.speak(ms=2000)
        rig.receive(ai.SpeechStarted("c1", 40), ai.SpeechStopped("c1"), ai.CallerTranscript("c1", "Wait."))
        assert rig.call.downlink.playout.is_empty
        assert rig.leg.sent[-2:] == [("truncate", "i-r1", 0), ("create_response",)]
    finally:
        rig.close()


def test_silence_before_an_owed_answer_is_noted_and_no_success(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = [dialogue._now_ms()]
    monkeypatch.setattr(dialogue, "_now_ms", lambda: now_ms[0])
    rig.context.holding = b""
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    now_ms[0] += DEAD_AIR_MS + 100
    rig.speak()
    assert rig.notes("dead_air") == [{"ms": DEAD_AIR_MS + 100}]
    rig.call.end(Reason.CALLER_HANGUP)
    assert rig.call.ending.result is Result.PEER_ERROR


def send_frames(call: Call) -> None:
    """Send all whole frames that are queued."""
    while call.downlink.playout.pop() is not None:
        if call.downlink.playout.cut_frames > call.downlink.pacer.sent_frames:
            call.downlink.pacer.deadline(monotonic())
            call.downlink.pacer.on_sent(monotonic())


def test_a_response_that_falls_silent_is_bridged(rig: Rig) -> None:
    """A part of a frame is left in the playout: nothing that a caller hears."""
    call = rig.call
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600 + 100)))
    call.check(monotonic() + 1.0)
    assert call.dialogue.machine.is_heard, "frames are left to send"
    send_frames(call)
    call.check(monotonic())
    assert call.dialogue.machine.is_heard, "Twilio plays them"
    call.check(monotonic() + 1.0)
    assert call.dialogue.machine.plays
    assert not call.dialogue.machine.is_heard
    assert call.dialogue.machine.hold_at != NEVER


def test_a_late_mark_leaves_no_caller_in_silence(rig: Rig) -> None:
    """Twilio does not report yet that the words of a lost session are heard."""
    call, facts = rig.call, rig.call.dialogue.machine
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)))
    call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
    call.check(monotonic() + 1.0)
    assert facts.is_heard, "frames are left to send"
    send_frames(call)
    call.check(monotonic() + 1.0)
    assert call.downlink.playout.marks_pending
    assert (facts.plays, facts.is_heard) == (True, False)
    assert facts.hold_at <= facts.now + facts.rules.hold_after_ms


def test_an_item_that_fell_silent_is_truncated_though_the_holding_sound_followed_it(rig: Rig) -> None:
    call = rig.call
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)))
    call.downlink.play(HOLDING, HOLDING, bytes(1600))
    send_frames(call)
    call.downlink.pacer.on_echo(10, monotonic())
    call.on_mark_echo("g0r1")
    rig.receive(ai.SpeechStarted("c1", 0), ai.AgentTranscript("r1", "i1", "a long answer"))
    assert rig.leg.of("truncate") == [("i1", 200)]
    (turn,) = [event for event in rig.emitted if isinstance(event, bus.Turn)]
    assert (turn.interrupted, turn.heard_ms) == (True, 200)


def test_a_rate_limit_is_waited_for(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.call.dialogue.on(given.CreateRefused(Trouble.RATE_LIMIT, 4000))
    machine = rig.call.dialogue.machine
    assert 3500 < machine.wait_by - dialogue._now_ms() <= 4000


def test_the_greenlet_ends_with_the_call(rig: Rig) -> None:
    rig.call.end(Reason.CALLER_HANGUP)
    rig.call.dialogue.stop()
    rig.greenlet.join(5.0)
    assert rig.greenlet.successful()


def test_the_holding_sound_continues_over_a_new_session_until_the_answer_sounds(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
    rig.call.dialogue._carry_out([do.HoldSound(True)])
    rig.call.dialogue.machine.holds_sound = True
    rig.call.dialogue.on(given.SessionReady())
    assert rig.call.dialogue._hold_sound._player is not None
    rig.receive(ai.ResponseStarted("r2"), ai.AudioDelta("r2", "i2", bytes(160)))
    assert rig.call.dialogue._hold_sound._player is None


def test_a_failure_of_what_is_sent_later_ends_the_call(rig: Rig) -> None:
    """A greenlet of the AI side that dies must not leave a call whose AI receives nothing more."""
    side = rig.call.ai
    side._waiting.extend([side._start_uplink] * SEND_BATCH)

    def fail() -> None:
        raise RuntimeError("a defect")

    side._waiting.append(fail)
    side._spawn(side._send_waiting)
    until(lambda: rig.call.state.has_ended)
    assert (rig.call.state.reason, rig.call.ending.detail) == (Reason.INTERNAL_ERROR, "ai_in: RuntimeError: a defect")


def test_the_wait_for_an_answer_is_reported_once_with_its_parts(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(800)))
    rig.call.dialogue.check_heard(monotonic())
    assert rig.notes("answered") == [], "no frame has left"
    for _ in range(2):
        rig.call.downlink.playout.pop()
        rig.call.downlink.pacer.deadline(monotonic())
        rig.call.downlink.pacer.on_sent(monotonic())
        rig.call.dialogue.check_heard(monotonic())
    (wait,) = rig.notes("answered")
    assert (wait["item"], wait["agent"], wait["pause_ms"]) == ("i1", "default", 500)
    assert wait["ms"] == sum(wait[f"{part}_ms"] for part in ("pause", "ai", "tool", "gateway")) >= 500


def test_an_interruption_right_after_the_first_frame_loses_no_wait(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(800)))
    rig.call.downlink.playout.pop()
    rig.call.downlink.pacer.deadline(monotonic())
    rig.call.downlink.pacer.on_sent(monotonic())
    rig.receive(ai.SpeechStarted("c2", 0))
    assert len(rig.notes("answered")) == 1


@pytest.mark.parametrize(
    ("agent", "pause_ms"),
    [
        ({}, 500),
        ({"turns": Turns(silence_ms=300)}, 300),
        ({"turns": Turns(detection="semantic_vad")}, 0),
        ({"provider": "parrot", "turns": Turns(silence_ms=300)}, 500),
    ],
)
def test_the_pause_of_the_voice_detection_is_part_of_the_wait(
    contexts: ContextMaker, agent: dict[str, Any], pause_ms: int
) -> None:
    rig = Rig(contexts, **agent)
    rig.receive(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(800)))
    rig.call.downlink.pacer.deadline(monotonic())
    rig.call.downlink.pacer.on_sent(monotonic())
    rig.call.dialogue.check_heard(monotonic())
    assert [wait["pause_ms"] for wait in rig.notes("answered")] == [pause_ms]
    rig.close()
