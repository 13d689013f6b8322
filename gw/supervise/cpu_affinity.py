"""CPU affinity: one core for each media worker, the rest for the supervisor, control and the kernel.

A worker alone on a core has no neighbour that delays it. From three cores on, one core is kept free of workers, for control's
metrics pages and the kernel's interrupts. With two cores both have a worker and control runs at a lower priority; with one core
nothing is bound. Respects the cores this process was allowed (taskset, a container's cpuset). Linux only, as the gateway is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

log = logging.getLogger(__name__)

#: Number of cores from which one is kept free of workers.
SPARE_FROM: Final = 3
#: Added niceness of a control process that shares its cores with workers: a third of a worker's weight. Source: sched(7).
CONTROL_NICE: Final = 5


class Plan(NamedTuple):
    """The number of workers and the cores of each process."""

    workers: int
    cores: tuple[int, ...]  # worker n: cores[n % len]; empty: unbound
    rest: tuple[int, ...]  # for the supervisor and control; empty: unbound
    control_nice: int = 0

    def core_of(self, index: int) -> int:
        """Return the core of a worker; -1: any."""
        return self.cores[index % len(self.cores)] if self.cores else -1


def plan(workers: int | Literal["auto"], pin: bool, allowed: Sequence[int]) -> Plan:
    """Return the plan for these cores. `pin` applies with "auto" only: an explicit number of workers is left unbound."""
    if workers != "auto":
        return Plan(workers, (), ())
    cores = tuple(sorted(allowed))
    if len(cores) < SPARE_FROM:
        bound = cores if pin and len(cores) > 1 else ()
        return Plan(max(1, len(cores)), bound, (), CONTROL_NICE if bound else 0)
    return Plan(len(cores) - 1, cores[1:] if pin else (), cores[:1] if pin else ())


def allowed_cores() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def bind(cores: Sequence[int]) -> None:
    """Bind all threads of this process, and its future children, to `cores`; empty: change nothing.

    Where the kernel refuses, the process stays unbound and a warning is logged.
    """
    if not cores:
        return
    try:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # the thread has ended
                os.sched_setaffinity(int(thread.name), cores)
    except OSError as error:
        log.warning("cannot bind to cores: %s", error)
