"""gw.twin.twilio.dial: the callee of a transfer, and the request after it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest

from gw.twin.twilio.account import TwilioTwin
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.dial import Callee
from tests.gw.twin.tiny_gateway import WAIT_S, TinyGateway

TO = "+15550000001"
WORDS = "Anna asks. Press 1."
GATHER = f'<Gather numDigits="1" timeout="1" action="/accept"><Say>{WORDS}</Say></Gather>'
WHISPER = f"<Response>{GATHER}<Hangup/></Response>"


@pytest.fixture
def gateway() -> Iterator[TinyGateway]:
    with TinyGateway() as made:
        made.twiml["/twilio/voice"] = dial(f'<Number url="/whisper">{TO}</Number>')
        made.twiml["/whisper"], made.twiml["/accept"] = WHISPER, "<Response/>"
        made.twiml["/after"] = "<Response><Say>Back.</Say><Hangup/></Response>"
        yield made


def dial(noun: str, timeout_s: int = 1) -> str:
    return f'<Response><Dial answerOnBridge="true" timeout="{timeout_s}" action="/after">{noun}</Dial></Response>'


def call(gateway: TinyGateway, callee: Callee) -> tuple[TwilioTwin, TwinCall]:
    with TwilioTwin(gateway.url) as twin:
        twin.callees[TO] = callee
        placed = twin.place_call(hang_up=False)
        assert placed.wait(WAIT_S)
        assert (placed.error, placed.warnings) == ("", [])
        return twin, placed


@pytest.mark.parametrize(
    ("callee", "status", "bridged", "spoken"),
    [
        (Callee(after_s=0.05, talks_s=0.05), "completed", "true", True),
        (Callee(keys=""), "completed", "false", True),
        (Callee(keys=" "), "completed", "false", True),
        (Callee(ends="busy"), "busy", "false", False),
        (Callee(ends="failed"), "failed", "false", False),
        (Callee(after_s=9.0), "no-answer", "false", False),
    ],
)
def test_the_action_url_receives_the_outcome(
    gateway: TinyGateway, callee: Callee, status: str, bridged: str, spoken: bool
) -> None:
    twin, placed = call(gateway, callee)
    (dialled,) = twin.dials
    (told,) = gateway.fields_of("/after")
    assert (told["DialCallStatus"], told["DialBridged"], told["CallStatus"]) == (status, bridged, "in-progress")
    assert (told["DialCallSid"], told["CallSid"]) == (dialled.call_sid, placed.call_sid)
    assert ("DialCallDuration" in told) == (status == "completed")
    assert dialled.spoken == ([WORDS] if spoken else [])
    assert (placed.spoken, placed.dialled) == (["Back."], [TO])


def test_the_whisper_is_asked_for_on_the_callees_leg(gateway: TinyGateway) -> None:
    twin, placed = call(gateway, Callee(keys="5"))
    (asked,) = gateway.fields_of("/whisper")
    assert (asked["ParentCallSid"], asked["Direction"], asked["To"]) == (placed.call_sid, "outbound-dial", TO)
    assert asked["CallSid"] == twin.dials[0].call_sid
    assert gateway.fields_of("/accept")[0]["Digits"] == "5"


def test_a_sip_address_without_a_whisper_is_connected(gateway: TinyGateway) -> None:
    gateway.twiml["/twilio/voice"] = dial("<Sip>sip:a@b.example</Sip>")
    twin, _ = call(gateway, Callee())
    assert (twin.dials[0].to, twin.dials[0].bridged) == ("sip:a@b.example", True)


@pytest.mark.parametrize("by_rest", [False, True])
def test_a_caller_who_leaves_cancels_the_dial(gateway: TinyGateway, by_rest: bool) -> None:
    gateway.twiml["/twilio/voice"] = dial(f"<Number>{TO}</Number>", 30)
    with TwilioTwin(gateway.url) as twin:
        twin.callees[TO] = Callee(after_s=20.0)
        placed = twin.place_call(hang_up=False)
        assert placed.wait_for(lambda one: bool(one.dialled))
        if by_rest:
            placed.redirect("<Response><Say>Elsewhere.</Say></Response>")
        else:
            placed.hang_up()
        assert placed.wait(WAIT_S)
        assert twin.dials[0].status == "canceled"
        assert placed.spoken == (["Elsewhere."] if by_rest else [])
        told = [fields["DialCallStatus"] for fields in gateway.fields_of("/after")]
        assert told == ([] if by_rest else ["canceled"])
        assert placed.status == "completed"


def test_a_whisper_that_fails_is_a_problem(gateway: TinyGateway) -> None:
    gateway.twiml["/whisper"] = "<Response>"
    twin, _ = call(gateway, Callee())
    assert twin.dials[0].problems[0].startswith("12100 ")


def test_digits_take_their_time(gateway: TinyGateway) -> None:
    gateway.twiml["/twilio/voice"] = '<Response><Play digits="w12"/><Redirect>/after</Redirect></Response>'
    began_s = time.monotonic()
    _, placed = call(gateway, Callee())
    assert placed.tones == "w12"
    assert time.monotonic() - began_s >= 0.9
    assert placed.spoken == ["Back."]


def test_digits_end_with_the_call(gateway: TinyGateway) -> None:
    gateway.twiml["/twilio/voice"] = '<Response><Play digits="wwwwwwwwwwwwwwww"/></Response>'
    with TwilioTwin(gateway.url) as twin:
        placed = twin.place_call(hang_up=False)
        assert placed.wait_for(lambda one: bool(one.tones))
        placed.hang_up()
        gevent.sleep(0)
        assert placed.wait(WAIT_S)
        assert len(placed.tones) < 16
