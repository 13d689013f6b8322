"""Events of calls for a user's endpoint: their bodies. Pure.

    {"v":1, "id":"evt_...", "type":"call.ended", "at":"2026-11-28T14:05:00Z", "call":{...}, "data":{...}}

An event is a draft on disk first, with the facts of the bus event alone. Its body is complete once the store has the facts of the
call; from then on each attempt sends the same bytes.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from gw.errors import ProtocolError
from gw.protocol.hooks.tool_call import CallFacts
from gw.protocol.wire import decode, refuse

EventType = Literal[
    "call.started", "call.ended", "tool.called", "transfer.ended", "recording.completed", "transcript.turn", "dial.ended"
]

#: Longest body. A longer one loses its last turns.
MAX_BODY_BYTES: Final = 256 << 10


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event before its call's facts are known. `turns`: whether its body gets the transcript."""

    draft: Literal[1] = 1
    id: str
    type: EventType
    at: float  # epoch seconds
    call_sid: str
    turns: bool = False
    data: dict[str, Any] = {}


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    v: int = 1
    id: str
    type: EventType
    at: str
    call: CallFacts
    data: dict[str, Any]


_DECODER: Final = msgspec.json.Decoder(Draft)
_ENCODER: Final = msgspec.json.Encoder()
_DRAFT: Final = '{"draft":1,'


def encode_draft(draft: Draft) -> str:
    """Return a draft as a job's body."""
    return _ENCODER.encode(draft).decode()


def is_draft(text: str) -> bool:
    """Return whether a job's body is a draft."""
    return text.startswith(_DRAFT)


def decode_draft(text: str) -> Draft:
    """Return the draft in a job's body. Raises ProtocolError."""
    try:
        return decode(_DECODER, text)
    except msgspec.ValidationError as error:
        refuse(error)


def complete(draft: Draft, at: str, call: CallFacts, data: dict[str, Any]) -> str:
    """Return the body of an event. `at`: its time as text.

    `data`: beside the draft's own; its `turns` are cut to fit MAX_BODY_BYTES.

    Raises: ProtocolError if it is too long without them.
    """
    whole = {**draft.data, **data}
    turns = whole.get("turns") or []
    body = _encode(draft, at, call, whole)
    low, high = 0, len(turns)  # of turns that fit, and one more than may fit
    if len(body) > MAX_BODY_BYTES and turns:
        while low < high:
            middle = (low + high + 1) // 2
            if len(_encode(draft, at, call, {**whole, "turns": turns[:middle], "turns_cut": True})) > MAX_BODY_BYTES:
                high = middle - 1
            else:
                low = middle
        body = _encode(draft, at, call, {**whole, "turns": turns[:low], "turns_cut": True})
    if len(body) > MAX_BODY_BYTES:
        raise ProtocolError("oversize_message", f"an event of type {draft.type} has {len(body)} bytes")
    return body.decode()


def _encode(draft: Draft, at: str, call: CallFacts, data: dict[str, Any]) -> bytes:
    return _ENCODER.encode(_Body(id=draft.id, type=draft.type, at=at, call=call, data=data))
