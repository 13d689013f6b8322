"""gw.bench.machine: /proc as the kernel writes it, and the assignment of cores."""

from __future__ import annotations

import os

import pytest

from gw.bench import machine

TICKS = os.sysconf("SC_CLK_TCK")


def test_cpu_time_is_parsed_after_any_process_name() -> None:
    stat = f"42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 0 0 {TICKS} {2 * TICKS} 0 0 20 0 3 0 100 1 1 1"
    assert machine.cpu_of(stat) == 3.0


def test_memory_is_read_from_a_rollup() -> None:
    rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:   50000 kB\nPss:   30000 kB\nPss_Dirty:  10 kB\nShared_Clean: 7 kB\n"
    assert machine.memory_of(rollup) == machine.Memory(50000 * 1024, 30000 * 1024)


def test_a_cores_time_is_busy_and_stolen() -> None:
    one = " ".join(str(n * TICKS) for n in (1, 2, 3, 100, 50, 4, 5, 6, 0, 0))
    found = machine.core_times_of(f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu3 {one}\nintr 1 2 3\n")
    assert found == {3: machine.CoreTime(busy_s=15.0, steal_s=6.0)}


@pytest.mark.parametrize(
    ("available", "workers", "measured", "others", "shared"),
    [
        ([0, 1], 1, (1,), (0,), False),
        ([0, 1, 2, 3], 2, (2, 3), (0, 1), False),
        ([0, 1], 2, (0, 1), (0, 1), True),
        ([5], 1, (5,), (5,), True),
    ],
)
def test_workers_get_the_last_cores_alone_if_there_are_enough(
    available: list[int], workers: int, measured: tuple[int, ...], others: tuple[int, ...], shared: bool
) -> None:
    assert machine.plan(available, workers) == machine.Pinning(measured, others, shared)


def test_this_process_is_read_and_pinned() -> None:
    before = os.sched_getaffinity(0)
    assert machine.cpu_s(os.getpid()) >= 0.0
    assert 0 < machine.memory(os.getpid()).pss_bytes <= machine.memory(os.getpid()).rss_bytes
    assert set(machine.cores()) == before
    assert before <= set(machine.core_times())
    try:
        machine.pin(os.getpid(), [min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        machine.pin(os.getpid(), before)


def test_an_ended_process_raises() -> None:
    gone = 2**22 + 1
    for read in (machine.cpu_s, machine.memory, machine.role_of, lambda pid: machine.pin(pid, [0])):
        with pytest.raises(ProcessLookupError):
            read(gone)
