"""gw.protocol.websocket.frames: against websockets' core for any frames, and the limits that the core does not have."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.speedups import apply_mask

from gw.protocol.websocket.frames import (
    CLOSE,
    FLOOD_BURST,
    FLOOD_PER_S,
    LOST,
    MAX_FRAMES,
    MAX_PONGS,
    NO_CODE,
    PING,
    PONG,
    SKIP_BYTES,
    SMALL_BYTES,
    TEXT,
    End,
    Message,
    MessageCutter,
    close_payload,
    frame,
    text_header,
    text_message,
)
from tests.fuzz.targets.websocket import in_core

LIMIT = 300
BINARY, CONT = 2, 0
KEY = b"\x01\x80\xff\x37"
SIDES = list(Side)


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
    return head + (KEY + apply_mask(payload, KEY) if mask else payload)


def cutter_of(side: Side, limit: int = LIMIT) -> MessageCutter:
    return MessageCutter(limit, is_client=side is Side.CLIENT)


class Read(NamedTuple):
    """Result of a stream: messages, payloads of the pings, the end."""

    messages: list[tuple[bool, bytes]]
    pings: list[bytes]
    end: End | None


def cut(side: Side, pieces: Iterable[bytes], *, end: bool = False, limit: int = LIMIT) -> Read:
    """Feed a cutter pieces as its owner does, all at the same time."""
    cutter = cutter_of(side, limit)
    messages: list[tuple[bool, bytes]] = []
    pings: list[bytes] = []
    for piece in pieces:
        cut_now = cutter.receive(piece, 1.0)
        while True:
            messages += [(message.is_text, bytes(message.data)) for message in cut_now]
            pings += cutter.pings
            if not cutter.has_more:
                break
            cut_now = cutter.receive(b"", 1.0)
    if end:
        cutter.receive_end()
    return Read(messages, pings, cutter.end)


def compare(side: Side, data: bytes, pieces: Sequence[bytes]) -> Read:
    """Compare with the core: the same messages, the same answers, the same kind of end."""
    read = cut(side, pieces)
    messages, pings, core = in_core(side, data, LIMIT)
    assert read.messages == messages
    assert read.pings == pings
    if core.parser_exc is not None:
        assert read.end is not None and read.end.error is not None
        if read.end.error != "bad_websocket":  # of two faults in one frame the core may name the other
            assert isinstance(core.parser_exc, PayloadTooBig if read.end.error == "oversize_message" else UnicodeDecodeError)
    elif core.close_rcvd is not None:
        assert read.end == End(None, core.close_rcvd.code, core.close_rcvd.reason)
    return read


def pieces_of(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    pieces = []
    for length in cuts:
        pieces.append(stream[:length])
        stream = stream[length:]
    return [piece for piece in (*pieces, stream) if piece]


FRAMES = st.tuples(
    st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x82, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8A, 0x09, 0xC1, 0x83, 0x8B]),
    st.text("abc", max_size=140).map(str.encode) | st.integers(LIMIT - 2, LIMIT).map(lambda n: b"x" * n),
    st.sampled_from([True, True, True, True, False]),  # masked correctly
    st.booleans(),
)


@given(st.sampled_from(SIDES), st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 400), max_size=20))
def test_any_frames_in_any_pieces(side: Side, frames: list[tuple[int, bytes, bool, bool]], cuts: list[int]) -> None:
    stream = b"".join(
        raw(first, data, mask=(side is Side.SERVER) is right, wide=wide and not first & 8)  # the core accepts wide control frames
        for first, data, right, wide in frames
    )
    read = compare(side, stream, pieces_of(stream, cuts))
    assert cut(side, [stream[at : at + 1] for at in range(len(stream))]) == read


@given(st.sampled_from(SIDES), st.lists(st.binary(min_size=1, max_size=40), max_size=10))
def test_any_bytes_end_the_same_in_any_pieces(side: Side, pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    whole, apart = cut(side, [stream], end=True), cut(side, pieces, end=True)
    assert len(apart.messages) <= len(whole.messages)
    if len(apart.messages) == len(whole.messages):  # invalid text in one piece is left to its parser, and ends the others here
        assert apart == whole
    else:
        assert apart.end is not None and apart.end.error == "bad_utf8"


@pytest.mark.parametrize("side", SIDES)
def test_every_first_byte_and_length(side: Side) -> None:
    """Compare reserved bits, unknown opcodes, and fragmented or oversized control frames."""
    mask = side is Side.SERVER
    for first, length, right in product(range(256), (0, 2, 125, 126, LIMIT), (True, False)):
        whole = [raw(first, b"a" * length, mask=mask is right), raw(0x81, b"next", mask=mask), raw(0x80, b"last", mask=mask)]
        stream = b"".join(whole)
        assert compare(side, stream, [stream]) == compare(side, stream, whole)


@pytest.mark.parametrize("side", SIDES)
def test_a_burst_in_single_bytes(side: Side) -> None:
    stream = b"".join(raw(0x81, bytes([65 + n]) * n * 20, mask=side is Side.SERVER) for n in range(10))
    for pieces in (
        [stream[at : at + 1] for at in range(len(stream))],
        *([stream[:at], stream[at:]] for at in range(len(stream))),
    ):
        assert [len(data) for _, data in cut(side, pieces).messages] == [n * 20 for n in range(10)]


@pytest.mark.parametrize("side", SIDES)
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
    pieces = [raw(first, data, mask=side is Side.SERVER) for first, data in frames]
    whole = [(opcode == TEXT, b"one two three"), (True, b"next")]
    assert cut(side, pieces * 2) == cut(side, [b"".join(pieces * 2)]) == Read(whole * 2, [b"?"] * 2, None)


@pytest.mark.parametrize("side", SIDES)
def test_a_message_has_begun_with_its_first_fragment_though_that_is_empty(side: Side) -> None:
    cutter = cutter_of(side)
    for first, data, has_begun in ((TEXT, b"", True), (0x80 | PING, b"?", True), (CONT, b"a", True), (0x80 | CONT, b"", False)):
        cutter.receive(raw(first, data, mask=side is Side.SERVER), 0.0)
        assert cutter.has_begun is has_begun


def test_data_behind_the_end_is_not_read() -> None:
    late = raw(0x81, b"late", mask=True)
    for ending in (raw(0x88, b"\x03\xe8over", mask=True), b"\x81\x00"):
        cutter = cutter_of(Side.SERVER)
        assert cutter.receive(raw(0x81, b"in time", mask=True) + ending + late, 1.0) == [Message(True, b"in time")]
        end = cutter.end
        assert end is not None
        assert cutter.receive(late, 1.0) == []
        cutter.receive_end()
        assert cutter.end is end
        assert not cutter.has_more


def test_the_end_of_the_data_without_a_close() -> None:
    assert cut(Side.SERVER, [b"\x81"], end=True).end == End(None, LOST, "")


@pytest.mark.parametrize("first", [0x81, 0x01])
def test_too_long_a_message_is_refused_at_its_header(first: int) -> None:
    header = raw(first, b"", mask=True, claimed=LIMIT + 1)[:4]
    end = cut(Side.SERVER, [header]).end
    assert end is not None and end.error == "oversize_message"
    assert cut(Side.SERVER, [raw(first, b"a" * LIMIT, mask=True)]).end is None


def test_fragments_over_the_limit_are_refused_at_the_header_that_exceeds_it() -> None:
    stream = raw(0x01, b"a" * LIMIT, mask=True) + raw(CONT, b"", mask=True, claimed=1)[:2]
    end = cut(Side.SERVER, [stream]).end
    assert end is not None and end.error == "oversize_message"


def skipping(limit: int = 4 << 20) -> MessageCutter:
    """Return a cutter that skips long messages of "b"s."""
    return MessageCutter(limit, is_client=True, may_skip=lambda begun: begun[:1] == b"b")


@pytest.mark.parametrize("n_bytes", [SKIP_BYTES + 1, 3 << 20])
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_long_message_that_is_not_needed_is_dropped_as_it_comes(n_bytes: int, fragments: int) -> None:
    size = n_bytes // fragments + 1
    parts = [
        raw((0x80 if n == fragments - 1 else 0) | (CONT if n else 0x01), b"b" * size, mask=False, wide=True)
        for n in range(fragments)
    ]
    stream = text_message(b"before") + b"".join(parts) + text_message(b"behind")
    cutter, messages, kept = skipping(), [], 0
    for at in range(0, len(stream), 8192):
        messages += cutter.receive(stream[at : at + 8192], 1.0)
        kept = max(kept, len(cutter._assembled))
    assert messages == [Message(True, b"before"), Message(True, b"behind")]
    assert kept <= SKIP_BYTES + 8192


def test_other_long_messages_are_kept_whole() -> None:
    for first, data in ((0x81, b"a" * (SKIP_BYTES + 9)), (0x82, b"b" * (SKIP_BYTES + 9)), (0x81, b"b" * SKIP_BYTES)):
        stream = raw(first, data, mask=False, wide=True)
        cutter = skipping()
        messages = cutter.receive(stream[:9000], 1.0) + cutter.receive(stream[9000:], 1.0)
        assert messages == [Message(first == 0x81, data)]


def test_a_skipped_message_keeps_the_rules() -> None:
    cutter = skipping(limit=2 << 20)
    cutter.receive(raw(0x01, b"b" * (SKIP_BYTES + 1), mask=False, wide=True), 1.0)
    cutter.receive(raw(CONT, b"", mask=False, wide=True, claimed=SKIP_BYTES)[:10], 1.0)
    assert cutter.end is not None and cutter.end.error == "oversize_message"
    cutter = skipping()
    cutter.receive(raw(0x01, b"b" * (SKIP_BYTES + 1), mask=False, wide=True), 1.0)
    cutter.receive(raw(0x80 | CONT, b"\xff", mask=False), 1.0)
    assert cutter.end is not None and cutter.end.error == "bad_utf8"


def test_bytes_behind_the_handshake_come_first() -> None:
    cutter = MessageCutter(LIMIT, is_client=True, first=text_message(b"early") + b"\x81")
    assert cutter.has_more
    assert cutter.receive(b"", 1.0) == [Message(True, b"early")]
    assert cutter.receive(b"\x04late", 1.0) == [Message(True, b"late")]


# -- UTF-8 ------------------------------------------------------------------------------------------------------------


def is_a_beginning(data: bytes) -> bool:
    """Return True for bytes that more bytes can make valid."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


