"""An endpoint of a user's: tools and events, correct or with a fault.

Implements the documented request separately from the gateway: signature, Idempotency-Key, fields. The first part of a URL's path
names the behaviour, the rest is free: `/ok/lookup_order`, `/late/book`. A correct endpoint does the work of one key once, and
repeats the answer; `executions` counts the work.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Final

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from gw.twin.polling import wait_until

_REQUEST_S: Final = 10.0
_MAX_REQUEST_BYTES: Final = 1 << 20
HUGE_BYTES: Final = 30 << 20
HTML: Final = b"<!DOCTYPE html>\n<html><body><h1>It works!</h1></body></html>\n"
_PIECE: Final = b"x" * 65536


@dataclass
class HookRequest:
    """A request as received. `fault`: why a receiver must refuse it, or empty."""

    method: str
    path: str
    headers: Mapping[str, str]  # lower-case names
    content: bytes
    at_s: float
    fault: str = ""
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The Idempotency-Key."""
        return self.headers.get("idempotency-key", "")


class Visit:
    """One connection that brought a request, for a behaviour to answer."""

    def __init__(self, twin: HookTwin, sock: socket.socket, request: HookRequest) -> None:
        self.twin = twin
        self.sock = sock
        self.request = request

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)

    def answer(self, status: int, content: bytes, *headers: str, length: int | None = None) -> None:
        """Send a whole answer. `length`: a false Content-Length."""
        lines = [f"HTTP/1.1 {status} Twin", f"Content-Length: {len(content) if length is None else length}", *headers]
        self.send("\r\n".join([*lines, "Connection: close", "", ""]).encode() + content)

    def work(self) -> bytes:
        """Do the work, unless it was done for this key. Returns the answer."""
        key, done = self.request.key, self.twin.answers
        if key not in done:
            self.twin.executions[key] += 1
            done[key] = self.twin.reply(self.request)
        return done[key]

    def is_repeat(self) -> bool:
        """Return whether an earlier request had this key and this path."""
        same = [one for one in self.twin.requests if one.key == self.request.key and one.path == self.request.path]
        return len(same) > 1


Behaviour = Callable[[Visit], None]


def _ok(visit: Visit) -> None:
    visit.answer(200, visit.work(), "Content-Type: application/json")


def _slow(visit: Visit) -> None:
    gevent.sleep(visit.twin.slow_s)
    _ok(visit)


def _late(visit: Visit) -> None:
    """Do the work, and answer after the gateway's deadline."""
    content = visit.work()
    gevent.sleep(visit.twin.late_s)
    visit.answer(200, content)


def _dead(visit: Visit) -> None:
    """Do the work, and close without a byte."""
    visit.work()


def _lost_once(visit: Visit) -> None:
    """Do the work, lose the first answer, repeat it for the same key."""
    content = visit.work()
    if visit.is_repeat():
        visit.answer(200, content)


def _silent(visit: Visit) -> None:
    visit.sock.recv(1)


def _flaky(visit: Visit) -> None:
    if visit.is_repeat():
        _ok(visit)
    else:
        visit.answer(503, b"try again")


def _twice(visit: Visit) -> None:
    content = visit.work()
    head = f"HTTP/1.1 200 Twin\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    visit.send((head + content) * 2)


