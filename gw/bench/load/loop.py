"""What both load generators of the bench run on: one epoll, one clock of ticks for all calls, one orders for orders.

Decides when an action runs and how late it was. All timed actions sit in a wheel of 250 us ticks, advanced by one periodic
timerfd; so hundreds of calls cost one wake-up a tick and not one timer each. A load generator that is late would make the
gateway look worse than it is: the lateness of every action is kept and reported. Between a few events the clock comes first.

Runs in a process of its own, without gevent: the figures of a bench must not depend on the library under test. Never
interprets what comes over a socket.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

TICK_S: Final = 0.00025
TICKS_PER_S: Final = round(1 / TICK_S)
#: Events taken before the clock is looked at again: about 0.2 ms of work.
_EVENTS: Final = 16
_CLOCK_MONOTONIC: Final = 1
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
#: The histogram edges of the gateway's own metrics (`metrics.declare.BOUNDS`), written anew: twins import nothing of it.
_MANTISSAS: Final = ("1", "1.3", "1.8", "2.4", "3.2", "4.2", "5.6", "7.5")
EDGES_S: Final = (*(float(f"{mantissa}e{decade}") for decade in range(-5, 0) for mantissa in _MANTISSAS), 1.0)

Action = Callable[[float], None]


class _Spec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


def _periodic_timer(first_s: float, interval_s: float) -> int:
    """A timerfd that fires at `first_s` (monotonic) and every `interval_s` from then on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
    whole_s = int(first_s)
    spec = _Spec(int(interval_s), round(interval_s % 1 * 1e9), whole_s, int((first_s - whole_s) * 1e9))
    if fd < 0 or libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd


class Samples:
    """Durations of the measured window, in seconds, and when each was taken."""

    def __init__(self) -> None:
        self.values_s = array("d")
        self.at_s = array("f")

    def clear(self) -> None:
        self.values_s, self.at_s = array("d"), array("f")

    def summary(self) -> dict[str, Any]:
        """Percentiles and maximum in ms, the count, the histogram on EDGES_S, and per second of the window p99 and maximum."""
        return {**summary(self.values_s), "over_time": over_time(self.values_s, self.at_s)}


def summary(values_s: Sequence[float]) -> dict[str, Any]:
    """Exact percentiles in ms, None where there is nothing; counts per bucket of EDGES_S, the last one beyond all."""
    ordered = sorted(values_s)
    counts = [0] * (len(EDGES_S) + 1)
    for value in ordered:
        counts[bisect_left(EDGES_S, value)] += 1
    at = {name: percentile_ms(ordered, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))}
    return {**at, "count": len(ordered), "buckets": counts}


def percentile_ms(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered), max(1, -int(-share * len(ordered) // 1))) - 1] * 1000, 4)


def over_time(values_s: Sequence[float], at_s: Sequence[float]) -> list[list[float]]:
    """[second, p99 ms, max ms] for each second that has samples."""
    seconds: dict[int, list[float]] = {}
    for value, at in zip(values_s, at_s, strict=True):
        seconds.setdefault(int(at), []).append(value)
    rows = []
    for second in sorted(seconds):
        ordered = sorted(seconds[second])
        rows.append([second, percentile_ms(ordered, 0.99) or 0.0, percentile_ms(ordered, 1.0) or 0.0])
    return rows


class Loop:
    """One thread's epoll and wheel. `at` plans an action, `watch` reads a socket, `run` goes on until `stop`."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._wheel: dict[int, list[Action]] = {}
        self._origin_s = monotonic() + 0.01
        self._timer = _periodic_timer(self._origin_s, TICK_S)
        self._poll.register(self._timer, select.EPOLLIN)
        self._running = True
        self.tick = 0  # the last one done
        self.measuring = False
        self.since_s = 0.0
        self.late = Samples()

    def at(self, tick: int, action: Action) -> None:
        """Run `action(due_s)` at a tick; one that is past comes next."""
        self._wheel.setdefault(max(tick, self.tick + 1), []).append(action)

    def now_tick(self) -> int:
        """The tick of this moment; those up to it may not all be done."""
        return int((monotonic() - self._origin_s) * TICKS_PER_S)

    def after(self, delay_s: float, action: Action) -> None:
        """Run an action that much later."""
        self.at(self.tick + max(1, round(delay_s * TICKS_PER_S)), action)

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        self._readers[fd] = on_readable
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def begin(self) -> None:
        """The measured window begins."""
        self.late.clear()
        self.since_s = monotonic()
        self.measuring = True

    def run(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()  # nothing here makes cycles; a pause would be our lateness
        while self._running:
            self.turn(-1)

    def stop(self) -> None:
        self._running = False

    def turn(self, timeout_s: float) -> None:
        """Wait for something, at most `timeout_s`, and do it."""
        timer, readers = self._timer, self._readers
        for fd, _ in self._poll.poll(timeout_s, _EVENTS):
            if fd == timer:
                self._advance()
                continue
            reader = readers.get(fd)
            if reader is not None:
                reader()

    def _advance(self) -> None:
        """Do all ticks that are due, the ones that were missed first."""
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            return
        now_tick = self.now_tick()
        while self.tick < now_tick:
            self.tick += 1
            actions = self._wheel.pop(self.tick, None)
            if actions is None:
                continue
            due_s = self._origin_s + self.tick * TICK_S
            for action in actions:
                if self.measuring:
                    now_s = monotonic()
                    self.late.values_s.append(now_s - due_s)
                    self.late.at_s.append(now_s - self.since_s)
                action(due_s)


class OrderChannel:
    """Orders from stdin, one JSON object a line; answers on stdout alike. Whoever gave the orders is gone when stdin ends."""

    def __init__(self, loop: Loop, orders: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
        self._loop = loop
        self._orders = orders
        self._rest = b""
        loop.watch(sys.stdin.fileno(), self._on_readable)

    def send(self, answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def _on_readable(self) -> None:
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            self._loop.stop()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            self.send(self._orders[order["do"]](order))
