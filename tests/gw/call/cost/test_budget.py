"""gw.call.cost.budget: limits on cost by the call, the caller and the day."""

from __future__ import annotations

import pytest

from gw.call.cost.budget import Left, Level, Standing, level_of, standing
from gw.config import Budget

ALL = Budget(call_usd=1.0, day_usd=100.0, caller_day_usd=5.0)


@pytest.mark.parametrize(
    ("spent", "limit", "level"),
    [(0.0, 0.0, Level.FREE), (9.0, 0.0, Level.FREE), (0.79, 1.0, Level.FREE), (0.8, 1.0, Level.NEAR), (1.0, 1.0, Level.SPENT)],
)
def test_the_level_of_a_limit(spent: float, limit: float, level: Level) -> None:
    assert level_of(spent, limit) is level


@pytest.mark.parametrize(
    ("spent", "unreported", "left", "expected"),
    [
        (0.1, 0.1, Left(50.0, 4.0), Standing()),
        (0.85, 0.1, Left(50.0, 4.0), Standing(Level.NEAR, "call")),
        (0.5, 0.5, Left(50.0, 1.4), Standing(Level.NEAR, "caller")),
        (0.85, 0.5, Left(50.0, 0.4), Standing(Level.SPENT, "caller")),
        (0.85, 0.5, Left(0.4, 4.0), Standing(Level.SPENT, "day")),
        (0.1, 0.1, Left(15.0, 4.0), Standing()),  # a day nearly spent
        (1.2, 0.0, Left(), Standing(Level.SPENT, "call")),
    ],
)
def test_the_limit_that_a_call_is_closest_to(spent: float, unreported: float, left: Left, expected: Standing) -> None:
    assert standing(ALL, spent, unreported, left) == expected


def test_without_limits_nothing_is_near() -> None:
    assert standing(Budget(), 1e6, 1e6, Left()) == Standing()
