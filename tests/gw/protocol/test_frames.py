"""gw.protocol.frames against websockets' core: the same messages and the same end for any bytes, in any pieces."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.speedups import apply_mask

from gw.protocol.frames import Message, MessageCutter, masked_text_message, text_header, text_message

LIMIT = 300
TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def core_of(side: Side) -> Protocol:
    return Protocol(side, max_size=LIMIT)


def raw(first: int, payload: bytes, *, mask: bool, wide: bool = False, claimed: int | None = None) -> bytes:
    """Build a frame, valid or not."""
    length = len(payload) if claimed is None else claimed
    mask_bit = 0x80 if mask else 0
    if wide:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    elif length > 125:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = bytes((first, mask_bit | length))
    key = b"\x01\x80\xff\x37"
    return head + (key + apply_mask(payload, key) if mask else payload)


class Alone:
    """The core without the cutter: the reference."""

    def __init__(self, side: Side) -> None:
        self.core = core_of(side)
        self._parts = b""
        self._is_text = True

    def receive(self, data: bytes) -> list[Message]:
        self.core.receive_data(data)
        messages = []
        for frame in self.core.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._parts, self._is_text = b"", frame.opcode is Opcode.TEXT
            elif frame.opcode is not Opcode.CONT:
                continue
            self._parts += bytes(frame.data)
            if frame.fin:
                messages.append(Message(self._is_text, self._parts))
        return messages


def ends_of(core: Protocol) -> tuple[object, ...]:
    """Return everything known about the end of a core."""
    return (core.state, type(core.parser_exc), str(core.parser_exc), core.close_rcvd, core.close_sent)


def both(side: Side, pieces: Sequence[bytes], *, end: bool = False, each: bool = False) -> list[Message]:
    """Feed cutter and reference the same pieces; compare at the end, or after each. Returns the messages."""
    alone, core = Alone(side), core_of(side)
    cutter = MessageCutter(core)
    messages: list[Message] = []
    expected: list[Message] = []
    for piece in pieces:
        messages += cutter.receive(piece)
        expected += alone.receive(piece)
        if each:
            compare(side, core, alone.core)
    if end:
        cutter.receive_end()
        alone.core.receive_eof()
    assert messages == expected
    compare(side, core, alone.core)
    return messages


def compare(side: Side, core: Protocol, alone: Protocol) -> None:
    assert ends_of(core) == ends_of(alone)
    sent, expected = core.data_to_send(), alone.data_to_send()
    assert len(b"".join(sent)) == len(b"".join(expected))  # the same answers; a client's differ by their keys
    if side is Side.SERVER:
        assert sent == expected


FRAMES = st.tuples(
    st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x82, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8A, 0x09, 0xC1, 0x83, 0x8B]),
    st.binary(max_size=140) | st.binary(min_size=LIMIT - 2, max_size=LIMIT + 2),
    st.sampled_from([True, True, True, True, False]),  # masked correctly
    st.booleans(),
)


@given(st.sampled_from(list(Side)), st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 400), max_size=20), st.booleans())
def test_any_frames_in_any_pieces(side: Side, frames: list[tuple[int, bytes, bool, bool]], cuts: list[int], end: bool) -> None:
    stream = b"".join(raw(first, data, mask=(side is Side.SERVER) is right, wide=wide) for first, data, right, wide in frames)
    pieces = []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    both(side, [piece for piece in (*pieces, stream) if piece], end=end)


@given(st.sampled_from(list(Side)), st.lists(st.binary(min_size=1, max_size=40), max_size=10))
def test_any_bytes(side: Side, pieces: list[bytes]) -> None:
    both(side, pieces, end=True)


@pytest.mark.parametrize("side", list(Side))
def test_every_first_byte_and_length_byte_by_byte(side: Side) -> None:
    """Compare reserved bits, unknown opcodes, and fragmented or oversized control frames after each byte."""
    mask = side is Side.SERVER
    for first, length in product(range(256), (0, 125, 126, LIMIT, LIMIT + 1)):
        for masked in (mask, not mask):
            head = raw(first, b"", mask=masked, claimed=length)
            both(side, [head[at : at + 1] for at in range(len(head))], each=True)
        whole = [raw(first, b"a" * length, mask=mask), raw(0x81, b"next", mask=mask), raw(0x80, b"last", mask=mask)]
        both(side, whole, each=True)
        both(side, [b"".join(whole)])


@pytest.mark.parametrize("side", list(Side))
def test_a_burst_in_single_bytes(side: Side) -> None:
    mask = side is Side.SERVER
    stream = b"".join(raw(0x81, bytes([65 + n]) * n * 20, mask=mask) for n in range(10))
    pieces = [stream[at : at + 1] for at in range(len(stream))]
    assert [len(message.data) for message in both(side, pieces)] == [n * 20 for n in range(10)]
    for cut in range(1, len(stream)):
        assert len(both(side, [stream[:cut], stream[cut:]])) == 10


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_make_one_message_with_control_frames_in_between(side: Side, opcode: int) -> None:
    frames = [
        (opcode, b"one "),
        (0x80 | PING, b"?"),
        (CONT, b"two "),
        (0x80 | PONG, b"!"),
        (0x80 | CONT, b"three"),
        (0x81, b"next"),
    ]
    whole = [Message(opcode == TEXT, b"one two three"), Message(True, b"next")]
    pieces = [raw(first, data, mask=side is Side.SERVER) for first, data in frames]
    assert both(side, pieces * 2) == whole * 2
    assert both(side, [b"".join(pieces * 2)]) == whole * 2


def test_a_text_between_fragments_breaks_the_stream() -> None:
    stream = raw(0x01, b"one", mask=True) + raw(0x81, b"two", mask=True)
    assert both(Side.SERVER, [stream]) == []


def test_data_behind_a_close_is_not_read() -> None:
    stream = raw(0x88, b"\x03\xe8", mask=True) + raw(0x81, b"late", mask=True)
    assert both(Side.SERVER, [stream, raw(0x81, b"later", mask=True)]) == []


def test_too_long_a_message_is_refused_at_its_header() -> None:
    core = core_of(Side.SERVER)
    MessageCutter(core).receive(raw(0x81, b"", mask=True, claimed=LIMIT + 1)[:4])
    assert core.state is State.CLOSING


def test_no_more_is_kept_than_one_message() -> None:
    core = core_of(Side.SERVER)
    cutter = MessageCutter(core)
    message = raw(0x81, b"a" * LIMIT, mask=True)
    assert cutter.receive(message[:-1]) == []
    assert cutter.receive(message[-1:] + message) == [Message(True, b"a" * LIMIT)] * 2


@pytest.mark.parametrize("side", list(Side))
def test_whole_texts_never_reach_the_core(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of(side)
    cutter = MessageCutter(core)
    for first in (0x89, 0x01, 0x80):
        cutter.receive(raw(first, b"the core", mask=side is Side.SERVER))
    monkeypatch.setattr(core, "receive_data", lambda data: pytest.fail("the core was fed"))
    texts = [b"a" * length for length in (0, 1, 125, 126, LIMIT)]
    stream = b"".join(raw(0x81, text, mask=side is Side.SERVER) for text in texts)
    assert cutter.receive(stream) == [Message(True, text) for text in texts]
    for at in range(len(stream)):
        texts = texts[len(cutter.receive(stream[at : at + 1])) :]
    assert texts == []


def test_a_core_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        MessageCutter(Protocol(Side.SERVER, max_size=None))


# -- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_messages_equal_those_websockets_would_send(length: int) -> None:
    payload = os.urandom(length)
    assert text_message(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    reader = Protocol(Side.SERVER, max_size=1 << 20)
    reader.receive_data(masked_text_message(payload, b"\x80\x01\x02\xff"))
    assert [bytes(frame.data) for frame in reader.events_received() if isinstance(frame, Frame)] == [payload]


def test_a_header_is_the_shortest() -> None:
    assert [len(text_header(n)) for n in (125, 126, 65535, 65536)] == [2, 4, 4, 10]
