"""Hostile peer's tools: one request a connection, many held connections, media streams, and an AI server.

Plain blocking Python, without gevent and without the gateway's code for the wire: what an attacker would write.
"""

from __future__ import annotations

import errno
import json
import secrets
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from websockets.speedups import apply_mask

from gw.bench.load.audio import session
from gw.bench.load.wire import CLOSE, TEXT, WireError, open_websocket, spans, text, upgrade_answer
from gw.twin.twilio import twiml
from gw.twin.twilio.messages import CONNECTED, MessageWriter
from gw.twin.twilio.webhooks import WebhookSender

#: Longest wait for the answer to one request.
ANSWER_S: Final = 3.0
#: Closed connections of `hold` are opened again at this rate, and the first ones at `OPEN_PER_S`.
REOPEN_PER_S: Final = 100.0
OPEN_PER_S: Final = 1500.0
#: Pause before a hostile telephone whose stream was closed calls again.
REDIAL_S: Final = 0.5
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Target:
    """The gateway under attack, and what a hostile but genuine Twilio or AI would have."""

    host: str
    port: int
    ops_port: int
    account_sid: str
    auth_token: str
    size: float  # share of the full number of connections
    agent: str = ""  # whose AI is hostile
    ai_port: int = 0  # where it is expected

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class Attacker:
    """One attack: its target, its end, and its observations."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.until_s = 0.0
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.seen[what] += count

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until_s

    def many(self, count: int) -> int:
        """Scale a number of connections to the size of this run."""
        return max(2, round(count * self.target.size))

    def paced(self, per_s: float) -> Iterator[int]:
        """Yield numbers at a rate until the attack's end. Lost time is not made up for."""
        n, due_s = 0, time.monotonic()
        while not self.is_over:
            yield n
            n += 1
            due_s = max(due_s + 1.0 / per_s, time.monotonic() - 0.05)
            time.sleep(max(0.0, due_s - time.monotonic()))

    # -- strangers' requests --------------------------------------------------------------------------------------------

    def connect(self, source: str = "", port: int = 0) -> socket.socket:
        """Open a connection from a loopback address. Raises OSError."""
        origin = (source, 0) if source else None
        return socket.create_connection((self.target.host, port or self.target.port), ANSWER_S, origin)

    def request(self, data: bytes, source: str = "") -> str:
        """Send bytes on a new connection. Returns the answer's status, `closed`, or `silent` after ANSWER_S.

        Notes the status, and `refused` for anything but a good answer.
        """
        try:
            with self.connect(source) as sock:
                status = self._exchange(sock, data)
        except TimeoutError:
            status = "silent"
        except OSError:
            status = "closed"
        self.note(status)
        if not status.startswith(("1", "2")):
            self.note("refused")
        return status

    def _exchange(self, sock: socket.socket, data: bytes) -> str:
        try:
            sock.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            pass  # refused before the end of it; the answer may still be there
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and len(answer) < 8192 and (more := sock.recv(4096)):
                answer += more
        except ConnectionError:
            pass
        return answer[9:12].decode("ascii", "replace") if answer.startswith(b"HTTP/") else "closed"

    def hold(
        self, count: int, first: bytes, drip: bytes = b"", every_s: float = 0.5, port: int = 0, spread: bool = False
    ) -> None:
        """Keep connections open until the end: send `first` on each, then `drip` at an interval; open again what closes.

        Notes `opened`, `closed` for each one the gateway closed, and the status of an answer before that. Counts as `refused`
        what was closed or has begun a request. `spread`: from 250 addresses.
        """
        poll = select.epoll()
        held: dict[int, socket.socket] = {}
        due_s = time.monotonic()
        opened, dripped_s = 0, time.monotonic()
        while not self.is_over:
            while len(held) < count and time.monotonic() >= due_s:
                due_s = max(due_s, time.monotonic() - 0.05) + 1.0 / (OPEN_PER_S if opened < count else REOPEN_PER_S)
                opened += 1
                sock = self._start_connection(port, f"127.1.0.{opened % 250 + 1}" if spread else "")
                if sock is not None:
                    held[sock.fileno()] = sock
                    poll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT if first else select.EPOLLIN)
                    self.note("opened")
            for fd, events in poll.poll(0.005, 256):
                if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    if not self._read_held(held[fd]):
                        poll.unregister(fd)
                        held.pop(fd).close()
                elif events & select.EPOLLOUT:
                    poll.modify(fd, select.EPOLLIN)
                    _send(held[fd], first)
            if drip and time.monotonic() - dripped_s >= every_s:
                dripped_s = time.monotonic()
                for sock in held.values():
                    _send(sock, drip)
        self.note("left open", len(held))
        self.note("refused", len(held) if first else 0)  # a request that breaks off is one too
        for sock in held.values():
            sock.close()

    def _start_connection(self, port: int, source: str) -> socket.socket | None:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            if source:
                sock.bind((source, 0))
            code = sock.connect_ex((self.target.host, port or self.target.port))
        except OSError:
            code = errno.EADDRNOTAVAIL
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self.note("not connected")
            return None
        return sock

    def _read_held(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data.startswith(b"HTTP/"):
            self.note(data[9:12].decode("ascii", "replace"))
            return True
        if not data:
            self.note("closed")
            self.note("refused")
        return bool(data)

    def reset(self, sock: socket.socket) -> None:
        """Close with RST instead of FIN."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()

    # -- hostile telephones ---------------------------------------------------------------------------------------------

    def telephones(self, count: int, flood: Callable[[MessageWriter], Iterator[bytes]], agent: str = "default") -> None:
        """Keep signed media streams open that send `flood`. A closed one calls again."""
        _together(count, lambda _: self._telephone(flood, agent))

    def _telephone(self, flood: Callable[[MessageWriter], Iterator[bytes]], agent: str) -> None:
        while not self.is_over:
            try:
                sock, writer = self.place(agent)
            except (OSError, WireError, LookupError) as error:
                self.note("not placed")
                self.note(f"not placed: {error}"[:120])
                time.sleep(REDIAL_S)
                continue
            self.note("placed")
            with sock:
                if not self.is_over and self.push(sock, flood(writer)):
                    self.hang_up(sock, writer)
                else:
                    time.sleep(min(REDIAL_S, max(0.0, self.until_s - time.monotonic())))

    def place(self, agent: str) -> tuple[socket.socket, MessageWriter]:
        target = self.target
        webhooks = WebhookSender(target.url, target.url, target.auth_token)
        call_sid, stream_sid = "CA" + secrets.token_hex(16), "MZ" + secrets.token_hex(16)
        fields = {
            "AccountSid": target.account_sid,
            "CallSid": call_sid,
            "From": "+15005559999",
            "To": "+15005550001",
            "Direction": "inbound",
            "CallStatus": "ringing",
        }
        answer = webhooks.post(webhooks.absolute(f"/twilio/voice?agent={agent}"), fields)
        streams = [verb for verb in twiml.parse(answer.body, answer.content_type).verbs if isinstance(verb, twiml.Stream)]
        if not answer.is_good or not streams:
            raise WireError(f"the webhook was answered {answer.status}: {answer.body[:80]}")
        url = streams[0].url
        authority, _, path = url.split("://", 1)[1].partition("/")
        sock, _ = open_websocket((target.host, target.port), authority, "/" + path, webhooks.headers(url), ANSWER_S)
        writer = MessageWriter(target.account_sid, call_sid, stream_sid)
        sock.setblocking(True)
        sock.sendall(masked(CONNECTED) + masked(writer.start(streams[0].parameters)))
        return sock, writer

    @staticmethod
    def hang_up(sock: socket.socket, writer: MessageWriter) -> None:
        """Send the stream's end and close."""
        with sock:
            sock.settimeout(1.0)
            with suppress(OSError):
                sock.sendall(masked(writer.stop()))

    def push(self, sock: socket.socket, chunks: Iterator[bytes]) -> bool:
        """Send chunks as fast as the peer takes them, and read what comes. Returns False once the peer has closed."""
        sock.setblocking(False)
        waiting, unread = memoryview(b""), b""
        while not self.is_over:
            if not waiting:
                chunk = next(chunks, None)
                if chunk is None:
                    waiting = memoryview(b"")
                    chunks = iter(())
                elif not chunk:
                    time.sleep(0.02)  # an empty chunk is a pause
                else:
                    waiting = memoryview(chunk)
            readable, writable, _ = select.select([sock], [sock] if waiting else [], [], 0.05)
            try:
                if readable:
                    data = sock.recv(1 << 16)
                    if not data:
                        self.note("closed")
                        return False
                    unread = self._find_close(unread + data)
                if writable:
                    sent = sock.send(waiting)
                    self.note("bytes", sent)
                    waiting = waiting[sent:]
            except BlockingIOError:
                continue
            except OSError:
                self.note("closed")
                return False
        return True

    def _find_close(self, data: bytes) -> bytes:
        """Note the code of a close frame. Returns the incomplete rest."""
        found, at = spans(data)
        for opcode, mask_at, start, end in found:
            if opcode & 0x0F == CLOSE:
                body = apply_mask(data[start:end], data[mask_at : mask_at + 4]) if mask_at else data[start:end]
                self.note(f"close {int.from_bytes(body[:2])}")
        return data[at:]

    # -- a hostile AI -----------------------------------------------------------------------------------------------------

    def artificial(self, calls: int, flood: Callable[[], Iterator[bytes]]) -> None:
        """Serve Realtime sessions that send `flood` once configured, and place calls that use them."""
        listener = socket.create_server(("127.0.0.1", self.target.ai_port), backlog=64)
        listener.settimeout(0.2)

        def accept() -> None:
            while not self.is_over:
                try:
                    sock, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=self._session, args=(sock, flood), daemon=True).start()
            listener.close()

        threading.Thread(target=accept, daemon=True).start()
        self.telephones(calls, _listen, self.target.agent)

    def _session(self, sock: socket.socket, flood: Callable[[], Iterator[bytes]]) -> None:
        with sock:
            try:
                sock.settimeout(ANSWER_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                head, _, rest = _read_until(sock, b"", b"\r\n\r\n").partition(b"\r\n\r\n")
                sock.sendall(upgrade_answer(head) + event("session.created", session=session({})))
                while b'"session.update"' not in (body := apply_mask(*self._message(sock, rest))):
                    rest = b""
                sock.sendall(event("session.updated", session=session(json.loads(body)["session"])))
                self.note("sessions")
                self.push(sock, flood())
            except (OSError, WireError):
                self.note("no session")

    @staticmethod
    def _message(sock: socket.socket, data: bytes) -> tuple[bytes, bytes]:
        """Read up to a whole masked message. Returns its body and its mask."""
        while not (found := spans(data)[0]):
            more = sock.recv(4096)
            if not more:
                raise WireError("closed before the session was configured")
            data += more
        _, mask_at, start, end = found[0]
        return data[start:end], data[mask_at : mask_at + 4]


def masked(body: bytes, opcode: int = TEXT, fin: bool = True) -> bytes:
    """Build a client's frame, with the masking key 0."""
    return frame(body, opcode, fin, 0x80, b"\0\0\0\0")


def frame(body: bytes, opcode: int, fin: bool = True, mask_bit: int = 0, key: bytes = b"") -> bytes:
    """Build one websocket frame."""
    first, size = (0x80 if fin else 0) | opcode, len(body)
    if size < 126:
        return bytes((first, mask_bit | size)) + key + body
    if size < 1 << 16:
        return struct.pack("!BBH", first, mask_bit | 126, size) + key + body
    return struct.pack("!BBQ", first, mask_bit | 127, size) + key + body


def event(kind: str, **fields: Any) -> bytes:
    """Build an event of the AI as a websocket message."""
    return text(json.dumps({"type": kind, "event_id": "event_hostile", **fields}, separators=(",", ":")).encode())


def _listen(_: MessageWriter) -> Iterator[bytes]:
    """Send nothing."""
    while True:
        yield b""


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except OSError:
        return  # the poll shows that it is closed


def _read_until(sock: socket.socket, data: bytes, end: bytes) -> bytes:
    while end not in data:
        more = sock.recv(4096)
        if not more:
            raise WireError("closed in the handshake")
        data += more
    return data


def _together(count: int, run: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