@given(
    st.lists(st.sampled_from([b"a", "µ".encode(), "€".encode(), "\U0001f600".encode(), b"\xe0\x80", b"\xf4\x90", b"\x80"])),
    st.integers(1, 5),
    st.booleans(),
)
def test_invalid_text_in_fragments_is_refused_at_its_first_byte(parts: list[bytes], size: int, as_frames: bool) -> None:
    text = b"".join(parts)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    stream = [raw(0x01 if at == 0 else CONT, piece, mask=True) for at, piece in enumerate(pieces)]
    if not as_frames:  # in one frame that comes slowly
        whole = raw(0x01, text, mask=True)
        stream = pieces_of(whole, [len(whole) - len(text)] + [size] * len(pieces))[1 if text else 0 :]
        stream[:1] = [whole[: len(whole) - len(text)] + stream[0]] if text else stream[:1]
    cutter = cutter_of(Side.SERVER)
    for n, piece in enumerate(stream):
        cutter.receive(piece, 1.0)
        assert (cutter.end is None) is is_a_beginning(text[: (n + 1) * size])
        if cutter.end is not None:
            assert cutter.end.error == "bad_utf8"
            return


def test_half_a_surrogate_pair_is_refused() -> None:
    end = cut(Side.SERVER, [raw(0x01, b"\xed\xa0\x80", mask=True)]).end
    assert end is not None and end.error == "bad_utf8"


