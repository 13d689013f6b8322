"""gw.protocol.hooks.tool_call: requests to tools, and the output for each answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import ProtocolError
from gw.protocol.hooks import tool_call
from gw.protocol.hooks.tool_call import (
    CallFacts,
    ToolAnswer,
    ToolCall,
    failed,
    read_answer,
    read_arguments,
    refs_of,
    with_digits,
    without_digits,
)

FACTS = CallFacts(
    sid="CA1",
    agent="default",
    direction="inbound",
    from_="+15550001111",
    to="+15552223333",
    started_at="2026-11-28T14:05:00Z",
    variables={"name": "Ann"},
)
CALL = ToolCall(id="CA1/2/call_x", tool="lookup_order", arguments='{"number":"7"}', call=FACTS)


def output(answer: ToolAnswer) -> dict[str, Any]:
    parsed = json.loads(answer.output)
    assert isinstance(parsed, dict)
    assert parsed["error"] == answer.status
    return parsed


def test_the_request_has_the_documented_fields() -> None:
    body = tool_call.request_body(CALL, read_arguments(CALL.arguments).json, attempt=1, deadline_ms=8000)
    assert json.loads(body) == {
        "v": 1,
        "type": "tool.call",
        "id": "CA1/2/call_x",
        "tool": "lookup_order",
        "arguments": {"number": "7"},
        "attempt": 1,
        "deadline_ms": 8000,
        "call": {
            "sid": "CA1",
            "agent": "default",
            "direction": "inbound",
            "from": "+15550001111",
            "to": "+15552223333",
            "started_at": "2026-11-28T14:05:00Z",
            "variables": {"name": "Ann"},
        },
    }


def test_a_job_body_round_trips() -> None:
    assert tool_call.decode_call(tool_call.encode_call(CALL)) == CALL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id":"x"}', '{"id":"","tool":"t","arguments":"","call":{}}'])
def test_another_job_body_is_one_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        tool_call.decode_call(text)


def test_half_a_surrogate_becomes_u_fffd() -> None:
    call = ToolCall(id="CA1/1/c\ud800", tool="t", arguments='{"a":"\ud83d"}', call=FACTS)
    kept = tool_call.decode_call(tool_call.encode_call(call))
    assert (kept.id, kept.arguments) == ("CA1/1/c\ufffd", '{"a":"\ufffd"}')
    assert read_arguments('{"a":"\\ud83d","b":"\\ud83d\\ude00"}').json == '{"a":"\ufffd","b":"\U0001f600"}'.encode()
    assert b"\xef\xbf\xbd" in tool_call.request_body(call, b"{}", attempt=1, deadline_ms=1)
    assert tool_call.idempotency_key(call.id) == "CA1%2F1%2Fc%3F"


def test_the_key_is_the_id_percent_encoded() -> None:
    assert tool_call.idempotency_key("CA1/2/call_x y\r\n\u00e9") == "CA1%2F2%2Fcall_x%20y%0D%0A%C3%A9"


@pytest.mark.parametrize("text", ["", " \n", "{}"])
def test_no_arguments(text: str) -> None:
    assert read_arguments(text) == ({}, b"{}")


def test_numbers_are_sent_unchanged() -> None:
    assert read_arguments('{ "a" : 12345678901234567890123, "b": 1.50 }').json == b'{"a":12345678901234567890123,"b":1.5}'


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"text"',
        "null",
        "7",
        '{"a":1,"a":2}',
        '{"a":{"b":1,"b":1}}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":' + "9" * 400 + "}",
        '{"a":[-' + "9" * 309 + "]}",
        '{"a":' + "[" * 7000 + "]" * 7000 + "}",
        '{"a":' + "[" * 40 + "1" + "]" * 40 + "}",
        '{"a":"' + "x" * tool_call.MAX_ARGUMENTS_BYTES + '"}',
        '{"a":1} and more',
    ],
)
def test_anything_but_one_plain_object_is_one_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        read_arguments(text)


@given(st.text(max_size=60))
def test_any_text_gives_arguments_or_one_error(text: str) -> None:
    try:
        arguments = read_arguments(text)
    except ProtocolError:
        return
    assert isinstance(json.loads(arguments.json), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_the_json_sent_is_the_value_checked(value: dict[str, Any]) -> None:
    arguments = read_arguments(json.dumps(value))
    assert arguments.value == value == json.loads(arguments.json)


# -- sensitive digits -----------------------------------------------------------------------------------------------------

NESTED = '{"card": {"ref": "d1"}, "more": [{"pin": {"ref": "d12"}}, "d1", 7], "name": "x"}'


def test_references_are_found_at_any_depth() -> None:
    assert refs_of(read_arguments(NESTED).value) == ["d1", "d12"]
    assert refs_of([]) == refs_of("d1") == refs_of(None) == []


@pytest.mark.parametrize("value", [{}, {"ref": "d0"}, {"ref": "x1"}, {"ref": 1}, {"ref": "d1", "more": 1}, {"other": "d1"}])
def test_other_objects_are_not_references(value: dict[str, Any]) -> None:
    assert refs_of(value) == []
    arguments = read_arguments(json.dumps({"a": value}))
    assert with_digits(arguments, {"d1": "1234"}) is arguments


def test_digits_take_the_place_of_their_references() -> None:
    filled = with_digits(read_arguments(NESTED), {"d1": "4111", "d12": "0042"})
    expected = {"card": "4111", "more": [{"pin": "0042"}, "d1", 7], "name": "x"}
    assert filled.value == json.loads(filled.json) == expected


def test_a_reference_to_unknown_digits_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="the digits d12 are not known any more"):
        with_digits(read_arguments(NESTED), {"d1": "4111"})


def test_digits_are_masked_the_longest_first_and_short_ones_are_not() -> None:
    text = without_digits("card 41111234, pin 1234, day 123", ["1234", "41111234", "123"], lambda one: "*" * len(one))
    assert text == "card ********, pin ****, day 123"


# -- answers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 299])
@pytest.mark.parametrize("body", [b"", b'{"a": 1}', b"<html>not JSON</html>", "\ufeffgr\u00fc\u00df".encode(), b" \r\n\0"])
def test_a_2xx_body_is_verbatim(status: int, body: bytes) -> None:
    assert read_answer(status, body, max_bytes=100) == (body.decode(), "ok")


def test_exactly_the_limit_passes() -> None:
    assert read_answer(200, b"x" * 100, max_bytes=100) == ("x" * 100, "ok")
    assert "100 bytes" in output(read_answer(200, b"x" * 101, max_bytes=100))["detail"]


def test_a_body_that_is_not_utf8() -> None:
    assert output(read_answer(200, b"\xff\xfe", max_bytes=100))["error"] == "unavailable"


def test_a_4xx_body_is_the_detail_to_500_characters() -> None:
    assert output(read_answer(404, b"no such order", max_bytes=9)) == {"error": "refused", "detail": "no such order"}
    assert output(read_answer(422, "\u00e9".encode() * 900, max_bytes=9))["detail"] == "\u00e9" * 500
    assert output(read_answer(400, b"\xff bad", max_bytes=9))["detail"] == "\ufffd bad"
    assert output(read_answer(403, b" ", max_bytes=9))["detail"] == "The tool's endpoint refused the request: HTTP 403."


def test_each_character_of_a_detail_may_have_four_bytes() -> None:
    body = "\U0001f600".encode() * 501
    assert output(read_answer(400, body, max_bytes=9))["detail"] == "\U0001f600" * 500


def test_the_statuses_of_redirects() -> None:
    words = {status: output(read_answer(status, b"", max_bytes=9))["detail"] for status in (299 + 1, 399, 400, 499, 500)}
    assert ["redirect" in text for text in words.values()] == [True, True, False, False, False]
    assert ["refused" in text for text in words.values()] == [False, False, True, True, False]


def test_arguments_have_16_kib() -> None:
    longest = '{"a":"' + "x" * (16_384 - 8) + '"}'
    assert len(longest) == 16_384
    assert len(read_arguments(longest).value["a"]) == 16_376
    with pytest.raises(ProtocolError, match="16384 bytes"):
        read_arguments(longest + " ")


@pytest.mark.parametrize("status", [101, 199, 301, 302, 307, 500, 503, 599, 999])
def test_other_answers_are_unavailable(status: int) -> None:
    found = output(read_answer(status, b"do not show this", max_bytes=100))
    assert found["error"] == "unavailable"
    assert str(status) in found["detail"]
    assert "show" not in found["detail"]


def test_an_output_is_utf8() -> None:
    assert json.loads(failed("busy", "half \ud800").output.encode()) == {"error": "busy", "detail": "half \ufffd"}
