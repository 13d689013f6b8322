"""CPU time, memory and descriptors of this process, in its metrics page.

Each process reports itself: its memory is protected, so that no other process of the gateway can read these figures. One update
takes some tens of microseconds.
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
        """Read the figures. Those that /proc does not give are unchanged."""
        cpu_s = time.process_time()
        self._cpu.add(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        try:
            self._resident.set(float(int(_STATM.read_bytes().split()[1]) * self._page_bytes))
            self._descriptors.set(float(_open_descriptors()))
        except (OSError, ValueError, IndexError):
            return


def _open_descriptors() -> int:
    """Return the number of open descriptors. Since Linux 6.2 the folder's size has it; before, it is listed."""
    return _DESCRIPTORS.stat().st_size or sum(1 for _ in _DESCRIPTORS.iterdir())
