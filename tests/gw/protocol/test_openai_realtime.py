"""gw.protocol.openai_realtime: the GA shape in both directions."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from gw.config import Agent, Mcp, Transfer, Turns
from gw.errors import ProtocolError
from gw.protocol import ai, openai_realtime
from gw.protocol.openai_realtime import MAX_EVENT_BYTES, Dialect, may_skip, parse, split

PCMU = {"format": {"type": "audio/pcmu"}}
TOOL = {
    "type": "response.output_item.done",
    "response_id": "r",
    "item": {
        "id": "i",
        "type": "function_call",
        "status": "completed",
        "call_id": "c",
        "name": "hang_up",
        "arguments": '{"a": 1}',
    },
}


def parsed(kind: str, **fields: object) -> ai.AiEvent:
    return parse(json.dumps({"type": kind, "event_id": "e", **fields}))


def code_of(data: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse(data if isinstance(data, str | bytes) else json.dumps(data))
    assert len(caught.value.detail) <= 200
    return caught.value.code


# -- from the AI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "session",
    [{}, {"expires_at": None}, {"expires_at": 0}, *({"expires_at": odd} for odd in (-5, -1e308, 1.1e10, 1e306, 10**300))],
)
def test_a_session_without_an_end(session: dict[str, Any]) -> None:
    assert parsed("session.created", session=session) == ai.SessionCreated(0.0)


def test_a_session_with_an_end() -> None:
    assert parsed("session.created", session={"expires_at": 1800000000}) == ai.SessionCreated(1_800_000_000.0)


def test_mu_law_confirmed_in_both_directions() -> None:
    event = parsed("session.updated", session={"type": "realtime", "audio": {"input": PCMU, "output": PCMU}})
    assert isinstance(event, ai.SessionReady)


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"audio": None},
        {"audio": {}},
        {"audio": {"input": PCMU}},
        {"audio": {"output": PCMU}},
        {"audio": {"input": PCMU, "output": {"format": None}}},
        {"audio": {"input": PCMU, "output": {"format": {}}}},
    ],
)
def test_a_format_that_is_left_out_is_the_one_asked_for(session: dict[str, Any]) -> None:
    assert parsed("session.updated", session=session) == ai.SessionReady()


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}}}},
        {"audio": {"input": PCMU, "output": {"format": {"type": "x" * 9000}}}},
        {"audio": {"input": PCMU, "output": {"format": "g711_ulaw"}}},
        {"output_audio_format": "g711_ulaw"},
    ],
)
def test_another_format_is_refused(session: dict[str, Any]) -> None:
    assert code_of({"type": "session.updated", "session": session}) == "wrong_format"


@pytest.mark.parametrize(
    ("audio", "sentence"),
    [
        ({"input": {"format": {"type": "audio/pcm"}}, "output": PCMU}, "the session's input is audio/pcm, not audio/pcmu"),
        ({"input": PCMU, "output": {"format": "g711_ulaw"}}, "the session's output is g711_ulaw, not audio/pcmu"),
    ],
)
def test_the_direction_at_fault_is_named(audio: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parsed("session.updated", session={"audio": audio})
    assert caught.value.detail == sentence


def test_the_beta_shape_is_named() -> None:
    with pytest.raises(ProtocolError, match="retired beta shape") as caught:
        parsed("response.audio.delta", delta="AAAA", response_id="r", item_id="i")
    assert caught.value.code == "wrong_format"


def test_a_response_begins() -> None:
    assert parsed("response.created", response={"id": "r", "status": "in_progress"}) == ai.ResponseStarted("r")
    assert parsed("response.created", response={"id": None}) == ai.ResponseStarted("")


@pytest.mark.parametrize(
    ("response", "status", "detail"),
    [
        ({"status": "completed", "status_details": None}, "completed", ""),
        ({"status": "cancelled", "status_details": {"reason": "turn_detected"}}, "cancelled", "turn_detected"),
        ({"status": "incomplete", "status_details": {"reason": "content_filter"}}, "incomplete", "content_filter"),
        ({"status": "completed", "status_details": {"error": "odd"}}, "completed", "odd"),
    ],
)
def test_a_response_ends(response: dict[str, Any], status: str, detail: str) -> None:
    assert parsed("response.done", response={"id": "r", **response}) == ai.ResponseDone("r", status, detail)


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        ({"status": "failed"}, ""),
        ({"status": "failed", "status_details": {"error": {"code": "c", "message": "m", "type": "t"}}}, "c: m"),
        ({"status": "failed", "status_details": {"error": {"type": "server_error", "code": None}}}, "server_error"),
        ({"status": "failed", "status_details": {"error": {"code": 503, "message": "busy"}}}, "503: busy"),
        ({"status": "failed", "status_details": {"error": {}}}, ""),
        ({"status": "failed", "status_details": {"error": "it broke"}}, "it broke"),
        ({"status": "failed", "status_details": {"reason": "r", "error": {"message": "m"}}}, "m"),
        ({"status": "paused", "status_details": {"reason": "tea"}}, "status paused: tea"),
        ({"status": None}, "status None: "),
        ({}, "status None: "),
    ],
)
def test_a_response_that_fails_may_be_asked_for_again(response: dict[str, Any], detail: str) -> None:
    assert parsed("response.done", response={"id": "r", **response}) == ai.ResponseDone("r", "failed", detail, "passing")


def test_a_response_without_an_id() -> None:
    assert parsed("response.done", response={"status": "completed"}) == ai.ResponseDone("", "completed", "")


def test_a_long_detail_is_shortened() -> None:
    event = parsed("response.done", response={"status": "failed", "status_details": {"error": {"message": "x" * 9000}}})
    assert isinstance(event, ai.ResponseDone) and event.detail == "x" * 117 + "..."


def test_audio() -> None:
    sound = bytes(range(256))
    event = parsed("response.output_audio.delta", response_id="r", item_id="i", delta=base64.b64encode(sound).decode())
    assert isinstance(event, ai.AudioDelta) and event == ai.AudioDelta("r", "i", sound)
    for without in ({}, {"response_id": None}):
        assert parsed("response.output_audio.delta", item_id="i", delta="", **without) == ai.AudioDelta("", "i", b"")


@pytest.mark.parametrize("delta", ["A", "AA==AAAA", "AAAA=", "AAAA\n", "é"])
def test_audio_that_is_not_base64(delta: str) -> None:
    assert code_of({"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": delta}) == "bad_base64"


def test_transcripts() -> None:
    agent = parsed("response.output_audio_transcript.done", response_id="r", item_id="i", transcript="Good day.")
    assert isinstance(agent, ai.AgentTranscript) and agent == ai.AgentTranscript("r", "i", "Good day.")
    caller = parsed("conversation.item.input_audio_transcription.completed", item_id="i", transcript="")
    assert isinstance(caller, ai.CallerTranscript) and caller == ai.CallerTranscript("i", "")
    assert parsed("response.output_audio_transcript.done", item_id="i", transcript="x") == ai.AgentTranscript("", "i", "x")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": "audio_unintelligible", "message": "m"}, "audio_unintelligible", "m"),
        ("odd", "unknown", "odd"),
        (None, "unknown", ""),
    ],
)
def test_a_transcription_that_failed(error: object, code: str, message: str) -> None:
    event = parsed("conversation.item.input_audio_transcription.failed", item_id="i", error=error)
    assert event == ai.CallerTranscriptFailed("i", code, message)


@pytest.mark.parametrize(
    ("escaped", "text"),
    [(r"Great \ud83d", "Great \ufffd"), (r"\ude00 see you", "\ufffd see you"), (r"\ud83d\ude00", "\U0001f600")],
)
def test_half_a_surrogate_pair_is_replaced(escaped: str, text: str) -> None:
    fields = f'"item_id":"i","delta":"{escaped}","more":"\\ud800"'
    message = '{"type":"response.output_audio_transcript.delta",' + fields + "}"
    assert openai_realtime.parse(message.encode()) == ai.AgentTranscriptDelta("", "i", text)
    with pytest.raises(ProtocolError, match="truncated"):
        openai_realtime.parse(message[:-1].encode())


def test_a_long_transcript_is_cut() -> None:
    event = parsed("conversation.item.input_audio_transcription.completed", item_id="i", transcript="x" * 100_000)
    assert isinstance(event, ai.CallerTranscript) and event.text == "x" * 16_000


def test_speech() -> None:
    started = parsed("input_audio_buffer.speech_started", item_id="i", audio_start_ms=120)
    assert isinstance(started, ai.SpeechStarted) and started == ai.SpeechStarted("i", 120)
    stopped = parsed("input_audio_buffer.speech_stopped", item_id="i", audio_end_ms=980)
    assert isinstance(stopped, ai.SpeechStopped) and stopped == ai.SpeechStopped("i")


def test_a_tool_call() -> None:
    event = parse(json.dumps(TOOL))
    assert isinstance(event, ai.ToolCall) and event == ai.ToolCall("r", "i", "c", "hang_up", '{"a": 1}')


def test_agent_transcript_pieces() -> None:
    event = parsed("response.output_audio_transcript.delta", response_id="r", item_id="i", delta="Good ")
    assert isinstance(event, ai.AgentTranscriptDelta) and event == ai.AgentTranscriptDelta("r", "i", "Good ")


@pytest.mark.parametrize(
    ("offset", "start_ms"),
    [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (10**300, 0), (12.0, 12), (12.9, 12), (-1, 0), (-0.5, 0), (None, 0)],
)
def test_the_item_counts_more_than_its_offset(offset: float | None, start_ms: int) -> None:
    event = parsed("input_audio_buffer.speech_started", item_id="i", audio_start_ms=offset)
    assert isinstance(event, ai.SpeechStarted) and event == ai.SpeechStarted("i", start_ms)
    assert isinstance(event.audio_start_ms, int)


def test_names_at_their_bound() -> None:
    name = "n" * 1024
    assert parsed("input_audio_buffer.speech_started", item_id=name) == ai.SpeechStarted(name, 0)
    event = parse(json.dumps({**TOOL, "item": {**TOOL["item"], "call_id": name}}))
    assert isinstance(event, ai.ToolCall) and event.call_id == name


@pytest.mark.parametrize("status", [{"status": None}, {}, {"status": "completed"}])
def test_a_tool_call_counts_unless_it_was_cut_short(status: dict[str, Any]) -> None:
    item = {name: value for name, value in TOOL["item"].items() if name not in ("id", "status", "arguments")}
    message = {"type": TOOL["type"], "item": {**item, **status}}
    assert parse(json.dumps(message)) == ai.ToolCall("", "", "c", "hang_up", "{}")


MCP = {"type": "mcp_call", "id": "m", "name": "find", "server_label": "crm", "arguments": "{}"}


def test_a_call_of_a_remote_server() -> None:
    place = {"response_id": "r", "output_index": 1}
    added, done = "response.output_item.added", "response.output_item.done"
    assert parsed(added, **place, item={**MCP, "output": None, "error": None}) == ai.McpCall("r", "m", "find")
    assert parsed(done, **place, item={**MCP, "output": "x", "error": None}) == ai.McpCallDone("m", failed=False)
    assert parsed(done, **place, item=MCP) == ai.McpCallDone("m", failed=False)
    with pytest.raises(ProtocolError, match=r"item\.id"):
        parsed(done, **place, item={"type": "mcp_call"})
    assert parsed(done, **place, item={**MCP, "error": {"type": "http_error"}}) == ai.McpCallDone("m", failed=True)
    assert parsed("response.mcp_call.completed", item_id="m", output_index=1) == ai.McpCallDone("m", failed=False)
    assert parsed("response.mcp_call.failed", item_id="m") == ai.McpCallDone("m", failed=True)
    assert parsed("mcp_list_tools.failed", item_id="l") == ai.McpListFailed("l")
    request = {**MCP, "type": "mcp_approval_request"}
    assert parsed(done, **place, item=request) == ai.McpApproval("r", "m", "crm", "find")
    with pytest.raises(ProtocolError, match=r"item\.id"):
        parsed(done, **place, item={**request, "id": None})


def test_a_session_names_its_remote_servers() -> None:
    servers = (
        Mcp(server_label="crm", server_url="https://crm.example.com/mcp", authorization_env="CRM_TOKEN", allowed_tools=("find",)),
        Mcp(server_label="shop", server_url="https://shop.example.com/mcp"),
    )
    built = json.loads(Dialect().session_update(Agent(mcp=servers), mcp_tokens={"CRM_TOKEN": "t"}))
    assert built["session"]["tools"][1:] == [
        {
            "type": "mcp",
            "server_label": "crm",
            "server_url": "https://crm.example.com/mcp",
            "require_approval": "always",
            "authorization": "t",
            "allowed_tools": ["find"],
        },
        {"type": "mcp", "server_label": "shop", "server_url": "https://shop.example.com/mcp", "require_approval": "always"},
    ]


def test_an_approval() -> None:
    dialect = Dialect()
    answers = [json.loads(dialect.mcp_approval("m", approves=approves))["item"] for approves in (True, False)]
    assert answers[0] == {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True}
    assert answers[1]["approve"] is False
    assert answers[1]["reason"]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "status": "completed"},
        {**TOOL["item"], "status": "incomplete"},
        {"type": "function_call", "status": "in_progress"},
    ],
)
def test_other_items_are_a_sign_of_life(item: dict[str, Any]) -> None:
    assert parse(json.dumps({**TOOL, "item": item})) == ai.ResponseAlive("r")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "response.output_item.added", "response_id": "r", "item": {"type": "message"}},
        {"type": "response.function_call_arguments.delta", "response_id": "r", "delta": "{"},
        {"type": "response.function_call_arguments.done", "response_id": "r", "arguments": "{}"},
        {"type": "response.content_part.added", "response_id": "r", "part": {}},
        {"type": "response.output_text.delta", "response_id": "r", "delta": "words"},
        {"type": "response.of.a.later.version", "response_id": "r"},
    ],
)
def test_any_other_event_of_a_response_is_a_sign_of_life(message: dict[str, Any]) -> None:
    event = parse(json.dumps(message))
    assert isinstance(event, ai.ResponseAlive) and event == ai.ResponseAlive("r")
    del message["response_id"]
    assert parse(json.dumps(message)) == ai.ResponseAlive("")


@pytest.mark.parametrize("code", sorted(openai_realtime.BENIGN_ERRORS))
def test_benign_errors(code: str) -> None:
    event = parsed("error", error={"type": "invalid_request_error", "code": code, "message": "m", "event_id": "session_update-1"})
    assert event == ai.AiError(code, "m", False, "", 0, "session")


@pytest.mark.parametrize(
    "error",
    [
        {"code": "conversation_already_has_active_response", "message": "m"},
        {"message": "Conversation already has an active response in progress: resp_1. Wait until it is finished."},
    ],
)
@pytest.mark.parametrize(("event_id", "refuses"), [("response_create-2", "response"), (None, "")])
def test_a_request_that_crossed_a_response(error: dict[str, str], event_id: str | None, refuses: str) -> None:
    event = parsed("error", error={**error, "event_id": event_id})
    assert isinstance(event, ai.AiError)
    assert (event.fatal, event.trouble, event.refuses) == (False, "crossed", refuses)


@pytest.mark.parametrize("event_id", ["conversation_item_truncate-3", "conversation_item_delete-4", "response_cancel-5"])
def test_a_correction_that_comes_too_late_is_benign(event_id: str) -> None:
    for code in ("item_truncate_invalid_item_id", None):
        event = parsed("error", error={"type": "invalid_request_error", "code": code, "event_id": event_id})
        assert event == ai.AiError(code or "invalid_request_error", "", False, "", 0, "other")
    event = parsed("error", error={"code": "rate_limit_exceeded", "event_id": event_id})
    assert isinstance(event, ai.AiError) and event.trouble == "rate_limit"


@pytest.mark.parametrize("code", sorted(openai_realtime.LASTING_ERRORS))
@pytest.mark.parametrize("field", ["code", "type"])
def test_lasting_errors(code: str, field: str) -> None:
    error = {"message": "m", "event_id": None, "param": None, field: code}
    assert parsed("error", error=error) == ai.AiError(code, "m", True, "lasting")
    done = parsed("response.done", response={"id": "r", "status": "failed", "status_details": {"error": error}})
    assert done == ai.ResponseDone("r", "failed", f"{code}: m", "lasting")


def test_an_expired_session_can_be_replaced() -> None:
    event = parsed("error", error={"type": "invalid_request_error", "code": "session_expired", "message": "m"})
    assert event == ai.AiError("session_expired", "m", True, "passing")


@pytest.mark.parametrize("body", [{"code": "rate_limit_exceeded"}, {"type": "rate_limit_exceeded", "code": None}])
@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [
        ("Limit 40000, used 39000. Please try again in 4s. Visit https://example.com.", 4000),
        ("try again in 350ms", 350),
        ("try again in 1m2s.", 62_000),
        ("try again in 1.5 seconds", 1500),
        ("try again in 20 milliseconds", 20),
        ("try again in 1h0m0.5s", 3_600_500),
        ("try again later", 0),
        ("try again in 99999999999s", 0),
        ("x" * 500 + " try again in 2s", 2000),
        (None, 0),
    ],
)
def test_a_rate_limit_keeps_the_session(body: dict[str, Any], text: str | None, wait_ms: int) -> None:
    error = {**body, "message": text, "event_id": "session_update-1"}
    event = parsed("error", error=error)
    assert isinstance(event, ai.AiError)
    assert (event.trouble, event.fatal, event.wait_ms, event.refuses) == ("rate_limit", False, wait_ms, "session")
    done = parsed("response.done", response={"id": "r", "status": "failed", "status_details": {"error": error}})
    assert isinstance(done, ai.ResponseDone)
    assert (done.trouble, done.status, done.wait_ms) == ("rate_limit", "failed", wait_ms)


def test_no_other_error_asks_for_a_pause() -> None:
    event = parsed("error", error={"code": "server_error", "message": "try again in 4s"})
    assert event == ai.AiError("server_error", "try again in 4s", False, "passing")


def test_a_refused_session_is_fatal_whatever_the_code() -> None:
    number = json.loads(Dialect().session_update(Agent()))["event_id"]
    event = parsed("error", error={"type": "t", "code": "unknown_parameter", "message": "m", "event_id": number})
    assert event == ai.AiError("unknown_parameter", "m", True, "lasting", 0, "session")
    event = parsed("error", error={"type": "server_error", "message": "m", "event_id": number})
    assert event == ai.AiError("server_error", "m", True, "passing", 0, "session")


def test_a_response_without_tools_keeps_the_persona() -> None:
    built = json.loads(Dialect().response_create(with_tools=False))
    assert (built["type"], built["response"]) == ("response.create", {"tool_choice": "none"})


def test_the_refused_request_is_named() -> None:
    dialect = Dialect()
    for message, refuses in ((dialect.response_create(), "response"), (dialect.tool_output("c", ""), "other")):
        number = json.loads(message)["event_id"]
        event = parsed("error", error={"type": "t", "code": "unknown_parameter", "message": "m", "event_id": number})
        assert event == ai.AiError("unknown_parameter", "m", False, "passing", 0, refuses)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"type": "server_error", "code": None}, "server_error", ""),
        ({}, "unknown", ""),
        ({"code": 429, "message": "m"}, "429", "m"),
        ("it broke", "unknown", "it broke"),
        (None, "unknown", ""),
    ],
)
def test_an_error_of_another_shape(body: object, code: str, message: str) -> None:
    assert parsed("error", error=body) == ai.AiError(code, message, False, "passing")
    assert parsed("error") == ai.AiError("unknown", "", False, "passing")


def test_an_error_is_bounded() -> None:
    event = parsed("error", error={"code": "c" * 9000, "message": "m" * 9000})
    assert isinstance(event, ai.AiError)
    assert max(len(event.code), len(event.message)) <= 120


@pytest.mark.parametrize(
    "message",
    [
        {"type": "rate_limits.updated", "rate_limits": []},
        {"type": "mcp_list_tools.completed", "item_id": "i"},
        {"type": "of.a.later.version", "item_id": 7, "delta": {"a": 1}, "audio_end_ms": "soon"},
        {"type": "conversation.item.created", "item": None, "session": 5},
        {"type": "conversation.item.deleted", "item_id": "i" * 1025},
    ],
)
def test_unused_events_are_ignored(message: dict[str, Any]) -> None:
    assert parse(json.dumps(message)) == ai.Ignored(message["type"])


def test_a_long_type_is_shortened() -> None:
    for extra in ({}, {"delta": 1}):
        event = parse(json.dumps({"type": "t" * 9000, **extra}))
        assert isinstance(event, ai.Ignored) and len(event.kind) <= 120


@pytest.mark.parametrize("data", ["", "{", "[]", "null", "7", b"\x01", '{"type":"error","error":' + "[" * 60_000])
def test_bad_json(data: str | bytes) -> None:
    assert code_of(data) == "bad_json"


@pytest.mark.parametrize("data", [b'{"type":"\xff"}', '{"type":"\udc00"}'])
def test_bad_utf8(data: str | bytes) -> None:
    assert code_of(data) == "bad_utf8"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "session.created"}, "session"),
        ({"type": "session.updated"}, "session"),
        ({"type": "response.created"}, "response"),
        ({"type": "response.done"}, "response"),
        ({"type": "response.output_item.done"}, "item"),
        ({"type": "response.output_audio.delta", "response_id": "r", "delta": "AAAA"}, "item_id"),
        ({"type": "response.output_audio.delta", "response_id": "r", "item_id": "i"}, "delta"),
        ({"type": "response.output_audio_transcript.done", "response_id": "r", "transcript": ""}, "item_id"),
        ({"type": "response.output_audio_transcript.done", "response_id": "r", "item_id": "i"}, "transcript"),
        ({"type": "response.output_audio_transcript.delta", "delta": "w"}, "item_id"),
        ({"type": "response.output_audio_transcript.delta", "item_id": "i"}, "delta"),
        ({"type": "conversation.item.input_audio_transcription.completed", "transcript": ""}, "item_id"),
        ({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1}, "item_id"),
        ({"type": "input_audio_buffer.speech_stopped"}, "item_id"),
        ({**TOOL, "item": {**TOOL["item"], "call_id": None}}, "item.call_id"),
        ({**TOOL, "item": {**TOOL["item"], "name": None}}, "item.name"),
    ],
)
def test_a_missing_field_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(json.dumps(message))
    assert (caught.value.code, caught.value.detail) == ("missing_field", f"no `{field}`")


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ({"type": "session.created", "session": 1}, "session"),
        ({"type": "session.updated", "session": 1}, "session"),
        ({"type": "response.created", "response": 1}, "response"),
        ({"type": "response.done", "response": 1}, "response"),
        ({"type": "response.output_item.done", "item": 1}, "item"),
    ],
)
def test_a_part_of_the_wrong_type_is_named(message: dict[str, Any], part: str) -> None:
    with pytest.raises(ProtocolError, match=f"^in `{part}`: Expected `object`"):
        parse(json.dumps(message))


@pytest.mark.parametrize(
    "message",
    [
        {"delta": "AAAA"},
        {"type": "session.created"},
        {"type": "session.updated"},
        {"type": "response.created"},
        {"type": "response.done"},
        {"type": "response.output_audio.delta", "response_id": "r", "delta": "AAAA"},
        {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i"},
        {"type": "response.output_audio_transcript.done", "response_id": "r", "item_id": "i"},
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i"},
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 1},
        {"type": "response.output_item.done", "response_id": "r"},
        {"type": "response.output_item.done", "response_id": "r", "item": {}},
        {**TOOL, "item": {**TOOL["item"], "call_id": None}},
    ],
)
def test_missing_field(message: dict[str, Any]) -> None:
    assert code_of(message) == "missing_field"


@pytest.mark.parametrize(
    "message",
    [
        {"type": 1},
        {"type": None},
        {"type": "response.output_audio.delta", "response_id": 1, "item_id": "i", "delta": "AAAA"},
        {"type": "response.output_audio.delta", "response_id": "r" * 1025, "item_id": "i", "delta": "AAAA"},
        {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i" * 1025, "delta": "AAAA"},
        {"type": "response.created", "response": {"id": "r" * 1025}},
        {**TOOL, "item": {**TOOL["item"], "name": "n" * 1025}},
        {**TOOL, "item": {**TOOL["item"], "call_id": "c" * 1025}},
        {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": "1"},
        {"type": "error", "error": 1},
        {"type": "response.done", "response": None},
        {"type": "response.done", "response": {"status": 1}},
        {"type": "session.updated", "session": []},
        {"type": "session.updated", "session": {"audio": {"input": "audio/pcmu"}}},
        {"type": "session.created", "session": {"expires_at": "soon"}},
        {"type": "response.output_item.done", "response_id": "r", "item": 1},
    ],
)
def test_bad_type(message: dict[str, Any]) -> None:
    assert code_of(message) == "bad_type"


# -- to the AI --------------------------------------------------------------------------------------------------------


def test_session_update() -> None:
    turns = Turns(silence_ms=321, threshold=0.6, padding_ms=123)
    agent = Agent(model="m", voice="v", instructions='say "é"', transcription_model="t", turns=turns)
    built = json.loads(Dialect().session_update(agent))
    tools = built["session"].pop("tools")
    assert built == {
        "type": "session.update",
        "event_id": "session_update-1",
        "session": {
            "type": "realtime",
            "model": "m",
            "output_modalities": ["audio"],
            "instructions": 'say "é"',
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "noise_reduction": None,
                    "transcription": {"model": "t"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.6,
                        "prefix_padding_ms": 123,
                        "silence_duration_ms": 321,
                        "create_response": True,
                        "interrupt_response": True,
                        "idle_timeout_ms": None,
                    },
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": "v", "speed": 1.0},
            },
            "tool_choice": "auto",
            "max_output_tokens": "inf",
        },
    }
    (tool,) = tools
    assert "goodbye" in tool.pop("description")
    assert tool == {"type": "function", "name": "hang_up", "parameters": {"type": "object", "properties": {}}}


def test_the_built_in_tools_have_these_schemas() -> None:
    agent = Agent(tools=("transfer", "send_digits", "collect_digits"), transfer=Transfer(targets={"sales": "+15005550006"}))
    tools = json.loads(Dialect().session_update(agent))["session"]["tools"]
    words = [tool.pop("description") for tool in tools]
    assert ["to a person" in words[0], "Presses keys" in words[1], "Collects digits" in words[2]] == [True] * 3
    transfer, send, collect = tools
    properties = transfer["parameters"]["properties"]
    assert "one or two sentences" in properties["summary"].pop("description")
    assert transfer == {
        "type": "function",
        "name": "transfer",
        "parameters": {
            "type": "object",
            "properties": {"target": {"type": "string", "enum": ["sales"]}, "summary": {"type": "string"}},
            "required": ["target", "summary"],
        },
    }
    assert send == {
        "type": "function",
        "name": "send_digits",
        "parameters": {
            "type": "object",
            "properties": {"digits": {"type": "string", "pattern": "^[0-9*#w]{1,64}$"}},
            "required": ["digits"],
        },
    }
    described = {name: one.pop("description") for name, one in collect["parameters"]["properties"].items()}
    assert all(described.values())
    assert collect == {
        "type": "function",
        "name": "collect_digits",
        "parameters": {
            "type": "object",
            "properties": {
                "min": {"type": "integer", "minimum": 1, "maximum": 64},
                "max": {"type": "integer", "minimum": 1, "maximum": 64},
                "finish_on": {"type": "string", "enum": ["#", "*", ""]},
                "timeout_s": {"type": "number", "minimum": 1, "maximum": 60},
                "sensitive": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    }


def test_a_restated_turn_can_have_its_place() -> None:
    first, last = (json.loads(Dialect().restate_turn("agent", "Good day.", "t2", after)) for after in ("t1", ""))
    assert first["previous_item_id"] == "t1"
    assert "previous_item_id" not in last


def input_of(agent: Agent) -> dict[str, Any]:
    """Return the settings of the caller's audio."""
    built: dict[str, Any] = json.loads(Dialect().session_update(agent))["session"]["audio"]["input"]
    return built


