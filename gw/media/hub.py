"""The hub is watched: how long each kind of greenlet held it, and how long the garbage collector stopped everything.

A greenlet does not isolate CPU: whoever runs for 5 ms delays every call of the process by 5 ms. A tracer of greenlet switches
measures the time from one switch to the next and files it under the kind of greenlet that ran; the loop itself, waiting or
calling back, is no greenlet's hold. Measured on a 2-core VM it costs 0.5 us a switch away from a greenlet and 0.17 us one away
from the loop: at some 400 switches a second and call, 1.4 % of a core for a hundred calls. In production it is on for a tenth of
each second, which costs a tenth of that. `always` keeps it on, and measures the thread's CPU time beside the time that passed: a
machine that did not run the thread is no greenlet's doing. That costs 0.4 us a switch more, and is for `verify`.

The collector is measured too, and kept away from what start made. Never prints, logs or takes a stack.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Any, Final, NamedTuple

import gevent
import greenlet

from metrics.declare import GC_PAUSE, HUB_HOLD, HUB_HOLD_CPU
from metrics.page import Page

DUTY_S: Final = 1.0
DUTY_ON_S: Final = 0.1
#: The budget of a slice: a longer hold is kept, with its kind.
LONG_HOLD_S: Final = 0.001
#: Long holds kept: the newest.
MAX_LONG_HOLDS: Final = 32
#: New container objects before a young collection, young before a middle one, middle before a full one. A collection costs some
#: 30 ns an object it looks at: 5000 new ones are 0.1 ms, the 25 000 of a middle one stay below 1 ms.
GC_THRESHOLDS: Final = (5_000, 4, 200)


class LongHold(NamedTuple):
    """A slice over the budget. `at_s` is of `time.perf_counter`."""

    at_s: float
    kind: str
    duration_s: float


class HoldMonitor:
    """The tracer of this thread's hub, and what it saw."""

    def __init__(self, page: Page, *, always: bool = False) -> None:
        self._always = always
        kinds = HUB_HOLD.labels["greenlet"]
        self._observe: dict[str, Callable[[float], None]] = {
            kind: page.histogram(HUB_HOLD, greenlet=kind).observe for kind in kinds
        }
        self._observe_cpu: dict[str, Callable[[float], None]] = {
            kind: page.histogram(HUB_HOLD_CPU, greenlet=kind).observe for kind in kinds
        }
        self._on_switch = self._cpu_tracer() if always else self._tracer()
        self._on = False
        self._duty: gevent.Greenlet[[], None] | None = None
        self.max_hold_s = -1.0
        self.long_holds: deque[LongHold] = deque(maxlen=MAX_LONG_HOLDS)

    def start(self) -> None:
        """Begin watching this thread's hub. Harmless when called twice."""
        if self._always:
            self._trace(True)
        elif self._duty is None:
            self._duty = gevent.spawn(self._run_duty)

    def stop(self) -> None:
        """Stop watching. Harmless when called twice."""
        if self._duty is not None:
            self._duty.kill()
            self._duty = None
        self._trace(False)

    def _run_duty(self) -> None:
        while True:
            gevent.sleep(DUTY_S - DUTY_ON_S)
            self._trace(True)
            gevent.sleep(DUTY_ON_S)
            self._trace(False)

    def _trace(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            if on:
                self._on_switch("start", (gevent.get_hub(), None))  # the first hold begins now
            greenlet.settrace(self._on_switch if on else None)

    def _tracer(self) -> Callable[[str, tuple[Any, Any]], None]:
        """The tracer as a function of its own: it runs at every switch, so it looks up as little as it can."""
        hub, clock, cells, other = gevent.get_hub(), perf_counter, self._observe, self._observe["other"]
        since_s = clock()

        def on_switch(event: str, sides: tuple[Any, Any]) -> None:
            nonlocal since_s
            now_s = clock()
            held_s = now_s - since_s
            since_s = now_s
            origin = sides[0]
            if origin is hub:
                return
            kind = getattr(origin, "kind", "other")
            cells.get(kind, other)(held_s)
            if held_s > self.max_hold_s:
                self.max_hold_s = held_s
            if held_s > LONG_HOLD_S:
                self.long_holds.append(LongHold(now_s, kind, held_s))

        return on_switch

    def _cpu_tracer(self) -> Callable[[str, tuple[Any, Any]], None]:
        """The same, and each hold's CPU time."""
        on_wall, hub, clock = self._tracer(), gevent.get_hub(), thread_time
        cells, other = self._observe_cpu, self._observe_cpu["other"]
        since_s = clock()

        def on_switch(event: str, sides: tuple[Any, Any]) -> None:
            nonlocal since_s
            now_s = clock()
            if sides[0] is not hub:
                cells.get(getattr(sides[0], "kind", "other"), other)(now_s - since_s)
            on_wall(event, sides)
            since_s = clock()

        return on_switch


def freeze_gc(page: Page) -> Callable[[], None]:
    """Put everything made so far out of the collector's sight, collect seldom, and measure each pause. Once, after start.

    Returns what takes all of it back, and lets go of the page.
    """
    thresholds = gc.get_threshold()
    observe = page.histogram(GC_PAUSE).observe
    began_s = 0.0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began_s
        if phase == "start":
            began_s = perf_counter()
        else:
            observe(perf_counter() - began_s)

    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.callbacks.append(on_collection)

    def thaw() -> None:
        gc.callbacks.remove(on_collection)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    return thaw
