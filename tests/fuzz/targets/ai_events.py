"""Laws of gw.protocol.openai_realtime and gw.protocol.parrot.

An event or one ProtocolError, fields as the standard library reads them, numbers within bounds; a long delta cut into
pieces is the same audio; the parrot answers the same in any cut.
"""

from __future__ import annotations

import binascii

from msgspec.structs import replace

from gw.errors import ProtocolError
from gw.protocol import ai, audio, openai_realtime
from gw.protocol.parrot import Parrot
from tests.fuzz.targets.cuts import cuts
from tests.fuzz.targets.json_values import json_value

_GREETING = b"\xfe" * 500
_GOODBYE = b"\xfd" * 500


def event(data: bytes) -> None:
    try:
        found = openai_realtime.parse(data)
    except ProtocolError as error:
        assert error.detail and len(error.detail) <= 200
        return
    value = json_value(data)
    match found:
        case ai.AudioDelta(response_id, item_id, sound):
            if value is not None:
                assert (value.get("response_id") or "", value["item_id"]) == (response_id, item_id)
                assert binascii.a2b_base64(value["delta"]) == sound
        case ai.CallerTranscript(item_id, text) | ai.AgentTranscript(_, item_id, text):
            assert len(text) <= openai_realtime.MAX_TRANSCRIPT_CHARS and len(item_id) <= 1024
            text.encode()
        case ai.ToolCall():
            assert value is None or (value["item"].get("arguments") or "{}") == found.arguments
        case ai.SessionCreated(expires_at):
            assert 0 <= expires_at <= 1e10
        case ai.SpeechStarted(_, start_ms):
            assert 0 <= start_ms < 1 << 31
        case ai.TokenLimit(limit, remaining, reset_s):
            assert max(limit, remaining) <= 10**9 and min(limit, remaining) >= 0 and 0 <= reset_s <= 86_400
        case ai.ResponseDone(tokens=tokens):
            assert all(0 <= count <= 2 * 10**9 for count in tokens)
        case ai.Ignored(kind):
            assert len(kind) <= 120
        case _:
            assert isinstance(found, ai.AiEvent)


def long_delta(data: bytes) -> None:
    """Compare an event's pieces after `split` with the whole event."""
    pieces = list(openai_realtime.split(data))
    assert all(len(piece) <= openai_realtime.MAX_EVENT_BYTES for piece in pieces)
    try:
        whole = openai_realtime.parse(data)
    except ProtocolError:
        for piece in pieces:
            _delta_or_error(piece)
        return
    if len(data) > openai_realtime.MAX_EVENT_BYTES and not isinstance(whole, ai.AudioDelta):
        return  # dropped
    if not isinstance(whole, ai.AudioDelta):
        assert pieces == [data]
    elif pieces:
        parts = [openai_realtime.parse(piece) for piece in pieces]
        assert b"".join(part.audio for part in parts if isinstance(part, ai.AudioDelta)) == whole.audio
        named = replace(whole, audio=b"")
        assert all(isinstance(part, ai.AudioDelta) and replace(part, audio=b"") == named for part in parts)


def _delta_or_error(piece: bytes) -> None:
    try:
        openai_realtime.parse(piece)
    except ProtocolError:
        pass


def parrot(data: bytes) -> None:
    """Take pairs of bytes as runs of one sample: a short input is seconds of speech."""
    sound = b"".join(data[at : at + 1] * (data[at + 1] * 40) for at in range(0, min(len(data), 40) - 1, 2))
    agent = Parrot(_GREETING, _GOODBYE)
    whole = [*agent.create_response(), *agent.on_audio(sound), *agent.on_keys("#")]
    for pieces in cuts(sound):
        agent = Parrot(_GREETING, _GOODBYE)
        apart = agent.create_response()
        for piece in pieces:
            apart += agent.on_audio(piece)
        assert [*apart, *agent.on_keys("#")] == whole
    heard_ms = len(sound) // audio.BYTES_PER_MS
    starts = [found.audio_start_ms for found in whole if isinstance(found, ai.SpeechStarted)]
    assert starts == sorted(starts) and all(0 <= start <= heard_ms for start in starts)
    assert sum(isinstance(found, ai.ResponseStarted) for found in whole) == sum(
        isinstance(found, ai.ResponseDone) for found in whole
    )
