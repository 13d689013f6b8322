"""The AI twin, talked to by a plain websocket client over a real socket."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gw.twin import ai_script, sound, speech
from gw.twin.ai import AiTwin
from gw.twin.ai_script import AiScript, Fault
from gw.twin.wire import ClosedError, RefusedError, TimedOutError, Wire, connect

QUICK = AiScript(answers=(speech.load("hold-on"), b"\x11" * 37), greeting=speech.load("hello-world"), speed=math.inf)
SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "any"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300, "interrupt_response": True},
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": "marin"},
    },
}


class Client:
    """What a test needs of the other side."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def send(self, kind: str, **fields: Any) -> None:
        self.wire.send_text(json.dumps({"type": kind, **fields}).encode())

    def say(self, audio: bytes) -> None:
        for frame in sound.frames(audio):
            self.send("input_audio_buffer.append", audio=base64.b64encode(frame).decode())

    def next(self) -> dict[str, Any]:
        message = self.wire.receive()
        assert message.text
        event: dict[str, Any] = json.loads(message.data.decode())
        return event

    def until(self, kind: str) -> list[dict[str, Any]]:
        events = [self.next()]
        while events[-1]["type"] != kind:
            events.append(self.next())
        return events

    def ready(self) -> Client:
        assert self.next()["type"] == "session.created"
        self.send("session.update", session=SESSION)
        self.until("session.updated")
        return self


def audio_of(events: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(event["delta"]) for event in events if event["type"] == "response.output_audio.delta")


@contextmanager
def talking(twin: AiTwin, key: str = "sk-test", path: str = "?model=m", timeout_s: float = 5.0) -> Iterator[Client]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    wire = connect(twin.url + path, twin.address, headers, timeout_s, 16 << 20, tls=False)
    try:
        yield Client(wire)
    finally:
        wire.close()


def test_a_session_is_named_and_confirmed_as_asked() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        created = client.next()
        assert created["type"] == "session.created"
        assert created["session"]["model"] == "m"
        assert created["session"]["expires_at"] > 1_700_000_000
        client.send("session.update", session=SESSION)
        updated = client.until("session.updated")[-1]
        assert updated["session"]["audio"] == SESSION["audio"]
        assert twin.sessions[0].updates == [SESSION]
        assert "authorization" not in twin.sessions[0].headers


def test_a_response_is_whole_and_its_ledger_exact() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        assert kinds[:2] == ["response.created", "rate_limits.updated"]
        assert kinds.count("response.output_audio.delta") == len(twin.sessions[0].responses[0].deltas) > 1
        for one in (
            "output_item.added",
            "content_part.added",
            "output_audio.done",
            "output_audio_transcript.done",
            "output_item.done",
        ):
            assert kinds.count(f"response.{one}") == 1
        assert audio_of(events) == QUICK.greeting == bytes(twin.sessions[0].responses[0].audio)
        done = events[-1]["response"]
        assert done["status"] == "completed"
        assert done["usage"]["output_tokens"] > 0
        assert len({event["event_id"] for event in events}) == len(events)
        client.send("response.create")
        assert audio_of(client.until("response.done")) == QUICK.answers[0]
        assert twin.sessions[0].audio == QUICK.greeting + QUICK.answers[0]


def test_a_turn_of_the_caller_is_answered() -> None:
    spoken = sound.tag(77) + b"".join(speech.script("weasels", 600))
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.ready()
        client.say(spoken)
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        order = ["speech_started", "speech_stopped", "committed"]
        places = [kinds.index(f"input_audio_buffer.{name}") for name in order] + [kinds.index("response.created")]
        assert places == sorted(places)
        started = events[places[0]]
        assert 0 <= started["audio_start_ms"] < 200
        assert events[places[1]]["item_id"] == started["item_id"] == events[places[2]]["item_id"]
        assert audio_of(events) == QUICK.answers[1]
        said = [event for event in events if event["type"].endswith("transcription.completed")]
        said = said or client.until("conversation.item.input_audio_transcription.completed")
        assert said[-1]["item_id"] == started["item_id"]
        assert bytes(twin.sessions[0].uplink) == spoken
        assert twin.session_of(77) is twin.sessions[0]
        assert twin.session_of(78) is None
        assert not twin.sessions[0].responses[0].asked


