"""The machine's own timers: late is never negative, a long sleep is one wake-up, and a process of its own measures."""

from __future__ import annotations

import os

from gw.verify.budget.timer_noise import PERIOD_S, measure, summary, wake_ups


def test_wake_ups_are_in_order_and_never_early() -> None:
    late_s = wake_ups(0.05)
    assert 1 <= len(late_s) <= 0.05 / PERIOD_S
    assert late_s == sorted(late_s)
    assert late_s[0] >= 0.0


def test_percentiles_are_of_what_was_measured() -> None:
    assert summary([n / 1000 for n in range(1000)]) == {"p50": 500.0, "p99": 990.0, "p99.9": 999.0, "max": 999.0, "count": 1000.0}
    assert summary([]) == {}


def test_a_process_of_its_own_measures_on_the_core_it_is_given() -> None:
    found = measure(0.1, max(os.sched_getaffinity(0)))
    assert found["count"] >= 1
    assert 0.0 <= found["p50"] <= found["max"]
