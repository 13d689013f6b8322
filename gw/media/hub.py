"""The hub is watched: how long each kind of greenlet held it, and how long the garbage collector stopped everything.

A greenlet does not isolate CPU: whoever runs for 5 ms delays every call of the process by 5 ms. A tracer of greenlet switches
measures the time from one switch to the next and files it under the kind of greenlet that ran. In production it is on for a tenth
of each second, so its cost (about 0.7 us a switch) is a tenth of itself; `always` keeps it on.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple

import gevent
import greenlet

from metrics.declare import GC_PAUSE, HUB_HOLD
from metrics.page import Page

DUTY_S: Final = 1.0
DUTY_ON_S: Final = 0.1
#: The budget of a slice: a longer hold is kept, with its kind.
LONG_HOLD_S: Final = 0.001
#: Long holds kept: the newest.
MAX_LONG_HOLDS: Final = 32
#: Container objects made before a young collection: calls make few that live long, so fewer, still short, pauses.
GC_THRESHOLDS: Final = (10_000, 20, 100)


class LongHold(NamedTuple):
    """A slice over the budget. `at_s` is monotonic."""

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
        self._since_s = 0.0
        self._on = False
        self._duty: gevent.Greenlet[[], None] | None = None
        self.max_hold_s = -1.0
        self.long_holds: deque[LongHold] = deque(maxlen=MAX_LONG_HOLDS)

    def start(self) -> None:
        """Begin watching."""
        if self._always:
            self._trace(True)
        else:
            self._duty = gevent.spawn(self._run_duty)

    def stop(self) -> None:
        """Stop watching. Idempotent."""
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
            self._since_s = perf_counter()
            greenlet.settrace(self._on_switch if on else None)

    def _on_switch(self, event: str, sides: tuple[Any, Any]) -> None:
        now_s = perf_counter()
        held_s, self._since_s = now_s - self._since_s, now_s
        origin = sides[0]
        if isinstance(origin, gevent.hub.Hub):
            return  # the loop: waiting, or running callbacks
        observe = self._observe.get(getattr(origin, "kind", "other"))
        if observe is None:
            observe = self._observe["other"]
        observe(held_s)
        if held_s > self.max_hold_s:
            self.max_hold_s = held_s
        if held_s > LONG_HOLD_S:
            self.long_holds.append(LongHold(now_s, getattr(origin, "kind", "other"), held_s))


def freeze_gc(page: Page) -> None:
    """Put everything made so far out of the collector's sight, collect seldom, and measure each pause. Once, after start."""
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
