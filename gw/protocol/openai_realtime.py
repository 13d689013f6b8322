"""OpenAI Realtime, GA shape: its server events to `gw.protocol.ai`, our requests to its client events.

A message is decoded once, into a flat struct with optional fields; parts that only some events need stay raw until then. Event
types missing from `_EVENTS` become `ResponseAlive` or `Ignored`, because new types appear without notice. A session that names
another format than mu-law is refused: it would be noise. So is the retired beta shape. No timers; `gw.call.dialogue` decides when
a response is due.

Source: the types of the openai package 3.54.0 (`openai.types.realtime`); OpenAI docs, "Realtime API".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Final, TypeVar, get_args
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

import msgspec

from gw.config import Agent, Tool, Turns
from gw.errors import ProtocolError
from gw.protocol import ai, audio, wire

#: The audio type both directions must confirm: G.711 mu-law, 8 kHz, mono; the type has no rate field.
PCMU: Final = "audio/pcmu"

#: Races: our request crossed an event of the AI.
BENIGN_ERRORS: Final = frozenset(
    {
        "response_cancel_not_active",  # the response ended just before our cancel
        "input_audio_buffer_commit_empty",  # its voice detection committed just before us
    }
)
#: The AI began a response just before our request for one. Compatible servers may leave the code out.
CROSSED: Final = "conversation_already_has_active_response"
_CROSSED_TEXT: Final = "already has an active response"
#: This session is over; another can be opened.
SESSION_EXPIRED: Final = "session_expired"
#: Too many requests or tokens in a minute: the code of an error event, or of a failed response.
RATE_LIMITED: Final = "rate_limit_exceeded"
#: Every further request would fail alike.
LASTING_ERRORS: Final = frozenset(
    {
        "invalid_api_key",  # no retry changes a key
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "model_not_found",
        "beta_api_shape_disabled",  # the endpoint took us for a client of the retired shape
    }
)
#: Kept length of a turn's text: minutes of speech without a breath, and within a database column in any script.
MAX_TRANSCRIPT_CHARS: Final = 16_000
#: A refusal of this client event is fatal: without our session there is no mu-law.
_SESSION_UPDATE: Final = "session.update"
#: A refusal of this client event means that no response will come.
_RESPONSE_CREATE: Final = "response.create"
#: Refusals of these client events are races: the AI no longer has the item or the response.
_CORRECTIONS: Final = ("conversation.item.truncate", "conversation.item.delete", "response.cancel")

#: The pause in a rate limit's message: "try again in 4s", "in 350ms", "in 1m2.5s".
_PAUSE: Final = re.compile(r"again in ((?:\d{1,6}(?:\.\d{1,6})? ?(?:milli|ms|h|m|s))+)")
_PAUSE_PART: Final = re.compile(r"([\d.]+) ?(milli|ms|h|m|s)")
_UNIT_MS: Final = {"milli": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

_T = TypeVar("_T")

# -- the wire's own shapes: all fields but the type are optional, as in the openai package; handlers check for missing ones ---

_NONE: Final = msgspec.Raw()
_NULL: Final = msgspec.Raw(b"null")
#: Names of items, responses, calls and tools, kept and sent back, hence bounded. OpenAI's are below 40.
_Id = Annotated[str, msgspec.Meta(max_length=1024)]
#: The longest offset in the audio. A session lasts an hour; the bound is a database column's.
_MAX_MS: Final = 2**31 - 1
#: Tokens of one response: a thousand times a context window. More is not a number of tokens.
_MAX_TOKENS: Final = 10**9
#: The latest end of a session, in the year 2286. A session lasts an hour.
_MAX_EXPIRES_AT: Final = 1e10
#: A limit by the minute is whole again after a minute; some are by the day.
_MAX_RESET_S: Final = 86_400.0


class _Event(msgspec.Struct):
    type: str
    response_id: _Id | None = None
    item_id: _Id | None = None
    delta: str | None = None
    transcript: str | None = None
    audio_start_ms: float | None = None  # some servers' whole numbers have a fraction
    session: msgspec.Raw = _NONE
    response: msgspec.Raw = _NONE
    item: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE
    usage: msgspec.Raw = _NONE
    rate_limits: msgspec.Raw = _NONE


class _Head(msgspec.Struct):
    kind: str = msgspec.field(name="type")


class _Format(msgspec.Struct):
    type: str | None = None


class _Direction(msgspec.Struct):
    format: _Format | str | None = None  # a plain string is the beta shape's


class _Audio(msgspec.Struct):
    input: _Direction | None = None
    output: _Direction | None = None


class _Session(msgspec.Struct):
    audio: _Audio | None = None
    input_audio_format: str | None = None  # the beta shape's
    output_audio_format: str | None = None
    expires_at: float | None = None


class _ErrorBody(msgspec.Struct):
    """OpenAI's is an object; compatible servers send a string or null, and numbers as codes."""

    type: str | float | None = None
    code: str | float | None = None
    message: str | None = None
    event_id: str | None = None


