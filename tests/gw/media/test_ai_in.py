"""gw.media.ai_in: legs are served one after another, each event reaches its part, each failure is the call's one reason."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any, get_args

import gevent
import pytest
from gevent import socket

from gw import bus
from gw.call.audio.playout import HOLDING, ResponseMark
from gw.call.dialogue import inputs as given
from gw.call.dialogue.facts import NEVER, Response
from gw.call.dialogue.inputs import Trouble
from gw.call.limits import EVENTS
from gw.call.state import Reason, State
from gw.config import Agent
from gw.media import call_events
from gw.media.ai.leg import AiLegError
from gw.media.ai.warm import WarmLeg
from gw.media.ai_in import _HANDLERS, AiIn
from gw.media.call import Call
from gw.media.hub.clock import turn_loop
from gw.protocol import ai, openai_realtime
from gw.protocol.audio import FRAME_BYTES
from gw.twin.ai.script import AiScript, Fault
from gw.twin.ai.server import AiTwin
from tests.gw.media.support import (
    EARLY_AUDIO,
    WAIT_S,
    ContextMaker,
    FakeLeg,
    call_of,
    put_in_place,
    transport_and_peer,
    until,
    upgrade_and_send,
)


class Rig:
    """A call with AI-in and a leg in memory that is ready, no greenlet running."""

    def __init__(self, contexts: ContextMaker, **agent: Any) -> None:
        self.context, self.emitted = contexts.context()
        self.transport, self.peer = transport_and_peer()
        self.call: Call = call_of(self.context, Agent(**{"greeting": "", **agent}), self.transport)
        self.leg = FakeLeg()
        put_in_place(self.call, self.leg)
        self.ai_in = AiIn(self.call)
        self.receive(ai.SessionCreated(0.0), ai.SessionReady())
        self.leg.sent.clear()

    def receive(self, *events: ai.AiEvent) -> None:
        self.ai_in._dispatch(list(events), self.call.ai.number)

    def notes(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.emitted if isinstance(event, bus.CallEvent) and event.kind == kind]

    def turns(self) -> list[tuple[str, str, bool]]:
        return [(turn.role, turn.text, turn.interrupted) for turn in self.emitted if isinstance(turn, bus.Turn)]


@pytest.fixture
def rig(contexts: ContextMaker):
    rig = Rig(contexts)
    yield rig
    rig.transport.shut()
    rig.peer.close()


def test_many_events_of_one_read_let_others_run_between_them(rig: Rig) -> None:
    turns: list[int] = []
    ticking = gevent.spawn(lambda: [(turns.append(len(rig.leg.sent)), turn_loop()) for _ in range(10)])
    rig.receive(*[ai.ResponseAlive("") for _ in range(5)])
    assert not turns, "few events are one slice"
    rig.receive(*[ai.ResponseAlive("") for _ in range(33)])
    assert len(turns) >= 4
    ticking.kill()


def test_every_event_but_ignored_has_a_handler() -> None:
    assert set(_HANDLERS) == set(get_args(ai.AiEvent)) - {ai.Ignored}


def test_audio_reaches_the_playout(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(400)))
    assert rig.call.downlink.playout.depth_bytes == 400
    assert rig.call.dialogue.machine.response is Response.ACTIVE
    assert rig.call.ai.first_audio_ms >= 0


def test_the_wait_for_the_first_word_begins_with_the_ai_s_own_response_and_ends_behind_the_holding_sound(rig: Rig) -> None:
    """Without a greeting: ten seconds of silence of the caller's are not the AI's, and the holding sound is not its voice."""
    call, started_s = rig.call, monotonic() - 10.0
    call.events.started_s = started_s
    call.downlink.play(HOLDING, HOLDING, bytes(5 * FRAME_BYTES))
    call.downlink.tx.first_audio_sent, call.downlink.tx.first_audio_s = True, started_s + 0.1
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(400)), ai.AudioDelta("r1", "i1", bytes(400)))
    assert 100 <= call.first_word_ms < 5000
    assert sum(rig.context.cells.first_audio.buckets) == 1


def test_audio_behind_its_responses_end_is_heard_and_leaves_nothing_open(rig: Rig) -> None:
    rig.receive(
        ai.ResponseStarted("r1"),
        ai.AudioDelta("r1", "i1", bytes(400)),
        ai.ResponseDone("r1", "completed", ""),
        ai.AudioDelta("r1", "i1", bytes(100)),
    )
    playout = rig.call.downlink.playout
    pieces = [playout.pop() for _ in range(6)]
    assert [type(piece) for piece in pieces] == [bytes, bytes, bytes, ResponseMark, bytes, ResponseMark]
    assert playout.is_empty, "a hang-up would otherwise wait for an end that no event reports"


def test_audio_without_a_response_is_that_of_the_response_under_way(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("", "i1", bytes(400)), ai.ResponseDone("", "completed", ""))
    assert (rig.call.dialogue.machine.debt, rig.call.dialogue.machine.response) == (None, Response.NONE)


def test_late_audio_of_a_cut_response_is_dropped_and_each_item_truncated_once(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)), ai.SpeechStarted("c1", 10))
    assert rig.leg.of("truncate") == [("i1", 0)]
    rig.receive(ai.AudioDelta("r1", "i1", bytes(1600)), ai.AudioDelta("r1", "i2", bytes(1600)), ai.AudioDelta("r1", "i2", b"x"))
    assert rig.leg.of("truncate") == [("i1", 0), ("i2", 0)]
    assert rig.call.downlink.playout.is_empty


def test_the_end_of_a_turn_whose_start_was_ignored_is_ignored_too(rig: Rig) -> None:
    while rig.call.events.may_emit("interruption"):
        pass
    rig.receive(ai.SpeechStarted("c1", 10), ai.SpeechStopped("c1"))
    assert rig.call.dialogue.machine.debt is None
    rig.receive(ai.SpeechStopped("c2"))
    assert rig.call.dialogue.machine.debt is not None


def test_a_late_transcript_of_a_cut_response_is_an_interrupted_turn(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)), ai.SpeechStarted("c1", 10))
    rig.receive(ai.AgentTranscript("r1", "i2", "never heard"), ai.AgentTranscript("r1", "i1", "cut"))
    assert rig.turns() == [("agent", "never heard", True), ("agent", "cut", True)]


def test_words_of_both_sides_become_turns(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 10), ai.SpeechStopped("c1"), ai.CallerTranscript("c1", "Hello?"))
    rig.receive(ai.AudioDelta("r1", "i1", b"x"), ai.AgentTranscriptDelta("r1", "i1", "Good "))
    rig.call.end(Reason.CALLER_HANGUP)
    rig.call.report_end()
    assert rig.turns() == [("caller", "Hello?", False), ("agent", "Good ", True)]


def test_a_failed_transcription_keeps_the_turn_and_is_noted_once(rig: Rig) -> None:
    for n in (1, 2):
        rig.receive(ai.SpeechStarted(f"c{n}", n), ai.CallerTranscriptFailed(f"c{n}", "model_not_found", "No access."))
    assert rig.turns() == [("caller", "", False)] * 2
    assert rig.notes("transcription_failed") == [{"code": "model_not_found", "message": "No access."}]


def test_tokens_are_counted_for_their_model_and_for_the_minute(rig: Rig) -> None:
    agent, minute = rig.call.agent, rig.call.context.token_minutes[rig.call.agent.model]
    rig.receive(ai.TokenLimit(1000, 40, 3600.0))
    rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "failed", "", "passing", tokens=ai.Tokens(audio_out=50)))
    rig.receive(ai.SpeechStarted("u1", 0), ai.SpeechStopped("u1"), ai.CallerTranscript("u1", "Hi.", ai.Tokens(text_out=3)))
    used = {one.model: (one.audio_out, one.text_out) for one in rig.call.spending.used()}
    assert used == {agent.model: (50, 0), agent.transcription_model: (0, 3)}
    assert not minute.carries_one_more(monotonic()), "40 are left, and a call takes 50: the transcription has its own limit"


def test_an_unknown_tool_is_answered_and_the_ai_asked_again(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.ToolCall("r1", "i1", "call_1", "order_pizza", "{}"))
    rig.receive(ai.ResponseDone("r1", "completed", ""))
    ((call_id, output),) = rig.leg.of("tool_output")
    assert (call_id, json.loads(output)["error"]) == ("call_1", "invalid_arguments")
    assert rig.leg.sent[-1] == ("create_response",)
    assert rig.notes("tool_call") == [{"name": "order_pizza", "id": "call_1", "item": "i1"}]
    (note,) = rig.notes("tool_called")
    assert (note["tool"], note["status"]) == ("order_pizza", "invalid_arguments")


def test_the_hang_up_tool_closes_the_call(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.ToolCall("r1", "i1", "call_1", "hang_up", "{}"))
    assert rig.leg.sent == [("tool_output", "call_1", '{"ok": true}')]
    assert rig.call.state.now is State.CLOSING


def test_events_behind_the_end_of_the_call_are_dropped(rig: Rig) -> None:
    rig.call.end(Reason.CALLER_HANGUP)
    rig.receive(ai.AudioDelta("r1", "i1", bytes(400)))
    assert rig.call.downlink.playout.is_empty


def test_events_of_a_leg_that_was_replaced_are_dropped(rig: Rig) -> None:
    number = rig.call.ai.number
    put_in_place(rig.call, FakeLeg())
    rig.ai_in._dispatch([ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(400))], number)
    assert rig.call.downlink.playout.is_empty


def test_events_of_a_leg_that_was_given_up_are_dropped_and_do_not_explain_the_end(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(4000)))
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_REFUSED, Trouble.LASTING), "no money", is_expired=False)
    rig.receive(ai.AudioDelta("r1", "i1", bytes(400)))
    assert rig.context.cells.ai_errors["unreadable"].value == 0
    rig.call.end(Reason.CALLER_HANGUP)
    assert rig.call.ending.detail == "ai_refused: no money; then caller_hangup"


def test_a_response_that_fails_is_noted_and_requested_again_later(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "failed", "server error", "passing"))
    assert rig.notes("response_failed") == [{"response": "r1", "detail": "server error"}]
    assert rig.leg.of("create_response") == []
    assert rig.call.dialogue.machine.ask_at < NEVER


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (ai.AiError("session_expired", "an hour", True, "passing", 0, ""), "ai_refused"),
        (ai.AiError("insufficient_quota", "no money", True, "lasting", 0, ""), "ai_refused"),
        (ai.AiError("odd", "no such voice", False, "passing", 0, "session"), "ai_refused"),
    ],
)
def test_an_error_that_ends_the_session(rig: Rig, event: ai.AiError, reason: str) -> None:
    number = rig.call.ai.number
    rig.receive(event)
    (lost,) = rig.notes("ai_leg_lost")
    assert lost == {"reason": reason, "detail": f"{event.code}: {event.message}"}
    is_lasting = event.trouble == "lasting"
    assert (rig.call.ai.number == number, rig.call.state.now is State.CONNECTING) == (is_lasting, not is_lasting)


def test_a_rate_limit_keeps_the_session(rig: Rig) -> None:
    number = rig.call.ai.number
    rig.receive(ai.AiError("rate_limit_exceeded", "try again in 4s", False, "rate_limit", 4000, "response"))
    rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "failed", "try again", "rate_limit", 4000))
    assert rig.call.ai.number == number
    assert rig.call.state.now is State.ACTIVE


def test_an_error_that_ends_nothing_is_noted_and_a_benign_one_is_not(rig: Rig) -> None:
    rig.receive(
        ai.AiError("busy", "under way", False, "crossed", 0, ""), ai.AiError("odd", "never mind", False, "passing", 0, "")
    )
    assert rig.notes("ai_error") == [{"code": "odd", "message": "never mind", "fatal": False}]


def test_an_unreadable_event_is_counted_and_the_first_of_a_session_noted(rig: Rig) -> None:
    rig.receive(ai.Unreadable("bad_json", "cut"), ai.Unreadable("bad_type", "a number"))
    assert len(rig.notes("ai_unreadable")) == 1
    assert rig.context.cells.ai_errors["unreadable"].value == 2
    assert rig.call.state.now is State.ACTIVE
    rig.receive(*[ai.Unreadable("bad_type", "a number")] * 3)
    assert rig.call.state.now is State.CONNECTING, "five in ten seconds"
    assert rig.notes("ai_leg_lost") == [{"reason": "ai_bad_type", "detail": "a number"}]


# -- legs of other kinds ----------------------------------------------------------------------------------------------

CONNECT_REASONS: dict[Fault, Reason] = {
    "refuse_401": Reason.AI_REFUSED,
    "refuse_403": Reason.AI_REFUSED,
    "refuse_500": Reason.AI_REFUSED,
    "mute": Reason.AI_TIMEOUT,
    "silent": Reason.AI_TIMEOUT,
    "never_ready": Reason.AI_TIMEOUT,
    "close_first": Reason.AI_CLOSED,
    "wrong_format": Reason.AI_WRONG_FORMAT,
    "beta_names": Reason.AI_WRONG_FORMAT,
    "update_refused": Reason.AI_REFUSED,
}


@pytest.mark.parametrize(("fault", "reason"), CONNECT_REASONS.items())
def test_an_ai_that_never_gets_ready_ends_the_call_with_its_reason(contexts: ContextMaker, fault: Fault, reason: Reason):
    with AiTwin(AiScript(fault=fault)) as twin:
        agent = Agent(provider="openai", base_url=twin.url, greeting="", goodbye="")
        context, emitted = contexts.context(media={"ai_connect_s": 0.3, "ai_reconnect_s": 0.0}, agents={"default": agent})
        transport, peer = transport_and_peer()
        call = call_of(context, agent, transport)
        running = [gevent.spawn(AiIn(call).run), gevent.spawn(call.dialogue.run)]
        gevent.joinall(running, timeout=WAIT_S)
        assert [one.successful() for one in running] == [True, True]
        assert (call.state.now, call.state.reason) == (State.ENDED, reason)
        assert call.ending.detail
        call.ai.leg.close()
        transport.shut()
        peer.close()
        assert emitted, "the start was reported"


def test_ai_in_ends_with_its_call(contexts: ContextMaker):
    with AiTwin(AiScript()) as twin:
        agent = Agent(provider="openai", base_url=twin.url, greeting="")
        context, _ = contexts.context(agents={"default": agent})
        transport, peer = transport_and_peer()
        call = call_of(context, agent, transport)
        running = gevent.spawn(AiIn(call).run)
        until(lambda: call.state.now is State.ACTIVE)
        call.end(Reason.CALLER_HANGUP)
        call.ai.leg.wake()
        running.join(timeout=WAIT_S)
        assert running.successful()
        assert call.state.reason is Reason.CALLER_HANGUP
        call.ai.leg.close()
        transport.shut()
        peer.close()


def test_audio_before_the_format_is_confirmed_is_not_played(contexts: ContextMaker):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    answered = gevent.spawn(upgrade_and_send, listener, EARLY_AUDIO)
    agent = Agent(provider="openai", base_url=f"ws://127.0.0.1:{listener.getsockname()[1]}/", greeting="", goodbye="")
    context, _ = contexts.context(agents={"default": agent})
    transport, peer = transport_and_peer()
    call = call_of(context, agent, transport)
    running = gevent.spawn(AiIn(call).run)
    until(lambda: call.context.cells.ai_errors["unreadable"].value, "the audio was not seen")
    assert call.downlink.playout.expected_frames == 0
    call.end(Reason.CALLER_HANGUP)
    call.ai.leg.wake()
    running.join(timeout=WAIT_S)
    assert running.successful()
    answered.kill()
    call.ai.leg.close()
    transport.shut()
    peer.close()
    listener.close()


# -- an AI that sends too much ----------------------------------------------------------------------------------------


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the limits, which refill with time."""
    monkeypatch.setattr(call_events, "monotonic", lambda: 1000.0)


