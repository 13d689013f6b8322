"""Jitter buffer of a bench's caller: lateness, underruns and losses from frame numbers and arrival times. Pure."""

from __future__ import annotations

import math
from typing import Final

from gw.bench.load.wire import PTIME_S

#: Depth of the buffer: later frames are heard as a gap.
BUFFER_S: Final = 0.060
#: First frames of a talkspurt, the lead's burst among them; they set its clock.
_SETTLE_FRAMES: Final = 25


class JitterBuffer:
    """Arrival statistics of one caller.

    The earliest frame of a talkspurt sets its clock; each later frame has a lateness against it. A frame later than the buffer
    is an underrun, and moves the clock by the gap.
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
        """Start a new talkspurt; numbers may jump."""
        self._fresh = True

    def push_next(self, frames: float, now_s: float) -> float | None:
        """Take audio without a number: the next `frames` frames. Returns its first sample's lateness, as `push`."""
        late_s = self.push(self._next, now_s)
        self._next += frames - 1
        self._settle = max(0, self._settle - round(frames) + 1)
        return late_s

    def push(self, number: float, now_s: float) -> float | None:
        """Take one frame. Returns its lateness in seconds, None while the talkspurt has no clock."""
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
