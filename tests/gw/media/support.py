"""Helpers of the media tests: contexts, socket pairs, a websocket peer, leak checks."""

from __future__ import annotations

import base64
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from gevent import socket
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from gw import bus
from gw.call.state import Event
from gw.config import Agent, Config, Media, Ops, Overflow, Recording, Route, Secrets, Server, Twilio
from gw.media.admission.token_ledger import TokenLedger
from gw.media.ai.leg import AiLegError
from gw.media.call import Call
from gw.media.http.server import MediaServer
from gw.media.shared.context import CountedState, MediaContext
from gw.media.transport.plain import Transport
from gw.media.tx import TxCells
from gw.protocol import ai, twilio
from metrics.page import Page
from tests.timing import scaled

ACCOUNT = "AC" + "0" * 32
CALL = "CA" + "0" * 32
STREAM = "MZ" + "0" * 32
#: Longest wait of a test for an event that should come immediately; a busy machine may need seconds.
WAIT_S = scaled(20.0)


class ContextMaker:
    """Makes media contexts in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: list[Any] = []
        self._servers: list[MediaServer] = []
        self._n = 0

    def page(self) -> Page:
        self._n += 1
        page = Page.claim(self._folder / "pages", f"worker-{self._n}")
        self._opened.append(page)
        return page

    def tx_cells(self) -> TxCells:
        return TxCells(self.page())

    def context(
        self,
        *,
        media: dict[str, Any] | None = None,
        agents: dict[str, Agent] | None = None,
        signed: bool = False,
        public_url: str = "",
        max_calls: int = 500,
        recording: dict[str, Any] | None = None,
        overflow: Overflow | None = None,
        machine: str = "",
        talk_key: str = "",
        **sections: Any,
    ) -> tuple[MediaContext, list[bus.Event]]:
        """Make a context, and the list of the events it emits. `sections`: further parts of the configuration."""
        config = Config(
            server=Server(public_url=public_url, max_calls_per_worker=max_calls, machine=machine),
            ops=Ops(var_dir=str(self._folder)),
            twilio=Twilio(account_sid=ACCOUNT if signed else ""),
            media=Media(**(media or {})),
            recording=Recording(**(recording or {})),
            overflow=overflow or Overflow(),
            agents=agents or {"default": Agent(greeting="")},
            secrets=Secrets(twilio_auth_token="secret" if signed else "", openai_api_key="sk-test", talk_key=talk_key),
            **sections,
        )
        ledger = TokenLedger(self._folder / "pages" / "tokens.ledger")
        self._opened.append(ledger)
        context = MediaContext(config, self.page(), ledger)
        emitted: list[bus.Event] = []
        context.emit = emitted.append
        return context, emitted

    def server(self, context: MediaContext, listener: socket.socket | None = None) -> tuple[MediaServer, tuple[str, int]]:
        """Start a server with its watchdog on a free port, or on an inherited socket."""
        if listener is None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
        server = MediaServer(listener, context)
        server.start()
        server.watch_greenlet = gevent.spawn(server.watch)  # type: ignore[attr-defined]
        self._servers.append(server)
        return server, listener.getsockname()

    def close(self) -> None:
        for server in self._servers:
            server.stop(timeout=0.1)
            server.watch_greenlet.kill()  # type: ignore[attr-defined]
        for opened in reversed(self._opened):
            opened.close()


def pair(*, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Make two connected sockets. `small`: with the smallest buffers of the kernel, so that they fill soon."""
    ours, theirs = socket.socketpair()
    if small:
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return ours, theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Make two sockets connected over loopback."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    listener.close()
    return ours, theirs


def until(judge: Callable[[], Any], what: str = "") -> Any:
    """Wait until `judge` returns a true value; fail the test when it never does."""
    end_s = time.monotonic() + WAIT_S
    while not (value := judge()):
        assert time.monotonic() < end_s, what or "it never happened"
        gevent.sleep(0.002)
    return value


class StallMeter:
    """Measures how long the machine did not run this process, for tests of frame times."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            due_s = time.monotonic() + 0.01
            gevent.sleep(0.01)
            self.longest_s = max(self.longest_s, time.monotonic() - due_s)

    def end(self) -> float:
        self._greenlet.kill()
        return self.longest_s


def descriptors() -> int:
    """Count this process's open descriptors, after a collection."""
    gevent.sleep(0)
    gc.collect()
    gevent.sleep(0)
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def greenlets() -> int:
    """Count living greenlets, after a collection."""
    gc.collect()
    return sum(isinstance(thing, gevent.Greenlet) and not thing.dead for thing in gc.get_objects())