def test_a_text_may_not_end_within_a_character() -> None:
    stream = raw(0x01, b"a\xe2", mask=True) + raw(CONT, b"\x82", mask=True)
    assert cut(Side.SERVER, [stream]).end is None
    assert cut(Side.SERVER, [stream, raw(0x80, b"\xac", mask=True)]).messages == [(True, "a€".encode())]
    end = cut(Side.SERVER, [stream, raw(0x80, b"", mask=True)]).end
    assert end is not None and end.error == "bad_utf8"


def test_binary_fragments_may_hold_anything() -> None:
    stream = raw(0x02, b"\xff", mask=True) + raw(0x80, b"\xfe", mask=True)
    assert cut(Side.SERVER, [stream]).messages == [(False, b"\xff\xfe")]


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [raw(0x81, b"a", mask=True), raw(0x02, b"a" * SMALL_BYTES, mask=True)], ids=["texts", "fragments"]
)
def test_one_slice_cuts_a_bounded_number_of_frames(data: bytes) -> None:
    n_frames = 3 * MAX_FRAMES + 5
    stream = data + (data if data[0] == 0x81 else raw(CONT, b"a" * SMALL_BYTES, mask=True)) * (n_frames - 1)
    cutter = cutter_of(Side.SERVER, 1 << 20)
    cutter.receive(stream + b"\x81", 1.0)
    n_slices = 1
    while cutter.has_more:
        cutter.receive(b"", 1.0)
        n_slices += 1
    assert n_slices == 4
    assert cutter.end is None
    assert cutter.receive(b"", 1.0) == []


