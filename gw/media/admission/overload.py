"""How a worker is doing: how late its frames were in the last seconds, and whether that is more than a moment.

Kept from the histogram that TX writes anyhow, second by second. One stall of the machine makes one or two seconds late, and no
caller is turned away for it; a worker that has more than its core can do is late second after second. Pure but for the clock's
absence: `end_second` is called once a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from gw.call.quality import LatencyCounts
from metrics.declare import BOUNDS

#: What is looked at.
SECONDS: Final = 5
#: A second is late when more than one frame in a hundred was sent so long after its deadline: half a frame's duration, well
#: before a caller behind a buffer of 60 ms hears it.
LATE_S: Final = 0.010
#: So many of the seconds must be late.
LATE_SECONDS: Final = 3
#: A second with fewer frames says nothing: two callers' speech.
MIN_FRAMES: Final = 100


class Load:
    """`buckets` are the counts of the histogram of lateness, which only grow."""

    def __init__(self, buckets: Callable[[], list[float]]) -> None:
        self._buckets = buckets
        self._before = buckets()
        self._seconds: deque[list[int]] = deque(maxlen=SECONDS)
        self.late = False
        self.lateness_p99_s = -1.0

    def end_second(self) -> None:
        """Count what was sent since the last call."""
        now = self._buckets()
        self._seconds.append([int(after - before) for after, before in zip(now, self._before, strict=True)])
        self._before = now
        self.lateness_p99_s = _p99_s([sum(counts) for counts in zip(*self._seconds, strict=True)])
        late = sum(1 for counts in self._seconds if sum(counts) >= MIN_FRAMES and _p99_s(counts) > LATE_S)
        self.late = late >= LATE_SECONDS


def _p99_s(counts: list[int]) -> float:
    summed = LatencyCounts(BOUNDS)
    summed.counts = counts
    summed.max_s = BOUNDS[-1]
    return summed.percentile_s(0.99)
