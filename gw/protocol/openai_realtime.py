"""OpenAI Realtime in its GA shape, as a dialect: its server events as ours, ours as its client events.

One typed decode into a flat shape with optional fields reads a message; parts only some events need stay raw until one does.
The table `_EVENTS` says which event types mean something to us, everything else is `Ignored`, because new types appear without
notice. Mu-law must be confirmed both ways before audio may flow: a session that echoes another format would be noise. Speaks
the GA shape only; the retired beta shape is named as such. Never counts time, never decides when a response is due.

Source: the types of the openai package 3.54.0 (`openai.types.realtime`); OpenAI docs, "Realtime API".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import msgspec

from gw.config import Agent
from gw.errors import ProtocolError
from gw.protocol import ai, audio, wire
from gw.protocol import openai_shapes as shapes

#: The type of audio both directions must be confirmed with: G.711 mu-law, 8 kHz, mono, no rate named.
PCMU: Final = "audio/pcmu"

#: Two sides that act at once: our request crossed an event of the AI's. Nothing is wrong.
BENIGN_ERRORS: Final = frozenset(
    {
        "conversation_already_has_active_response",  # its voice detection began a response just before ours
        "response_cancel_not_active",  # the response ended just before our cancel
        "input_audio_buffer_commit_empty",  # its voice detection committed just before us
    }
)
#: This session is over; another is not concerned.
SESSION_EXPIRED: Final = "session_expired"
#: Too many requests or tokens in a minute: an error event, or why a response failed.
RATE_LIMITED: Final = "rate_limit_exceeded"
#: Nothing we could send would let this session go on.
FATAL_ERRORS: Final = frozenset(
    {
        SESSION_EXPIRED,  # the maximum duration, 60 minutes
        "invalid_api_key",  # no retry changes a key
        "insufficient_quota",  # every further response would fail alike
        "beta_api_shape_disabled",  # the endpoint took us for a client of the retired shape
    }
)
#: A turn's words, kept: minutes of speech without a breath, and what a database column holds in any script.
MAX_TRANSCRIPT_CHARS: Final = 16_000
#: The client event whose refusal is fatal as well: without our session there is no mu-law.
_SESSION_UPDATE: Final = "session.update"
#: And the one whose refusal leaves us without the response we would wait for.
_RESPONSE_CREATE: Final = "response.create"

_T = TypeVar("_T")


def parse(data: str | bytes) -> ai.AiEvent:
    """One text message from the AI.

    Raises: ProtocolError(bad_utf8, bad_json, bad_type, missing_field, bad_base64, wrong_format), never another error.
    """
    text = wire.decode_text(data)
    try:
        event = wire.decode(shapes.EVENT, text)
    except msgspec.ValidationError as error:
        return _ignored(text, error)
    handler = _EVENTS.get(event.type)
    return ai.Ignored(wire.short(event.type)) if handler is None else handler(event)


def _ignored(text: str | bytes, error: msgspec.ValidationError) -> ai.Ignored:
    """What a message is that does not fit: an event we have no use for, or one of ours gone wrong."""
    try:
        head = wire.decode(shapes.HEAD, text)
    except msgspec.ValidationError as head_error:
        wire.refuse(head_error)
    if head.type in _EVENTS:
        wire.refuse(error)
    return ai.Ignored(wire.short(head.type))


def _needed(value: _T | None, name: str) -> _T:
    if value is None:
        raise ProtocolError("missing_field", f"no `{name}`")
    return value


def _part(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw, name: str) -> _T:
    """A part of the message that was kept raw, typed."""
    if not raw:
        raise ProtocolError("missing_field", f"no `{name}`")
    try:
        return wire.decode(decoder, raw)
    except msgspec.ValidationError as error:
        wire.refuse(error, name)


# -- one handler per event type ---------------------------------------------------------------------------------------


def _session_created(event: shapes.Event) -> ai.SessionCreated:
    return ai.SessionCreated(_part(shapes.SESSION, event.session, "session").expires_at or 0.0)


def _session_updated(event: shapes.Event) -> ai.SessionReady:
    confirmed = _part(shapes.SESSION, event.session, "session").audio
    for name, direction in (("input", confirmed and confirmed.input), ("output", confirmed and confirmed.output)):
        named = direction.format if direction else None
        kind = named.type if isinstance(named, shapes.Format) else named
        if kind != PCMU:
            raise ProtocolError("wrong_format", wire.short(f"the session's {name} is {kind or 'not confirmed'}, not {PCMU}"))
    return ai.SessionReady()


def _response_created(event: shapes.Event) -> ai.ResponseStarted:
    return ai.ResponseStarted(_part(shapes.RESPONSE, event.response, "response").id or "")


def _response_done(event: shapes.Event) -> ai.ResponseDone:
    response = _part(shapes.RESPONSE, event.response, "response")
    details = response.status_details or shapes.StatusDetails()
    detail = details.reason or ""
    limited = details.error is not None and RATE_LIMITED in (details.error.code, details.error.type)
    if details.error is not None:
        detail = ": ".join(filter(None, (details.error.code or details.error.type, details.error.message)))
    status = _STATUSES.get(response.status or "completed")
    if status is None:
        return ai.ResponseDone(response.id or "", "failed", wire.short(f"status {response.status}: {detail}"))
    return ai.ResponseDone(response.id or "", status, wire.short(detail), limited)


def _audio_delta(event: shapes.Event) -> ai.AudioDelta:
    return ai.AudioDelta(
        _needed(event.response_id, "response_id"),
        _needed(event.item_id, "item_id"),
        audio.decode_base64(_needed(event.delta, "delta")),
    )


def _transcript(event: shapes.Event) -> str:
    return _needed(event.transcript, "transcript")[:MAX_TRANSCRIPT_CHARS]


def _agent_transcript(event: shapes.Event) -> ai.AgentTranscript:
    return ai.AgentTranscript(
        _needed(event.response_id, "response_id"),
        _needed(event.item_id, "item_id"),
        _transcript(event),
    )


def _agent_words(event: shapes.Event) -> ai.AgentTranscriptDelta:
    return ai.AgentTranscriptDelta(_needed(event.item_id, "item_id"), _needed(event.delta, "delta"))


def _caller_transcript(event: shapes.Event) -> ai.CallerTranscript:
    return ai.CallerTranscript(_needed(event.item_id, "item_id"), _transcript(event))


def _speech_started(event: shapes.Event) -> ai.SpeechStarted:
    return ai.SpeechStarted(_needed(event.item_id, "item_id"), _needed(event.audio_start_ms, "audio_start_ms"))


def _speech_stopped(event: shapes.Event) -> ai.SpeechStopped:
    return ai.SpeechStopped(_needed(event.item_id, "item_id"), _needed(event.audio_end_ms, "audio_end_ms"))


def _item_done(event: shapes.Event) -> ai.ToolCall | ai.Ignored:
    """A function call counts once its item is completed: that is earliest, and leaves out the ones cut short."""
    item = _part(shapes.ITEM, event.item, "item")
    if item.type != "function_call" or item.status != "completed":
        return ai.Ignored(event.type)
    return ai.ToolCall(
        _needed(event.response_id, "response_id"),
        item.id or "",
        _needed(item.call_id, "item.call_id"),
        _needed(item.name, "item.name"),
        _needed(item.arguments, "item.arguments"),
    )


def _ai_error(event: shapes.Event) -> ai.AiError:
    body = _part(shapes.ERROR, event.error, "error")
    code = body.code or body.type or "unknown"
    event_id = wire.short(body.event_id or "")
    refused_session = event_id.startswith(_event_id(_SESSION_UPDATE, ""))
    benign = code in BENIGN_ERRORS
    fatal = not benign and (code in FATAL_ERRORS or refused_session)
    return ai.AiError(
        wire.short(code),
        wire.short(body.message or ""),
        event_id,
        benign,
        fatal,
        not benign and event_id.startswith(_event_id(_RESPONSE_CREATE, "")),
        fatal and code not in (SESSION_EXPIRED, RATE_LIMITED),
        RATE_LIMITED in (code, body.type),
    )


def _beta_audio(event: shapes.Event) -> ai.AiEvent:
    raise ProtocolError("wrong_format", f"{event.type}: the endpoint speaks the retired beta shape of Realtime, not GA")


_STATUSES: Final[dict[str, ai.ResponseStatus]] = {
    "completed": "completed",
    "cancelled": "cancelled",
    "incomplete": "incomplete",
    "failed": "failed",
}

_EVENTS: Final[dict[str, Callable[[shapes.Event], ai.AiEvent]]] = {
    "session.created": _session_created,
    "session.updated": _session_updated,
    "response.created": _response_created,
    "response.done": _response_done,
    "response.output_audio.delta": _audio_delta,
    "response.output_audio_transcript.done": _agent_transcript,
    "response.output_audio_transcript.delta": _agent_words,
    "response.output_item.done": _item_done,
    "conversation.item.input_audio_transcription.completed": _caller_transcript,
    "input_audio_buffer.speech_started": _speech_started,
    "input_audio_buffer.speech_stopped": _speech_stopped,
    "error": _ai_error,
    "response.audio.delta": _beta_audio,
}


# -- to the AI --------------------------------------------------------------------------------------------------------

#: Around a payload of base64: the caller's audio goes up as Twilio wrote it. Never acknowledged, so it carries no event_id.
APPEND_PREFIX: Final = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_SUFFIX: Final = b'"}'

_HANG_UP: Final = {
    "type": "function",
    "name": ai.HANG_UP_TOOL,
    "description": "Ends the call. Say goodbye first; the caller hears it to its end.",
    "parameters": {"type": "object", "properties": {}},
}


def append(payload: str) -> bytes:
    """Caller audio, base64 that `audio.is_base64` took."""
    return APPEND_PREFIX + payload.encode("ascii") + APPEND_SUFFIX


def url(base_url: str, model: str) -> str:
    """Where to connect. A query of the base URL stays, and a model it names already wins."""
    parts = urlsplit(base_url)
    if not model or any(name == "model" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return base_url
    return urlunsplit(parts._replace(query=f"{parts.query}&model={quote(model)}".lstrip("&")))


def headers(api_key: str) -> list[tuple[str, str]]:
    """What the handshake carries besides RFC 6455's own."""
    return [("Authorization", f"Bearer {api_key}")]


