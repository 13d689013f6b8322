"""The garbage collector of a worker: kept away from what start made, never at length while calls live, and measured.

Nearly all a call leaves is freed by its reference counts at once. The collector is for the cycles, and what it costs is what it
looks at: some 40 ns an object. So the young and the middle collection, which look at new objects alone, stay as they are, small;
the full one looks at everything that lives, 200 calls' objects included, and does not come by itself below a bound. It is made
when no call is there to be delayed, once after each busy time. Never collects in the middle of a call's work.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter
from typing import Final

import gevent

from metrics.declare import GC_PAUSE
from metrics.page import Page

#: New container objects before a young collection, young before a middle one, middle before a full one.
THRESHOLDS: Final = (5_000, 4, 200)
_GENERATIONS: Final = ("young", "middle", "full")
IDLE_LOOK_S: Final = 1.0


def tune(page: Page) -> Callable[[], None]:
    """Put everything made so far out of the collector's sight, set its thresholds, and measure each pause. Once, after start.

    Returns what takes all of it back, and lets go of the page.
    """
    thresholds = gc.get_threshold()
    observe = [page.histogram(GC_PAUSE, generation=name).observe for name in _GENERATIONS]
    began_s = 0.0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began_s
        if phase == "start":
            began_s = perf_counter()
        else:
            observe[info["generation"]](perf_counter() - began_s)

    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(on_collection)

    def thaw() -> None:
        gc.callbacks.remove(on_collection)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    return thaw


def collect_when_idle(is_idle: Callable[[], bool]) -> None:
    """A greenlet's body: collect everything once after each busy time."""
    owed = False
    while True:
        gevent.sleep(IDLE_LOOK_S)
        if not is_idle():
            owed = True
        elif owed:
            owed = False
            gc.collect()
