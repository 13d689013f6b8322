"""Event shapes of the AI twin, and validation of `session.update`. Pure.

Events have the GA shape; `beta` turns a response's events into the retired beta shape.

Source: the types of openai 3.54.0 (`openai.types.realtime`); OpenAI's Realtime guide.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gw.twin.ai.ledger import McpTool, SentResponse

Event = dict[str, Any]

PCMU: Final = "audio/pcmu"
_FORMATS: Final = (PCMU, "audio/pcma", "audio/pcm")
_SESSION_KEYS: Final = frozenset(
    {
        "type",
        "model",
        "output_modalities",
        "instructions",
        "audio",
        "tools",
        "tool_choice",
        "max_output_tokens",
        "include",
        "parallel_tool_calls",
        "prompt",
        "reasoning",
        "tracing",
        "truncation",
    }
)
_INPUT_KEYS: Final = frozenset({"format", "noise_reduction", "transcription", "turn_detection"})
_OUTPUT_KEYS: Final = frozenset({"format", "voice", "speed"})
_VAD_KEYS: Final = frozenset(
    {
        "type",
        "threshold",
        "prefix_padding_ms",
        "silence_duration_ms",
        "create_response",
        "interrupt_response",
        "idle_timeout_ms",
        "eagerness",
    }
)
#: Length of an item's id that a client chooses. Seen in the API's errors, not in its documents.
MAX_ID_CHARS: Final = 32
#: Fields that an item of each type must have.
_ITEM_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    "message": ("role",),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "mcp_approval_response": ("approval_request_id",),
}
#: Keys that each kind of tool must have.
_TOOL_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"function": ("name",), "mcp": ("server_label", "server_url")}
#: Types of content that each role may have.
_CONTENT: Final[Mapping[str, tuple[str, ...]]] = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio"),
    "assistant": ("output_text", "output_audio"),
}


#: Tokens of the instructions, and of each item of text.
_TEXT_TOKENS: Final = 50
#: Mu-law bytes of one token of the caller's audio, 100 ms, and of the agent's, 50 ms.
_HEARD_BYTES: Final = 800
_SPOKEN_BYTES: Final = 400


class SettingsError(Exception):
    """Invalid session.update, with the API's error code and parameter."""

    def __init__(self, code: str, message: str, param: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True)
class SessionSettings:
    """Settings of a session. The defaults are the API's."""

    input_format: str = "audio/pcm"
    output_format: str = "audio/pcm"
    vad: bool = True
    silence_ms: int = 500
    padding_ms: int = 300
    create_response: bool = True
    interrupt_response: bool = True
    transcribe: bool = False

    @property
    def is_pcmu(self) -> bool:
        """True for mu-law in both directions, the only audio this twin has."""
        return self.input_format == self.output_format == PCMU