class _StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: _ErrorBody | str | None = None


class _Response(msgspec.Struct):
    id: _Id | None = None
    status: str | None = None
    status_details: _StatusDetails | None = None
    usage: msgspec.Raw = _NONE


class _Cached(msgspec.Struct):
    text_tokens: float | None = None
    audio_tokens: float | None = None


class _Details(_Cached):
    cached_tokens: float | None = None
    cached_tokens_details: _Cached | None = None


class _Usage(msgspec.Struct):
    """Of a response, or of a transcription, which has no output details. Some servers report seconds instead."""

    input_tokens: float | None = None
    output_tokens: float | None = None
    input_token_details: _Details | None = None
    output_token_details: _Cached | None = None


class _RateLimit(msgspec.Struct):
    name: str | None = None
    limit: float | None = None
    remaining: float | None = None
    reset_seconds: float | None = None


class _Item(msgspec.Struct):
    type: str
    id: _Id | None = None
    status: str | None = None
    call_id: _Id | None = None
    name: _Id | None = None
    arguments: str | None = None
    server_label: _Id | None = None
    error: msgspec.Raw = _NONE


_event: Final = msgspec.json.Decoder(_Event)
_head: Final = msgspec.json.Decoder(_Head)
_session: Final = msgspec.json.Decoder(_Session)
_response: Final = msgspec.json.Decoder(_Response)
_item: Final = msgspec.json.Decoder(_Item)
_error: Final = msgspec.json.Decoder(_ErrorBody | str | None)
_usage: Final = msgspec.json.Decoder(_Usage | None)
_rate_limits: Final = msgspec.json.Decoder(list[_RateLimit])


# -- from the AI ------------------------------------------------------------------------------------------------------

#: The longest event decoded in one slice, 0.5 ms at worst. The longest documented ones are a tenth of it.
MAX_EVENT_BYTES: Final = 96 << 10
#: Base64 of one piece of a long audio delta: whole groups of four characters, decoded in 0.1 ms.
_PIECE_BYTES: Final = 24 << 10
_DELTA: Final = re.compile(rb'[{,]\s*"delta"\s*:\s*"')
_DONE: Final = b'"response.done"'
#: Identifier and status of a response, before its output.
_ENDED: Final = re.compile(rb'"(id|status)"\s*:\s*("[\w-]{1,128}")')
#: Its usage, behind the output: objects of numbers, three deep. In a text its quotation marks would have backslashes.
_USED: Final = re.compile(rb'(?<!\\)"usage"\s*:\s*(\{[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}[^{}]*+)*+\})')
_INSTRUCTIONS: Final = re.compile(rb'"instructions" ?: ?"')
#: The longest delta kept, minutes of audio: it is searched in one slice, and its memory is returned in one.
MAX_DELTA_BYTES: Final = 3 << 20
_AUDIO: Final = b'"response.output_audio.delta"'
#: Quotation marks looked at in instructions, 0.5 us each.
_MAX_QUOTES: Final = 400
#: A delta's other fields come before or behind its audio.
_FIELDS_BYTES: Final = 4096


def may_skip(begun: bytearray) -> bool:
    """Return True for the beginning of a very long event that is not needed: any but minutes of audio, or a response's end."""
    head = begun[:_FIELDS_BYTES]
    is_audio = _DELTA.search(head) is not None and (_AUDIO in head or b'"type"' not in head)
    return len(begun) > MAX_DELTA_BYTES or not (is_audio or _DONE in head)