@pytest.mark.usefixtures("stopped_clock")
def test_errors_of_the_ai_are_limited_in_log_and_notes(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.receive(*[ai.AiError("odd", "message", False, "passing", 0, "")] * 50)
    assert len(rig.notes("ai_error")) == 5
    assert len([record for record in caplog.records if "the AI reports" in record.message]) == 5
    assert rig.context.cells.ai_errors["error"].value == 50


@pytest.mark.usefixtures("stopped_clock")
def test_notes_of_tool_calls_are_limited(rig: Rig) -> None:
    rig.receive(*[ai.ToolCall("r1", "item", f"call-{n}", "other", "{}") for n in range(EVENTS[1] + 50)])
    assert len(rig.notes("tool_call")) == EVENTS[1]
    assert len(rig.leg.of("tool_output")) == EVENTS[1] + 50, "each has its one output"


@pytest.mark.usefixtures("stopped_clock")
def test_a_storm_of_interruptions_is_limited(rig: Rig) -> None:
    for n in range(60):
        rig.receive(ai.ResponseStarted(f"r{n}"), ai.AudioDelta(f"r{n}", f"i{n}", bytes(1600)), ai.SpeechStarted(f"u{n}", 0))
        rig.receive(ai.ResponseDone(f"r{n}", "cancelled", ""), ai.SpeechStopped(f"u{n}"))
    assert rig.call.downlink.interruptions == 10
    assert rig.context.cells.surplus["interruption"].value == 50
    assert rig.notes("surplus")[0] == {"of": "interruption"}


# -- a leg that is lost while the call is closing ---------------------------------------------------------------------


class LostLeg(FakeLeg):
    """A leg in memory that is over. Reading it again and again would hold the hub, so that fails the test."""

    reads = 0

    def read(self) -> list[ai.AiEvent]:
        self.reads += 1
        assert self.reads < 10, "a leg that is over is read again"
        return super().read()


def say_goodbye(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(16000)))
    rig.receive(ai.ToolCall("r1", "i2", "call_1", "hang_up", "{}"), ai.ResponseDone("r1", "completed", ""))
    assert rig.call.state.now is State.CLOSING


