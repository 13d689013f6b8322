"""gw.control.calls.registry: the owner of each call, its end and its past, in every sequence of events."""

from __future__ import annotations

import gc
import os
import tracemalloc
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw import bus
from gw.call.quality import Quality
from gw.control.calls import registry
from gw.control.calls.registry import KEEP_S, Call, Calls
from gw.control.rows import CallDetails, TurnRow
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started

#: Of any event: these tests need no other time.
NOW_S: Final = 1000.0


def hello(instance: str, *calls: str, at: float | None = None) -> bus.Hello:
    """`at`: the start of each call's stream; an older worker omits it."""
    return bus.Hello(0, instance, os.getpid(), list(calls), answered_at=[] if at is None else [at] * len(calls))


def started(at: float, stream_sid: str = "MZ1", call_sid: str = CALL) -> bus.CallStarted:
    return msgspec.structs.replace(call_started(call_sid), answered_at=at, stream_sid=stream_sid)


def ended(reason: str = "phone_lost", stream_sid: str = "MZ1", call_sid: str = CALL) -> bus.CallEnded:
    return bus.CallEnded(call_sid, 0.0, reason, "peer_error", "", Quality(), stream_sid)


def turn(n: int, call_sid: str = CALL) -> bus.Turn:
    return bus.Turn(call_sid, n, "agent", f"Words of turn {n}.", f"item{n}", n * 1000, False, 500)


def known(calls: Calls, call_sid: str = CALL) -> Call:
    call = calls.get(call_sid, NOW_S)
    assert call is not None
    return call


# -- ownership ------------------------------------------------------------------------------------------------------------


def test_events_of_an_earlier_process_complete_the_stores_row() -> None:
    calls = Calls()
    resumed = bus.CallEvent(CALL, "resumed", 1.0, {"n": 1, "after": "worker_lost"})
    recording = bus.StartRecording(CALL, "AC1", 21.0)
    for event in (started(20.0), recording, turn(2), call_ended(CALL), started(30.0, "MZ2"), resumed):
        calls.recall(event, NOW_S)
    assert not calls.is_owned(CALL)
    assert not calls.is_known(CALL), "without a worker it is an orphan"
    call = calls.get(CALL, NOW_S)
    assert call is not None
    assert (call.whole, call.reason, call.resumes, [one.n for one in call.conversation.turns]) == (False, "", 1, [2])
    assert (call.agent, call.began_at, call.answered_at, call.is_recorded) == ("default", 20.0, 0.0, True)
    stored = [TurnRow(call_sid=CALL, n=n, role="agent", text="", start_ms=n, interrupted=False) for n in (1, 2)]
    calls.on_row(CALL, row(turns=stored), NOW_S)
    assert [one.n for one in call.conversation.turns] == [1, 2]
    assert calls.is_known(CALL), "a worker asked about it"


def test_a_reconnection_replaces_the_calls() -> None:
    calls = Calls()
    calls.on_hello(hello("a", CALL, OTHER), NOW_S)
    calls.on_hello(hello("a", OTHER), NOW_S)
    assert calls.owned() == {OTHER}
    assert (calls.owner(CALL), calls.owner(OTHER), calls.owner("CA3")) == ("", "a", "")
    assert (calls.is_owned(CALL), calls.is_owned(OTHER), calls.is_owned("CA3")) == (False, True, False)


def test_a_reconnection_with_an_older_stream_takes_no_call() -> None:
    calls = Calls()
    calls.on_hello(hello("a", CALL), NOW_S)
    assert calls.on_event("b", started(20.0), NOW_S) == "a"
    for at in (None, 10.0):
        calls.on_hello(hello("a", CALL, at=at), NOW_S)
        assert calls.owner(CALL) == "b"
    calls.on_event("a", call_ended(CALL), NOW_S)
    assert calls.owner(CALL) == "b"
    assert (calls.stream_began_at(CALL), calls.stream_began_at(OTHER)) == (20.0, None)


