"""gw.protocol.twilio: messages in both directions."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from gw.errors import ProtocolError
from gw.protocol import twilio

STREAM = "MZ" + "0" * 32
ACCOUNT = "AC" + "0" * 32
CALL = "CA" + "0" * 32

START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "streamSid": STREAM,
        "accountSid": ACCOUNT,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "abc"},
    },
    "streamSid": STREAM,
}
MEDIA: dict[str, Any] = {
    "event": "media",
    "sequenceNumber": "4",
    "media": {"track": "inbound", "chunk": "2", "timestamp": "25", "payload": "//8="},
    "streamSid": STREAM,
}
DTMF: dict[str, Any] = {"event": "dtmf", "streamSid": STREAM, "sequenceNumber": "5", "dtmf": {"digit": "1"}}
MARK: dict[str, Any] = {"event": "mark", "sequenceNumber": "6", "streamSid": STREAM, "mark": {"name": "my label"}}
STOP: dict[str, Any] = {
    "event": "stop",
    "sequenceNumber": "7",
    "stop": {"accountSid": ACCOUNT, "callSid": CALL},
    "streamSid": STREAM,
}
GONE = object()


def changed(message: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Copy a message with one field set, or removed."""
    result = copy.deepcopy(message)
    *parents, last = path.split(".")
    place = result
    for name in parents:
        place = place[name]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return result


def code_of(message: object) -> str:
    data = message if isinstance(message, str | bytes) else json.dumps(message)
    with pytest.raises(ProtocolError) as caught:
        twilio.parse(data)
    return caught.value.code


# -- from Twilio ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [False, True])
def test_every_event(as_bytes: bool) -> None:
    def parsed(message: dict[str, Any]) -> twilio.TwilioEvent:
        text = json.dumps(message)
        return twilio.parse(text.encode() if as_bytes else text)

    assert parsed({"event": "connected", "protocol": "Call", "version": "1.0.0"}) == twilio.Connected()
    assert parsed(START) == twilio.Start(STREAM, ACCOUNT, CALL, {"token": "abc"})
    assert parsed(MEDIA) == twilio.Media(STREAM, "//8=", "inbound")
    assert parsed(DTMF) == twilio.Dtmf(STREAM, "1")
    assert parsed(MARK) == twilio.Mark(STREAM, "my label")
    assert parsed(STOP) == twilio.Stop(STREAM)


@pytest.mark.parametrize("message", [START, MEDIA, DTMF, MARK, STOP])
def test_the_order_of_keys_is_free(message: dict[str, Any]) -> None:
    turned = dict(reversed(message.items()))
    assert twilio.parse(json.dumps(turned)) == twilio.parse(json.dumps(message))


@pytest.mark.parametrize("message", [START, MEDIA, DTMF, MARK, STOP])
def test_fields_of_a_later_version_are_ignored(message: dict[str, Any]) -> None:
    assert twilio.parse(json.dumps({**message, "newer": {"a": [1]}})) == twilio.parse(json.dumps(message))


@pytest.mark.parametrize("digit", ["", "12", "a", "w", "x"])
def test_a_key_that_no_telephone_has_is_unknown(digit: str) -> None:
    assert twilio.parse(json.dumps(changed(DTMF, "dtmf.digit", digit))) == twilio.Unknown("dtmf digit")


def test_an_unknown_event_is_an_event() -> None:
    assert twilio.parse('{"event":"weather","media":7,"streamSid":[]}') == twilio.Unknown("weather")
    name = twilio.parse(json.dumps({"event": "x" * 9999}))
    assert isinstance(name, twilio.Unknown) and len(name.event) <= 120


def test_optional_fields_of_a_start() -> None:
    bare = changed(changed(START, "start.tracks", GONE), "start.customParameters", GONE)
    event = twilio.parse(json.dumps(bare))
    assert isinstance(event, twilio.Start) and event.parameters == {}


def test_another_track_is_accepted() -> None:
    event = twilio.parse(json.dumps(changed(MEDIA, "media.track", "outbound")))
    assert isinstance(event, twilio.Media) and event.track == "outbound"


@pytest.mark.parametrize("data", ["", "{", "[]", "17", "null", '"start"', b"\x00", "[" * 60_000])
def test_bad_json(data: str | bytes) -> None:
    assert code_of(data) == "bad_json"


@pytest.mark.parametrize("data", [b"\xff", json.dumps(MARK).encode() + b" \xc3", '{"event":"mark\udc00"}'])
def test_bad_utf8(data: str | bytes) -> None:
    assert code_of(data) == "bad_utf8"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (START, "event"),
        (START, "streamSid"),
        (START, "start"),
        (START, "start.streamSid"),
        (START, "start.accountSid"),
        (START, "start.callSid"),
        (START, "start.mediaFormat"),
        (START, "start.mediaFormat.encoding"),
        (START, "start.mediaFormat.sampleRate"),
        (START, "start.mediaFormat.channels"),
        (MEDIA, "streamSid"),
        (MEDIA, "media"),
        (MEDIA, "media.payload"),
        (DTMF, "streamSid"),
        (DTMF, "dtmf"),
        (DTMF, "dtmf.digit"),
        (MARK, "streamSid"),
        (MARK, "mark"),
        (MARK, "mark.name"),
        (STOP, "streamSid"),
        (STOP, "stop"),
        (STOP, "stop.callSid"),
    ],
)
def test_missing_field(message: dict[str, Any], path: str) -> None:
    assert code_of(changed(message, path, GONE)) == "missing_field"


