"""gw.protocol.hooks.event: a draft survives the disk, and a body fits its limit."""

from __future__ import annotations

import json

import pytest

from gw.errors import ProtocolError
from gw.protocol.hooks.event import MAX_BODY_BYTES, Draft, complete, decode_draft, encode_draft, is_draft
from gw.protocol.hooks.tool_call import CallFacts

CALL = CallFacts(sid="CA1", agent="a", direction="inbound", from_="+1", to="+2", started_at="2026-11-28T14:05:00Z")
DRAFT = Draft(id="evt_1", type="call.ended", at=1.5, call_sid="CA1", turns=True, data={"reason": "caller_hangup"})


def test_a_draft_is_known_by_its_beginning() -> None:
    assert decode_draft(encode_draft(DRAFT)) == DRAFT
    assert is_draft(encode_draft(DRAFT))
    assert not is_draft(complete(DRAFT, "now", CALL, {}))
    with pytest.raises(ProtocolError):
        decode_draft('{"draft":1}')


def test_a_body_has_the_documented_fields() -> None:
    body = json.loads(complete(DRAFT, "2026-11-28T14:06:00Z", CALL, {"duration_s": 2.5}))
    assert body == {
        "v": 1,
        "id": "evt_1",
        "type": "call.ended",
        "at": "2026-11-28T14:06:00Z",
        "call": {
            "sid": "CA1",
            "agent": "a",
            "direction": "inbound",
            "from": "+1",
            "to": "+2",
            "started_at": "2026-11-28T14:05:00Z",
            "variables": {},
        },
        "data": {"reason": "caller_hangup", "duration_s": 2.5},
    }


def test_a_long_transcript_is_cut_and_marked() -> None:
    turns = [{"n": n, "text": "x" * 1000} for n in range(400)]
    text = complete(DRAFT, "now", CALL, {"turns": turns})
    data = json.loads(text)["data"]
    assert data["turns_cut"] is True
    assert data["turns"] == turns[: len(data["turns"])]
    assert MAX_BODY_BYTES - 1100 < len(text) <= MAX_BODY_BYTES
    assert "turns_cut" not in json.loads(complete(DRAFT, "now", CALL, {"turns": turns[:9]}))["data"]


def test_a_body_too_long_without_turns_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"call\.ended"):
        complete(DRAFT, "now", CALL, {"tools": ["x" * MAX_BODY_BYTES], "turns": [{"n": 1}]})
