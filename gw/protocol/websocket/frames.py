"""Websocket frames (RFC 6455 §5): a fast path for whole text messages, and the rules for every other frame.

Audio is thousands of small text frames a second, each whole and unfragmented: the fast path recognises them by two bytes and cuts
them out of the received data, 0.9 us a message. The payload of a fragment, or of a frame in parts, is taken as it comes: invalid
UTF-8 ends it immediately, and a long message costs no long slice at its end. One slice cuts at most MAX_FRAMES, and the rate of
control frames and small fragments is limited: a flood holds the hub for a fraction of a millisecond, then ends.

    0        1               2          4 (or 10)      +4
    | 0x81   | mask, length  | length,  | masking key, | payload ...
      FIN,     126: 16 bits    big-       from client
      text     127: 64 bits    endian     to server

No socket, no meaning of messages, no clock, no randomness: times and masking keys are passed in.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from websockets.speedups import apply_mask

from gw.errors import ProtocolCode

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_FIN_TEXT: Final = _FIN | TEXT
#: The longest length in the second byte; 126 and 127 there announce a length of 16 or 64 bits. A control frame has no longer one.
_SHORT_BYTES: Final = 125
_HEAD_16: Final = struct.Struct("!BBH").pack
_HEAD_64: Final = struct.Struct("!BBQ").pack

#: Close codes of RFC 6455 7.4.1. The last two are never sent: a close frame without a code; an end without a close frame.
NORMAL: Final = 1000
NO_CODE: Final = 1005
LOST: Final = 1006

#: Frames cut in one slice of the hub's time. Twenty media messages are 8 KiB, so honest peers do not reach it.
MAX_FRAMES: Final = 32
_SLICE: Final = range(MAX_FRAMES)
#: Pings of one slice that are answered, the last ones. RFC 6455 5.5.3 permits only the last; ten is what Autobahn 2.10 expects.
MAX_PONGS: Final = 10
#: Limits of control frames and small fragments, as a token bucket. Keep-alive is one ping in several seconds.
FLOOD_BURST: Final = 100
FLOOD_PER_S: Final = 50
#: A fragment below this, not the last of its message, counts as small: no sender splits audio so finely.
SMALL_BYTES: Final = 64


#: Length from which on a message may be skipped.
SKIP_BYTES: Final = 1 << 20


class Message(NamedTuple):
    """One whole websocket message. `data` of one that came in parts is a bytearray: a copy of 1 MiB would take 0.5 ms."""

    is_text: bool
    data: bytes | bytearray


class End(NamedTuple):
    """End of the peer's messages. `error`: a violation, described by `text`; else `code` and `text` are the close frame's."""

    error: ProtocolCode | None
    code: int
    text: str


def text_header(n_bytes: int) -> bytes:
    """Build the header of a whole text message from a server."""
    return _header(TEXT, n_bytes, 0)


def _header(opcode: int, n_bytes: int, mask_bit: int) -> bytes:
    """Build the header of an unfragmented frame, with the shortest length field."""
    if n_bytes <= _SHORT_BYTES:
        return bytes((_FIN | opcode, mask_bit | n_bytes))
    if n_bytes < 1 << 16:
        return _HEAD_16(_FIN | opcode, mask_bit | 126, n_bytes)
    return _HEAD_64(_FIN | opcode, mask_bit | 127, n_bytes)


def frame(opcode: int, payload: bytes, key: bytes = b"") -> bytes:
    """Build an unfragmented frame. `key`: four unpredictable bytes from a client, none from a server."""
    if key:
        return _header(opcode, len(payload), _MASKED) + key + apply_mask(payload, key)
    return _header(opcode, len(payload), 0) + payload


def text_message(payload: bytes) -> bytes:
    """Build a whole text message from a server."""
    return frame(TEXT, payload)


def close_payload(code: int, reason: str) -> bytes:
    """Build the payload of a close frame: empty for NO_CODE, and the reason cut to what fits."""
    if code == NO_CODE:
        return b""
    return code.to_bytes(2) + reason.encode()[: _SHORT_BYTES - 2].decode("utf-8", "ignore").encode()


def _may_be_sent(code: int) -> bool:
    """Return True for a close code that a frame may carry (RFC 6455 7.4; IANA, "WebSocket Close Code Number Registry")."""
    return 3000 <= code < 5000 or (1000 <= code < 1015 and code not in (1004, NO_CODE, LOST))


class MessageCutter:
    """Cuts the data received by one end of an open websocket into whole messages."""

    __slots__ = (
        "_allowance",
        "_assembled",
        "_counted_s",
        "_is_final",
        "_key",
        "_left",
        "_limit",
        "_mask_bit",
        "_may_skip",
        "_opcode",
        "_rest",
        "_skipped_bytes",
        "_utf8",
        "end",
        "has_more",
        "pings",
    )

    def __init__(
        self, limit: int, *, is_client: bool, first: bytes = b"", may_skip: Callable[[bytearray], bool] | None = None
    ) -> None:
        """`limit`: bytes of the longest message. `is_client`: this end. `first`: bytes read behind the handshake.

        `may_skip`: True for the beginning of a message, over SKIP_BYTES, that is not needed. Its bytes are dropped as they come.
        """
        self._limit = limit
        self._may_skip = may_skip
        self._skipped_bytes = 0  # of the message that has begun
        self._mask_bit = 0 if is_client else _MASKED
        self._rest = first  # the beginning of a header or a control frame, or the frames behind a slice
        self.has_more = bool(first)  # `receive(b"")` cuts more frames
        self.pings: list[bytes] = []  # payloads of the last slice's pings, to be answered
        self.end: End | None = None  # nothing behind it is read
        self._opcode = 0  # of the message that has begun; 0: none has
        self._assembled = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._left = 0  # bytes to come of a data frame's payload
        self._is_final = False  # this frame ends its message
        self._key = b""
        self._allowance = float(FLOOD_BURST)
        self._counted_s = 0.0

    @property
    def has_begun(self) -> bool:
        """True while a message has begun and is not complete."""
        return self._opcode != 0

    def receive(self, data: bytes, now_s: float) -> list[Message]:
        """Return the messages these bytes complete, at most MAX_FRAMES.

        After each call the caller answers `pings`; while `has_more`, it lets the hub turn and calls again with b"". A text that
        came whole is not checked for UTF-8: its parser does that.
        """
        messages: list[Message] = []
        self.pings = []
        self.has_more = False
        if self.end is not None:
            return messages
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size, mask_bit, limit = 0, len(data), self._mask_bit, self._limit
        if self._left and data:
            at = self._take_payload(data, 0, messages)
        for _ in _SLICE:
            if size - at < 2:
                break
            second = data[at + 1]
            length = second & _LENGTH
            start = at + 2
            if length > _SHORT_BYTES:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start])  # too short a number if `start` is behind the data
            end = start + length + (4 if mask_bit else 0)
            if data[at] != _FIN_TEXT or self._opcode or end > size or second & _MASKED != mask_bit or length > limit:
                begun = self._begin_frame(data, at, start, length, now_s, messages)
                if begun == at:
                    break
                at = begun
            else:
                if mask_bit:
                    messages.append(Message(True, apply_mask(data[start + 4 : end], data[start : start + 4])))
                else:
                    messages.append(Message(True, data[start:end]))
                at = end
        else:
            self.has_more = at < size
        if at < size:
            self._rest = data[at:]
        return messages

    def receive_end(self) -> None:
        """Report the end of the peer's data."""
        self.end = self.end or End(None, LOST, "")

    def _begin_frame(self, data: bytes, at: int, start: int, length: int, now_s: float, messages: list[Message]) -> int:
        """Take a frame that is not a whole text message, as far as it has come. `start`: behind the length field.

        Returns: the position behind it; `at` when too few bytes have come; the end of the data when it breaks a rule.
        """
        size = len(data)
        first, second = data[at], data[at + 1]
        opcode, is_final = first & _OPCODE, bool(first & _FIN)
        is_control = bool(opcode & _CONTROL)
        if second & _MASKED != self._mask_bit:
            return self._break(size, "bad_websocket", "a frame without a mask from a client, or with one from a server")
        if first & _RESERVED or opcode & ~_CONTROL > 2:
            return self._break(size, "bad_websocket", "a reserved bit or an unknown opcode")
        if is_control and (not is_final or second & _LENGTH > _SHORT_BYTES):
            return self._break(size, "bad_websocket", "a control frame in fragments or over 125 bytes")
        if not is_control and bool(opcode) == bool(self._opcode):
            return self._break(size, "bad_websocket", "a message inside a message, or a continuation of none")
        if size < start:
            return at
        if not is_control and len(self._assembled) + self._skipped_bytes + length > self._limit:
            return self._break(size, "oversize_message", f"a message over {self._limit} bytes")
        key, start = (data[start : start + 4], start + 4) if self._mask_bit else (b"", start)
        if size < start + (length if is_control else 0):
            return at
        if (is_control or (not is_final and length < SMALL_BYTES)) and not self._may_take_small(now_s):
            return self._break(size, "frame_flood", f"over {FLOOD_PER_S} control frames and small fragments a second")
        if is_control:
            payload = data[start : start + length]
            return self._take_control(opcode, apply_mask(payload, key) if key else payload, start + length, size)
        self._opcode = self._opcode or opcode
        self._is_final, self._left, self._key = is_final, length, key
        return self._take_payload(data, start, messages)

    def _take_payload(self, data: bytes, at: int, messages: list[Message]) -> int:
        """Take the payload of a data frame, as far as it has come. Returns the position behind it."""
        piece = data[at : at + self._left]
        n_bytes = len(piece)
        if self._key:
            piece = apply_mask(piece, self._key)
            turn = n_bytes % 4
            self._key = self._key[turn:] + self._key[:turn]  # so the next piece begins with the key's next byte
        self._left -= n_bytes
        is_whole = self._is_final and not self._left
        if self._opcode == TEXT:
            try:
                self._utf8.decode(piece, is_whole)
            except UnicodeDecodeError:
                return self._break(len(data), "bad_utf8", "a text message is not UTF-8")
        if self._skipped_bytes:
            self._skipped_bytes += n_bytes
        else:
            self._assembled += piece
            is_long = len(self._assembled) > SKIP_BYTES and self._opcode == TEXT
            if is_long and self._may_skip is not None and self._may_skip(self._assembled):
                self._skipped_bytes = len(self._assembled)
                self._assembled = bytearray()
        if is_whole:
            if not self._skipped_bytes:
                messages.append(Message(self._opcode == TEXT, self._assembled))
            self._assembled = bytearray()
            self._skipped_bytes = self._opcode = 0
        return at + n_bytes

    def _take_control(self, opcode: int, payload: bytes, behind: int, size: int) -> int:
        """Take a ping or the peer's close; a pong carries nothing. Returns the position `behind` it, or `size` at the end."""
        if opcode == PING:
            self.pings = [*self.pings[1 - MAX_PONGS :], payload]
        if opcode != CLOSE:
            return behind
        code = int.from_bytes(payload[:2]) if payload else NO_CODE
        if payload and (len(payload) == 1 or not _may_be_sent(code)):
            return self._break(size, "bad_websocket", f"a close frame with code {code}")
        try:
            self.end = End(None, code, payload[2:].decode())
        except UnicodeDecodeError:
            return self._break(size, "bad_utf8", "a close frame's reason is not UTF-8")
        return size

    def _may_take_small(self, now_s: float) -> bool:
        """Count one control frame or small fragment. False: over the limit."""
        refilled = self._allowance + (now_s - self._counted_s) * FLOOD_PER_S
        self._allowance = min(float(FLOOD_BURST), refilled) - 1
        self._counted_s = now_s
        return self._allowance >= 0

    def _break(self, size: int, error: ProtocolCode, text: str) -> int:
        """End the stream at a violation. Returns `size`: nothing behind it is read."""
        self.end = End(error, LOST, text)
        return size
