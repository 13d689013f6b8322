"""The garbage collector of a worker: kept away from what start made, never at length while calls live, and measured.

A collection costs what it looks at, some 25 to 150 ns an object, and none comes by itself: a young one, after 2000 calls, found
all that 200 live calls had made since, and took 4 ms. A call in progress makes nothing for it, and one that ended is freed by
reference counts alone: no part of it refers back to what holds it. So everything is looked at when no call is there to be
delayed, once after each busy time. What a library or an error leaves all the same is collected while calls live whenever the
worker's peak has grown by a bound, and that bound keeps it shorter than the cushion a caller has.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from time import perf_counter
from typing import Final

import gevent

from metrics.declare import GC_PAUSE
from metrics.page import Page

#: By so much the process's peak may grow between two full collections while calls live.
GROWTH_BYTES: Final = 64 << 20
_GENERATIONS: Final = ("young", "middle", "full")
LOOK_S: Final = 1.0


def tune(page: Page) -> Callable[[], None]:
    """Put everything made so far out of the collector's sight, let none come by itself, measure each pause. Once, after start.

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
    gc.set_threshold(0)
    gc.callbacks.append(on_collection)

    def thaw() -> None:
        gc.callbacks.remove(on_collection)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    return thaw


def collect_when_idle(is_idle: Callable[[], bool]) -> None:
    """A greenlet's body: collect everything once after each busy time, and whenever the peak has grown by GROWTH_BYTES."""
    owed, peak_bytes = False, _peak_bytes()
    while True:
        gevent.sleep(LOOK_S)
        owed = owed or not is_idle()
        if (owed and is_idle()) or _peak_bytes() - peak_bytes > GROWTH_BYTES:
            gc.collect()
            owed, peak_bytes = False, _peak_bytes()


def _peak_bytes() -> int:
    """The most memory the process ever had. Source: getrusage(2), ru_maxrss in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
