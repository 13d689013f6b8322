"""gw.twin.twilio.messages: exact messages out, strict messages in."""

from __future__ import annotations

import base64
import json

import pytest

from gw.twin.twilio.messages import Clear, InvalidMessageError, Mark, Media, MessageWriter, parse


def test_messages_are_numbered_from_the_start() -> None:
    writer = MessageWriter("AC1", "CA1", "MZ1")
    start = json.loads(writer.start({"token": "t"}, {"accountSid": "AC9"}))
    assert (start["sequenceNumber"], start["start"]["accountSid"], start["start"]["customParameters"]) == (
        "1",
        "AC9",
        {"token": "t"},
    )
    media = [json.loads(writer.media(bytes([n]) * 160, n * 20)) for n in range(10)]
    assert [one["sequenceNumber"] for one in media] == [str(n) for n in range(2, 12)]
    assert [(one["media"]["chunk"], one["media"]["timestamp"]) for one in media] == [(str(n + 1), str(n * 20)) for n in range(10)]
    assert base64.b64decode(media[9]["media"]["payload"]) == b"\x09" * 160
    assert json.loads(writer.dtmf("5"))["dtmf"] == {"track": "inbound_track", "digit": "5"}
    assert json.loads(writer.mark("m"))["mark"] == {"name": "m"}
    assert json.loads(writer.stop())["sequenceNumber"] == "14"


def test_the_three_valid_messages_are_parsed() -> None:
    media, audio = parse(b'{"event":"media","streamSid":"MZ1","media":{"payload":"//8="}}', True, "MZ1")
    assert isinstance(media, Media) and audio == b"\xff\xff"
    mark, _ = parse(b'{"event":"mark","streamSid":"MZ1","mark":{"name":"m"}}', True, "MZ1")
    assert isinstance(mark, Mark) and mark.mark.name == "m"
    assert isinstance(parse(b'{"event":"clear","streamSid":"MZ1"}', True, "MZ1")[0], Clear)


@pytest.mark.parametrize(
    ("data", "is_text", "code"),
    [
        (b'{"event":"clear","streamSid":"MZ1"}', False, 31950),
        (b'{"event":"clear","streamSid":"MZ2"}', True, 31951),
        (b'{"event":"clear","streamSid":"MZ1","more":1}', True, 31951),
        (b'{"event":"stop","streamSid":"MZ1"}', True, 31951),
        (b'{"event":"media","streamSid":"MZ1","media":{"payload":"!"}}', True, 31951),
        (b'{"event":"media","streamSid":"MZ1","media":{"payload":""}}', True, 31951),
        (b"{", True, 31951),
        (b'"\xff\xfe"', True, 31951),
    ],
)
def test_any_other_message_has_a_debugger_code(data: bytes, is_text: bool, code: int) -> None:
    with pytest.raises(InvalidMessageError) as raised:
        parse(data, is_text, "MZ1")
    assert raised.value.code == code