@pytest.mark.parametrize("newer_first", [True, False])
def test_after_a_restart_of_control_the_newer_stream_owns_its_call(newer_first: bool) -> None:
    calls = Calls()
    older, newer = hello("a", CALL, at=10.0), hello("b", CALL, at=20.0)
    for one in (newer, older) if newer_first else (older, newer):
        calls.on_hello(one, NOW_S)
    assert calls.owner(CALL) == "b"


def test_a_call_that_moved_stays_with_its_new_worker() -> None:
    calls = Calls()
    calls.on_hello(hello("a", CALL), NOW_S)
    calls.on_event("b", started(20.0, "MZ2"), NOW_S)
    calls.on_event("a", ended(), NOW_S)
    assert calls.owner(CALL) == "b"
    assert calls.on_worker_lost("a", NOW_S) == set()
    assert calls.on_worker_lost("b", NOW_S) == {CALL}
    assert calls.owned() == set()


def test_the_latest_stream_owns_its_call_in_whatever_order_events_come() -> None:
    """Control was away while a call changed its worker, and the two workers reconnect in the wrong sequence."""
    calls = Calls()
    assert calls.on_event("b", started(20.0, "MZ2"), NOW_S) == ""
    assert calls.on_event("a", started(10.0, "MZ1"), NOW_S) == ""
    calls.on_event("a", ended("phone_lost", "MZ1"), NOW_S)
    assert calls.owner(CALL) == "b"
    calls.on_event("b", ended("ai_hangup", "MZ2"), NOW_S)
    assert (calls.owner(CALL), known(calls).reason) == ("", "ai_hangup")
    calls.on_event("a", started(10.0, "MZ1"), NOW_S)
    assert calls.owner(CALL) == "a", "its stream may still be open"
    calls.on_event("a", ended("phone_lost", "MZ1"), NOW_S)
    assert (calls.owner(CALL), known(calls).reason) == ("", "ai_hangup")


def test_a_worker_with_an_older_stream_is_named() -> None:
    calls = Calls()
    assert calls.on_event("a", started(10.0), NOW_S) == ""
    assert calls.on_event("b", started(20.0), NOW_S) == "a"
    assert calls.on_event("b", started(20.0), NOW_S) == ""


def test_a_call_whose_end_came_before_its_workers_death_is_not_lost() -> None:
    """A Hello that was written before the end names the call once more."""
    calls = Calls()
    calls.on_event("a", started(10.0), NOW_S)
    calls.on_event("a", ended("ai_hangup"), NOW_S)
    for at in (10.0, None):
        calls.on_hello(hello("a", CALL, at=at), NOW_S)
        assert calls.on_worker_lost("a", NOW_S) == set()
    assert known(calls).reason == "ai_hangup"


def test_a_worker_that_was_given_up_and_returns_has_its_calls_again() -> None:
    calls = Calls()
    calls.on_event("a", started(10.0), NOW_S)
    assert calls.on_worker_lost("a", NOW_S) == {CALL}
    assert known(calls).is_lost
    calls.on_hello(hello("a", CALL, at=10.0), NOW_S)
    assert calls.is_owned(CALL)
    calls.on_event("a", ended("ai_hangup"), NOW_S)
    assert (known(calls).reason, known(calls).is_lost) == ("ai_hangup", False)


def test_the_end_of_a_newer_stream_counts_though_its_start_was_anothers() -> None:
    """An earlier control received the start of the second stream; this one receives that of the first, late."""
    calls = Calls()
    calls.on_event("a", started(10.0, "MZ1"), NOW_S)
    calls.on_hello(hello("b", CALL, at=20.0), NOW_S)
    calls.on_event("a", ended("phone_lost", "MZ1"), NOW_S)
    assert (calls.owner(CALL), known(calls).reason) == ("b", "")
    calls.on_event("b", ended("ai_hangup", "MZ2"), NOW_S)
    assert (calls.owner(CALL), known(calls).reason) == ("", "ai_hangup")


