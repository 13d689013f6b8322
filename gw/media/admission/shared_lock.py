"""A lock between the workers of a machine that never stops a hub: tried, and tried again after a pause that lets others run.

What it protects takes some microseconds of memory access; it is held longer only where the machine did not run its holder in
them. The kernel drops it with its holder, however that ends. Locks of fcntl(2), by range of a file: they belong to the process,
which has one greenlet in them at a time, since nothing in them switches.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import gevent

from gw.errors import GatewayError

PAUSE_S: Final = 0.001
#: Some 50 ms: a holder that stands still for longer is in trouble, and so is who waits for it.
TRIES: Final = 50


class SharedBusyError(GatewayError):
    """Another worker stands still inside its microseconds."""


@contextmanager
def locked(fd: int, start: int, length: int) -> Iterator[None]:
    """Hold a range of the file; nothing inside may switch. Without a file (-1) there is nobody else, and no lock.

    Raises: SharedBusyError after TRIES.
    """
    if fd < 0:
        yield
        return
    take(fd, start, length)
    try:
        yield
    finally:
        _lockf(fd, fcntl.LOCK_UN, start, length)


def take(fd: int, start: int, length: int) -> None:
    """Lock the range, waiting in pauses of the hub's. Raises SharedBusyError after TRIES."""
    for _ in range(TRIES):
        try:
            _lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, start, length)
            return
        except BlockingIOError:
            gevent.sleep(PAUSE_S)
    raise SharedBusyError(f"a lock of other workers was not free within {TRIES * PAUSE_S * 1000:.0f} ms")


def _lockf(fd: int, operation: int, start: int, length: int) -> None:
    """The only place a worker asks the kernel for a lock: never one that waits."""
    fcntl.lockf(fd, operation, length, start)
