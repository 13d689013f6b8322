"""The documents a voice webhook is answered with."""

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
    assert (connect.tag, connect.attrib) == ("Connect", {"action": "https://h/twilio/action"})
    assert (hangup.tag, hangup.attrib) == ("Hangup", {})
    (opened,) = connect
    assert (opened.tag, opened.attrib) == ("Stream", {"url": "wss://h/media", "statusCallback": "https://h/twilio/stream"})
    assert [(child.tag, child.attrib) for child in opened] == [
        ("Parameter", {"name": "agent", "value": "default"}),
        ("Parameter", {"name": "token", "value": "a.b-c_d"}),
    ]


def test_values_are_escaped_and_what_xml_cannot_carry_is_replaced() -> None:
    (parameter,) = stream({"caller": '<&">é😀\x00\x1b\ud800\ufffe'}).iter("Parameter")
    assert parameter.attrib["value"] == '<&">é😀' + "\ufffd" * 4


def test_a_parameter_at_twilios_limit() -> None:
    assert next(stream({"n": "v" * 498}).iter("Parameter")).attrib["value"] == "v" * 498
    with pytest.raises(ValueError, match="500"):
        stream({"n": "v" * 499})
    with pytest.raises(ValueError, match="500"):
        stream({"n" * 500: ""})


def test_words_and_a_hang_up() -> None:
    for text in (twiml.say_and_hang_up("All <busy>\x00."), twiml.say_and_hang_up("All <busy>\x00.")):
        say, hangup = ElementTree.fromstring(text.encode())
        assert (say.tag, say.text, hangup.tag) == ("Say", "All <busy>\ufffd.", "Hangup")


def test_only_a_hang_up() -> None:
    (hangup,) = ElementTree.fromstring(twiml.hangup().encode())
    assert hangup.tag == "Hangup"
