"""Every transition of a recording's lifecycle, and one rule for any answers: no create after an unclear answer."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.control.recording.lifecycle import (
    BACKOFF_LAST_S,
    BECOMING_WAITS_S,
    CALL_OVER,
    TRANSITIONS,
    Action,
    Claim,
    ClaimHere,
    ClaimResult,
    Create,
    Later,
    Leave,
    Lifecycle,
    List,
    Outcome,
    Reclaim,
    begin,
    best_of,
    outcome_of,
    resume_claim,
)
from gw.control.twilio_api.answers import Kind, Listed, RestError, Started

RETRY_S = 30.0
FAILED = "the recording failed at Twilio"
KINDS: tuple[Kind, ...] = get_args(Kind)


def error(kind: Kind, code: int = 0) -> RestError:
    return RestError(kind, code, 400, "no reason")


def listed(sid: str = "RE1", status: str = "in-progress", source: str = "StartCallRecordingAPI", **fields: int) -> Listed:
    values = {"channels": 2, "duration_s": -1, "error_code": 0, **fields}
    return Listed(sid=sid, status=status, source=source, **values)


def at(action: Action, **fields: object) -> Lifecycle:
    return Lifecycle(action, 100.0, RETRY_S, **fields)  # type: ignore[arg-type]


Answer = Started | list[Listed] | RestError


def after(lifecycle: Lifecycle, answer: Answer, now_s: float = 100.0, chance: float = 0.5, owned: bool = True) -> Action:
    return lifecycle.on_answer(answer, now_s, chance, owned=owned).action


# -- claims ---------------------------------------------------------------------------------------------------------------


def test_a_wish_claims_and_creates() -> None:
    wished = begin(100.0, RETRY_S)
    assert wished.action == Claim()
    claimed = wished.on_claim("ours", 101.0)
    assert (claimed.action, claimed.began_s) == (Create(), 101.0)
    assert after(claimed, Started("RE1", "in-progress")) == Outcome("started", "RE1")


def test_another_claimants_row_is_left() -> None:
    assert begin(100.0, RETRY_S).on_claim("theirs", 100.0).action == Leave("duplicate")


@pytest.mark.parametrize(("lists", "result"), [(False, "found"), (True, "ours"), (True, "found")])
def test_a_wish_that_may_have_been_asked_for_lists_first(lists: bool, result: ClaimResult) -> None:
    assert begin(100.0, RETRY_S, lists=lists).on_claim(result, 101.0).action == List()


def test_without_the_store_the_claim_is_kept_here_and_listed() -> None:
    unclaimed = begin(100.0, RETRY_S).on_claim("away", 100.0)
    assert unclaimed.action == ClaimHere()
    assert unclaimed.on_claim("away", 101.0).action == Leave("store_away")
    claimed = unclaimed.on_claim("ours", 101.0)
    assert (claimed.action, claimed.here) == (List(), True)
    due = claimed.on_answer([], 101.5, 0.5, owned=True)
    assert due.when_due(owned=True).action == Create()
    assert due.when_due(owned=False).action == Leave("taken"), "it may be alive at another host"
    assert due.on_taken().when_due(owned=True).action == Leave("taken")


@pytest.mark.parametrize(("result", "action"), [("ours", List()), ("theirs", Leave("taken"))])
def test_an_abandoned_claim_is_taken_over_and_listed(result: ClaimResult, action: Action) -> None:
    abandoned = resume_claim(100.0, RETRY_S, "host/0", create=True)
    assert abandoned.action == Reclaim("host/0")
    assert abandoned.on_claim(result, 101.0).action == action


@pytest.mark.parametrize("create", [True, False])
def test_a_lost_hosts_recording_is_not_created(create: bool) -> None:
    claimed = resume_claim(100.0, RETRY_S, "host/0", create=create).on_claim("ours", 100.0)
    assert isinstance(after(claimed, []), Create if create else Outcome)


# -- answers of Twilio ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Create, List])
def test_every_error_has_a_transition(action: type[Create | List]) -> None:
    assert set(KINDS) <= set(TRANSITIONS[action])


def test_an_answer_before_the_claim_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        begin(100.0, RETRY_S).on_answer([], 100.0, 0.5, owned=True)
    with pytest.raises(KeyError):
        at(Create()).on_claim("ours", 100.0)


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (Create, error("not_in_progress", 21220)),
        (Create, error("gone", 20404)),
        (List, error("gone", 20404)),
    ],
)
def test_a_call_that_is_new_to_twilio_is_tried_within_two_seconds_and_then_fails(
    asked: type[Create | List], refused: RestError
) -> None:
    lifecycle, waits = at(asked()), []
    for _ in BECOMING_WAITS_S:
        lifecycle = lifecycle.on_answer(refused, 100.0, 0.5, owned=True)
        assert isinstance(lifecycle.action, asked)
        waits.append(lifecycle.action.after_s)
    assert waits == [0.3, 0.6, 0.9]
    assert sum(waits) < 2.0
    assert after(lifecycle, refused) == Outcome("failed", error_code=refused.code, error_text="no reason")


@pytest.mark.parametrize(("call_over", "owned"), [(True, True), (False, False)])
def test_a_call_that_is_gone_is_not_tried_again(call_over: bool, owned: bool) -> None:
    assert codes_after(at(Create(), call_over=call_over), error("gone", 20404), owned=owned) == ("failed", CALL_OVER)
    assert codes_after(at(List(), call_over=call_over), error("gone", 20404), owned=owned) == ("failed", "20404")


def test_a_caller_who_hangs_up_in_the_first_moment_is_not_a_failure() -> None:
    refused = error("not_in_progress", 21220)
    assert codes_after(at(Create(), call_over=True), refused) == ("failed", CALL_OVER)
    assert codes_after(at(Create(), becoming_tries=len(BECOMING_WAITS_S)), refused, owned=False) == ("failed", CALL_OVER)
    assert codes_after(at(Create(), call_over=True, backoffs=1), refused) == ("failed", "21220"), "Twilio had failed before"


def codes_after(lifecycle: Lifecycle, answer: Answer, *, owned: bool = True) -> tuple[str, str]:
    action = after(lifecycle, answer, owned=owned)
    assert isinstance(action, Outcome)
    return action.state, action.error_code


@pytest.mark.parametrize("kind", ["busy", "unreachable", "unauthorized"])
def test_a_clear_failure_creates_again(kind: Kind) -> None:
    again = at(Create()).on_answer(error(kind), 100.0, 0.5, owned=True)
    assert again.action == Create(0.5)
    assert after(again, error(kind), 100.5) == Create(1.0)


@pytest.mark.parametrize("kind", ["server", "timeout"])
def test_an_unclear_failure_lists_before_it_creates(kind: Kind) -> None:
    unclear = at(Create()).on_answer(error(kind), 100.0, 0.5, owned=True)
    assert unclear.action == List(0.5)
    assert after(unclear, [], 101.0) == Create()
    assert after(unclear, [listed()], 101.0) == Outcome("started", "RE1")


@pytest.mark.parametrize("asked", [Create(), List()])
def test_a_refusal_is_final(asked: Action) -> None:
    assert after(at(asked), error("rejected", 20001)) == Outcome("failed", error_code="20001", error_text="no reason")


@pytest.mark.parametrize("kind", ["busy", "server", "timeout", "unreachable", "unauthorized"])
def test_a_list_that_fails_is_listed_again(kind: Kind) -> None:
    assert after(at(List()), error(kind)) == List(0.5)


def test_the_backoff_is_spread_bounded_and_ends() -> None:
    assert after(at(Create()), error("busy"), chance=0.0) == Create(0.25)
    late = at(Create(), backoffs=20)
    assert after(late, error("busy")) == Create(BACKOFF_LAST_S)
    assert after(late, error("busy", 20429), 129.0) == Later("20429", "no reason")
    assert after(late.on_held(20.0), error("busy"), 129.0) == Create(BACKOFF_LAST_S), "a wait without requests does not count"


def test_the_time_that_twilio_asks_for_is_waited_and_does_not_count() -> None:
    busy = RestError("busy", 20429, 429, "no reason", 40.0)
    waiting = at(Create()).on_answer(busy, 100.0, 0.5, owned=True)
    assert waiting.action == Create(40.5)
    assert after(waiting, error("busy"), 141.0) == Create(1.0)
    assert after(at(List()), busy) == List(40.5)


# -- the call's end ---------------------------------------------------------------------------------------------------------


def test_a_call_that_is_over_is_looked_for_but_not_recorded() -> None:
    over = at(Create(), call_over=True)
    assert isinstance(after(over, error("busy")), Outcome)
    unclear = over.on_answer(error("timeout"), 100.0, 0.5, owned=True)
    assert unclear.action == List(0.5)
    nothing = after(unclear, [], 101.0)
    assert isinstance(nothing, Outcome)
    assert nothing.error_code == "call_ended"


def test_a_call_that_ends_before_the_claim_gets_its_first_create_and_no_other() -> None:
    first = begin(100.0, RETRY_S).on_call_over().on_claim("ours", 100.0)
    assert first.when_due(owned=True).action == Create(), "Twilio's answer decides whether the call is over"
    again = at(Create()).on_answer(error("busy"), 100.0, 0.5, owned=True)
    assert again.when_due(owned=True).action == Create(0.5)
    over = again.on_call_over().when_due(owned=True).action
    assert isinstance(over, Outcome)
    assert over.error_code == "call_ended"


@pytest.mark.parametrize(
    ("lifecycle", "due"),
    [
        (at(Create(), call_over=True), True),
        (at(Create(0.5), call_over=True, backoffs=1), False),
        (at(Create(0.3), call_over=True, becoming_tries=1), False),
        (at(List(), call_over=True, backoffs=1), True),
        (at(Create(1.0), backoffs=1), True),
    ],
)
def test_a_create_is_repeated_only_for_a_call_that_lives(lifecycle: Lifecycle, due: bool) -> None:
    assert (lifecycle.when_due(owned=True) == lifecycle) is due


# -- the row's recording ----------------------------------------------------------------------------------------------------


def test_the_recording_that_is_ours() -> None:
    other, absent, live = listed("RE2", source="DialVerb"), listed("RE3", "absent"), listed("RE4")
    assert best_of([other, absent, live]) == live
    assert best_of([other, absent]) == absent
    assert best_of([listed("RE5", "failed"), live]) == live
    assert best_of([other]) is None
    assert best_of([other, live], sid="RE2") == other
    assert best_of([live], sid="RE9") is None


@pytest.mark.parametrize(
    ("outcome", "sid", "applies"),
    [
        (Outcome("started", "RE1"), "", True),
        (Outcome("failed", error_code="timeout"), "", True),
        (Outcome("completed", "RE1"), "RE1", True),
        (Outcome("failed", "RE1", error_code="gone"), "RE1", True),
        (Outcome("started", "RE2"), "RE1", False),
        (Outcome("failed", error_code="timeout"), "RE1", False),
    ],
)
def test_only_an_outcome_of_the_rows_recording_applies(outcome: Outcome, sid: str, applies: bool) -> None:
    assert outcome.applies_to(sid) is applies


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (listed("RE1", "processing"), Outcome("started", "RE1")),
        (listed("RE1", "completed", duration_s=7), Outcome("completed", "RE1", 7)),
        (listed("RE1", "absent", error_code=13421), Outcome("absent", "RE1", error_code="13421")),
        (listed("RE1", "absent"), Outcome("absent", "RE1", error_code="absent")),
        (listed("RE1", "failed", error_code=16105), Outcome("absent", "RE1", error_code="16105", error_text=FAILED)),
        (listed("RE1", "failed"), Outcome("absent", "RE1", error_code="recording_failed", error_text=FAILED)),
    ],
)
def test_the_outcome_of_a_listed_recording(entry: Listed, outcome: Outcome) -> None:
    assert outcome_of(entry) == outcome


# -- any sequence of answers ------------------------------------------------------------------------------------------------


@given(
    answers=st.lists(st.one_of(st.sampled_from(KINDS), st.just("nothing listed"), st.just("call over")), max_size=60),
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=60, max_size=60),
)
def test_no_create_ever_follows_an_unclear_answer_without_a_list(answers: list[str], chances: list[float]) -> None:
    now_s, unclear = 100.0, False
    lifecycle = begin(now_s, RETRY_S).on_claim("ours", now_s)
    for answer, chance in zip(answers, chances, strict=False):
        action = lifecycle.action
        if not isinstance(action, Create | List):
            break
        if answer == "call over":
            lifecycle = msgspec.structs.replace(lifecycle, call_over=True)
            continue
        now_s += action.after_s
        assert now_s - 100.0 <= RETRY_S + sum(BECOMING_WAITS_S)
        if isinstance(action, Create):
            assert not unclear
        if answer == "nothing listed":
            if isinstance(action, List):
                unclear = False
                lifecycle = lifecycle.on_answer([], now_s, chance, owned=True)
            continue
        unclear = unclear or (isinstance(action, Create) and answer in ("server", "timeout"))
        lifecycle = lifecycle.on_answer(error(answer), now_s, chance, owned=True)  # type: ignore[arg-type]
