"""gw.media.ai_side: what is sent to the current AI leg, and what outlives it."""

from __future__ import annotations

from time import monotonic

import gevent
import pytest

from gw.call.playout import Truncation
from gw.call.state import Reason, State
from gw.config import Agent
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.ai_side import MAX_ITEMS, MAX_KEYS, AiSide
from tests.gw.media.support import ContextMaker, FakeLeg


@pytest.fixture
def side(contexts: ContextMaker) -> AiSide:
    """With a leg in memory."""
    context, _ = contexts.context(media={"ai_stall_s": 2.0})
    side = AiSide(context, Agent(provider="openai", base_url="ws://127.0.0.1:1/"), 500)
    assert isinstance(side.leg, OpenAiLeg)
    assert not side.ready
    side.replace(FakeLeg(), ready=True)
    return side


def test_one_response_is_requested_at_a_time(side: AiSide) -> None:
    side.request("Greet.")
    side.request("And then?")
    assert side.leg.sent == [("say", "system", "Greet."), ("create_response",)]
    assert side.asked_s == side.last_event_s > 0.0
    assert side.pending_reply.request().instructions == "Greet."


def test_keys_are_sent_to_a_leg_that_is_ready_and_kept_for_one_that_is_being_reached(side: AiSide) -> None:
    side.on_key("1", State.ACTIVE)
    for _ in range(MAX_KEYS + 3):
        side.on_key("2", State.CONNECTING)
    side.on_key("3", State.CLOSING)
    assert side.leg.of("send_keys") == ["1"]
    side.start_uplink()
    assert side.leg.of("send_keys") == ["1", *"2" * MAX_KEYS]
    side.start_uplink()
    assert len(side.leg.of("send_keys")) == 1 + MAX_KEYS


def test_only_items_of_the_session_in_place_are_truncated(side: AiSide) -> None:
    """An item of the session before it, still being heard, is unknown to the new session."""
    side.on_audio("old")
    new = FakeLeg()
    side.replace(new, ready=True)
    for _ in range(2):
        side.on_audio("new")
    side.truncate([Truncation("old", 20), Truncation("new", 40)])
    assert new.of("truncate") == [("new", 40)]
    for n in range(MAX_ITEMS):
        side.on_audio(f"item {n}")
    side.truncate([Truncation("new", 60)])
    assert new.of("truncate") == [("new", 40)]


def test_a_replaced_leg_is_closed_and_the_callers_audio_kept(side: AiSide) -> None:
    old, new = side.leg, FakeLeg()
    side.start_uplink()
    side.uplink.push("AA==")
    side.fail((Reason.AI_STALLED, "why"))
    side.replace(new, ready=False)
    side.uplink.push("AQ==")
    gevent.sleep(0)
    assert old.of("send_audio") == ["AA=="]
    assert ("close",) in old.sent
    assert (side.failure, side.ready, new.of("send_audio")) == (None, False, [])
    side.start_uplink()
    assert new.of("send_audio") == ["AQ=="]


@pytest.mark.parametrize(
    ("silent_s", "pinged", "failed"),
    [(0.5, False, False), (2.5, True, False), (2.75, True, True)],
    ids=["heard", "asked", "gone"],
)
def test_an_ai_that_sends_nothing_is_pinged_and_then_given_up(side: AiSide, silent_s: float, pinged: bool, failed: bool) -> None:
    """With `ai_stall_s` of two seconds: the AI is pinged after one, has one to answer, and is looked at twice."""
    for n in range(int(silent_s / 0.25) + 1):
        side.check(side.leg.heard_s + n * 0.25)
    assert (side.watchdog.pinged_s > 0, ("ping",) in side.leg.sent) == (pinged, pinged)
    assert (side.failure is not None) == failed
    assert side.leg._woken.is_set() == failed


def test_a_response_that_stops_fails_the_leg(side: AiSide) -> None:
    side.request("")
    side.leg.heard_s = late_s = monotonic() + 2.1
    side.check(late_s)
    side.check(late_s)
    assert side.failure is not None and side.failure[0] is Reason.AI_STALLED
