"""gw.twin.websocket: messages, fragments, and every way to end, between two ends on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent import socket
from websockets.frames import CONT, TEXT, Frame

from gw.twin.websocket import (
    ClosedError,
    Message,
    RefusedError,
    TimedOutError,
    TwinSocket,
    answer_request,
    connect,
    read_request,
)


@contextmanager
def pair(serve: Callable[[TwinSocket], None], timeout_s: float = 5.0) -> Iterator[TwinSocket]:
    """Yield a client whose server runs `serve`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def server() -> None:
        sock, _ = listener.accept()
        asked = read_request(sock, 5.0, 1 << 20)
        assert asked is not None
        protocol, request = asked
        websocket = answer_request(sock, protocol, protocol.accept(request), 5.0)
        assert websocket is not None
        serve(websocket)

    serving = gevent.spawn(server)
    address = listener.getsockname()
    client = connect(f"ws://127.0.0.1:{address[1]}/", address, {}, timeout_s, 1 << 20, tls=False)
    try:
        yield client
        serving.get(timeout=5.0)
    finally:
        serving.kill()
        client.release()
        listener.close()


def echo(websocket: TwinSocket) -> None:
    try:
        while True:
            message = websocket.receive()
            (websocket.send_text if message.text else websocket.send_binary)(message.data)
    except ClosedError:
        websocket.release()


def test_text_and_binary_messages_arrive_whole() -> None:
    with pair(echo) as client:
        client.send_text(b"words")
        client.send_binary(b"\x00\xff")
        assert [client.receive(), client.receive()] == [Message(True, b"words"), Message(False, b"\x00\xff")]
        client.close()


def test_fragments_are_joined() -> None:
    def serve(websocket: TwinSocket) -> None:
        for opcode, data, fin in ((TEXT, b"a ", False), (CONT, b"b ", False), (CONT, b"c", True)):
            websocket.send_raw(Frame(opcode, data, fin).serialize(mask=False))
        echo(websocket)

    with pair(serve) as client:
        assert client.receive() == Message(True, b"a b c")
        client.close()


def test_a_close_frame_names_its_side_code_and_reason() -> None:
    with pair(lambda websocket: websocket.close(4001, "enough")) as client:
        with pytest.raises(ClosedError) as end:
            client.receive()
        assert (end.value.by, end.value.code, end.value.reason) == ("peer", 4001, "enough")
        assert not client.is_open
        with pytest.raises(ClosedError):
            client.send_text(b"too late")


def test_a_reset_is_a_lost_connection() -> None:
    with pair(lambda websocket: websocket.abort()) as client:
        with pytest.raises(ClosedError) as end:
            client.receive()
        assert (end.value.by, end.value.code) == ("lost", 1006)


def test_silence_times_out() -> None:
    with pair(echo, timeout_s=0.1) as client:
        with pytest.raises(TimedOutError):
            client.receive()
        client.close()


def test_bytes_outside_all_framing_are_a_violation() -> None:
    with pair(lambda websocket: websocket.send_raw(b"\xf1\x02{}")) as client:
        with pytest.raises(ClosedError):
            client.receive()
        assert "reserved bits" in client.violation


def test_an_answer_other_than_101_is_refused() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def server() -> None:
        sock, _ = listener.accept()
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope")
        sock.close()

    serving = gevent.spawn(server)
    address = listener.getsockname()
    with pytest.raises(RefusedError, match="HTTP 403: nope"):
        connect(f"ws://127.0.0.1:{address[1]}/", address, {}, 5.0, 1 << 20, tls=False)
    serving.get(timeout=5.0)
    listener.close()


def test_an_invalid_request_is_not_answered() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"hello?\r\n\r\n")
    assert read_request(ours, 1.0, 1 << 20) is None
    ours.close()
    theirs.close()