def split(data: bytes | bytearray) -> Iterator[bytes]:
    """Split a long audio delta into shorter ones.

    A confirmed session loses its long instructions, which it repeats, and a response that ends its output. Other events over
    MAX_EVENT_BYTES are dropped: none is needed.

    Yields: messages for `parse`. One is a slice of the hub's time.
    """
    found = _DELTA.search(data, 0, _FIELDS_BYTES)
    if found is not None and _AUDIO in data[:_FIELDS_BYTES] + data[-_FIELDS_BYTES:]:
        start = found.end()
        end = data.find(b'"', start)
        if len(data) - end < _FIELDS_BYTES and data.find(b"\\", start, end) < 0:
            for at in range(start, end, _PIECE_BYTES):
                yield b"".join((data[:start], data[at : min(at + _PIECE_BYTES, end)], data[end:]))
            return
    if len(data) > MAX_EVENT_BYTES and b'"session.updated"' in data[:_FIELDS_BYTES]:
        data = _without_instructions(data)
    elif len(data) > MAX_EVENT_BYTES and _DONE in data[:_FIELDS_BYTES]:
        data = _without_output(data)
    if len(data) <= MAX_EVENT_BYTES:
        yield bytes(data)


def _without_instructions(data: bytes | bytearray) -> bytes | bytearray:
    """Cut the text of the instructions out of a session, unless it has too many quotation marks."""
    found = _INSTRUCTIONS.search(data, 0, MAX_EVENT_BYTES)
    if found is None:
        return data
    start = end = found.end()
    for _ in range(_MAX_QUOTES):
        end = data.find(b'"', end)
        if end < 0:
            break
        before = data[max(start, end - 16) : end]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return data[:start] + data[end:]
        end += 1
    return data


def _without_output(data: bytes | bytearray) -> bytes:
    """Return a response's end with identifier, status and usage. Without the first two before the output it cannot be read."""
    head = data[:_FIELDS_BYTES].partition(b'"output"')[0].partition(b'"response"')[2]
    fields = dict(reversed(_ENDED.findall(head)))
    is_whole = len(fields) == 2
    if usage := _USED.findall(bytes(data[-_FIELDS_BYTES:])):
        fields[b"usage"] = usage[-1]
    response = b"{%s}" % b",".join(b'"%s":%s' % field for field in fields.items())
    return b'{"type":%s,"response":%s}' % (_DONE, response if is_whole else b"null")


def parse(data: str | bytes) -> ai.AiEvent:
    """Parse one text message from the AI. Half a surrogate pair is read as U+FFFD.

    Raises: ProtocolError(bad_utf8, bad_json, bad_type, missing_field, bad_base64, wrong_format), never another error.
    """
    try:
        return _parse(data)
    except ProtocolError as error:
        if error.code != "bad_json" or isinstance(data, str) or (mended := wire.without_halves(data)) is data:
            raise
    return _parse(mended)


def _parse(data: str | bytes) -> ai.AiEvent:
    text = wire.decode_text(data)
    try:
        event = wire.decode(_event, text)
    except msgspec.ValidationError as error:
        return ai.Ignored(wire.unknown_kind(_head, text, _EVENTS, error))
    handler = _EVENTS.get(event.type)
    if handler is not None:
        return handler(event)
    return _response_alive(event) if event.type.startswith("response.") else ai.Ignored(wire.short(event.type))


def _needed(value: _T | None, name: str) -> _T:
    if value is None:
        raise ProtocolError("missing_field", f"no `{name}`")
    return value


def _part(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw, name: str) -> _T:
    if not raw:
        raise ProtocolError("missing_field", f"no `{name}`")
    try:
        return wire.decode(decoder, raw)
    except msgspec.ValidationError as error:
        wire.refuse(error, name)


def _session_created(event: _Event) -> ai.SessionCreated:
    """An end that cannot be one is read as 0."""
    expires_at = _part(_session, event.session, "session").expires_at or 0.0
    return ai.SessionCreated(expires_at if 0 <= expires_at <= _MAX_EXPIRES_AT else 0.0)


