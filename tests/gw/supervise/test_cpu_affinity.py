"""gw.supervise.cpu_affinity: the plan of cores, and binding."""

import os

import pytest

from gw.supervise.cpu_affinity import CONTROL_NICE, Plan, allowed_cores, bind, plan


@pytest.mark.parametrize(
    ("workers", "pin", "allowed", "planned"),
    [
        ("auto", True, [0], Plan(1, (), ())),
        ("auto", True, [0, 1], Plan(2, (0, 1), (), CONTROL_NICE)),
        ("auto", False, [0, 1], Plan(2, (), ())),
        ("auto", True, [2, 0, 1], Plan(2, (1, 2), (0,))),
        ("auto", True, [0, 1, 2, 3], Plan(3, (1, 2, 3), (0,))),
        ("auto", False, [0, 1, 2, 3], Plan(3, (), ())),
        (5, True, [0, 1], Plan(5, (), ())),
    ],
)
def test_plans(workers, pin: bool, allowed: list[int], planned: Plan):
    assert plan(workers, pin, allowed) == planned


def test_the_core_of_a_worker():
    assert [plan("auto", True, [4, 6, 8]).core_of(index) for index in range(3)] == [6, 8, 6]
    assert plan(2, True, [0, 1]).core_of(1) == -1


def test_binding_to_the_allowed_cores_changes_nothing():
    allowed = allowed_cores()
    bind(allowed)
    bind(())
    assert allowed_cores() == allowed == sorted(os.sched_getaffinity(0))
