"""gw.strict_http over real sockets: what breaks HTTP is answered once and closed, and never reaches the application."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from gw import strict_http
from gw.protocol.http import GivenUp, RequestError, RequestFault
from gw.strangers import Bounds, Stage
from gw.strict_http import StrictHandler, StrictServer
from tests.timing import scaled
from tests.wire.http_requests import ACCEPTED, ACCEPTED_CHUNKS, CUT_OFF, REFUSED, REFUSED_CHUNKS, Accepted, Refused

WAIT_S = scaled(20)
BOUNDS = Bounds(places=100, per_address=100, head_s=WAIT_S, body_s=WAIT_S, answer_s=WAIT_S, idle_s=WAIT_S)
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Rig:
    """A server that notes each request it reads, and each fault."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.faults: list[str] = []
        self.errors: list[tuple[OSError, bool]] = []
        self.status = "200 OK"
        self.reads = True
        self.on_slice: Callable[[], None] = lambda: None
        rig = self

        class Handler(StrictHandler):
            def on_refused(self, fault: RequestFault | GivenUp) -> None:
                rig.faults.append(fault)
                rig.on_slice()

            def broke_off(self, error: OSError, *, has_begun: bool) -> None:
                rig.errors.append((error, has_begun))
                rig.on_slice()

        self.server = StrictServer(("127.0.0.1", 0), self.answer, BOUNDS, handler_class=Handler)
        self.server.start()

    def answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"]
        if self.reads:
            self.bodies.append(body.read())
            assert body.read(10) == b"", "the body is returned once"
        self.requests.append(environ)
        self.on_slice()
        start_response(self.status, [("Content-Type", "text/plain")])
        return [b"an", b"swer"]

    def send(self, sent: bytes, *, ends: bool = False) -> bytes:
        """Send bytes, and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=WAIT_S) as sock:
            sock.sendall(sent)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(65536):
                answer += data
            return answer


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.server.stop(timeout=0)


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def statuses(answer: bytes) -> list[int]:
    return [int(part.split(b" ", 1)[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def is_refusal(answer: bytes, fault: str, *, has_body: bool = True) -> None:
    error = RequestError(fault, "")  # type: ignore[arg-type]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {error.status}\r\n".encode())
    assert b"\r\nConnection: close\r\n" in head
    assert body.endswith(b"\n") is has_body
    if has_body:
        assert head.endswith(b"Content-Length: %d" % len(body))


@pytest.mark.parametrize("sample", REFUSED.values(), ids=REFUSED.keys())
def test_a_request_is_refused(rig: Rig, sample: Refused) -> None:
    is_refusal(rig.send(sample.sent + LAST), sample.fault, has_body=not sample.sent.startswith(b"HEAD"))
    assert rig.faults == [sample.fault]
    assert rig.requests == [], "neither the request nor another one within or behind it"


@pytest.mark.parametrize("sample", REFUSED_CHUNKS.values(), ids=REFUSED_CHUNKS.keys())
def test_a_chunked_body_is_refused(rig: Rig, sample: Refused) -> None:
    is_refusal(rig.send(CHUNKED + sample.sent + LAST), sample.fault)
    assert rig.faults == [sample.fault]
    assert rig.requests == []


@pytest.mark.parametrize("sent", CUT_OFF.values(), ids=CUT_OFF.keys())
def test_a_request_that_is_cut_off_is_refused(rig: Rig, sent: bytes) -> None:
    is_refusal(rig.send(sent, ends=True), "cut_off")
    assert rig.faults == ["cut_off"]
    assert rig.requests == []


@pytest.mark.parametrize("sample", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_an_odd_request_is_read(rig: Rig, sample: Accepted) -> None:
    answer = rig.send(sample.sent + LAST)
    count = 1 if sample.is_last else 2
    assert statuses(answer) == [200] * count
    assert rig.faults == []
    assert rig.requests[0]["REQUEST_METHOD"] == sample.method
    assert len(rig.requests) == count, "what follows is the next request"


@pytest.mark.parametrize(("sent", "body"), ACCEPTED_CHUNKS.values(), ids=ACCEPTED_CHUNKS.keys())
def test_a_chunked_body_is_read(rig: Rig, sent: bytes, body: bytes) -> None:
    assert statuses(rig.send(CHUNKED + sent + LAST)) == [200, 200]
    assert rig.bodies == [body, b""]
    assert "HTTP_TRANSFER_ENCODING" not in rig.requests[0]


def test_the_environment_of_a_request(rig: Rig) -> None:
    rig.send(
        b"POST /a%20b%fc?c=%20&d HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: 3\r\nVia: a\r\nvia: b\r\n"
        b"X_Twilio_Signature: forged\r\nConnection: close\r\n\r\na=b"
    )
    (environ,) = rig.requests
    given = {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_", "PATH_", "QUERY_"))}
    assert given == {
        "CONTENT_LENGTH": "3",
        "CONTENT_TYPE": "a/b",
        "HTTP_CONNECTION": "close",
        "HTTP_HOST": "x",
        "HTTP_VIA": "a,b",
        "PATH_INFO": "/a b\xfc",
        "QUERY_STRING": "c=%20&d",
    }
    assert (environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"], environ["SCRIPT_NAME"]) == ("POST", "HTTP/1.1", "")
    assert environ["wsgi.input_terminated"] is True
    assert rig.bodies == [b"a=b"]


def test_requests_in_one_piece_and_in_pieces(rig: Rig) -> None:
    form = POST + b"Content-Length: 3\r\n\r\na=b"
    assert statuses(rig.send(form + CHUNKED + b"1\r\nc\r\n0\r\n\r\n" + form + LAST)) == [200] * 4
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        for n in range(len(form)):
            sock.sendall(form[n : n + 1])
            gevent.sleep(0)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert rig.bodies == [b"a=b", b"c", b"a=b", b"", b"a=b"]


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "405 Method Not Allowed"])
def test_an_answer_of_4xx_closes(rig: Rig, status: str) -> None:
    rig.status = status
    answer = rig.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
    assert statuses(answer) == [int(status[:3])]
    assert b"\r\nConnection: close\r\n" in answer


def test_a_503_stays_open(rig: Rig) -> None:
    rig.status = "503 Service Unavailable"
    assert statuses(rig.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)) == [503, 503]


def test_head_has_no_body(rig: Rig) -> None:
    answer = rig.send(LAST.replace(b"GET", b"HEAD"))
    assert answer.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 6\r\n" in answer


def test_a_refused_head_has_no_body(rig: Rig) -> None:
    answer = rig.send(LAST.replace(b"GET", b"HEAD").replace(b"Connection: close\r\n", b"") + b"HEAD / HTTP/1.1\r\n\r\n")
    assert statuses(answer) == [200, 400]
    assert answer.endswith(b"\r\n\r\n")
    assert not rig.send(b"GET / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_body_that_is_not_read_closes(rig: Rig) -> None:
    rig.reads = False
    assert statuses(rig.send(POST + b"Content-Length: %d\r\n\r\n" % len(LAST) + LAST)) == [200]
    assert len(rig.requests) == 1


def test_continue_is_sent_to_a_client_that_waits_for_it(rig: Rig) -> None:
    head = POST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        sock.sendall(head)
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"a=b")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert statuses(rig.send(head + b"a=b")) == [200], "not to one that has sent its body"


@pytest.mark.parametrize(("sent", "has_begun"), [(b"", False), (b"GET /", True), (POST + b"Content-Length: 3\r\n\r\na", True)])
def test_a_reset_connection_is_reported(rig: Rig, sent: bytes, has_begun: bool) -> None:
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        sock.sendall(sent)
        gevent.sleep(0.05)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with gevent.Timeout(WAIT_S):
        while not rig.errors:
            gevent.sleep(0.01)
    ((error, begun),) = rig.errors
    assert isinstance(error, ConnectionResetError)
    assert begun is has_begun
    assert rig.faults == rig.requests == []


def test_an_error_of_the_application_itself_is_answered_and_reported(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """Also one that looks like a socket's: else the client reads an empty answer, and no line names the fault."""

    def fail(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise FileNotFoundError(2, "No such file", "/a/page")

    rig.server.application = fail
    assert statuses(rig.send(LAST)) == [500]
    assert "FileNotFoundError" in capfd.readouterr().err
    assert rig.errors == []


def test_a_refusal_reaches_a_peer_that_still_sends(rig: Rig) -> None:
    """Data without a reader would reset the connection, and the answer with it."""
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        sock.sendall(POST + b"Content-Length: 100000\r\n\r\n" + b"a" * 50_000)
        gevent.sleep(0.05)
        sock.sendall(b"a" * 50_000)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    is_refusal(answer, "body_too_long")


def test_an_answer_before_the_body_reaches_a_peer_that_still_sends(rig: Rig) -> None:
    rig.reads = False
    rig.status = "403 Forbidden"
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        sock.sendall(POST + b"Content-Length: 10000\r\n\r\n" + b"a" * 50_000)
        gevent.sleep(0.05)
        assert statuses(sock.recv(1000)) == [403]
        assert sock.recv(1000) == b""


def test_a_refused_peer_that_stays_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_http, "LINGER_S", 0.01)
    with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
        sock.sendall(b"GET\r\n")
        with gevent.Timeout(WAIT_S), pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                sock.sendall(b"a")
                gevent.sleep(0.01)