def test_no_transcription_without_a_model() -> None:
    assert input_of(Agent(transcription_model=""))["transcription"] is None


@pytest.mark.parametrize("kind", ["near_field", "far_field"])
def test_noise_reduction(kind: Any) -> None:
    assert input_of(Agent(turns=Turns(noise_reduction=kind)))["noise_reduction"] == {"type": kind}


def test_semantic_detection_has_no_silence() -> None:
    turns = Turns(detection="semantic_vad", eagerness="low", silence_ms=321)
    assert input_of(Agent(turns=turns))["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }


@pytest.mark.parametrize("detection", ["server_vad", "semantic_vad"])
@pytest.mark.parametrize(
    ("interruptions", "creates", "interrupts"), [("model", True, True), ("gateway", False, False), ("none", True, False)]
)
def test_interruptions(detection: Any, interruptions: Any, creates: bool, interrupts: bool) -> None:
    built = input_of(Agent(turns=Turns(detection=detection, interruptions=interruptions)))["turn_detection"]
    assert (built["type"], built["create_response"], built["interrupt_response"]) == (detection, creates, interrupts)


def test_events_are_numbered() -> None:
    dialect = Dialect()
    built = [
        json.loads(message)
        for message in (
            dialect.system_text("Greet."),
            dialect.response_create(),
            dialect.truncate("i", 1500),
            dialect.tool_output("c", '{"ok": true}'),
            dialect.user_text('the key "1"'),
            dialect.restate_turn("caller", "Hello?"),
            dialect.restate_turn("agent", "Good day.", "turn_2"),
            dialect.function_call("c", "find", '{"number": 1}'),
            dialect.delete_item("turn_2"),
            dialect.cancel(),
        )
    ]
    assert built == [
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-1",
            "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Greet."}]},
        },
        {"type": "response.create", "event_id": "response_create-2"},
        {
            "type": "conversation.item.truncate",
            "event_id": "conversation_item_truncate-3",
            "item_id": "i",
            "content_index": 0,
            "audio_end_ms": 1500,
        },
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-4",
            "item": {"type": "function_call_output", "call_id": "c", "output": '{"ok": true}'},
        },
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-5",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": 'the key "1"'}]},
        },
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-6",
            "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]},
        },
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-7",
            "item": {
                "id": "turn_2",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Good day."}],
            },
        },
        {
            "type": "conversation.item.create",
            "event_id": "conversation_item_create-8",
            "item": {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"number": 1}'},
        },
        {"type": "conversation.item.delete", "event_id": "conversation_item_delete-9", "item_id": "turn_2"},
        {"type": "response.cancel", "event_id": "response_cancel-10"},
    ]


