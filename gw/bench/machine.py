"""CPU time, memory and affinity of processes and cores, from /proc.

CPU time has the kernel's tick of 10 ms, so a measured window is seconds long.
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
    """A process's memory in bytes; PSS counts a page shared by n processes as 1/n."""

    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class CoreTime:
    """Busy and stolen seconds of a core since boot."""

    busy_s: float
    steal_s: float


def cpu_s(pid: int) -> float:
    """Return user and system time of a process, all its threads. Raises ProcessLookupError once it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    return cpu_of(stat)


def cpu_of(stat: str) -> float:
    """Parse user and system time of a /proc/<pid>/stat line; the process name may hold anything.

    Source: proc(5), fields 14 and 15.
    """
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory(pid: int) -> Memory:
    """Return a process's memory. Raises ProcessLookupError once it has ended."""
    try:
        return memory_of(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None


def memory_of(rollup: str) -> Memory:
    found = {name: int(kib) * 1024 for name, kib in _PSS.findall(rollup)}
    return Memory(found.get("Rss", 0), found.get("Pss", 0))


def core_times() -> dict[int, CoreTime]:
    """Return every core's time, by core number."""
    return core_times_of(Path("/proc/stat").read_text())


def core_times_of(stat: str) -> dict[int, CoreTime]:
    """Parse /proc/stat: user nice system idle iowait irq softirq steal (proc(5))."""
    found = {}
    for line in stat.splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal = (int(value) / _TICKS_PER_S for value in values[:8])
            found[int(name[3:])] = CoreTime(user + nice + system + irq + softirq, steal)
    return found


def cores() -> list[int]:
    """Return the cores this process may use."""
    return sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Pinning:
    """Cores of the measured processes and of all others. `shared`: too few to keep them apart."""

    measured: tuple[int, ...]
    others: tuple[int, ...]
    shared: bool


def plan(available: Sequence[int], workers: int) -> Pinning:
    """Assign a core to each worker, the remaining cores to all other processes.

    Workers take the last cores: interrupts often use the first.
    """
    if len(available) > workers:
        return Pinning(tuple(available[-workers:]), tuple(available[:-workers]), False)
    return Pinning(tuple(available), tuple(available), True)


def pin(pid: int, allowed: Iterable[int]) -> None:
    """Restrict all threads of a process to some cores; later threads inherit that."""
    wanted = set(allowed)
    try:
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    for thread in threads:
        try:
            os.sched_setaffinity(thread, wanted)
        except ProcessLookupError:
            continue  # the thread ended meanwhile


def role_of(pid: int) -> str:
    """Return `serve`, `control` or `worker` from the command line; else the program's name."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None
    for word in words:
        if word in ("serve", "control", "worker"):
            return word
    return Path(words[0]).name
