"""The JSON of OpenAI Realtime's server events, as far as we read it.

Every field but a type is optional, as in the types of the openai package 3.54.0: which one an event cannot do without is said
by its handler in `openai_realtime`. Only shapes and their decoders; nothing here knows what they mean.
"""

from __future__ import annotations

from typing import Final

import msgspec

_NONE: Final = msgspec.Raw()


class Event(msgspec.Struct):
    type: str
    response_id: str | None = None
    item_id: str | None = None
    delta: str | None = None
    transcript: str | None = None
    audio_start_ms: int | None = None
    audio_end_ms: int | None = None
    session: msgspec.Raw = _NONE
    response: msgspec.Raw = _NONE
    item: msgspec.Raw = _NONE
    error: msgspec.Raw = _NONE


class Head(msgspec.Struct):
    """A message of which only the type is read, when the whole could not be."""

    type: str


class Format(msgspec.Struct):
    type: str | None = None


class Direction(msgspec.Struct):
    format: Format | str | None = None  # a plain string is the beta shape's


class Audio(msgspec.Struct):
    input: Direction | None = None
    output: Direction | None = None


class Session(msgspec.Struct):
    audio: Audio | None = None
    expires_at: float | None = None


class ErrorBody(msgspec.Struct):
    type: str | None = None
    code: str | None = None
    message: str | None = None
    event_id: str | None = None


class StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: ErrorBody | None = None


class Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None


class Item(msgspec.Struct):
    type: str
    id: str | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


EVENT: Final = msgspec.json.Decoder(Event)
HEAD: Final = msgspec.json.Decoder(Head)
SESSION: Final = msgspec.json.Decoder(Session)
RESPONSE: Final = msgspec.json.Decoder(Response)
ITEM: Final = msgspec.json.Decoder(Item)
ERROR: Final = msgspec.json.Decoder(ErrorBody)
