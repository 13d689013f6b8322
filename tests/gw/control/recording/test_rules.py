"""Every row of the table in gw.control.recording.rules, and what holds over any run of answers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.control.recording.rules import (
    BACKOFF_LAST_S,
    BECOMING_WAITS_S,
    Create,
    Effort,
    Later,
    List,
    Settle,
    begin,
    best_of,
    decide,
    held,
    resume,
    revise,
    settled,
    speaks_of,
)
from gw.control.twilio_api.answers import Kind, Listed, RestError, Started

KINDS: list[Kind] = ["not_in_progress", "gone", "unauthorized", "busy", "server", "timeout", "unreachable", "rejected"]


def error(kind: Kind, code: int = 0) -> RestError:
    return RestError(kind, code, 400, "as told")


def listed(sid: str = "RE1", status: str = "in-progress", source: str = "StartCallRecordingAPI", **fields: int) -> Listed:
    values = {"channels": 2, "duration_s": -1, "error_code": 0, **fields}
    return Listed(sid=sid, status=status, source=source, **values)


def after(asked: str, **fields: object) -> Effort:
    return Effort(began_s=100.0, retry_s=30.0, asked=asked, **fields)  # type: ignore[arg-type]


def test_a_new_claim_creates_and_a_found_one_lists() -> None:
    assert begin(1.0, 30.0)[1] == Create()
    assert resume(1.0, 30.0)[1] == List()


def test_started_settles() -> None:
    assert decide(after("create"), Started("RE1", "in-progress"), 100.0, 0.5)[1] == Settle("started", "RE1")


def test_becoming_in_progress_is_tried_within_two_seconds_and_then_fails() -> None:
    effort, waits = after("create"), []
    for _ in BECOMING_WAITS_S:
        effort, action = decide(effort, error("not_in_progress", 21220), 100.0, 0.5)
        assert isinstance(action, Create)
        waits.append(action.after_s)
    assert waits == [0.3, 0.6, 0.9]
    assert sum(waits) < 2.0
    assert decide(effort, error("not_in_progress", 21220), 100.0, 0.5)[1] == Settle(
        "failed", error_code="21220", error_text="as told"
    )


def test_not_in_progress_after_the_call_is_final() -> None:
    action = decide(after("create", call_over=True), error("not_in_progress", 21220), 100.0, 0.5)[1]
    assert isinstance(action, Settle)
    assert action.state == "failed"


@pytest.mark.parametrize("kind", ["busy", "unreachable"])
def test_a_clear_failure_creates_again(kind: Kind) -> None:
    effort, action = decide(after("create"), error(kind), 100.0, 0.5)
    assert action == Create(0.5)
    assert decide(effort, error(kind), 100.5, 0.5)[1] == Create(1.0)


@pytest.mark.parametrize("kind", ["server", "timeout"])
def test_an_unclear_failure_lists_before_it_creates(kind: Kind) -> None:
    effort, action = decide(after("create"), error(kind), 100.0, 0.5)
    assert action == List(0.5)
    assert decide(effort, [], 101.0, 0.5)[1] == Create()
    assert decide(effort, [listed()], 101.0, 0.5)[1] == Settle("started", "RE1")


@pytest.mark.parametrize("kind", ["gone", "unauthorized", "rejected"])
@pytest.mark.parametrize("asked", ["create", "list"])
def test_a_refusal_is_final(kind: Kind, asked: str) -> None:
    action = decide(after(asked), error(kind, 20404), 100.0, 0.5)[1]
    assert action == Settle("failed", error_code="20404", error_text="as told")


@pytest.mark.parametrize("kind", ["busy", "server", "timeout", "unreachable"])
def test_a_list_that_fails_is_listed_again(kind: Kind) -> None:
    assert decide(after("list"), error(kind), 100.0, 0.5)[1] == List(0.5)


def test_the_backoff_is_spread_bounded_and_ends() -> None:
    assert decide(after("create"), error("busy"), 100.0, 0.0)[1] == Create(0.25)
    assert decide(after("create", backoffs=20), error("busy"), 100.0, 0.5)[1] == Create(BACKOFF_LAST_S)
    action = decide(after("create", backoffs=20), error("busy", 20429), 129.0, 0.5)[1]
    assert action == Later("20429", "as told")
    assert decide(held(after("create", backoffs=20), 20.0), error("busy"), 129.0, 0.5)[1] == Create(BACKOFF_LAST_S)


def test_a_call_that_is_over_is_looked_for_but_not_recorded() -> None:
    over = after("create", call_over=True)
    busy = decide(over, error("busy"), 100.0, 0.5)[1]
    assert isinstance(busy, Settle)
    effort, action = decide(over, error("timeout"), 100.0, 0.5)
    assert action == List(0.5)
    nothing = decide(effort, [], 101.0, 0.5)[1]
    assert isinstance(nothing, Settle)
    assert nothing.error_code == "call_ended"


def test_the_first_create_is_sent_even_for_a_call_that_ended_meanwhile() -> None:
    assert revise(after("create", call_over=True), Create()) == Create()
    late = revise(after("create", call_over=True, backoffs=1), Create(0.5))
    assert isinstance(late, Settle)
    assert late.error_code == "call_ended"
    assert revise(after("list", call_over=True, backoffs=1), List()) == List()
    assert revise(after("create", backoffs=1), Create(1.0)) == Create(1.0)


def test_the_recording_that_is_ours() -> None:
    other, absent, live = listed("RE2", source="DialVerb"), listed("RE3", "absent"), listed("RE4")
    assert best_of([other, absent, live]) == live
    assert best_of([other, absent]) == absent
    assert best_of([other]) is None
    assert best_of([other, live], sid="RE2") == other
    assert best_of([live], sid="RE9") is None


@pytest.mark.parametrize(
    ("settle", "sid", "speaks"),
    [
        (Settle("started", "RE1"), "", True),
        (Settle("failed", error_code="timeout"), "", True),
        (Settle("completed", "RE1"), "RE1", True),
        (Settle("failed", "RE1", error_code="gone"), "RE1", True),
        (Settle("started", "RE2"), "RE1", False),
        (Settle("failed", error_code="timeout"), "RE1", False),
    ],
)
def test_only_what_speaks_of_the_rows_recording_is_written(settle: Settle, sid: str, speaks: bool) -> None:
    assert speaks_of(settle, sid) is speaks


@pytest.mark.parametrize(
    ("entry", "settle"),
    [
        (listed("RE1", "processing"), Settle("started", "RE1")),
        (listed("RE1", "completed", duration_s=7), Settle("completed", "RE1", 7)),
        (listed("RE1", "absent", error_code=13421), Settle("absent", "RE1", error_code="13421")),
        (listed("RE1", "absent"), Settle("absent", "RE1", error_code="absent")),
    ],
)
def test_a_listed_recording_settles_as_it_stands(entry: Listed, settle: Settle) -> None:
    assert settled(entry) == settle


@given(
    answers=st.lists(st.one_of(st.sampled_from(KINDS), st.just("nothing listed"), st.just("call over")), max_size=60),
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=60, max_size=60),
)
def test_no_create_ever_follows_an_unclear_answer_without_a_list(answers: list[str], chances: list[float]) -> None:
    now_s, unclear = 100.0, False
    effort, action = begin(now_s, 30.0)
    for answer, chance in zip(answers, chances, strict=False):
        if isinstance(action, Settle | Later):
            break
        if answer == "call over":
            effort = msgspec.structs.replace(effort, call_over=True)
            continue
        now_s += action.after_s
        assert now_s - 100.0 <= 30.0 + sum(BECOMING_WAITS_S)
        if isinstance(action, Create):
            assert not unclear
        if answer == "nothing listed":
            if isinstance(action, List):
                unclear = False
                effort, action = decide(effort, [], now_s, chance)
            continue
        unclear = unclear or (isinstance(action, Create) and answer in ("server", "timeout"))
        effort, action = decide(effort, error(answer), now_s, chance)  # type: ignore[arg-type]
