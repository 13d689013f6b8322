"""gw.control.calls.left_calls: the next step for a call that left its stream, once for each wish."""

from __future__ import annotations

import pytest

from gw import bus
from gw.call.leave import Leave, decode_leave, encode_leave
from gw.call.resume import MAX_STREAMS
from gw.control.calls import left_calls as module
from gw.control.calls.left_calls import LeftCalls
from gw.control.calls.registry import Call
from gw.control.jobs import lifecycle

SID, KEY = "CA" + "1" * 32, "ab" * 16
WISH = Leave(key=KEY, tool="transfer", call_id="c", target="sales", to="+15550001", whisper="Anna. Press 1.")
DIGITS = Leave(key="cd" * 16, tool="send_digits", call_id="d")


def left_calls() -> LeftCalls:
    jobs = [lifecycle.want("1", "leave", SID, encode_leave(wish), deadline_at=9.0, now=1.0) for wish in (WISH, DIGITS)]
    return LeftCalls(lambda call_sid, kind: jobs if (call_sid, kind) == (SID, "leave") else [])


def ask(outcome: str, n: int = 1, key: str = KEY) -> bus.Ask:
    return bus.Ask(n, SID, "left", key=key, outcome=outcome)


@pytest.mark.parametrize("outcome", ["busy", "no-answer", "declined", "failed"])
def test_a_caller_who_was_not_connected_is_back(outcome: str) -> None:
    call = Call(agent="support", began_at=5.0, resumes=1)
    answer = left_calls().answer(ask(outcome), call)
    assert (answer.step, answer.agent, answer.resumes, answer.began_at) == ("resume", "support", 2, 5.0)
    assert (answer.reason, answer.outcome, answer.text) == ("transferred", outcome, "sales")
    assert (call.returns, call.failures) == ({2}, 1)


@pytest.mark.parametrize("outcome", ["completed", "canceled"])
def test_a_caller_who_was_connected_or_left_is_not(outcome: str) -> None:
    call = Call()
    assert left_calls().answer(ask(outcome), call).step == "hang_up"
    assert call.resumes == 0


def test_a_webhook_that_comes_twice_resumes_once() -> None:
    call, left = Call(), left_calls()
    first, second = left.answer(ask("busy", 1), call), left.answer(ask("busy", 2), call)
    assert (first.resumes, second.resumes, second.n, call.resumes) == (1, 1, 2, 1)


def test_without_a_report_the_key_decides() -> None:
    left = left_calls()
    assert left.answer(ask("ended"), Call()).outcome == "declined"
    left = left_calls()
    left.on_event(bus.CallEvent(SID, "transfer_accepted", 1.0, {"key": KEY}))
    assert left.answer(ask("ended"), Call()).step == "hang_up"


def test_digits_come_back_with_their_own_reason() -> None:
    assert left_calls().answer(ask("sent", key=DIGITS.key), Call()).reason == "digits_sent"


def test_the_whisper_and_the_wish_are_those_of_the_key() -> None:
    left = left_calls()
    assert left.answer(bus.Ask(3, SID, "whisper", key=KEY), Call()) == bus.Answer(3, text="Anna. Press 1.")
    assert left.answer(bus.Ask(3, SID, "whisper", key="0" * 32), Call()).text == ""
    assert decode_leave(left.wish(SID, DIGITS.key)) == DIGITS
    assert left.wish(SID, "") == left.wish("CA2", KEY) == ""


def test_a_call_that_returns_without_end_hears_the_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left_calls().answer(ask("busy"), Call(resumes=MAX_STREAMS)).step == "goodbye"
    monkeypatch.setattr(module, "MAX_KEPT", 1)
    left, call = left_calls(), Call()
    for key in (KEY, DIGITS.key, KEY):
        left.answer(ask("busy", key=key), call)
    assert call.resumes == 3, "the oldest answer was dropped"