@pytest.mark.parametrize(("sent", "end"), [(LAST, ""), (b"GET\r\n", ""), (b"GET", "close"), (b"GET", "reset")])
def test_connections_that_are_ready_together_take_turns(rig: Rig, sent: bytes, end: str) -> None:
    """Five hundred requests that came in one turn of the loop delayed its timers by 20 ms, and refusals by 10 ms."""
    turns: list[int] = [0]
    handled: list[int] = []

    def count_turns() -> None:
        while True:
            gevent.sleep(1e-9)
            turns[0] += 1

    rig.on_slice = lambda: handled.append(turns[0])
    socks = [socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) for _ in range(60)]
    with gevent.Timeout(WAIT_S):
        while rig.server.strangers.count(Stage.HEAD) < len(socks):
            gevent.sleep(0.01)
    counting = gevent.spawn(count_turns)
    for sock in socks:  # without a switch to the server
        sock.send(sent)
        if end == "close":
            sock.shutdown(socket.SHUT_WR)
        elif end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    with gevent.Timeout(WAIT_S):
        while len(handled) < len(socks):
            gevent.sleep(0.01)
    counting.kill()
    for sock in socks:
        sock.close()
    assert max(Counter(handled).values()) <= 2 * strict_http.SLICES, "one turn may begin or end within a count"


def test_a_silent_connection_that_ends_is_nothing(rig: Rig) -> None:
    assert rig.send(b"", ends=True) == b""
    assert rig.faults == rig.errors == []


def test_a_refused_peer_may_be_gone(rig: Rig) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", rig.server.server_port), timeout=WAIT_S) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"GET\r\n")
    with gevent.Timeout(WAIT_S):
        while len(rig.faults) + len(rig.errors) < 5:
            gevent.sleep(0.01)
    assert rig.send(LAST).startswith(b"HTTP/1.1 200 ")
