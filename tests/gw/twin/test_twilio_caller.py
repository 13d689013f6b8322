"""A whole call of the twin against a tiny server: what it sends, how it hears, how it ends."""

from __future__ import annotations

import json
import time

import gevent
import pytest

from gw.twin import sound, speech, twilio_faults
from gw.twin.twilio import TwilioTwin, main, summary
from gw.twin.twilio_caller import CallPlan
from gw.twin.twilio_http import sign
from tests.gw.twin.tiny_gateway import Stream, TinyGateway, document

WORDS = tuple(speech.script(speech.load("weasels")[:1600]))  # ten frames
PARAMETERS = '<Parameter name="token" value="t-123"/><Parameter name="agent" value="default"/>'


def test_a_call_from_ring_to_hang_up() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS, ' action="/twilio/action"')
        call = twin.place_call(WORDS)
        assert call.wait(5)
        stream = gateway.streams[0]
        events = [message["event"] for message in stream.messages]
        assert events == ["connected", "start", *["media"] * 11, "stop"]
        start = stream.messages[1]["start"]
        assert start["customParameters"] == {"token": "t-123", "agent": "default"}
        assert (start["callSid"], start["accountSid"], start["streamSid"]) == (call.call_sid, call.account_sid, call.stream_sid)
        assert [message["sequenceNumber"] for message in stream.messages[1:]] == [str(n) for n in range(1, 14)]
        assert stream.messages[3]["media"]["chunk"] == "2"
        assert stream.messages[3]["media"]["timestamp"] == "20"
        assert stream.heard() == bytes(call.sent_speech) == sound.tag(call.number) + b"".join(WORDS)
        assert call.received_audio.startswith(sound.tag(call.number))
        assert (call.status, call.closed_by, call.error, call.warnings) == ("completed", "caller", "", [])
        assert gateway.paths()[0] == "/twilio/voice"
        assert sorted(gateway.paths()[1:-1]) == ["/twilio/action", "/twilio/stream", "/twilio/stream"]
        assert gateway.paths()[-1] == "/twilio/status"
        told = {fields["StreamEvent"] for fields in gateway.fields_of("/twilio/stream")}
        assert told == {"stream-started", "stream-stopped"}
        assert [fields["CallStatus"] for _, _, fields in gateway.posts if "CallStatus" in fields] == [
            "ringing",
            "completed",
            "completed",
        ]
        assert gateway.fields_of("/twilio/status")[0]["CallDuration"].isdigit()
        assert len(call.lateness_s) == call.frames_sent == 11
        assert 0 <= call.late_quantile_s(0.5) <= call.late_max_s
        assert summary(twin, call)["status"] == "completed"


def test_requests_are_signed_for_the_public_name() -> None:
    public = "https://voice.example.com"
    with TinyGateway() as gateway, TwilioTwin(gateway.url, auth_token="secret", public_url=public) as twin:
        gateway.twiml["/twilio/voice"] = document("wss://voice.example.com/media")
        call = twin.place_call(WORDS)
        assert call.wait(5)
        assert call.closed_by == "caller"
        for path, headers, fields in gateway.posts:
            assert headers["x-twilio-signature"] == sign("secret", f"{public}{path}", fields)
            assert headers["host"] == "voice.example.com"
        upgrade = gateway.streams[0].request.headers
        assert upgrade["X-Twilio-Signature"] == sign("secret", "wss://voice.example.com/media")
        assert upgrade["Host"] == "voice.example.com"


def test_a_signature_of_choice() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url, auth_token="secret") as twin:
        for signature in ("", "forged"):
            twin.place_call(WORDS, signature=signature)
        assert twin.wait(5)
        seen = {stream.request.headers.get("X-Twilio-Signature") for stream in gateway.streams}
        assert seen == {None, "forged"}


def test_what_is_played_is_heard_and_marks_come_back_when_it_was() -> None:
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


def test_clear_gives_every_mark_back() -> None:
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
def test_what_twilio_would_drop_is_warned_of(message: dict[str, object], code: int) -> None:
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


def test_what_is_no_text_or_no_websocket_is_warned_of() -> None:
    def talk(stream: Stream) -> None:
        stream.until("start")
        stream.wire.send_binary(b"{}")
        stream.wire.send_text(b"\xff")
        stream.media(bytes(10 * 60 * 8000))
        stream.media(bytes(8000))
        stream.media(bytes(8000))
        stream.wire.send_raw(b"\xf1\x02{}")
        stream.until("stop")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert [warned.code for warned in call.warnings] == [31950, 31951, 31931, 31924]
        assert call.player.dropped_bytes > 10_000


def test_the_gateway_may_break_off() -> None:
    def talk(stream: Stream) -> None:
        stream.until("media")
        stream.wire.abort()

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert (call.closed_by, call.close_code) == ("gateway", 1006)
        assert [notice.code for notice in call.notices] == [31903]


def test_a_second_stream_hears_the_caller_at_once() -> None:
    """The caller's clock goes on: silence as long as the first stream would end the second."""
    took_s: list[float] = []

    def talk(stream: Stream) -> None:
        for _ in range(40):
            stream.until("media")
            if len(gateway.streams) == 2 and len(took_s) < 2:
                took_s.append(time.monotonic())

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", connect=' action="/twilio/action"')
        gateway.twiml["/twilio/action"] = document("/media")
        call = twin.place_call(hang_up=False)
        assert call.wait(10)
        assert call.frames_sent >= 80
        assert took_s[1] - took_s[0] < 0.4  # half of what the first stream lasted


