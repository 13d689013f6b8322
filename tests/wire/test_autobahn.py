"""Autobahn's cases against both ends of `gw.media.transport.websocket`, over real sockets: strict answers, clean ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from websockets.frames import Frame
from websockets.protocol import Protocol, Side
from websockets.speedups import apply_mask

from gw.config import Agent
from gw.errors import ProtocolError, close_code
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.transport import websocket
from gw.media.transport.plain import Transport
from gw.media.transport.websocket import LegClosedError, WebSocket
from gw.protocol import wire
from gw.protocol.websocket.frames import frame
from tests.gw.media.support import WAIT_S, upgrade
from tests.wire.autobahn import BINARY, BY_FRAME, CASES, CLOSE, TEXT, Case

KEY = b"\x01\x80\xff\x37"
LIMIT_BYTES = 1 << 20


def test_no_case_is_left_out() -> None:
    sections = Counter(case.name.split(".")[0] for case in CASES)
    assert sections == {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1}
    assert len({case.name for case in CASES}) == 247
    assert Counter(case.code for case in CASES if case.name.startswith("6.")) == {1000: 70, 1007: 75}


# -- our ends ---------------------------------------------------------------------------------------------------------


def echo(web_socket: WebSocket) -> None:
    """Return every message. Text is checked as the legs' parsers check it."""
    code = 1000
    try:
        while True:
            for message in web_socket.read():
                if message.is_text:
                    wire.decode_text(bytes(message.data))
                key = KEY if web_socket._is_client else b""
                web_socket.transport.write(frame(TEXT if message.is_text else BINARY, bytes(message.data), key))
    except LegClosedError:
        pass
    except ProtocolError as error:
        code = close_code(error.code)
    web_socket.close(code, "")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an end that does not half-close fail the test."""
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 2 * WAIT_S)


@pytest.fixture(scope="module")
def phone_leg() -> Iterator[tuple[str, int]]:
    """A server whose connections echo."""

    def serve(sock: socket.socket, address: tuple[str, int]) -> None:
        echo(WebSocket(Transport(sock, LIMIT_BYTES), LIMIT_BYTES, is_client=False))

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    yield ("127.0.0.1", server.server_port)
    server.stop(timeout=0.1)


def ai_leg(listener: socket.socket) -> socket.socket:
    """Connect an AI leg to a listener, to echo. Returns the server's socket."""
    host, port = listener.getsockname()
    leg = OpenAiLeg(Agent(base_url=f"ws://{host}:{port}/"), "sk-test", None)  # type: ignore[arg-type]  # no TLS

    def run() -> None:
        leg.connect()
        assert leg._socket is not None
        leg._socket.transport._limit_bytes = LIMIT_BYTES  # type: ignore[union-attr]  # one case echoes 256 KB
        echo(leg._socket)

    gevent.spawn(run)
    sock, _ = listener.accept()
    upgrade(sock)
    first_byte, second = sock.recv(1, socket.MSG_WAITALL), sock.recv(3, socket.MSG_WAITALL)
    assert first_byte == b"\x81", "the session's update comes first"
    sock.recv(4 + int.from_bytes(second[1:]), socket.MSG_WAITALL)
    return sock


# -- the other end ----------------------------------------------------------------------------------------------------


def writes(case: Case, *, masked: bool) -> list[bytes]:
    """Return the bytes of each write. Held bytes are left out."""
    frames = []
    for first, payload in case.sent:
        head = frame(first & 15, payload, KEY if masked else b"")
        body = apply_mask(payload, KEY) if masked else payload
        frames.append(bytes([first]) + head[1 : len(head) - len(body)] + body)
    if case.chop == BY_FRAME:
        # the held bytes are the payload of the last frames
        held = case.held
        while held > 0:
            held -= len(case.sent[len(frames) - 1][1])
            frames.pop()
        return frames
    stream = b"".join(frames)[: -case.held or None]
    size = case.chop or len(stream)
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def run(case: Case, sock: socket.socket, side: Side) -> None:
    """Send a case's frames, read to the end, and compare."""
    sock.settimeout(WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send() -> None:
        for data in writes(case, masked=side is Side.CLIENT):
            sock.sendall(data)
            gevent.sleep(0)

    sending = gevent.spawn(send)
    received = b""
    while data := sock.recv(65536):  # a reset instead of a clean end is an error
        received += data
    sending.get(timeout=WAIT_S)
    sock.close()
    reader = Protocol(side, max_size=None)
    reader.receive_data(received)
    frames = [event for event in reader.events_received() if isinstance(event, Frame)]
    assert reader.parser_exc is None or isinstance(reader.parser_exc, EOFError), "our end broke a rule"
    answers = tuple((int(event.opcode), bytes(event.data)) for event in frames)
    assert answers[:-1] == case.answers
    assert answers[-1][0] == CLOSE
    assert int.from_bytes(answers[-1][1][:2]) == case.code


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_phone_leg(case: Case, phone_leg: tuple[str, int]) -> None:
    run(case, socket.create_connection(phone_leg), Side.CLIENT)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_ai_leg(case: Case) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    run(case, ai_leg(listener), Side.SERVER)
    listener.close()
