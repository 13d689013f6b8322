"""gw.protocol: any bytes give an event or one ProtocolError, never another error."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.errors import GatewayError, ProtocolError
from gw.protocol import ai, audio, openai_realtime, signature, token, twilio, twiml
from gw.protocol.parrot import Parrot
from tests.examples import examples

WIRE = Path(__file__).resolve().parent.parent / "wire"
TWILIO: list[dict[str, Any]] = list(json.loads((WIRE / "twilio_media_streams.json").read_text("utf-8"))["from_twilio"].values())
REALTIME: list[dict[str, Any]] = list(json.loads((WIRE / "openai_realtime.json").read_text("utf-8"))["server"].values())
TWILIO_EVENTS = (
    twilio.Connected,
    twilio.Start,
    twilio.Media,
    twilio.Dtmf,
    twilio.Mark,
    twilio.Stop,
    twilio.Unknown,
)

# Lone surrogates included: json.dumps escapes them, a str may hold them.
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
fast = settings(max_examples=examples(300))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*path, key), *_paths(inner, (*path, key)))]


@st.composite
def spoilt(draw: st.DrawFn, samples: list[dict[str, Any]]) -> str:
    """Change one to three fields of a documented message, and sometimes cut it short."""
    message = copy.deepcopy(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(message) or [("event",)]))
        place: Any = message
        for key in path[:-1]:
            place = place[key]
        match draw(st.sampled_from(["drop", "replace", "add"])):
            case "drop":
                place.pop(path[-1], None) if isinstance(place, dict) else place.pop(path[-1])
            case "replace":
                place[path[-1]] = draw(values)
            case _:
                message[draw(texts)] = draw(values)
    text = json.dumps(message, ensure_ascii=draw(st.booleans()))
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


def _twilio(data: str | bytes) -> None:
    try:
        event = twilio.parse(data)
    except ProtocolError as error:
        assert error.detail and len(error.detail) <= 200
        return
    assert isinstance(event, TWILIO_EVENTS)
    if isinstance(event, twilio.Media):  # pasted into the AI's JSON, the payload must leave it valid
        assert json.loads(openai_realtime.append(event.payload))["audio"] == event.payload
        audio.decode_base64(event.payload)
    if not isinstance(event, twilio.Connected | twilio.Unknown | twilio.Media):  # a frame's SID is only compared
        assert json.loads(twilio.build_clear(event.stream_sid))["streamSid"] == event.stream_sid


def _realtime(data: str | bytes) -> None:
    try:
        event = openai_realtime.parse(data)
    except ProtocolError as error:
        assert error.detail and len(error.detail) <= 200
        return
    assert isinstance(event, ai.AiEvent)


@fast
@given(st.binary(max_size=300) | texts)
def test_any_bytes(data: str | bytes) -> None:
    _twilio(data)
    _realtime(data)


@fast
@given(values, st.booleans())
def test_any_json(value: Any, as_bytes: bool) -> None:
    text = json.dumps(value)
    data = text.encode() if as_bytes else text
    _twilio(data)
    _realtime(data)


@fast
@given(st.dictionaries(st.sampled_from(["event", "type", "media", "start", "streamSid", "session", "response", "delta"]), values))
def test_any_object_with_known_names(value: dict[str, Any]) -> None:
    _twilio(json.dumps(value))
    _realtime(json.dumps(value))


@fast
@given(spoilt(TWILIO))
def test_a_spoilt_message_of_twilios(text: str) -> None:
    _twilio(text)


@fast
@given(spoilt(REALTIME))
def test_a_spoilt_message_of_the_ais(text: str) -> None:
    _realtime(text)


@fast
@given(st.sampled_from(TWILIO + REALTIME), st.data())
def test_a_message_with_a_flipped_byte(sample: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps(sample).encode())
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    _twilio(bytes(body))
    _realtime(bytes(body))


@fast
@given(texts | st.binary(max_size=60))
def test_base64_is_accepted_or_refused(text: str | bytes) -> None:
    try:
        sound: bytes | None = audio.decode_base64(text)
    except ProtocolError as error:
        assert error.code == "bad_base64"
        sound = None
    if isinstance(text, str):
        assert audio.is_base64(text) == (sound is not None)


@fast
@given(st.binary(max_size=700))
def test_base64_round_trip_and_levels(sound: bytes) -> None:
    frame = (sound + b"\xff" * audio.FRAME_BYTES)[: audio.FRAME_BYTES]
    message = twilio.FrameBuilder("MZ1").build(frame)
    assert audio.decode_base64(json.loads(message[4:])["media"]["payload"]) == frame
    assert audio.energy(sound) == (sum(abs(audio.ULAW_TO_LINEAR[code]) for code in sound) // len(sound) if sound else 0)


@fast
@given(texts, texts, texts, st.lists(st.tuples(texts, texts), max_size=4))
def test_any_signature(given_signature: str, public: str, path: str, form: list[tuple[str, str]]) -> None:
    secrets, text = signature.SigningSecrets(("key",), "shared key"), signature.form_text(form)
    for url in (public, "https://" + public):
        for header in (None, path):
            given = signature.Signature(given_signature, header)
            assert not signature.webhook_valid(secrets, given, url, path, text)
            assert not signature.stream_valid(secrets, given, url, path)


@fast
@given(texts, texts, st.floats(0, 1e12))
def test_any_token(text: str, call_sid: str, now_s: float) -> None:
    try:
        token.check(b"key", text, call_sid, now_s)
    except token.TokenError as error:
        assert isinstance(error, GatewayError) and error.code == "token_forged"
    else:
        raise AssertionError("a forged token was accepted")


@fast
@given(st.integers(0, 2**40), st.binary(min_size=8, max_size=32), texts)
def test_any_token_made_here(issued_at_s: int, nonce: bytes, call_sid: str) -> None:
    made = token.make(b"key", call_sid, issued_at_s, nonce)
    assert token.check(b"key", made, call_sid, issued_at_s) == token.StreamToken(nonce, issued_at_s)


@fast
@given(texts, texts, texts)
def test_any_text_in_twiml_stays_xml(text: str, name: str, value: str) -> None:
    ElementTree.fromstring(twiml.say_and_hang_up(text).encode())
    ElementTree.fromstring(twiml.connect_stream("wss://h/m", "https://h/a", "https://h/s", {name: value}).encode())


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(st.sampled_from([0xFF, 0xE0, 0xA0, 0x80, 0x10]), st.integers(0, 12_000)), max_size=12))
def test_any_audio_to_the_parrot(runs: list[tuple[int, int]]) -> None:
    agent = Parrot(b"\xfe" * 500, b"\xfd" * 500)
    events: list[ai.AiEvent] = agent.create_response()
    for code, length in runs:
        events += agent.on_audio(bytes([code]) * length)
    talking: str | None = None
    response: str | None = None
    last_ms = 0
    for event in events:
        match event:
            case ai.SpeechStarted(item_id, audio_start_ms):
                assert talking is None and audio_start_ms >= last_ms
                talking, last_ms = item_id, audio_start_ms
            case ai.SpeechStopped(item_id):
                assert item_id == talking
                talking = None
            case ai.ResponseStarted(response_id):
                assert response is None
                response = response_id
            case ai.AudioDelta(response_id, _, sound):
                assert response_id == response and 0 < len(sound) <= 3203
            case ai.ResponseDone(response_id, status, _):
                assert response_id == response and status == "completed"
                response = None
    assert response is None
    assert last_ms <= sum(length for _, length in runs) // audio.BYTES_PER_MS
