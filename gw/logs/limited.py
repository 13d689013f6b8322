"""Log lines that a stranger can cause: one per reason and second, with the number of those left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from typing import Final

#: Interval of the lines of one reason.
INTERVAL_S: Final = 1.0


class LineLimit:
    """Decides which lines are written: `burst` of each key in an interval. Pure. Keys are from closed sets: each is kept."""

    def __init__(self, burst: int = 1, interval_s: float = INTERVAL_S) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._counts: dict[Hashable, tuple[float, int]] = {}  # the interval's end, and the lines in it

    def admit(self, key: Hashable, now_s: float) -> int | None:
        """Return the number of lines left out before this one; None: leave it out too."""
        end_s, count = self._counts.get(key, (now_s, 0))
        if now_s >= end_s:
            self._counts[key] = now_s + self._interval_s, 1
            return max(0, count - self._burst)
        self._counts[key] = end_s, count + 1
        return 0 if count < self._burst else None


class LimitedLog:
    """A logger whose warnings are limited by reason."""

    def __init__(self, log: logging.Logger, burst: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._limit = LineLimit(burst)

    def warning(self, reason: str, message: str, *args: object, **extra: object) -> None:
        """Log a line of one reason, with the number of its lines left out before."""
        left_out = self._limit.admit(reason, self._clock())
        if left_out is None:
            return
        if left_out:
            message, args = f"{message} (and %d lines like this before)", (*args, left_out)
        self._log.warning(message, *args, extra={"reason": reason, **extra})
