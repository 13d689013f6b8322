"""gw.control.hooks.wire: one connection, to the address that was checked, bounded in bytes."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gevent.server import StreamServer

from gw.config.hook_url import HookUrl, parse_hook_url
from gw.control.hooks import wire as wire_module
from gw.control.hooks.wire import BrokenError, UnconnectedError, Wire, connect
from tests.gw.media.certificates import contexts
from tests.timing import scaled

LOOPBACK = ipaddress.ip_address("127.0.0.1")
Handler = Callable[[socket.socket], None]


@contextmanager
def served(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    def handle(sock: socket.socket, address: object) -> None:
        with sock:
            handler(sock)

    server = StreamServer(("127.0.0.1", 0), handle) if tls is None else StreamServer(("127.0.0.1", 0), handle, ssl_context=tls)
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


def url(port: int, scheme: str = "http", host: str = "api.example.test") -> HookUrl:
    return parse_hook_url(f"{scheme}://{host}:{port}/x?y")


def soon() -> float:
    return time.monotonic() + scaled(10.0)


def exchanged(answer: bytes, *, limit_bytes: int = 10_000, max_bytes: int = 100) -> tuple[int, bytes]:
    def handler(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    with served(handler) as port:
        wire = Wire(connect(url(port), [LOOPBACK], None, deadline_s=soon()), limit_bytes)
        assert not wire.sent
        try:
            status, _, body = wire.exchange(url(port), {"Host": "h"}, b"{}", max_bytes)
        finally:
            assert wire.sent
            wire.close()
        return status, body


def test_a_request_is_one_packet():
    """With two, an endpoint that shares the machine is woken twice."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        wire = Wire(ours, 10_000)
        assert wire.exchange(url(80), {"Host": "h"}, b"{}", 100)[0] == 204
        wire.close()
        assert theirs.recv(65536).endswith(b"\r\n\r\n{}")


def test_an_answer_counts_although_the_request_was_not_read():
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
        theirs.shutdown(socket.SHUT_RDWR)
        wire = Wire(ours, 10_000)
        assert wire.exchange(url(80), {"Host": "h"}, b"{}", 100)[::2] == (413, b"no")
        assert wire.sent
        wire.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", (200, b"ab")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcdef", (200, b"ab")),
        (b"HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", (201, b"ab")),
        (b"HTTP/1.0 200 OK\r\n\r\nab", (200, b"ab")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nab", (404, b"ab")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 Yes\r\nContent-Length: 2\r\n\r\nab", (200, b"ab")),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\nab", (101, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 500, (200, b"x" * 101)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Encoding: gzip\r\n\r\na", (200, b"a")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: no\r\nbroken header\r\n\r\nab", (200, b"ab")),
    ],
)
def test_answers(answer: bytes, expected: tuple[int, bytes]) -> None:
    assert exchanged(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\0\x02\x02\x0a",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/3 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 20_000,
    ],
)
def test_anything_else_is_broken(answer: bytes) -> None:
    with pytest.raises(BrokenError):
        exchanged(answer)


def test_bytes_around_the_body_are_bounded_also_when_they_never_pause() -> None:
    sent = []

    def handler(sock: socket.socket) -> None:
        sock.recv(65536)
        try:
            for _ in range(2000):
                sock.sendall(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000)
                sent.append(1)
        except OSError:
            return

    with served(handler) as port:
        wire = Wire(connect(url(port), [LOOPBACK], None, deadline_s=soon()), 50_000)
        with pytest.raises(BrokenError, match="more bytes"):
            wire.exchange(url(port), {}, b"{}", 100)
        wire.close()
    assert len(sent) < 2000


def test_the_next_address_is_tried() -> None:
    with served(lambda sock: None) as port:
        elsewhere = ipaddress.ip_address("127.0.0.2")  # another loopback address, where nothing listens
        connect(url(port), [elsewhere, LOOPBACK], None, deadline_s=soon()).close()
        with pytest.raises(UnconnectedError, match=r"^127\.0\.0\.2: Connection refused"):
            connect(url(port), [elsewhere], None, deadline_s=soon())
    with pytest.raises(UnconnectedError, match="has no address"):
        connect(url(1), [], None, deadline_s=soon())


def test_each_address_has_its_share_of_the_time_and_the_last_one_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    @contextmanager
    def within(seconds: float) -> Iterator[None]:
        bounds.append(seconds)
        raise OSError("on purpose")
        yield

    monkeypatch.setattr(wire_module, "within", within)
    for seconds in (20.0, 4.0):
        with pytest.raises(UnconnectedError):
            connect(url(1), [LOOPBACK] * 2, None, deadline_s=time.monotonic() + seconds)
    assert bounds[0] == 3.0
    assert 15.0 < bounds[1] <= 20.0
    assert 1.0 < bounds[2] <= 2.0
    assert 3.0 < bounds[3] <= 4.0


def test_an_address_that_does_not_answer() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)),  # takes the one place of the queue
            pytest.raises(UnconnectedError, match=r"127\.0\.0\.1 does not answer"),
        ):
            connect(url(port), [LOOPBACK], None, deadline_s=time.monotonic() + 0.2)


def test_tls_for_the_name_of_the_host(tmp_path: Path) -> None:
    server, client = contexts(tmp_path, "api.example.test")
    with served(lambda sock: sock.sendall(b"x"), server) as port:
        for host in ("api.example.test", "api.example.test."):
            sock = connect(url(port, "https", host), [LOOPBACK], client, deadline_s=soon())
            assert sock.recv(1) == b"x"
            sock.close()
        with pytest.raises(UnconnectedError, match=r"certificate of other\.example\.test .*Hostname mismatch"):
            connect(url(port, "https", "other.example.test"), [LOOPBACK], client, deadline_s=soon())
        with pytest.raises(UnconnectedError, match=r"certificate of .*self-signed"):
            connect(url(port, "https"), [LOOPBACK], ssl.create_default_context(), deadline_s=soon())


def test_a_server_without_tls(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with served(handler) as port, pytest.raises(UnconnectedError, match="TLS with"):
        connect(url(port, "https"), [LOOPBACK], contexts(tmp_path)[1], deadline_s=soon())
