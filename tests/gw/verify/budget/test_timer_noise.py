"""gw.verify.budget.timer_noise: lateness is never negative, a long sleep is one wake-up, a separate process measures."""

from __future__ import annotations

import os

from gw.verify.budget.timer_noise import PERIOD_S, measure, summary, wake_ups


def test_wake_ups_are_sorted_and_never_early() -> None:
    late_s = wake_ups(0.05)
    assert 1 <= len(late_s) <= 0.05 / PERIOD_S
    assert late_s == sorted(late_s)
    assert late_s[0] >= 0.0


def test_percentiles() -> None:
    assert summary([n / 1000 for n in range(1000)]) == {"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 999.0, "count": 1000.0}
    assert summary([]) == {}


def test_a_separate_process_measures_on_the_given_core() -> None:
    found = measure(0.1, max(os.sched_getaffinity(0)))
    assert found["count"] >= 1
    assert 0.0 <= found["p50"] <= found["max"]
