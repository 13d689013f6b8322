"""Variants of reading a leg, at the seams of `gw.media.transport.plain`."""

from __future__ import annotations

from collections.abc import Callable

from gw.media.transport import plain, websocket
from tests.bench.variants.seam import swap


def bounded(size: int) -> Callable[[], None]:
    """Limit a read to `size` bytes."""
    return lambda: swap(plain, "READ_BYTES", size)


def recv_first() -> None:
    """Try a second read immediately, as gevent's own socket does: one more system call a message, nearly always empty."""
    swap(plain.Transport, "_on_readable", _twice(getattr(plain.Transport, "_on_readable", None)))


def _twice(of_transport: Callable[[plain.Transport], None] | None) -> Callable[[plain.Transport], None]:
    def on_readable(self: plain.Transport) -> None:
        assert of_transport is not None
        of_transport(self)
        of_transport(self)

    return on_readable


def switched() -> None:
    """Switch to RX's greenlet for each read, instead of handling messages in the hub's callback."""
    swap(websocket.MessageReader, "read_beside", lambda self, _take: self.read())
