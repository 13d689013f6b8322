"""A failed AI leg is replaced: the successor's conversation, the caller's audio, and the end.

All cases are calls on one gateway at the same time, beside a good call. Each has its own agent, whose sessions fail one after the
other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import gevent
import pytest

import gw.config
from gw.call.dialogue import rules
from gw.call.dialogue.commands import Prompt
from gw.call.prompts import text_of
from gw.config import Agent
from gw.twin import speech
from gw.twin.ai.ledger import AiLedger
from gw.twin.ai.script import AiScript
from gw.twin.ai.server import AiTwin
from gw.twin.twilio.dial import Callee
from gw.twin.twilio.stream import CallPlan
from tests.calls.conftest import World, WorldMaker
from tests.calls.hearing import check_uplink
from tests.calls.shared import Outcome, end_good, held_between, murmur, padded, place_good, run_world, speaking
from tests.timing import scaled

MEDIA: Final = gw.config.Media(ai_connect_s=scaled(2.0), ai_stall_s=scaled(1.5), ai_reconnect_s=scaled(8.0))
GOODBYE: Final = "Something broke. Goodbye."
NUMBER: Final = "+15005550009"
CONTINUE: Final = text_of(Prompt.CONTINUE)
REPEAT: Final = text_of(Prompt.REPEAT)
#: The successor's audio, which differs from its predecessor's.
SECOND: Final = speech.load("thanks")
#: Heard before a session that nears its end is replaced.
SHORT: Final = SECOND[:8000]
WORDS: Final = "These words were on their way."
OK: Final = AiScript(answers=(SECOND,), speed=20.0)
ASKS: Final = tuple(speech.script(500, "weasels", 12_000))


def breaking(fault: Any, deltas: int = 6, **changes: Any) -> AiScript:
    return speaking(3.0, agent_words=(WORDS,), speed=20.0, **changes).with_fault(fault, deltas=deltas)


class Case(NamedTuple):
    """Scripts of an agent's sessions, the last for all further ones, and the end.

    `label` is the metric's reason for the first replacement.
    """

    scripts: tuple[AiScript, ...]
    reason: str = "caller_hangup"
    label: str = ""
    says: tuple[bytes, ...] = murmur(12.0)
    agent: dict[str, Any] = {}
    rest: str = ""  # Twilio's fault at each update of the call


#: The leg breaks in the middle of the greeting; the next one works.
IN_A_SENTENCE: Final = {
    "reset": Case((breaking("reset"), OK), label="lost"),
    "close": Case((breaking("close"), OK), label="closed"),
    "stall": Case((breaking("stall"), OK), label="stalled"),
    "freeze": Case((breaking("freeze"), OK), label="stalled"),
    "bad_json": Case((breaking("bad_json"), OK), label="failed"),
    "session_expired": Case((breaking("session_expired"), OK), label="expiring"),
}
REFUSED: Final = AiScript(fault="refuse_500")
#: The leg was not connected when the greeting was due.
BEFORE_A_WORD: Final = {
    "refused_twice": Case((REFUSED, REFUSED, OK), label="failed"),
    "too_often": Case((AiScript(fault="refuse_429"), OK), label="rate_limited"),
    "mute_once": Case((AiScript(fault="mute"), OK), label="stalled"),
    "closes_first": Case((AiScript(fault="close_first"), OK), label="closed"),
}
#: The leg breaks while the caller waits for an answer.
WAITING: Final = AiScript(answers=(SECOND,), thinking_s=0.4, speed=20.0, caller_words=("What time is it?",))
IN_A_QUESTION: Final = {
    "words_known": Case((WAITING.with_fault("reset", deltas=0), OK), label="lost", says=ASKS, agent={"greeting": ""}),
    "words_lost": Case(
        (WAITING.with_fault("reset", deltas=0), OK), label="lost", says=ASKS, agent={"greeting": "", "transcription_model": ""}
    ),
}


def transferred(rest: str = "") -> Case:
    agent = {"fallback": "transfer", "transfer_to": NUMBER}
    return Case((AiScript(fault="refuse_401"),), "fallback_transfer", says=murmur(20.0), agent=agent, rest=rest)


PERMANENT: Final = {
    "wrong_key": Case((breaking("reset"), AiScript(fault="refuse_401")), "fallback_goodbye", says=murmur(20.0)),
    "always_refused": Case((REFUSED,), "fallback_goodbye", says=murmur(20.0)),
    "dies_each_time": Case((breaking("reset", deltas=1),), "fallback_goodbye", says=murmur(30.0)),
    "no_name": Case((OK,), "fallback_goodbye", says=murmur(20.0), agent={"base_url": f"ws://{'a' * 70}.example/"}),
    "too_many_words": Case((AiScript(fault="rate_limited"),), "fallback_goodbye", says=murmur(20.0)),
    "no_words": Case((AiScript(fault="refuse_401"),), "ai_refused", says=murmur(20.0), agent={"goodbye": ""}),
    "transferred": transferred(),
    "transfer_done": transferred("503_with_effect"),
    "transfer_not_done": transferred("503"),
}
OTHERS: Final = {
    # One delta lasts 1.2 s at most, and the holding sound comes 0.9 s later; the pauses before five attempts last 2.5 s at least.
    "away_for_long": Case((breaking("reset", deltas=1), *(REFUSED,) * 4, OK), label="lost", says=murmur(12.0)),
    "nears_its_end": Case(
        (AiScript(answers=(SHORT,), lifetime_s=4.0, expires=True), AiScript(answers=(SHORT,))),
        label="expiring",
        says=murmur(7.0),
    ),
    # Its successor is opened at half of its lifetime, which is announced in whole seconds: 2.5 to 3 s before its end.
    "a_short_session": Case(
        (AiScript(answers=(speech.load("weasels") * 5,), lifetime_s=6.0, expires=True, speed=2.0), OK),
        label="expiring",
        says=murmur(16.0),
    ),
}
CASES: Final = {**IN_A_SENTENCE, **BEFORE_A_WORD, **IN_A_QUESTION, **PERMANENT, **OTHERS}


def scripts() -> Callable[[int, str], AiScript]:
    """Return a function that gives each session its script. The good agent has no name."""
    opened: Counter[str] = Counter()

    def next_of(index: int, path: str) -> AiScript:
        name = path.removeprefix("/v1/realtime").strip("/")
        if name not in CASES:
            return speaking(9.0)
        opened[name] += 1
        chosen = CASES[name].scripts
        return chosen[min(opened[name], len(chosen)) - 1]

    return next_of


def _place_calls(world: World, outcome: Outcome) -> None:
    place_good(world, outcome)
    world.twilio.callees[NUMBER] = Callee(after_s=3.0)  # rings for longer than a retry would wait
    for name, case in CASES.items():
        plan = CallPlan(agent=name, speech=case.says, max_s=scaled(40))
        outcome.calls[name] = call = world.twilio.place(plan)
        if case.rest:
            world.twilio.rest.fail(case.rest, 1000, call.call_sid, "call_update")  # type: ignore[arg-type]
        gevent.sleep(0.01)
    for name, call in outcome.calls.items():
        assert name == "good" or call.wait(scaled(45)), f"{name} did not end"
    end_good(world, outcome)
    for call in outcome.calls.values():
        world.gateway.ended(call.call_sid)
    outcome.keep(world)
    sessions: dict[str, list[AiLedger]] = defaultdict(list)
    for session in world.ai.sessions:
        sessions[session.path.removeprefix("/v1/realtime").strip("/")].append(session)
    outcome.seen["sessions"] = sessions
    outcome.seen["requests"] = [(method, path, status) for _, method, path, status in world.twilio.rest.requests]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, shared_store: gw.config.Store) -> Outcome:
    """Place every call above at the same time, beside a good one."""

    def agents(ai: AiTwin) -> dict[str, Agent]:
        def agent(name: str, case: Case) -> Agent:
            keys: dict[str, Any] = {"provider": "openai", "base_url": f"{ai.url}/{name}", "goodbye": GOODBYE, **case.agent}
            return Agent(**keys)

        return {name: agent(name, case) for name, case in CASES.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "MIN_LIFETIME_MS", 1000)  # sessions of seconds are rolled over as sessions of minutes are
        return run_world(tmp_path_factory.mktemp("lost"), shared_store, scripts(), _place_calls, agents=agents, media=MEDIA)


def sessions(outcome: Outcome, name: str) -> list[AiLedger]:
    """Return the agent's sessions that were established, in sequence."""
    found: list[AiLedger] = outcome.seen["sessions"][name]
    return found


