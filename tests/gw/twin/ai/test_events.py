"""gw.twin.ai.events: validation of session.update, shapes of events, ids."""

from __future__ import annotations

from typing import Any

import pytest

from gw.twin.ai import events
from gw.twin.ai.events import IdMaker, SessionSettings, SettingsError, settings_of
from gw.twin.ai.ledger import SentResponse

PCMU = {"format": {"type": "audio/pcmu"}}


def sent(status: str = "in_progress") -> SentResponse:
    return SentResponse(1, "resp_1", "item_1", True, b"", "Hello.", 0.0, status=status)


def test_defaults_are_the_apis() -> None:
    assert settings_of({"type": "realtime"}) == SessionSettings()
    assert not SessionSettings().is_pcmu


def test_settings_are_read_as_requested() -> None:
    vad = {"type": "server_vad", "silence_duration_ms": 200, "prefix_padding_ms": 100, "create_response": False}
    asked = {
        "type": "realtime",
        "audio": {"input": {**PCMU, "turn_detection": vad, "transcription": {"model": "any"}}, "output": PCMU},
    }
    found = settings_of(asked)
    assert found.is_pcmu and found.vad and found.transcribe and found.interrupt_response
    assert (found.silence_ms, found.padding_ms, found.create_response) == (200, 100, False)
    assert not settings_of({"type": "realtime", "audio": {"input": {"turn_detection": None}}}).vad


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        (None, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "colour": 1}, "unknown_parameter", "session.colour"),
        ({"type": "realtime", "audio": 5}, "invalid_type", "session.audio"),
        ({"type": "realtime", "output_modalities": ["smell"]}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "mp3"}}}}, "invalid_value", "session.audio.input.format"),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "guess"}}}},
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        ({"type": "realtime", "tools": [{"type": "function"}]}, "missing_required_parameter", "session.tools"),
    ],
)
def test_invalid_settings_name_code_and_parameter(session: Any, code: str, param: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings_of(session)
    assert (raised.value.code, raised.value.param) == (code, param)


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (5, "type"),
        ({"type": "thought"}, "type"),
        ({"type": "message"}, "role"),
        ({"type": "message", "role": "system"}, "content"),
        ({"type": "message", "role": "system", "content": [{"type": "output_text", "text": "x"}]}, "content"),
        ({"type": "message", "role": "user", "content": ["x"]}, "content"),
        ({"type": "message", "role": "captain", "content": [{"type": "input_text"}]}, "content"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "call_id"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, "arguments"),
        ({"type": "function_call_output", "call_id": "c"}, "output"),
        ({"type": "function_call_output", "call_id": "other", "output": "x"}, "other"),
        ({"type": "function_call_output", "call_id": "c", "output": "x", "id": "taken"}, "id"),
        ({"type": "function_call_output", "call_id": "c", "output": "x", "id": "x" * 33}, "id"),
        ({"type": "function_call_output", "call_id": "c", "output": "x", "id": 5}, "id"),
        ({"type": "function_call_output", "call_id": "c", "output": "x", "id": ""}, "id"),
    ],
)
def test_an_item_of_the_client_that_is_refused(item: Any, problem: str) -> None:
    assert problem in (events.item_problem(item, {"taken"}, {"c"}) or "accepted")


@pytest.mark.parametrize(("role", "kind"), [("system", "input_text"), ("user", "input_text"), ("assistant", "output_text")])
def test_an_item_of_the_client_that_is_accepted(role: str, kind: str) -> None:
    item = {"type": "message", "role": role, "content": [{"type": kind, "text": "x"}], "id": "x" * 32}
    assert events.item_problem(item, {"taken"}, set()) is None


def test_a_response_has_its_usage_once_it_has_ended() -> None:
    assert events.response(sent(), [])["usage"] is None
    ended = sent("completed")
    ended.audio += b"\xff" * 8000
    ended.usage = events.usage_of(ended, heard_bytes=16_000, items=2, before=None)
    assert events.response(ended, [])["usage"] == ended.usage
    assert ended.usage["output_token_details"]["audio_tokens"] == ended.usage["input_token_details"]["audio_tokens"] == 20
    assert [event["type"] for event in events.ending(sent("cancelled"))][-1] == "conversation.item.done"


def test_what_went_into_a_response_is_cached_in_the_next() -> None:
    first = sent("completed")
    first.usage = events.usage_of(first, heard_bytes=8000, items=0, before=None)
    details = events.usage_of(sent("completed"), heard_bytes=24_000, items=1, before=first)["input_token_details"]
    assert (details["text_tokens"], details["audio_tokens"], details["cached_tokens"]) == (100, 30, 60)
    assert details["cached_tokens_details"] == {"text_tokens": 50, "audio_tokens": 10, "image_tokens": 0}


def test_the_tokens_left_of_a_minute() -> None:
    (limit,) = events.token_limit(1000, 250)["rate_limits"]
    assert limit == {"name": "tokens", "limit": 1000, "remaining": 750, "reset_seconds": 15.0}
    assert events.token_limit(1000, 2000)["rate_limits"][0]["remaining"] == 0


def test_the_retired_beta_has_other_names() -> None:
    assert events.beta(events.audio_delta(sent(), "//8="))["type"] == "response.audio.delta"
    assert events.beta({"type": "conversation.item.added", "item": {}})["type"] == "conversation.item.created"
    assert events.beta({"type": "session.updated", "session": {"id": "s"}})["session"]["input_audio_format"] == "g711_ulaw"
    assert events.beta({"type": "response.done"}) == {"type": "response.done"}


def test_ids_are_the_same_in_each_run() -> None:
    assert [IdMaker(3).new("item") for _ in range(2)] == ["item_0003_000001"] * 2
    ids = IdMaker(1)
    assert [ids.new("item"), ids.new("call")] == ["item_0001_000001", "call_0001_000002"]