def test_the_caller_interrupts() -> None:
    with AiTwin(AiScript(greeting=ai_script.lasting(60), speed=5.0)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        client.until("response.output_audio.delta")
        client.say(speech.load("weasels")[:8000])
        events = client.until("response.done")
        assert events[-1]["response"]["status"] == "cancelled"
        assert events[-1]["response"]["status_details"]["reason"] == "turn_detected"
        sent = twin.sessions[0].responses[0]
        assert 0 < len(sent.audio) < len(sent.intended)
        client.send("conversation.item.truncate", item_id=sent.item_id, content_index=0, audio_end_ms=sent.sent_ms)
        assert client.until("conversation.item.truncated")[-1]["audio_end_ms"] == sent.sent_ms
        client.send("conversation.item.truncate", item_id=sent.item_id, content_index=0, audio_end_ms=sent.sent_ms + 1)
        assert "shorter" in client.until("error")[-1]["error"]["message"]
        assert [cut.accepted for cut in twin.sessions[0].truncates] == [True, False]
        assert sent.truncated_ms == sent.sent_ms


def test_cancel_and_create_in_the_wrong_moment_are_errors() -> None:
    with AiTwin(AiScript(greeting=ai_script.lasting(60), speed=5.0)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.cancel", event_id="mine")
        error = client.until("error")[-1]["error"]
        assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "mine")
        client.send("response.create")
        client.until("response.created")
        client.send("response.create")
        assert client.until("error")[-1]["error"]["code"] == "conversation_already_has_active_response"
        client.send("response.cancel")
        done = client.until("response.done")[-1]["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert [error.code for error in twin.sessions[0].errors] == [
            "response_cancel_not_active",
            "conversation_already_has_active_response",
        ]


def test_the_last_response_hangs_up() -> None:
    with AiTwin(AiScript(greeting=b"\x22" * 480, goodbye=b"\x33" * 480, hang_up_after=2)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        assert not any(event["type"] == "response.function_call_arguments.done" for event in client.until("response.done"))
        client.send("response.create")
        events = client.until("response.done")
        kinds = [event["type"] for event in events]
        call = next(
            e["item"] for e in events if e["type"] == "response.output_item.done" and e["item"]["type"] == "function_call"
        )
        assert (call["name"], call["status"]) == ("hang_up", "completed")
        assert json.loads(call["arguments"])
        assert audio_of(events) == b"\x33" * 480
        assert kinds.index("response.output_audio.done") < kinds.index("response.function_call_arguments.done")
        client.send("conversation.item.create", item={"type": "function_call_output", "call_id": call["call_id"], "output": "{}"})
        client.until("conversation.item.done")
        assert twin.sessions[0].tool_outputs[0]["call_id"] == call["call_id"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"type": "response.sing"}, "invalid_value"),
        ({"type": 5}, "invalid_value"),
        ({"type": "session.update", "session": {}}, "missing_required_parameter"),
        ({"type": "session.update", "session": {"type": "realtime", "voice": "marin"}}, "unknown_parameter"),
        (
            {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"format": "g711_ulaw"}}}},
            "invalid_value",
        ),
        ({"type": "session.update", "session": {"type": "realtime", "audio": 5}}, "invalid_type"),
        ({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text", "audio"]}}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "no base64!"}, "invalid_value"),
        ({"type": "input_audio_buffer.append"}, "invalid_value"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1}, "invalid_value"),
        ({"type": "conversation.item.create", "item": 5}, "invalid_value"),
    ],
)
def test_what_is_wrong_is_answered_by_an_error(sent: dict[str, Any], code: str) -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.wire.send_text(json.dumps(sent).encode())
        error = client.next()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert twin.sessions[0].errors[-1].code == code


def test_not_json_is_answered_by_an_error() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.wire.send_text(b"{")
        assert client.next()["type"] == "error"


@pytest.mark.parametrize(("key", "path", "status"), [("", "?model=m", 401), ("wrong", "?model=m", 401), ("sk-test", "", 400)])
def test_who_may_not_connect(key: str, path: str, status: int) -> None:
    with AiTwin(QUICK, api_key="sk-test") as twin:
        with pytest.raises(RefusedError) as refusal, talking(twin, key, path):
            pass
        assert refusal.value.status == status
        assert twin.refusals == [status]
        assert not twin.sessions


@pytest.mark.parametrize("fault", ["refuse_401", "refuse_403", "refuse_500"])
def test_refusals_by_script(fault: Fault) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin:
        with pytest.raises(RefusedError) as refusal, talking(twin):
            pass
        assert refusal.value.status == int(fault[-3:])


def test_each_path_may_have_its_own_script() -> None:
    other = AiScript(greeting=b"\x44" * 480)
    with AiTwin(lambda index, path: other if path.endswith("/b") else QUICK) as twin, talking(twin, path="/b?model=m") as client:
        client.ready()
        client.send("response.create")
        assert audio_of(client.until("response.done")) == other.greeting
        assert twin.sessions[0].path == "/v1/realtime/b"


