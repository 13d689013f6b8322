"""Lock between the workers of a machine that never blocks a hub.

A worker that finds the lock taken retries after a pause in which its other greenlets run. The lock protects some microseconds of
memory access; it is held longer only when the machine does not run its holder. The kernel releases it when the holder dies. It is
a fcntl(2) lock on a range of a file: such a lock belongs to a process, and one greenlet of it holds the lock at a time, since
nothing inside switches.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import gevent

from gw.errors import GatewayError

PAUSE_S: Final = 0.001
#: Some 600 ms: a machine that is out of CPU may not run the holder for a tenth of a second, and the call would be lost.
TRIES: Final = 500


class SharedBusyError(GatewayError):
    """Another worker holds the lock for far longer than its work takes."""


@contextmanager
def locked(fd: int, start: int, length: int) -> Iterator[None]:
    """Hold a range of the file; nothing inside may switch. Without a file (-1) the worker is alone and takes no lock.

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
    """Lock the range, retrying in the hub. Raises SharedBusyError after TRIES."""
    for _ in range(TRIES):
        try:
            _lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, start, length)
            return
        except BlockingIOError:
            gevent.sleep(PAUSE_S)
    raise SharedBusyError(f"a lock of other workers was not free within {TRIES * PAUSE_S * 1000:.0f} ms")


def _lockf(fd: int, operation: int, start: int, length: int) -> None:
    """Only place where a worker requests a lock from the kernel, and never a waiting one."""
    fcntl.lockf(fd, operation, length, start)