def run_with(rig: Rig, leg: FakeLeg) -> None:
    rig.call.ai.leg = leg
    running = gevent.spawn(rig.ai_in.run)
    running.join(timeout=WAIT_S)
    assert running.successful()


def test_a_leg_that_breaks_in_the_goodbye_is_not_read_again_and_the_goodbye_is_heard(rig: Rig) -> None:
    say_goodbye(rig)
    run_with(rig, LostLeg(error=AiLegError(Reason.AI_LOST, "the socket broke")))
    assert rig.call.state.now is State.CLOSING
    assert rig.call.downlink.playout.depth_bytes == 16000
    assert len(rig.notes("ai_leg_lost")) == 1


def test_a_session_that_the_ai_ends_in_the_goodbye_is_closed(rig: Rig) -> None:
    say_goodbye(rig)
    leg = LostLeg(ai.AiError("session_expired", "an hour", True, "passing", 0, ""))
    run_with(rig, leg)
    assert rig.call.state.now is State.CLOSING
    gevent.sleep(0)
    assert ("close",) in leg.sent


def test_an_attempt_that_fails_after_the_end_was_decided_is_the_last(contexts: ContextMaker) -> None:
    rig = Rig(contexts)
    say_goodbye(rig)
    rig.call.dialogue.machine.is_ready = False  # the limit came while a session was being opened
    leg = LostLeg()
    leg.connect_error = AiLegError(Reason.AI_UNREACHABLE, "no route")
    rig.call.ai.open_s = 0.0
    run_with(rig, leg)
    assert leg.reads == 0
    rig.transport.shut()
    rig.peer.close()


