"""gw.call.reconnect: number and timing of retries, and the replacement of a session."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.reconnect import Reconnect, Rollover, label, rollover
from gw.call.state import Reason
from metrics.declare import AI_RECONNECTS
from tests.examples import examples

AI_REASONS = [reason for reason in Reason if reason.startswith("ai_") and reason is not Reason.AI_HANGUP]


def test_the_first_attempt_comes_almost_immediately() -> None:
    assert Reconnect(8.0, lambda: 1.0).on_failure(Reason.AI_LOST, 100.0) == 0.2
    assert Reconnect(8.0, lambda: 0.0).on_failure(Reason.AI_LOST, 100.0) == 0.1


def test_pauses_double_up_to_two_seconds() -> None:
    reconnect = Reconnect(60.0, lambda: 1.0)
    assert [reconnect.on_failure(Reason.AI_LOST, 0.0) for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@pytest.mark.parametrize(("chance", "pause_s"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_a_rate_limited_provider_gets_a_second_of_pause_first(chance: float, pause_s: float) -> None:
    assert Reconnect(8.0, lambda: chance).on_failure(Reason.AI_RATE_LIMITED, 100.0) == pause_s


def test_ten_attempts_are_made() -> None:
    reconnect = Reconnect(1000.0, lambda: 0.0)
    assert [reconnect.on_failure(Reason.AI_LOST, 0.0) is None for _ in range(11)] == [False] * 10 + [True]
    assert reconnect.attempts == 10


def test_an_attempt_needs_more_window_than_its_pause() -> None:
    assert Reconnect(0.2, lambda: 1.0).on_failure(Reason.AI_LOST, 0.0) is None
    assert Reconnect(0.21, lambda: 1.0).on_failure(Reason.AI_LOST, 0.0) == 0.2


def test_a_permanent_failure_is_not_retried() -> None:
    assert Reconnect(8.0, random.random).on_failure(Reason.AI_REFUSED, 0.0, permanent=True) is None


def test_without_a_window_there_is_no_attempt() -> None:
    assert Reconnect(0.0, lambda: 0.0).on_failure(Reason.AI_LOST, 0.0) is None


def test_only_a_stable_leg_opens_a_new_window() -> None:
    reconnect = Reconnect(3.0, lambda: 0.0)
    assert reconnect.on_failure(Reason.AI_LOST, 0.0) is not None
    reconnect.on_ready(2.5)
    assert reconnect.left_s(1000.0) == 0.5
    assert reconnect.on_failure(Reason.AI_LOST, 2.5 + 10.0 - 0.1) is not None, "half a second is left"
    assert reconnect.attempts == 2
    assert reconnect.on_failure(Reason.AI_LOST, 2.5 + 10.0 + 0.5) is None
    reconnect.on_ready(20.0)
    assert reconnect.on_failure(Reason.AI_LOST, 20.0 + 10.0) is not None
    assert reconnect.attempts == 1


@settings(max_examples=examples(200), deadline=None)
@given(
    st.floats(0.1, 60.0),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(AI_REASONS), st.floats(0.0, 6.0), st.booleans(), st.floats(0.0, 9.9)), max_size=60),
)
def test_without_a_stable_leg_attempts_end_within_the_window(
    bound_s: float, seed: int, course: list[tuple[Reason, float, bool, float]]
) -> None:
    """Each step is an attempt of some duration that fails, or gives a leg for less than ten seconds."""
    reconnect = Reconnect(bound_s, random.Random(seed).random)
    now_s, without_s, attempts = 50.0, 0.0, 0
    for reason, took_s, stood, for_s in course:
        pause_s = reconnect.on_failure(reason, now_s)
        if pause_s is None:
            break
        attempts += 1
        assert pause_s >= 0
        took_s = min(took_s, max(0.0, reconnect.left_s(now_s) - pause_s))  # the bound on an attempt
        now_s += pause_s + took_s
        without_s += pause_s + took_s
        if stood:
            reconnect.on_ready(now_s)
            now_s += for_s
        assert without_s <= bound_s + 1e-6
    assert attempts == reconnect.attempts <= 10


@pytest.mark.parametrize("lifetime_s", [4.0, 60.0, 900.0, 3600.0, 90_000.0, 0.0])
def test_a_session_is_replaced_before_its_end(lifetime_s: float) -> None:
    plan = rollover(1000.0, lifetime_s)
    end_s = 1000.0 + (min(lifetime_s, 3600.0) or 3600.0)
    assert 1000.0 < plan.quiet_s < plan.forced_s < end_s


def test_replacement_times() -> None:
    assert rollover(0.0, 3600.0) == Rollover(55 * 60, 3570.0)
    assert rollover(7.0, 0.0) == rollover(7.0, 1e9) == rollover(7.0, 3600.0)
    assert rollover(1000.0, 100.0) == Rollover(1075.0, 1090.0)


@pytest.mark.parametrize("reason", AI_REASONS)
def test_every_reason_has_a_label(reason: Reason) -> None:
    assert label(reason) in AI_RECONNECTS.labels["reason"]


def test_labels() -> None:
    named = {reason.value: label(reason) for reason in AI_REASONS if label(reason) != "failed"}
    assert named == {
        "ai_closed": "closed",
        "ai_lost": "lost",
        "ai_unreachable": "lost",
        "ai_stalled": "stalled",
        "ai_leg_stalled": "stalled",
        "ai_timeout": "stalled",
        "ai_rate_limited": "rate_limited",
    }
    assert label(Reason.INTERNAL_ERROR) == "failed"


def test_the_rest_of_the_window_is_never_negative() -> None:
    reconnect = Reconnect(1.0, lambda: 0.0)
    assert reconnect.left_s(99.0) == 1.0
    reconnect.on_failure(Reason.AI_LOST, 0.0)
    assert reconnect.left_s(0.25) == 0.75
    reconnect.on_ready(5.0)
    assert reconnect.left_s(5.0) == 0.0
    assert reconnect.on_failure(Reason.AI_LOST, 6.0) is None
