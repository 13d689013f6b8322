"""gw.bench.ramp: growth of the load, its end, and the steps that count."""

from __future__ import annotations

from typing import Any

import pytest

from gw.bench.ramp import climb, held, step
from gw.bench.result import Measured
from gw.bench.run import Load
from tests.gw.bench.values import histogram, measured


class Machine:
    """Holds `limit` calls; in the runs listed in `disturbed` other programs use its core."""

    def __init__(self, limit: int, disturbed: tuple[int, ...] = (), other_cpu: float = 0.5) -> None:
        self.asked: list[int] = []
        self._limit = limit
        self._disturbed = disturbed
        self._foreign = other_cpu

    def measure(self, load: Load) -> tuple[Measured, Measured | None]:
        self.asked.append(load.calls)
        late = histogram(0.5 if load.calls <= self._limit else 60.0)
        other_cpu = self._foreign if len(self.asked) in self._disturbed else 0.0
        gateway = measured(calls=load.calls, alive=load.calls, lateness=late, other_cpu=other_cpu)
        return gateway, measured(subject="floor", lateness=histogram(0.5))


def climbed(machine: Machine, steps: list[int]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    climb(Load(0, 1.0), steps, machine.measure, made)
    return made


def test_the_climb_ends_at_a_step_that_fails_twice_then_tries_the_middle() -> None:
    machine = Machine(limit=170)
    made = climbed(machine, [50, 100, 200, 300])
    assert machine.asked == [50, 100, 200, 200, 150]
    assert [found["calls"] for found in made] == [50, 100, 150, 200]
    assert held(made) == 150


def test_the_climb_ends_at_the_last_step_if_all_hold() -> None:
    machine = Machine(limit=1000)
    assert held(climbed(machine, [10, 20])) == 20
    assert machine.asked == [10, 20]


def test_close_steps_are_not_refined() -> None:
    machine = Machine(limit=100)
    climbed(machine, [100, 110])
    assert machine.asked == [100, 110, 110]


def test_no_step_held_gives_zero() -> None:
    assert held(climbed(Machine(limit=5), [10, 20])) == 0


def test_one_disturbance_does_not_decide() -> None:
    machine = Machine(limit=100, disturbed=(1,))
    made = step(Load(50, 1.0), machine.measure)
    assert machine.asked == [50, 50]
    assert (made["void"], made["beyond"]) == ([], [])


def test_a_step_that_stays_void_neither_holds_nor_ends_the_climb() -> None:
    machine = Machine(limit=100, disturbed=(1, 2, 3, 4))
    made = climbed(machine, [50, 60])
    assert machine.asked == [50, 50, 50, 50, 60]
    assert made[0]["void"]
    assert held(made) == 60


def test_a_failure_while_others_used_the_core_does_not_count() -> None:
    machine = Machine(limit=10, disturbed=(1, 2, 3, 4), other_cpu=0.05)
    made = step(Load(50, 1.0), machine.measure)
    assert machine.asked == [50] * 4
    assert made["void"] == ["other processes used 5.0% of the measured core"]


def test_two_undisturbed_failures_among_disturbed_ones_are_enough() -> None:
    machine = Machine(limit=10, disturbed=(1, 3), other_cpu=0.05)
    made = step(Load(50, 1.0), machine.measure)
    assert machine.asked == [50] * 4
    assert (made["void"], made["beyond"]) == ([], ["lateness p99.9 is 60 ms, over 5.5 ms"])


def test_measured_steps_are_kept_when_a_later_one_raises() -> None:
    machine = Machine(limit=100)
    made: list[dict[str, Any]] = []

    def measure(load: Load) -> tuple[Measured, Measured | None]:
        if load.calls > 20:
            raise KeyboardInterrupt
        return machine.measure(load)

    with pytest.raises(KeyboardInterrupt):
        climb(Load(0, 1.0), [10, 20, 50], measure, made)
    assert held(made) == 20