def test_a_leg_that_is_replaced_in_its_pause_is_not_opened(rig: Rig) -> None:
    opened: list[str] = []
    legs = {name: FakeLeg() for name in ("first", "second")}
    for name, leg in legs.items():
        leg.connect = lambda name=name: opened.append(name)  # type: ignore[method-assign]
    rig.call.ai.leg = legs["first"]
    rig.call.ai.open_s = monotonic() + 0.05
    running = gevent.spawn(rig.ai_in.run)
    gevent.sleep(0)
    rig.call.ai._new_leg = lambda: legs["second"]
    rig.call.ai.reopen(monotonic() + 0.1)
    until(lambda: opened)
    gevent.sleep(0.1)
    assert opened == ["second"]
    rig.call.end(Reason.CALLER_HANGUP)
    rig.call.ai.leg.wake()
    running.join(timeout=WAIT_S)


@pytest.mark.parametrize("outcome", ["confirmed", "late"])
@pytest.mark.parametrize("then", ["replaced", "given up"])
def test_a_leg_opened_in_advance_is_not_used_if_another_took_its_place_meanwhile(
    contexts: ContextMaker, outcome: str, then: str
) -> None:
    """The dialogue's deadline comes while AI-in waits for the greenlet that has the leg."""
    context, _ = contexts.context()
    transport, peer = transport_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    warm = WarmLeg(call.agent, FakeLeg(), WAIT_S, lambda outcome: None)
    call.ai.leg, call.ai.warm, call.ai._new_leg = warm.leg, warm, FakeLeg
    gevent.sleep(0)
    opening = gevent.spawn(AiIn(call)._open)
    gevent.sleep(0)
    if then == "replaced":
        call.ai.reopen(monotonic() + 60.0)
    else:
        call.ai.give_up()
    leg, open_s = call.ai.leg, call.ai.open_s
    if outcome == "confirmed":
        warm.leg.put(ai.SessionCreated(0.0), ai.SessionReady())
    else:
        warm.leg.fail(AiLegError(Reason.AI_LOST, "the socket broke"))
    opening.join(timeout=WAIT_S)
    assert opening.successful()
    assert not call.dialogue.machine.is_ready
    assert (call.ai.leg, call.ai.open_s) == (leg, open_s)
    until(lambda: ("close",) in warm.leg.sent)
    transport.shut()
    peer.close()