def test_after_the_stream_the_action_says_what_follows() -> None:
    def talk(stream: Stream) -> None:
        stream.until("media")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", connect=' action="/twilio/action"', after="<Say>never</Say>")
        gateway.twiml["/twilio/action"] = "<Response><Say>Goodbye.</Say><Hangup/></Response>"
        call = twin.place_call(hang_up=False)
        assert call.wait(5)
        assert call.spoken == ["Goodbye."]
        assert gateway.fields_of("/twilio/action")[0]["CallStatus"] == "in-progress"
        assert call.status == "completed"


def test_a_refused_upgrade_goes_on_with_the_next_verb() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.refuse_upgrade = True
        gateway.twiml["/twilio/voice"] = document("/media", after="<Say>Sorry.</Say>")
        call = twin.place_call(WORDS)
        assert call.wait(5)
        assert (call.http_status, call.spoken, call.started_s) == (403, ["Sorry."], None)
        assert [notice.code for notice in call.notices] == [31920]
        assert gateway.fields_of("/twilio/stream")[0]["StreamEvent"] == "stream-error"


def test_calls_that_never_stand() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = '<Response><Reject reason="busy"/></Response>'
        busy = twin.place_call(WORDS)
        assert busy.wait(5)
        assert (busy.status, busy.answered_at) == ("busy", None)
        gateway.status = 503
        failed = twin.place_call(WORDS)
        assert failed.wait(5)
        assert (failed.status, [notice.code for notice in failed.notices]) == ("failed", [11200])
    lost = TwilioTwin(gateway.url).place_call(WORDS)
    assert lost.wait(5)
    assert lost.voice is not None
    assert (lost.status, lost.voice.status) == ("failed", 0)


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


def test_a_call_nobody_ends_has_a_limit() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        call = twin.place_call(hang_up=False, max_s=0.1)
        assert call.wait(5)
        assert call.closed_by == "limit"
        frozen = twin.place_call(hang_up=False, max_s=0.1, hooks={2: lambda call: call.freeze()})
        assert frozen.wait(5)
        assert (frozen.closed_by, frozen.frames_sent) == ("limit", 2)


def test_stop_hangs_up() -> None:
    with TinyGateway() as gateway:
        with TwilioTwin(gateway.url) as twin:
            call = twin.place_call(hang_up=False)
            assert call.wait_for(lambda call: call.frames_sent > 0)
        assert call.is_over
        assert call.closed_by == "twin"


def first_of(name: str) -> list[str]:
    """The events a fault's stream begins with, as far as they are JSON."""
    events: list[str] = []

    def talk(stream: Stream) -> None:
        try:
            while len(events) < 40:
                message = stream.wire.receive()
                try:
                    events.append(json.loads(message.data).get("event", "?") if message.text else "binary")
                except (ValueError, AttributeError):
                    events.append("broken")
        finally:
            if stream.wire.violation:
                events.append("violation")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS)
        plan = twilio_faults.with_fault(CallPlan(speech=WORDS, max_s=0.4), name)
        call = twin.place(plan)
        assert call.wait(5)
        assert call.error == ""
    return events


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("no_start", ["connected"]),
        ("media_before_start", ["connected", "media", "start"]),
        ("wrong_account", ["connected", "start", "media"]),
        ("wrong_format", ["connected", "start", "media"]),
        ("token_missing", ["connected", "start", "media"]),
        ("token_forged", ["connected", "start", "media"]),
        ("start_without_body", ["connected", "start", "media"]),
    ],
)
def test_broken_beginnings(name: str, expected: list[str]) -> None:
    events = first_of(name)
    assert events[: len(expected)] == expected
    # Who never started says nothing but goodbye.
    assert (name != "no_start") == ("media" in events)


@pytest.mark.parametrize("name", list(twilio_faults.HOOKS))
def test_broken_middles(name: str) -> None:
    events = first_of(name)
    assert events[:12] == ["connected", "start", *["media"] * 10]
    odd = {
        "second_start": "start",
        "bad_json": "broken",
        "not_an_object": "broken",
        "bad_utf8": "broken",
        "binary_message": "binary",
        "unknown_event": "telepathy",
        "bad_websocket": "violation",
    }.get(name)
    if odd:
        assert events[12] == odd
    if name in ("reset", "half_open", "silent"):
        assert "media" not in events[12:]


def test_lies_about_the_start() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS)
        for name in ("wrong_account", "token_missing", "token_forged"):
            call = twin.place(twilio_faults.with_fault(CallPlan(max_s=0.1), name))
            assert call.wait(5)
        starts = [stream.messages[1]["start"] for stream in gateway.streams]
        assert starts[0]["accountSid"] != twin.account_sid
        assert [start["customParameters"].get("token") for start in starts] == ["t-123", None, "t-12A"]
        used = twin.place_call(WORDS, parameters={"token": "used before"})
        assert used.wait(5)
        assert gateway.streams[-1].messages[1]["start"]["customParameters"] == {"token": "used before"}


def test_many_calls_at_once() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        calls = [twin.place_call(WORDS) for _ in range(40)]
        assert twin.wait(10)
        assert {call.status for call in calls} == {"completed"}
        assert {sound.find_tag(stream.heard()) for stream in gateway.streams} == set(range(1, 41))


def test_main_prints_a_line_each_call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "script", lambda *steps: list(WORDS))
    with TinyGateway() as gateway:
        assert main(gateway.url, calls=2) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["closed_by"] for line in lines] == ["caller", "caller"]