def test_append_pastes_the_payload() -> None:
    assert json.loads(openai_realtime.append("//8=")) == {"type": "input_audio_buffer.append", "audio": "//8="}
    assert openai_realtime.append("AAAA") == openai_realtime.APPEND_PREFIX + b"AAAA" + openai_realtime.APPEND_SUFFIX


@pytest.mark.parametrize(
    ("base_url", "model", "url"),
    [
        ("wss://h/v1/realtime", "m", "wss://h/v1/realtime?model=m"),
        ("ws://h:1/p?a=b%20c", "m n&", "ws://h:1/p?a=b%20c&model=m%20n%26"),
        ("wss://h/p?model=deployed", "m", "wss://h/p?model=deployed"),
        ("wss://h/p?x=", "", "wss://h/p?x="),
        ("wss://h/p?model=", "m", "wss://h/p?model="),
        ("wss://h/p?models=2", "m", "wss://h/p?models=2&model=m"),
    ],
)
def test_url(base_url: str, model: str, url: str) -> None:
    assert openai_realtime.url(base_url, model) == url


def test_headers() -> None:
    assert openai_realtime.headers("k") == [("Authorization", "Bearer k")]


# -- long events ------------------------------------------------------------------------------------------------------


def delta_of(sound: bytes, **more: Any) -> bytes:
    message = {
        "type": "response.output_audio.delta",
        "response_id": "r",
        "item_id": "i",
        "delta": base64.b64encode(sound).decode(),
    }
    return json.dumps(message | more).encode()


