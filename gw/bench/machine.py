"""What the kernel says about processes and cores: CPU time, memory, who else was busy, and where a process may run.

Reads /proc and sets affinities; decides nothing. CPU time has the kernel's tick of 10 ms, so a window is seconds long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PSS: Final = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """A process's memory in bytes; PSS shares out what several processes map."""

    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class CoreTime:
    """A core's seconds since boot."""

    busy_s: float
    steal_s: float


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads. Raises ProcessLookupError when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    return cpu_of(stat)


def cpu_of(stat: str) -> float:
    """User and system time out of a /proc/<pid>/stat line; the name in it may hold anything (proc(5), fields 14 and 15)."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory(pid: int) -> Memory:
    """Raises ProcessLookupError when it is gone."""
    try:
        return memory_of(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None


def memory_of(rollup: str) -> Memory:
    found = {name: int(kib) * 1024 for name, kib in _PSS.findall(rollup)}
    return Memory(found.get("Rss", 0), found.get("Pss", 0))


def core_times() -> dict[int, CoreTime]:
    """Every core's time, by number."""
    return core_times_of(Path("/proc/stat").read_text())


def core_times_of(stat: str) -> dict[int, CoreTime]:
    """Out of /proc/stat: user nice system idle iowait irq softirq steal (proc(5))."""
    found = {}
    for line in stat.splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal = (int(value) / _TICKS_PER_S for value in values[:8])
            found[int(name[3:])] = CoreTime(user + nice + system + irq + softirq, steal)
    return found


def cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Pinning:
    """Which cores the measured processes have and which the others. `shared`: there were not enough to keep them apart."""

    measured: tuple[int, ...]
    others: tuple[int, ...]
    shared: bool


def plan(available: Sequence[int], workers: int) -> Pinning:
    """A core for each worker, counted from the last (the first often has the machine's interrupts), the rest for the others."""
    if len(available) > workers:
        return Pinning(tuple(available[-workers:]), tuple(available[:-workers]), False)
    return Pinning(tuple(available), tuple(available), True)


def pin(pid: int, allowed: Iterable[int]) -> None:
    """Keep a process, all its threads, on some cores; threads it starts later inherit it."""
    wanted = set(allowed)
    try:
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    for thread in threads:
        try:
            os.sched_setaffinity(thread, wanted)
        except ProcessLookupError:
            continue  # a thread that ended meanwhile


def role_of(pid: int) -> str:
    """`serve`, `control`, `worker` as the command line says; else the program's name."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    for word in words:
        if word in ("serve", "control", "worker"):
            return word
    return Path(words[0]).name
