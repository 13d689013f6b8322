"""How a leg may be read, at the seams of `gw.media.door`."""

from __future__ import annotations

from collections.abc import Callable

from gw.media import door, websocket
from tests.bench.variants.seam import swap


def bounded(size: int) -> Callable[[], None]:
    """At most `size` bytes a read."""
    return lambda: swap(door, "READ_BYTES", size)


def recv_first() -> None:
    """Try to read again at once: one system call more a message, nearly always for nothing, as gevent's own socket does."""
    swap(door.Door, "_on_readable", _twice(getattr(door.Door, "_on_readable", None)))


def _twice(of_door: Callable[[door.Door], None] | None) -> Callable[[door.Door], None]:
    def on_readable(self: door.Door) -> None:
        assert of_door is not None
        of_door(self)
        of_door(self)

    return on_readable


def switched() -> None:
    """RX's greenlet is switched to for each read, instead of messages being handled in the hub's callback beside it."""
    swap(websocket.MessageReader, "read_beside", lambda self, _take: self.read())
