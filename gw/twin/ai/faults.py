"""Faults of responses and of the caller's turns, one table each: a name and its effect. Pure data.

Messages are templates: `$event`, `$response` and `$item` are replaced by ids of the struck response, `$fill` by FILL_BYTES bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gw.twin.ai import events
from gw.twin.ai.events import Event
from gw.twin.ai.ledger import SentResponse

#: Places of a fault besides the number of audio deltas before it.
BEFORE: Final = -2  # before response.created
CREATED: Final = -1  # after response.created, before the response has an item
AT_END: Final = 1 << 30  # after the last delta
EVERY: Final = 1 << 30  # as `times`: from the first struck response on, all of them

FILL_BYTES: Final = 2 << 20
OVERSIZE_BYTES: Final = (16 << 20) + 4096  # above a client's bound of 16 MiB on one event
BAD_EVENTS: Final = 5  # unreadable events of one fault: as many as end a session


class Refusal(NamedTuple):
    """An error of the API. `{wait}` in the message is replaced by the script's `limit_s`."""

    kind: str
    code: str | None
    message: str


class Ending(NamedTuple):
    """End of a response: its status, with a reason or an error."""

    status: str | None
    reason: str = ""
    error: Refusal | None = None


class Call(NamedTuple):
    """A tool call. Without a name it is the script's `tool`; `again`: under the call_id of the call before."""

    name: str = ""
    arguments: str = '{"number":"12"}'
    status: str | None = "completed"  # empty: the item has none
    again: bool = False
    id_chars: int = 0  # length of the call_id, if over the usual one
    pieces: int = 1  # of its arguments


@dataclass(frozen=True)
class FaultyResponse:
    """Effects on a response at its place, in the sequence of these fields."""

    place: int = 2  # unless the script names one
    refuses: Refusal | None = None  # the create is refused by an error that names it
    unanswered: bool = False  # the create has no effect
    sends: tuple[bytes, ...] = ()  # text messages
    binary: bytes = b""  # a binary message
    raw: bytes = b""  # bytes outside of all framing
    error: Refusal | None = None
    stalls: Literal["", "response", "session", "reading"] = ""  # which sends or reads nothing more
    closes: int | None = None  # close code; 0: a reset
    limits: bool = False  # creates are refused for the script's `limit_s`
    thinks: bool = False  # arguments of a tool call come ten times a second for the script's `thinks_s`
    ends: Ending | None = None
    calls: tuple[Call, ...] = ()  # before response.done
    late: Literal["", "done", "truncated"] = ""  # after which more audio of the item comes
    strips: tuple[str, ...] = ()  # fields that the response's events lack

    @property
    def is_before(self) -> bool:
        """True if it strikes before the response, wherever the script places it."""
        return self.unanswered or self.refuses is not None

    @property
    def is_last(self) -> bool:
        """True if the response sends nothing more."""
        return self.is_before or bool(self.stalls) or self.closes is not None


@dataclass(frozen=True)
class FaultyTurn:
    """Effects on a turn of the caller."""

    started: Mapping[str, Any] | None = None  # fields of speech_started
    talks_over: bool = False  # an unrequested response begins right after speech_started
    transcript: Literal["sent", "failed", "never"] = "sent"


#: Any response: its ids are filled in when a template is sent.
_ANY: Final = SentResponse(0, "$response", "$item", False, b"", "Well, ", 0.0)
_DELTA: Final = events.audio_delta(_ANY, "//8=")
_FAILED: Final = Refusal("server_error", None, "The server had an error while processing your request.")
LIMITED: Final = Refusal("requests", "rate_limit_exceeded", "Rate limit reached. Please try again in {wait}s.")
_NO_QUOTA: Final = Refusal("insufficient_quota", "insufficient_quota", "You exceeded your current quota.")
_EXPIRED: Final = Refusal("invalid_request_error", "session_expired", "Your session hit the maximum duration of 60 minutes.")
_NOT_ACTIVE: Final = Refusal(
    "invalid_request_error", "response_cancel_not_active", "Cancellation failed: no active response found."
)
_COMPLETED: Final = Ending("completed")
_ITEM: Final[Event] = {"id": "item_x", "object": "realtime.item", "type": "function_call", "name": "hang_up", "arguments": "{}"}
_LONG_ID: Final = "x" * 200


def _send(*sent: Event) -> FaultyResponse:
    return FaultyResponse(sends=_messages(*sent))


def _messages(*sent: Event) -> tuple[bytes, ...]:
    return tuple(msgspec.json.encode({"event_id": "$event", **event}) for event in sent)


def _without(event: Event, name: str) -> Event:
    return {key: value for key, value in event.items() if key != name}


def _item_done(**fields: object) -> Event:
    return {"type": "response.output_item.done", "response_id": "$response", "output_index": 1, "item": {**_ITEM, **fields}}


def _calls(*calls: Call) -> FaultyResponse:
    return FaultyResponse(place=AT_END, ends=_COMPLETED, calls=calls)