def _session_updated(event: _Event) -> ai.SessionReady:
    """A format that is left out remains as requested."""
    session = _part(_session, event.session, "session")
    confirmed = session.audio or _Audio()
    for name, direction, flat in (
        ("input", confirmed.input, session.input_audio_format),
        ("output", confirmed.output, session.output_audio_format),
    ):
        named = direction.format if direction else flat
        kind = named.type if isinstance(named, _Format) else named
        if kind and kind != PCMU:
            raise ProtocolError("wrong_format", wire.short(f"the session's {name} is {kind}, not {PCMU}"))
    return ai.SessionReady()


def _response_created(event: _Event) -> ai.ResponseStarted:
    return ai.ResponseStarted(_part(_response, event.response, "response").id or "")


def _response_alive(event: _Event) -> ai.ResponseAlive:
    return ai.ResponseAlive(event.response_id or "")


def _response_done(event: _Event) -> ai.ResponseDone:
    response = _part(_response, event.response, "response")
    details = response.status_details or _StatusDetails()
    error = _body_of(details.error)
    code = _code_of(error)
    detail = ": ".join(filter(None, (code, error.message))) or details.reason or ""
    status = _STATUSES.get(response.status or "")
    if status is None:
        status, detail = "failed", f"status {response.status}: {detail}"
    tokens = _tokens(response.usage)
    if status != "failed":
        return ai.ResponseDone(response.id or "", status, wire.short(detail), tokens=tokens)
    trouble = _trouble(error)
    return ai.ResponseDone(response.id or "", status, wire.short(detail), trouble, _pause_ms(trouble, error.message), tokens)


def _tokens(raw: msgspec.Raw) -> ai.Tokens:
    """Return the tokens used. A usage that cannot be read costs itself, not the event that has it."""
    if not raw:
        return ai.NO_TOKENS
    try:
        usage = wire.decode(_usage, raw)
    except (msgspec.ValidationError, ProtocolError):
        return ai.NO_TOKENS
    if usage is None:
        return ai.NO_TOKENS
    into, out = usage.input_token_details or _Details(), usage.output_token_details or _Cached()
    audio = _count(into.audio_tokens)
    text = max(_count(into.text_tokens), _count(usage.input_tokens) - audio)  # what is not named is text
    cached = into.cached_tokens_details or _Cached()
    audio_cached = min(audio, _count(cached.audio_tokens))
    # without details the text was cached first: the instructions begin every conversation
    text_cached = _count(cached.text_tokens) if into.cached_tokens_details else min(text, _count(into.cached_tokens))
    if into.cached_tokens_details is None:
        audio_cached = min(audio, _count(into.cached_tokens) - text_cached)
    text_cached = min(text, text_cached)
    audio_out = _count(out.audio_tokens)
    text_out = max(_count(out.text_tokens), _count(usage.output_tokens) - audio_out)
    return ai.Tokens(text - text_cached, text_cached, text_out, audio - audio_cached, audio_cached, audio_out)


def _count(value: float | None) -> int:
    """Return a number of tokens; 0 for one that cannot be."""
    return int(value) if value is not None and 0 <= value <= _MAX_TOKENS else 0


def _rate_limits_updated(event: _Event) -> ai.TokenLimit | ai.Ignored:
    """Return the limit on tokens; limits of another shape are not needed."""
    try:
        limits = wire.decode(_rate_limits, event.rate_limits) if event.rate_limits else []
    except (msgspec.ValidationError, ProtocolError):
        limits = []
    for limit in limits:
        if limit.name == "tokens" and limit.limit is not None and limit.remaining is not None:
            reset_s = min(max(0.0, limit.reset_seconds or 0.0), _MAX_RESET_S)
            return ai.TokenLimit(_count(limit.limit), _count(limit.remaining), reset_s)
    return ai.Ignored(event.type)


def _body_of(error: _ErrorBody | str | None) -> _ErrorBody:
    return error if isinstance(error, _ErrorBody) else _ErrorBody(message=error)


def _code_of(error: _ErrorBody) -> str:
    name = error.type if error.code is None else error.code
    return name if isinstance(name, str) else "" if name is None else f"{name:g}"