@pytest.mark.parametrize(
    ("message", "path", "value"),
    [
        (START, "event", 1),
        (START, "event", None),
        (START, "start", []),
        (START, "start.mediaFormat.sampleRate", "8000"),
        (START, "start.mediaFormat.channels", True),
        (START, "start.customParameters", {"n": 1}),
        (MEDIA, "media", None),
        (MEDIA, "media.track", 1),
        (MEDIA, "media.payload", 0),
        (DTMF, "dtmf.digit", 1),
        (MARK, "mark.name", None),
    ],
)
def test_bad_type(message: dict[str, Any], path: str, value: object) -> None:
    assert code_of(changed(message, path, value)) == "bad_type"


@pytest.mark.parametrize("path", ["sequenceNumber", "media.chunk", "media.timestamp"])
def test_unused_fields_of_a_frame_cannot_end_a_call(path: str) -> None:
    for value in (GONE, "4", 4, None, "x", [1]):
        assert isinstance(twilio.parse(json.dumps(changed(MEDIA, path, value))), twilio.Media)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (START, "streamSid"),
        (START, "start.streamSid"),
        (START, "start.accountSid"),
        (START, "start.callSid"),
        (DTMF, "streamSid"),
        (MARK, "streamSid"),
        (STOP, "streamSid"),
        (STOP, "stop.callSid"),
    ],
)
@pytest.mark.parametrize("value", ["", 'MZ"', "MZ\\", "MZ 1", "MZ1\n", "MZé", "M" * 65, 5])
def test_a_sid_unsafe_to_paste_is_refused(message: dict[str, Any], path: str, value: object) -> None:
    assert code_of(changed(message, path, value)) == "bad_type"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (START, "start.streamSid"),
        (START, "start.accountSid"),
        (START, "start.callSid"),
        (DTMF, "streamSid"),
        (MARK, "streamSid"),
        (STOP, "streamSid"),
        (STOP, "stop.callSid"),
    ],
)
def test_a_refused_sid_is_named(message: dict[str, Any], path: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{path} is not a SID$"):
        twilio.parse(json.dumps(changed(message, path, "a b")))


def test_a_start_of_two_streams() -> None:
    assert code_of(changed(START, "streamSid", "MZother")) == "wrong_stream"


@pytest.mark.parametrize(
    ("field", "value"), [("encoding", "audio/x-alaw"), ("encoding", "x" * 9000), ("sampleRate", 16000), ("channels", 2)]
)
def test_wrong_format(field: str, value: object) -> None:
    assert code_of(changed(START, f"start.mediaFormat.{field}", value)) == "wrong_format"


@pytest.mark.parametrize("payload", ["A", "AAA", "AA==AAAA", "AAAA====", 'AA"}', "AA\\u0041A\n", "é==="])
def test_a_payload_that_is_not_base64(payload: str) -> None:
    assert code_of(changed(MEDIA, "media.payload", payload)) == "bad_base64"


def test_a_payload_with_json_escapes_is_unescaped_first() -> None:
    event = twilio.parse(json.dumps(MEDIA).replace("//8=", "\\/\\/8\\u003d"))
    assert isinstance(event, twilio.Media) and event.payload == "//8="


# -- to Twilio --------------------------------------------------------------------------------------------------------


def test_media_has_exactly_the_fields_twilio_allows() -> None:
    text = twilio.media_prefix(STREAM) + b"//8=" + twilio.MEDIA_SUFFIX
    assert json.loads(text) == {"event": "media", "streamSid": STREAM, "media": {"payload": "//8="}}


def test_mark_and_clear_have_exactly_the_fields_twilio_allows() -> None:
    for name in ("my label", 'quo"te\\', "é\n\x00"):
        assert json.loads(twilio.build_mark(STREAM, name)) == {"event": "mark", "streamSid": STREAM, "mark": {"name": name}}
    assert json.loads(twilio.build_clear(STREAM)) == {"event": "clear", "streamSid": STREAM}


def test_builders_check_the_stream_sid() -> None:
    for sid in ("", 'MZ"', "M" * 65):
        with pytest.raises(ValueError, match="stream SID"):
            twilio.media_prefix(sid)
        with pytest.raises(ValueError, match="stream SID"):
            twilio.FrameBuilder(sid)
        with pytest.raises(ValueError, match="stream SID"):
            twilio.build_clear(sid)


@pytest.mark.parametrize("sid", [STREAM, "M", "M" * 64])
def test_a_ready_made_frame_equals_the_one_websockets_would_send(sid: str) -> None:
    frame = bytes(i * 77 & 0xFF for i in range(160))
    text = json.dumps(
        {"event": "media", "streamSid": sid, "media": {"payload": base64.b64encode(frame).decode()}}, separators=(",", ":")
    )
    assert twilio.FrameBuilder(sid).build(frame) == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


@pytest.mark.parametrize("length", [0, 159, 161, 320])
def test_only_whole_frames_are_built(length: int) -> None:
    with pytest.raises(ValueError, match="160 bytes"):
        twilio.FrameBuilder(STREAM).build(bytes(length))
