"""What a worker is told of a call whose stream is over: from memory, from the store, or nothing in time."""

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
from gw.control.twilio_api.rest import TwilioRest
from gw.control.twilio_api.transfers import Transfers
from tests.gw.control.bus_client import CALL, OTHER, call_started
from tests.gw.control.scripted_rest import Answer, ScriptedRest, refusal
from tests.timing import scaled


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
    afterwards = make(store, lost=False)
    afterwards.on_event(call_started())
    afterwards.on_event(ended(reason))
    answer = afterwards.answer(bus.Ask(7, CALL, "next"))
    assert (answer.n, answer.step, answer.agent) == (7, step, "default")


def test_an_end_that_is_on_its_way_is_waited_for(store: Store) -> None:
    afterwards = make(store, lost=False)
    afterwards.on_event(call_started())
    later = gevent.spawn_later(0.05, afterwards.on_event, ended("fallback_goodbye"))
    assert afterwards.answer(bus.Ask(1, CALL, "next")).step == "goodbye"
    later.join()


def test_a_call_whose_worker_lives_and_says_nothing_is_hung_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_S", 0.05)
    afterwards = make(store, lost=False)
    afterwards.on_event(call_started())
    assert afterwards.answer(bus.Ask(1, CALL, "next")).step == "hang_up"


def test_a_call_nobody_knows_is_hung_up(store: Store) -> None:
    assert make(store).answer(bus.Ask(1, OTHER, "next")).step == "hang_up"


def test_a_lost_call_comes_back_with_its_past_and_only_so_often(store: Store) -> None:
    afterwards = make(store)
    started = call_started()
    afterwards.on_event(started)
    for event in (turn(1, "Hello."), turn(2, "Hello?", "caller")):
        afterwards.on_event(event)
    for n in range(1, MAX_RESUMES + 1):
        answer = afterwards.answer(bus.Ask(n, CALL, "next"))
        assert (answer.step, answer.resumes, answer.began_at) == ("resume", n, started.answered_at)
        assert afterwards.answer(bus.Ask(n, CALL, "conversation")).utterances == [
            Utterance("agent", "Hello."),
            Utterance("caller", "Hello?"),
        ]
        afterwards.on_event(call_started())
        afterwards.on_event(bus.CallEvent(CALL, "resumed", time.time(), {"n": n}))
    assert afterwards.answer(bus.Ask(9, CALL, "next")).step == "goodbye"


def test_what_control_has_not_heard_itself_the_store_knows(store: Store) -> None:
    """Control was replaced in the middle of the call; what came since is put behind what is stored, and nothing twice."""
    started = call_started()
    resumed = bus.CallEvent(CALL, "resumed", time.time(), {"n": 1})
    write(store, started, turn(1, "Hello."), turn(2, "Hello?", "caller"), resumed)
    afterwards = make(store)
    afterwards.on_event(turn(2, "Hello?", "caller"))
    afterwards.on_event(turn(3, "And now?"))
    answer = afterwards.answer(bus.Ask(1, CALL, "conversation"))
    assert [utterance.text for utterance in answer.utterances] == ["Hello.", "Hello?", "And now?"]
    answer = afterwards.answer(bus.Ask(2, CALL, "next"))
    assert (answer.step, answer.resumes, answer.agent) == ("resume", 2, "default")
    assert abs(answer.began_at - started.answered_at) < 0.001


def test_a_store_that_does_not_answer_costs_the_answer_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", {"next": 0.05, "conversation": 0.05})
    afterwards = make(store)
    monkeypatch.setattr(store, "call", lambda call_sid: gevent.sleep(5))
    assert afterwards.answer(bus.Ask(4, CALL, "next")) == bus.Answer(4)


def test_what_is_remembered_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 1)
    afterwards = make(store)
    afterwards.on_event(call_started())
    afterwards.on_event(call_started(OTHER))
    assert afterwards.answer(bus.Ask(1, CALL, "next")).step == "hang_up"
    assert afterwards.answer(bus.Ask(2, OTHER, "next")).step == "resume"


# -- transfers --------------------------------------------------------------------------------------------------------


def test_a_caller_is_handed_on_and_nothing_is_left_to_do(store: Store) -> None:
    server = ScriptedRest()
    try:
        call = {"sid": CALL, "status": "in-progress"}
        server.posts.extend([refusal(503, 0), Answer(200, call)])
        afterwards = make(store, lost=False)
        told: list[str] = []

        def done(call_sid: str) -> None:
            afterwards.on_transferred(call_sid)
            told.append(call_sid)

        transfers = Transfers(TwilioRest(server.config()), done=done)
        afterwards.on_event(call_started())
        transfers.on_event(bus.CallEvent(CALL, "transfer_wanted", time.time(), {"to": "+15005550009"}))
        with gevent.Timeout(scaled(20)):
            while not told:
                gevent.sleep(0.01)
        assert (told, len(server.seen)) == ([CALL], 2)
        assert "<Dial><Number>+15005550009</Number></Dial>" in server.seen[1].form["Twiml"][0]
        afterwards.on_event(ended("fallback_transfer"))
        assert afterwards.answer(bus.Ask(1, CALL, "next")).step == "hang_up"
        transfers.stop()
    finally:
        server.stop()


def test_what_rest_will_not_do_is_left_to_the_webhook(store: Store) -> None:
    server = ScriptedRest()
    try:
        server.posts.append(refusal(404, 20404))
        told: list[str] = []
        transfers = Transfers(TwilioRest(server.config()), done=told.append)
        transfers.on_event(bus.CallEvent(CALL, "transfer_wanted", time.time(), {"to": "+15005550009"}))
        with gevent.Timeout(scaled(20)):
            while not server.seen:
                gevent.sleep(0.01)
        gevent.sleep(0.05)
        assert told == []
        assert len(server.seen) == 1
        transfers.stop()
    finally:
        server.stop()
    Transfers(None, done=told.append).on_event(bus.CallEvent(CALL, "transfer_wanted", time.time(), {"to": "+1"}))
    assert told == []
