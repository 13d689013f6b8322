"""How tests, demo and bench wait for what a twin will see: looked at again and again, for a bounded time.

Decides nothing about what is waited for, and never raises where it does not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent

_LOOK_S: Final = 0.005


def wait_until(judge: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `judge` holds. Returns whether it came to hold."""
    deadline_s = time.monotonic() + timeout_s
    while not judge():
        if time.monotonic() >= deadline_s:
            return False
        gevent.sleep(_LOOK_S)
    return True
