"""gw.media.call: what a call decides at its end, judged at times the test chooses."""

from __future__ import annotations

from time import monotonic

import pytest

from gw.call.playout import ResponseMark
from gw.call.state import Reason
from gw.config import Agent
from gw.media.ai.parrot_leg import ParrotLeg
from gw.media.ai_in import AiIn
from gw.protocol.ai import AudioDelta, ResponseDone, ResponseStarted, SessionReady
from tests.gw.media.support import ContextMaker, call_of, door_and_peer

GOODBYE_S = 2.0


@pytest.mark.parametrize("seconds_after_the_wish", [0, 5])
def test_a_goodbye_that_comes_after_the_wish_to_hang_up_is_waited_for(
    contexts: ContextMaker, seconds_after_the_wish: int
) -> None:
    context, _ = contexts.context(media={"goodbye_s": GOODBYE_S})
    transport, peer = door_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
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
    transport.shut()
    peer.close()


def test_audio_behind_its_responses_end_is_heard_and_leaves_nothing_open(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    transport, peer = door_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    ai_in = AiIn(call)
    ai_in._on_ready(SessionReady())
    call.on_ai_ready()
    ai_in._on_response_started(ResponseStarted("r1"))
    ai_in._on_audio(AudioDelta("r1", "i1", bytes(400)))
    ai_in._on_response_done(ResponseDone("r1", "completed", ""))
    ai_in._on_audio(AudioDelta("r1", "i1", bytes(100)))
    pieces = [call.playout.pop() for _ in range(6)]
    assert [type(piece) for piece in pieces] == [bytes, bytes, bytes, ResponseMark, bytes, ResponseMark]
    assert call.playout.is_empty, "a hang-up would otherwise wait for an end that nobody tells"
    transport.shut()
    peer.close()


@pytest.mark.parametrize(
    ("silent_s", "pinged", "failed"),
    [(0.5, False, False), (2.5, True, False), (2.75, True, True)],
    ids=["heard", "asked", "gone"],
)
def test_an_ai_that_says_nothing_is_pinged_and_then_given_up(
    contexts: ContextMaker, silent_s: float, pinged: bool, failed: bool
) -> None:
    """Two seconds of `ai_stall_s`: after one the AI is asked whether it is there, has one to answer, and is looked
    at twice."""
    context, _ = contexts.context(media={"ai_stall_s": 2.0})
    transport, peer = door_and_peer()
    call = call_of(context, Agent(provider="openai", base_url="ws://127.0.0.1:1/", greeting=""), transport)
    call.on_ai_ready()
    heard_s = call.leg.heard_s
    for n in range(int(silent_s / 0.25) + 1):
        call.check(heard_s + n * 0.25)
    assert (call.watch.pinged_s > 0) == pinged
    assert (call.leg_failure is not None) == failed
    transport.shut()
    peer.close()


def test_only_what_the_session_in_place_said_is_cut_there(contexts: ContextMaker) -> None:
    """An item of the session before it, still being heard, is cut all the same; the new session never had it."""
    context, _ = contexts.context()
    transport, peer = door_and_peer()
    call = call_of(context, Agent(greeting=""), transport)
    cut: list[str] = []

    class Leg(ParrotLeg):
        def truncate(self, item_id: str, heard_ms: int) -> None:
            cut.append(item_id)

    ai_in = AiIn(call)
    ai_in._on_ready(SessionReady())
    call.on_ai_ready()
    ai_in._on_audio(AudioDelta("r1", "old", bytes(1600)))
    call.on_ai_lost()
    call.take_leg(Leg(context.prompts))
    call.on_ai_ready()
    ai_in._on_audio(AudioDelta("r2", "new", bytes(1600)))
    call.on_speech_started("c1", 0)
    assert cut == ["new"]
    assert call.playout.is_empty
    transport.shut()
    peer.close()
