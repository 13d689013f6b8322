"""Control of the garbage collector: no automatic collection, a full one while no call lives, pauses measured.

A collection costs 25 to 150 ns for each object it visits. An automatic young collection, after 2000 calls, visited everything
that 200 live calls had made since and took 4 ms. A call needs no collection: while it lives it makes no garbage, and an ended
call is freed by reference counts, since no part of it refers back to its owner. So the collector runs once after each busy time,
when no call can be delayed. Garbage that a library or an error leaves is collected while calls live only when the worker's peak
memory has grown by a bound; the bound keeps that pause shorter than a caller's lead.
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

#: Growth of the process's peak memory between two full collections while calls live.
GROWTH_BYTES: Final = 64 << 20
_GENERATIONS: Final = ("young", "middle", "full")
LOOK_S: Final = 1.0


def tune(page: Page) -> Callable[[], None]:
    """Freeze everything made so far, turn automatic collection off, and measure each pause. Call once, after start.

    Returns: a function that undoes all of it and releases the page.
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
    """Collect once after each busy time, and when the peak has grown by GROWTH_BYTES. A greenlet's body."""
    owed, peak_bytes = False, _peak_bytes()
    while True:
        gevent.sleep(LOOK_S)
        owed = owed or not is_idle()
        if (owed and is_idle()) or _peak_bytes() - peak_bytes > GROWTH_BYTES:
            gc.collect()
            owed, peak_bytes = False, _peak_bytes()


def _peak_bytes() -> int:
    """Peak memory of the process. Source: getrusage(2), ru_maxrss in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
