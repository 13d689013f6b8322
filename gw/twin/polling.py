"""Waiting for a condition by polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent

_LOOK_S: Final = 0.005


def wait_until(condition: Callable[[], bool], timeout_s: float, every_s: float = _LOOK_S) -> bool:
    """Wait until `condition` holds, at most `timeout_s`. Returns whether it held."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline_s:
            return False
        gevent.sleep(every_s)
    return True