@pytest.mark.parametrize("n_bytes", [1, 18 << 10, (18 << 10) + 1, 2_300_000])
@pytest.mark.parametrize("behind", [{}, {"content_index": 0, "obfuscation": "x" * 1000}])
def test_a_long_delta_is_split(n_bytes: int, behind: dict[str, Any]) -> None:
    sound = bytes(n % 251 for n in range(n_bytes))
    pieces = [parse(piece) for piece in split(delta_of(sound, **behind))]
    assert b"".join(piece.audio for piece in pieces if isinstance(piece, ai.AudioDelta)) == sound
    assert {(type(piece), piece.response_id, piece.item_id) for piece in pieces} == {(ai.AudioDelta, "r", "i")}  # type: ignore[union-attr]
    assert len(pieces) == -(-n_bytes // (18 << 10))


def test_a_long_delta_with_its_audio_first_is_split() -> None:
    data = (
        b'{"delta" : "'
        + base64.b64encode(bytes(200_000))
        + b'", "response_id":"r","item_id":"i","type":"response.output_audio.delta"}'
    )
    assert sum(len(parse(piece).audio) for piece in split(bytearray(data))) == 200_000  # type: ignore[union-attr]


@pytest.mark.parametrize("spoil", ["*", "=", "A"])
def test_a_long_delta_that_is_not_base64(spoil: str) -> None:
    data = delta_of(bytes(300_000)).replace(b'"}', spoil.encode() + b'"}')
    with pytest.raises(ProtocolError) as raised:
        for piece in split(data):
            parse(piece)
    assert raised.value.code == "bad_base64"


@pytest.mark.parametrize("text", ["\u044f" * 25_000, "\u044f" * 25_000 + 'say "yes" \\', "a" * 150_000 + '"' * 399])
def test_a_session_with_long_instructions_is_confirmed(text: str) -> None:
    """Escaped, 25,000 Cyrillic letters are 150 KB: the session was never ready."""
    audio = {"format": {"type": "audio/pcmu"}}
    session = {"type": "realtime", "instructions": text, "audio": {"input": audio, "output": audio}}
    (piece,) = split(json.dumps({"type": "session.updated", "session": session}).encode())
    assert len(piece) < 1000
    assert parse(piece) == ai.SessionReady()


@pytest.mark.parametrize(
    ("data", "is_kept"),
    [
        (b'{"type":"session.updated","session":{"instructions":"' + b'\\"' * 80_000 + b'"}}', False),
        (b'{"type":"session.updated","session":{"instructions":"' + b"a" * 150_000 + b'\\"' * 400 + b'"}}', False),
        (b'{"type":"session.updated","session":{"instructions":"' + b"a" * 160_000, False),  # no end
        (b'{"type":"session.updated","session":"' + b"a" * 160_000 + b'"}', False),
        (b'{"type":"x","item":"' + b"a" * 90_000 + b'"}', True),
        (b'{"type":"x","item":"' + b"a" * MAX_EVENT_BYTES + b'"}', False),
        (delta_of(b"").replace(b'""', b'"' + b"\\/" * 40_000 + b'"'), True),  # escapes: decoded whole
        (b'{"type":"response.output_audio.delta","delta":"' + b"A" * 200_000, False),  # no end
        (b'{"type":"y","delta":"' + b"A" * 200_000 + b'"}', False),
    ],
)
def test_other_long_events_are_kept_whole_or_dropped(data: bytes, is_kept: bool) -> None:
    assert list(split(data)) == [data] * is_kept


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_response_with_a_long_output_ends(status: str) -> None:
    output = [{"id": "item_1", "status": "completed", "content": [{"transcript": "a" * MAX_EVENT_BYTES}]}]
    response = {"object": "realtime.response", "id": "resp_1", "status": status, "status_details": None, "output": output}
    (message,) = split(json.dumps({"type": "response.done", "event_id": "event_1", "response": response}).encode())
    assert parse(message) == ai.ResponseDone("resp_1", status, "")


def test_the_end_of_a_response_behind_a_long_output_cannot_be_read() -> None:
    response = {"output": [{"id": "item_1", "text": "a" * MAX_EVENT_BYTES}], "id": "resp_1", "status": "completed"}
    (message,) = split(json.dumps({"type": "response.done", "response": response}).encode())
    with pytest.raises(ProtocolError) as caught:
        parse(message)
    assert caught.value.code == "bad_type"


@pytest.mark.parametrize(
    ("begun", "is_skipped"),
    [
        (delta_of(bytes(9000)), False),
        (delta_of(bytes(openai_realtime.MAX_DELTA_BYTES)), True),
        (b'{"delta":"' + b"A" * 9000, False),  # the type may come behind the audio
        (b'{"event_id":"e", "delta" : "' + b"A" * 9000, False),
        (b'{"type":"response.output_audio.delta","other":"' + b"A" * 9000, True),
        (b'{"delta":"' + b"A" * (3 << 20), True),  # minutes of audio are the most
        (b'{"delta":"' + b"A" * ((3 << 20) - 10), False),
        (b'{"type":"conversation.item.added","item":{"content":[{"audio":"' + b"A" * 9000, True),
        (b'{"type":"response.output_text.delta","delta":"' + b"A" * 9000, True),
        (b'{"type":"response.done","response":{"output":["' + b"A" * 9000, False),
        (b'{"event_id":"' + b"A" * 9000, True),
    ],
)
def test_of_very_long_events_only_audio_and_ends_are_kept(begun: bytes, is_skipped: bool) -> None:
    assert may_skip(bytearray(begun)) is is_skipped


def _usage(**fields: Any) -> dict[str, Any]:
    return {"total_tokens": 0, **fields}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            _usage(
                input_tokens=132,
                output_tokens=121,
                input_token_details={
                    "text_tokens": 119,
                    "audio_tokens": 13,
                    "cached_tokens": 64,
                    "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4},
                },
                output_token_details={"text_tokens": 30, "audio_tokens": 91},
            ),
            ai.Tokens(59, 60, 30, 9, 4, 91),
        ),
        (_usage(input_tokens=10, output_tokens=3), ai.Tokens(text_in=10, text_out=3)),
        (
            _usage(input_tokens=30, input_token_details={"text_tokens": 10, "audio_tokens": 20, "cached_tokens": 15}),
            ai.Tokens(text_cached=10, audio_in=15, audio_cached=5),
        ),
        (
            _usage(input_token_details={"text_tokens": 5, "cached_tokens_details": {"text_tokens": 9, "audio_tokens": 9}}),
            ai.Tokens(text_cached=5),
        ),
        (_usage(input_tokens=-5, output_tokens=1e300), ai.NO_TOKENS),
        ({"type": "duration", "seconds": 1.5}, ai.NO_TOKENS),
        ({"input_tokens": "many"}, ai.NO_TOKENS),
        ([1], ai.NO_TOKENS),
        (None, ai.NO_TOKENS),
    ],
)
def test_a_usage_is_read_or_costs_itself(usage: Any, tokens: ai.Tokens) -> None:
    """`*_in` is without the cached tokens, which have another price."""
    done = parsed("response.done", response={"id": "r", "status": "completed", "usage": usage})
    assert done == ai.ResponseDone("r", "completed", "", tokens=tokens)
    words = parsed("conversation.item.input_audio_transcription.completed", item_id="i", transcript="t", usage=usage)
    assert words == ai.CallerTranscript("i", "t", tokens)


