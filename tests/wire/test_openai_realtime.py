"""Every server event of the GA types parses, and each client event matches the types.

The samples hold only required fields, so one of them is a session that confirms nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gw.config import Agent
from gw.errors import ProtocolError
from gw.protocol import ai, openai_realtime

SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("openai_realtime.json").read_text(encoding="utf-8"))
HEARD: dict[str, ai.AiEvent] = {
    "session.created": ai.SessionCreated(0.0),
    "response.created": ai.ResponseStarted(""),
    "response.done": ai.ResponseDone("", "completed", ""),
    "response.output_audio.delta": ai.AudioDelta("resp_001", "item_001", b"\xb5\xec\x6d"),
    "response.output_audio_transcript.delta": ai.AgentTranscriptDelta("item_001", "text"),
    "response.output_audio_transcript.done": ai.AgentTranscript("resp_001", "item_001", "hello"),
    "conversation.item.input_audio_transcription.completed": ai.CallerTranscript("item_001", "hello"),
    "input_audio_buffer.speech_started": ai.SpeechStarted("item_001", 0),
    "input_audio_buffer.speech_stopped": ai.SpeechStopped("item_001"),
    "error": ai.AiError("str", "str", False, False),
}
UNCONFIRMED = "session.updated"


def test_the_file_names_its_source() -> None:
    assert SAMPLES["source"].startswith("openai package")


def test_there_is_a_sample_of_every_event_we_read() -> None:
    assert {*HEARD, UNCONFIRMED} <= SAMPLES["server"].keys()


@pytest.mark.parametrize("kind", [kind for kind in SAMPLES["server"] if kind != UNCONFIRMED])
def test_from_the_ai(kind: str) -> None:
    event = openai_realtime.parse(json.dumps(SAMPLES["server"][kind]))
    expected = HEARD.get(kind, ai.Ignored(kind))
    assert type(event) is type(expected) and event == expected


def test_a_session_that_confirms_nothing() -> None:
    with pytest.raises(ProtocolError) as caught:
        openai_realtime.parse(json.dumps(SAMPLES["server"][UNCONFIRMED]))
    assert caught.value.code == "wrong_format"


@pytest.mark.parametrize(
    "message",
    [
        openai_realtime.append("/////w=="),
        openai_realtime.Dialect().session_update(Agent()),
        openai_realtime.Dialect().response_create(),
        openai_realtime.Dialect().cancel(),
        openai_realtime.Dialect().delete_item("item_001"),
        openai_realtime.Dialect().system_text("Greet."),
        openai_realtime.Dialect().function_call("call_001", "f", "{}"),
        openai_realtime.Dialect().restate_turn("agent", "Hello."),
        openai_realtime.Dialect().restate_turn("caller", "Hello?", "turn_1"),
        openai_realtime.Dialect().truncate("item_001", 0),
        openai_realtime.Dialect().tool_output("call_001", "{}"),
        openai_realtime.Dialect().user_text("hello"),
    ],
)
def test_to_the_ai(message: bytes) -> None:
    built = json.loads(message)
    sample = SAMPLES["client"][built["type"]]
    assert sample.keys() <= built.keys()
    if "audio" in sample:
        assert built == sample
