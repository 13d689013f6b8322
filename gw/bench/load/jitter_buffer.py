"""What one caller of the bench hears: frame numbers against the clock, through a jitter buffer of 60 ms. Pure."""

from __future__ import annotations

import math
from typing import Final

from gw.bench.load.wire import PTIME_S

#: The jitter buffer at the far end: frames later than this are heard as a gap.
BUFFER_S: Final = 0.060
#: Frames of a talkspurt that set its clock; the lead's burst is among them.
_SETTLE_FRAMES: Final = 25


class JitterBuffer:
    """What one caller hears: frame numbers against the clock.

    The earliest frame of a talkspurt sets its clock; each later one has a lateness against it. One that is later than the
    jitter buffer is an underrun, and moves the clock by what was heard as a gap.
    """

    __slots__ = ("_base_s", "_fresh", "_next", "_settle", "disorder", "gap_s", "lost", "underruns")

    def __init__(self) -> None:
        self._next: float = 0
        self._fresh = True
        self._settle = 0
        self._base_s = math.inf
        self.underruns = 0
        self.gap_s = 0.0
        self.lost = 0
        self.disorder = 0

    def on_clear(self) -> None:
        """A new talkspurt follows; numbers may jump."""
        self._fresh = True

    def push_next(self, frames: float, now_s: float) -> float | None:
        """Audio that does not say which frame it is: the next, so many frames long. Lateness is that of its first sample."""
        late_s = self.push(self._next, now_s)
        self._next += frames - 1
        self._settle = max(0, self._settle - round(frames) + 1)
        return late_s

    def push(self, number: float, now_s: float) -> float | None:
        """One frame. Returns its lateness in seconds, None while a talkspurt's clock is not set."""
        if self._fresh:
            self._fresh, self._settle, self._base_s = False, _SETTLE_FRAMES, math.inf
        elif number > self._next:
            self.lost += int(number - self._next)
        elif number < self._next:
            self.disorder += 1
        self._next = number + 1
        offset_s = now_s - number * PTIME_S
        if self._settle:
            self._settle -= 1
            self._base_s = min(self._base_s, offset_s)
            return None
        late_s = offset_s - self._base_s
        if late_s <= 0.0:
            self._base_s = offset_s
            return 0.0
        if late_s > BUFFER_S:
            self.underruns += 1
            self.gap_s += late_s - BUFFER_S
            self._base_s += late_s - BUFFER_S
        return late_s

    def counts(self) -> tuple[int, float, int, int]:
        return self.underruns, self.gap_s, self.lost, self.disorder
