"""gw.twin.twilio.twiml: verbs that Twilio would run, and entries its debugger would log."""

from __future__ import annotations

import pytest

from gw.twin.twilio.twiml import Stream, Verb, parse
from tests.gw.twin.tiny_gateway import document


def test_a_stream_and_what_follows() -> None:
    text = document(
        "wss://voice.example.com/media", '<Parameter name="token" value="t"/>', ' action="/a"', "<Say>Bye</Say><Hangup/>"
    )
    read = parse(text)
    assert read.problems == []
    assert read.verbs == [
        Stream("wss://voice.example.com/media", "", {"token": "t"}, "/twilio/stream", "/a"),
        Verb("Say", {}, "Bye"),
        Verb("Hangup", {}, ""),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<Response>", 12100),
        ("<Answer/>", 12100),
        ("<Response><Sing/></Response>", 12200),
        ('<Response><Hangup soon="1"/></Response>', 12200),
        (document("ws://voice.example.com/media"), 31922),
        (document("wss://voice.example.com/media?token=1"), 31920),
        (document("wss://h/m", '<Parameter name="a" value="' + "x" * 499 + '"/>'), 12200),
        (document("wss://h/m", "<Parameter/>"), 12200),
        (document("wss://h/m", "<Say/>"), 12200),
    ],
)
def test_problems(text: str, code: int) -> None:
    assert [found for found, _ in parse(text).problems] == [code]


def test_a_content_type_other_than_xml() -> None:
    assert parse("<Response/>", "application/json").problems[0][0] == 12300
    assert parse("<Response/>", "application/xml; charset=utf-8").problems == []


def test_loopback_works_without_tls() -> None:
    assert parse(document("ws://127.0.0.1:8080/media")).problems == []