def restated(session: AiLedger) -> list[tuple[str, str]]:
    """Return the conversation that was sent to a new session: role and text of each item."""
    items = [event.body["item"] for event in session.events if event.kind == "conversation.item.create"]
    return [(item["role"], item["content"][0]["text"]) for item in items if item["role"] != "system"]


def requested(session: AiLedger) -> list[str]:
    """Return the system item before each requested response, or an empty text."""
    found, text = [], ""
    for event in session.events:
        if event.kind == "conversation.item.create" and event.body["item"]["role"] == "system":
            text = event.body["item"]["content"][0]["text"]
        elif event.kind == "response.create":
            found.append(text)
            text = ""
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_end_has_its_reason(outcome: Outcome, name: str) -> None:
    case, call, row = CASES[name], outcome.calls[name], outcome.rows[name]
    assert row is not None
    assert row["reason"] == case.reason, row["detail"]
    assert (call.error, call.warnings) == ("", [])
    labels = [event["data"]["reason"] for event in row["events"] if event["kind"] == "ai_leg_replaced"]
    if case.label:
        assert labels[:1] == [case.label]
    for session in sessions(outcome, name):
        assert session.violations == []


@pytest.mark.parametrize("name", IN_A_SENTENCE)
def test_an_interrupted_sentence_continues_in_the_next_session(outcome: Outcome, name: str) -> None:
    first, second = sessions(outcome, name)
    sent = first.responses[0].deltas[:6]
    begun = padded(first.responses[0].audio[: sum(delta.size for delta in sent)])
    held_between(outcome.calls[name].received_audio, begun, padded(SECOND))
    assert restated(second) == [("assistant", WORDS)]
    assert requested(second) == [CONTINUE]
    assert second.ready_s is not None
    broke_s = sent[-1].at_s + (MEDIA.ai_stall_s if name in ("stall", "freeze") else 0.0)
    assert second.ready_s - broke_s < scaled(2.0)
    row = outcome.rows[name]
    assert row is not None
    assert (row["turns"][0]["text"], row["turns"][0]["interrupted"]) == (WORDS, False)