def _trouble(error: _ErrorBody) -> ai.Trouble:
    """Classify an error that no race explains."""
    if RATE_LIMITED in (error.code, error.type):
        return "rate_limit"
    return "lasting" if error.code in LASTING_ERRORS or error.type in LASTING_ERRORS else "passing"


def _pause_ms(trouble: ai.Trouble, message: str | None) -> int:
    """Return the pause that a rate limit's message asks for; 0 if it names none."""
    found = _PAUSE.search(message) if trouble == "rate_limit" and message else None
    if found is None:
        return 0
    return round(sum(float(number) * _UNIT_MS[unit] for number, unit in _PAUSE_PART.findall(found[1])))


def _audio_delta(event: _Event) -> ai.AudioDelta:
    return ai.AudioDelta(
        event.response_id or "", _needed(event.item_id, "item_id"), audio.decode_base64(_needed(event.delta, "delta"))
    )


def _transcript(event: _Event) -> str:
    return _needed(event.transcript, "transcript")[:MAX_TRANSCRIPT_CHARS]


def _agent_transcript(event: _Event) -> ai.AgentTranscript:
    return ai.AgentTranscript(event.response_id or "", _needed(event.item_id, "item_id"), _transcript(event))


def _agent_transcript_delta(event: _Event) -> ai.AgentTranscriptDelta:
    return ai.AgentTranscriptDelta(event.response_id or "", _needed(event.item_id, "item_id"), _needed(event.delta, "delta"))


def _caller_transcript(event: _Event) -> ai.CallerTranscript:
    return ai.CallerTranscript(_needed(event.item_id, "item_id"), _transcript(event), _tokens(event.usage))


def _caller_transcript_failed(event: _Event) -> ai.CallerTranscriptFailed:
    error = _body_of(_part(_error, event.error, "error") if event.error else None)
    return ai.CallerTranscriptFailed(
        _needed(event.item_id, "item_id"), wire.short(_code_of(error) or "unknown"), wire.short(error.message or "")
    )


def _speech_started(event: _Event) -> ai.SpeechStarted:
    """The item counts more than the offset: an offset that cannot be one is read as 0."""
    start_ms = event.audio_start_ms or 0.0
    return ai.SpeechStarted(_needed(event.item_id, "item_id"), int(start_ms) if 0 <= start_ms <= _MAX_MS else 0)


def _speech_stopped(event: _Event) -> ai.SpeechStopped:
    return ai.SpeechStopped(_needed(event.item_id, "item_id"))


def _item_done(event: _Event) -> ai.ToolCall | ai.McpCallDone | ai.McpApproval | ai.ResponseAlive:
    """A function call counts once its item is done: the earliest moment. Calls that were cut short are left out."""
    item = _part(_item, event.item, "item")
    if item.type == "mcp_call":
        return ai.McpCallDone(_needed(item.id, "item.id"), failed=item.error not in (_NONE, _NULL))
    if item.type == "mcp_approval_request":
        names = (item.server_label or "", _needed(item.name, "item.name"))
        return ai.McpApproval(event.response_id or "", _needed(item.id, "item.id"), *names)
    if item.type != "function_call" or item.status not in (None, "completed"):
        return _response_alive(event)
    return ai.ToolCall(
        event.response_id or "",
        item.id or "",
        _needed(item.call_id, "item.call_id"),
        _needed(item.name, "item.name"),
        item.arguments or "{}",
    )


def _item_added(event: _Event) -> ai.McpCall | ai.ResponseAlive:
    """A call of a remote MCP server begins with its item: the response may end before the server has answered."""
    item = _part(_item, event.item, "item")
    if item.type != "mcp_call":
        return _response_alive(event)
    return ai.McpCall(event.response_id or "", _needed(item.id, "item.id"), item.name or "")


def _mcp_completed(event: _Event) -> ai.McpCallDone:
    return ai.McpCallDone(_needed(event.item_id, "item_id"), failed=False)


def _mcp_failed(event: _Event) -> ai.McpCallDone:
    return ai.McpCallDone(_needed(event.item_id, "item_id"), failed=True)


def _mcp_list_failed(event: _Event) -> ai.McpListFailed:
    return ai.McpListFailed(_needed(event.item_id, "item_id"))


