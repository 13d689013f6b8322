"""How often and how soon an AI leg is tried again, whatever fails whenever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.reconnect import (
    LIFETIME_S,
    MAX_ATTEMPTS,
    RATE_LIMIT_PAUSE_S,
    SPREAD_S,
    STABLE_S,
    Reconnect,
    label,
    rollover,
)
from gw.call.state import Reason
from metrics.declare import AI_RECONNECTS
from tests.examples import examples

AI_REASONS = [reason for reason in Reason if reason.startswith("ai_") and reason is not Reason.AI_HANGUP]


def test_the_first_attempt_comes_almost_at_once() -> None:
    pause_s = Reconnect(8.0, lambda: 1.0).on_failure(Reason.AI_LOST, 100.0)
    assert pause_s is not None
    assert 0.0 <= pause_s <= SPREAD_S


def test_who_is_asked_too_often_is_left_alone_first() -> None:
    pause_s = Reconnect(8.0, lambda: 0.5).on_failure(Reason.AI_RATE_LIMITED, 100.0)
    assert pause_s == RATE_LIMIT_PAUSE_S


def test_what_no_try_can_mend_is_not_tried() -> None:
    assert Reconnect(8.0, random.random).on_failure(Reason.AI_REFUSED, 0.0, permanent=True) is None


def test_no_window_no_attempt() -> None:
    assert Reconnect(0.0, lambda: 0.0).on_failure(Reason.AI_LOST, 0.0) is None


def test_a_leg_that_stood_long_starts_afresh_and_a_short_one_does_not() -> None:
    reconnect = Reconnect(3.0, lambda: 0.0)
    assert reconnect.on_failure(Reason.AI_LOST, 0.0) is not None
    reconnect.on_ready(2.5)
    assert reconnect.left_s(1000.0) == 0.5
    assert reconnect.on_failure(Reason.AI_LOST, 2.5 + STABLE_S - 0.1) is not None, "half a second is left"
    assert reconnect.attempts == 2
    assert reconnect.on_failure(Reason.AI_LOST, 2.5 + STABLE_S + 0.5) is None
    reconnect.on_ready(20.0)
    assert reconnect.on_failure(Reason.AI_LOST, 20.0 + STABLE_S) is not None
    assert reconnect.attempts == 1


@settings(max_examples=examples(200), deadline=None)
@given(
    st.floats(0.1, 60.0),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(AI_REASONS), st.floats(0.0, 6.0), st.booleans(), st.floats(0.0, 9.9)), max_size=60),
)
def test_without_a_leg_that_lasts_it_is_over_within_the_window(
    bound_s: float, seed: int, course: list[tuple[Reason, float, bool, float]]
) -> None:
    """Each step: an attempt takes so long, and fails or stands for less than STABLE_S."""
    reconnect = Reconnect(bound_s, random.Random(seed).random)
    now_s, without_s, attempts = 50.0, 0.0, 0
    for reason, took_s, stood, for_s in course:
        pause_s = reconnect.on_failure(reason, now_s)
        if pause_s is None:
            break
        attempts += 1
        assert pause_s >= 0
        took_s = min(took_s, max(0.0, reconnect.left_s(now_s) - pause_s))  # an attempt is given no more
        now_s += pause_s + took_s
        without_s += pause_s + took_s
        if stood:
            reconnect.on_ready(now_s)
            now_s += for_s
        assert without_s <= bound_s + 1e-6
    assert attempts == reconnect.attempts <= MAX_ATTEMPTS


@pytest.mark.parametrize("lifetime_s", [4.0, 60.0, 900.0, 3600.0, 90_000.0, 0.0])
def test_a_session_is_replaced_before_its_end(lifetime_s: float) -> None:
    plan = rollover(1000.0, lifetime_s)
    end_s = 1000.0 + (min(lifetime_s, LIFETIME_S) or LIFETIME_S)
    assert 1000.0 < plan.quiet_s < plan.forced_s < end_s


def test_an_hours_session_is_replaced_from_minute_55_on() -> None:
    assert rollover(0.0, 3600.0).quiet_s == 55 * 60


@pytest.mark.parametrize("reason", AI_REASONS)
def test_every_reason_has_a_label(reason: Reason) -> None:
    assert label(reason) in AI_RECONNECTS.labels["reason"]
