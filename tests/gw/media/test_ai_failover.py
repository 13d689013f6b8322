"""gw.media.ai_failover: a leg that fails is replaced or the call falls back, a session near its end gets a successor in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import Any

import gevent
import pytest

from gw import bus
from gw.call.conversation import Utterance
from gw.call.pending_reply import CONTINUE, REPEAT, RETURN
from gw.call.reconnect import Rollover
from gw.call.resume import Resumed
from gw.call.state import Reason, State
from gw.call.turns import Turn
from gw.config import Agent
from gw.media import ai_failover
from gw.media.ai.leg import AiLegError
from gw.media.ai_failover import LISTEN_S, lifetime_of
from gw.media.ai_in import AiIn
from gw.media.call import Call
from gw.protocol import ai
from gw.protocol.audio import FRAME_BYTES
from tests.gw.media.support import WAIT_S, ContextMaker, FakeLeg, call_of, transport_and_peer, until

READY = (ai.SessionCreated(0.0), ai.SessionReady())
LOST = AiLegError(Reason.AI_LOST, "the socket broke")


class Rig:
    """A call with AI-in in a greenlet, whose legs are in memory: `legs` are given in order, then ones that get ready."""

    def __init__(self, contexts: ContextMaker, *, media: dict[str, Any] | None = None, **agent: Any) -> None:
        self.context, self.emitted = contexts.context(media=media)
        self.context.holding = bytes(range(256)) * 50
        self.legs: list[FakeLeg] = []
        self.opened: list[FakeLeg] = []
        self.context.ai_leg = self._leg
        self._sockets = transport_and_peer()
        self.call: Call = call_of(self.context, Agent(**{"greeting": "Greet.", "goodbye": "", **agent}), self._sockets[0])
        self.ai_in = AiIn(self.call)
        self.failover = self.ai_in.failover
        self.greenlet = gevent.Greenlet(self.ai_in.run)

    def _leg(self, agent: Agent) -> FakeLeg:
        leg = FakeLeg() if not self.opened else self.legs.pop(0) if self.legs else FakeLeg(*READY)
        self.opened.append(leg)
        return leg

    def start(self, *legs: FakeLeg) -> FakeLeg:
        """Run AI-in until its first leg is ready; `legs` come after it."""
        self.legs += legs
        self.opened[0].put(*READY)
        self.greenlet.start()
        until(lambda: self.call.state.now is State.ACTIVE)
        return self.opened[0]

    @property
    def leg(self) -> FakeLeg:
        leg: Any = self.call.ai.leg
        return leg

    def notes(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.emitted if isinstance(event, bus.CallEvent) and event.kind == kind]

    def close(self) -> None:
        self.call.end(Reason.CALLER_HANGUP)
        self.call.ai.leg.wake()
        self.greenlet.join(WAIT_S)
        gevent.killall(list(self.call.ai.greenlets))
        self._sockets[0].shut()
        self._sockets[1].close()


@pytest.fixture
def rigs(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    """Makes rigs, whose pauses are as short as chance allows."""
    made: list[Rig] = []

    def make(**options: Any) -> Rig:
        made.append(Rig(contexts, **options))
        return made[-1]

    monkeypatch.setattr(ai_failover.random, "random", lambda: 0.0)
    yield make
    for rig in made:
        rig.close()


def test_a_first_leg_is_asked_for_the_greeting(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    leg = rig.start()
    assert leg.sent == [("say", "system", "Greet."), ("create_response",)]
    assert rig.notes("ai_leg_replaced") == []


def test_a_call_without_a_greeting_waits_for_the_caller(rigs: Callable[..., Rig]) -> None:
    assert rigs(greeting="").start().sent == []


def test_a_resumed_call_gets_its_history_and_a_request_to_mention_the_break(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.call.events.resumed = Resumed(1, time() - 60.0)
    answer = bus.Answer(1, utterances=[Utterance("caller", "Hello?")])
    rig.context.ask = lambda call_sid, about: answer
    leg = rig.start()
    assert leg.sent == [("say", "caller", "Hello?"), ("say", "system", RETURN), ("create_response",)]


def test_a_leg_that_fails_is_replaced_and_given_history_and_the_broken_sentence(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    first = rig.start()
    rig.call.report_turns([Turn(1, "caller", "Hello?", "c1", 0, False, None)])
    first.put(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(FRAME_BYTES)))
    until(lambda: rig.call.ai.responses.active_id)
    rig.call.uplink.push("AA==")
    first.fail(LOST)
    until(lambda: len(rig.opened) == 2 and rig.call.state.now is State.ACTIVE)
    rig.call.uplink.push("AQ==")
    assert rig.leg is rig.opened[1]
    assert rig.leg.sent == [
        ("say", "caller", "Hello?"),
        ("say", "system", CONTINUE),
        ("create_response",),
        ("send_audio", "AQ=="),
    ]
    assert ("close",) in first.sent
    assert rig.notes("ai_leg_lost") == [{"reason": "ai_lost", "detail": "the socket broke"}]
    assert rig.notes("ai_leg_replaced") == [{"reason": "lost"}]
    assert rig.context.cells.reconnects["lost"].value == 1


def test_an_attempt_that_fails_too_is_one_loss(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    second = FakeLeg()
    second.connect_error = AiLegError(Reason.AI_UNREACHABLE, "connection refused")
    first = rig.start(second)
    first.fail(LOST)
    until(lambda: len(rig.opened) == 3 and rig.call.state.now is State.ACTIVE)
    assert len(rig.notes("ai_leg_lost")) == len(rig.notes("ai_leg_replaced")) == 1


def test_a_caller_whose_words_were_lost_is_asked_to_repeat_them_unless_heard_again(rigs: Callable[..., Rig]) -> None:
    rig = rigs(greeting="")
    first = rig.start()
    first.put(ai.SpeechStarted("c1", 0), ai.SpeechStopped("c1"))
    until(lambda: rig.call.ai.pending_reply.request() is not None)
    first.fail(LOST)
    until(lambda: len(rig.opened) == 2 and rig.call.state.now is State.ACTIVE)
    now_s = monotonic()
    rig.failover.check(now_s + LISTEN_S - 0.5)
    assert rig.leg.of("create_response") == []
    rig.failover.check(now_s + LISTEN_S + 0.1)
    assert ("say", "system", REPEAT) in rig.leg.sent
    rig.call.ai.responses.on_lost()
    rig.failover._later = (now_s, REPEAT)
    rig.call.ai.pending_reply.on_caller_started("c2")
    rig.failover.check(now_s + LISTEN_S + 0.1)
    assert rig.failover._later is None
    assert ("say", "system", REPEAT) in rig.leg.sent, "the caller speaks again"


@pytest.mark.parametrize(
    ("media", "error"),
    [
        ({"ai_reconnect_s": 0.0}, LOST),
        ({}, AiLegError(Reason.AI_REFUSED, "no such key", permanent=True)),
    ],
    ids=["no time", "permanent"],
)
def test_a_call_without_another_attempt_falls_back(rigs: Callable[..., Rig], media: dict[str, Any], error: AiLegError) -> None:
    rig = rigs(media=media)
    rig.start().fail(error)
    rig.greenlet.join(WAIT_S)
    assert (rig.call.state.reason, rig.call.ending.detail) == (error.reason, error.detail)
    assert len(rig.opened) == 1


def test_a_leg_that_fails_while_the_call_closes_is_not_replaced(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    first = rig.start()
    rig.call.downlink.play("r1", "i1", bytes(FRAME_BYTES))
    rig.call.ending.finish(Reason.AI_HANGUP)
    first.fail(LOST)
    rig.greenlet.join(WAIT_S)
    assert len(rig.opened) == 1
    assert rig.call.state.now is State.CLOSING


def test_a_call_that_ends_during_the_pause_gets_no_leg(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    first = rig.start()
    first.fail(AiLegError(Reason.AI_RATE_LIMITED, "slow down"))
    until(lambda: rig.notes("ai_leg_lost"))
    rig.call.end(Reason.CALLER_HANGUP)
    rig.greenlet.join(WAIT_S)
    assert rig.greenlet.successful()
    assert len(rig.opened) == 1


def test_what_the_watchdog_found_replaces_the_leg(rigs: Callable[..., Rig]) -> None:
    rig = rigs()
    rig.start()
    rig.call.ai.fail((Reason.AI_STALLED, "no event"))
    until(lambda: len(rig.opened) == 2 and rig.call.state.now is State.ACTIVE)
    assert rig.notes("ai_leg_replaced") == [{"reason": "stalled"}]


def test_an_ai_that_confirms_nothing_is_out_of_time(rigs: Callable[..., Rig]) -> None:
    rig = rigs(media={"ai_connect_s": 0.05, "ai_reconnect_s": 0.0})
    rig.greenlet.start()
    rig.greenlet.join(WAIT_S)
    assert rig.call.state.reason is Reason.AI_TIMEOUT


def test_the_holding_sound_is_played_while_no_leg_is_ready(rigs: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ai_failover, "HOLD_AFTER_S", 0.0)
    rig = rigs()
    second = FakeLeg()
    first = rig.start(second)
    first.fail(LOST)
    playout = rig.call.downlink.playout
    until(lambda: playout.depth_bytes)
    assert rig.call.state.now is State.CONNECTING
    second.put(*READY)
    until(lambda: rig.call.state.now is State.ACTIVE)
    assert rig.failover._holder is None
    pieces = [playout.pop() for _ in range(20)]
    assert pieces[0] == rig.context.holding[:FRAME_BYTES]


# -- a session near its end -------------------------------------------------------------------------------------------


def rolled(rig: Rig, *, forced: bool) -> None:
    """Let the current session come near its end."""
    now_s = monotonic()
    rig.failover._rollover = Rollover(now_s - 1.0, now_s - 0.5 if forced else now_s + 100.0)
    rig.leg.heard_s = now_s - 10.0
    rig.failover.check(now_s)


def test_a_successor_takes_over_when_neither_side_speaks(rigs: Callable[..., Rig]) -> None:
    rig = rigs(greeting="")
    first = rig.start()
    rolled(rig, forced=False)
    until(lambda: rig.failover._successor is not None)
    assert rig.leg is first
    rig.failover.check(monotonic())
    until(lambda: rig.leg is not first)
    until(lambda: rig.notes("ai_leg_replaced"))
    assert rig.notes("ai_leg_replaced") == [{"reason": "expiring"}]
    assert rig.call.state.now is State.ACTIVE
    assert rig.leg is rig.opened[1]
    assert ("close",) in first.sent
    assert ("close",) not in rig.leg.sent


def test_a_successor_waits_for_the_agents_sentence_until_the_last_moment(rigs: Callable[..., Rig]) -> None:
    rig = rigs(greeting="")
    first = rig.start()
    first.put(ai.ResponseStarted("r1"), ai.AudioDelta("r1", "i1", bytes(FRAME_BYTES)))
    until(lambda: rig.call.ai.responses.active_id)
    rolled(rig, forced=False)
    until(lambda: rig.failover._successor is not None)
    rig.failover.check(monotonic())
    first.put(ai.AudioDelta("r1", "i1", b"x"))
    gevent.sleep(0.01)
    assert rig.leg is first
    rolled(rig, forced=True)
    until(lambda: rig.leg is not first)
    until(lambda: ("say", "system", CONTINUE) in rig.leg.sent)


def test_a_successor_that_cannot_be_opened_is_tried_again_later(rigs: Callable[..., Rig]) -> None:
    rig = rigs(greeting="")
    broken = FakeLeg(ai.AiError("no", "not now", True, "lasting"))
    first = rig.start(broken)
    rolled(rig, forced=False)
    until(lambda: rig.failover._retry_s)
    assert ("close",) in broken.sent
    rig.failover.check(monotonic())
    assert rig.failover._opener is None, "not before its pause"
    rig.failover.check(rig.failover._retry_s + 0.1)
    until(lambda: rig.failover._successor is not None)
    assert rig.leg is first


def test_a_successor_is_closed_when_the_call_ends(rigs: Callable[..., Rig]) -> None:
    rig = rigs(greeting="")
    first = rig.start()
    rolled(rig, forced=False)
    until(lambda: rig.failover._successor is not None)
    rig.call.end(Reason.CALLER_HANGUP)
    first.wake()
    rig.greenlet.join(WAIT_S)
    until(lambda: ("close",) in rig.opened[1].sent)


def test_a_lifetime_is_counted_from_now(rigs: Callable[..., Rig]) -> None:
    assert lifetime_of(ai.SessionCreated(0.0)) == 0.0
    assert lifetime_of(ai.SessionCreated(1.0)) == 1.0
    assert lifetime_of(ai.SessionCreated(time() + 600.0)) == pytest.approx(600.0, abs=5.0)