def _table(value: object, keys: frozenset[str], where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError("invalid_type", f"Invalid type for '{where}': expected an object.", where)
    for key in value:
        if key not in keys:
            raise SettingsError("unknown_parameter", f"Unknown parameter: '{where}.{key}'.", f"{where}.{key}")
    return value


def _format(value: Mapping[str, Any], where: str) -> str:
    named = value.get("format", {"type": "audio/pcm"})
    kind = named.get("type") if isinstance(named, dict) else None
    if kind not in _FORMATS:
        raise SettingsError("invalid_value", f"Invalid value: '{where}.format' must be one of {_FORMATS}.", f"{where}.format")
    return str(kind)


def settings_of(session: object) -> SessionSettings:
    """Parse the `session` of a session.update. Raises SettingsError."""
    if not isinstance(session, dict) or session.get("type") != "realtime":
        raise SettingsError("missing_required_parameter", "Missing required parameter: 'session.type'.", "session.type")
    whole = _table(session, _SESSION_KEYS, "session")
    if whole.get("output_modalities", ["audio"]) not in (["audio"], ["text"]):
        raise SettingsError("invalid_value", "Invalid modalities: ['audio'] or ['text'].", "session.output_modalities")
    audio = _table(whole.get("audio"), frozenset({"input", "output"}), "session.audio")
    heard = _table(audio.get("input"), _INPUT_KEYS, "session.audio.input")
    spoken = _table(audio.get("output"), _OUTPUT_KEYS, "session.audio.output")
    vad = _table(heard.get("turn_detection", {}), _VAD_KEYS, "session.audio.input.turn_detection")
    if vad.get("type", "server_vad") not in ("server_vad", "semantic_vad"):
        where = "session.audio.input.turn_detection.type"
        raise SettingsError("invalid_value", f"Invalid value: '{vad.get('type')}'.", where)
    for tool in whole.get("tools", []):
        kind = tool.get("type") if isinstance(tool, dict) else None
        for name in _TOOL_KEYS.get(str(kind), ("type",)):
            if not isinstance(tool, dict) or not tool.get(name):
                message = f"Missing required parameter: 'session.tools[].{name}'."
                raise SettingsError("missing_required_parameter", message, "session.tools")
    return SessionSettings(
        input_format=_format(heard, "session.audio.input"),
        output_format=_format(spoken, "session.audio.output"),
        vad=heard.get("turn_detection", {}) is not None,
        silence_ms=int(vad.get("silence_duration_ms", 500)),
        padding_ms=int(vad.get("prefix_padding_ms", 300)),
        create_response=bool(vad.get("create_response", True)),
        interrupt_response=bool(vad.get("interrupt_response", True)),
        transcribe=heard.get("transcription") is not None,
    )


def item_problem(item: object, taken: Container[str], calls: Container[str]) -> str | None:
    """Return the error of an item that a client adds, or None. `taken`: ids in use; `calls`: known call_ids."""
    if not isinstance(item, dict) or item.get("type") not in _ITEM_TEXTS:
        return "Invalid 'item.type'."
    item_id, kind = item.get("id"), item["type"]
    if item_id is not None and (not isinstance(item_id, str) or not 0 < len(item_id) <= MAX_ID_CHARS or item_id in taken):
        return f"Invalid 'item.id': expected a new id of at most {MAX_ID_CHARS} characters."
    for name in _ITEM_TEXTS[kind]:
        if not isinstance(item.get(name), str):
            return f"Missing required parameter: 'item.{name}'."
    if kind == "function_call_output" and item["call_id"] not in calls:
        return f"Tool call ID '{item['call_id']}' not found in conversation."
    if kind == "message":
        content = item.get("content")
        accepted = _CONTENT.get(item["role"], ())
        if not isinstance(content, list) or not all(isinstance(part, dict) and part.get("type") in accepted for part in content):
            return f"Invalid 'item.content': role '{item['role']}' takes {accepted}."
    return None


def error(kind: str, code: str | None, message: str, param: str | None = None, event_id: str | None = None) -> Event:
    """Build an error event. `event_id`: the client event at fault, if it had an id."""
    body = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
    return {"type": "error", "error": body}


def message_item(item_id: str, status: str, role: str = "assistant", words: str | None = None) -> Event:
    """Build a message of the conversation, with a transcript if `words` are known."""
    kind = "output_audio" if role == "assistant" else "input_audio"
    content = [] if words is None else [{"type": kind, "transcript": words}]
    return {"id": item_id, "object": "realtime.item", "type": "message", "status": status, "role": role, "content": content}


def created(sent: SentResponse) -> Iterator[Event]:
    """Yield the events of a response's beginning."""
    yield {"type": "response.created", "response": response(sent, [])}
    yield {"type": "rate_limits.updated", "rate_limits": [{"name": "tokens", "limit": 40000, "remaining": 39000}]}


def opening(sent: SentResponse, part_kind: str = "audio") -> Iterator[Event]:
    """Yield the events before the first delta of a response's item."""
    item = message_item(sent.item_id, "in_progress")
    part = {"type": "text", "text": ""} if part_kind == "text" else {"type": "audio", "transcript": ""}
    yield {"type": "response.output_item.added", "response_id": sent.response_id, "output_index": 0, "item": item}
    yield {"type": "conversation.item.added", "previous_item_id": None, "item": item}
    yield {"type": "response.content_part.added", **_place(sent), "part": part}


def audio_delta(sent: SentResponse, audio: str) -> Event:
    return {"type": "response.output_audio.delta", **_place(sent), "delta": audio}


def words_delta(sent: SentResponse, words: str) -> Event:
    return {"type": "response.output_audio_transcript.delta", **_place(sent), "delta": words}


def text_answer(sent: SentResponse) -> Iterator[Event]:
    """Yield the item of a response that has text in place of audio."""
    part = {"type": "text", "text": sent.words}
    content = [{"type": "output_text", "text": sent.words}]
    item = {**message_item(sent.item_id, "completed"), "content": content}
    yield from opening(sent, "text")
    yield {"type": "response.output_text.delta", **_place(sent), "delta": sent.words}
    yield {"type": "response.output_text.done", **_place(sent), "text": sent.words}
    yield {"type": "response.content_part.done", **_place(sent), "part": part}
    yield {"type": "response.output_item.done", "response_id": sent.response_id, "output_index": 0, "item": item}
    yield {"type": "conversation.item.done", "previous_item_id": None, "item": item}


def ending(sent: SentResponse) -> Iterator[Event]:
    """Yield the events after a response's last delta, completed or cut off."""
    item = message_item(sent.item_id, "completed" if sent.status == "completed" else "incomplete", words=sent.words)
    part = {"type": "audio", "transcript": sent.words}
    yield {"type": "response.output_audio.done", **_place(sent)}
    yield {"type": "response.output_audio_transcript.done", **_place(sent), "transcript": sent.words}
    yield {"type": "response.content_part.done", **_place(sent), "part": part}
    yield {"type": "response.output_item.done", "response_id": sent.response_id, "output_index": 0, "item": item}
    yield {"type": "conversation.item.done", "previous_item_id": None, "item": item}


def function_call(sent: SentResponse, item: Event, index: int, pieces: int = 1) -> Iterator[Event]:
    """Yield the events of a tool call, item `index` of the response. `item`: the completed one. `pieces`: of its arguments."""
    place = {"response_id": sent.response_id, "item_id": item["id"], "output_index": index, "call_id": item["call_id"]}
    added = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "response_id": sent.response_id, "output_index": index, "item": added}
    yield {"type": "conversation.item.added", "previous_item_id": sent.item_id, "item": added}
    size = max(1, -(-len(item["arguments"]) // pieces))
    for at in range(0, len(item["arguments"]) or 1, size):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"][at : at + size]}
    yield {
        "type": "response.function_call_arguments.done",
        **place,
        "name": item["name"],
        "arguments": item["arguments"],
    }
    yield {"type": "response.output_item.done", "response_id": sent.response_id, "output_index": index, "item": item}
    yield {"type": "conversation.item.done", "previous_item_id": sent.item_id, "item": item}


def mcp_item(item_id: str, kind: str, tool: McpTool, **more: object) -> Event:
    """Build an item of a remote MCP server: a question about a call, or the call."""
    named = {"name": tool.name, "server_label": tool.server_label, "arguments": tool.arguments}
    return {"id": item_id, "object": "realtime.item", "type": kind, **named, **more}


def mcp_approval(sent: SentResponse, item: Event, index: int) -> Iterator[Event]:
    """Yield the events of a question about a call, item `index` of the response."""
    for kind in ("response.output_item.added", "response.output_item.done"):
        yield {"type": kind, "response_id": sent.response_id, "output_index": index, "item": item}
    yield {"type": "conversation.item.done", "previous_item_id": sent.item_id, "item": item}


def mcp_begins(response_id: str, item: Event) -> Iterator[Event]:
    """Yield the events of an approved call that begins."""
    yield {"type": "response.output_item.added", "response_id": response_id, "output_index": 0, "item": item}
    yield {"type": "response.mcp_call.in_progress", "item_id": item["id"], "output_index": 0}


def mcp_ends(response_id: str, item: Event) -> Iterator[Event]:
    """Yield the events of a call that ended. `item`: with its output or error."""
    kind = "failed" if item.get("error") else "completed"
    yield {"type": f"response.mcp_call.{kind}", "item_id": item["id"], "output_index": 0}
    yield {"type": "response.output_item.done", "response_id": response_id, "output_index": 0, "item": item}


def response(sent: SentResponse, output: list[Event], failure: Event | None = None) -> Event:
    """Build a response's description, with its usage once it has ended. `failure`: its error."""
    details: Event | None = {"type": sent.status, "reason": sent.reason} if sent.reason else None
    if failure is not None:
        details = {"type": sent.status, "error": failure}
    return {
        "object": "realtime.response",
        "id": sent.response_id,
        "status": sent.status,
        "status_details": details,
        "output": output,
        "output_modalities": ["audio"],
        "usage": None if sent.is_active else sent.usage,
    }


def usage_of(sent: SentResponse, heard_bytes: int, items: int, before: SentResponse | None) -> Event:
    """Build the usage of a response: the whole conversation goes in, and what went into the one before is cached.

    `heard_bytes`: of the caller's audio so far. `items`: of the conversation.
    """
    text, audio = _TEXT_TOKENS * (1 + items), heard_bytes // _HEARD_BYTES
    earlier: Mapping[str, Any] = before.usage["input_token_details"] if before and before.usage else {}
    cached_text, cached_audio = min(text, earlier.get("text_tokens", 0)), min(audio, earlier.get("audio_tokens", 0))
    text_out, audio_out = len(sent.words) // 4, len(sent.audio) // _SPOKEN_BYTES
    return {
        "total_tokens": text + audio + text_out + audio_out,
        "input_tokens": text + audio,
        "output_tokens": text_out + audio_out,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": audio,
            "image_tokens": 0,
            "cached_tokens": cached_text + cached_audio,
            "cached_tokens_details": {"text_tokens": cached_text, "audio_tokens": cached_audio, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
    }


def transcription_usage(ms: int, words: str) -> Event:
    """Build the usage of a transcription, by its own model."""
    audio, text = ms // 100, len(words) // 4 + 1
    details = {"text_tokens": 0, "audio_tokens": audio}
    tokens = {"input_tokens": audio, "output_tokens": text, "total_tokens": audio + text}
    return {"type": "tokens", **tokens, "input_token_details": details}


def token_limit(limit: int, used: int) -> Event:
    """Build the report of the tokens left in this minute."""
    left = max(0, limit - used)
    name = {"name": "tokens", "limit": limit, "remaining": left, "reset_seconds": round((limit - left) / limit * 60, 3)}
    return {"type": "rate_limits.updated", "rate_limits": [name]}


def _place(sent: SentResponse) -> Event:
    return {"response_id": sent.response_id, "item_id": sent.item_id, "output_index": 0, "content_index": 0}


def beta(event: Event) -> Event:
    """Return the event under its name in the retired beta."""
    kind = str(event["type"])
    if kind == "session.updated":
        flat = {"id": event["session"].get("id"), "input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"}
        return {**event, "session": flat}
    if kind == "conversation.item.added":
        return {**event, "type": "conversation.item.created"}
    return {**event, "type": kind.replace("response.output_audio", "response.audio")}


class IdMaker:
    """Generates the ids of one session, the same in each run."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._numbers = itertools.count(1)

    def new(self, kind: str) -> str:
        """Return the next id, such as `item_0003_0012`."""
        return f"{kind}_{self._session:04}_{next(self._numbers):06}"
