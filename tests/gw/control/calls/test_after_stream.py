"""Answers to a worker whose stream ended: from memory, from the store, or without a step after the bound."""

from __future__ import annotations

import os
import time
from collections.abc import Container

import gevent
import msgspec
import pytest

import gw.control.calls.after_stream as module
from gw import bus
from gw.call.conversation import Utterance
from gw.call.cost.usage import Used
from gw.call.quality import Quality
from gw.call.resume import MAX_RESUMES
from gw.control.calls import registry
from gw.control.calls.after_stream import AfterStream
from gw.control.calls.registry import Calls
from gw.control.store import Stamped, Store
from gw.errors import GatewayError
from tests.gw.control.bus_client import CALL, OTHER, call_started
from tests.timing import scaled

WORKER = "w0-1"


def turn(n: int, text: str, role: str = "agent") -> bus.Turn:
    return bus.Turn(CALL, n, role, text, f"i{n}", n * 1000, False, 500 if role == "agent" else None)


def ended(reason: str, stream_sid: str = "", *, speak: bool = False) -> bus.CallEnded:
    return bus.CallEnded(CALL, time.time(), reason, "peer_error", "", Quality(), stream_sid, speak)


def write(store: Store, *events: bus.Event) -> None:
    store.apply([Stamped(event, "host", 0, "w0-1", n) for n, event in enumerate(events, 1)])


class Rig:
    """The answers, and the registry with the events of a worker.

    `lost`: the worker is found dead at the first check. `spent_usd`: the part of a call's cost that is in memory.
    """

    def __init__(self, store: Store, *, lost: bool = True, spent_usd: float = 0.0) -> None:
        self.calls = Calls(several_accounts=True)
        self.foreign: list[str] = []

        def check_owner(_call_sid: str) -> None:
            if lost:
                self.calls.on_worker_lost(WORKER, time.monotonic())

        made = AfterStream(
            store,
            self.calls,
            on_lost="resume",
            check_owner=check_owner,
            on_foreign=self.foreign.append,
            spent_usd=lambda call_sid: spent_usd,
        )
        self.answer = made.answer

    def on_hello(self) -> None:
        self.calls.on_hello(bus.Hello(0, WORKER, os.getpid(), [CALL]), time.monotonic())

    def on_event(self, event: bus.Event) -> None:
        self.calls.on_event(WORKER, event, time.monotonic())


