"""gw.call.resume: the next step after a stream's end, and the parameters of a stream that resumes a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.resume import LEFT, RESUMABLE, TURNS_PER_STREAM, NextStep, Resumed, is_normal, next_step, parse_resumed
from gw.call.state import Reason

OTHERS = {
    Reason.FALLBACK_GOODBYE: NextStep.GOODBYE,
    Reason.SHUTDOWN: NextStep.GOODBYE,
    Reason.FALLBACK_TRANSFER: NextStep.TRANSFER,
}
NOW = 1_700_080_000.0
DAY_S = 24 * 60 * 60


def test_the_steps_travel_as_these_words() -> None:
    assert [step.value for step in NextStep] == ["hang_up", "goodbye", "transfer", "resume"]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in RESUMABLE])
def test_a_call_that_ended_is_hung_up_with_a_goodbye_or_transferred(reason: Reason) -> None:
    assert next_step(reason.value, resumes=0, on_lost="resume") is OTHERS.get(reason, NextStep.HANG_UP)
    owed = NextStep.TRANSFER if reason is Reason.FALLBACK_TRANSFER else NextStep.GOODBYE
    assert next_step(reason.value, resumes=0, on_lost="resume", speak=True) is owed


@pytest.mark.parametrize(
    "reason", ["worker_lost", "phone_lost", "phone_silent", "phone_leg_stalled", "internal_error", "no_stream"]
)
def test_a_call_whose_stream_broke_resumes_three_times(reason: str) -> None:
    steps = [next_step(reason, resumes=n, on_lost="resume") for n in range(5)]
    assert steps == [NextStep.RESUME] * 3 + [NextStep.GOODBYE] * 2
    assert next_step(reason, resumes=0, on_lost="goodbye") is NextStep.GOODBYE


def test_the_caller_of_a_stream_that_never_began_has_heard_nothing() -> None:
    assert [Resumed(1, NOW, after).was_heard for after in ("no_stream", "phone_lost", "")] == [False, True, True]


def test_only_a_failure_gets_an_apology() -> None:
    normal = {reason for reason in Reason if is_normal(reason)}
    ends = {"caller_hangup", "ai_hangup", "admin_hangup", "idle_limit", "duration_limit", "budget", "machine"}
    assert normal == ends | LEFT
    assert not is_normal("")


def test_a_first_stream_does_not_resume_a_call() -> None:
    assert parse_resumed({"agent": "default"}, NOW) is None


@given(st.integers(1, 3), st.floats(NOW - DAY_S + 1, NOW - 1), st.sampled_from(sorted(RESUMABLE)))
def test_parameters_round_trip(n: int, began_at: float, after: str) -> None:
    resumed = parse_resumed(Resumed(n, began_at, after).parameters(), NOW)
    assert resumed is not None
    assert (resumed.n, resumed.after) == (n, after)
    assert abs(resumed.began_at - began_at) < 0.001


@pytest.mark.parametrize(("left", "outcome"), [("ab" * 16, "no-answer"), ("cd" * 16, "sent")])
def test_a_return_round_trips(left: str, outcome: str) -> None:
    resumed = Resumed(7, NOW, "transferred", left, outcome)
    assert parse_resumed(resumed.parameters(), NOW) == resumed
    for wrong in ({"left": "AB" * 16}, {"left": "x"}, {"outcome": "lost"}):
        assert parse_resumed({**resumed.parameters(), **wrong}, NOW) == Resumed(7, NOW, "transferred")


@pytest.mark.parametrize("n", ["", "0", "41", "-1", "1.0", "100", "\u0661", "one"])
def test_another_number_does_not_resume_a_call(n: str) -> None:
    assert parse_resumed({"resume": n, "began": str(NOW)}, NOW) is None


@pytest.mark.parametrize("n", [1, 40])
def test_a_call_has_forty_streams_after_its_first(n: int) -> None:
    assert parse_resumed({"resume": str(n), "began": str(NOW)}, NOW) == Resumed(n, NOW)


@pytest.mark.parametrize("began_at", [NOW, NOW - DAY_S])
def test_a_call_is_at_most_a_day_old(began_at: float) -> None:
    assert parse_resumed({"resume": "1", "began": str(began_at)}, NOW) == Resumed(1, began_at)


@pytest.mark.parametrize("began", ["", "soon", "nan", "inf", str(NOW + 1), str(NOW - DAY_S - 1), "0", None])
def test_an_impossible_start_becomes_now(began: str | None) -> None:
    parameters = {"resume": "2"} if began is None else {"resume": "2", "began": began}
    assert parse_resumed(parameters, NOW) == Resumed(2, NOW)


@pytest.mark.parametrize("after", ["", "caller_hangup", "x" * 400])
def test_only_known_reasons_are_kept(after: str) -> None:
    assert parse_resumed({"resume": "1", "began": str(NOW), "after": after}, NOW) == Resumed(1, NOW)


@given(st.text(max_size=8), st.text(max_size=20))
def test_any_text_gives_values_within_bounds(n: str, began: str) -> None:
    resumed = parse_resumed({"resume": n, "began": began}, NOW)
    if resumed is not None:
        assert 1 <= resumed.n <= 3
        assert NOW - DAY_S <= resumed.began_at <= NOW


def test_the_turns_of_two_streams_have_different_numbers() -> None:
    assert TURNS_PER_STREAM == 100_000  # rows in the store keep the numbers