def _event_id(kind: str, n: int | str) -> str:
    return f"{kind.replace('.', '_')}-{n}"


class Dialect:
    """One session's client events, numbered: an error of the AI's names the one it means, and its kind."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def session_update(self, agent: Agent) -> bytes:
        """The session: mu-law both ways, the caller's turns found by the AI, our one tool."""
        transcription = {"model": agent.transcription_model} if agent.transcription_model else None
        turn_detection = {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": agent.silence_ms,
            "create_response": True,
            "interrupt_response": True,
            "idle_timeout_ms": None,
        }
        session = {
            "type": "realtime",
            "model": agent.model,
            "output_modalities": ["audio"],
            "instructions": agent.instructions,
            "audio": {
                "input": {
                    "format": {"type": PCMU},
                    "noise_reduction": None,
                    "transcription": transcription,
                    "turn_detection": turn_detection,
                },
                "output": {"format": {"type": PCMU}, "voice": agent.voice, "speed": 1.0},
            },
            "tools": [_HANG_UP],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
        }
        return self._build(_SESSION_UPDATE, {"session": session})

    def response_create(self, instructions: str | None = None) -> bytes:
        """Ask for a response, told how, or as the conversation stands."""
        return self._build(_RESPONSE_CREATE, {} if instructions is None else {"response": {"instructions": instructions}})

    def truncate(self, item_id: str, audio_end_ms: int) -> bytes:
        """Tell the AI how much of an item was heard. More than it sent is an error of its own."""
        return self._build("conversation.item.truncate", {"item_id": item_id, "content_index": 0, "audio_end_ms": audio_end_ms})

    def tool_output(self, call_id: str, output: str) -> bytes:
        """A tool's answer; a response has to be asked for separately."""
        return self._build(
            "conversation.item.create", {"item": {"type": "function_call_output", "call_id": call_id, "output": output}}
        )

    def user_text(self, text: str) -> bytes:
        """Something the caller did that is no speech, as text; a response has to be asked for separately."""
        content = [{"type": "input_text", "text": text}]
        return self._build("conversation.item.create", {"item": {"type": "message", "role": "user", "content": content}})

    def restate_turn(self, role: str, text: str) -> bytes:
        """A turn of an earlier session, `role` caller or agent, as part of this conversation."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        if role == "agent":
            item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        return self._build("conversation.item.create", {"item": item})

    def _build(self, kind: str, fields: dict[str, object]) -> bytes:
        self._count += 1
        return msgspec.json.encode({"type": kind, "event_id": _event_id(kind, self._count), **fields})
