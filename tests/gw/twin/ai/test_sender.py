"""gw.twin.ai.sender: faults in place of the right event, or instead of any."""

from __future__ import annotations

import pytest

from gw.twin.ai.script import Fault
from gw.twin.ai.server import AiTwin
from gw.twin.websocket import ClosedError, TimedOutError
from tests.gw.twin.ai.client import QUICK, SESSION, greeted, talking


@pytest.mark.parametrize(
    "fault",
    ["unknown_event", "error_benign", "error_fatal", "one_bad_event", "bad_type", "missing_field", "bad_base64", "bad_json"],
)
def test_faults_that_leave_the_session_open(fault: Fault) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        texts = [""]
        while '"type":"response.done"' not in texts[-1]:
            texts.append(client.websocket.receive().data.decode())
        marks = {
            "unknown_event": "telepathy",
            "error_benign": "response_cancel_not_active",
            "error_fatal": "insufficient_quota",
            "one_bad_event": '"delta":5',
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
        while client.websocket.receive().text:
            pass
    with AiTwin(QUICK.with_fault("oversize_message")) as twin, talking(twin) as client:
        client.ready()
        client.send("response.create")
        while len(client.websocket.receive().data) <= 16 << 20:
            pass


@pytest.mark.parametrize(("fault", "code"), [("close", 1011), ("session_expired", 1001), ("reset", 1006), ("close_first", 1011)])
def test_faults_that_end_the_session(fault: Fault, code: int) -> None:
    with AiTwin(QUICK.with_fault(fault)) as twin, talking(twin) as client:
        with pytest.raises(ClosedError) as end:
            greeted(client)
        assert (end.value.by, end.value.code) == ("peer" if code != 1006 else "lost", code)
        assert twin.wait_for(lambda twin: twin.sessions[0].is_over)


def test_invalid_utf8_and_invalid_websocket_frames() -> None:
    with AiTwin(QUICK.with_fault("bad_utf8")) as twin, talking(twin) as client, pytest.raises(UnicodeDecodeError):
        greeted(client)
    with AiTwin(QUICK.with_fault("bad_websocket")) as twin, talking(twin) as client:
        with pytest.raises(ClosedError) as end:
            greeted(client)
        assert (end.value.by, end.value.code) == ("us", 1002)
        assert "reserved" in client.websocket.violation


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
