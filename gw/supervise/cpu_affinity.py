"""Which core is whose: one for each media worker, what is left for the supervisor, control and the kernel.

A worker alone on a core is delayed by nobody but itself. From three cores on, one is kept free of workers: control renders pages
there, the kernel takes interrupts. With two both have a worker, control runs where there is time, at a lower priority, and with
one nothing is bound. Respects what the process was allowed (taskset, a container's cpuset). Linux only, as the gateway is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

log = logging.getLogger("gw.supervise.supervisor")

#: From here on one core is kept free of workers.
SPARE_FROM: Final = 3
#: How much nicer control is where it shares its cores with workers: about a third of a worker's weight. Source: sched(7).
CONTROL_NICE: Final = 5


class Plan(NamedTuple):
    """How many workers, and where they run."""

    workers: int
    cores: tuple[int, ...]  # of worker n: cores[n % len]; empty: wherever the kernel likes
    rest: tuple[int, ...]  # of the supervisor and control; empty: everywhere
    control_nice: int = 0

    def core_of(self, index: int) -> int:
        """The core of a worker; -1: any."""
        return self.cores[index % len(self.cores)] if self.cores else -1


def plan(workers: int | Literal["auto"], pin: bool, allowed: Sequence[int]) -> Plan:
    """`pin` counts with "auto" only: who says a number of workers has a reason the cores do not tell."""
    if workers != "auto":
        return Plan(workers, (), ())
    cores = tuple(sorted(allowed))
    if len(cores) < SPARE_FROM:
        bound = cores if pin and len(cores) > 1 else ()
        return Plan(max(1, len(cores)), bound, (), CONTROL_NICE if bound else 0)
    return Plan(len(cores) - 1, cores[1:] if pin else (), cores[:1] if pin else ())


def allowed_cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def bind(cores: Sequence[int]) -> None:
    """Run this process with all its threads, and those it starts, on these cores; none: wherever it may already. Where that
    cannot be it stays where it is, and the log says so."""
    if not cores:
        return
    try:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread.name), cores)
    except OSError as error:
        log.warning("no core can be bound: %s", error)
