"""gw.media.ai.successor: a leg opened in advance is taken or closed, whatever its AI does."""

from __future__ import annotations

import time

import gevent
import pytest

from gw.call.dialogue.inputs import Input, SuccessorFailed, SuccessorReady
from gw.call.state import Reason
from gw.media.ai.leg import AiLegError
from gw.media.ai.successor import Successor, lifetime_ms_of
from gw.protocol import ai
from tests.gw.media.support import WAIT_S, FakeLeg

REFUSED = AiLegError(Reason.AI_REFUSED, "no")


class Rig:
    """A successor whose AI is in memory, running in a greenlet."""

    def __init__(self, leg: FakeLeg, limit_s: float = WAIT_S) -> None:
        self.leg = leg
        self.reported: list[Input] = []
        self.successor = Successor(leg, limit_s, self.reported.append)  # type: ignore[arg-type]
        self.running = gevent.spawn(self.successor.run)
        gevent.sleep(0)

    def ended(self) -> tuple[list[type[Input]], bool]:
        """Wait for the greenlet. Returns what was reported, and whether the leg was closed."""
        self.running.get(timeout=WAIT_S)
        return [type(one) for one in self.reported], ("close",) in self.leg.sent


def ready() -> Rig:
    rig = Rig(FakeLeg(ai.SessionCreated(time.time() + 60.0), ai.SessionReady()))
    (report,) = rig.reported
    assert isinstance(report, SuccessorReady)
    assert 50_000 < report.lifetime_ms <= 60_000
    return rig


def test_a_leg_that_is_taken_stays_open() -> None:
    rig = ready()
    rig.successor.take()
    assert rig.ended() == ([SuccessorReady], False)


def test_a_leg_that_is_dropped_is_closed() -> None:
    rig = ready()
    rig.successor.drop()
    assert rig.ended() == ([SuccessorReady], True)


def test_a_leg_that_is_lost_while_it_waits_is_reported() -> None:
    rig = ready()
    rig.leg.put(ai.SpeechStarted("c1", 0))  # read and dropped
    rig.leg.fail(REFUSED)
    assert rig.ended() == ([SuccessorReady, SuccessorFailed], True)


def test_a_leg_that_is_lost_after_it_was_taken_is_its_reader_s() -> None:
    rig = ready()
    rig.leg.error = REFUSED
    rig.successor.take()
    assert rig.ended() == ([SuccessorReady], False)


@pytest.mark.parametrize(
    "refusal", [ai.AiError("a", "b", True), ai.AiError("a", "b", False, refuses="session")], ids=["fatal", "session"]
)
def test_a_session_that_is_refused_is_reported(refusal: ai.AiError) -> None:
    assert Rig(FakeLeg(ai.SessionCreated(0.0), refusal)).ended() == ([SuccessorFailed], True)


def test_another_error_does_not_end_the_wait() -> None:
    rig = Rig(FakeLeg(ai.AiError("a", "b", False), ai.SessionReady()))
    assert rig.reported == [SuccessorReady(0)]
    rig.successor.drop()
    assert rig.ended() == ([SuccessorReady], True)


def test_a_leg_that_cannot_connect_is_reported() -> None:
    leg = FakeLeg()
    leg.connect_error = REFUSED
    assert Rig(leg).ended() == ([SuccessorFailed], True)


def test_a_session_that_is_never_confirmed_is_bounded() -> None:
    assert Rig(FakeLeg(), limit_s=0.02).ended() == ([SuccessorFailed], True)


def test_the_lifetime_is_by_our_clock() -> None:
    assert lifetime_ms_of(0.0) == 0
    assert lifetime_ms_of(time.time() - 5.0) < 0
    assert 9_000 < lifetime_ms_of(time.time() + 10.0) <= 10_000