def _ai_error(event: _Event) -> ai.AiError:
    error = _body_of(_part(_error, event.error, "error") if event.error else None)
    code, message = _code_of(error) or "unknown", error.message or ""
    refuses = _refused(error.event_id or "")
    is_session = refuses == "session"
    trouble = _trouble(error)
    if code == CROSSED or _CROSSED_TEXT in message:
        trouble, is_session = "crossed", False
    elif code in BENIGN_ERRORS or (trouble == "passing" and _is_correction(error.event_id or "")):
        trouble, is_session = "", False
    elif trouble == "passing" and is_session and "server_error" not in (error.code, error.type):
        trouble = "lasting"
    fatal = code == SESSION_EXPIRED or trouble == "lasting" or (is_session and trouble == "passing")
    return ai.AiError(wire.short(code), wire.short(message), fatal, trouble, _pause_ms(trouble, message), refuses)


def _refused(event_id: str) -> ai.Refused:
    if event_id.startswith(_event_id(_SESSION_UPDATE, "")):
        return "session"
    return "response" if event_id.startswith(_event_id(_RESPONSE_CREATE, "")) else "other" if event_id else ""


def _is_correction(event_id: str) -> bool:
    return event_id.startswith(tuple(_event_id(kind, "") for kind in _CORRECTIONS))


def _beta_audio(event: _Event) -> ai.AiEvent:
    raise ProtocolError("wrong_format", f"{event.type}: the endpoint uses the retired beta shape of Realtime, not GA")


_STATUSES: Final[dict[str, ai.ResponseStatus]] = {status: status for status in get_args(ai.ResponseStatus)}

_EVENTS: Final[dict[str, Callable[[_Event], ai.AiEvent]]] = {
    "session.created": _session_created,
    "session.updated": _session_updated,
    "response.created": _response_created,
    "response.done": _response_done,
    "response.output_audio.delta": _audio_delta,
    "response.output_audio_transcript.done": _agent_transcript,
    "response.output_audio_transcript.delta": _agent_transcript_delta,
    "response.output_item.added": _item_added,
    "response.output_item.done": _item_done,
    "response.mcp_call.completed": _mcp_completed,
    "response.mcp_call.failed": _mcp_failed,
    "mcp_list_tools.failed": _mcp_list_failed,
    "conversation.item.input_audio_transcription.completed": _caller_transcript,
    "conversation.item.input_audio_transcription.failed": _caller_transcript_failed,
    "input_audio_buffer.speech_started": _speech_started,
    "input_audio_buffer.speech_stopped": _speech_stopped,
    "rate_limits.updated": _rate_limits_updated,
    "error": _ai_error,
    "response.audio.delta": _beta_audio,
}


# -- to the AI --------------------------------------------------------------------------------------------------------

#: Around base64 as Twilio wrote it. The API does not acknowledge appends, so they carry no event_id.
APPEND_PREFIX: Final = b'{"type":"input_audio_buffer.append","audio":"'
APPEND_SUFFIX: Final = b'"}'

#: A tool as the API describes it.
Function = dict[str, object]

_HANG_UP: Final[Function] = {
    "type": "function",
    "name": ai.HANG_UP_TOOL,
    "description": "Ends the call. Say goodbye first; the caller hears it to its end.",
    "parameters": {"type": "object", "properties": {}},
}

_COLLECT_DIGITS: Final[Function] = {
    "type": "function",
    "name": ai.COLLECT_DIGITS_TOOL,
    "description": (
        "Collects digits that the caller types on the telephone's keys. Ask for them first, in the same response. "
        "With sensitive, for card numbers and PINs, ask in a whole sentence that names them at its end: the caller is neither "
        "heard nor recorded once you have asked, and the digits are masked: "
        'pass the returned {"ref": ...} object as the argument of another tool, which receives the digits.'
    ),
    "parameters": {
        "type": "object",
        "properties": {
            "min": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Fewest digits. Default 1."},
            "max": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Most digits; then it ends. Default 20."},
            "finish_on": {"type": "string", "enum": ["#", "*", ""], "description": "The key that ends it. Default #."},
            "timeout_s": {"type": "number", "minimum": 1, "maximum": 60, "description": "The pause that ends it. Default 10."},
            "sensitive": {"type": "boolean", "description": "Whether the digits are secret. Default false."},
        },
        "additionalProperties": False,
    },
}