def test_a_slice_that_ends_with_the_data_has_no_more() -> None:
    cutter = cutter_of(Side.SERVER)
    assert len(cutter.receive(raw(0x81, b"a", mask=True) * MAX_FRAMES, 1.0)) == MAX_FRAMES
    assert not cutter.has_more


def test_only_the_last_pings_of_a_slice_are_answered() -> None:
    cutter = cutter_of(Side.CLIENT)
    cutter.receive(b"".join(frame(PING, b"%d" % n) for n in range(MAX_PONGS + 3)), 1.0)
    assert cutter.pings == [b"%d" % n for n in range(3, MAX_PONGS + 3)]
    cutter.receive(text_message(b"next"), 1.0)
    assert cutter.pings == []


SMALL = {
    "pings": raw(0x89, b"", mask=True),
    "long pings": raw(0x89, b"x" * 125, mask=True),
    "pongs": raw(0x8A, b"", mask=True),
    "empty fragments": raw(CONT, b"", mask=True),
    "fragments of one byte": raw(CONT, b"x", mask=True),
    "fragments just below": raw(CONT, b"x" * (SMALL_BYTES - 1), mask=True),
}


@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL.keys())
def test_small_frames_are_limited_in_time(small: bytes) -> None:
    cutter = cutter_of(Side.SERVER, 1 << 20)
    cutter.receive(raw(0x01, b"x" * SMALL_BYTES, mask=True), 100.0)
    for n in range(FLOOD_BURST):
        cutter.receive(small, 100.0 + n / FLOOD_BURST / 1000)
    for n in range(3 * FLOOD_BURST):
        cutter.receive(small, 101.0 + n / FLOOD_PER_S)
    assert cutter.end is None, "the permitted rate can be kept up"
    for _ in range(FLOOD_BURST):
        cutter.receive(small, 101.0 + 3 * FLOOD_BURST / FLOOD_PER_S)
    assert cutter.end is not None and cutter.end.error == "frame_flood"


def test_a_pause_restores_the_burst_and_no_more() -> None:
    cutter = cutter_of(Side.SERVER)
    for now_s in (1.0, 1000.0):
        for _ in range(FLOOD_BURST):
            cutter.receive(SMALL["pings"], now_s)
        assert cutter.end is None
    cutter.receive(SMALL["pings"], 1000.0)
    assert cutter.end is not None


def test_whole_messages_and_large_fragments_are_not_limited() -> None:
    message = raw(0x01, b"x" * SMALL_BYTES, mask=True) + raw(0x80, b"", mask=True) + raw(0x81, b"", mask=True)
    read = cut(Side.SERVER, [message] * 3 * FLOOD_BURST)
    assert read.end is None and len(read.messages) == 6 * FLOOD_BURST


# -- close frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_every_close_code(side: Side) -> None:
    for code in (*range(1100), *range(1990, 5010), 65535):
        data = raw(0x88, code.to_bytes(2) + b"why", mask=side is Side.SERVER)
        compare(side, data, [data])


@pytest.mark.parametrize("payload", [b"", b"\x03", b"\x03\xe8", b"\x03\xe8" + "grüß".encode(), b"\x03\xe8\xff"])
def test_close_frames(payload: bytes) -> None:
    data = raw(0x88, payload, mask=True)
    compare(Side.SERVER, data, [data])


# -- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_messages_equal_those_websockets_would_send(length: int) -> None:
    payload = os.urandom(length)
    assert text_message(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert text_message(payload) == text_header(length) + payload
    reader = Protocol(Side.SERVER, max_size=1 << 20)
    reader.receive_data(frame(BINARY, payload, KEY))
    assert reader.events_received() == [Frame(Opcode.BINARY, payload)]


def test_a_header_is_the_shortest() -> None:
    assert [len(text_header(n)) for n in (125, 126, 65535, 65536)] == [2, 4, 4, 10]


@pytest.mark.parametrize("reason", ["", "over", "x" * 500, "ü" * 100])
def test_a_close_frame_holds_what_fits(reason: str) -> None:
    reader = Protocol(Side.CLIENT)
    reader.receive_data(frame(CLOSE, close_payload(1008, reason)))
    assert reader.close_rcvd == Close(1008, reason.encode()[:123].decode("utf-8", "ignore"))
    assert close_payload(NO_CODE, reason) == b""