def _huge(visit: Visit) -> None:
    visit.send(f"HTTP/1.1 200 Twin\r\nContent-Length: {HUGE_BYTES}\r\n\r\n".encode())
    _flood(visit, _PIECE, HUGE_BYTES // len(_PIECE))


def _flood(visit: Visit, piece: bytes, times: int = 1_000_000) -> None:
    for _ in range(times):
        visit.send(piece)
        visit.twin.flooded_bytes += len(piece)


def _drip(visit: Visit) -> None:
    """Send a head that never ends, a byte at a time."""
    visit.send(b"HTTP/1.1 200 Twin\r\nX: ")
    while True:
        visit.send(b"x")
        gevent.sleep(0.02)


def _drip_body(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 Twin\r\nContent-Length: 100000\r\n\r\n")
    while True:
        visit.send(b"x")
        gevent.sleep(0.02)


def _redirect(visit: Visit) -> None:
    visit.answer(307, b"", f"Location: http://127.0.0.1:{visit.twin.address[1]}/ok/behind_the_redirect")


def _answers(status: int, content: bytes, *headers: str, length: int | None = None) -> Behaviour:
    return lambda visit: visit.answer(status, content, *headers, length=length)


def _begins(head: bytes, piece: bytes) -> Behaviour:
    """Send a beginning, then a piece without end."""

    def behaviour(visit: Visit) -> None:
        visit.send(head)
        _flood(visit, piece)

    return behaviour


BEHAVIOURS: Final[Mapping[str, Behaviour]] = MappingProxyType(
    {
        "ok": _ok,
        "slow": _slow,
        "late": _late,
        "dead": _dead,
        "lost_once": _lost_once,
        "silent": _silent,
        "flaky": _flaky,
        "twice": _twice,
        "huge": _huge,
        "drip": _drip,
        "drip_body": _drip_body,
        "redirect": _redirect,
        "html": _answers(200, HTML, "Content-Type: text/html"),
        "empty": _answers(200, b""),
        "nothing": _answers(204, b""),
        "latin1": _answers(200, "gr\u00fc\u00df".encode("latin-1")),
        "half": _answers(200, b"half of", length=100),
        "refused": _answers(404, b"no such order"),
        "long_refusal": _answers(422, b"x" * 5000),
        "failed": _answers(500, b"a stack trace"),
        "gone": _answers(410, b""),
        "wait": _answers(503, b"", "Retry-After: 7"),
        "gzip": _answers(200, b"\x1f\x8b\x08\0not really", "Content-Encoding: gzip"),
        "garbage": lambda visit: visit.send(b"\x15\x03\x01 this is not HTTP\r\n\r\n"),
        "continues": _begins(b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100),
        "headers": _begins(b"HTTP/1.1 200 Twin\r\n", b"X-Header: y\r\n" * 1000),
        "long_header": _begins(b"HTTP/1.1 200 Twin\r\nX: ", _PIECE),
        "chunks": _begins(b"HTTP/1.1 200 Twin\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + _PIECE),
        "stream": _begins(b"HTTP/1.1 200 Twin\r\n\r\n", _PIECE),
    }
)


class HookTwin:
    """A server of endpoints. Call `start` and `stop`, or use it as a context manager."""

    def __init__(
        self,
        *secrets: str,
        reply: Callable[[HookRequest], bytes] = lambda request: json.dumps({"done": request.body.get("tool")}).encode(),
        behaviours: Mapping[str, Behaviour] = MappingProxyType({}),
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`secrets`: those of which one has to sign. `reply`: the answer of the work. `behaviours`: more, by name."""
        self._secrets = secrets
        self.reply = reply
        self._behaviours = {**BEHAVIOURS, **behaviours}
        self._pool = Pool(1000)
        if tls is None:
            self._server = StreamServer((host, port), self._on_connection, backlog=1024, spawn=self._pool)
        else:
            self._server = StreamServer((host, port), self._on_connection, backlog=1024, spawn=self._pool, ssl_context=tls)
        self._scheme = "http" if tls is None else "https"
        self.slow_s = 0.3
        self.late_s = 2.0
        self.requests: list[HookRequest] = []
        self.executions: Counter[str] = Counter()  # work done, by key
        self.answers: dict[str, bytes] = {}
        self.flooded_bytes = 0
        self.open = 0  # connections now, and the most at one time
        self.most_open = 0

    def start(self) -> HookTwin:
        """Listen. Raises OSError if the address is taken."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the listener, then every connection. Idempotent."""
        self._server.stop(timeout=0)
        self._pool.kill(timeout=2.0)

    def __enter__(self) -> HookTwin:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the listener."""
        return str(self._server.server_host), int(self._server.server_port or 0)

    def url(self, path: str = "ok") -> str:
        """Return the URL of a behaviour, with more of a path if there is."""
        host, port = self.address
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}/{path}"

    def wait_for(self, condition: Callable[[HookTwin], bool], timeout_s: float = 5.0) -> bool:
        """Wait until `condition` holds. Returns whether it held."""
        return wait_until(lambda: condition(self), timeout_s)

    def _on_connection(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            request = _read(sock)
            if request is not None:
                self._judge(request)
                self.requests.append(request)
                visit = Visit(self, sock, request)
                if request.fault:
                    visit.answer(401, request.fault.encode())
                else:
                    self._behaviours[request.path.split("/")[1].partition("?")[0]](visit)
        except OSError:
            return  # the gateway closed the connection
        finally:
            self.open -= 1
            sock.close()

    def _judge(self, request: HookRequest) -> None:
        """Check a request, as a receiver has to."""
        try:
            body = json.loads(request.content)
        except ValueError:
            request.fault = "not JSON"
            return
        request.body = body
        parts = [part.partition("=")[::2] for part in request.headers.get("submilli-signature", "").split(",")]
        issued = dict(parts).get("t", "")
        given = [value for name, value in parts if name == "v1"]
        text = issued.encode() + b"." + request.content
        valid = [hmac.new(secret.encode(), text, hashlib.sha256).hexdigest() for secret in self._secrets]
        if not any(hmac.compare_digest(one, other) for one in given for other in valid):
            request.fault = "the signature is wrong"
        elif abs(request.at_s - int(issued)) > 300:
            request.fault = "the signature is old"
        elif request.headers.get("content-type") != "application/json" or request.method != "POST" or body.get("v") != 1:
            request.fault = "not a request of version 1"


def _read(sock: socket.socket) -> HookRequest | None:
    """Read one request; None if the connection ends before, or the request is too long."""
    sock.settimeout(_REQUEST_S)
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(65536)
        if not piece or len(received) > _MAX_REQUEST_BYTES:
            return None
        received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(content) < length:
        piece = sock.recv(65536)
        if not piece:
            return None
        content += piece
    sock.settimeout(None)
    method, _, path = first.removesuffix(" HTTP/1.1").partition(" ")
    if not path.startswith("/"):
        return None
    return HookRequest(method, path, headers, content, time.time())
