"""Non-blocking transport over one socket: a write never waits, and every byte passes here.

TX, pongs, `clear` and close all call `write`. What the kernel does not take goes to a bounded buffer, which the hub flushes when
the socket is writable again; on overflow the transport is "stalled" and takes nothing more. So no greenlet blocks in a write, no
lock is needed, and messages never interleave. A reader waits for readiness, and `shut` wakes it, so no reader is left behind.

`write` never raises: a failed transport sets `failure`, which its reader sees. TLS is in front of this
(`gw.media.transport.tls`); the phone leg has none, and TX writes here.
"""

from __future__ import annotations

from _socket import socket as KernelSocket  # noqa: N812 - a class
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, final

import gevent
from gevent.hub import Waiter
from gevent.socket import SHUT_RDWR, SHUT_WR, socket

from gw.call.limits import READ_CHARGE_BYTES, Allowance
from gw.media.hub.clock import turn_loop
from gw.media.hub.hold_monitor import hold_as

if TYPE_CHECKING:
    from gevent._types import _IoWatcher, _Loop, _TimerWatcher

#: One read is one slice of the hub's time: twenty media messages, or a few AI deltas, are handled in a quarter of a millisecond.
READ_BYTES: Final = 8192


@final
class Transport:
    """Non-blocking transport over a connected socket, served by its thread's hub."""

    __slots__ = (
        "_allowance",
        "_buffer",
        "_detail",
        "_first",
        "_is_ending",
        "_limit_bytes",
        "_loop",
        "_pause",
        "_paused_until_s",
        "_raw",
        "_read_watcher",
        "_reader",
        "_socket",
        "_take",
        "_woken",
        "_write_watcher",
        "failure",
    )

    def __init__(self, sock: socket, limit_bytes: int, first: bytes = b"", reads: Allowance | None = None) -> None:
        """`limit_bytes`: bytes that may wait for a peer that does not read. `first`: bytes already read from the socket.

        `reads`: bytes the peer may send; beyond it, reads pause until it allows the last one. None: no limit.
        """
        self._socket: socket | None = sock
        # gevent's non-blocking socket; the send of gevent's own socket would wait
        self._raw: KernelSocket = sock._sock  # type: ignore[attr-defined]
        self._loop: _Loop = gevent.get_hub().loop
        self._read_watcher: _IoWatcher = self._loop.io(sock.fileno(), 1)
        self._write_watcher: _IoWatcher = self._loop.io(sock.fileno(), 2)
        self._reader: Waiter[bytes | None] | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._buffer = bytearray()
        self._first = first
        self._allowance = reads
        self._paused_until_s = 0.0  # no read before: the peer sent beyond its allowance
        self._pause: _TimerWatcher | None = None  # the wait for that time
        self._limit_bytes = limit_bytes
        self._is_ending = False  # nothing is written any more
        self._woken = False  # the next read returns immediately
        self.failure = ""  # "stalled", "broken" or "shut"; empty while the transport works
        self._detail: str | None = None

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> bool:
        """Send without waiting; never raises. True: the kernel has these bytes and all before them."""
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
        """Send waiting bytes; the hub calls this when the socket is writable."""
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
            if self._is_ending:
                self._end_side()

    def end_writing(self) -> None:
        """End this side of the connection once the kernel has all bytes. The peer reads them, and then the end."""
        self._is_ending = True
        if not self._buffer:
            self._end_side()

    def _end_side(self) -> None:
        with suppress(OSError):  # the peer closed first
            self._raw.shutdown(SHUT_WR)

    @property
    def why(self) -> str:
        """The failure with its detail, as text."""
        return f"{self.failure}: {self._detail}" if self._detail else self.failure

    @property
    def waiting_bytes(self) -> int:
        """Bytes the kernel has not taken."""
        return len(self._buffer)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, take: Callable[[bytes], bool] | None = None) -> bytes | None:
        """Wait for bytes. Not bounded in time: the owner wakes or shuts the transport. One greenlet reads.

        Every read lets the hub turn once, also when more bytes are there: a peer that sends without pause delays neither the
        other greenlets nor their timeouts. When a write finds the connection broken, bytes the kernel holds are still read first:
        they may contain the reason.

        `take`: called in the hub with the bytes that come while the reader waits; must not wait. True: the reader keeps waiting.
        False: the reader wakes and returns None.
        Returns: bytes; b"" when the peer ended its side or the transport failed (see `failure`); None when woken.
        Raises: what `take` raises.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        data = None
        if not self.failure and not self._woken:
            data = self._wait(take)
        if self.failure:
            return self._read_rest()
        if self._woken:
            self._woken = False
            return None
        return data

    def drop_rest(self) -> None:
        """Read and drop until the peer ends its side. Not bounded in time: the caller limits it."""
        self._first = b""
        while self.read() != b"":
            pass

    def _read_rest(self) -> bytes:
        """Read bytes that came before the connection broke; b"" when none are left."""
        if self.failure != "broken":
            return b""
        turn_loop()  # this read does not wait, so let the hub turn here
        try:
            data: bytes = self._raw.recv(READ_BYTES)
        except OSError:
            return b""
        return data

    def _wait(self, take: Callable[[bytes], bool] | None) -> bytes | None:
        reader: Waiter[bytes | None] = Waiter()
        self._reader = reader
        self._take = take
        self._listen()
        try:
            return reader.get()
        finally:
            self._read_watcher.stop()
            self._end_pause()
            self._reader = None
            self._take = None  # a method of the reader: the transport would refer to the call that refers to it

    def _listen(self) -> None:
        """Wait for the socket to be readable, after the pause that is due."""
        self._end_pause()
        if self._paused_until_s:
            pause_s = self._paused_until_s - monotonic()
            if pause_s > 0.0:
                self._read_watcher.stop()
                self._pause = self._loop.timer(pause_s)
                self._pause.start(self._listen)
                return
            self._paused_until_s = 0.0
        if self._take is None:
            self._read_watcher.start(self._on_readable)
        else:
            self._read_watcher.start(hold_as, "rx", self._on_readable)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.close()
            self._pause = None

    def _on_readable(self) -> None:
        """Read; the hub calls this when the socket is readable."""
        reader = self._reader
        if reader is None or self._woken:
            return  # the reader wakes already
        try:
            data: bytes = self._raw.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("broken", error.strerror)
            return
        if self._allowance is not None and data:
            now_s = monotonic()
            pause_s = self._allowance.charge(now_s, max(len(data), READ_CHARGE_BYTES))
            self._paused_until_s = now_s + pause_s if pause_s else 0.0
        if self._take is None or not data:
            reader.switch(data)
            return
        try:
            is_taken = self._take(data)
        except Exception as error:  # noqa: BLE001  the hub would only print it: the reader raises it
            reader.throw(error)
            return
        if not is_taken:
            if not self._woken:
                reader.switch(None)
        elif self._paused_until_s:
            self._listen()

    # -- the end ------------------------------------------------------------------------------------------------------

    def fail(self, failure: str, detail: str | None = None) -> None:
        """Set the failure, unless one is set, and wake the reader."""
        if not self.failure:
            self.failure = failure
            self._detail = detail
            self._buffer.clear()
            self._write_watcher.stop()
            self.wake()

    def wake(self) -> None:
        """Make the waiting read, or else the next one, return None."""
        self._woken = True
        reader = self._reader
        if reader is not None:
            self._loop.run_callback(reader.switch, None)

    def shut(self) -> None:
        """Close the socket permanently. Bytes the kernel has not taken are lost. Idempotent."""
        self.fail("shut")
        if self._socket is None:
            return
        self._end_pause()
        for watcher in (self._read_watcher, self._write_watcher):
            watcher.stop()
            watcher.close()
        with suppress(OSError):  # the peer closed first
            self._raw.shutdown(SHUT_RDWR)
        self._socket.close()
        self._socket = None
