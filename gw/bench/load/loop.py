"""Event loop of the load processes: epoll, a timer wheel for all calls, and orders from the bench.

All timed actions are in a wheel of 250 us ticks, advanced by one periodic timerfd: hundreds of calls cost one wake-up a tick.
Late load would make the gateway look worse than it is, so the lateness of every action is recorded and reported; timers are
served between every few socket events.

The process runs without gevent: a bench's figures must not depend on the library under test.
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
from time import monotonic, thread_time
from typing import Any, Final

TICK_S: Final = 0.00025
TICKS_PER_S: Final = round(1 / TICK_S)
#: CPU time of a step beyond which the machine lengthened it: its own work takes some 20 us.
LONG_STEP_S: Final = 0.001
#: Socket events handled before the timer is checked again: about 0.2 ms of work.
_EVENTS: Final = 16
_CLOCK_MONOTONIC: Final = 1
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
#: Histogram edges, equal to the gateway's `metrics.declare.BOUNDS`; repeated here, since load processes import no gateway code.
_MANTISSAS: Final = ("1", "1.3", "1.8", "2.4", "3.2", "4", "5", "7")
EDGES_S: Final = (*(float(f"{mantissa}e{decade}") for decade in range(-5, 0) for mantissa in _MANTISSAS), 1.0)

Action = Callable[[float], None]


class _Spec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


def _periodic_timer(first_s: float, interval_s: float) -> int:
    """Create a timerfd that fires at `first_s` (monotonic) and every `interval_s` from then on. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
    whole_s = int(first_s)
    spec = _Spec(int(interval_s), round(interval_s % 1 * 1e9), whole_s, int((first_s - whole_s) * 1e9))
    if fd < 0 or libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return fd


class Samples:
    """Durations within the measured window, in seconds, and their times."""

    def __init__(self) -> None:
        self.values_s = array("d")
        self.at_s = array("f")

    def clear(self) -> None:
        self.values_s, self.at_s = array("d"), array("f")

    def summary(self) -> dict[str, Any]:
        """Return `summary`, and p99 and maximum of each second."""
        return {**summary(self.values_s), "over_time": over_time(self.values_s, self.at_s)}


def summary(values_s: Sequence[float]) -> dict[str, Any]:
    """Return exact percentiles, maximum and count, and counts per bucket of EDGES_S.

    Shape: milliseconds, None without values; the last bucket is beyond all edges.
    """
    ordered = sorted(values_s)
    counts = [0] * (len(EDGES_S) + 1)
    for value in ordered:
        counts[bisect_left(EDGES_S, value)] += 1
    at = {name: percentile_ms(ordered, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))}
    return {**at, "count": len(ordered), "buckets": counts}


def percentile_ms(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of all do not exceed."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered), max(1, -int(-share * len(ordered) // 1))) - 1] * 1000, 4)


def over_time(values_s: Sequence[float], at_s: Sequence[float]) -> list[list[float]]:
    """Return [second, p99 ms, max ms] for each second with samples."""
    seconds: dict[int, list[float]] = {}
    for value, at in zip(values_s, at_s, strict=True):
        seconds.setdefault(int(at), []).append(value)
    rows = []
    for second in sorted(seconds):
        ordered = sorted(seconds[second])
        rows.append([second, percentile_ms(ordered, 0.99) or 0.0, percentile_ms(ordered, 1.0) or 0.0])
    return rows


class Steps:
    """CPU time of the loop's steps within the measured window: actions of the wheel and reads of sockets.

    A step takes some 20 us; what makes one long on this machine (a page fault, an interrupt, time the hypervisor took) makes
    holds of the gateway's hub long at the same rate.
    """

    def __init__(self) -> None:
        self.count = 0
        self.long = 0
        self.cpu_s = 0.0

    def add(self, cpu_s: float) -> None:
        self.count += 1
        self.cpu_s += cpu_s
        if cpu_s > LONG_STEP_S:
            self.long += 1

    def summary(self) -> dict[str, Any]:
        return {"count": self.count, "over_1ms": self.long, "cpu_s": round(self.cpu_s, 4)}


class Loop:
    """Epoll and timer wheel of one thread.

    `at` schedules an action, `watch` registers a socket, `run` serves both until `stop`.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._wheel: dict[int, list[Action]] = {}
        self._origin_s = monotonic() + 0.01
        self._timer = _periodic_timer(self._origin_s, TICK_S)
        self._poll.register(self._timer, select.EPOLLIN)
        self._running = True
        self.tick = 0  # the last one served
        self.measuring = False
        self.since_s = 0.0
        self.late = Samples()
        self.steps = Steps()

    def at(self, tick: int, action: Action) -> None:
        """Run `action(due_s)` at a tick; at the next one if that has passed."""
        self._wheel.setdefault(max(tick, self.tick + 1), []).append(action)

    def now_tick(self) -> int:
        """Return the current tick; actions up to it may still be waiting."""
        return int((monotonic() - self._origin_s) * TICKS_PER_S)

    def after(self, delay_s: float, action: Action) -> None:
        """Run an action after `delay_s`."""
        self.at(self.tick + max(1, round(delay_s * TICKS_PER_S)), action)

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        self._readers[fd] = on_readable
        self._poll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def begin(self) -> None:
        """Start the measured window."""
        self.late.clear()
        self.steps = Steps()
        self.since_s = monotonic()
        self.measuring = True

    def record(self, samples: Samples, value_s: float, now_s: float) -> None:
        """Add a duration to `samples`, within the measured window."""
        if self.measuring:
            samples.values_s.append(value_s)
            samples.at_s.append(now_s - self.since_s)

    def run(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()  # nothing here makes cycles; a pause would count as lateness
        while self._running:
            self.turn(-1)

    def stop(self) -> None:
        self._running = False

    def turn(self, timeout_s: float) -> None:
        """Wait for events, at most `timeout_s`, and serve them."""
        timer, readers = self._timer, self._readers
        for fd, _ in self._poll.poll(timeout_s, _EVENTS):
            if fd == timer:
                self._advance()
                continue
            reader = readers.get(fd)
            if reader is None:
                continue
            began_s = thread_time() if self.measuring else 0.0
            reader()
            if began_s and self.measuring:  # an order may have begun or ended the window
                self.steps.add(thread_time() - began_s)

    def _advance(self) -> None:
        """Serve all ticks that are due, the earliest first."""
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
                if not self.measuring:
                    action(due_s)
                    continue
                now_s = monotonic()
                self.record(self.late, now_s - due_s, now_s)
                began_s = thread_time()
                action(due_s)
                self.steps.add(thread_time() - began_s)


class OrderChannel:
    """Orders from stdin and answers to stdout, one JSON object a line.

    The end of stdin stops the loop.
    """

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
