"""gw.twin.twilio.stream and its receiver against a minimal server: audio, marks, clears, mistakes, ends."""

from __future__ import annotations

import gevent
import pytest

from gw.twin import speech
from gw.twin.sound import frames
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.steps import Step
from tests.gw.twin.tiny_gateway import PARAMETERS, WAIT_S, Stream, TinyGateway, document


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
        assert call.wait(WAIT_S)
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
        assert call.wait(WAIT_S)
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
        assert call.wait(WAIT_S)
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
        assert call.wait(WAIT_S)
        assert [warned.code for warned in call.warnings] == [31950, 31951, 31931, 31924]
        assert call.player.dropped_bytes > 10_000


def test_the_gateway_may_break_the_connection() -> None:
    def talk(stream: Stream) -> None:
        stream.until("media")
        stream.websocket.abort()

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(WAIT_S)
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
        assert call.wait(WAIT_S)
        pressed = [one for one in gateway.streams[0].messages if one["event"] == "dtmf"]
        assert pressed[0]["dtmf"] == {"track": "inbound_track", "digit": "5"}
        assert b"\x21" * 320 in gateway.streams[0].heard()
        assert not call.wait_for(lambda call: False, timeout_s=0.01)


def test_a_call_that_neither_side_ends_has_a_limit() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False, max_s=0.1)
        assert call.wait(WAIT_S)
        assert call.closed_by == "limit"
        frozen = twin.place_call(hang_up=False, max_s=0.1, hooks={2: lambda call: call.freeze()})
        assert frozen.wait(WAIT_S)
        assert (frozen.closed_by, frozen.frames_sent) == ("limit", 2)


# -- faults of the network ----------------------------------------------------------------------------------------------


def noise(frames: int) -> bytes:
    """Return audio of which every frame is different."""
    return b"".join(bytes([n + 1]) * 160 for n in range(frames))


def stamps(stream: Stream) -> list[int]:
    """Return the timestamps of the caller's frames, in frames."""
    return [int(one["media"]["timestamp"]) // 20 for one in stream.messages if one["event"] == "media"]


def arrived(gateway: TinyGateway, count: int) -> Stream:
    """Return the first stream, once so many of the caller's frames have arrived."""
    with gevent.Timeout(WAIT_S):
        while len(stamps(gateway.streams[0])) < count:
            gevent.sleep(0.01)
    return gateway.streams[0]


def test_lost_frames_leave_a_hole_in_the_callers_clock() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(frames(noise(40)), tagged=False, hooks={10: lambda call: call.lose_frames(0.3)})
        assert call.wait(WAIT_S)
        stream = arrived(gateway, 25)
        assert stamps(stream) == [*range(10), *range(25, 40)]
        assert stream.heard() == bytes(call.sent_speech) == noise(40)[: 160 * 10] + noise(40)[160 * 25 :]
        assert call.sent_s[10] - call.started_s >= 0.49, "frame 25 leaves half a second after the start"
        assert len(call.sent_s) == call.frames_sent == 25


def test_delayed_frames_come_in_one_burst() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(frames(noise(40)), tagged=False, hooks={10: lambda call: call.delay_frames(0.3)})
        assert call.wait(WAIT_S)
        stream = arrived(gateway, 40)
        assert stamps(stream) == [*range(40)]
        assert stream.heard() == noise(40)
        assert call.sent_s[10] - call.started_s >= 0.49, "they leave with frame 25"
        assert call.sent_s[25] - call.sent_s[10] < 0.15, "at the pace of speech it is 0.3 s"


def test_a_gateway_that_closes_is_noticed_while_frames_are_lost() -> None:
    def talk(stream: Stream) -> None:
        for _ in range(5):
            stream.until("media")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False, hooks={5: lambda call: call.lose_frames(30)})
        assert call.wait(WAIT_S)
        assert (call.closed_by, call.frames_sent) == ("gateway", 5)