_SEND_DIGITS: Final[Function] = {
    "type": "function",
    "name": "send_digits",
    "description": "Presses keys on the telephone, for the menu of another system. w pauses for half a second.",
    "parameters": {
        "type": "object",
        "properties": {"digits": {"type": "string", "pattern": "^[0-9*#w]{1,64}$"}},
        "required": ["digits"],
    },
}


def _transfer_of(agent: Agent) -> Function:
    """Return the tool that transfers the caller. The model is given names of targets, never numbers."""
    summary = "The caller's request and the known facts, in one or two sentences for the person who answers."
    return {
        "type": "function",
        "name": "transfer",
        "description": "Transfers the caller to a person. Announce it first. Without an answer the caller comes back.",
        "parameters": {
            "type": "object",
            "properties": {
                "target": {"type": "string", "enum": list(agent.transfer.targets)},
                "summary": {"type": "string", "description": summary},
            },
            "required": ["target", "summary"],
        },
    }


def _functions_of(agent: Agent, tools: Mapping[str, Tool]) -> list[Function]:
    """Return the agent's tools as the API's functions. `tools`: the configured ones."""
    functions = []
    for name in agent.tools:
        if name == ai.HANG_UP_TOOL:
            functions.append(_HANG_UP)
        elif name == "send_digits":
            functions.append(_SEND_DIGITS)
        elif name == "transfer":
            functions.append(_transfer_of(agent))
        elif name == ai.COLLECT_DIGITS_TOOL:
            functions.append(_COLLECT_DIGITS)
        elif (tool := tools.get(name)) is not None:
            parameters = msgspec.Raw(tool.parameters.encode())
            functions.append({"type": "function", "name": name, "description": tool.description, "parameters": parameters})
    return functions


def _mcp_of(agent: Agent, tokens: Mapping[str, str]) -> list[dict[str, object]]:
    """Return the agent's remote MCP servers. `tokens`: by the variables that the configuration names."""
    servers = []
    for server in agent.mcp:
        described: dict[str, object] = {
            "type": "mcp",
            "server_label": server.server_label,
            "server_url": server.server_url,
            "require_approval": "always",
        }
        if server.authorization_env:
            described["authorization"] = tokens.get(server.authorization_env, "")
        if server.allowed_tools:
            described["allowed_tools"] = server.allowed_tools
        servers.append(described)
    return servers


def append(payload: str) -> bytes:
    """Build the event that carries caller audio. `payload`: base64 that `audio.is_base64` accepts."""
    return APPEND_PREFIX + payload.encode("ascii") + APPEND_SUFFIX


