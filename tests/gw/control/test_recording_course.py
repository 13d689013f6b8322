"""Every way from a wish, or a claim left behind, to Twilio or out again."""

from __future__ import annotations

import pytest

from gw.control import recording_course as course
from gw.control.recording_course import STORE_WAIT_LAST_S, Claim, Claimed, Leave, Reclaim
from gw.control.recording_rules import Create, List, Settle
from gw.control.rest_answers import RestError, Started

RETRY_S = 30.0


def test_a_wish_claims_and_creates() -> None:
    at = course.wished(100.0, RETRY_S)
    assert at.act == Claim()
    at = course.on_claim(at, "ours", 101.0, 0.5)
    assert at.act == Create()
    assert at.effort.began_s == 101.0
    assert course.on_answer(at, Started("RE1", "in-progress"), 101.5, 0.5).act == Settle("started", "RE1")


def test_a_row_of_somebody_else_is_left() -> None:
    assert course.on_claim(course.wished(100.0, RETRY_S), "theirs", 100.0, 0.5).act == Leave("duplicate")


def test_a_claim_found_lists_first() -> None:
    at = course.on_claim(course.wished(100.0, RETRY_S), "away", 100.0, 0.5)
    assert course.on_claim(at, "found", 101.0, 0.5).act == List()


def test_a_store_that_is_away_is_waited_for_and_then_left() -> None:
    at, waits, now_s = course.wished(100.0, RETRY_S), [], 100.0
    for _ in range(100):
        at = course.on_claim(at, "away", now_s, 0.5)
        if isinstance(at.act, Leave):
            break
        assert isinstance(at.act, Claim)
        assert at.act.unclear
        waits.append(at.act.after_s)
        now_s += at.act.after_s
    assert at.act == Leave("store_away")
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert max(waits) == STORE_WAIT_LAST_S
    assert RETRY_S - STORE_WAIT_LAST_S <= sum(waits) <= RETRY_S


@pytest.mark.parametrize(("answer", "act"), [("ours", List()), ("theirs", Leave("taken"))])
def test_a_claim_left_behind_is_taken_and_listed(answer: Claimed, act: course.Act) -> None:
    at = course.left_behind(100.0, RETRY_S, "host/0", create=True)
    assert at.act == Reclaim("host/0")
    assert course.on_claim(at, answer, 101.0, 0.5).act == act


@pytest.mark.parametrize("create", [True, False])
def test_what_a_lost_host_left_is_not_created(create: bool) -> None:
    at = course.on_claim(course.left_behind(100.0, RETRY_S, "host/0", create=create), "ours", 100.0, 0.5)
    assert isinstance(course.on_answer(at, [], 100.0, 0.5).act, Create if create else Settle)


def test_a_call_that_ends_meanwhile_is_not_tried_again() -> None:
    at = course.on_call_over(course.wished(100.0, RETRY_S))
    at = course.on_claim(at, "ours", 100.0, 0.5)
    assert course.when_due(at).act == Create(), "the first one is sent: Twilio knows"
    busy = RestError("busy", 20429, 429, "")
    again = course.on_answer(course.on_claim(course.wished(100.0, RETRY_S), "ours", 100.0, 0.5), busy, 100.0, 0.5)
    assert again.act == Create(0.5)
    over = course.when_due(course.on_call_over(again)).act
    assert isinstance(over, Settle)
    assert over.error_code == "call_ended"


@pytest.mark.parametrize(
    ("row", "ours"),
    [
        (None, False),
        ({"owner": "host/1", "state": "claimed"}, True),
        ({"owner": "host/2", "state": "claimed"}, False),
        ({"owner": "host/1", "state": "started"}, False),
        ({"owner": "host/1", "state": "failed"}, False),
    ],
)
def test_only_a_standing_claim_is_found(row: dict[str, str] | None, ours: bool) -> None:
    assert course.is_claim_of("host/1", row) is ours