def test_other_events_move_nothing() -> None:
    calls = Calls()
    calls.on_hello(hello("a", CALL), NOW_S)
    calls.on_event("a", bus.FirstAudio(OTHER, 1.0), NOW_S)
    assert calls.on_event("a", bus.StartRecording(OTHER, "AC1", 1.0), NOW_S) == ""
    assert (calls.owned(), calls.is_known(OTHER)) == ({CALL}, False)


# -- accounts -----------------------------------------------------------------------------------------------------------


def test_a_call_has_the_account_of_its_first_report() -> None:
    calls = Calls(several_accounts=True)
    assert not calls.is_foreign(CALL, "AC1")
    calls.on_hello(msgspec.structs.replace(hello("a", CALL, OTHER, at=10.0), account_sids=["AC1", "AC2"]), NOW_S)
    assert [calls.is_foreign(CALL, account_sid) for account_sid in ("AC1", "AC2", "")] == [False, True, False]
    assert calls.is_foreign(OTHER, "AC1")


def test_an_older_worker_omits_the_account_and_a_wish_names_it() -> None:
    calls = Calls(several_accounts=True)
    calls.on_hello(hello("a", CALL, at=10.0), NOW_S)
    assert not calls.is_foreign(CALL, "AC2")
    calls.on_event("a", bus.StartRecording(CALL, "AC1", 1.0), NOW_S)
    assert calls.is_foreign(CALL, "AC2")


def test_with_one_account_none_is_foreign() -> None:
    calls = Calls()
    calls.on_event("a", started(10.0), NOW_S)
    assert not calls.is_foreign(CALL, "AC9")


def test_a_stream_of_another_account_takes_no_call() -> None:
    calls = Calls(several_accounts=True)
    calls.on_event("a", started(10.0), NOW_S)
    foreign = msgspec.structs.replace(started(20.0, "MZ2"), account_sid="AC9")
    assert calls.on_event("b", foreign, NOW_S) == ""
    calls.on_event("b", ended("wrong_account", "MZ2"), NOW_S)
    assert (calls.owner(CALL), known(calls).stream_sid, known(calls).reason) == ("a", "MZ1", "")


# -- how long -------------------------------------------------------------------------------------------------------------


def test_a_call_is_dropped_a_minute_after_it_was_left_and_a_live_one_never() -> None:
    calls = Calls()
    calls.on_event("a", started(10.0, call_sid=OTHER), NOW_S)
    calls.on_event("a", started(10.0), NOW_S)
    calls.on_event("a", ended(), NOW_S + 5)
    for later_s, is_known in ((KEEP_S + 4, True), (KEEP_S + 5, False)):
        calls.on_event("a", bus.FirstAudio(OTHER, 1.0), NOW_S + later_s)
        assert (calls.is_known(CALL), calls.is_known(OTHER)) == (is_known, True)


def test_a_question_keeps_a_call_and_a_resumed_one_is_kept() -> None:
    calls = Calls()
    calls.on_event("a", started(10.0), NOW_S)
    calls.on_event("a", ended(), NOW_S)
    assert calls.get(CALL, NOW_S + KEEP_S - 1) is not None
    calls.on_event("b", started(20.0, "MZ2"), NOW_S + 2 * KEEP_S - 2)
    assert calls.get(CALL, NOW_S) is not None
    calls.on_hello(hello("b", CALL), NOW_S + 10 * KEEP_S)
    assert calls.is_owned(CALL)


def test_at_the_bound_the_call_that_was_left_first_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_LEFT", 2)
    calls = Calls()
    calls.on_hello(hello("a", "CA7", "CA8", "CA9"), NOW_S)
    for n in range(4):
        calls.on_event("a", ended(call_sid=f"CA{n}"), NOW_S)
    assert [calls.is_known(f"CA{n}") for n in range(4)] == [False, False, True, True]
    assert calls.owned() == {"CA7", "CA8", "CA9"}


def test_the_ends_that_twilio_reported_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_OVER", 1)
    calls = Calls()
    for call_sid in (CALL, OTHER):
        calls.on_over(call_sid)
    assert (calls.is_over(CALL), calls.is_over(OTHER)) == (False, True)