def test_a_session_whose_end_cannot_be_one_is_used(contexts: ContextMaker) -> None:
    rig = Rig(contexts)
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
    rig.receive(openai_realtime.parse(b'{"type":"session.created","session":{"expires_at":1e306}}'), ai.SessionReady())
    assert rig.call.dialogue.machine.is_ready
    rig.transport.shut()
    rig.peer.close()


def test_the_detail_of_an_earlier_failure_does_not_explain_an_empty_response(rig: Rig) -> None:
    rig.receive(ai.AiError("odd", "never mind", False, "passing", 0, ""))
    rig.receive(ai.ResponseStarted("r1"), ai.ResponseDone("r1", "completed", ""))
    assert rig.notes("answer_failed") == [{}]


def test_a_session_that_is_not_confirmed_decides_nothing(contexts: ContextMaker) -> None:
    rig = Rig(contexts)
    rig.call.dialogue.lose_session(given.SessionLost(Reason.AI_LOST), "the socket broke", is_expired=False)
    rig.receive(ai.ResponseStarted("r1"), ai.ToolCall("r1", "i2", "call_1", "hang_up", "{}"), ai.SpeechStarted("c1", 0))
    assert (rig.call.state.now, rig.call.dialogue.machine.speaks) == (State.CONNECTING, False)
    rig.receive(ai.SessionReady(), ai.SpeechStarted("c1", 0))
    assert rig.call.dialogue.machine.speaks
    rig.transport.shut()
    rig.peer.close()
