"""CPU time, memory and descriptors of this process, in its metrics page.

Each process reports itself: its memory is protected, so that no other process of the gateway can read these figures. One update
takes 13 us with a thousand descriptors; to list them would take a worker 3 ms.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from metrics.declare import PROCESS_CPU, PROCESS_FDS, PROCESS_RSS
from metrics.page import Page

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")


class ProcessFigures:
    """The cells of one process. `update` is called about once a second."""

    __slots__ = ("_cpu", "_cpu_s", "_descriptors", "_page_bytes", "_resident")

    def __init__(self, page: Page, process: str) -> None:
        self._cpu = page.counter(PROCESS_CPU, process=process)
        self._resident = page.gauge(PROCESS_RSS, process=process)
        self._descriptors = page.gauge(PROCESS_FDS, process=process)
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._cpu_s = 0.0  # counted so far

    def update(self) -> None:
        """Read the figures. Those that /proc does not give are unchanged.

        Since Linux 6.2 the size of the descriptors' folder is their number. Before, the lowest free one estimates it:
        too low while others below the highest are free.
        """
        cpu_s = time.process_time()
        self._cpu.add(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        try:
            with _STATM.open("rb", buffering=0) as file:
                lowest_free = file.fileno()
                self._resident.set(float(int(file.read().split()[1]) * self._page_bytes))
            self._descriptors.set(float(_DESCRIPTORS.stat().st_size or lowest_free))
        except (OSError, ValueError, IndexError):
            return
