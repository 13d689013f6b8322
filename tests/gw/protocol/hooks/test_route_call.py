"""gw.protocol.hooks.route_call: a valid answer becomes a decision, and any other one names its fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import ProtocolError
from gw.protocol.hooks.route_call import (
    MAX_ANSWER_BYTES,
    Decision,
    call_sid_of,
    decode_decision,
    encode_decision,
    read_answer,
    request_body,
)


def test_the_request_has_every_field_of_the_form() -> None:
    body = request_body("CA1", {"From": "+1", "CallerName": "Ann \ud800", "StirVerstat": "TN-Validation-Passed-A"})
    assert json.loads(body) == {
        "v": 1,
        "type": "call.route",
        "id": "CA1",
        "twilio": {"From": "+1", "CallerName": "Ann ?", "StirVerstat": "TN-Validation-Passed-A"},
    }
    assert call_sid_of(body) == "CA1"
    with pytest.raises(ProtocolError):
        call_sid_of(b"{}")


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        ({}, Decision()),
        ({"agent": "sales"}, Decision(agent="sales")),
        ({"agent": None, "variables": None, "record": None, "refuse": None, "dial": None, "greeting": None}, Decision()),
        ({"variables": {"name": "Zoë"}, "record": False}, Decision(variables={"name": "Zoë"}, record=False)),
        ({"greeting": "Greet {{name}}.", "more": [1]}, Decision(greeting="Greet {{name}}.")),
        ({"greeting": ""}, Decision(greeting="")),
        ({"refuse": "busy"}, Decision(refuse="busy")),
        ({"dial": "+15551234567"}, Decision(dial="+15551234567")),
        ({"dial": "sip:desk@example.com", "agent": ""}, Decision(dial="sip:desk@example.com")),
    ],
)
def test_valid_answers(answer: dict[str, Any], decision: Decision) -> None:
    read = read_answer(200, json.dumps(answer).encode())
    assert read == decision
    assert decode_decision(encode_decision(read)) == read


def test_the_longest_answer_fits() -> None:
    most = {"_" * n + "v": "\U0001f600" * 500 for n in range(31)}
    assert read_answer(200, json.dumps({"variables": most}, ensure_ascii=False).encode()).variables == most


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"agent": 7}, "Expected `str | null`, got `int` - at `$.agent`"),
        ({"variables": {"n": 7}}, "Expected `str`, got `int`"),
        ({"variables": ["n"]}, "Expected `object | null`, got `array`"),
        ({"record": "no"}, "Expected `bool | null`"),
        ([], "got `array`"),
        ({"agent": "a", "refuse": "busy"}, "it has agent and refuse; expected one of agent, refuse and dial"),
        ({"dial": "desk"}, 'dial = "desk"; expected a number'),
        ({"agent": "x" * 201}, "agent has 201 characters; at most 200"),
        ({"refuse": "x" * 1001}, "refuse has 1001 characters"),
        ({"refuse": "a\nb"}, "refuse contains a control character"),
        ({"greeting": "x" * 1001}, "greeting has 1001 characters"),
        ({"variables": {"name": "{{company}}"}}, "the variable name contains {{"),
        ({"variables": {"name": "x" * 10_000}}, "the variable name has 10000 characters; at most 500"),
        ({"variables": {"name": "a\x00b"}}, "the variable name contains a control character"),
        ({"variables": {"name": "a\u2028b"}}, "the variable name contains a control character"),
        ({"variables": {"Name": "x"}}, "'Name' is not a variable's name"),
        ({"variables": {"caller": "x"}}, "the variable caller is set by the gateway"),
        ({"variables": {f"v{'_' * (n % 30)}{chr(97 + n // 30)}": "" for n in range(33)}}, "it has 33 variables; at most 32"),
    ],
)
def test_an_answer_that_is_not_valid_names_its_fault(answer: Any, fault: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_answer(200, json.dumps(answer).encode())
    assert fault in caught.value.detail


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (307, b"", "it is a redirect, HTTP 307, which is not followed"),
        (404, b"{}", "HTTP 404"),
        (500, b"{}", "HTTP 500"),
        (200, b"<!DOCTYPE html>", "JSON is malformed"),
        (200, b"", "Input data was truncated"),
        (200, b'{"agent":"\xff"}', "not UTF-8"),
        (200, b"x" * (MAX_ANSWER_BYTES + 1), f"it is longer than {MAX_ANSWER_BYTES} bytes"),
        (200, b'{"variables":' * 9_000, "expected `str`"),
        (200, b'{"more":' * 9_000, "nested"),
    ],
)
def test_an_answer_of_another_kind(status: int, body: bytes, fault: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_answer(status, body)
    assert caught.value.code in ("bad_json", "bad_type", "bad_utf8", "oversize_message")
    assert fault.lower() in caught.value.detail.lower()


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_is_a_decision_or_a_fault(status: int, body: bytes) -> None:
    try:
        assert isinstance(read_answer(status, body), Decision)
    except ProtocolError as error:
        assert error.detail