def greeted(client: Client) -> list[dict[str, Any]]:
    client.ready()
    client.send("response.create")
    return client.until("response.done")


@pytest.mark.parametrize(
    "fault", ["unknown_event", "error_benign", "error_fatal", "bad_type", "missing_field", "bad_base64", "bad_json"]
)
def test_faults_that_leave_the_session_standing(fault: Fault) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        texts = [""]
        while '"type":"response.done"' not in texts[-1]:
            texts.append(client.wire.receive().data.decode())
        marks = {
            "unknown_event": "telepathy",
            "error_benign": "response_cancel_not_active",
            "error_fatal": "insufficient_quota",
            "bad_type": '"delta":5',
            "missing_field": '"content_index":0}',
            "bad_base64": "!not base64!",
            "bad_json": '"delta":',
        }
        assert any(text.endswith('"delta":') if fault == "bad_json" else marks[fault] in text for text in texts)


def test_other_messages_than_text() -> None:
    with AiTwin(QUICK.with_fault("binary_message")) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        while client.wire.receive().text:
            pass
    with AiTwin(QUICK.with_fault("oversize_message")) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        while len(client.wire.receive().data) <= 8 << 20:
            pass


@pytest.mark.parametrize(("fault", "code"), [("close", 1011), ("session_expired", 1001), ("reset", 1006), ("close_first", 1011)])
def test_faults_that_end_the_session(fault: Fault, code: int) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        with pytest.raises(ClosedError) as end:
            greeted(client)
        assert (end.value.by, end.value.code) == ("peer" if code != 1006 else "lost", code)
        assert twin.wait_for(lambda twin: twin.sessions[0].is_over)


def test_what_is_no_utf8_and_what_is_no_websocket() -> None:
    with AiTwin(QUICK.with_fault("bad_utf8")) as twin, talking(twin) as client, pytest.raises(UnicodeDecodeError):
        greeted(client)
    with AiTwin(QUICK.with_fault("bad_websocket")) as twin, talking(twin) as client:
        with pytest.raises(ClosedError) as end:
            greeted(client)
        assert (end.value.by, end.value.code) == ("us", 1002)
        assert "reserved" in client.wire.violation


@pytest.mark.parametrize("fault", ["mute", "silent", "never_ready", "stall"])
def test_faults_that_are_silence(fault: Fault) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, pytest.raises(TimedOutError), talking(twin, timeout_s=0.2) as client:
        client.send("session.update", session=SESSION)
        client.send("response.create")
        while True:
            assert client.next()["type"] != ("session.updated" if fault == "never_ready" else "response.done")


def test_formats_that_are_wrong() -> None:
    with AiTwin(QUICK.with_fault("wrong_format")) as twin, talking(twin) as client:
        client.next()
        client.send("session.update", session=SESSION)
        assert client.until("session.updated")[-1]["session"]["audio"]["output"]["format"]["type"] == "audio/pcm"
    with AiTwin(QUICK.with_fault("beta_names")) as twin, talking(twin) as client:
        events = greeted(client)
        assert any(event["type"] == "response.audio.delta" for event in events)
        assert not any(event["type"].startswith("response.output_audio") for event in events)
    with AiTwin(QUICK.with_fault("update_refused")) as twin, talking(twin) as client:
        client.next()
        client.send("session.update", session=SESSION)
        assert client.next()["type"] == "error"


def test_a_minute_at_once() -> None:
    minute = ai_script.lasting(60)
    with AiTwin(AiScript(greeting=minute, whole=True, speed=math.inf)) as twin, talking(twin) as client:
        events = greeted(client)
        assert audio_of(events) == minute
        assert [len(base64.b64decode(e["delta"])) for e in events if e["type"] == "response.output_audio.delta"] == [len(minute)]


def test_audio_before_the_session_is_confirmed_is_noted() -> None:
    with AiTwin(QUICK) as twin, talking(twin) as client:
        client.next()
        client.say(sound.SILENT_FRAME)
        client.send("session.update", session=SESSION)
        client.until("session.updated")
        assert twin.sessions[0].violations == ["audio before session.updated"]


def test_the_end_is_in_the_ledger() -> None:
    with AiTwin(QUICK) as twin:
        with talking(twin) as client:
            client.ready()
        assert twin.wait_for(lambda twin: twin.sessions[0].is_over)
        assert (twin.sessions[0].closed_by, twin.sessions[0].close_code) == ("peer", 1000)
    assert not twin.wait_for(lambda twin: False, timeout_s=0.01)
