"""gw.twin.twilio.stream and its receiver against a minimal server: audio, marks, clears, mistakes, ends."""

from __future__ import annotations

import gevent
import pytest

from gw.twin import speech
from gw.twin.twilio.account import TwilioTwin
from tests.gw.twin.tiny_gateway import Stream, TinyGateway


def test_played_audio_is_heard_and_marks_return_afterwards() -> None:
    audio = speech.load("hello-world")[: 160 * 10 + 37]
    got: list[dict] = []  # type: ignore[type-arg]

    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.mark("empty")
        got.append(stream.until("mark"))
        stream.media(audio[:5])
        stream.media(audio[5:])
        stream.mark("end")
        got.append(stream.until("mark"))

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert (call.closed_by, call.close_code, call.close_reason) == ("gateway", 1000, "enough")
        assert call.heard_audio == call.received_audio == audio
        assert [mark["mark"]["name"] for mark in got] == ["empty", "end"] == [echo.name for echo in call.echoes]
        assert call.echoes[1].at_s - call.marks[1].at_s >= 0.19
        assert call.warnings == []
        assert [notice.code for notice in call.notices] == [31921]
        assert len(call.heard_with_gaps) >= len(audio)
        assert call.heard_with_gaps.count(audio) == 1
        assert call.first_heard_ms is not None


def test_clear_returns_every_mark() -> None:
    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.media(bytes(range(1, 101)) * 800)
        stream.mark("a")
        stream.mark("b")
        gevent.sleep(0.05)
        stream.clear()
        assert [stream.until("mark")["mark"]["name"] for _ in "ab"] == ["a", "b"]

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert call.clears[0].marks == ("a", "b")
        assert call.clears[0].dropped_ms == pytest.approx(10_000 - len(call.heard_audio) / 8)
        assert 0 < len(call.heard_audio) < 40_000
        assert len(call.received_audio) == 80_000


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"event": "media", "media": {"payload": "//8="}, "extra": 1}, 31951),
        ({"event": "media", "media": {"payload": "//8=", "track": "outbound"}}, 31951),
        ({"event": "media", "media": {"payload": "no base64"}}, 31951),
        ({"event": "media", "media": {"payload": ""}}, 31951),
        ({"event": "media", "media": {}}, 31951),
        ({"event": "connected"}, 31951),
        ({"event": "mark"}, 31951),
        ({"event": "clear", "streamSid": "MZother"}, 31951),
    ],
)
def test_a_message_that_twilio_would_drop_is_recorded(message: dict[str, object], code: int) -> None:
    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.send(**message)
        stream.mark("after")
        stream.until("mark")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert [warned.code for warned in call.warnings] == [code]
        assert call.received_audio == b""


def test_binary_messages_and_invalid_frames_are_recorded() -> None:
    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.websocket.send_binary(b"{}")
        stream.websocket.send_text(b"\xff")
        stream.media(bytes(10 * 60 * 8000))
        stream.media(bytes(8000))
        stream.media(bytes(8000))
        stream.websocket.send_raw(b"\xf1\x02{}")
        stream.until("stop")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert [warned.code for warned in call.warnings] == [31950, 31951, 31931, 31924]
        assert call.player.dropped_bytes > 10_000


def test_the_gateway_may_break_the_connection() -> None:
    def talk(stream: Stream) -> None:
        stream.until("media")
        stream.websocket.abort()

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert (call.closed_by, call.close_code) == ("gateway", 1006)
        assert [notice.code for notice in call.notices] == [31903]


def test_the_caller_can_act_while_talking() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait_for(lambda call: call.frames_sent > 1)
        call.press("5")
        call.say(b"\x21" * 320)
        assert call.wait_for(lambda call: bytes(call.sent_speech).endswith(b"\xff" * 160) and b"\x21" in call.sent_speech)
        call.hang_up()
        assert call.wait(5)
        pressed = [one for one in gateway.streams[0].messages if one["event"] == "dtmf"]
        assert pressed[0]["dtmf"] == {"track": "inbound_track", "digit": "5"}
        assert b"\x21" * 320 in gateway.streams[0].heard()
        assert not call.wait_for(lambda call: False, timeout_s=0.01)


def test_a_call_that_neither_side_ends_has_a_limit() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False, max_s=0.1)
        assert call.wait(5)
        assert call.closed_by == "limit"
        frozen = twin.place_call(hang_up=False, max_s=0.1, hooks={2: lambda call: call.freeze()})
        assert frozen.wait(5)
        assert (frozen.closed_by, frozen.frames_sent) == ("limit", 2)