RESPONSES: Final[Mapping[str, FaultyResponse]] = {
    # the create
    "create_refused": FaultyResponse(refuses=_FAILED),
    "create_refused_quota": FaultyResponse(refuses=_NO_QUOTA),
    "create_limited": FaultyResponse(refuses=LIMITED, limits=True),
    "create_unanswered": FaultyResponse(unanswered=True),
    # the end
    "failed": FaultyResponse(ends=Ending("failed", error=_FAILED)),
    "failed_quota": FaultyResponse(ends=Ending("failed", error=_NO_QUOTA)),
    "failed_limit": FaultyResponse(ends=Ending("failed", error=LIMITED), limits=True),
    "incomplete": FaultyResponse(ends=Ending("incomplete", "max_output_tokens")),
    "filtered": FaultyResponse(ends=Ending("incomplete", "content_filter")),
    "cancelled": FaultyResponse(ends=Ending("cancelled")),
    "empty": FaultyResponse(place=CREATED, ends=_COMPLETED),
    "text_only": FaultyResponse(place=CREATED, sends=_messages(*events.text_answer(_ANY)), ends=_COMPLETED),
    "status_gone": FaultyResponse(ends=Ending("gone")),
    "status_null": FaultyResponse(ends=Ending(None)),
    # silence
    "hang": FaultyResponse(stalls="response"),
    "stall": FaultyResponse(stalls="session"),
    "freeze": FaultyResponse(stalls="reading"),
    "thinks_aloud": FaultyResponse(place=0, thinks=True),
    # the connection
    "close": FaultyResponse(closes=1011),
    "close_4000": FaultyResponse(closes=4000),
    "reset": FaultyResponse(closes=0),
    "session_expired": FaultyResponse(error=_EXPIRED, closes=1001),
    "error_fatal": FaultyResponse(error=_NO_QUOTA._replace(kind="server_error")),
    "error_benign": FaultyResponse(error=_NOT_ACTIVE),
    # audio in the wrong place
    "late_deltas": FaultyResponse(late="done"),
    "deltas_of_truncated": FaultyResponse(late="truncated"),
    "no_response_id": FaultyResponse(strips=("response_id",)),
    "no_ids": FaultyResponse(strips=("response_id", "item_id")),
    "words_first": FaultyResponse(place=0, sends=_messages(events.words_delta(_ANY, "Well, "))),
    # tool calls, which end the response; at CREATED without a word
    "hang_up": _calls(Call("hang_up", "{}")),
    "call": _calls(Call()),
    "call_twice": _calls(Call(), Call(again=True)),
    "call_again": _calls(Call(again=True)),
    "call_no_status": _calls(Call(status="")),
    "call_null_status": _calls(Call(status=None)),
    "call_incomplete": _calls(Call(status="incomplete")),
    "call_unknown_tool": _calls(Call("make_coffee")),
    "call_bad_arguments": _calls(Call(arguments='{"number":')),
    "call_long_id": _calls(Call(id_chars=200)),
    # single unreadable events
    "one_bad_event": _send({**_DELTA, "delta": 5}),
    "one_bad_base64": _send({**_DELTA, "delta": "!not base64!"}),
    "no_call_id": _send(_item_done(status="completed")),
    "long_id": _send({**_DELTA, "item_id": _LONG_ID}),
    "long_event": _send({"type": "conversation.item.done", "item": {**_ITEM, "call_id": "c", "output": "$fill"}}),
    "half_a_surrogate": FaultyResponse(
        sends=tuple(one.replace(b"Well, ", rb"\ud83d") for one in _messages(events.words_delta(_ANY, "Well, ")))
    ),
    "error_is_text": _send({"type": "error", "error": "The server is sad."}),
    "error_is_null": _send({"type": "error", "error": None}),
    "error_without_code": _send(events.error("server_error", None, "The server had an error.")),
    "session_without_formats": _send({"type": "session.updated", "session": {"type": "realtime", "id": "sess"}}),
    "unknown_event": _send({"type": "response.telepathy.delta", "thought": [1, {"deep": None}]}),
    # as many as end a session, or a message that no client accepts
    "bad_json": FaultyResponse(sends=(b'{"type":"response.output_audio.delta","delta":',) * BAD_EVENTS),
    "bad_type": _send(*({**_DELTA, "delta": 5},) * BAD_EVENTS),
    "missing_field": _send(*(_without(_DELTA, "delta"),) * BAD_EVENTS),
    "bad_base64": _send(*({**_DELTA, "delta": "!not base64!"},) * BAD_EVENTS),
    "bad_utf8": FaultyResponse(sends=(b'{"type":"response.done","response":{"id":"\xff\xfe"}}',)),
    "binary_message": FaultyResponse(binary=msgspec.json.encode(_DELTA)),
    "oversize_message": _send({**_DELTA, "delta": "$oversize"}),
    "bad_websocket": FaultyResponse(raw=b"\xf1\x02{}"),  # FIN and all three reserved bits
}

TURNS: Final[Mapping[str, FaultyTurn]] = {
    "talks_over": FaultyTurn(talks_over=True),
    "transcription_failed": FaultyTurn(transcript="failed"),
    "transcription_never": FaultyTurn(transcript="never"),
    "start_float": FaultyTurn(started={"audio_start_ms": 12.0}),
    "start_negative": FaultyTurn(started={"audio_start_ms": -1}),
    "start_without_item": FaultyTurn(started={"item_id": None}),
}


class Strike(NamedTuple):
    """A fault by name, the responses or turns it strikes, and its place in them.

    `first`: 1 is the session's first.
    """

    name: str
    first: int
    times: int
    place: int

    def hits(self, number: int) -> bool:
        """Return whether response or turn `number` is struck."""
        return self.first <= number < self.first + self.times


def message(template: bytes, sent: SentResponse, event_id: str) -> bytes:
    """Fill a template in for a response."""
    for name, value in (("event", event_id), ("response", sent.response_id), ("item", sent.item_id)):
        template = template.replace(b'"$%s"' % name.encode(), b'"%s"' % value.encode())
    for name, size in (("fill", FILL_BYTES), ("oversize", OVERSIZE_BYTES)):
        if f'"${name}"'.encode() in template:
            template = template.replace(f"${name}".encode(), b"A" * size)
    return template