def test_calls_leave_little() -> None:
    """2,000 of 20 turns. Without their removal 18 MB would be held."""
    calls = Calls()
    events = [started(10.0), *map(turn, range(20)), ended()]
    gc.collect()
    tracemalloc.start()
    try:
        for k in range(2000):
            call_sid, now_s = f"CA{k:032x}", NOW_S + k
            for event in events:
                calls.on_event("a", msgspec.structs.replace(event, call_sid=call_sid), now_s)
            calls.on_over(call_sid)
        calls.on_event("a", bus.FirstAudio(CALL, 1.0), now_s + KEEP_S)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
    assert (len(calls._calls), len(calls._left)) == (0, 0)


# -- every sequence -------------------------------------------------------------------------------------------------------

_WORKERS: Final = ("a", "b")
_SIDS: Final = (CALL, OTHER)
_workers, _sids, _times = st.sampled_from(_WORKERS), st.sampled_from(_SIDS), st.integers(1, 4)
_acts = st.one_of(
    st.tuples(st.just("hello"), _workers, st.lists(_sids, unique=True), _times),
    st.tuples(st.just("start"), _workers, _sids, _times),
    st.tuples(st.just("end"), _workers, _sids, _times),
    st.tuples(st.just("turn"), _workers, _sids, _times),
    st.tuples(st.just("lost"), _workers),
    st.tuples(st.just("ask"), _sids),
    st.tuples(st.just("over"), _sids),
    st.tuples(st.just("wait"), st.sampled_from((1.0, KEEP_S / 2, KEEP_S))),
)


@given(st.lists(_acts, max_size=25))
def test_the_rules_hold_in_every_sequence(acts: list[tuple[object, ...]]) -> None:
    """Streams of one call start at different times, each at one worker, whose messages come in any sequence with the other's."""
    calls, now_s, latest = Calls(), NOW_S, dict.fromkeys(_SIDS, 0.0)
    touched = dict.fromkeys(_SIDS, -KEEP_S)  # when a call last had an owner, or an event or question
    for act in acts:
        before = {call_sid: calls.owner(call_sid) for call_sid in _SIDS}
        reported = {call_sid: call.reported for call_sid in _SIDS if (call := calls._calls.get(call_sid))}
        match act:
            case ("hello", str(worker), list(sids), int(at)):
                calls.on_hello(hello(worker, *sids, at=at), now_s)
                for call_sid in _SIDS:
                    if call_sid not in sids:
                        assert calls.owner(call_sid) != worker
                    elif at > latest[call_sid]:
                        assert calls.owner(call_sid) == worker
                    elif before[call_sid] and before[call_sid] != worker and at < latest[call_sid]:
                        assert calls.owner(call_sid) == before[call_sid]
                    elif reported.get(call_sid) and not before[call_sid]:
                        assert not calls.is_owned(call_sid)
                    latest[call_sid] = max(latest[call_sid], at if call_sid in sids else 0.0)
            case ("start", str(worker), str(call_sid), int(at)):
                former = calls.on_event(worker, started(at, f"MZ{at}", call_sid), now_s)
                assert former in ("", before[call_sid])
                assert former != worker
                if at >= latest[call_sid]:
                    assert calls.owner(call_sid) == worker
                    assert not known(calls, call_sid).reason
                elif before[call_sid]:
                    assert calls.owner(call_sid) == before[call_sid]
                latest[call_sid] = max(latest[call_sid], at)
            case ("end", str(worker), str(call_sid), int(at)):
                calls.on_event(worker, ended("ai_hangup", f"MZ{at}", call_sid), now_s)
                assert calls.owner(call_sid) == ("" if before[call_sid] in ("", worker) else before[call_sid])
            case ("turn", str(worker), str(call_sid), int(n)):
                calls.on_event(worker, turn(n, call_sid), now_s)
                assert calls.is_known(call_sid)
            case ("lost", str(worker)):
                lost = calls.on_worker_lost(worker, now_s)
                assert lost == {call_sid for call_sid in _SIDS if before[call_sid] == worker}
                assert not lost & calls.owned()
            case ("ask", str(call_sid)):
                call = calls.get(call_sid, now_s)
                assert call is None or calls.is_known(call_sid)
            case ("over", str(call_sid)):
                calls.on_over(call_sid)
                assert calls.is_over(call_sid)
                assert calls.owner(call_sid) == before[call_sid], "its worker is asked to hang up"
            case ("wait", float(lasts_s)):
                now_s += lasts_s
                calls.on_event("a", bus.FirstAudio("CA3", 1.0), now_s)
        for call_sid in _SIDS:
            if calls.is_owned(call_sid) or before[call_sid] or (act[0] != "wait" and call_sid in act):
                touched[call_sid] = now_s
            assert calls.is_owned(call_sid) == bool(calls.owner(call_sid))
            if calls.is_owned(call_sid):
                assert calls.is_known(call_sid)
            elif now_s - touched[call_sid] >= KEEP_S:
                assert not calls.is_known(call_sid)
            if not calls.is_known(call_sid):
                latest[call_sid] = 0.0
        assert calls.owned() == {call_sid for call_sid in _SIDS if calls.owner(call_sid)}
        assert calls._left.keys() == calls._calls.keys() - calls.owned()