@pytest.mark.parametrize("name", BEFORE_A_WORD)
def test_the_greeting_is_heard_once_from_the_session_that_works(outcome: Outcome, name: str) -> None:
    call = outcome.calls[name]
    last = sessions(outcome, name)[-1]
    held_between(call.received_audio, b"", padded(SECOND))
    assert requested(last) == [Agent().greeting]
    assert restated(last) == []


@pytest.mark.parametrize("name", IN_A_QUESTION)
def test_a_waiting_caller_is_answered_by_the_next_session(outcome: Outcome, name: str) -> None:
    _, second = sessions(outcome, name)
    known = name == "words_known"
    assert restated(second) == ([("user", "What time is it?")] if known else [])
    assert requested(second) == ["" if known else REPEAT]
    assert outcome.calls[name].received_audio.endswith(padded(SECOND))


def test_a_long_wait_is_filled_with_the_hold_tone(outcome: Outcome) -> None:
    call = outcome.calls["away_for_long"]
    first, last = sessions(outcome, "away_for_long")
    begun = padded(first.responses[0].audio[: first.responses[0].deltas[0].size])
    assert held_between(call.received_audio, begun, padded(SECOND)) != b""
    assert requested(last) == [CONTINUE]


@pytest.mark.parametrize("name", ["nears_its_end"])
def test_a_session_that_nears_its_end_is_replaced_without_a_gap(outcome: Outcome, name: str) -> None:
    """No audio of the caller is lost or sent twice, and no response is requested again."""
    call = outcome.calls[name]
    first, second = sessions(outcome, name)
    assert first.closed_by == "peer", "the gateway closes the session before it expires"
    assert first.errors == []
    check_uplink(call, first, second)
    held_between(call.received_audio, b"", padded(SHORT))
    assert restated(second) == [("assistant", "I hear you.")]
    assert requested(second) == []


