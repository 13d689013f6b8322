"""Who lives: locks on open files that the kernel drops with their owner.

Open file description locks (fcntl(2), Linux): closing another descriptor of the same file keeps them, which POSIX locks do not,
and a reader can ask about one without taking it, which flock(2) cannot.
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
    """Lock the open file for writing until its last descriptor closes. False when another open file holds it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except BlockingIOError:
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """Whether another open file holds the lock. Asking through the holder's own descriptor gives False."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
