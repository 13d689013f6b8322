"""gw.bench.load.wire: message boundaries, upgrades, audio lengths."""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from typing import cast

import pytest

from gw.bench.load.loop import Loop
from gw.bench.load.wire import Connection, WireError, accept_key, audio_bytes, header, masked_text, spans, text, upgrade_answer


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_messages_of_every_length_are_cut_at_their_ends(size: int) -> None:
    body = bytes(n & 0x7F for n in range(size))
    data = masked_text(body) + text(body)
    found, rest = spans(data + b"\x81")
    assert rest == len(data)
    assert [data[start:end] for _, _, start, end in found] == [body, body]
    (_, mask_at, start, _), (_, no_mask, _, _) = found
    assert data[mask_at:start] == b"\0\0\0\0"
    assert no_mask == 0


def test_an_incomplete_message_waits_for_its_rest() -> None:
    for body in (b"hello", b"x" * 300, b"x" * 70_000):
        whole = masked_text(body)
        for cut in sorted({0, 1, 2, 3, 5, 9, 10, len(whole) - 1}):
            assert spans(whole[:cut]) == ([], 0)


def test_an_upgrade_is_answered_with_its_key() -> None:
    request = b"GET /media HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3
    assert header(upgrade_answer(request), b"sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    with pytest.raises(WireError):
        upgrade_answer(b"GET / HTTP/1.1\r\nHost: x")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 159, 160, 161])
def test_the_length_of_audio_is_computed_from_base64(size: int) -> None:
    data = b'"' + base64.b64encode(bytes(size)) + b'"}='
    assert audio_bytes(data, 1, data.index(b'"', 1)) == size


class Echo(Connection):
    """Sends every message back."""

    def on_message(self, data: bytes, opcode: int, mask_at: int, start: int, end: int, now_s: float) -> None:
        self.send(text(data[start:end]))


class Watches:
    """The part of a loop that a connection uses. Under gevent's patches there is no epoll."""

    def __init__(self) -> None:
        self.watched: set[int] = set()

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        self.watched.add(fd)

    def unwatch(self, fd: int) -> None:
        self.watched.remove(fd)


def connected() -> tuple[Watches, Echo, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = Watches()
    return loop, Echo(cast(Loop, loop), ours), theirs


def test_a_message_in_pieces_is_handled_once_it_is_whole() -> None:
    loop, echo, theirs = connected()
    message = masked_text(b"words")
    theirs.sendall(message[:4])
    echo.on_readable()
    theirs.sendall(message[4:])
    echo.on_readable()
    assert theirs.recv(100) == text(b"words")
    theirs.close()
    echo.on_readable()
    assert (echo.end_reason, loop.watched) == ("closed", set())
    assert not echo.send(b"too late")


def test_bytes_the_kernel_does_not_take_are_sent_later_up_to_a_bound() -> None:
    _, echo, theirs = connected()
    sent = b""
    while not echo.stalls:
        assert echo.send(b"x" * 65536)
        sent += b"x" * 65536
    received = b""
    theirs.setblocking(False)
    while len(received) < len(sent):
        try:
            received += theirs.recv(1 << 20)
        except BlockingIOError:
            echo.send(b"")
    assert received == sent
    while echo.send(b"x" * 65536):
        pass
    assert echo.end_reason == "write: the peer does not read"
    theirs.close()
