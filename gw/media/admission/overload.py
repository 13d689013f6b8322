"""Detects a worker that sends frames late for seconds, from TX's histogram of lateness.

One stall of the machine makes one or two seconds late, and no caller is refused for it. A worker with more calls than its core
can serve is late second after second. Pure: the owner calls `end_second` once a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from gw.call.quality import LatencyCounts
from metrics.declare import BOUNDS

#: Length of the window.
SECONDS: Final = 5
#: A second is late when over 1 % of its frames were sent this long after their deadline: half a frame's duration, well
#: before a caller behind a buffer of 60 ms hears it.
LATE_S: Final = 0.010
#: Seconds of the window that must be late.
LATE_SECONDS: Final = 3
#: A second with fewer frames, two callers' speech, counts as punctual.
MIN_FRAMES: Final = 100


class LatenessMonitor:
    """One worker's lateness. `buckets` returns the counts of the histogram, which only grow."""

    def __init__(self, buckets: Callable[[], list[float]]) -> None:
        self._buckets = buckets
        self._before = buckets()
        self._seconds: deque[list[int]] = deque(maxlen=SECONDS)
        self.late = False
        self.p99_s = -1.0

    def end_second(self) -> None:
        """Judge the frames sent since the last call."""
        now = self._buckets()
        self._seconds.append([int(after - before) for after, before in zip(now, self._before, strict=True)])
        self._before = now
        self.p99_s = _p99_s([sum(counts) for counts in zip(*self._seconds, strict=True)])
        late = sum(1 for counts in self._seconds if sum(counts) >= MIN_FRAMES and _p99_s(counts) > LATE_S)
        self.late = late >= LATE_SECONDS


def _p99_s(counts: list[int]) -> float:
    summed = LatencyCounts(BOUNDS)
    summed.counts = counts
    summed.max_s = BOUNDS[-1]
    return summed.percentile_s(0.99)
