"""Plain websocket client over a real socket, for the AI twin's tests."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gw.twin import sound, speech
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.websocket import TwinSocket, connect

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
    """The client's side of a session."""

    def __init__(self, websocket: TwinSocket) -> None:
        self.websocket = websocket

    def send(self, kind: str, **fields: Any) -> None:
        self.websocket.send_text(json.dumps({"type": kind, **fields}).encode())

    def say(self, audio: bytes) -> None:
        for frame in sound.frames(audio):
            self.send("input_audio_buffer.append", audio=base64.b64encode(frame).decode())

    def next(self) -> dict[str, Any]:
        message = self.websocket.receive()
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
    websocket = connect(twin.url + path, twin.address, headers, timeout_s, 32 << 20, tls=False)
    try:
        yield Client(websocket)
    finally:
        websocket.close()


def greeted(client: Client) -> list[dict[str, Any]]:
    client.ready()
    client.send("response.create")
    return client.until("response.done")
