"""Each law of a conversation is broken by a flaw in a good course."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gw.twin.ai.ledger import AiLedger, SentCall, SentResponse, Truncate
from gw.twin.ai.script import AiScript
from gw.twin.twilio.caller import TwinCall
from gw.twin.twilio.receiver import DebuggerEntry
from gw.twin.twilio.steps import Step
from gw.twin.twilio.stream import CallPlan
from gw.twin.twilio.webhooks import WebhookSender
from tests.calls.conversations.laws import LAWS, Result, broken
from tests.calls.conversations.scripts import Conversation
from tests.calls.ear import Ear, Span

MADE = Conversation(1, CallPlan(), AiScript(), AiScript(), (), "model", agent_ends=True)


def response(name: str, seconds: float) -> SentResponse:
    sent = SentResponse(1, f"resp_{name}", name, True, b"", "", 0.0, status="completed")
    sent.audio += bytes(round(seconds * 8000))
    return sent


def good() -> Result:
    """Return a call with greeting, question, answer, an interruption and a goodbye."""
    call = TwinCall(1, "AC1", CallPlan(), WebhookSender("http://127.0.0.1:9", "http://127.0.0.1:9", ""), "", None)
    call.closed_by, call.streams_s = "gateway", [0.0]
    session = AiLedger(0, "/", "", {}, 0.0, ready_s=0.1)
    session.responses = [response("greeting", 1.0), response("answer", 3.0), response("bye", 1.0)]
    session.truncates = [Truncate(6.1, "answer", 1600, True)]
    session.calls = [SentCall(7.0, "resp_bye", "call_1", "hang_up", "completed")]
    ear = Ear(
        agent=(Span(0.5, 1.5, "greeting"), Span(4.5, 6.1, "answer"), Span(8.2, 9.2, "bye")),
        caller=(Span(2.0, 3.4), Span(6.0, 7.0)),
        ended_s=9.3,
    )
    return Result(MADE, call, (session,), ear, "ai_hangup")


def test_no_law_is_broken() -> None:
    assert broken(good()) == []


def heard(held: Result, **changes: Any) -> Result:
    return replace(held, ear=replace(held.ear, **changes))


def no_end(held: Result) -> Result:
    return replace(held, reason="")


def limit(held: Result) -> Result:
    held.call.closed_by = "limit"
    return held


def wrong_reason(held: Result) -> Result:
    held.call.closed_by = "caller"
    return held


def invalid_message(held: Result) -> Result:
    held.call._receiver.warnings.append(DebuggerEntry(0.0, 31951, "no"))
    return held


def careless(held: Result) -> Result:
    held.sessions[0].violations.append("audio before session.updated")
    return held


def late_answer(held: Result) -> Result:
    greeting, answer, bye = held.ear.agent
    return heard(held, agent=(greeting, answer._replace(start_s=5.5), bye))


def silent_start(held: Result) -> Result:
    greeting, *rest = held.ear.agent
    return heard(held, agent=(greeting._replace(start_s=1.4), *rest))


def silent_keys(held: Result) -> Result:
    held.call.done = [(1.6, Step("press", keys="1 #"))]
    return heard(held, caller=held.ear.caller[1:])


def no_words(held: Result) -> Result:
    return heard(held, agent=held.ear.agent[:2], ended_s=8.0)


def talk_over(held: Result) -> Result:
    greeting, answer, bye = held.ear.agent
    held.sessions[0].truncates = [Truncate(6.1, "answer", 2000, True)]
    return heard(held, agent=(greeting, answer._replace(end_s=6.5), bye))


def cut(held: Result) -> Result:
    greeting, answer, bye = held.ear.agent
    return heard(held, agent=(greeting, answer, bye._replace(end_s=8.7)))


def lost(held: Result) -> Result:
    held.call.done = [(8.0, Step("reset", lasts_s=0.2))]
    return held


def wrong_truncate(held: Result) -> Result:
    held.sessions[0].truncates = [Truncate(6.1, "answer", 1630, True)]
    return held


def repeated(held: Result) -> Result:
    greeting, *rest = held.ear.agent
    return heard(held, agent=(greeting, Span(1.5, 1.56, "greeting", 40), *rest))


def another_session(held: Result) -> Result:
    return replace(held, sessions=(*held.sessions, AiLedger(1, "/", "", {}, 5.0)))


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        (no_end, "every call ends"),
        (limit, "every call ends"),
        (wrong_reason, "every call ends"),
        (invalid_message, "messages are correct"),
        (careless, "messages are correct"),
        (late_answer, "no dead air"),
        (silent_start, "no dead air"),
        (silent_keys, "no dead air"),
        (no_words, "the end has words"),
        (talk_over, "no talk-over"),
        (cut, "goodbyes are whole"),
        (lost, "a lost socket loses nobody"),
        (wrong_truncate, "truncations match the ear"),
        (repeated, "no frame twice"),
        (another_session, "sessions are few"),
    ],
)
def test_a_flaw_breaks_its_law(flaw: Any, law: str) -> None:
    assert law in {name for name, _ in broken(flaw(good()))}


def test_every_law_has_a_flaw() -> None:
    cases = next(mark for mark in test_a_flaw_breaks_its_law.pytestmark if mark.name == "parametrize").args[1]
    assert {law for _, law in cases} == {*LAWS}


def test_what_faults_excuse() -> None:
    """Another session after a fault, silence while a stream is opened again, words in a language of Twilio's."""
    assert broken(replace(another_session(good()), made=replace(MADE, faults=("close",)))) == []
    reopened = late_answer(good())
    reopened.call.done, reopened.call.streams_s = [(3.5, Step("reset", lasts_s=0.2))], [0.0, 4.0]
    reopened.sessions[0].truncates = []
    assert [text for name, text in broken(reopened) if name == "no dead air"] == []
    stopless = replace(wrong_reason(good()), made=replace(MADE, plan=CallPlan(sends_stop=False)), reason="phone_lost")
    assert broken(stopless) == []
    bid = lost(good())
    bid.call.done = [(8.5, Step("reset", lasts_s=0.2))]
    assert [name for name, _ in broken(bid)] == ["a lost socket loses nobody"]
    assert broken(heard(bid, words=("Goodbye.",))) == []
    refused = replace(lost(good()), made=replace(MADE, faults=("create_refused_quota",)))
    assert "a lost socket loses nobody" in [name for name, _ in broken(refused)]
    assert "a lost socket loses nobody" not in [name for name, _ in broken(heard(refused, words=("We are sorry.",)))]
    spoken = no_words(good())
    spoken.call.spoken = ["Goodbye."]
    assert [name for name, _ in broken(spoken) if name == "the end has words"] == []
