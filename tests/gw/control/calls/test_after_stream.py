"""Answers to a worker whose stream ended: from memory, from the store, or without a step after the bound."""

from __future__ import annotations

import time

import gevent
import pytest

import gw.control.calls.after_stream as module
from gw import bus
from gw.call.conversation import Utterance
from gw.call.quality import Quality
from gw.call.resume import MAX_RESUMES
from gw.control.calls.after_stream import AfterStream
from gw.control.store import Stamped, Store
from tests.gw.control.bus_client import CALL, OTHER, call_started


def turn(n: int, text: str, role: str = "agent") -> bus.Turn:
    return bus.Turn(CALL, n, role, text, f"i{n}", n * 1000, False, 500 if role == "agent" else None)


def ended(reason: str) -> bus.CallEnded:
    return bus.CallEnded(CALL, time.time(), reason, "peer_error", "", Quality())


def write(store: Store, *events: bus.Event) -> None:
    store.apply([Stamped(event, "host", 0, "w0-1", n) for n, event in enumerate(events, 1)])


def make(store: Store, *, lost: bool = True, on_lost: str = "resume") -> AfterStream:
    return AfterStream(store, on_lost=on_lost, is_lost=lambda call_sid: lost)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "step"),
    [("caller_hangup", "hang_up"), ("fallback_goodbye", "goodbye"), ("fallback_transfer", "transfer"), ("worker_lost", "resume")],
)
def test_a_call_that_ended(store: Store, reason: str, step: str) -> None:
    after_stream = make(store, lost=False)
    after_stream.on_event(call_started())
    after_stream.on_event(ended(reason))
    answer = after_stream.answer(bus.Ask(7, CALL, "next"))
    assert (answer.n, answer.step, answer.agent) == (7, step, "default")


def test_an_end_that_is_on_its_way_is_waited_for(store: Store) -> None:
    after_stream = make(store, lost=False)
    after_stream.on_event(call_started())
    later = gevent.spawn_later(0.05, after_stream.on_event, ended("fallback_goodbye"))
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "goodbye"
    later.join()


def test_a_call_whose_worker_is_alive_and_reports_no_end_is_hung_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_S", 0.05)
    after_stream = make(store, lost=False)
    after_stream.on_event(call_started())
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "hang_up"


def test_an_unknown_call_is_hung_up(store: Store) -> None:
    assert make(store).answer(bus.Ask(1, OTHER, "next")).step == "hang_up"


def test_a_lost_call_resumes_with_its_conversation_and_at_most_so_often(store: Store) -> None:
    after_stream = make(store)
    started = call_started()
    after_stream.on_event(started)
    for event in (turn(1, "Hello."), turn(2, "Hello?", "caller")):
        after_stream.on_event(event)
    for n in range(1, MAX_RESUMES + 1):
        answer = after_stream.answer(bus.Ask(n, CALL, "next"))
        assert (answer.step, answer.resumes, answer.began_at) == ("resume", n, started.answered_at)
        assert after_stream.answer(bus.Ask(n, CALL, "conversation")).utterances == [
            Utterance("agent", "Hello.", "t1"),
            Utterance("caller", "Hello?", "t2"),
        ]
        after_stream.on_event(call_started())
        after_stream.on_event(bus.CallEvent(CALL, "resumed", time.time(), {"n": n}))
    assert after_stream.answer(bus.Ask(9, CALL, "next")).step == "goodbye"


def test_earlier_facts_come_from_the_store(store: Store) -> None:
    """Control was replaced during the call: later turns follow the stored ones, without duplicates."""
    started = call_started()
    resumed = bus.CallEvent(CALL, "resumed", time.time(), {"n": 1})
    write(store, started, turn(1, "Hello."), turn(2, "Hello?", "caller"), resumed)
    after_stream = make(store)
    after_stream.on_event(turn(2, "Hello?", "caller"))
    after_stream.on_event(turn(3, "And now?"))
    answer = after_stream.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello.", "Hello?", "And now?"]
    answer = after_stream.answer(bus.Ask(2, CALL, "next"))
    assert (answer.step, answer.resumes, answer.agent) == ("resume", 2, "default")
    assert abs(answer.began_at - started.answered_at) < 0.001


def test_an_end_that_comes_while_the_store_is_read_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload control reads a call's beginning from the store. The end that comes meanwhile must not be lost."""
    write(store, call_started())
    after_stream = make(store)
    read = store.call

    def read_slowly(call_sid: str) -> object:
        row = read(call_sid)
        after_stream.on_event(ended("shutdown"))
        return row

    monkeypatch.setattr(store, "call", read_slowly)
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "goodbye"


def test_a_store_that_does_not_answer_costs_only_the_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", {"next": 0.05, "conversation": 0.05})
    after_stream = make(store)
    monkeypatch.setattr(store, "call", lambda call_sid: gevent.sleep(5))
    assert after_stream.answer(bus.Ask(4, CALL, "next")) == bus.Answer(4)


def test_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CALLS", 1)
    after_stream = make(store)
    after_stream.on_event(call_started())
    after_stream.on_event(call_started(OTHER))
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "hang_up"
    assert after_stream.answer(bus.Ask(2, OTHER, "next")).step == "resume"


def test_a_transferred_call_is_hung_up(store: Store) -> None:
    after_stream = make(store, lost=False)
    after_stream.on_event(call_started())
    after_stream.on_transferred(CALL)
    after_stream.on_event(ended("fallback_transfer"))
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "hang_up"