@pytest.fixture(autouse=True)
def _long_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine does not decide these tests."""
    monkeypatch.setattr(module, "ANSWER_S", dict.fromkeys(module.ANSWER_S, scaled(20.0)))


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("caller_hangup", "hang_up"),
        ("fallback_goodbye", "goodbye"),
        ("fallback_transfer", "transfer"),
        ("worker_lost", "resume"),
        ("phone_lost", "resume"),
    ],
)
def test_a_call_that_ended(store: Store, reason: str, step: str) -> None:
    after_stream = Rig(store, lost=False)
    after_stream.on_event(call_started())
    after_stream.on_event(ended(reason))
    answer = after_stream.answer(bus.Ask(7, CALL, "next"))
    assert (answer.n, answer.step, answer.agent, answer.reason) == (7, step, "default", reason)


def test_a_caller_who_heard_no_goodbye_hears_one(store: Store) -> None:
    after_stream = Rig(store, lost=False)
    after_stream.on_event(call_started())
    after_stream.on_event(ended("idle_limit", speak=True))
    answer = after_stream.answer(bus.Ask(1, CALL, "next"))
    assert (answer.step, answer.reason) == ("goodbye", "idle_limit")


def test_the_end_of_a_stream_that_was_replaced_ends_nothing(store: Store) -> None:
    after_stream = Rig(store, lost=False)
    first, second = call_started(), msgspec.structs.replace(call_started(), stream_sid="MZ2")
    for event in (first, second, ended("phone_silent", first.stream_sid), ended("ai_hangup", "MZ2")):
        after_stream.on_event(event)
    assert after_stream.answer(bus.Ask(1, CALL, "next")).reason == "ai_hangup"
    for event in (second, ended("ai_hangup", "MZ2"), ended("phone_silent", first.stream_sid)):
        after_stream.on_event(event)
    assert after_stream.answer(bus.Ask(2, CALL, "next")).reason == "ai_hangup"


def test_a_start_that_comes_after_a_later_streams_start_replaces_nothing(store: Store) -> None:
    """The worker of the first stream could not reach control for a moment."""
    after_stream = Rig(store, lost=False)
    first = call_started()
    second = msgspec.structs.replace(first, stream_sid="MZ2", answered_at=first.answered_at + 5)
    for event in (second, first, ended("phone_lost", first.stream_sid), ended("ai_hangup", "MZ2")):
        after_stream.on_event(event)
    assert after_stream.answer(bus.Ask(1, CALL, "next")).reason == "ai_hangup"


def test_an_end_that_is_on_its_way_is_waited_for(store: Store) -> None:
    after_stream = Rig(store, lost=False)
    after_stream.on_event(call_started())
    later = gevent.spawn_later(0.05, after_stream.on_event, ended("fallback_goodbye"))
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "goodbye"
    later.join()


def test_a_call_whose_worker_reports_no_end_has_lost_its_stream(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_S", 0.05)
    after_stream = Rig(store, lost=False)
    after_stream.on_event(call_started())
    answer = after_stream.answer(bus.Ask(1, CALL, "next"))
    assert (answer.step, answer.reason) == ("resume", "phone_lost")


def test_the_caller_of_an_unknown_call_hears_the_goodbye(store: Store) -> None:
    """Its stream was refused: the caller is on the line and has heard nothing."""
    assert Rig(store).answer(bus.Ask(1, OTHER, "next")).step == "goodbye"


def test_a_lost_call_resumes_with_its_conversation_and_at_most_so_often(store: Store) -> None:
    after_stream = Rig(store)
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
    after_stream = Rig(store)
    after_stream.on_event(turn(2, "Hello?", "caller"))
    after_stream.on_event(turn(3, "And now?"))
    answer = after_stream.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello.", "Hello?", "And now?"]
    answer = after_stream.answer(bus.Ask(2, CALL, "next"))
    assert (answer.step, answer.resumes, answer.agent) == ("resume", 2, "default")
    assert abs(answer.began_at - started.answered_at) < 0.001


def test_a_call_that_resumes_right_after_control_was_replaced_keeps_its_conversation(store: Store) -> None:
    write(store, call_started(), turn(1, "Hello."))
    after_stream = Rig(store)
    after_stream.on_event(msgspec.structs.replace(call_started(), stream_sid="MZ2"))
    after_stream.on_event(bus.CallEvent(CALL, "resumed", time.time(), {"n": 1}))
    answer = after_stream.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello."]


def test_the_row_of_a_call_whose_resume_is_not_stored_yet_does_not_end_it(store: Store) -> None:
    """Control was replaced, and the store has the first stream's end but not the second stream's start."""
    write(store, call_started(), ended("phone_lost"))
    after_stream = Rig(store, lost=False)
    after_stream.on_event(turn(2, "Hello?", "caller"))
    after_stream.on_event(msgspec.structs.replace(call_started(), stream_sid="MZ2"))
    after_stream.answer(bus.Ask(1, CALL, "conversation"))
    later = gevent.spawn_later(0.05, after_stream.on_event, ended("ai_hangup", "MZ2"))
    assert after_stream.answer(bus.Ask(2, CALL, "next")).reason == "ai_hangup"
    later.join()


def test_an_end_before_the_last_resume_is_not_the_end_of_the_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control was replaced during the second stream: the row has the end of the first."""
    resumed = bus.CallEvent(CALL, "resumed", time.time() + 1, {"n": 1})
    write(store, call_started(), ended("phone_lost"), resumed)
    after_stream = Rig(store, lost=False)
    after_stream.on_hello()
    later = gevent.spawn_later(0.05, after_stream.on_event, ended("ai_hangup"))
    answer = after_stream.answer(bus.Ask(1, CALL, "next"))
    assert (answer.step, answer.reason) == ("hang_up", "ai_hangup")
    later.join()


