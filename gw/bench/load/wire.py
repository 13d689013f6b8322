"""Minimal RFC 6455 for load processes: cut messages, build text messages, shake hands, send without waiting.

Fast where a bench is busy: messages are classified by their headers, and nothing is copied before it is used. A client's
messages carry the masking key 0, which is legal, costs the reader the same work, and saves the load its own. Fragments are not
joined: no peer of a bench sends them, and one is reported as unexpected.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gw.bench.load.loop import Loop

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEADER_LIMIT: Final = 16 << 10
TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9

#: A whole message in the data: opcode (with 0x80, the FIN bit), position of its mask (0: unmasked), start, end.
Span = tuple[int, int, int, int]


class WireError(Exception):
    """The peer broke the protocol or refused the handshake."""


def spans(data: bytes) -> tuple[list[Span], int]:
    """Return the whole messages in `data`, and the position of the first incomplete one."""
    found: list[Span] = []
    at, size = 0, len(data)
    while size - at >= 2:
        length = data[at + 1]
        head = at + 2
        masked = length & 0x80
        length &= 0x7F
        if length == 126:
            if size - at < 4:
                break
            length = data[head] << 8 | data[head + 1]
            head += 2
        elif length == 127:
            if size - at < 10:
                break
            length = int.from_bytes(data[head : head + 8])
            head += 8
        start = head + 4 if masked else head
        end = start + length
        if end > size:
            break
        found.append((data[at], head if masked else 0, start, end))
        at = end
    return found, at


def masked_text(body: bytes, opcode: int = TEXT) -> bytes:
    """Build a client's message, with the masking key 0."""
    return _head(len(body), opcode, 0x80) + b"\0\0\0\0" + body


def text(body: bytes) -> bytes:
    """Build a server's text message."""
    return _head(len(body), TEXT, 0) + body


def _head(length: int, opcode: int, mask: int) -> bytes:
    if length < 126:
        return bytes((0x80 | opcode, mask | length))
    if length < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, mask | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, mask | 127, length)


def accept_key(key: bytes) -> bytes:
    """Compute Sec-WebSocket-Accept from a Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def header(request: bytes, name: bytes) -> bytes:
    """Return a header's value; empty if missing."""
    for line in request.split(b"\r\n")[1:]:
        given, _, value = line.partition(b":")
        if given.strip().lower() == name:
            return value.strip()
    return b""


def upgrade_answer(request: bytes) -> bytes:
    """Build the 101 response to a client's upgrade. Raises WireError for any other request."""
    key = header(request, b"sec-websocket-key")
    if not key or b"websocket" not in header(request, b"upgrade").lower():
        raise WireError(f"no upgrade: {request[:80]!r}")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(key)
        + b"\r\n\r\n"
    )


def open_websocket(
    address: tuple[str, int], host: str, path: str, headers: dict[str, str], timeout_s: float
) -> tuple[socket.socket, bytes]:
    """Connect and shake hands, blocking.

    Returns: the socket, now non-blocking, and the bytes after the response.
    Raises: OSError, WireError.
    """
    sock = socket.create_connection(address, timeout_s)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {
            "Host": host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            **headers,
        }
        request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        sock.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = sock.recv(4096)
            if not data or len(answer) > _HEADER_LIMIT:
                raise WireError(f"no answer to the upgrade: {answer[:120]!r}")
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0] + b" ":
            raise WireError(f"the upgrade was answered by {head[:200]!r}")
        if header(head, b"sec-websocket-accept") != accept_key(key.encode()):
            raise WireError("the answer to the upgrade has another key")
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock, rest


# -- numbered frames ------------------------------------------------------------------------------------------------------
#
# The first 12 bytes of each frame, 16 characters of base64, carry its call, its number and its send time; both load processes
# read the same monotonic clock.
#
#     | magic, 2 | call, 2 | number, 4 | monotonic us, 4 (mod 2^32) |

MARK: Final = struct.Struct("!HHII")
MAGIC: Final = 0x5342
MARK_CHARS: Final = 16
FRAME_BYTES: Final = 160
PTIME_S: Final = 0.02
#: The rest of a frame: neither silence nor compressible.
NOISE: Final = bytes((n * 167 + (n * n >> 3) + 29) & 0xFF for n in range(FRAME_BYTES - MARK.size))


def audio_bytes(data: bytes, start: int, end: int) -> int:
    """Return the number of audio bytes in the base64 between `start` and `end`."""
    return (end - start) * 3 // 4 - data.count(b"=", max(start, end - 2), end)


#: No data or no room in the kernel; or TLS needs more bytes first, those of its handshake among them.
_NOT_YET: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection(ABC):
    """The load's end of one websocket, read by the loop and written without waiting.

    Bytes the kernel does not take are buffered, up to a bound. A TLS socket does its handshake in its first reads; a read takes a
    whole record, so no data stays where epoll cannot see it.
    """

    LIMIT_BYTES: Final = 1 << 20
    RECEIVE_BYTES: Final = 1 << 16

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.stalls = 0  # writes the kernel took only in part
        self.end_reason = ""  # empty while the connection is up
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._unread = b""  # an incomplete message
        self._unsent = b""
        loop.watch(self._fd, self.on_readable)

    def on_readable(self) -> None:
        """Read; end the connection if the peer did."""
        try:
            data = self._sock.recv(self.RECEIVE_BYTES)
        except _NOT_YET:
            return
        except OSError as error:
            self.end(f"read: {error}")
            return
        if data:
            self.on_data(self._unread + data)
        else:
            self.end("closed")

    def on_data(self, data: bytes) -> None:
        """Cut data into messages; an incomplete one waits for more."""
        now_s = monotonic()
        found, at = spans(data)
        self._unread = data[at:]
        for opcode, mask_at, start, end in found:
            self.on_message(data, opcode, mask_at, start, end, now_s)

    @abstractmethod
    def on_message(self, data: bytes, opcode: int, mask_at: int, start: int, end: int, now_s: float) -> None:
        """Handle one whole message, `data[start:end]`; see `Span`."""

    def send(self, data: bytes) -> bool:
        """Write or buffer bytes. Returns False on a connection that has ended, or ends now."""
        if self.end_reason:
            return False
        data, self._unsent = self._unsent + data, b""
        try:
            sent = self._sock.send(data)
        except _NOT_YET:
            sent = 0
        except OSError as error:
            self.end(f"write: {error}")
            return False
        if sent != len(data):
            self.stalls += 1
            self._unsent = data[sent:]
            if len(self._unsent) > self.LIMIT_BYTES:
                self.end("write: the peer does not read")
                return False
        return True

    def end(self, why: str) -> None:
        """Close the socket and store the reason. Idempotent."""
        if not self.end_reason:
            self.end_reason = why
            self._loop.unwatch(self._fd)
            self._sock.close()
