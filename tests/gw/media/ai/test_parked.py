"""gw.media.ai.parked: a session waits for its call, and is closed when it does not come."""

from __future__ import annotations

from time import monotonic
from typing import Any, cast

import gevent

from gw.call.leave import Leave
from gw.call.state import Reason
from gw.media.ai.leg import AiLegError
from gw.media.ai.parked import KEEP_S, ParkedLeg, ParkedLegs
from tests.gw.media.support import FakeLeg, until

CALL = "CA" + "1" * 32


KEY = "a" * 32
WISH = Leave(key=KEY, tool="transfer", call_id="call_1")


def park(legs: ParkedLegs, call_sid: str = CALL) -> FakeLeg:
    leg = FakeLeg()
    legs.keep(call_sid, ParkedLeg(cast("Any", leg), 600_000, 1234, WISH))
    gevent.sleep(0)
    return leg


def is_closed(leg: FakeLeg) -> bool:
    return ("close",) in leg.sent


def test_a_call_that_is_back_takes_its_session() -> None:
    legs = ParkedLegs(20)
    leg = park(legs)
    parked = legs.take(CALL, KEY)
    assert parked is not None
    assert (parked.session_ms, parked.wish) == (1234, WISH)
    lifetime_ms = parked.take(1.0)
    assert lifetime_ms is not None
    assert 590_000 < lifetime_ms <= 600_000
    assert not is_closed(leg)
    assert legs.take(CALL, KEY) is None
    parked.drop("unused")
    assert not is_closed(leg), "the call has it"


def test_a_call_that_returned_elsewhere_meanwhile_does_not_take_its_stale_session() -> None:
    legs = ParkedLegs(20)
    leg = park(legs)
    assert legs.take(CALL, "b" * 32) is None
    until(lambda: is_closed(leg))
    assert legs.take(CALL, KEY) is None


def test_a_session_that_breaks_is_not_taken() -> None:
    legs = ParkedLegs(20)
    leg = park(legs)
    leg.fail(AiLegError(Reason.AI_CLOSED, "gone"))
    until(lambda: is_closed(leg))
    assert legs.take(CALL, KEY) is None


def test_a_session_is_closed_after_its_time_and_with_the_worker() -> None:
    legs = ParkedLegs(20)
    late = park(legs)
    legs.check(monotonic() + KEEP_S - 1.0)
    gevent.sleep(0)
    assert not is_closed(late)
    legs.check(monotonic() + KEEP_S + 1.0)
    until(lambda: is_closed(late))
    assert legs.take(CALL, KEY) is None
    last = park(legs)
    legs.close()
    until(lambda: is_closed(last))


def test_a_call_has_one_session_and_a_worker_some() -> None:
    legs = ParkedLegs(20)
    first = park(legs)
    second = park(legs)
    until(lambda: is_closed(first))
    assert not is_closed(second)
    assert legs.has_room
    park(legs, "CA2")
    assert not legs.has_room
    legs.close()
