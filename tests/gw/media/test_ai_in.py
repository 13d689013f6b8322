"""gw.media.ai_in: legs are served one after another, each event reaches its part, each failure is the call's one reason."""

from __future__ import annotations

from typing import Any, get_args

import gevent
import pytest
from gevent import socket

from gw import bus
from gw.call.limits import EVENTS
from gw.call.playout import ResponseMark
from gw.call.state import Event, Reason, State
from gw.config import Agent
from gw.media import call_events
from gw.media.ai.leg import AiLegError
from gw.media.ai_in import _HANDLERS, MAX_UNREADABLE, AiIn
from gw.media.call import Call
from gw.protocol import ai
from gw.twin.ai.script import AiScript, Fault
from gw.twin.ai.server import AiTwin
from tests.gw.media.support import (
    EARLY_AUDIO,
    WAIT_S,
    ContextMaker,
    FakeLeg,
    call_of,
    transport_and_peer,
    until,
    upgrade_and_send,
)


class Rig:
    """A call with AI-in and a leg in memory, no greenlet running."""

    def __init__(self, contexts: ContextMaker, **agent: Any) -> None:
        self.context, self.emitted = contexts.context()
        self.transport, self.peer = transport_and_peer()
        self.call: Call = call_of(self.context, Agent(**{"greeting": "", **agent}), self.transport)
        self.leg = FakeLeg()
        self.call.ai.replace(self.leg, ready=True)
        self.call.state.on_event(Event.AI_READY)
        self.ai_in = AiIn(self.call)

    def receive(self, *events: ai.AiEvent) -> None:
        self.ai_in._dispatch(list(events))

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


def test_every_event_that_calls_for_a_reaction_has_a_handler() -> None:
    assert set(_HANDLERS) == set(get_args(ai.AiEvent)) - {ai.Ignored, ai.CallerTranscriptFailed}


def test_audio_reaches_the_playout_and_the_clock_of_the_watchdog(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(400)))
    assert rig.call.downlink.playout.depth_bytes == 400
    assert rig.call.ai.responses.active_id == "r1"
    assert rig.call.ai.last_event_s > 0
    assert rig.call.ai.first_audio_ms >= 0


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


def test_late_audio_of_a_cut_response_is_dropped_and_each_item_truncated_once(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)), ai.SpeechStarted("c1", 10))
    assert rig.leg.of("truncate") == [("i1", 0)]
    rig.receive(ai.AudioDelta("r1", "i1", bytes(1600)), ai.AudioDelta("r1", "i2", bytes(1600)), ai.AudioDelta("r1", "i2", b"x"))
    assert rig.leg.of("truncate") == [("i1", 0), ("i2", 0)]
    assert rig.call.downlink.playout.is_empty


def test_a_late_transcript_of_a_cut_response_is_an_interrupted_turn(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(1600)), ai.SpeechStarted("c1", 10))
    rig.receive(ai.AgentTranscript("r1", "i2", "never heard"), ai.AgentTranscript("r1", "i1", "cut"))
    assert rig.turns() == [("agent", "never heard", True), ("agent", "cut", True)]


def test_words_of_both_sides_become_turns(rig: Rig) -> None:
    rig.receive(ai.SpeechStarted("c1", 10), ai.SpeechStopped("c1"), ai.CallerTranscript("c1", "Hello?"))
    rig.receive(ai.AudioDelta("r1", "i1", b"x"), ai.AgentTranscriptDelta("r1", "i1", "Good "))
    rig.call.on_session_over()
    rig.call.report_end()
    assert rig.turns() == [("caller", "Hello?", False), ("agent", "Good ", True)]


def test_a_tool_that_is_not_available_is_answered_and_the_ai_asked_again(rig: Rig) -> None:
    rig.receive(ai.ToolCall("r1", "i1", "call_1", "order_pizza", "{}"))
    assert rig.leg.sent == [("tool_output", "call_1", '{"error": "this tool is not available"}'), ("create_response",)]
    assert rig.notes("tool_call") == [{"name": "order_pizza", "arguments": "{}", "item": "i1"}]