def url(base_url: str, model: str) -> str:
    """Return the URL to connect to. The base URL's query stays; a model it names takes precedence."""
    parts = urlsplit(base_url)
    if not model or any(name == "model" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return base_url
    return urlunsplit(parts._replace(query=f"{parts.query}&model={quote(model)}".lstrip("&")))


def headers(api_key: str) -> list[tuple[str, str]]:
    """Return the handshake's headers besides those of RFC 6455."""
    return [("Authorization", f"Bearer {api_key}")]


def _event_id(kind: str, n: int | str) -> str:
    return f"{kind.replace('.', '_')}-{n}"


def _turn_detection(turns: Turns) -> dict[str, object]:
    """Return the AI's turn detection. Where the gateway judges interruptions, the AI only reports speech.

    `interrupt_response` alone false is for agents that finish: the API may then fail to create a response while one is active.
    """
    decisions = {"create_response": turns.interruptions != "gateway", "interrupt_response": turns.interruptions == "model"}
    if turns.detection == "semantic_vad":
        return {"type": "semantic_vad", "eagerness": turns.eagerness, **decisions}
    return {
        "type": "server_vad",
        "threshold": turns.threshold,
        "prefix_padding_ms": turns.padding_ms,
        "silence_duration_ms": turns.silence_ms,
        **decisions,
        "idle_timeout_ms": None,
    }


def _message(role: str, kind: str, text: str) -> dict[str, object]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


class Dialect:
    """Builds one session's client events. Each event_id has kind and number, so an error event names the request it refuses."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def session_update(
        self,
        agent: Agent,
        tools: Mapping[str, Tool] = MappingProxyType({}),
        mcp_tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> bytes:
        """Build the session: mu-law in both directions, the agent's turn-taking, its tools.

        `tools`: the configured ones. `mcp_tokens`: of remote MCP servers, by variable.
        """
        turns = agent.turns
        session = {
            "type": "realtime",
            "model": agent.model,
            "output_modalities": ["audio"],
            "instructions": agent.instructions,
            "audio": {
                "input": {
                    "format": {"type": PCMU},
                    "noise_reduction": None if turns.noise_reduction == "none" else {"type": turns.noise_reduction},
                    "transcription": {"model": agent.transcription_model} if agent.transcription_model else None,
                    "turn_detection": _turn_detection(turns),
                },
                "output": {"format": {"type": PCMU}, "voice": agent.voice, "speed": 1.0},
            },
            "tools": [*_functions_of(agent, tools), *_mcp_of(agent, mcp_tokens)],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
        }
        return self._build(_SESSION_UPDATE, {"session": session})

    def response_create(self, *, with_tools: bool = True) -> bytes:
        """Request a response. What it should be about is a system item: `response.instructions` would replace the persona."""
        return self._build(_RESPONSE_CREATE, {} if with_tools else {"response": {"tool_choice": "none"}})

    def cancel(self) -> bytes:
        """Request the end of the response under way. Without one the API answers with a benign error."""
        return self._build("response.cancel", {})

    def truncate(self, item_id: str, audio_end_ms: int) -> bytes:
        """Report how much of an item was heard. The API refuses more than it sent."""
        return self._build("conversation.item.truncate", {"item_id": item_id, "content_index": 0, "audio_end_ms": audio_end_ms})

    def tool_output(self, call_id: str, output: str) -> bytes:
        """Return a tool's output to the AI. The response to it is requested separately."""
        return self._create_item({"type": "function_call_output", "call_id": call_id, "output": output})

    def function_call(self, call_id: str, name: str, arguments: str) -> bytes:
        """Add a tool call of an earlier session. Its output follows by `tool_output`. `arguments`: JSON."""
        return self._create_item({"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})

    def mcp_approval(self, request_id: str, *, approves: bool) -> bytes:
        """Answer the provider's question whether it may call a tool of a remote MCP server."""
        reason = {} if approves else {"reason": "The operator of this agent has not approved the tool."}
        answer = {"type": "mcp_approval_response", "approval_request_id": request_id, "approve": approves}
        return self._create_item({**answer, **reason})

    def delete_item(self, item_id: str) -> bytes:
        """Remove an item from the conversation."""
        return self._build("conversation.item.delete", {"item_id": item_id})

    def system_text(self, text: str) -> bytes:
        """Add instructions to the agent, for the conversation from here on."""
        return self._create_item(_message("system", "input_text", text))

    def user_text(self, text: str) -> bytes:
        """Add an act of the caller other than speech, as text. The response to it is requested separately."""
        return self._create_item(_message("user", "input_text", text))

    def restate_turn(self, role: str, text: str, item_id: str = "", after: str = "") -> bytes:
        """Add a turn of an earlier session to this conversation. `role`: caller or agent.

        `item_id`: at most 32 characters, unique in the session; empty: the API assigns one. `after`: the item before it;
        empty: the last. The API truncates audio only, so
        a restated turn is corrected by `delete_item`, and by this again under another id.
        """
        item = _message("assistant", "output_text", text) if role == "agent" else _message("user", "input_text", text)
        return self._create_item({"id": item_id, **item} if item_id else item, after)

    def _create_item(self, item: dict[str, object], after: str = "") -> bytes:
        place = {"previous_item_id": after} if after else {}
        return self._build("conversation.item.create", {**place, "item": item})

    def _build(self, kind: str, fields: dict[str, object]) -> bytes:
        self._count += 1
        return msgspec.json.encode({"type": kind, "event_id": _event_id(kind, self._count), **fields})
