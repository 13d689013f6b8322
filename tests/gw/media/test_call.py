"""gw.media.call: what a call decides at its end, judged at times the test chooses."""

from __future__ import annotations

from time import monotonic

import pytest

from gw.call.state import Reason
from gw.config import Agent
from gw.media.ai_in import AiIn
from gw.protocol.ai import AudioDelta, SessionReady
from tests.gw.media.support import PlaneMaker, call_of, door_and_peer

GOODBYE_S = 2.0


@pytest.mark.parametrize("seconds_after_the_wish", [0, 5])
def test_a_goodbye_that_comes_after_the_wish_to_hang_up_is_waited_for(planes: PlaneMaker, seconds_after_the_wish: int) -> None:
    plane, _ = planes.plane(media={"goodbye_s": GOODBYE_S})
    door, peer = door_and_peer()
    call = call_of(plane, Agent(greeting=""), door)
    ai_in = AiIn(call)
    ai_in._on_ready(SessionReady())
    call.on_ai_ready()
    call.responses.on_started("r1")
    call.finish(Reason.AI_HANGUP, "the agent hung up")
    if seconds_after_the_wish:
        ai_in._on_audio(AudioDelta("r1", "i1", bytes(8000 * seconds_after_the_wish)))
    now_s = monotonic()
    call.check(now_s + seconds_after_the_wish + GOODBYE_S - 0.5)
    assert not call.state.has_ended
    call.check(now_s + seconds_after_the_wish + GOODBYE_S + 0.5)
    assert call.state.has_ended
    assert call.state.reason is Reason.AI_HANGUP
    door.shut()
    peer.close()