def test_a_session_that_ends_in_the_middle_of_speech_is_replaced_by_its_successor(outcome: Outcome) -> None:
    first, second = sessions(outcome, "a_short_session")
    assert first.closed_by == "us"
    assert first.closed_s is not None
    assert second.ready_s is not None
    assert second.ready_s < first.closed_s
    assert requested(second) == [CONTINUE]
    call = outcome.calls["a_short_session"]
    check_uplink(call, first, second)


@pytest.mark.parametrize("name", [name for name, case in PERMANENT.items() if case.reason == "fallback_goodbye"])
def test_without_an_ai_the_caller_hears_the_goodbye(outcome: Outcome, name: str) -> None:
    call, row = outcome.calls[name], outcome.rows[name]
    assert row is not None
    assert call.spoken == [GOODBYE]
    assert row["detail"].startswith("ai_")
    assert row["result"] == "peer_error"


def test_no_goodbye_is_spoken_without_a_text(outcome: Outcome) -> None:
    assert outcome.calls["no_words"].spoken == []


@pytest.mark.parametrize(("name", "status"), [("transferred", 200), ("transfer_done", 503), ("transfer_not_done", 503)])
def test_without_an_ai_the_caller_is_transferred(outcome: Outcome, name: str, status: int) -> None:
    """The number is dialled once, whatever Twilio did before it answered: by REST, or by the answer to the action webhook."""
    call = outcome.calls[name]
    assert call.dialled == [NUMBER]
    path = f"/2010-04-01/Accounts/{call.account_sid}/Calls/{call.call_sid}.json"
    assert [request for request in outcome.seen["requests"] if request[1] == path] == [("POST", path, status)]


def test_a_refused_transfer_is_left_to_the_webhook_immediately(world: WorldMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gw.media.call_ending, "TRANSFER_S", 600.0)
    agent = {"fallback": "transfer", "transfer_to": NUMBER}
    with world(AiScript(fault="refuse_401"), agent=agent, media=MEDIA) as w:
        w.twilio.rest.fail("20404", operation="call_update")
        call = w.twilio.place(CallPlan(hang_up=False, max_s=scaled(60.0)))
        assert call.wait(scaled(40.0))
        assert call.dialled == [NUMBER]
        row = w.gateway.ended(call.call_sid)
        assert row["reason"] == "fallback_transfer"
        assert row["detail"].startswith("ai_refused"), row["detail"]


def test_each_replaced_leg_is_counted(outcome: Outcome) -> None:
    replaced: Counter[str] = Counter()
    for row in outcome.rows.values():
        assert row is not None
        replaced.update(event["data"]["reason"] for event in row["events"] if event["kind"] == "ai_leg_replaced")
    labels = (name for name in outcome.metrics if name.startswith("gw_ai_reconnects_total{"))
    assert {name.split('"')[1]: int(outcome.metrics[name]) for name in labels if outcome.metrics[name]} == dict(replaced)


def test_the_good_call_beside_them_is_undisturbed(outcome: Outcome) -> None:
    outcome.check_good()


def test_no_greenlet_descriptor_or_open_call_remains(outcome: Outcome) -> None:
    outcome.check_nothing_left()