# -- a websocket peer -------------------------------------------------------------------------------------------------


class Peer:
    """Other end of a websocket. Correct unless a test makes it send bad bytes. Reads and writes are bounded."""

    def __init__(self, sock: socket.socket, side: Side = Side.CLIENT, protocol: Protocol | None = None) -> None:
        sock.settimeout(WAIT_S)
        self.socket = sock
        self.protocol = protocol or Protocol(side, max_size=None)
        self.frames: list[Frame] = []
        self.ended = False

    @classmethod
    def connect(cls, address: tuple[str, int], path: str = "/media", behind: bytes = b"", **headers: str) -> Peer:
        """Connect and upgrade; `behind`: raw bytes in the same write as the handshake."""
        host, port = address
        sock = socket.create_connection(address)
        protocol = ClientProtocol(parse_uri(f"ws://{host}:{port}{path}"), max_size=None)
        request = protocol.connect()
        for name, value in headers.items():
            request.headers[name.replace("_", "-")] = value
        protocol.send_request(request)
        peer = cls(sock, protocol=protocol)
        sock.sendall(b"".join(protocol.data_to_send()) + behind)
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            peer._receive()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return peer

    def _receive(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.ended = True
            if self.protocol.state is not State.CLOSED:
                self.protocol.receive_eof()
        self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        self._flush()

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            try:
                if data:
                    self.socket.sendall(data)
                else:  # websockets' sign for the end of this side
                    self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                return  # frames before that are still to be read

    def frame(self) -> Frame | None:
        """Return the next frame, control frames too. None: the connection ended."""
        while not self.frames and not self.ended:
            self._receive()
        return self.frames.pop(0) if self.frames else None

    def text(self) -> Any:
        """Return the next text message, decoded."""
        frame = self.frame()
        assert frame is not None, "the connection ended"
        return json.loads(bytes(frame.data))

    def send(self, message: Any) -> None:
        """Send one text message: an object as JSON, or raw bytes."""
        self.protocol.send_text(message if isinstance(message, bytes) else json.dumps(message).encode())
        self._flush()

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_to_end(self) -> tuple[int, str]:
        """Read until the connection ends. Returns the close frame's code and reason; 1006 without one."""
        while not self.ended:
            self._receive()
        close = self.protocol.close_rcvd
        return (close.code, close.reason) if close else (1006, "")

    def close(self) -> None:
        self.socket.close()


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Build one client frame, mask of zeros, payload of at most 65535 bytes."""
    head = bytes([(0x80 if fin else 0) | opcode])
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + len(payload).to_bytes(2, "big")
    return head + length + bytes(4) + payload


# -- Twilio's messages ---------------------------------------------------------------------------------------------------


def connected() -> dict[str, Any]:
    return {"event": "connected", "protocol": "Call", "version": "1.0.0"}


def start(*, call: str = CALL, stream: str = STREAM, account: str = ACCOUNT, **parameters: str) -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": stream,
        "start": {
            "accountSid": account,
            "streamSid": stream,
            "callSid": call,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        },
    }


def media(n: int = 1, audio: bytes = b"\xff" * 160, *, stream: str = STREAM, track: str = "inbound") -> dict[str, Any]:
    payload = base64.b64encode(audio).decode()
    body = {"track": track, "chunk": str(n), "timestamp": str(n * 20), "payload": payload}
    return {"event": "media", "sequenceNumber": str(n + 1), "streamSid": stream, "media": body}


def stop(*, call: str = CALL, stream: str = STREAM) -> dict[str, Any]:
    return {"event": "stop", "sequenceNumber": "9", "streamSid": stream, "stop": {"accountSid": ACCOUNT, "callSid": call}}


# -- a phone leg without a server -------------------------------------------------------------------------------------


def transport_and_peer(limit_bytes: int = 1 << 20) -> tuple[Transport, socket.socket]:
    """Make a transport, and the socket at its other end."""
    ours, theirs = pair()
    theirs.settimeout(WAIT_S)
    return Transport(ours, limit_bytes), theirs


def call_of(context: MediaContext, agent: Agent, transport: Transport, *, records: bool = True) -> Call:
    """Make a call that has just started, without its greenlets."""
    state = CountedState(context.cells)
    state.on_event(Event.START)
    event = twilio.parse(json.dumps(start()))
    assert isinstance(event, twilio.Start)
    return Call(context, state, event, "default", agent, transport, voice_at=None, route=Route(record=records))


# -- an AI's end ------------------------------------------------------------------------------------------------------

#: A message that carries audio before the session was confirmed.
EARLY_AUDIO = b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i","content_index":0,"delta":"AAAA"}'


def upgrade(sock: socket.socket, message: bytes = b"") -> None:
    """Answer an upgrade, with a text message in the same write."""
    protocol = ServerProtocol()
    while not (events := protocol.events_received()):
        protocol.receive_data(sock.recv(65536))
    protocol.send_response(protocol.accept(events[0]))  # type: ignore[arg-type]
    if message:
        protocol.send_text(message)
    sock.sendall(b"".join(protocol.data_to_send()))


def upgrade_and_send(listener: socket.socket, message: bytes) -> None:
    """Accept one connection, answer its upgrade, and send `message` in the same write."""
    sock, _ = listener.accept()
    upgrade(sock, message)
    gevent.sleep(WAIT_S)
    sock.close()


class FakeLeg:
    """AI leg in memory: returns the events that the test puts, keeps each method call as (verb, arguments)."""

    def __init__(self, *events: ai.AiEvent, error: AiLegError | None = None) -> None:
        self._events = list(events)
        self.error = error  # raised by the first read without events
        self.connect_error: AiLegError | None = None
        self.sent: list[tuple[Any, ...]] = []
        self.heard_s = time.monotonic()
        self.is_congested = False
        self._woken = gevent.event.Event()

    def put(self, *events: ai.AiEvent) -> None:
        self._events += events
        self.wake()

    def fail(self, error: AiLegError) -> None:
        self.error = error
        self.wake()

    def connect(self) -> None:
        if self.connect_error is not None:
            raise self.connect_error

    def read(self) -> list[ai.AiEvent]:
        if not self._events and self.error is None:
            self._woken.wait(WAIT_S)
        self._woken.clear()
        events, self._events = self._events, []
        if not events and self.error is not None:
            raise self.error
        return events

    def wake(self) -> None:
        self._woken.set()

    def of(self, verb: str) -> list[Any]:
        """Return the arguments of each call of this verb: one argument bare, several as a tuple."""
        return [sent[1] if len(sent) == 2 else sent[1:] for sent in self.sent if sent[0] == verb]

    def __getattr__(self, verb: str) -> Callable[..., None]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        return lambda *arguments, **named: self.sent.append((verb, *arguments, *named.values()))


def put_in_place(call: Call, leg: FakeLeg) -> None:
    """Make this the call's AI leg, as if it were open."""
    call.ai._replace(leg)
    call.ai.open_s = None


# -- control's end of the bus -----------------------------------------------------------------------------------------


class Control:
    """Control's end: accepts one connection at a time and returns its messages."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(WAIT_S)
        self.link: socket.socket | None = None
        self._messages: list[object] = []

    def accept(self) -> bus.Hello:
        """Accept the next connection. Returns its Hello."""
        self.link, _ = self._listener.accept()
        self.link.settimeout(WAIT_S)
        self._reader = bus.Reader.of_events()
        self._messages = []
        hello = self.next()
        assert isinstance(hello, bus.Hello)
        return hello

    def next(self) -> object:
        assert self.link is not None
        while not self._messages:
            data = self.link.recv(65536)
            assert data, "the worker hung up"
            self._messages += self._reader.feed(data)
        return self._messages.pop(0)

    def events(self, count: int) -> list[bus.Numbered]:
        """Return the next numbered events, without the status in between."""
        got: list[bus.Numbered] = []
        while len(got) < count:
            message = self.next()
            if isinstance(message, bus.Numbered):
                got.append(message)
        return got

    def say(self, *commands: bus.Command) -> None:
        assert self.link is not None
        self.link.sendall(b"".join(map(bus.pack, commands)))

    def hang_up(self) -> None:
        assert self.link is not None
        self.link.close()

    def close(self) -> None:
        self._listener.close()
        if self.link is not None:
            self.link.close()
