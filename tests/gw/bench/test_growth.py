"""gw.bench.growth: steps taken, steps counted, and whether a call's cost grows."""

from __future__ import annotations

from typing import Any

import pytest

from gw.bench.growth import grow, is_full, sentences, verdict
from gw.bench.result import Measured, Process
from gw.bench.run import Load
from tests.gw.bench.values import MB, measured


class Machine:
    """A machine on which a call costs `cost_ms`, plus `more_ms` for each other call.

    Memory: 80 KB a call, and 2 MB once.
    """

    def __init__(
        self, cost_ms: float = 4.0, more_ms: float = 0.0, *, floor: bool = True, disturbed: tuple[int, ...] = ()
    ) -> None:
        self.asked: list[int] = []
        self._cost_ms, self._more_ms = cost_ms, more_ms
        self._floor = floor
        self._disturbed = disturbed

    def measure(self, load: Load) -> tuple[Measured, Measured | None]:
        self.asked.append(load.calls)
        calls = load.calls
        cpu_s = min(10.0, (self._cost_ms + self._more_ms * calls) * calls / 1000 * 10)
        grown = 2 * MB + calls * 80 * 1024
        worker = Process("worker", cpu_s, grown, 30 * MB + grown, 30 * MB)
        other_cpu = 0.5 if len(self.asked) in self._disturbed else 0.0
        gateway = measured(calls=calls, alive=calls, processes=[worker], other_cpu=other_cpu)
        floor = Process("floor", calls * 0.0017 * 10, MB, 2 * MB + calls * 30 * 1024, 2 * MB)
        return gateway, measured(subject="floor", calls=calls, processes=[floor]) if self._floor else None


def grown(machine: Machine, *steps: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    grow(Load(0, 1.0), steps, machine.measure, made)
    return made


def test_all_steps_are_taken_until_the_core_is_full() -> None:
    machine = Machine(cost_ms=4.0)
    made = grown(machine, 10, 100, 250, 300)
    assert machine.asked == [10, 100, 250]
    assert [step["full"] for step in made] == [False, False, True]
    assert verdict(made)["full_at"] == 250


def test_a_disturbed_step_is_repeated_then_left_out() -> None:
    machine = Machine(cost_ms=1.0, disturbed=(2, 3, 4))
    made = grown(machine, 50, 100, 200)
    assert machine.asked == [50, 100, 100, 100, 200]
    assert verdict(made)["cpu_ms_per_call_s"]["to"] == [200, pytest.approx(1.0)]
    assert verdict(made)["cpu_ms_per_call_s"]["from"][0] == 50


def test_the_same_cost_at_any_number_does_not_grow() -> None:
    found = verdict(grown(Machine(cost_ms=1.0), 10, 50, 100, 200))
    assert found["cpu_ms_per_call_s"] == {"from": [50, 1.0], "to": [200, 1.0], "grows": False}
    assert found["floor_cpu_ms_per_call_s"]["grows"] is False
    assert found["kb_per_call"]["grows"] is False
    assert found["kb_of_one_more_call"] == pytest.approx(80.0)
    assert "CPU of a call, ms each second: 1 at 50 calls, 1 at 200: it does not grow with their number." in sentences(found)
    assert "One more call takes 80 KB." in sentences(found)


def test_a_cost_that_rises_again_after_it_fell_grows() -> None:
    found = verdict(grown(Machine(cost_ms=1.0, more_ms=0.002), 50, 100, 200))
    assert found["cpu_ms_per_call_s"]["grows"] is True
    assert "it grows" in sentences(found)[0]


def test_too_few_steps_give_no_verdict() -> None:
    found = verdict(grown(Machine(floor=False), 10, 50))
    assert found["cpu_ms_per_call_s"] is found["floor_cpu_ms_per_call_s"] is None
    assert sentences(found)[0].startswith("CPU of a call, ms each second: too few")
    assert verdict([])["kb_of_one_more_call"] is None
    assert len(sentences(verdict([]))) == 2


def test_a_saturated_load_ends_the_run() -> None:
    step = {"worker_share": 0.5, "void": ["the load processes used 99% of a core: they are saturated"]}
    assert is_full(step)
    assert not is_full({**step, "void": []})


def test_a_full_machine_is_reported() -> None:
    assert sentences(verdict(grown(Machine(), 50, 100, 250)))[-1] == "The machine is full at 250 calls."
