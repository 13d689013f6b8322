"""gw.twin.hooks: a receiver that follows the documents, and its faults."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator

import pytest

from gw.twin.hooks import BEHAVIOURS, HookTwin

BODY = b'{"v":1,"tool":"lookup"}'


@pytest.fixture
def twin() -> Iterator[HookTwin]:
    with HookTwin("new", "old") as twin:
        yield twin


def signature(body: bytes = BODY, *, secret: str = "new", at_s: float | None = None) -> str:
    issued = int(time.time() if at_s is None else at_s)
    return f"t={issued},v1={hmac.new(secret.encode(), f'{issued}.'.encode() + body, hashlib.sha256).hexdigest()}"


def post(
    twin: HookTwin, path: str = "ok", body: bytes = BODY, *, sign: str | None = None, key: str = "k", more: str = ""
) -> bytes:
    with socket.create_connection(twin.address, timeout=5) as sock:
        head = f"POST /{path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += f"Submilli-Signature: {signature(body) if sign is None else sign}\r\nIdempotency-Key: {key}\r\n{more}\r\n"
        sock.sendall(head.encode())
        sock.sendall(body)
        received = b""
        while piece := sock.recv(65536):
            received += piece
        return received


def test_the_work_of_one_key_is_done_once(twin: HookTwin) -> None:
    answers = {post(twin, key="a").partition(b"\r\n\r\n")[2] for _ in range(3)}
    assert answers == {b'{"done": "lookup"}'}
    post(twin, key="b")
    assert twin.executions == {"a": 1, "b": 1}
    assert [request.fault for request in twin.requests] == [""] * 4


def test_any_of_the_secrets_may_sign(twin: HookTwin) -> None:
    both = f"{signature(secret='other')},{signature(secret='old').split(',')[1]}"
    assert post(twin, sign=both).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sign", "fault"),
    [
        ("", b"the signature is wrong"),
        (signature(secret="other"), b"the signature is wrong"),
        (signature(BODY + b" "), b"the signature is wrong"),
        (signature(at_s=time.time() - 400), b"the signature is old"),
    ],
)
def test_a_bad_signature_is_refused(twin: HookTwin, sign: str, fault: bytes) -> None:
    answer = post(twin, sign=sign)
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.endswith(fault)
    assert twin.executions == {}


def test_a_request_of_another_shape_is_refused(twin: HookTwin) -> None:
    assert post(twin, body=b"{").endswith(b"not JSON")
    assert post(twin, body=b'{"v":2}').endswith(b"not a request of version 1")


def test_a_reply_of_the_users(twin: HookTwin) -> None:
    twin.reply = lambda request: json.dumps({"tool": request.body["tool"]}).encode()
    assert post(twin, "ok/any/path").endswith(b'{"tool": "lookup"}')


def test_a_behaviour_of_the_tests() -> None:
    with HookTwin("new", behaviours={"mine": lambda visit: visit.answer(299, b"", "X-Mine: 1")}) as twin:
        assert post(twin, "mine").startswith(b"HTTP/1.1 299 Twin\r\nContent-Length: 0\r\nX-Mine: 1")
        assert twin.url("mine") == f"http://127.0.0.1:{twin.address[1]}/mine"


def test_faults_that_depend_on_the_attempt(twin: HookTwin) -> None:
    assert post(twin, "lost_once", key="a") == b""
    assert post(twin, "lost_once", key="a").startswith(b"HTTP/1.1 200")
    assert post(twin, "flaky", key="b").startswith(b"HTTP/1.1 503")
    assert post(twin, "flaky", key="b").startswith(b"HTTP/1.1 200")
    assert twin.executions == {"a": 1, "b": 1}


def test_an_answer_in_time_and_one_after_the_deadline(twin: HookTwin) -> None:
    twin.slow_s = twin.late_s = 0.01
    assert post(twin, "slow").endswith(b'{"done": "lookup"}')
    assert post(twin, "late").endswith(b'{"done": "lookup"}')


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("html", b"<h1>It works!</h1>"),
        ("empty", b"Content-Length: 0"),
        ("latin1", b"\xfc"),
        ("redirect", b"Location: http://127.0.0.1:"),
        ("half", b"Content-Length: 100"),
        ("twice", b"}HTTP/1.1 200 Twin"),
        ("garbage", b"\x15"),
        ("dead", b""),
    ],
)
def test_answers_with_a_fault(twin: HookTwin, path: str, expected: bytes) -> None:
    assert expected in post(twin, path)


def test_endless_answers_end_with_their_reader(twin: HookTwin) -> None:
    for path in ("huge", "drip", "drip_body", "continues", "headers", "long_header", "chunks", "stream", "silent"):
        assert path in BEHAVIOURS
        with socket.create_connection(twin.address, timeout=5) as sock:
            head = f"POST /{path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
            sock.sendall(f"{head}Submilli-Signature: {signature()}\r\n\r\n".encode() + BODY)
            assert path == "silent" or sock.recv(10)
        assert twin.wait_for(lambda twin: twin.open == 0), path


def test_a_connection_without_a_whole_request(twin: HookTwin) -> None:
    for part in (b"", b"POST /ok HTTP/1.1\r\n", b"POST /ok HTTP/1.1\r\nContent-Length: 5\r\n\r\nx", b"nonsense\r\n\r\n"):
        with socket.create_connection(twin.address, timeout=5) as sock:
            sock.sendall(part)
    assert twin.wait_for(lambda twin: twin.open == 0)
    assert twin.requests == []
