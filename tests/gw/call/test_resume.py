"""What Twilio is told when a stream is over, and how a call that comes back is recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.resume import MAX_RESUMES, Resumed, Step, next_step, parse_resumed
from gw.call.state import Reason

OTHERS = {
    Reason.FALLBACK_GOODBYE: Step.GOODBYE,
    Reason.SHUTDOWN: Step.GOODBYE,
    Reason.FALLBACK_TRANSFER: Step.TRANSFER,
}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.WORKER_LOST])
def test_a_call_that_ended_is_hung_up_told_or_handed_on(reason: Reason) -> None:
    assert next_step(reason.value, resumes=0, on_lost="resume") is OTHERS.get(reason, Step.HANG_UP)


def test_a_call_whose_worker_died_comes_back_a_few_times() -> None:
    steps = [next_step("worker_lost", resumes=n, on_lost="resume") for n in range(MAX_RESUMES + 2)]
    assert steps == [Step.RESUME] * MAX_RESUMES + [Step.GOODBYE] * 2
    assert next_step("worker_lost", resumes=0, on_lost="goodbye") is Step.GOODBYE


def test_a_first_stream_is_none_that_came_back() -> None:
    assert parse_resumed({"agent": "default"}, 1000.0) is None


@given(st.integers(1, MAX_RESUMES), st.floats(1_700_000_000.0, 1_700_080_000.0))
def test_it_travels_through_parameters(n: int, began_at: float) -> None:
    resumed = parse_resumed(Resumed(n, began_at).parameters(), 1_700_080_001.0)
    assert resumed is not None
    assert resumed.n == n
    assert abs(resumed.began_at - began_at) < 0.001


@given(st.text(max_size=8), st.text(max_size=20))
def test_whatever_comes_is_within_bounds(n: str, began: str) -> None:
    resumed = parse_resumed({"resume": n, "began": began}, 2_000_000.0)
    if resumed is not None:
        assert 1 <= resumed.n <= MAX_RESUMES
        assert 2_000_000.0 - 86_400 <= resumed.began_at <= 2_000_000.0
