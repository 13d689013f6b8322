"""gw.call.leave: the wish to leave a stream, from an AI's arguments, and how it ended."""

from __future__ import annotations

import json

import pytest

from gw.call.leave import (
    Leave,
    caller_outcome,
    decode_leave,
    digits_of,
    encode_leave,
    is_key,
    outcome_of,
    output_of,
    settled_outcome,
    transfer_of,
    without_digits,
)
from gw.errors import ProtocolError

KEY = "ab" * 16
WISH = Leave(key=KEY, tool="transfer", call_id="call_1")
TARGETS = {"sales": "+15551234567", "night": "sip:night@example.com"}


def test_a_transfer_has_the_number_of_its_target_and_the_whisper() -> None:
    wish = transfer_of(WISH, '{"target":"night","summary":" Anna asks. "}', TARGETS, accept="Press 1.")
    assert (wish.to, wish.target, wish.whisper) == ("sip:night@example.com", "night", "Anna asks. Press 1.")
    assert json.loads(wish.arguments) == {"target": "night", "summary": "Anna asks."}
    assert transfer_of(WISH, '{"target":"sales"}', TARGETS, accept="").whisper == ""
    assert decode_leave(encode_leave(wish)) == wish


@pytest.mark.parametrize("arguments", ['{"target":"boss"}', '{"target":5}', "{}", "[]", "", "{", '{"target":"+15551234567"}'])
def test_arguments_without_a_target_are_refused(arguments: str) -> None:
    with pytest.raises(ProtocolError):
        transfer_of(WISH, arguments, TARGETS, accept="")


def test_digits_are_kept_until_they_are_sent() -> None:
    wish = digits_of(WISH, '{"digits":"12w#"}')
    assert wish.digits == "12w#"
    kept = without_digits(wish)
    assert kept.digits == ""
    assert "12w" not in encode_leave(kept)


@pytest.mark.parametrize("arguments", ['{"digits":""}', '{"digits":"1a"}', '{"digits":"' + "1" * 65 + '"}', "{}", '{"digits":1}'])
def test_other_digits_are_refused(arguments: str) -> None:
    with pytest.raises(ProtocolError):
        digits_of(WISH, arguments)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "sent"),
        ({"DialCallStatus": "busy"}, "busy"),
        ({"DialCallStatus": "no-answer", "DialBridged": "false"}, "no-answer"),
        ({"DialCallStatus": "canceled"}, "canceled"),
        ({"DialCallStatus": "completed", "DialBridged": "true"}, "completed"),
        ({"DialCallStatus": "completed", "DialBridged": "false"}, "declined"),
        ({"DialCallStatus": "completed"}, "ended"),
        ({"DialCallStatus": "new"}, "failed"),
    ],
)
def test_the_outcome_follows_from_the_webhook(fields: dict[str, str], outcome: str) -> None:
    assert outcome_of(fields) == outcome


def test_a_leg_without_a_report_is_connected_if_it_was_accepted() -> None:
    whispered = transfer_of(WISH, '{"target":"sales"}', TARGETS, accept="Press 1.")
    assert settled_outcome("ended", whispered, accepted=False) == "declined"
    assert settled_outcome("ended", whispered, accepted=True) == "completed"
    assert settled_outcome("ended", WISH, accepted=False) == settled_outcome("ended", None, accepted=False) == "completed"
    assert settled_outcome("busy", whispered, accepted=True) == "busy"


def test_a_caller_who_left_before_the_connection_canceled_the_transfer() -> None:
    ends = {"no-answer": "canceled", "declined": "canceled", "canceled": "canceled", "completed": "completed", "busy": "busy"}
    assert {end: caller_outcome(end, is_over=True) for end in ends} == ends
    assert {end: caller_outcome(end, is_over=False) for end in ends} == {end: end for end in ends}


def test_an_unreadable_wish_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        decode_leave('{"tool":"transfer"}')


def test_keys_and_outputs() -> None:
    assert is_key(KEY)
    assert not any(is_key(text) for text in ("", KEY.upper(), KEY + "0", "x" * 32))
    assert output_of("no-answer") == '{"status": "no-answer"}'