def test_the_hang_up_tool_closes_the_call(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"), ai.ToolCall("r1", "i1", "call_1", "hang_up", "{}"))
    assert rig.leg.sent == [("tool_output", "call_1", '{"ok": true}')]
    assert rig.call.state.now is State.CLOSING


def test_events_behind_the_end_of_the_call_are_dropped(rig: Rig) -> None:
    rig.call.end(Reason.CALLER_HANGUP)
    rig.receive(ai.AudioDelta("r1", "i1", bytes(400)))
    assert rig.call.downlink.playout.is_empty


def test_a_response_that_fails_is_noted_and_a_deferred_request_is_sent(rig: Rig) -> None:
    rig.receive(ai.ResponseStarted("r1"))
    rig.call.ai.request("")
    assert rig.leg.of("create_response") == []
    rig.receive(ai.ResponseDone("r1", "failed", "server error"))
    assert rig.leg.of("create_response") == [()]
    assert rig.notes("response_failed") == [{"response": "r1", "detail": "server error"}]


@pytest.mark.parametrize(
    ("event", "reason", "permanent", "expired"),
    [
        (ai.AiError("x", "broken", True, "passing"), Reason.AI_REFUSED, False, True),
        (ai.AiError("x", "no such key", True, "lasting"), Reason.AI_REFUSED, True, False),
        (ai.AiError("x", "slow down", False, "rate_limit"), Reason.AI_RATE_LIMITED, False, False),
        (ai.ResponseDone("r1", "failed", "slow down", "rate_limit"), Reason.AI_RATE_LIMITED, False, False),
    ],
)
def test_an_event_that_ends_the_leg(rig: Rig, event: ai.AiEvent, reason: Reason, permanent: bool, expired: bool) -> None:
    with pytest.raises(AiLegError) as raised:
        rig.receive(event)
    assert (raised.value.reason, raised.value.permanent, raised.value.expired) == (reason, permanent, expired)


def test_an_error_that_ends_nothing_is_noted_and_a_benign_one_is_not(rig: Rig) -> None:
    rig.receive(
        ai.AiError("busy", "a response is under way", False, "crossed"), ai.AiError("odd", "never mind", False, "passing")
    )
    assert rig.notes("ai_error") == [{"code": "odd", "message": "never mind", "fatal": False}]


def test_an_unreadable_event_is_counted_and_the_first_of_a_session_noted(rig: Rig) -> None:
    rig.receive(ai.Unreadable("bad_json", "cut"), *[ai.Unreadable("bad_type", "a number")] * (MAX_UNREADABLE - 2))
    assert rig.notes("ai_unreadable") == [{"code": "bad_json", "detail": "cut"}]
    with pytest.raises(AiLegError) as raised:
        rig.receive(ai.Unreadable("bad_type", "in `session`"))
    assert raised.value.reason is Reason.AI_BAD_TYPE


def test_any_error_before_the_session_is_confirmed_ends_the_leg(rig: Rig) -> None:
    rig.call.ai.ready = False
    with pytest.raises(AiLegError):
        rig.receive(ai.AiError("odd", "session.update refused", False, "passing"))


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
        running = gevent.spawn(AiIn(call).run)
        running.join(timeout=WAIT_S)
        assert running.successful()
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
    running.join(timeout=WAIT_S)
    assert running.successful()
    assert call.state.reason is Reason.AI_WRONG_FORMAT
    assert call.downlink.playout.expected_frames == 0
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
    rig.receive(*[ai.AiError("odd", "message", False, "passing")] * 50)
    assert len(rig.notes("ai_error")) == 5
    assert len([record for record in caplog.records if "the AI reports" in record.message]) == 5
    assert rig.context.cells.ai_errors["error"].value == 50


@pytest.mark.usefixtures("stopped_clock")
def test_tool_calls_are_limited(rig: Rig) -> None:
    rig.receive(*[ai.ToolCall("r1", "item", f"call-{n}", "other", "{}") for n in range(EVENTS[1] + 50)])
    assert len(rig.notes("tool_call")) == EVENTS[1]
    assert len(rig.leg.of("tool_output")) == EVENTS[1]


@pytest.mark.usefixtures("stopped_clock")
def test_a_storm_of_interruptions_is_limited(rig: Rig) -> None:
    for n in range(60):
        rig.receive(ai.AudioDelta(f"r{n}", f"i{n}", bytes(1600)), ai.SpeechStarted(f"u{n}", 0))
    assert rig.call.downlink.bargein.count == 10
    assert rig.context.cells.surplus["interruption"].value == 50
    assert rig.notes("surplus")[0] == {"of": "interruption"}
