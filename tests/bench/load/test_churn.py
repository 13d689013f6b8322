"""tests.bench.load.churn: short calls come evenly; calls missed on a busy machine are skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from gw.bench.load.callers import Telephones
from gw.bench.load.loop import TICK_S, TICKS_PER_S, Loop
from gw.bench.load.wire import WireError
from tests.bench.load.churn import Churn

EVERY = TICKS_PER_S // 10


class Wheel:
    """A loop's clock, advanced by the test."""

    def __init__(self) -> None:
        self.now = self.tick = 100
        self.planned: list[tuple[int, Callable[[float], None]]] = []

    def now_tick(self) -> int:
        return self.now

    def at(self, tick: int, action: Callable[[float], None]) -> None:
        self.planned.append((tick, action))

    def run(self, count: int) -> list[int]:
        """Run that many planned actions; return the tick of each."""
        came = []
        for _ in range(count):
            ((tick, action),) = self.planned
            self.planned.clear()
            self.now = max(self.now, tick)
            self.tick = tick
            came.append(self.now)
            action(tick * TICK_S)
        return came


class Slow:
    """Telephones whose calls are never answered: an attempt takes `ticks` of the next time."""

    def __init__(self, wheel: Wheel, *ticks: int) -> None:
        self.callers: list[object] = []
        self._wheel = wheel
        self._ticks = list(ticks)

    def place(self, number: int, path: str) -> object:
        self._wheel.now += self._ticks.pop(0)
        raise WireError("nobody answers")


def churn(*ticks: int) -> tuple[Wheel, Churn]:
    wheel = Wheel()
    made = Churn(cast(Loop, wheel), cast(Telephones, Slow(wheel, *ticks)))
    made.churn({"path": "/", "per_s": 10, "seconds": 3})
    return wheel, made


def test_calls_come_evenly_however_long_placing_takes() -> None:
    wheel, made = churn(0, 100, 0, 399, 0)
    assert wheel.run(5) == [100 + n * EVERY for n in (1, 2, 3, 4, 5)]
    assert made.placed({}) == {"placed": 0, "refused": 5, "why": "nobody answers"}


def test_missed_calls_are_skipped_except_the_late_one() -> None:
    wheel, _ = churn(7 * EVERY, 0, 0)
    first = 100 + EVERY
    assert wheel.run(3) == [first, first + 7 * EVERY + 1, first + 8 * EVERY + 1]
