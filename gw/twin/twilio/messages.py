"""Media stream messages as Twilio writes and checks them. Pure.

From the gateway only `media`, `mark` and `clear` are valid, with exactly their fields. Implements Twilio's documentation
separately from the gateway. Cheap enough for hundreds of calls in one process: a media message is joined from parts built once.

Source: Twilio Media Streams, "WebSocket messages"; debugger codes 31950, 31951.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

MEDIA_FORMAT: Final = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
CONNECTED: Final = b'{"event":"connected","protocol":"Call","version":"1.0.0"}'


class MediaBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="event", tag=str.lower):
    stream_sid: str = msgspec.field(name="streamSid")


class Media(_Base, frozen=True, forbid_unknown_fields=True, tag_field="event", tag="media"):
    media: MediaBody


class Mark(_Base, frozen=True, forbid_unknown_fields=True, tag_field="event", tag="mark"):
    mark: MarkBody


class Clear(_Base, frozen=True, forbid_unknown_fields=True, tag_field="event", tag="clear"):
    pass


_DECODER: Final = msgspec.json.Decoder(Media | Mark | Clear)


class InvalidMessageError(Exception):
    """A message that Twilio would drop, with the debugger's code."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def parse(data: bytes, is_text: bool, stream_sid: str) -> tuple[Media | Mark | Clear, bytes]:
    """Parse a message from the gateway. Returns it, and its audio.

    Raises: InvalidMessageError(31950) for a binary message, (31951) for any other invalid one.
    """
    if not is_text:
        raise InvalidMessageError(31950, "binary message")
    try:
        message = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidMessageError(31951, f"{error}: {data[:80]!r}") from error
    if message.stream_sid != stream_sid:
        raise InvalidMessageError(31951, f"streamSid {message.stream_sid[:40]!r} is not this stream's")
    if not isinstance(message, Media):
        return message, b""
    try:
        audio = binascii.a2b_base64(message.media.payload, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidMessageError(31951, f"payload: {error}") from error
    if not audio:
        raise InvalidMessageError(31951, "empty payload")
    return message, audio


class MessageWriter:
    """Builds one stream's messages, numbered as Twilio numbers them.

    Sequence numbers start at 1 with `start`, chunks with the first media message.
    """

    def __init__(self, account_sid: str, call_sid: str, stream_sid: str) -> None:
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._stream_sid = stream_sid
        self._sequence = 0
        self._chunk = 0
        self._tail = f'"}},"streamSid":"{stream_sid}"}}'.encode()
        self._encoded: dict[bytes, bytes] = {}

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    def start(self, parameters: Mapping[str, str], changes: Mapping[str, Any] | None = None) -> bytes:
        """Build `start`; `changes` replace fields of its `start` object, for invalid ones."""
        body = {
            "accountSid": self._account_sid,
            "streamSid": self._stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": MEDIA_FORMAT,
            "customParameters": dict(parameters),
            **(changes or {}),
        }
        return _dump({"event": "start", "sequenceNumber": self._next(), "start": body, "streamSid": self._stream_sid})

    def media(self, frame: bytes, at_ms: int) -> bytes:
        """Build one frame of the caller's audio, `at_ms` after the stream's start."""
        payload = self._encoded.get(frame)
        if payload is None:
            payload = base64.b64encode(frame)
            if len(self._encoded) < 8:  # mostly silence
                self._encoded[frame] = payload
        self._sequence += 1
        self._chunk += 1
        head = b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"'
        return head % (self._sequence, self._chunk, at_ms) + payload + self._tail

    def dtmf(self, digit: str) -> bytes:
        body = {"track": "inbound_track", "digit": digit}
        return _dump({"event": "dtmf", "streamSid": self._stream_sid, "sequenceNumber": self._next(), "dtmf": body})

    def mark(self, name: str) -> bytes:
        """Build the echo of a mark."""
        return _dump({"event": "mark", "sequenceNumber": self._next(), "streamSid": self._stream_sid, "mark": {"name": name}})

    def stop(self) -> bytes:
        body = {"accountSid": self._account_sid, "callSid": self._call_sid}
        return _dump({"event": "stop", "sequenceNumber": self._next(), "stop": body, "streamSid": self._stream_sid})


def _dump(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
