"""gw.twin.twilio.caller: a whole call against a minimal server: webhooks, TwiML, end."""

from __future__ import annotations

import time

from gw.twin import sound
from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.webhooks import sign
from tests.gw.twin.tiny_gateway import PARAMETERS, WAIT_S, WORDS, Stream, TinyGateway, document


def test_a_call_from_ring_to_hang_up() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", PARAMETERS, ' action="/twilio/action"')
        call = twin.place_call(WORDS)
        assert call.wait(WAIT_S)
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
        posted = {fields["StreamEvent"] for fields in gateway.fields_of("/twilio/stream")}
        assert posted == {"stream-started", "stream-stopped"}
        assert [fields["CallStatus"] for _, _, fields in gateway.posts if "CallStatus" in fields] == [
            "ringing",
            "completed",
            "completed",
        ]
        assert gateway.fields_of("/twilio/status")[0]["CallDuration"].isdigit()
        assert len(call.lateness_s) == call.frames_sent == 11
        assert call.late_max_s == max(call.lateness_s)
        assert call.status == "completed"


def test_requests_are_signed_for_the_public_name() -> None:
    public = "https://voice.example.com"
    with TinyGateway() as gateway, TwilioTwin(gateway.url, auth_token="secret", public_url=public) as twin:
        gateway.twiml["/twilio/voice"] = document("wss://voice.example.com/media")
        call = twin.place_call(WORDS)
        assert call.wait(WAIT_S)
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
        assert twin.wait(WAIT_S)
        seen = {stream.request.headers.get("X-Twilio-Signature") for stream in gateway.streams}
        assert seen == {None, "forged"}


def test_a_second_stream_hears_the_caller_immediately() -> None:
    """The caller's clock continues: as much silence as in the first stream would end the second."""
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
        assert call.wait(WAIT_S)
        assert call.frames_sent >= 80
        assert took_s[1] - took_s[0] < 0.4 + call.late_max_s  # half the first stream's duration


def test_the_action_decides_after_the_stream() -> None:
    def talk(stream: Stream) -> None:
        stream.until("media")

    with TinyGateway(talk) as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = document("/media", connect=' action="/twilio/action"', after="<Say>never</Say>")
        gateway.twiml["/twilio/action"] = "<Response><Say>Goodbye.</Say><Hangup/></Response>"
        call = twin.place_call(hang_up=False)
        assert call.wait(WAIT_S)
        assert call.spoken == ["Goodbye."]
        assert gateway.fields_of("/twilio/action")[0]["CallStatus"] == "in-progress"
        assert call.status == "completed"


def test_a_refused_upgrade_continues_with_the_next_verb() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.refuse_upgrade = True
        gateway.twiml["/twilio/voice"] = document("/media", after="<Say>Sorry.</Say>")
        call = twin.place_call(WORDS)
        assert call.wait(WAIT_S)
        assert (call.http_status, call.spoken, call.started_s) == (403, ["Sorry."], None)
        assert [notice.code for notice in call.notices] == [31920]
        assert gateway.fields_of("/twilio/stream")[0]["StreamEvent"] == "stream-error"


def test_calls_that_never_open_a_stream() -> None:
    with TinyGateway() as gateway, TwilioTwin(gateway.url) as twin:
        gateway.twiml["/twilio/voice"] = '<Response><Reject reason="busy"/></Response>'
        busy = twin.place_call(WORDS)
        assert busy.wait(WAIT_S)
        assert (busy.status, busy.answered_at) == ("busy", None)
        gateway.status = 503
        failed = twin.place_call(WORDS)
        assert failed.wait(WAIT_S)
        assert (failed.status, [notice.code for notice in failed.notices]) == ("failed", [11200])
    lost = TwilioTwin(gateway.url).place_call(WORDS)
    assert lost.wait(WAIT_S)
    assert lost.voice is not None
    assert (lost.status, lost.voice.status) == ("failed", 0)
