"""gw.control.jobs.lifecycle: every sequence of decisions follows the table, and a settled job stays settled."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import MAX_BODY_CHARS, OPEN, TRANSITIONS, Again, Ended, Job, Rewritten

CALL: Final = "CA1"


def job(body: str = "{}", *, deadline_at: float = 100.0) -> Job:
    return lifecycle.want("j", "tool", CALL, body, deadline_at=deadline_at, now=10.0)


def word(settled: Job) -> str:
    """Return the error of a settled job, which its outcome repeats."""
    found = json.loads(settled.result)["error"]
    assert found == settled.outcome
    return str(found)


#: Decisions of the production code on a job at a time.
DECISIONS: Final[dict[str, Callable[[Job, float], Job]]] = {
    "full": lifecycle.on_full,
    "refuse": lambda one, now: lifecycle.refuse(one, "refused", "No.", now),
    "due": lifecycle.on_due,
    "done": lambda one, now: lifecycle.on_outcome(one, Ended("done", "ok", "text"), now),
    "failed": lambda one, now: lifecycle.on_outcome(one, Ended("failed", "busy", "{}"), now),
    "unclear": lambda one, now: lifecycle.on_outcome(one, Ended("unclear", "unknown_outcome", "{}"), now),
    "again": lambda one, now: lifecycle.on_outcome(one, Again(2.0), now),
    "unsent": lambda one, now: lifecycle.on_unsent(one),
    "found": lambda one, now: lifecycle.on_found(one, now, idempotent=False, renewed_s=0.0),
    "found idempotent": lambda one, now: lifecycle.on_found(one, now, idempotent=True, renewed_s=5.0),
}


def test_a_job_waits_from_its_acceptance() -> None:
    assert job() == Job("j", "tool", CALL, "wanted", 0, 10.0, 100.0, "{}", "", "", 10.0)


def test_a_body_at_the_limit_is_run_and_a_longer_one_is_not() -> None:
    assert job("x" * MAX_BODY_CHARS).state == "wanted"
    refused = job("x" * (MAX_BODY_CHARS + 1))
    assert (refused.state, refused.body, word(refused)) == ("failed", "", "invalid_arguments")


def test_a_job_is_claimed_until_its_deadline_and_expires_after_it() -> None:
    assert lifecycle.on_due(job(), 100.0).state == "claimed"
    late = lifecycle.on_due(job(), 100.1)
    assert (late.state, late.attempts, word(late)) == ("expired", 0, "timeout")


def test_one_too_many_is_busy() -> None:
    assert word(lifecycle.on_full(job(), 11.0)) == "busy"


def test_an_attempt_that_asks_for_another_waits() -> None:
    again = lifecycle.on_outcome(lifecycle.on_due(job(), 11.0), Again(2.0), 12.0)
    assert (again.state, again.attempts, again.next_at, again.body) == ("wanted", 1, 14.0, "{}")


def test_a_result_takes_the_place_of_the_body_but_for_tools() -> None:
    ended = Ended("done", "ok", "half \ud800")
    done = lifecycle.on_outcome(lifecycle.on_due(job(), 11.0), ended, 12.0)
    assert (done.state, done.body, done.outcome, done.result, done.next_at) == ("done", "{}", "ok", "half ?", 12.0)
    other = lifecycle.want("j", "route", CALL, "{}", deadline_at=100.0, now=10.0)
    assert lifecycle.on_outcome(lifecycle.on_due(other, 11.0), ended, 12.0).body == ""


def test_an_interrupted_job_is_repeated_only_if_that_is_harmless() -> None:
    claimed = lifecycle.on_due(job(), 11.0)
    unknown = lifecycle.on_found(claimed, 98.0, idempotent=False, renewed_s=5.0)
    assert (unknown.state, word(unknown)) == ("unknown", "unknown_outcome")
    repeated = lifecycle.on_found(claimed, 98.0, idempotent=True, renewed_s=5.0)
    assert (repeated.state, repeated.attempts, repeated.next_at, repeated.deadline_at) == ("wanted", 1, 98.0, 103.0)
    assert lifecycle.on_due(repeated, 102.0).attempts == 2
    assert lifecycle.on_found(claimed, 20.0, idempotent=True, renewed_s=5.0).deadline_at == 100.0


def test_a_claim_without_a_request_does_not_count() -> None:
    assert lifecycle.on_unsent(lifecycle.on_due(job(), 11.0)) == job()


@given(st.lists(st.sampled_from(sorted(DECISIONS)), max_size=12), st.floats(0.0, 30.0))
def test_any_sequence_of_decisions_follows_the_table(names: list[str], step_s: float) -> None:
    now, one = 10.0, job(deadline_at=60.0)
    for name in names:
        now += step_s
        try:
            after = DECISIONS[name](one, now)
        except KeyError:
            continue  # a decision of another state
        assert after.state in TRANSITIONS[one.state].values()
        assert after.attempts in (one.attempts, one.attempts + (after.state == "claimed"), one.attempts - (name == "unsent"))
        assert (after.id, after.kind, after.call_sid, after.at) == (one.id, one.kind, one.call_sid, one.at)
        assert after.attempts >= 0
        if not after.is_open:
            assert (after.body, after.next_at) == (one.body, now)
            assert after.outcome
        one = after


@pytest.mark.parametrize("state", [state for state in TRANSITIONS if state not in OPEN])
@pytest.mark.parametrize("name", sorted(DECISIONS))
def test_a_settled_job_stays_settled(state: lifecycle.State, name: str) -> None:
    settled = Job("j", "tool", CALL, state, 1, 12.0, 0.0, "", "ok", "text", 10.0)
    with pytest.raises(KeyError):
        DECISIONS[name](settled, 13.0)


def test_a_body_can_be_completed_without_an_attempt() -> None:
    rewritten = lifecycle.on_outcome(lifecycle.on_due(job(), 11.0), Rewritten("new", 3.0), 12.0)
    assert (rewritten.state, rewritten.attempts, rewritten.body, rewritten.next_at) == ("wanted", 0, "new", 15.0)


def test_an_event_keeps_its_body_until_it_is_delivered() -> None:
    event = lifecycle.on_due(lifecycle.want("e", "event a", CALL, "body", deadline_at=100.0, now=10.0), 11.0)
    dead = lifecycle.on_outcome(event, Ended("failed", "gone", ""), 12.0)
    assert (dead.is_dead, dead.body) == (True, "body")
    again = lifecycle.on_retry(dead, 13.0, deadline_at=200.0)
    assert (again.state, again.attempts, again.body, again.next_at, again.outcome) == ("wanted", 0, "body", 13.0, "")
    assert lifecycle.on_outcome(event, Ended("done", "ok", ""), 12.0).body == ""


@pytest.mark.parametrize("completed", [False, True])
def test_an_undelivered_event_keeps_a_body_of_any_length(completed: bool) -> None:
    """A body is completed with the words of the call, beyond the limit on new jobs. Without it a retry would send nothing."""
    long = "x" * (MAX_BODY_CHARS + 1)
    event = lifecycle.want("e", "event a", CALL, "draft" if completed else long, deadline_at=100.0, now=10.0)
    if completed:
        event = lifecycle.on_outcome(lifecycle.on_due(event, 11.0), Rewritten(long), 12.0)
        event = lifecycle.on_due(event, 100.1)
    assert (event.is_dead, event.body) == (True, long)
    again = lifecycle.on_due(lifecycle.on_retry(event, 101.0, deadline_at=200.0), 102.0)
    assert (again.state, again.body) == ("claimed", long)
    assert lifecycle.on_outcome(again, Ended("done", "ok", ""), 103.0).body == ""


def test_a_claimed_job_is_never_claimed_again() -> None:
    with pytest.raises(KeyError):
        lifecycle.on_due(lifecycle.on_due(job(), 11.0), 11.0)
