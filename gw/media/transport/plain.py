"""The one transport to a socket: a write never waits, and everything that is written passes here.

TX, pongs, `clear` and close all call `write`. What the kernel does not take goes to a bounded buffer that the hub flushes when
the socket is writable again; when that runs over, the transport is `stalled` and takes nothing more. So no greenlet can be stuck in a
write, no lock is needed, and messages never interleave. Reading waits for readiness first and is woken by `shut`, so no reader is
left behind.

Never raises from `write`: a broken transport says so in `failure`, and its reader learns it. Knows no TLS (`gw.media.transport.tls` puts
that in front): the phone leg has none, and TX writes here.
"""

from __future__ import annotations

from _socket import socket as KernelSocket  # noqa: N812 - a class
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import gevent
from gevent.hub import Waiter
from gevent.socket import SHUT_RDWR, socket

from gw.media.hub.hold_monitor import hold_as

if TYPE_CHECKING:
    from gevent._types import _IoWatcher, _Loop

#: One read is one slice of the hub's time: twenty media messages, or a few AI deltas, are handled in a quarter of a millisecond.
READ_BYTES: Final = 8192


@final
class Transport:
    """A connected socket behind one non-blocking transport. The hub of the creating greenlet's thread serves it."""

    __slots__ = (
        "_buffer",
        "_detail",
        "_first",
        "_limit_bytes",
        "_loop",
        "_raw",
        "_read_watcher",
        "_reader",
        "_socket",
        "_take",
        "_woken",
        "_write_watcher",
        "failure",
    )

    def __init__(self, sock: socket, limit_bytes: int, first: bytes = b"") -> None:
        """`limit_bytes`: how much may wait for a peer that does not read. `first`: bytes already read from the socket."""
        self._socket: socket | None = sock
        # gevent keeps the non-blocking socket there; its own send would wait
        self._raw: KernelSocket = sock._sock  # type: ignore[attr-defined]
        self._loop: _Loop = gevent.get_hub().loop
        self._read_watcher: _IoWatcher = self._loop.io(sock.fileno(), 1)
        self._write_watcher: _IoWatcher = self._loop.io(sock.fileno(), 2)
        self._reader: Waiter[bytes | None] | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._buffer = bytearray()
        self._first = first
        self._limit_bytes = limit_bytes
        self._woken = False  # the next read returns at once
        self.failure = ""  # the transport does not work any more: "stalled", "broken", "shut"; or nothing
        self._detail: str | None = None

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Hand bytes to the kernel, never wait, never raise. True: the kernel has them all, and all before them."""
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
            self.fail("broken", error.strerror)
            return False
        if sent == len(data):
            return True
        self._keep(data[sent:])
        return False

    def _keep(self, data: bytes) -> None:
        if len(self._buffer) + len(data) > self._limit_bytes:
            self.fail("stalled")
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
            self.fail("broken", error.strerror)
            return
        del self._buffer[:sent]
        if not self._buffer:
            self._write_watcher.stop()

    @property
    def why(self) -> str:
        """The failure in words."""
        return f"{self.failure}: {self._detail}" if self._detail else self.failure

    @property
    def waiting_bytes(self) -> int:
        """Bytes the kernel has not taken."""
        return len(self._buffer)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, take: Callable[[bytes], bool] | None = None) -> bytes | None:
        """Wait for bytes. Returns b"" when the peer ended its side or the transport broke (see `failure`), None when it was woken.
        What the kernel holds when a write finds the connection broken is read first: it may say why the peer went.

        Every read of the socket lets the hub turn once, also when there is more: a peer that never stops talking holds neither
        the other greenlets nor their timeouts. One greenlet reads. Not bounded in time: whoever owns the transport wakes or shuts it.

        `take` is RX's: it is called in the hub with what comes while the reader waits, and may not wait itself. True: the reader
        sleeps on. False: it is woken, and gets None, for the bytes are `take`'s. What it raises, this raises.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        data = None
        if not self.failure and not self._woken:
            data = self._wait(take)
        if self.failure:
            return self._left()
        if self._woken:
            self._woken = False
            return None
        return data

    def _left(self) -> bytes:
        """What came before the connection broke, b"" when that was all."""
        if self.failure != "broken":
            return b""
        gevent.sleep(0)  # nothing is waited for, so others go first
        try:
            data: bytes = self._raw.recv(READ_BYTES)
        except OSError:
            return b""
        return data

    def _wait(self, take: Callable[[bytes], bool] | None) -> bytes | None:
        reader: Waiter[bytes | None] = Waiter()
        self._reader = reader
        self._take = take
        if take is None:
            self._read_watcher.start(self._on_readable)
        else:
            self._read_watcher.start(hold_as, "rx", self._on_readable)
        try:
            return reader.get()
        finally:
            self._read_watcher.stop()
            self._reader = None
            self._take = None  # a reader's own method: the transport would hold the call that holds it

    def _on_readable(self) -> None:
        """There is something to read: the hub calls this between greenlets."""
        reader = self._reader
        if reader is None or self._woken:
            return  # on its way already
        try:
            data: bytes = self._raw.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("broken", error.strerror)
            return
        if self._take is None or not data:
            reader.switch(data)
            return
        try:
            is_taken = self._take(data)
        except Exception as error:  # noqa: BLE001  nobody hears it in the hub: the reader raises it
            reader.throw(error)
            return
        if not is_taken and not self._woken:
            reader.switch(None)

    # -- the end ------------------------------------------------------------------------------------------------------

    def fail(self, failure: str, detail: str | None = None) -> None:
        """The transport works no more, and its reader learns it. The first failure stands."""
        if not self.failure:
            self.failure = failure
            self._detail = detail
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
        self.fail("shut")
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
