"""Websocket of a twin: RFC 6455 over a gevent socket, with ways to break it.

The framing is websockets' sans-I/O core. This module adds the socket, one lock, so that messages of several greenlets never
mix, and sends that no correct peer makes: raw bytes, a reset, silence. Every read and write is bounded by `timeout_s`.
"""

from __future__ import annotations

import logging
import ssl
import struct
from collections import deque
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from gevent import socket
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from websockets.client import ClientProtocol
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

_RECEIVE_BYTES: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST
_LOG: Final = logging.getLogger("gw.twin.websocket")
_LOG.setLevel(logging.WARNING)  # opens and closes are not worth a line


class Message(NamedTuple):
    """A whole websocket message."""

    text: bool
    data: bytes


class ClosedError(Exception):
    """The connection has ended. `by`: the side that ended it, `lost` without a close frame."""

    def __init__(self, by: Literal["peer", "us", "lost"], code: int, reason: str) -> None:
        super().__init__(f"closed by {by} with {code} {reason!r}")
        self.by: Literal["peer", "us", "lost"] = by
        self.code = code
        self.reason = reason


class RefusedError(Exception):
    """The server answered the upgrade with a status other than 101."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"HTTP {status}: {detail}")
        self.status = status


class TimedOutError(Exception):
    """No data moved for `timeout_s`."""


class TwinSocket:
    """An open websocket. One greenlet may read; any number may write."""

    def __init__(self, sock: socket.socket, protocol: ClientProtocol | ServerProtocol, timeout_s: float) -> None:
        sock.settimeout(timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._protocol = protocol
        self._writing = BoundedSemaphore(1)
        self._parts: list[bytes] = []
        self._parts_text = True
        self._arrived: deque[Message] = deque()
        self._reading = False
        self._over = Event()
        self.violation = ""  # the peer's first breach of RFC 6455
        self._take_events()  # messages that came with the handshake

    # -- sending ----------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True while messages may be sent."""
        return self._protocol.state is OPEN and not self._over.is_set()

    def send_text(self, data: bytes) -> None:
        """Send a text message, not checked for UTF-8. Raises ClosedError, TimedOutError."""
        with self._writing:
            self._check_open()
            self._protocol.send_text(data)
            self._flush()

    def send_binary(self, data: bytes) -> None:
        """Send a binary message. Raises ClosedError, TimedOutError."""
        with self._writing:
            self._check_open()
            self._protocol.send_binary(data)
            self._flush()

    def send_raw(self, data: bytes) -> None:
        """Send bytes on the socket, outside of all framing. Raises ClosedError, TimedOutError."""
        with self._writing:
            self._write(data)

    def _check_open(self) -> None:
        if not self.is_open:
            raise self.closing()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
                continue
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._over.set()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except socket.timeout as error:
            raise TimedOutError("the peer does not read") from error
        except OSError as error:
            self._over.set()
            raise self.closing() from error

    # -- receiving --------------------------------------------------------------------------------------------------

    def receive(self) -> Message:
        """Return the next message. Raises ClosedError after the last one, TimedOutError when none comes."""
        self._reading = True
        try:
            while not self._arrived:
                self._read()
        finally:
            self._reading = False
        return self._arrived.popleft()

    def _read(self) -> None:
        """Read from the socket once."""
        if self._protocol.state is CLOSED or self._over.is_set():
            self._over.set()
            raise self.closing()
        with self._writing:
            self._flush()  # replies to the previous read
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except socket.timeout as error:
            raise TimedOutError("the peer is silent") from error
        except OSError as error:
            self._over.set()
            raise self.closing() from error
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._take_events()
        broken = self._protocol.parser_exc
        if broken is not None and not isinstance(broken, EOFError):
            self.violation = self.violation or str(broken)
        with self._writing:
            self._flush()

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._join(event)

    def _join(self, frame: Frame) -> None:
        """Join fragments."""
        if frame.opcode not in (TEXT, BINARY, CONT):
            return
        if frame.opcode != CONT:
            self._parts = []
            self._parts_text = frame.opcode == TEXT
        self._parts.append(bytes(frame.data))
        if frame.fin:
            self._arrived.append(Message(self._parts_text, b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]))
            self._parts = []

    # -- ending -----------------------------------------------------------------------------------------------------

    def closing(self) -> ClosedError:
        """Return how the connection ended, as far as known."""
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            by: Literal["peer", "us"] = "peer" if self._protocol.close_rcvd_then_sent is not False else "us"
            return ClosedError(by, received.code, received.reason)
        if sent is not None:
            return ClosedError("us", sent.code, sent.reason)
        return ClosedError("lost", 1006, "")

    def start_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame, unless one was sent; the reader sees the end."""
        with self._writing:
            if self.is_open:
                self._protocol.send_close(code, reason)
                self._flush()

    def close(self, code: int = 1000, reason: str = "", wait_s: float = 1.0) -> None:
        """Close as RFC 6455 prescribes, waiting up to `wait_s` for the peer. Idempotent."""
        try:
            self.start_close(code, reason)
            if self._reading:
                self._over.wait(wait_s)
            else:
                self._socket.settimeout(wait_s)
                while True:
                    self.receive()
        except (ClosedError, TimedOutError):
            pass  # the connection has ended, which is the goal
        self.release()

    def release(self) -> None:
        """Close the socket. The peer sees an end of stream."""
        self._over.set()
        self._socket.close()

    def abort(self) -> None:
        """Break the connection with a reset, as a crash or a firewall does."""
        self._over.set()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # closed already: nothing to reset
        self._socket.close()


def connect(
    url: str,
    address: tuple[str, int],
    headers: dict[str, str],
    timeout_s: float,
    max_bytes: int,
    tls: bool,
    receive_buffer_bytes: int | None = None,
) -> TwinSocket:
    """Open a websocket as a client.

    The handshake names `url`; the TCP connection goes to `address`, with TLS or without. A small receive buffer makes a stall
    noticeable sooner; it is set before connecting, since TCP does not shrink an offered window.
    Raises: OSError (TCP, TLS), RefusedError (an answer other than 101), TimedOutError.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        raw.settimeout(timeout_s)
        raw.connect(address)
    except BaseException:
        raw.close()
        raise
    try:
        sock = ssl.create_default_context().wrap_socket(raw, server_hostname=urlsplit(url).hostname) if tls else raw
        protocol = ClientProtocol(parse_uri(url), max_size=max_bytes, logger=_LOG)
        request = protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        protocol.send_request(request)
        for data in protocol.data_to_send():
            sock.sendall(data)
        answer = _first_event(sock, protocol)
    except BaseException:
        raw.close()
        raise
    if not isinstance(answer, Response) or answer.status_code != 101 or protocol.handshake_exc is not None:
        status = answer.status_code if isinstance(answer, Response) else 0
        body = bytes(answer.body)[:200].decode(errors="replace") if isinstance(answer, Response) else "no HTTP answer"
        sock.close()
        raise RefusedError(status, body)
    return TwinSocket(sock, protocol, timeout_s)


