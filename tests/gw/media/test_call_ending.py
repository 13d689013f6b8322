"""gw.media.call_ending: limits, goodbye and end, judged at times that the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from gw import bus
from gw.call.state import Event, Reason, State
from gw.config import Agent
from gw.media.call import Call
from gw.media.call_ending import TRANSFER_S
from gw.protocol.audio import FRAME_BYTES
from metrics.declare import CALLS
from tests.gw.media.support import ContextMaker, call_of, transport_and_peer

GOODBYE_S = 2.0
Maker = Callable[..., Call]


@pytest.fixture
def emitted() -> list[bus.Event]:
    return []


@pytest.fixture
def active(contexts: ContextMaker, emitted: list[bus.Event]) -> Iterator[Maker]:
    """Makes active calls."""
    opened: list[Any] = []

    def make(*, signed: bool = False, **agent: Any) -> Call:
        context, _ = contexts.context(media={"goodbye_s": GOODBYE_S}, signed=signed, public_url="http://localhost")
        context.emit = emitted.append
        transport, peer = transport_and_peer()
        opened.append((transport, peer))
        call = call_of(context, Agent(**{"greeting": "", **agent}), transport)
        call.state.on_event(Event.AI_READY)
        return call

    yield make
    for transport, peer in opened:
        transport.shut()
        peer.close()


@pytest.mark.parametrize("seconds_after_the_request", [0, 5])
def test_a_goodbye_that_comes_after_the_hang_up_request_is_heard(active: Maker, seconds_after_the_request: int) -> None:
    call = active()
    call.ai.responses.on_started("r1")
    call.ending.finish(Reason.AI_HANGUP, "the agent hung up")
    if seconds_after_the_request:
        call.downlink.play("r1", "i1", bytes(8000 * seconds_after_the_request))
        call.ending.extend_goodbye()
    now_s = monotonic()
    call.check(now_s + seconds_after_the_request + GOODBYE_S - 0.5)
    assert not call.state.has_ended
    call.check(now_s + seconds_after_the_request + GOODBYE_S + 0.5)
    assert call.state.has_ended
    assert call.state.reason is Reason.AI_HANGUP


def test_a_call_with_nothing_left_to_hear_ends_with_the_request(active: Maker) -> None:
    call = active()
    call.ending.finish(Reason.AI_HANGUP)
    assert call.state.reason is Reason.AI_HANGUP
    call.ending.finish(Reason.AI_LOST, "later")
    assert (call.state.reason, call.ending.detail) == (Reason.AI_HANGUP, "")


def test_a_closing_call_ends_when_all_was_heard(active: Maker) -> None:
    call = active()
    call.downlink.play("r1", "i1", bytes(FRAME_BYTES))
    call.ending.finish(Reason.AI_HANGUP)
    call.ending.finish(Reason.AI_LOST)
    assert call.state.now is State.CLOSING
    call.downlink.playout.clear(0)
    call.check(monotonic())
    assert call.state.reason is Reason.AI_HANGUP


def test_the_first_end_counts(active: Maker) -> None:
    call = active()
    woken: list[bool] = []
    call.ending._wake = lambda: woken.append(True)
    call.end(Reason.CALLER_HANGUP, "first")
    call.end(Reason.INTERNAL_ERROR, "second")
    assert (call.state.reason, call.ending.detail, woken) == (Reason.CALLER_HANGUP, "first", [True])
    assert call.ending.over.is_set()
    assert call.context.endings[call.sid] == (Reason.CALLER_HANGUP, "default", False)
    assert abs(call.ending.ended_s - monotonic()) < 5.0


@pytest.mark.parametrize(
    ("reason", "kept", "detail"),
    [
        (Reason.CALLER_HANGUP, Reason.AI_LOST, "the socket broke; then caller_hangup"),
        (Reason.AI_LOST, Reason.AI_LOST, "again"),
        (Reason.INTERNAL_ERROR, Reason.INTERNAL_ERROR, "again"),
    ],
)
def test_an_ai_that_failed_is_the_reason_of_what_ends_its_last_words(
    active: Maker, reason: Reason, kept: Reason, detail: str
) -> None:
    call = active(goodbye="")
    call.downlink.play("r1", "i1", bytes(FRAME_BYTES))
    call.ending.fall_back(Reason.AI_LOST, "the socket broke")
    call.end(reason, "again")
    assert (call.state.reason, call.ending.detail) == (kept, detail)


def test_a_fallback_by_goodbye_has_its_own_reason(active: Maker) -> None:
    call = active(goodbye="Good-bye.")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke")
    assert (call.state.reason, call.ending.detail) == (Reason.FALLBACK_GOODBYE, "ai_lost: the socket broke")


def test_a_transfer_is_requested_from_control_once_and_given_time(active: Maker, emitted: list[bus.Event]) -> None:
    call = active(signed=True, fallback="transfer", transfer_to="+15550100")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke")
    now_s = monotonic()
    call.check(now_s + TRANSFER_S - 0.5)
    assert call.state.now is State.CLOSING
    notes = [event for event in emitted if isinstance(event, bus.CallEvent) and event.kind == "transfer_wanted"]
    assert [note.data for note in notes] == [{"to": "+15550100"}]
    call.check(now_s + TRANSFER_S + 0.5)
    assert call.state.reason is Reason.FALLBACK_TRANSFER


def test_without_credentials_no_transfer_is_requested(active: Maker) -> None:
    call = active(fallback="transfer", transfer_to="+15550100")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke")
    assert call.state.reason is Reason.FALLBACK_TRANSFER


def test_the_duration_and_the_idle_time_are_limited(active: Maker) -> None:
    media = active().context.config.media
    call = active()
    call.ending.last_voice_s = call.events.started_s + media.max_call_s
    call.check(call.events.started_s + media.max_call_s - 0.1)
    assert not call.state.has_ended
    call.check(call.events.started_s + media.max_call_s + 0.1)
    assert call.state.reason is Reason.DURATION_LIMIT
    call = active()
    call.check(call.events.started_s + media.idle_limit_s - 0.1)
    assert not call.state.has_ended
    call.check(call.events.started_s + media.idle_limit_s + 0.1)
    assert call.state.reason is Reason.IDLE_LIMIT


def test_time_with_audio_is_not_idle(active: Maker) -> None:
    call = active()
    late_s = call.events.started_s + call.context.config.media.idle_limit_s + 0.1
    call.downlink.play("r1", "i1", bytes(FRAME_BYTES))
    call.check(late_s)
    assert not call.state.has_ended
    assert call.ending.last_voice_s == late_s


def test_each_state_of_a_call_is_counted(active: Maker) -> None:
    call = active()
    cells = call.context.cells.alive
    assert {state: cell.value for state, cell in cells.items() if cell.value} == {State.ACTIVE: 1.0}
    call.downlink.play("r1", "i1", bytes(FRAME_BYTES))
    call.ending.finish(Reason.AI_HANGUP)
    assert {state: cell.value for state, cell in cells.items() if cell.value} == {State.CLOSING: 1.0}
    call.end(Reason.AI_HANGUP)
    assert not any(cell.value for cell in cells.values())
    assert len(cells) == len(CALLS.labels["state"])
