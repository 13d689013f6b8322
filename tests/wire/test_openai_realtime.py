"""Every server event of the GA types parses, and each client event matches the types.

The samples hold only required fields.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gw.config import Agent
from gw.protocol import ai, openai_realtime

SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("openai_realtime.json").read_text(encoding="utf-8"))
HEARD: dict[str, ai.AiEvent] = {
    "session.created": ai.SessionCreated(0.0),
    "response.created": ai.ResponseStarted(""),
    "response.done": ai.ResponseDone("", "failed", "status None: ", "passing"),
    "response.output_audio.delta": ai.AudioDelta("resp_001", "item_001", b"\xb5\xec\x6d"),
    "response.output_audio_transcript.delta": ai.AgentTranscriptDelta("resp_001", "item_001", "text"),
    "response.output_audio_transcript.done": ai.AgentTranscript("resp_001", "item_001", "hello"),
    "conversation.item.input_audio_transcription.completed": ai.CallerTranscript("item_001", "hello"),
    "conversation.item.input_audio_transcription.failed": ai.CallerTranscriptFailed("item_001", "unknown", ""),
    "input_audio_buffer.speech_started": ai.SpeechStarted("item_001", 0),
    "input_audio_buffer.speech_stopped": ai.SpeechStopped("item_001"),
    "error": ai.AiError("str", "str", False, "passing"),
    "session.updated": ai.SessionReady(),
    "response.mcp_call.completed": ai.McpCallDone("item_001", failed=False),
    "response.mcp_call.failed": ai.McpCallDone("item_001", failed=True),
    "mcp_list_tools.failed": ai.McpListFailed("item_001"),
}


def test_the_file_names_its_source() -> None:
    assert SAMPLES["source"].startswith("openai package")


def test_there_is_a_sample_of_every_event_we_read() -> None:
    assert HEARD.keys() <= SAMPLES["server"].keys()


@pytest.mark.parametrize("kind", SAMPLES["server"])
def test_from_the_ai(kind: str) -> None:
    sample = SAMPLES["server"][kind]
    event = openai_realtime.parse(json.dumps(sample))
    other = ai.ResponseAlive(sample.get("response_id", "")) if kind.startswith("response.") else ai.Ignored(kind)
    expected = HEARD.get(kind, other)
    assert type(event) is type(expected) and event == expected


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