def test_a_failed_response_has_its_usage() -> None:
    done = parsed("response.done", response={"id": "r", "status": "failed", "usage": {"input_tokens": 4}})
    assert done.tokens == ai.Tokens(text_in=4)


def test_a_very_long_end_keeps_its_usage() -> None:
    usage = {"input_tokens": 7, "input_token_details": {"audio_tokens": 3, "cached_tokens_details": {"audio_tokens": 1}}}
    text = 'x "usage": {"input_tokens": 9} ' * (openai_realtime.MAX_EVENT_BYTES // 20)
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    response = {"id": "r", "status": "completed", "output": output, "usage": usage}
    data = msgspec.json.encode({"type": "response.done", "response": response})
    (piece,) = openai_realtime.split(data)
    assert openai_realtime.parse(piece) == ai.ResponseDone("r", "completed", "", tokens=ai.Tokens(4, 0, 0, 2, 1, 0))
    del response["usage"]
    (piece,) = openai_realtime.split(msgspec.json.encode({"type": "response.done", "response": response}))
    assert openai_realtime.parse(piece) == ai.ResponseDone("r", "completed", "")


@pytest.mark.parametrize(
    ("limits", "event"),
    [
        ([{"name": "tokens", "limit": 100, "remaining": 40, "reset_seconds": 2.5}], ai.TokenLimit(100, 40, 2.5)),
        ([{"name": "requests", "limit": 9}, {"name": "tokens", "limit": 1, "remaining": 0}], ai.TokenLimit(1, 0, 0.0)),
        ([{"name": "tokens", "limit": 1, "remaining": 0, "reset_seconds": 1e9}], ai.TokenLimit(1, 0, 86_400.0)),
        ([{"name": "requests", "limit": 9, "remaining": 8}], ai.Ignored("rate_limits.updated")),
        ([{"name": "tokens"}], ai.Ignored("rate_limits.updated")),
        ("none", ai.Ignored("rate_limits.updated")),
    ],
)
def test_a_limit_of_tokens_is_read_or_ignored(limits: Any, event: ai.AiEvent) -> None:
    assert parsed("rate_limits.updated", rate_limits=limits) == event
    assert parsed("rate_limits.updated") == ai.Ignored("rate_limits.updated")
