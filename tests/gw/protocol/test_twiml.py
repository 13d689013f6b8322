"""gw.protocol.twiml: the answers to voice webhooks."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gw.protocol import twiml


def stream(parameters: dict[str, str]) -> ElementTree.Element:
    text = twiml.connect_stream("wss://h/media", "https://h/twilio/action", "https://h/twilio/stream", parameters)
    return ElementTree.fromstring(text.encode())


def test_a_stream_and_then_a_hang_up() -> None:
    document = stream({"agent": "default", "token": "a.b-c_d"})
    assert document.tag == "Response"
    connect, hangup = document
    assert (connect.tag, connect.attrib) == ("Connect", {"action": "https://h/twilio/action#rc=2&rp=all"})
    assert (hangup.tag, hangup.attrib) == ("Hangup", {})
    (opened,) = connect
    assert (opened.tag, opened.get("url")) == ("Stream", "wss://h/media")
    assert opened.get("statusCallback") == "https://h/twilio/stream#rc=2&rp=all"
    assert [(child.tag, child.attrib) for child in opened] == [
        ("Parameter", {"name": "agent", "value": "default"}),
        ("Parameter", {"name": "token", "value": "a.b-c_d"}),
    ]


def test_values_are_escaped_and_characters_outside_xml_are_replaced() -> None:
    (parameter,) = stream({"caller": '<&">é😀\x00\x1b\ud800\ufffe'}).iter("Parameter")
    assert parameter.attrib["value"] == '<&">é😀' + "\ufffd" * 4
    (parameter,) = stream({"caller\x00": "\t\n\r \ud7ff\ue000\ufffd\U00010000\U0010ffff\x1f\uffff"}).iter("Parameter")
    assert parameter.attrib == {"name": "caller\ufffd", "value": "\t\n\r \ud7ff\ue000\ufffd\U00010000\U0010ffff\ufffd\ufffd"}


def test_a_parameter_at_twilios_limit() -> None:
    assert next(stream({"n": "v" * 498}).iter("Parameter")).attrib["value"] == "v" * 498
    with pytest.raises(ValueError, match=r"parameter n .* 500 characters; Twilio accepts at most 499"):
        stream({"n": "v" * 499})
    with pytest.raises(ValueError, match=rf"parameter {'n' * 40} .* 600 characters"):
        stream({"n" * 600: ""})


def test_a_text_and_a_hang_up() -> None:
    say, hangup = ElementTree.fromstring(twiml.say_and_hang_up("All <busy>\x00.").encode())
    assert (say.tag, say.text, hangup.tag) == ("Say", "All <busy>\ufffd.", "Hangup")


def test_a_text_and_a_queue() -> None:
    say, queue = ElementTree.fromstring(twiml.enqueue("Wait\x00.", "desk\x01").encode())
    assert (say.tag, say.text, queue.tag, queue.text) == ("Say", "Wait\ufffd.", "Enqueue", "desk\ufffd")
    (queue,) = ElementTree.fromstring(twiml.enqueue("", "desk").encode())
    assert (queue.tag, queue.text) == ("Enqueue", "desk")


@pytest.mark.parametrize(
    ("target", "verb"), [("+15551234567", "Number"), ("sip:desk@h", "Sip"), ("sips:desk@h", "Sip"), ("zip\x02", "Number")]
)
def test_a_transfer_and_a_hang_up(target: str, verb: str) -> None:
    dial, hangup = ElementTree.fromstring(twiml.dial(target).encode())
    (dialled,) = dial
    assert (dial.tag, dialled.tag, dialled.text, hangup.tag) == ("Dial", verb, target.replace("\x02", "\ufffd"), "Hangup")


@pytest.mark.parametrize("whisper_url", ["", "https://h/whisper"])
def test_a_transfer_that_may_return(whisper_url: str) -> None:
    (dial,) = ElementTree.fromstring(twiml.transfer("sip:desk@h", ring_s=25, action_url="https://h/a", whisper_url=whisper_url))
    assert dial.attrib == {"answerOnBridge": "true", "timeout": "25", "action": "https://h/a" + twiml.REPEATED}
    assert [party.attrib for party in dial] == [{"url": whisper_url + twiml.REPEATED} if whisper_url else {}]


def test_a_callee_accepts_with_one_key() -> None:
    gather, hangup = ElementTree.fromstring(twiml.whisper("Press <1>.", "https://h/a", timeout_s=5))
    assert gather.attrib == {"numDigits": "1", "timeout": "5", "action": "https://h/a" + twiml.REPEATED}
    assert ([say.text for say in gather], hangup.tag) == (["Press <1>."], "Hangup")


def test_digits_are_played_before_the_next_document() -> None:
    play, redirect = ElementTree.fromstring(twiml.play_digits("1ww2", "https://h/a"))
    assert (play.attrib, redirect.text) == ({"digits": "1ww2"}, "https://h/a" + twiml.REPEATED)


def test_only_a_hang_up() -> None:
    (hangup,) = ElementTree.fromstring(twiml.hangup().encode())
    assert hangup.tag == "Hangup"


def test_the_busy_tone() -> None:
    (reject,) = ElementTree.fromstring(twiml.reject_busy().encode())
    assert (reject.tag, reject.attrib) == ("Reject", {"reason": "busy"})
