"""gw.protocol.websocket.handshake against websockets' server, and answers that do not open a websocket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key as accept_of_websockets

from gw.protocol.http import MAX_FIELDS, MAX_HEAD_BYTES
from gw.protocol.websocket.handshake import ClientHandshake, HandshakeError, accept_key

NONCE = bytes(range(16))
KEY = "AAECAwQFBgcICQoLDA0ODw=="
GOOD = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept_of_websockets(KEY)}


def client() -> ClientHandshake:
    return ClientHandshake("ai.example:8443", "/v1/realtime?model=m", [("Authorization", "Bearer k")], NONCE)


def answer(status_line: str = "HTTP/1.1 101 Switching Protocols", **changes: str | None) -> bytes:
    """Build an answer; a change of None leaves the field out."""
    fields = GOOD | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [status_line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_handshake_with_websockets_server() -> None:
    server = ServerProtocol()
    ours = client()
    server.receive_data(ours.request)
    request = server.events_received()[0]
    assert isinstance(request, Request)
    assert request.path == "/v1/realtime?model=m"
    assert request.headers["Host"] == "ai.example:8443"
    assert request.headers["Authorization"] == "Bearer k"
    server.send_response(server.accept(request))
    server.send_text(b"early")
    sent = b"".join(server.data_to_send())
    assert ours.receive(sent) == b"\x81\x05early"


def test_the_example_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "changes",
    [{"Upgrade": "WebSocket"}, {"Connection": "keep-alive, upgrade"}, {"Server": "x"}, {"Date": ""}, {"Connection": "UPGRADE\t"}],
)
def test_answers_that_open_a_websocket(changes: dict[str, str]) -> None:
    data = answer(**changes)
    assert client().receive(data + b"behind") == b"behind"
    ours = client()
    assert [ours.receive(data[at : at + 1]) for at in range(len(data))] == [None] * (len(data) - 1) + [b""]


@pytest.mark.parametrize(
    "data",
    [
        answer(Upgrade=None),
        answer(Upgrade="h2c"),
        answer(Upgrade="websocket, h2c"),
        answer(Connection=None),
        answer(Connection="close"),
        answer(Connection="," * 100 + "upgrade"),
        answer(Sec_WebSocket_Accept=None),
        answer(Sec_WebSocket_Accept=accept_key("another")),
        answer().replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: " + accept_key(KEY).encode() + b"\r\n\r\n"),
        answer(Sec_WebSocket_Extensions="permessage-deflate"),
        answer(Sec_WebSocket_Protocol="x"),
        answer(Folded="a\r\n b: c"),
        answer(**{"No colon\r\nNone": "a"}),
        answer(**{"": "no name"}),
        answer(Né="no token"),
        answer(Control="a\0b"),
        answer(**{f"X{n}": "" for n in range(MAX_FIELDS)}),
        b"HTTP/1.1 101 \r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/2 101\r\n",
        b"HTTP/1.1 999 x\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        answer(Long="x" * MAX_HEAD_BYTES),
        b"x" * (MAX_HEAD_BYTES + 1),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_answers_that_are_not_websockets(data: bytes) -> None:
    with pytest.raises(HandshakeError) as raised:
        client().receive(data)
    assert raised.value.status == 0
    assert str(raised.value)


@pytest.mark.parametrize("status", [200, 301, 401, 429, 500])
def test_a_refusal_is_known_at_the_end_of_its_head(status: int) -> None:
    ours = client()
    assert ours.receive(f"HTTP/1.1 {status} whatever\r\nTransfer-Encoding: chunked\r\n".encode()) is None
    with pytest.raises(HandshakeError) as raised:
        ours.receive(b"\r\n")
    assert (raised.value.status, raised.value.retry_after_s) == (status, 0)


@pytest.mark.parametrize(
    ("field", "retry_after_s"),
    [
        ("Retry-After: 7", 7),
        ("retry-after:120 \r\nX: y", 120),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("Retry-After: 9999999", 0),
        ("X-Retry-After: 7", 0),
    ],
)
def test_a_refusal_that_asks_for_a_pause(field: str, retry_after_s: int) -> None:
    with pytest.raises(HandshakeError) as raised:
        client().receive(f"HTTP/1.1 429 Too Many Requests\r\n{field}\r\n\r\n".encode())
    assert raised.value.retry_after_s == retry_after_s


@given(st.lists(st.binary(max_size=30) | st.sampled_from([answer()[:40], answer()[40:], b"\r\n"]), max_size=6))
def test_any_bytes_end_the_same_in_any_pieces(pieces: list[bytes]) -> None:
    def read(parts: list[bytes]) -> tuple[bytes | None, int, str]:
        ours = client()
        behind: bytes | None = None
        try:
            for part in parts:
                behind = ours.receive(part) if behind is None else behind + part
        except HandshakeError as error:
            return None, error.status, str(error)
        return behind, 0, ""

    assert read(pieces) == read([b"".join(pieces)])
