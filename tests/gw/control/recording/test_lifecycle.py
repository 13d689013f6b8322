"""Every way from a wish, or a claim left behind, to Twilio or out again."""

from __future__ import annotations

import pytest

from gw.control.recording import lifecycle as course
from gw.control.recording.lifecycle import Claim, Claimed, ClaimHere, Leave, Reclaim
from gw.control.recording.rules import Create, List, Settle
from gw.control.twilio_api.answers import RestError, Started

RETRY_S = 30.0


def test_a_wish_claims_and_creates() -> None:
    at = course.wished(100.0, RETRY_S)
    assert at.act == Claim()
    at = course.on_claim(at, "ours", 101.0)
    assert at.act == Create()
    assert at.effort.began_s == 101.0
    assert course.on_answer(at, Started("RE1", "in-progress"), 101.5, 0.5).act == Settle("started", "RE1")


def test_a_row_of_somebody_else_is_left() -> None:
    assert course.on_claim(course.wished(100.0, RETRY_S), "theirs", 100.0).act == Leave("duplicate")


@pytest.mark.parametrize(("lists", "answer"), [(False, "found"), (True, "ours"), (True, "found")])
def test_what_may_have_been_asked_before_lists_first(lists: bool, answer: Claimed) -> None:
    assert course.on_claim(course.wished(100.0, RETRY_S, lists=lists), answer, 101.0).act == List()


def test_without_the_store_the_claim_is_kept_here_and_listed() -> None:
    at = course.on_claim(course.wished(100.0, RETRY_S), "away", 100.0)
    assert at.act == ClaimHere()
    assert course.on_claim(at, "away", 101.0).act == Leave("store_away")
    at = course.on_claim(at, "ours", 101.0)
    assert (at.act, at.here) == (List(), True)
    at = course.on_answer(at, [], 101.5, 0.5)
    assert course.when_due(at, owned=True).act == Create()
    assert course.when_due(at, owned=False).act == Leave("taken"), "it may be alive at another host"
    assert course.when_due(course.on_taken(at), owned=True).act == Leave("taken")


def test_a_wait_in_which_nobody_was_asked_does_not_count() -> None:
    at = course.on_claim(course.wished(100.0, RETRY_S), "ours", 100.0)
    assert course.on_held(at, 50.0).effort.began_s == 150.0


@pytest.mark.parametrize(("answer", "act"), [("ours", List()), ("theirs", Leave("taken"))])
def test_a_claim_left_behind_is_taken_and_listed(answer: Claimed, act: course.Act) -> None:
    at = course.left_behind(100.0, RETRY_S, "host/0", create=True)
    assert at.act == Reclaim("host/0")
    assert course.on_claim(at, answer, 101.0).act == act


@pytest.mark.parametrize("create", [True, False])
def test_what_a_lost_host_left_is_not_created(create: bool) -> None:
    at = course.on_claim(course.left_behind(100.0, RETRY_S, "host/0", create=create), "ours", 100.0)
    assert isinstance(course.on_answer(at, [], 100.0, 0.5).act, Create if create else Settle)


def test_a_call_that_ends_meanwhile_is_not_tried_again() -> None:
    at = course.on_call_over(course.wished(100.0, RETRY_S))
    at = course.on_claim(at, "ours", 100.0)
    assert course.when_due(at, owned=True).act == Create(), "the first one is sent: Twilio knows"
    busy = RestError("busy", 20429, 429, "")
    again = course.on_answer(course.on_claim(course.wished(100.0, RETRY_S), "ours", 100.0), busy, 100.0, 0.5)
    assert again.act == Create(0.5)
    over = course.when_due(course.on_call_over(again), owned=True).act
    assert isinstance(over, Settle)
    assert over.error_code == "call_ended"
