"""The one door to a socket: a write never waits, and everything that is written passes here.

TX, pongs, `clear` and close all call `write`. What the kernel does not take goes to a bounded buffer that the hub flushes when
the socket is writable again; when that runs over, the door is `stalled` and takes nothing more. So no greenlet can be stuck in a
write, no lock is needed, and messages never interleave. Reading waits for readiness first and is woken by `shut`, so no reader is
left behind.

TLS runs over memory buffers in front of the same door. Never raises from `write`: a broken door says so in `failure`, and its
reader learns it.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import gevent
from gevent.hub import Waiter
from gevent.socket import SHUT_RDWR, socket

#: One read is one slice of the hub's time: forty media messages, or some AI deltas, are parsed in about half a millisecond.
READ_BYTES: Final = 16384


class Door:
    """A connected socket behind one non-blocking door. The hub of the creating greenlet's thread serves it."""

    __slots__ = (
        "_buffer",
        "_first",
        "_incoming",
        "_limit_bytes",
        "_loop",
        "_outgoing",
        "_raw",
        "_read_watcher",
        "_reader",
        "_socket",
        "_tls",
        "_woken",
        "_write_watcher",
        "failure",
    )

    def __init__(self, sock: socket, limit_bytes: int, first: bytes = b"") -> None:
        """`limit_bytes`: how much may wait for a peer that does not read. `first`: bytes already read from the socket."""
        self._socket: socket | None = sock
        self._raw: Any = sock._sock  # type: ignore[attr-defined]  # gevent keeps the non-blocking socket there; its own send would wait
        self._loop: Any = gevent.get_hub().loop
        self._read_watcher: Any = self._loop.io(sock.fileno(), 1)
        self._write_watcher: Any = self._loop.io(sock.fileno(), 2)
        self._reader: Waiter[None] | None = None
        self._buffer = bytearray()
        self._first = first
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._limit_bytes = limit_bytes
        self._woken = False  # the next read returns at once
        self.failure = ""  # why the door does not work any more: "stalled", "broken: ...", "shut", or nothing

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Hand bytes to the kernel, never wait, never raise. True: the kernel has them all, and all before them."""
        if self._tls is not None:
            return self._write_tls(self._tls, data)
        return self._send(data)

    def _send(self, data: bytes) -> bool:
        if self.failure:
            return False
        if self._buffer:
            self._keep(data)
            return False
        try:
            sent: int = self._raw.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(f"broken: {error.strerror or error}")
            return False
        if sent == len(data):
            return True
        self._keep(data[sent:])
        return False

    def _keep(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > self._limit_bytes:
            self._break("stalled")
            return
        if not self._buffer:
            self._write_watcher.start(self._flush)
        self._buffer += data

    def _flush(self) -> None:
        """The socket is writable: the hub calls this between greenlets."""
        try:
            sent: int = self._raw.send(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(f"broken: {error.strerror or error}")
            return
        del self._buffer[:sent]
        if not self._buffer:
            self._write_watcher.stop()

    @property
    def waiting_bytes(self) -> int:
        """Bytes the kernel has not taken."""
        return len(self._buffer)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self) -> bytes | None:
        """Wait for bytes. Returns b"" when the peer ended its side or the door broke (see `failure`), None when it was woken.

        Every read of the socket lets the hub turn once, also when there is more: a peer that never stops talking holds neither
        the other greenlets nor their timeouts. One greenlet reads. Not bounded in time: whoever owns the door wakes or shuts it.
        """
        if self._tls is not None:
            return self._read_tls(self._tls)
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._receive()

    def _receive(self) -> bytes | None:
        while not self.failure:
            if not self._woken:
                self._wait()
            if self._woken:
                self._woken = False
                return b"" if self.failure else None
            try:
                data: bytes = self._raw.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self._break(f"broken: {error.strerror or error}")
                break
            return data
        return b""

    def _wait(self) -> None:
        reader: Waiter[None] = Waiter()
        self._reader = reader
        self._read_watcher.start(reader.switch, None)
        try:
            reader.get()
        finally:
            self._read_watcher.stop()
            self._reader = None

    # -- TLS ----------------------------------------------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Speak TLS from here on: the handshake, with certificate and name checked. Raises ssl.SSLError, or ConnectionError when
        the peer ends it. The caller bounds the time."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push_tls()
                if not self._pull_tls():
                    raise ConnectionError(self.failure or "the peer closed the connection during the TLS handshake") from None
                continue
            self._push_tls()
            break
        self._tls = tls

    def _push_tls(self) -> bool:
        data = self._outgoing.read()
        return self._send(data) if data else not self._buffer

    def _pull_tls(self) -> bytes | None:
        data = self._receive()
        if data:
            self._incoming.write(data)
        return data

    def _write_tls(self, tls: ssl.SSLObject, data: bytes) -> bool:
        try:
            tls.write(data)
        except ssl.SSLError as error:
            self._break(f"broken: {error.reason or error}")
            return False
        return self._push_tls()

    def _read_tls(self, tls: ssl.SSLObject) -> bytes | None:
        while not self.failure:
            try:
                data = tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                pulled = self._pull_tls()
                if not pulled:
                    return pulled
                continue
            except ssl.SSLError as error:
                self._break(f"broken: {error.reason or error}")
                break
            self._push_tls()  # key updates and alerts
            return data
        return b""

    # -- the end ------------------------------------------------------------------------------------------------------

    def _break(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            self._buffer.clear()
            self._write_watcher.stop()
            self.wake()

    def wake(self) -> None:
        """Make one read return None: the waiting one or, if none waits, the next."""
        self._woken = True
        reader = self._reader
        if reader is not None:
            self._loop.run_callback(reader.switch, None)

    def shut(self) -> None:
        """Close the socket for good, both ways. What the kernel has not taken is lost. Idempotent."""
        self._break("shut")
        if self._socket is None:
            return
        for watcher in (self._read_watcher, self._write_watcher):
            watcher.stop()
            watcher.close()
        try:
            self._raw.shutdown(SHUT_RDWR)
        except OSError:
            pass  # the peer was faster
        self._socket.close()
        self._socket = None
