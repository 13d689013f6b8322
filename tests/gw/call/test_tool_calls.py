"""gw.call.tool_calls: the names of jobs, results that come once, and what a replacement session receives."""

from __future__ import annotations

import pytest

from gw.call.conversation import Utterance
from gw.call.tool_calls import MAX_CALLS, MAX_RESTATED_BYTES, SESSIONS_PER_STREAM, Stated, ToolCalls


def calls_in_session(streams: int = 0) -> ToolCalls:
    calls = ToolCalls("CA1", streams)
    calls.on_session()
    return calls


def test_a_job_has_the_session_that_first_sent_the_call() -> None:
    calls = calls_in_session()
    calls.on_call("a", "lookup", "{}", 0)
    calls.on_session()
    calls.on_call("a", "lookup", "other", 50)
    assert calls.want("a") == "CA1/1/a"
    assert calls.get("a").arguments == "{}"
    calls.on_call("b", "lookup", "{}", 60)
    assert calls.want("b") == "CA1/2/b"
    assert calls.open_jobs == ["CA1/1/a", "CA1/2/b"]


def test_a_later_stream_of_the_call_reuses_no_name() -> None:
    calls = calls_in_session(streams=2)
    calls.on_call("a", "lookup", "{}", 0)
    assert calls.want("a") == f"CA1/{2 * SESSIONS_PER_STREAM + 1}/a"


def test_a_call_of_an_earlier_stream_keeps_its_name_and_is_restated_behind_the_turns() -> None:
    calls = calls_in_session(streams=1)
    assert calls.on_earlier("CA1/3/a/b", "lookup", "{}", 99, 5) == "a/b"
    assert calls.get("a/b").deadline_ms == 99
    assert calls.want("a/b") == "CA1/3/a/b"
    said = Utterance("caller", "Hello", "i1")
    assert calls.restate([said], {}) == [said, Stated("a/b", "lookup", "{}", None)]
    assert calls.on_settled("CA1/3/a/b", "ok", "42") == "a/b"


@pytest.mark.parametrize("job_id", ["CA2/1/a", "CA1/x/a", "CA1/1/", "CA1", "", "CA1/1/known", "CA1/\u0662/a"])
def test_any_other_name_is_ignored(job_id: str) -> None:
    calls = calls_in_session(streams=1)
    calls.on_call("known", "lookup", "{}", 0)
    assert calls.on_earlier(job_id, "lookup", "{}", 99, 5) is None


def test_a_result_is_taken_once_and_only_by_an_open_call() -> None:
    calls = calls_in_session()
    calls.on_call("a", "lookup", "{}", 0)
    assert calls.on_settled("CA1/1/a", "ok", "42") is None
    job_id = calls.want("a")
    assert calls.on_settled("CA1/2/a", "ok", "42") is None
    assert calls.on_settled(job_id, "ok", "42") == "a"
    assert (calls.get("a").result, calls.get("a").status, calls.open_jobs) == ("42", "ok", [])
    assert calls.on_settled(job_id, "ok", "43") is None
    calls.on_call("b", "lookup", "{}", 0)
    job_id = calls.want("b")
    calls.close("b", "gone", "cancelled")
    assert calls.on_settled(job_id, "ok", "42") is None
    assert calls.get("b").status == "cancelled"


def test_a_result_with_an_odd_outcome_has_an_unknown_one() -> None:
    calls = calls_in_session()
    for outcome, status in (("ok", "ok"), ("refused", "refused"), ("a later word", "unknown_outcome")):
        calls.on_call(outcome, "lookup", "{}", 0)
        calls.on_settled(calls.want(outcome), outcome, "42")
        assert calls.get(outcome).status == status


def test_a_call_is_restated_between_the_turns_around_it() -> None:
    calls = calls_in_session()
    for call_id, now_ms in (("a", 1500), ("b", 2500), ("c", 9000)):
        calls.on_call(call_id, "lookup", f'"{call_id}"', now_ms)
        calls.want(call_id)
    calls.on_call("unknown", "make_coffee", "{}", 2600)
    calls.get("a").output = "42"
    before, first, second = (
        Utterance("caller", "Hello?", "t7"),
        Utterance("caller", "Mine?", "t1"),
        Utterance("agent", "42.", "t2"),
    )
    stated = calls.restate([before, first, second], {"t1": 1000, "t2": 2000})
    assert stated == [
        before,
        first,
        Stated("a", "lookup", '"a"', "42"),
        second,
        Stated("b", "lookup", '"b"', None),
        Stated("c", "lookup", '"c"', None),
    ]


def test_a_long_history_of_calls_is_cut_but_for_open_calls() -> None:
    calls = calls_in_session()
    for call_id in ("open", "old", "large", "last"):
        calls.on_call(call_id, "lookup", "{}", 0)
        calls.want(call_id)
    calls.get("old").output = "1"
    calls.get("large").output = "x" * MAX_RESTATED_BYTES
    calls.get("last").output = "2"
    assert [call.call_id for call in calls.restate([], {}) if isinstance(call, Stated)] == ["open", "last"]


def test_a_call_that_waits_to_leave_the_stream_is_restated_and_no_other_that_is_not_carried_out() -> None:
    calls = calls_in_session(streams=1)
    calls.on_call("refused", "lookup", "{}", 0)
    calls.close("refused", "busy", "busy")
    calls.get("refused").output = "busy"
    calls.on_earlier("CA1/3/dropped", "lookup", "{}", 99, 0)
    calls.on_call("leaves", "transfer", '{"target":"sales"}', 1500)
    said = [Utterance("caller", "Sales?", "t1"), Utterance("agent", "One moment.", "t2")]
    stated = calls.restate(said, {"t1": 1000, "t2": 2000}, "leaves")
    assert stated == [said[0], Stated("leaves", "transfer", '{"target":"sales"}', None), said[1]]
    assert calls.restate(said, {}, "") == said


def test_a_call_without_an_output_outlives_the_others() -> None:
    """It waits for words to be heard, or for digits."""
    calls = calls_in_session()
    for call_id in ("leaves", "collects"):
        calls.on_call(call_id, "transfer", "{}", 0)
    for n in range(MAX_CALLS):
        calls.on_call(f"c{n}", "lookup", "{}", 0)
        calls.get(f"c{n}").output = "busy"
    assert calls.want("leaves") == "CA1/1/leaves"
    calls.close("collects", "12", "ok")
    assert not calls.has("c0")


def test_the_oldest_calls_leave_but_no_open_one() -> None:
    calls = calls_in_session()
    calls.on_call("open", "lookup", "{}", 0)
    job_id = calls.want("open")
    for n in range(MAX_CALLS):
        calls.on_call(f"c{n}", "lookup", "{}", 0)
    assert calls.on_settled(job_id, "ok", "42") == "open"
    with pytest.raises(KeyError):
        calls.get("c0")