@pytest.mark.parametrize("half_open", [False, True])
def test_a_lost_stream_is_followed_by_another(half_open: bool) -> None:
    """The caller stays: Twilio asks the action URL, and opens the stream of its TwiML."""
    states: list[bool] = []

    def talk(stream: Stream) -> None:
        stream.until("start")
        if len(gateway.streams) == 2:
            states.append(gateway.streams[0].websocket.is_open)
        stream.until("stop")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", connect=' action="/twilio/action"')
        gateway.twiml["/twilio/action"] = document("/media", PARAMETERS, after="")
        call = twin.place_call(
            frames(noise(60)),
            tagged=False,
            hooks={20: lambda call: call.lose_stream(half_open=half_open, ask_after_s=0.1)},
        )
        assert call.wait(WAIT_S)
        first, second = gateway.streams
        assert "stop" not in [one["event"] for one in first.messages]
        assert (first.heard() + second.heard(), stamps(second)[0]) == (noise(60), 20)
        assert states == [half_open]
        assert [fields["CallStatus"] for fields in gateway.fields_of("/twilio/action")] == ["in-progress"]
        assert call.streams_s[1] - call.streams_s[0] >= 0.5
        assert second.messages[1]["start"]["customParameters"]["token"] == "t-123"
        assert second.messages[1]["sequenceNumber"] == "1"
        assert (call.closed_by, call.status, call.error) == ("caller", "completed", "")


def test_a_caller_who_hangs_up_before_the_loss_is_noticed() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", connect=' action="/twilio/action"')
        call = twin.place_call(hang_up=False, hooks={5: lambda call: call.lose_stream(ask_after_s=30)})
        assert call.wait_for(lambda call: call.closed_by == "network")
        call.hang_up()
        assert call.wait(WAIT_S)
        assert [fields["CallStatus"] for fields in gateway.fields_of("/twilio/action")] == ["completed"]
        assert (call.closed_by, len(gateway.streams)) == ("caller", 1)


def test_a_late_start() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(frames(noise(3)), tagged=False, start_after_s=0.3)
        assert call.wait(WAIT_S)
        assert call.sent_s[0] - call.placed_s >= 0.3
        assert [one["event"] for one in gateway.streams[0].messages][:3] == ["connected", "start", "media"]


def test_a_missing_stop() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(frames(noise(3)), tagged=False, sends_stop=False)
        assert call.wait(WAIT_S)
        assert [one["event"] for one in gateway.streams[0].messages] == ["connected", "start", *["media"] * 3]
        assert call.closed_by == "caller"


def test_late_echoes() -> None:
    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.mark("played")
        stream.until("mark")
        stream.media(bytes(80_000))
        stream.mark("cleared")
        stream.clear()
        stream.until("mark")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False, echo_after_s=0.2)
        assert call.wait(WAIT_S)
        assert [echo.name for echo in call.echoes] == ["played", "cleared"]
        assert all(echo.at_s - mark.at_s >= 0.18 for mark, echo in zip(call.marks, call.echoes, strict=True))


def test_steps_of_a_caller() -> None:
    """A caller who listens, answers, presses keys, and meets a fault of the network at each kind of step."""

    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.media(noise(10))
        stream.until("stop")

    steps = (
        Step("say", "quiet", 0.1, audio=noise(10)),
        Step("press", keys="5 12"),
        Step("lose_frames", lasts_s=0.1),
        Step("delay_frames", wait_s=0.2, lasts_s=0.1),
        Step("reset", wait_s=0.2),
        Step("half_open", wait_s=0.3),
        Step("hang_up", wait_s=0.3),
    )
    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = gateway.twiml["/twilio/action"] = document("/media", connect=' action="/twilio/action"')
        call = twin.place_call(hang_up=False, steps=steps)
        assert call.wait(WAIT_S)
        assert [step for _, step in call.done] == [*steps]
        assert len(gateway.streams) == len(call.streams_s) == 3
        pressed = [one["dtmf"]["digit"] for one in gateway.streams[0].messages if one["event"] == "dtmf"]
        assert pressed == ["5", "12"]
        assert noise(10) in bytes(call.sent_speech)
        said_s = call.sent_s[bytes(call.sent_speech).index(noise(10)) // 160]
        assert said_s >= call.played[0][0] + 0.2 + 0.1
        assert call.closed_by == "caller"
