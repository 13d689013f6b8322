"""Laws of gw.protocol.websocket.frames.

Any cut of the same bytes gives the same messages, and the core of `websockets` finds the same messages, pings and kind of end.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from gw.protocol.websocket.frames import MAX_FRAMES, MAX_PONGS, End, MessageCutter
from tests.fuzz.targets.cuts import cuts

_LIMIT: Final = 5000
#: Between two reads: long enough for the limit of small frames to be whole again.
_PAUSE_S: Final = 10.0


class _Read(NamedTuple):
    messages: list[tuple[bool, bytes]]
    pings: list[bytes]
    end: End | None


def as_client(data: bytes) -> None:
    _check(data, Side.CLIENT)


def as_server(data: bytes) -> None:
    _check(data, Side.SERVER)


def _check(data: bytes, side: Side) -> None:
    whole = _cut(side, [data])
    for pieces in cuts(data):
        apart = _cut(side, pieces)
        if apart.end is not None and apart.end.error == "bad_utf8" and apart != whole:
            # Invalid text in one piece is left to its parser.
            at = len(apart.messages)
            assert apart.messages == whole.messages[:at]
            if len(whole.messages) > at:
                assert not _is_text(whole.messages[at][1])
        else:
            assert (apart.messages, apart.end) == (whole.messages, whole.end)
    _compare_with_websockets(data, side, whole)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(side: Side, pieces: list[bytes]) -> _Read:
    cutter = MessageCutter(_LIMIT, is_client=side is Side.CLIENT)
    read = _Read([], [], None)
    now_s = 0.0
    for piece in pieces:
        now_s += _PAUSE_S
        messages = cutter.receive(piece, now_s)
        while True:
            assert len(messages) <= MAX_FRAMES and len(cutter.pings) <= MAX_PONGS
            read.messages.extend((message.is_text, bytes(message.data)) for message in messages)
            read.pings.extend(cutter.pings)
            if not cutter.has_more:
                break
            now_s += _PAUSE_S
            messages = cutter.receive(b"", now_s)
    assert all(len(data) <= _LIMIT for _, data in read.messages)
    return read._replace(end=cutter.end)


def in_core(side: Side, data: bytes, limit: int) -> tuple[list[tuple[bool, bytes]], list[bytes], Protocol]:
    """Return the messages and pings that websockets' core finds, and the core."""
    core = Protocol(side, max_size=limit)
    core.receive_data(data)
    messages: list[tuple[bool, bytes]] = []
    pings, parts, is_text = [], b"", True
    for event in core.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY):
            parts, is_text = b"", event.opcode is Opcode.TEXT
        elif event.opcode is not Opcode.CONT:
            pings += [bytes(event.data)] if event.opcode is Opcode.PING else []
            continue
        parts += bytes(event.data)
        if event.fin:
            messages.append((is_text, parts))
    return messages, pings, core


def _compare_with_websockets(data: bytes, side: Side, ours: _Read) -> None:
    messages, pings, core = in_core(side, data, _LIMIT)
    error = ours.end.error if ours.end else None
    if error == "bad_utf8":  # found within a message, or in a close frame
        assert ours.messages == messages[: len(ours.messages)]
        return
    if error == "bad_websocket" and core.parser_exc is None:
        # websockets accepts control frames whose length of up to 125 takes three bytes, and waits for the whole of a frame.
        assert ours.messages == messages[: len(ours.messages)]
        return
    assert ours.messages == messages
    assert len(ours.pings) <= len(pings) and (len(pings) > MAX_PONGS or ours.pings == pings)
    if error is None and ours.end is not None and str(core.parser_exc) == "incomplete fragmented message":
        return  # websockets refuses a close frame within a message; RFC 6455 5.4 permits control frames there
    if core.parser_exc is not None:
        assert error is not None, core.parser_exc
        assert error != "oversize_message" or isinstance(core.parser_exc, PayloadTooBig)
    elif core.close_rcvd is not None:
        assert ours.end == End(None, core.close_rcvd.code, core.close_rcvd.reason)
    else:
        assert ours.end is None, ours.end
