"""The JSON of OpenAI Realtime's server events, as far as we read it.

Every field but a type is optional, as in the types of the openai package 3.54.0: which one an event cannot do without is said
by its handler in `openai_realtime`. Only shapes and their decoders; nothing here knows what they mean.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

_NONE: Final = msgspec.Raw()

#: Names of items, responses, calls and tools: kept, stored and sent back, so they have a bound. Real ones are below 40.
Id = Annotated[str, msgspec.Meta(max_length=128)]
#: A place in the audio; a session lasts an hour, the bound is what a database column holds.
Ms = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Event(msgspec.Struct):
    type: str
    response_id: Id | None = None
    item_id: Id | None = None
    delta: str | None = None
    transcript: str | None = None
    audio_start_ms: Ms | None = None
    audio_end_ms: Ms | None = None
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
    id: Id | None = None
    status: str | None = None
    status_details: StatusDetails | None = None


class Item(msgspec.Struct):
    type: str
    id: Id | None = None
    status: str | None = None
    call_id: Id | None = None
    name: Id | None = None
    arguments: str | None = None


EVENT: Final = msgspec.json.Decoder(Event)
HEAD: Final = msgspec.json.Decoder(Head)
SESSION: Final = msgspec.json.Decoder(Session)
RESPONSE: Final = msgspec.json.Decoder(Response)
ITEM: Final = msgspec.json.Decoder(Item)
ERROR: Final = msgspec.json.Decoder(ErrorBody)
