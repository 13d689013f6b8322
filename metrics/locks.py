"""File locks that mark a live process: the kernel releases them when it ends.

Open file description locks (fcntl(2), Linux). Unlike POSIX locks, they survive the close of another descriptor of the same
file. Unlike flock(2), a reader can query one without taking it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

#: `struct flock` of 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")
_WHOLE_FILE: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def try_lock(descriptor: int) -> bool:
    """Lock the open file for writing until its last descriptor closes. Returns False when another holder has the lock."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except BlockingIOError:
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """Return True if another open file holds the lock. The holder's own descriptor gives False."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
