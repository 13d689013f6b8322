"""Laws of gw.protocol.twilio: an event or one ProtocolError, and every field as the standard library reads it."""

from __future__ import annotations

import json

from gw.errors import ProtocolError
from gw.protocol import audio, openai_realtime, twilio
from tests.fuzz.targets.json_values import json_value


def message(data: bytes) -> None:
    try:
        event = twilio.parse(data)
    except ProtocolError as error:
        assert error.detail and len(error.detail) <= 200
        return
    found = json_value(data)
    match event:
        case twilio.Media(stream_sid, payload, track):
            # Pasted into the AI's JSON, the payload leaves it valid.
            assert json.loads(openai_realtime.append(payload)) == {"type": "input_audio_buffer.append", "audio": payload}
            audio.decode_base64(payload)
            assert found is None or (found["streamSid"], found["media"]["payload"]) == (stream_sid, payload)
            assert found is None or found["media"].get("track", "inbound") == track
        case twilio.Start(stream_sid, _, call_sid, parameters):
            _is_safe(stream_sid)
            assert found is None or (found["start"]["callSid"], found["start"].get("customParameters", {})) == (
                call_sid,
                parameters,
            )
        case twilio.Mark(stream_sid, name):
            _is_safe(stream_sid)
            assert json.loads(twilio.build_mark(stream_sid, name))["mark"]["name"] == name
            assert found is None or found["mark"]["name"] == name
        case twilio.Dtmf(stream_sid, digit):
            _is_safe(stream_sid)
            assert len(digit) == 1 and (found is None or found["dtmf"]["digit"] == digit)
        case twilio.Stop(stream_sid):
            _is_safe(stream_sid)
        case twilio.Unknown(kind):
            assert len(kind) <= 120 and (found is None or found["event"][:100] == kind[:100])
        case _:
            assert found is None or found["event"] == "connected"


def _is_safe(stream_sid: str) -> None:
    assert json.loads(twilio.build_clear(stream_sid)) == {"event": "clear", "streamSid": stream_sid}
