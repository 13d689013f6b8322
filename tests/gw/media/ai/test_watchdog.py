"""gw.media.ai.watchdog: a leg checked at times that the test chooses."""

from __future__ import annotations

import pytest

from gw.call.state import Reason
from gw.media.ai.parrot_leg import ParrotLeg, Prompts
from gw.media.ai.watchdog import Watchdog

LIMIT_S = 4.0


class Leg(ParrotLeg):
    """A leg with the state that the test sets."""

    heard_s = 0.0
    is_congested = False
    pings = 0

    def ping(self) -> None:
        self.pings += 1


@pytest.fixture
def leg() -> Leg:
    return Leg(Prompts())


def test_a_leg_that_sends_is_kept(leg: Leg) -> None:
    watch = Watchdog(LIMIT_S)
    for n in range(100):
        leg.heard_s = n * 0.25
        assert watch.check(leg, n * 0.25) is None
    assert leg.pings == 0


def test_a_problem_that_passes_has_no_effect(leg: Leg) -> None:
    watch = Watchdog(LIMIT_S)
    leg.heard_s, leg.is_congested = 10.0, True
    assert watch.check(leg, 1.0) is None
    assert watch.check(leg, 1.0 + LIMIT_S + 0.1) is None
    leg.is_congested = False
    assert watch.check(leg, 1.0 + LIMIT_S + 0.35) is None


def test_audio_that_the_ai_does_not_take(leg: Leg) -> None:
    watch = Watchdog(LIMIT_S)
    leg.heard_s = 10.0
    leg.is_congested = True
    assert watch.check(leg, 1.0) is None
    leg.is_congested = False
    assert watch.check(leg, 2.0) is None
    leg.is_congested = True
    looks = [watch.check(leg, now_s) for now_s in (3.0, 7.0, 7.1, 7.2)]
    assert looks[:3] == [None] * 3
    assert looks[3] is not None
    assert looks[3][0] is Reason.AI_LEG_STALLED


def test_a_ping_without_a_pong(leg: Leg) -> None:
    watch = Watchdog(LIMIT_S)
    looks = [watch.check(leg, now_s) for now_s in (2.0, 2.5, 4.5, 4.75, 5.0)]
    assert leg.pings == 1
    assert looks[:4] == [None] * 4
    assert looks[4] is not None
    assert looks[4][0] is Reason.AI_STALLED


def test_a_pong_ends_the_wait(leg: Leg) -> None:
    watch = Watchdog(LIMIT_S)
    watch.check(leg, 2.5)
    leg.heard_s = 2.6
    assert [watch.check(leg, now_s) for now_s in (4.6, 4.7)] == [None, None]
    assert (leg.pings, watch.pinged_s) == (2, 4.7)