def test_an_end_that_comes_while_the_store_is_read_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a reload control reads a call's beginning from the store. The end that comes meanwhile must not be lost."""
    write(store, call_started())
    after_stream = Rig(store)
    read = store.call

    def read_slowly(call_sid: str) -> object:
        row = read(call_sid)
        after_stream.on_event(ended("shutdown"))
        return row

    monkeypatch.setattr(store, "call", read_slowly)
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "goodbye"


def test_a_store_that_does_not_answer_costs_only_the_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", {"next": 0.05, "conversation": 0.05})
    after_stream = Rig(store)
    monkeypatch.setattr(store, "call", lambda call_sid: gevent.sleep(5))
    assert after_stream.answer(bus.Ask(4, CALL, "next")) == bus.Answer(4)


def test_a_transferred_call_is_hung_up(store: Store) -> None:
    after_stream = Rig(store, lost=False)
    after_stream.on_event(call_started())
    after_stream.calls.on_transferred(CALL)
    after_stream.on_event(ended("fallback_transfer"))
    assert after_stream.answer(bus.Ask(1, CALL, "next")).step == "hang_up"


def test_a_call_that_was_dropped_is_answered_from_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KEEP_S", 0.0)
    after_stream = Rig(store)
    events = [call_started(), turn(1, "Hello."), ended("ai_hangup")]
    write(store, *events)
    for event in (*events, bus.FirstAudio(OTHER, 1.0)):
        after_stream.on_event(event)
    assert not after_stream.calls.is_known(CALL)
    answer = after_stream.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello."]
    assert after_stream.answer(bus.Ask(2, CALL, "next")).reason == "ai_hangup"


def test_a_call_known_by_its_worker_alone_is_read_from_the_store(store: Store) -> None:
    """Control was replaced, and its worker has reported nothing of the call since."""
    write(store, call_started(), turn(1, "Hello."))
    after_stream = Rig(store)
    after_stream.on_hello()
    answer = after_stream.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello."]
    assert after_stream.answer(bus.Ask(2, CALL, "next")).reason == "worker_lost"


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("about", ["next", "conversation"])
def test_another_account_learns_nothing_of_a_call(store: Store, about: str, is_stored: bool) -> None:
    events = [call_started(), turn(1, "A secret."), ended("phone_lost")]
    after_stream = Rig(store)
    if is_stored:
        write(store, *events)
    else:
        for event in events:
            after_stream.on_event(event)
    own = call_started().account_sid
    assert after_stream.answer(bus.Ask(1, CALL, about, "AC" + "9" * 32)) == bus.Answer(1, step="hang_up")
    assert after_stream.foreign == ["action"]
    assert after_stream.answer(bus.Ask(2, CALL, about, own)).step == "resume"
    assert after_stream.answer(bus.Ask(3, CALL, about)).step == "resume", "of an older worker"


def test_a_call_that_resumes_has_spent_what_store_or_memory_has(store: Store) -> None:
    used = [Used(day="2026-11-28", model="m", audio_out=1, cost_usd=0.75)]
    write(store, call_started(), bus.Usage(CALL, call_started().stream_sid, 0.0, "default", "", used))
    for in_memory, spent_usd in ((0.0, 0.75), (1.25, 1.25)):
        after_stream = Rig(store, spent_usd=in_memory)
        assert after_stream.answer(bus.Ask(1, CALL, "conversation")).spent_usd == spent_usd


def test_a_resumed_call_receives_its_open_tools(store: Store) -> None:
    told: list[set[str]] = []
    open_tool = bus.OpenTool("j2", "lookup", "{}", 9)

    def tools_of(call_sid: str, known: Container[str]) -> list[bus.OpenTool]:
        told.append(set(known))  # type: ignore[call-overload]
        if len(told) > 1:
            raise GatewayError("the disk is full")
        return [open_tool]

    rig = Rig(store)
    after_stream = AfterStream(store, rig.calls, on_lost="resume", check_owner=lambda call_sid: None, tools_of=tools_of)
    rig.on_event(call_started())
    rig.on_event(bus.CallEvent(CALL, "tool_called", time.time(), {"id": "j1"}))
    ask = bus.Ask(1, CALL, "conversation")
    assert [after_stream.answer(ask).tools for _ in range(2)] == [[open_tool], []]
    assert told == [{"j1"}] * 2
