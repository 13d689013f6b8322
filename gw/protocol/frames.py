"""Websocket frames (RFC 6455 §5): a fast path for whole text messages, websockets' sans-I/O core for the rest.

Audio is thousands of small text frames a second, each whole, unfragmented and valid. The fast path recognises them by two bytes
and cuts them out of the received data: 0.9 us a message instead of 4. Control frames, fragments and binary frames are fed to
the core one by one. A frame that breaks the protocol, and everything behind it, is fed to the core unchanged; so the core
answers pings and closes, and reports the violation.

    0        1               2          4 (or 10)      +4
    | 0x81   | mask, length  | length,  | masking key, | payload ...
      FIN,     126: 16 bits    big-       from client
      text     127: 64 bits    endian     to server

No socket, no meaning of messages, no randomness: masking keys are passed in.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.speedups import apply_mask

_FIN_TEXT: Final = 0x81
_MASKED: Final = 0x80
_FIN: Final = 0x80
_CONTROL: Final = 0x08
_OPCODE: Final = 0x0F
_OPCODES: Final = frozenset(Opcode)
_LENGTH: Final = 0x7F
#: The longest length in the second byte; 126 and 127 there announce a length of 16 or 64 bits.
_SHORT_BYTES: Final = 125
_HEAD_16: Final = struct.Struct("!BBH").pack
_HEAD_64: Final = struct.Struct("!BBQ").pack


class Message(NamedTuple):
    """One whole websocket message."""

    is_text: bool
    data: bytes


def text_header(n_bytes: int, mask_bit: int = 0) -> bytes:
    """Build the header of a whole text message, with the shortest length field."""
    if n_bytes <= _SHORT_BYTES:
        return bytes((_FIN_TEXT, mask_bit | n_bytes))
    if n_bytes < 1 << 16:
        return _HEAD_16(_FIN_TEXT, mask_bit | 126, n_bytes)
    return _HEAD_64(_FIN_TEXT, mask_bit | 127, n_bytes)


def text_message(payload: bytes) -> bytes:
    """Build a whole text message from a server, unmasked."""
    return text_header(len(payload)) + payload


def masked_text_message(payload: bytes, key: bytes) -> bytes:
    """Build a whole text message from a client. `key`: four unpredictable bytes."""
    return text_header(len(payload), _MASKED) + key + apply_mask(payload, key)


class MessageCutter:
    """Cuts the data received by one end of an open websocket into whole messages.

    `core` defines the end and the largest message. Its handshake is complete, and it has received no byte behind that.
    """

    __slots__ = ("_assembled", "_core", "_is_fragmented", "_limit", "_mask_bit", "_needed", "_opcode", "_rest", "_to_core")

    def __init__(self, core: Protocol) -> None:
        if core.max_message_size is None:
            raise ValueError("the websocket core has no max_message_size: a message needs a limit")
        self._core = core
        self._limit = core.max_message_size
        self._mask_bit = _MASKED if core.side is Side.SERVER else 0
        self._rest = bytearray()  # the beginning of a frame: at most a header and a whole message
        self._needed = 0  # length of `rest` from which the next step is possible
        self._to_core = False  # the stream is broken or over: all further data is fed to the core
        self._is_fragmented = False
        self._assembled = bytearray()  # of a fragmented message; the core bounds it
        self._opcode = Opcode.TEXT

    def receive(self, data: bytes) -> list[Message]:
        """Return the messages completed by these bytes. The core's answers are in its `data_to_send`."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data, self._rest = bytes(self._rest), bytearray()
        messages: list[Message] = []
        at, size, mask_bit = 0, len(data), self._mask_bit
        while at < size:
            if self._to_core or self._core.state is not State.OPEN:
                self._to_core = True
                messages += self._feed_core(data[at:])
                break
            if size - at < 2:
                self._keep_rest(data, at, 2)
                break
            first, second = data[at], data[at + 1]
            if second & _MASKED != mask_bit or (first != _FIN_TEXT and first & _OPCODE not in _OPCODES):
                self._to_core = True  # the core names the violation
                continue
            length = second & _LENGTH
            start = at + 2
            if length > _SHORT_BYTES:
                start = at + (4 if length == 126 else 10)
                if size < start:
                    self._keep_rest(data, at, start - at)
                    break
                length = int.from_bytes(data[at + 2 : start])
            if length > self._limit:
                self._to_core = True
                continue
            end = start + length + (4 if mask_bit else 0)
            if end > size:
                self._keep_rest(data, at, end - at)
                break
            if first != _FIN_TEXT or self._is_fragmented:
                messages += self._feed_core(data[at:end])
                if not first & _CONTROL:
                    self._is_fragmented = not first & _FIN
            elif mask_bit:
                messages.append(Message(True, apply_mask(data[start + 4 : end], data[start : start + 4])))
            else:
                messages.append(Message(True, data[start:end]))
            at = end
        return messages

    def receive_end(self) -> None:
        """Report the end of the peer's data."""
        if self._rest:
            self._core.receive_data(bytes(self._rest))
            self._rest = bytearray()
        self._core.receive_eof()

    def _keep_rest(self, data: bytes, at: int, needed: int) -> None:
        self._rest += data[at:]
        self._needed = needed

    def _feed_core(self, data: bytes) -> list[Message]:
        """Feed the core, and assemble its frames to messages."""
        self._core.receive_data(data)
        messages = []
        for event in self._core.events_received():
            if isinstance(event, Frame) and (message := self._assemble(event)) is not None:
                messages.append(message)
        return messages

    def _assemble(self, frame: Frame) -> Message | None:
        if frame.opcode is Opcode.CONT:
            self._assembled += frame.data
            if not frame.fin:
                return None
            data, self._assembled = bytes(self._assembled), bytearray()
            return Message(self._opcode is Opcode.TEXT, data)
        if frame.opcode is not Opcode.TEXT and frame.opcode is not Opcode.BINARY:
            return None
        if frame.fin:
            return Message(frame.opcode is Opcode.TEXT, bytes(frame.data))
        self._opcode = frame.opcode
        self._assembled += frame.data
        return None