# -- the past -------------------------------------------------------------------------------------------------------------


def row(**facts: object) -> CallDetails:
    return CallDetails(**{"call_sid": CALL, **facts})  # type: ignore[arg-type]


def test_a_call_known_from_its_start_needs_no_row() -> None:
    calls = Calls()
    calls.on_hello(hello("a", CALL, at=10.0), NOW_S)
    assert calls.get(CALL, NOW_S) is None, "nothing is known of it but its worker"
    calls.on_event("a", started(10.0), NOW_S)
    assert known(calls).whole
    assert calls.on_row(CALL, row(agent="another"), NOW_S).agent == "default"


def test_a_call_known_from_a_later_event_is_completed_by_its_row() -> None:
    calls = Calls()
    calls.on_event("a", turn(3), NOW_S)
    calls.on_event("a", started(20.0, "MZ2"), NOW_S)
    assert not known(calls).whole
    call = calls.on_row(CALL, row(agent="support", answered_at=10.0, reason="phone_lost", ended_at=15.0), NOW_S)
    assert (call.whole, call.agent, call.began_at, call.reason) == (True, "default", 10.0, "")


@pytest.mark.parametrize("is_announced", [False, True])
def test_the_first_start_counts_at_any_time(is_announced: bool) -> None:
    calls = Calls()
    if is_announced:
        calls.on_hello(hello("a", CALL), NOW_S)
    calls.on_event("a", started(0.5), NOW_S)
    assert (known(calls).stream_sid, known(calls).answered_at) == ("MZ1", 0.5)


def test_the_highest_number_of_resumes_counts() -> None:
    calls = Calls()
    calls.on_event("a", started(10.0), NOW_S)
    calls.on_event("a", turn(1), NOW_S)
    for n in (2, 1):
        calls.on_event("a", bus.CallEvent(CALL, "resumed", 0.0, {"n": n}), NOW_S)
    assert (known(calls).resumes, known(calls).whole) == (2, True)


def test_a_row_completes_what_events_did_not_bring() -> None:
    calls = Calls()
    bare = calls.on_row(CALL, row(ended_at=15.0), NOW_S)
    assert (bare.reason, bare.account_sid, bare.agent, bare.began_at, bare.is_lost) == ("", "", "", 0.0, True)
    full = row(call_sid=OTHER, ended_at=15.0, reason="ai_hangup", account_sid="AC1", agent="support", answered_at=10.0)
    ended_call = calls.on_row(OTHER, full, NOW_S)
    assert (ended_call.reason, ended_call.account_sid, ended_call.agent) == ("ai_hangup", "AC1", "support")
    assert (ended_call.began_at, ended_call.is_lost) == (10.0, False)


def test_a_transfer_of_an_unknown_call_changes_nothing() -> None:
    calls = Calls()
    calls.on_transferred(CALL)
    assert not calls.is_known(CALL)
