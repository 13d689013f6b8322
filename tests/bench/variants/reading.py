"""How a leg may be read, at the seams of `gw.media.door`."""

from __future__ import annotations

from collections.abc import Callable

from gw.media import door
from tests.bench.variants.seam import NotHereError, swap


def bounded(size: int) -> Callable[[], None]:
    """At most `size` bytes a read."""
    return lambda: swap(door, "READ_BYTES", size)


def recv_first() -> None:
    """Try to read, and wait only when there is nothing: one system call more a message, unless the peer is ahead."""

    def receive(self: door.Door) -> bytes | None:
        while not self.failure:
            if self._woken:
                self._woken = False
                return None
            try:
                return bytes(self._raw.recv(door.READ_BYTES))
            except BlockingIOError:
                self._wait()
            except OSError as error:
                self.fail("broken", error.strerror)
        return b""

    if not hasattr(door.Door, "_wait"):
        raise NotHereError("a door does not wait by itself any more")
    swap(door.Door, "_receive", receive)
