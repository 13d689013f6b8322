"""How a leg may be read, at the seams of `gw.media.transport.plain`."""

from __future__ import annotations

from collections.abc import Callable

from gw.media.transport import plain, websocket
from tests.bench.variants.seam import swap


def bounded(size: int) -> Callable[[], None]:
    """At most `size` bytes a read."""
    return lambda: swap(plain, "READ_BYTES", size)


def recv_first() -> None:
    """Try to read again at once: one system call more a message, nearly always for nothing, as gevent's own socket does."""
    swap(plain.Transport, "_on_readable", _twice(getattr(plain.Transport, "_on_readable", None)))


def _twice(of_transport: Callable[[plain.Transport], None] | None) -> Callable[[plain.Transport], None]:
    def on_readable(self: plain.Transport) -> None:
        assert of_transport is not None
        of_transport(self)
        of_transport(self)

    return on_readable


def switched() -> None:
    """RX's greenlet is switched to for each read, instead of messages being handled in the hub's callback beside it."""
    swap(websocket.MessageReader, "read_beside", lambda self, _take: self.read())
