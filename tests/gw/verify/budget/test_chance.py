"""gw.verify.budget.chance: what chance explains grows with the rate of the code beside, and with nothing else."""

from __future__ import annotations

import random

import pytest

from gw.verify.budget.chance import DOUBT, Base, holds_by_chance


def test_without_a_long_step_nothing_is_explained() -> None:
    assert Base(6.0, 0).expected(6.0) == 0.0
    assert Base().expected(6.0) == 0.0
    assert holds_by_chance(0.0) == 0


def test_expectation_scales_with_cpu_time() -> None:
    assert (Base(2.0, 4) + Base(2.0, 0)).expected(8.0) == pytest.approx(8.0)


@pytest.mark.parametrize("expected", [0.5, 7.0, 60.0, 499.0, 501.0, 5000.0])
def test_a_random_count_exceeds_the_limit_about_as_often_as_said(expected: float) -> None:
    chance = random.Random(13)
    rounds = min(2000, int(200_000 / expected))
    limit = holds_by_chance(expected)
    beyond = sum(_events(chance, expected) > limit for _ in range(rounds))
    assert beyond <= rounds * DOUBT * 5
    assert limit < expected + 5 * expected**0.5 + 5, "a limit far above chance finds nothing"


def _events(chance: random.Random, expected: float) -> int:
    """Count the events of a unit of time, at independent intervals."""
    count, at = 0, chance.expovariate(expected)
    while at < 1.0:
        count += 1
        at += chance.expovariate(expected)
    return count