def read_request(sock: socket.socket, timeout_s: float, max_bytes: int) -> tuple[ServerProtocol, Request] | None:
    """Read a client's handshake, as a server. Returns None for an invalid request."""
    sock.settimeout(timeout_s)
    protocol = ServerProtocol(max_size=max_bytes, logger=_LOG)
    try:
        request = _first_event(sock, protocol)
    except (OSError, TimedOutError):
        return None
    return (protocol, request) if isinstance(request, Request) else None


def answer_request(sock: socket.socket, protocol: ServerProtocol, response: Response, timeout_s: float) -> TwinSocket | None:
    """Send the `response` to a handshake. Returns the websocket after a 101, else None."""
    protocol.send_response(response)
    websocket = TwinSocket(sock, protocol, timeout_s)
    try:
        with websocket._writing:
            websocket._flush()
    except (ClosedError, TimedOutError):
        websocket.release()
        return None
    if protocol.state is not OPEN:
        websocket.close(wait_s=0.2)
        return None
    return websocket


def _first_event(sock: socket.socket, protocol: ClientProtocol | ServerProtocol) -> Request | Response | Frame | None:
    """Read until the handshake's message is whole. Bytes after it stay in the protocol."""
    while True:
        try:
            data = sock.recv(_RECEIVE_BYTES)
        except socket.timeout as error:
            raise TimedOutError("no handshake") from error
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        if protocol.events:
            return protocol.events.pop(0)
        if not data or protocol.handshake_exc is not None:
            return None
