"""gw.media.session: which streams are admitted, how each ends, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from gw import bus
from gw.call.limits import AUDIO_BURST_S, AUDIO_SPEED, EVENTS
from gw.call.resume import MAX_STREAMS
from gw.call.state import Reason, State
from gw.config import Agent
from gw.media import call_events
from gw.media import session as session_module
from gw.media.admission.shared_lock import SharedBusyError
from gw.media.ai.parrot_leg import ParrotLeg
from gw.media.call import Call
from gw.media.shared.context import MediaContext
from gw.media.transport import websocket as websocket_module
from gw.media.uplink import BATCH_FRAMES
from gw.protocol.audio import PTIME_S
from gw.protocol.signature import sign
from gw.protocol.token import ledger_key, make
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from metrics.declare import STREAMS_REFUSED
from tests.gw.media.support import (
    ACCOUNT,
    CALL,
    STREAM,
    ContextMaker,
    Peer,
    StallMeter,
    connected,
    descriptors,
    greenlets,
    masked,
    media,
    start,
    stop,
    until,
)


class Line:
    """A server and one stream to it."""

    def __init__(self, contexts: ContextMaker, **options: Any) -> None:
        self.context, self.emitted = contexts.context(**options)
        self.server, self.address = contexts.server(self.context)
        self.server.WATCH_S = 0.01  # type: ignore[misc]
        self.peer = Peer.connect(self.address)

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.peer.send(message)

    def begin(self, **parameters: str) -> Call:
        """Start the call and wait for it."""
        self.say(connected(), start(**parameters))
        until(lambda: CALL in self.context.calls)
        return self.call()

    def call(self) -> Call:
        session = self.context.calls[CALL]
        assert isinstance(session, session_module.Session)
        assert session._call is not None
        return session._call

    def ended(self) -> tuple[int, str]:
        """Return the close code and reason, once nothing of the stream is left."""
        code = self.peer.read_to_end()
        until(lambda: not self.server.sessions and not self.context.calls and self.context.streams == 0)
        assert_gauges_are_zero(self.context)
        return code

    def events(self, kind: type) -> list[Any]:
        """Return the events of a kind, except that recording is off without credentials."""
        return [event for event in self.emitted if isinstance(event, kind) and getattr(event, "kind", "") != "recording_off"]

    def end_event(self) -> bus.CallEnded:
        (event,) = self.events(bus.CallEnded)
        assert isinstance(event, bus.CallEnded)
        return event

    def refused(self, reason: str) -> float:
        return self.context.page.counter(STREAMS_REFUSED, reason=reason).value


def assert_gauges_are_zero(context: MediaContext) -> None:
    assert {state: cell.value for state, cell in context.cells.alive.items()} == dict.fromkeys(context.cells.alive, 0)


@pytest.fixture
def line(contexts: ContextMaker) -> Line:
    return Line(contexts)


def token(context: MediaContext, *, call: str = CALL, age_s: int = 0, **bound: str) -> str:
    return make(context.token_key, call, int(time.time()) - age_s, os.urandom(16), bound)


# -- normal calls -------------------------------------------------------------------------------------------


def test_a_caller_who_hangs_up(line: Line):
    call = line.begin(direction="inbound", caller="+1", called="+2")
    assert line.events(bus.CallStarted)[0].from_number == "+1"
    line.say(media(1), media(2), stop())
    assert line.ended() == (1000, "caller_hangup")
    assert (line.end_event().reason, line.end_event().result) == ("caller_hangup", "success")
    assert line.context.cells.ended[Reason.CALLER_HANGUP].value == 1
    assert call.state.now is State.ENDED
    assert (type(line.emitted[0]), type(line.emitted[-1])) == (bus.CallStarted, bus.CallEnded)


def test_the_greeting_is_heard_and_its_report_adds_up(contexts: ContextMaker):
    line = Line(contexts, agents={"default": Agent(greeting="Greet.")})
    stood = StallMeter()
    line.begin()
    got: list[Any] = []
    while not got or got[-1]["event"] != "mark":
        got.append(line.peer.text())
    line.say({"event": "mark", "sequenceNumber": "5", "streamSid": got[-1]["streamSid"], "mark": got[-1]["mark"]})
    until(lambda: line.events(bus.Turn))
    until(lambda: line.events(bus.FirstAudio))
    line.say(stop())
    line.ended()
    quality = line.end_event().quality
    assert quality.frames_sent == quality.frames_expected == len(got) - 1
    assert stood.end() > 0.05 or quality.underrun_ms == 0
    assert len(line.events(bus.FirstAudio)) == 1
    assert line.events(bus.StartRecording) == [], "without credentials recording is off"
    assert [(turn.text, turn.interrupted) for turn in line.events(bus.Turn)] == [("(greeting)", False)]


def test_connected_may_be_missing_or_come_twice(line: Line):
    line.say(connected(), connected(), start())
    until(lambda: line.context.calls)
    line.say(connected(), stop())
    assert line.ended() == (1000, "caller_hangup")


def test_another_track_is_counted_and_not_forwarded(line: Line):
    line.begin()
    line.say(media(1, track="outbound"), media(2), stop())
    line.ended()
    assert line.end_event().quality.uplink_dropped_frames["other_track"] == 1


def test_a_key_is_noted_and_the_hash_hangs_up(line: Line):
    line.begin()
    until(lambda: line.call().state.now is State.ACTIVE)
    line.say(
        {
            "event": "dtmf",
            "streamSid": media()["streamSid"],
            "sequenceNumber": "5",
            "dtmf": {"track": "inbound_track", "digit": "#"},
        }
    )
    got: list[Any] = []
    while not got or got[-1]["event"] != "mark":
        got.append(line.peer.text())
    assert line.call().state.now is State.CLOSING, "not before the goodbye was heard"
    line.say({"event": "mark", "sequenceNumber": "6", "streamSid": got[-1]["streamSid"], "mark": got[-1]["mark"]})
    assert line.ended() == (1000, "ai_hangup")
    notes = {event.kind: event.data for event in line.events(bus.CallEvent)}
    assert notes["keys"] == {"count": 1}
    assert notes["tool_call"]["name"] == "hang_up"
    assert line.end_event().quality.frames_sent == line.end_event().quality.frames_expected


def test_unknown_messages_are_counted_and_noted_once(line: Line):
    line.begin()
    line.say(*({"event": "new", "n": n} for n in range(5)), *({"event": f"new{n}"} for n in range(30)), stop())
    assert line.ended() == (1000, "caller_hangup")
    assert line.context.uplink_cells.by_reason["unknown_event"].value == 35
    assert len([event for event in line.events(bus.CallEvent) if event.kind == "unknown_message"]) == 16


@pytest.mark.parametrize("digit", ["a", "w", "12"])
def test_a_key_that_no_telephone_has_is_ignored_and_noted_once(line: Line, digit: str):
    line.begin()
    line.say(*[_key(digit)] * 3, stop())
    assert line.ended() == (1000, "caller_hangup")
    assert line.context.uplink_cells.by_reason["unknown_event"].value == 3
    (note,) = line.events(bus.CallEvent)
    assert (note.kind, note.data) == ("unknown_message", {"event": "dtmf digit"})


def test_silence_reaches_the_ai_while_frames_are_missing(line: Line, monkeypatch: pytest.MonkeyPatch):
    heard: list[str] = []
    monkeypatch.setattr(ParrotLeg, "send_audio", lambda leg, payload: heard.append(payload))
    call = line.begin()
    until(lambda: call.state.now is State.ACTIVE)
    gevent.sleep(0.3)
    assert heard == [], "no audio has come in this stream"
    line.say(media(1))
    until(lambda: len(heard) > 10)
    assert set(heard[1:]) == {"/" * 213 + "w=="}
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")


def test_audio_that_waited_for_the_ai_reaches_it_though_no_frame_follows(line: Line, monkeypatch: pytest.MonkeyPatch):
    heard: list[str] = []
    monkeypatch.setattr(ParrotLeg, "send_audio", lambda leg, payload: heard.append(payload))
    call = line.begin()
    until(lambda: call.state.now is State.ACTIVE)
    call.uplink.on_lost(call.ai.leg)
    speech = [media(n, bytes([n]) * 160) for n in range(90)]
    line.say(*speech)
    until(lambda: call.uplink.kept_ms == 1800)
    call.uplink.on_ready()
    assert len(heard) == BATCH_FRAMES
    until(lambda: len(heard) > 100)
    assert heard[:90] == [one["media"]["payload"] for one in speech]
    assert set(heard[90:]) == {"/" * 213 + "w=="}
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")


# -- too much of everything ---------------------------------------------------------------------------------------


def test_audio_far_beyond_real_time_is_dropped_and_counted_and_the_call_continues(line: Line):
    begun_s = time.monotonic()
    line.begin()
    line.say(*(media(n) for n in range(1000)), stop())
    assert line.ended() == (1000, "caller_hangup")
    surplus = line.end_event().quality.uplink_dropped_frames["surplus"]
    allowed_s = AUDIO_BURST_S + AUDIO_SPEED * (time.monotonic() - begun_s)
    assert surplus >= 1000 - allowed_s / PTIME_S
    assert line.context.uplink_cells.by_reason["surplus"].value == surplus


def test_two_seconds_that_a_stall_delayed_are_legal(line: Line):
    line.begin()
    line.say(*(media(n) for n in range(100)), stop())
    assert line.ended() == (1000, "caller_hangup")
    assert "surplus" not in line.end_event().quality.uplink_dropped_frames


def test_messages_of_any_size_are_legal(line: Line):
    line.begin()
    line.say(media(1, b""), media(2, b"\x01"), media(3, b"\x01" * 8000), media(4), stop())
    assert line.ended() == (1000, "caller_hangup")
    assert "surplus" not in line.end_event().quality.uplink_dropped_frames
    assert line.context.uplink_cells.by_reason["empty"].value == 1


def _key(digit: str) -> dict[str, Any]:
    return {"event": "dtmf", "streamSid": STREAM, "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": digit}}


def test_a_flood_of_keys_reaches_neither_control_nor_the_ai(line: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(call_events, "monotonic", lambda: 1000.0)
    call = line.begin()
    until(lambda: call.state.now is State.ACTIVE)
    keys: list[str] = []
    monkeypatch.setattr(ParrotLeg, "send_keys", lambda leg, digits: keys.append(digits))
    line.say(*[_key("1")] * (EVENTS[1] + 500), stop())
    assert line.ended() == (1000, "caller_hangup")
    assert len(keys) == EVENTS[1]
    kinds = Counter(event.kind for event in line.events(bus.CallEvent))
    assert (kinds["keys"], kinds["surplus"]) == (EVENTS[1], 1)
    assert line.context.cells.surplus["keys"].value == 500


def test_echoes_of_unknown_marks_are_counted(line: Line):
    line.begin()
    mark = {"event": "mark", "streamSid": STREAM, "sequenceNumber": "5", "mark": {"name": "unknown"}}
    line.say(*[mark] * 300, stop())
    assert line.ended() == (1000, "caller_hangup")
    assert line.context.uplink_cells.by_reason["unknown_mark"].value == 300


@pytest.mark.parametrize("message", [connected(), {"event": "new"}, _key("1"), media(track="outbound"), media(audio=b"")])
def test_a_flood_of_messages_ends_the_call(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any]):
    monkeypatch.setattr(session_module, "MESSAGES_BURST", 50)
    monkeypatch.setattr(session_module, "MESSAGES_PER_S", 0.001)
    line = Line(contexts)
    line.begin()
    line.say(*[message] * 60)
    assert line.ended() == (1008, "phone_message_flood")
    assert line.end_event().result == "peer_error"


# -- admission ----------------------------------------------------------------------------------------------------


def test_a_start_that_does_not_come(contexts: ContextMaker):
    line = Line(contexts, media={"start_timeout_s": 0.05})
    line.say(connected())
    assert line.ended() == (1008, "start_timeout")
    assert line.refused("start_timeout") == 1
    (event,) = line.events(bus.CallEvent)
    assert (event.kind, event.data["reason"], event.call_sid) == ("stream_refused", "start_timeout", "")
    assert not line.events(bus.CallStarted)


@pytest.mark.parametrize(
    ("reason", "parameters"),
    [
        ("wrong_account", lambda context: {"account": "AC" + "9" * 32, "token": token(context)}),
        ("token_missing", lambda context: {}),
        ("token_forged", lambda context: {"token": "x"}),
        ("token_forged", lambda context: {"token": token(context)[:-1] + "_"}),
        ("token_forged", lambda context: {"token": token(context, call="CA" + "9" * 32)}),
        ("token_expired", lambda context: {"token": token(context, age_s=100)}),
        ("token_expired", lambda context: {"token": token(context, age_s=-100)}),
        ("token_forged", lambda context: {"token": token(context, agent="default"), "agent": "other"}),
        ("token_forged", lambda context: {"token": token(context), "resume": "1"}),
        ("token_forged", lambda context: {"token": make(ledger_key(b"secret", bytes(16)), CALL, int(time.time()), bytes(16))}),
        ("unknown_agent", lambda context: {"token": token(context, agent="nobody"), "agent": "nobody"}),
    ],
)
def test_a_start_that_is_refused(contexts: ContextMaker, reason: str, parameters: Callable[[MediaContext], dict[str, str]]):
    context, emitted = contexts.context(signed=True, public_url="http://localhost")
    server, address = contexts.server(context)
    peer = Peer.connect(address, X_Twilio_Signature=sign("secret", "ws://localhost/media"))
    peer.send(start(**parameters(context)))
    assert peer.read_to_end() == (1008, reason)
    until(lambda: not server.sessions)
    assert not context.calls
    assert_gauges_are_zero(context)
    (event,) = emitted
    assert isinstance(event, bus.CallEvent)
    assert (event.call_sid, event.data["reason"]) == (CALL, reason)
    assert context.cells.ended[Reason(reason)].value == 1


def test_a_token_opens_one_stream(contexts: ContextMaker):
    context, emitted = contexts.context()
    _, address = contexts.server(context)
    once = token(context)
    first = Peer.connect(address)
    first.send(start(token=once))
    until(lambda: CALL in context.calls)
    first.send(stop())
    assert first.read_to_end() == (1000, "caller_hangup")
    second = Peer.connect(address)
    second.send(start(token=once))
    assert second.read_to_end() == (1008, "token_used")
    assert len([event for event in emitted if isinstance(event, bus.CallStarted)]) == 1


def test_a_stream_in_use_keeps_its_call(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "SILENT_S", 0.3)
    line = Line(contexts)
    line.begin()
    talking = gevent.spawn(lambda: [(line.say(media(n)), gevent.sleep(0.02)) for n in range(500)])
    other = Peer.connect(line.address)
    other.send(start())
    assert other.read_to_end() == (1008, "token_used")
    assert CALL in line.context.calls, "the first continues"
    talking.kill()
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")


def test_a_stream_of_another_account_takes_no_place(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "SILENT_S", 0.0)
    line = Line(contexts)
    line.begin()
    other = Peer.connect(line.address)
    other.send(start(account="AC" + "9" * 32))
    assert other.read_to_end() == (1008, "wrong_account")
    assert line.context.account_of(CALL) == ACCOUNT
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")
    assert line.context.account_of(CALL) == ACCOUNT, "its action webhook may come"


def test_another_stream_takes_the_place_of_a_silent_one(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "SILENT_S", 0.05)
    line = Line(contexts)
    line.begin()
    other = Peer.connect(line.address)
    other.send(start())
    assert line.peer.read_to_end() == (1000, "phone_lost")
    until(lambda: len(line.events(bus.CallStarted)) == 2)
    kinds = [type(event) for event in line.emitted if isinstance(event, bus.CallStarted | bus.CallEnded)]
    assert kinds == [bus.CallStarted, bus.CallEnded, bus.CallStarted], "control must not take the end for the new stream's"
    (resumed,) = line.events(bus.CallEvent)
    assert (resumed.kind, resumed.data) == ("resumed", {"n": 1, "after": "phone_lost"})
    other.send(stop())
    assert other.read_to_end() == (1000, "caller_hangup")
    until(lambda: not line.context.calls)


def test_the_place_of_a_calls_last_resume_can_be_taken(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "SILENT_S", 0.05)
    line = Line(contexts)
    line.begin(resume=str(MAX_STREAMS), began=f"{time.time() - 100:.3f}", after="phone_lost")
    other = Peer.connect(line.address)
    other.send(start())
    until(lambda: len(line.events(bus.CallStarted)) == 2)
    assert [event.data["n"] for event in line.events(bus.CallEvent)] == [MAX_STREAMS] * 2, "not a call that begins"
    other.send(stop())
    assert other.read_to_end() == (1000, "caller_hangup")


def test_a_busy_lock_costs_no_call(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    line = Line(contexts)

    def busy(*arguments: object) -> bool:
        raise SharedBusyError("held")

    monkeypatch.setattr(line.context.ledger, "use", busy)
    line.begin(token=token(line.context, agent="default"), agent="default")
    assert line.context.cells.locks_busy.value == 1
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")


# -- streams that fail ---------------------------------------------------------------------------------------------------

OTHER_STREAM = "MZ" + "9" * 32
BROKEN: dict[str, tuple[list[Any], int, str]] = {
    "media before start": ([media()], 1002, "phone_media_before_start"),
    "stop before start": ([connected(), stop()], 1002, "phone_media_before_start"),
    "two starts": ([start(), start()], 1002, "phone_second_start"),
    "media of another stream": ([start(), media(stream=OTHER_STREAM)], 1002, "phone_wrong_stream"),
    "stop of another stream": ([start(), stop(stream=OTHER_STREAM)], 1002, "phone_wrong_stream"),
    "no JSON": ([start(), b"{"], 1007, "phone_bad_json"),
    "no object": ([start(), b"[]"], 1007, "phone_bad_json"),
    "no UTF-8": ([start(), b'{"event":"\xff"}'], 1007, "phone_bad_utf8"),
    "a wrong type": ([start(), {**media(), "streamSid": 5}], 1007, "phone_bad_type"),
    "a missing field": ([start(), {"event": "media"}], 1007, "phone_missing_field"),
    "no base64": (
        [start(), {**media(), "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": "a"}}],
        1007,
        "phone_bad_base64",
    ),
    "another format": ([json.loads(json.dumps(start()).replace("8000", "16000"))], 1007, "phone_wrong_format"),
    "too long": ([start(), b" " * 65537], 1009, "phone_oversize_message"),
}


@pytest.mark.parametrize(("messages", "code", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_message_that_violates_the_protocol(
    line: Line, messages: list[Any], code: int, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT_S", 0.2)
    line.say(*messages)
    assert line.ended() == (code, reason) or (reason == "phone_oversize_message" and line.peer.protocol.close_rcvd.code == code)
    assert line.context.cells.ended[Reason(reason)].value == 1
    if line.events(bus.CallStarted):
        assert (line.end_event().reason, line.end_event().result) == (reason, "peer_error")
        assert line.end_event().detail


def test_a_binary_message(line: Line):
    line.begin()
    line.peer.raw(masked(2, b"\x00"))
    assert line.ended() == (1003, "phone_binary_message")


def test_a_flood_of_pings(line: Line):
    line.begin()
    line.peer.raw(masked(9, b"") * 1365)
    assert line.ended() == (1008, "phone_frame_flood")
    assert line.end_event().reason == "phone_frame_flood"


def test_what_came_before_a_bad_frame_is_processed_before_the_close(line: Line):
    line.begin()
    line.peer.raw(masked(1, json.dumps(stop()).encode()) + b"\x81\x02{}")
    assert line.ended()[0] == 1002
    assert line.end_event().reason == "caller_hangup"


def test_an_unmasked_message(line: Line):
    line.begin()
    line.peer.raw(b"\x81\x02{}")
    assert line.ended()[0] == 1002
    assert line.end_event().reason == "phone_bad_websocket"


@pytest.mark.parametrize("politely", [True, False])
def test_a_socket_that_closes_without_stop(line: Line, politely: bool):
    line.begin()
    if politely:
        line.peer.protocol.send_close(1001, "")
        line.peer._flush()
        line.peer.read_to_end()
    else:
        line.peer.close()
    until(lambda: line.events(bus.CallEnded))
    assert line.end_event().reason == "phone_lost"
    until(lambda: not line.server.sessions)
    assert_gauges_are_zero(line.context)


def test_a_twilio_that_sends_nothing_more(contexts: ContextMaker):
    line = Line(contexts, media={"phone_silence_s": 0.1})
    line.begin()
    assert line.ended() == (1000, "phone_silent")
    assert time.time() - line.end_event().ended_at >= 0.1, "dated by the last message: the call may have another stream since"


def test_a_twilio_that_does_not_read(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    line = Line(contexts)
    call = line.begin()
    while not call.downlink.tx._transport.failure:
        call.downlink.tx._transport.write(b"x" * 65536)
    until(lambda: line.events(bus.CallEnded))
    assert line.end_event().reason == "phone_leg_stalled"
    until(lambda: not line.server.sessions)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [({"max_call_s": 0.1}, "duration_limit"), ({"idle_limit_s": 0.1}, "idle_limit")],
)
def test_the_limits_of_a_call(contexts: ContextMaker, limits: dict[str, float], reason: str):
    line = Line(contexts, media={"goodbye_s": 0.2, **limits})  # no echo reports that the last words were heard
    line.begin()
    assert line.ended() == (1000, reason)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_the_first_end_counts(line: Line):
    call = line.begin()
    (session,) = line.server.sessions
    session.end(Reason.ADMIN_HANGUP, "first")
    session.end(Reason.SHUTDOWN, "second")
    call.end(Reason.IDLE_LIMIT, "third")
    call.ending.fall_back(Reason.AI_LOST, "fourth", speak=True)
    assert line.ended() == (1000, "admin_hangup")
    assert (line.end_event().reason, line.end_event().detail) == ("admin_hangup", "first")


def test_an_end_before_the_start(line: Line):
    until(lambda: line.server.sessions)
    (session,) = line.server.sessions
    session.end(Reason.SHUTDOWN, "the gateway stops")
    session.end(Reason.START_TIMEOUT, "")
    assert line.ended() == (1000, "shutdown")
    assert not line.events(bus.CallStarted)


@pytest.mark.parametrize("kind", ["ai_in", "ai_out", "tx"])
def test_a_greenlet_that_fails_ends_only_its_call(contexts: ContextMaker, kind: str):
    line = Line(contexts)
    other = Peer.connect(line.address)
    other.send(start(call="CA" + "7" * 32))
    call = line.begin()
    until(lambda: call.state.now is State.ACTIVE)
    (session,) = [session for session in line.server.sessions if session._call is call]
    (greenlet,) = [greenlet for greenlet in session._greenlets if greenlet.kind == kind]
    greenlet.kill(RuntimeError("on purpose"), block=False)
    assert line.peer.read_to_end() == (1011, "internal_error")
    until(lambda: CALL not in line.context.calls)
    assert line.end_event().result == "own_error"
    assert line.end_event().detail == f"{kind}: RuntimeError: on purpose"
    assert list(line.context.calls) == ["CA" + "7" * 32]
    other.send(stop(call="CA" + "7" * 32))
    assert other.read_to_end() == (1000, "caller_hangup")


def test_an_error_in_rx_ends_its_call(line: Line, monkeypatch: pytest.MonkeyPatch):
    call = line.begin()

    def fail(payload: str) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(type(call.uplink), "push", lambda self, payload: fail(payload))
    line.say(media())
    assert line.ended() == (1011, "internal_error")
    assert line.end_event().detail == "RX: RuntimeError: on purpose"


def test_an_error_of_the_watchdog_ends_the_checked_call(line: Line, monkeypatch: pytest.MonkeyPatch):
    call = line.begin()

    def fail(self: Call, now_s: float) -> None:
        if self is call:
            raise RuntimeError("on purpose")

    monkeypatch.setattr(Call, "check", fail)
    assert line.ended() == (1011, "internal_error")
    assert line.end_event().detail.startswith("watchdog: RuntimeError")
    assert not line.server.watch_greenlet.dead  # type: ignore[attr-defined]


def test_a_report_that_fails_still_closes_everything(line: Line, monkeypatch: pytest.MonkeyPatch):
    line.begin()

    def fail(call: Call) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr("gw.media.call.Call.report_end", fail)
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")


def test_an_rx_that_is_killed_ends_its_call(line: Line):
    line.begin()
    (session,) = line.server.sessions
    (rx,) = [thing for thing in line.server.pool if getattr(thing, "kind", "") == "rx"]
    rx.kill(block=False)
    assert line.ended() == (1011, "internal_error")
    assert line.end_event().detail == "RX was killed"
    assert session._state.has_ended


def test_the_call_is_open_until_its_end_was_reported(line: Line):
    line.begin()
    named: list[bool] = []
    emitted = line.context.emit

    def emit(event: bus.Event) -> None:
        if isinstance(event, bus.CallEnded):
            named.append(CALL in line.context.calls)
        emitted(event)

    line.context.emit = emit
    line.say(stop())
    line.ended()
    assert named == [True], "otherwise a Hello in between would make it a lost call"


def test_greenlets_that_do_not_end_are_killed(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "JOIN_S", 0.05)
    line = Line(contexts)
    line.begin()
    (session,) = line.server.sessions
    stuck = session_module.KindGreenlet("ai_in", lambda: gevent.sleep(3600))
    stuck.start()
    session._greenlets.append(stuck)
    line.say(stop())
    assert line.ended() == (1000, "caller_hangup")
    assert stuck.dead


def test_a_peer_that_never_answers_the_close(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT_S", 0.05)
    line = Line(contexts)
    line.begin()
    line.say(stop())
    until(lambda: not line.server.sessions)
    assert line.ended() == (1000, "caller_hangup")


@pytest.mark.parametrize("how", ["stop", "close", "violation"])
def test_nothing_is_left_of_a_call_with_an_ai_socket(contexts: ContextMaker, how: str):
    with AiTwin(AiScript(answers=(b"\x01" * 80_000,))) as twin:
        agent = Agent(provider="openai", base_url=twin.url, greeting="Greet.")
        line = Line(contexts, agents={"default": agent})
        line.begin()
        line.say(stop())
        line.ended()
        line.peer.close()
        until(lambda: all(ledger.closed_s for ledger in twin.sessions))
        gevent.sleep(0.02)
        before = descriptors(), greenlets()
        for _ in range(5):
            line.peer = Peer.connect(line.address)
            line.begin()
            until(lambda: line.call().downlink.tx.frames_sent > 0)
            if how == "stop":
                line.say(stop())
            elif how == "close":
                line.peer.socket.shutdown(2)
            else:
                line.say(b"{")
            line.ended()
            line.peer.close()
        until(lambda: len(twin.sessions) == 6 and all(ledger.closed_s for ledger in twin.sessions))
        until(lambda: descriptors() <= before[0], "descriptors are left")
        until(lambda: greenlets() <= before[1], "greenlets are left")


def test_a_caller_who_hangs_up_while_the_ai_is_being_reached(contexts: ContextMaker):
    with AiTwin(AiScript(fault="mute")) as twin:
        line = Line(contexts, agents={"default": Agent(provider="openai", base_url=twin.url)})
        call = line.begin()
        line.say(*(media(n) for n in range(20)))
        until(lambda: getattr(call.ai.leg, "transport", None) is not None)
        line.say(stop())
        assert line.ended() == (1000, "caller_hangup")
        assert line.end_event().quality.uplink_dropped_frames == {"call_ended": 20}


def test_queued_audio_is_heard_when_the_ai_is_lost(contexts: ContextMaker):
    sound = bytes(n % 200 for n in range(16_000))
    with AiTwin(AiScript(answers=(sound,), speed=1000.0).with_fault("close", deltas=4)) as twin:
        line = Line(
            contexts,
            agents={"default": Agent(provider="openai", base_url=twin.url, greeting="Greet.", goodbye="")},
            media={"goodbye_s": 0.5, "ai_reconnect_s": 0.0},
        )
        line.begin()
        code = line.ended()
        assert code == (1000, "ai_closed")
        quality = line.end_event().quality
        assert 0 < quality.frames_sent == quality.frames_expected


def test_the_report_leaves_out_the_time_of_closing(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(session_module, "JOIN_S", 0.3)
    line = Line(contexts)
    call = line.begin()
    (session,) = line.server.sessions
    stuck = session_module.KindGreenlet("ai_in", lambda: gevent.sleep(3600))
    stuck.start()
    session._greenlets.append(stuck)
    asked_s: list[float] = []
    heard_frames = type(call.downlink.pacer).heard_frames

    class Noting(type(call.downlink.pacer)):  # type: ignore[misc]
        def heard_frames(self, now_s: float) -> int:
            asked_s.append(now_s)
            return heard_frames(self, now_s)

    call.downlink.pacer = Noting(100)
    line.say(stop())
    line.ended()
    assert time.time() - line.end_event().ended_at >= 0.3, "the end is not the time of the report"
    assert time.monotonic() - asked_s[-1] >= 0.3, "audio heard is counted up to the end"
