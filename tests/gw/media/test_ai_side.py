"""gw.media.ai_side: what is sent to the AI leg in place, and what outlives it."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest

from gw.call.audio.playout import Truncation
from gw.call.conversation import CUT, ROOT, Utterance
from gw.call.dialogue.inputs import Input, SuccessorFailed, SuccessorReady
from gw.call.state import Reason
from gw.call.tool_calls import ToolCalls
from gw.call.turns import Turn
from gw.config import MAX_RESULT_BYTES, Agent
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.ai_side import CONGESTED_S, MAX_ITEMS, SEND_BATCH, AiSide
from gw.protocol import ai
from tests.gw.media.support import ContextMaker, FakeLeg, until


@pytest.fixture
def side(contexts: ContextMaker) -> AiSide:
    """With a leg in memory."""
    context, _ = contexts.context(media={"ai_stall_s": 2.0})
    side = AiSide(context, Agent(provider="openai", base_url="ws://127.0.0.1:1/"), 500, monotonic(), pytest.fail)
    assert isinstance(side.leg, OpenAiLeg)
    side._new_leg = FakeLeg
    side.reopen(0.0)
    return side


def sent(side: AiSide) -> list[str]:
    return [verb for verb, *_ in side.leg.sent]


def test_an_announcement_is_a_system_item_before_its_request(side: AiSide) -> None:
    side.create_response("")
    side.create_response("Say goodbye.")
    assert side.leg.sent == [("create_response",), ("say", "system", "Say goodbye."), ("create_response",)]
    assert side.asked_s > 0.0


def test_a_short_history_comes_before_the_audio(side: AiSide) -> None:
    side.conversation.resume_from([Utterance("caller", "Hello?"), Utterance("agent", "Hello.")])
    side.uplink.push("AA==")
    side.restate([], ToolCalls("CA1"))
    side.create_response("")
    assert sent(side) == ["say", "say", "send_audio", "create_response"]


def test_an_item_of_the_history_has_the_id_that_a_correction_deletes(side: AiSide) -> None:
    turn = Turn(1, "agent", "One two three four.", "i1", 0, False, None)
    side.restate([turn], ToolCalls("CA1"))
    side.add_turns([turn._replace(interrupted=True, heard_ms=500, length_ms=1000)])
    (_, _, _, told, _), (_, deleted), (_, _, text, corrected, after) = (one for one in side.leg.sent if one[0] != "send_audio")
    assert told == deleted == "t1"
    assert (text, corrected, after) == ("One two" + CUT, "t1c", ROOT)


def test_a_long_history_is_sent_in_slices_before_anything_else(side: AiSide) -> None:
    side.conversation.resume_from([Utterance("caller", str(n)) for n in range(40)])
    side.uplink.push("AA==")
    side.restate([], ToolCalls("CA1"))
    side.create_response("")
    side.cancel()
    assert sent(side) == ["say"] * SEND_BATCH
    until(lambda: len(sent(side)) == 43)
    assert sent(side)[40:] == ["send_audio", "create_response", "cancel"]


def test_an_ai_that_takes_too_little_gets_the_rest_later_and_in_sequence(side: AiSide) -> None:
    assert isinstance(side.leg, FakeLeg)
    side.leg.is_congested = True
    side.tool_output("call_1", "x" * MAX_RESULT_BYTES)
    side.create_response("")
    gevent.sleep(3 * CONGESTED_S)
    assert sent(side) == []
    side.leg.is_congested = False
    until(lambda: sent(side) == ["tool_output", "create_response"])


def test_a_leg_that_is_replaced_gets_nothing_more(side: AiSide) -> None:
    side.conversation.resume_from([Utterance("caller", str(n)) for n in range(40)])
    old = side.leg
    side.restate([], ToolCalls("CA1"))
    side.reopen(0.0)
    gevent.sleep(0.02)
    assert [verb for verb, *_ in old.sent] == ["say"] * SEND_BATCH + ["close"]
    assert sent(side) == []


def test_only_items_of_the_session_in_place_are_truncated(side: AiSide) -> None:
    """An item of the session before it, still being heard, is unknown to the new session."""
    side.is_new_item("old")
    side.reopen(0.0)
    for _ in range(2):
        side.is_new_item("new")
    side.truncate([Truncation("old", 20), Truncation("new", 40)])
    assert side.leg.of("truncate") == [("new", 40)]
    for n in range(MAX_ITEMS):
        side.is_new_item(f"item {n}")
    side.truncate([Truncation("new", 60)])
    assert side.leg.of("truncate") == [("new", 40)]


def test_an_item_that_is_not_played_is_truncated_once(side: AiSide) -> None:
    assert (side.on_dropped_audio("i1"), side.on_dropped_audio("i1")) == (True, False)
    side.is_new_item("i2")
    assert not side.on_dropped_audio("i2"), "its truncation comes with the interruption"
    assert side.leg.of("truncate") == [("i1", 0)]


def test_a_replaced_leg_is_closed_and_the_callers_audio_kept(side: AiSide) -> None:
    old = side.leg
    side.restate([], ToolCalls("CA1"))
    side.uplink.push("AA==")
    side.reopen(monotonic() + 1.0)
    side.uplink.push("AQ==")
    gevent.sleep(0)
    assert (old.of("send_audio"), ("close",) in old.sent, old._woken.is_set()) == (["AA=="], True, True)
    assert side.leg.of("send_audio") == []
    side.restate([], ToolCalls("CA1"))
    assert side.leg.of("send_audio") == ["AQ=="]


def test_a_successor_is_read_until_it_takes_over(side: AiSide) -> None:
    told: list[Input] = []
    old, number = side.leg, side.number
    side.open_successor(told.append)
    successor = side.successor
    assert successor is not None
    successor.leg.put(ai.SessionCreated(0.0), ai.SessionReady(), ai.Ignored("x"))
    until(lambda: told == [SuccessorReady(0)])
    side.swap()
    assert successor.greenlet is not None
    successor.greenlet.join(5.0)
    gevent.sleep(0)
    assert (side.leg, side.number) == (successor.leg, number + 1)
    assert ("close",) in old.sent
    assert ("close",) not in side.leg.sent


def test_a_successor_that_fails_is_reported_and_closed(side: AiSide) -> None:
    told: list[Input] = []
    side.open_successor(told.append)
    successor = side.successor
    assert successor is not None
    successor.leg.put(ai.AiError("no", "no such model", True, "lasting", 0, "session"))
    until(lambda: told == [SuccessorFailed()])
    assert ("close",) in successor.leg.sent
    side.open_successor(told.append)
    side.drop_successor()
    assert successor.greenlet is not None
    until(lambda: all(one.dead for one in side.greenlets))
    assert told == [SuccessorFailed()], "a dropped one reports nothing"


@pytest.mark.parametrize(
    ("silent_s", "pinged", "failed"),
    [(0.5, False, False), (2.5, True, False), (2.75, True, True)],
    ids=["heard", "asked", "gone"],
)
def test_an_ai_that_sends_nothing_is_pinged_and_then_given_up(side: AiSide, silent_s: float, pinged: bool, failed: bool) -> None:
    """With `ai_stall_s` of two seconds: the AI is pinged after one, has one to answer, and is looked at twice."""
    found = [side.check(side.leg.heard_s + n * 0.25) for n in range(int(silent_s / 0.25) + 1)]
    assert ("ping",) in side.leg.sent if pinged else ("ping",) not in side.leg.sent
    assert [problem[0] for problem in found if problem is not None] == ([Reason.AI_STALLED] if failed else [])
