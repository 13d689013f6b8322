"""gw.media.call_ending: the one end, and the transfer before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from gw import bus
from gw.call.dialogue import inputs as given
from gw.call.state import Event, Reason, Result, State
from gw.config import Agent
from gw.media.call import Call
from gw.media.call_ending import TRANSFER_S
from metrics.declare import CALLS
from tests.gw.media.support import ACCOUNT, ContextMaker, FakeLeg, call_of, put_in_place, transport_and_peer

Maker = Callable[..., Call]


@pytest.fixture
def emitted() -> list[bus.Event]:
    return []


@pytest.fixture
def active(contexts: ContextMaker, emitted: list[bus.Event]) -> Iterator[Maker]:
    """Makes active calls."""
    opened: list[Any] = []

    def make(*, signed: bool = False, **agent: Any) -> Call:
        context, _ = contexts.context(signed=signed, public_url="http://localhost")
        context.emit = emitted.append
        transport, peer = transport_and_peer()
        opened.append((transport, peer))
        call = call_of(context, Agent(**{"greeting": "", **agent}), transport)
        put_in_place(call, FakeLeg())
        call.dialogue.on(given.SessionReady())
        return call

    yield make
    for transport, peer in opened:
        transport.shut()
        peer.close()


def test_the_first_end_counts(active: Maker) -> None:
    call = active()
    woken: list[bool] = []
    call.ending._wake = lambda: woken.append(True)
    call.end(Reason.CALLER_HANGUP, "first")
    call.end(Reason.INTERNAL_ERROR, "second")
    assert (call.state.reason, call.ending.detail, woken) == (Reason.CALLER_HANGUP, "first", [True])
    assert call.ending.over.is_set()
    assert call.context.endings[call.sid] == (Reason.CALLER_HANGUP, "default", False, call.events.account_sid)
    assert abs(call.ending.ended_s - monotonic()) < 5.0


def test_a_fallback_by_goodbye_has_its_own_reason(active: Maker) -> None:
    call = active(goodbye="Good-bye.")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", speak=True)
    assert (call.state.reason, call.ending.detail) == (Reason.FALLBACK_GOODBYE, "ai_lost: the socket broke")


@pytest.mark.parametrize("agent", [{"goodbye": "Good-bye."}, {"fallback": "transfer", "transfer_to": "+15005550009"}])
def test_a_stream_that_ends_during_the_last_words_is_named(active: Maker, agent: dict[str, Any]) -> None:
    call = active(signed=True, **agent)
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", then=Reason.PHONE_LOST, speak=True)
    assert call.state.has_ended
    assert call.ending.detail == "ai_lost: the socket broke; then phone_lost"


def test_without_a_goodbye_the_cause_is_the_reason(active: Maker) -> None:
    call = active(goodbye="")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", speak=True)
    assert (call.state.reason, call.ending.detail) == (Reason.AI_LOST, "the socket broke")


@pytest.mark.parametrize(
    ("reason", "kept", "detail"),
    [
        (Reason.CALLER_HANGUP, Reason.FALLBACK_TRANSFER, "ai_lost: the socket broke; then caller_hangup"),
        (Reason.INTERNAL_ERROR, Reason.INTERNAL_ERROR, "again"),
    ],
)
def test_what_ends_the_wait_for_a_transfer_is_not_its_reason(active: Maker, reason: Reason, kept: Reason, detail: str) -> None:
    call = active(signed=True, fallback="transfer", transfer_to="+15550100")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", speak=True)
    call.ending.end(reason, "again")
    assert (call.state.reason, call.ending.detail) == (kept, detail)


def test_a_transfer_is_requested_from_control_once_and_given_time(active: Maker, emitted: list[bus.Event]) -> None:
    call = active(signed=True, fallback="transfer", transfer_to="+15550100")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", speak=True)
    now_s = monotonic()
    call.check(now_s + TRANSFER_S - 0.5)
    assert not call.state.has_ended
    notes = [event for event in emitted if isinstance(event, bus.CallEvent) and event.kind == "transfer_wanted"]
    assert [note.data for note in notes] == [{"to": "+15550100", "account": ACCOUNT}]
    call.check(now_s + TRANSFER_S + 0.5)
    assert call.state.reason is Reason.FALLBACK_TRANSFER


@pytest.mark.parametrize(("signed", "speak"), [(False, True), (True, False)], ids=["no credentials", "the caller hung up"])
def test_a_transfer_that_cannot_be_is_not_requested(active: Maker, signed: bool, speak: bool) -> None:
    call = active(signed=signed, fallback="transfer", transfer_to="+15550100")
    call.ending.fall_back(Reason.AI_LOST, "the socket broke", speak=speak)
    assert call.state.reason is Reason.FALLBACK_TRANSFER


def test_a_call_whose_caller_waited_in_silence_is_a_failure(active: Maker) -> None:
    call = active()
    call.ending.had_dead_air = True
    call.end(Reason.CALLER_HANGUP)
    assert call.ending.result is Result.PEER_ERROR


def test_each_state_of_a_call_is_counted(active: Maker) -> None:
    call = active()
    cells = call.context.cells.alive
    assert {state: cell.value for state, cell in cells.items() if cell.value} == {State.ACTIVE: 1.0}
    call.state.on_event(Event.HANG_UP)
    assert {state: cell.value for state, cell in cells.items() if cell.value} == {State.CLOSING: 1.0}
    call.end(Reason.AI_HANGUP)
    assert not any(cell.value for cell in cells.values())
    assert len(cells) == len(CALLS.labels["state"])


def test_a_stop_that_is_expected_is_an_operators_transfer(active: Maker, emitted: list[bus.Event]) -> None:
    call = active()
    assert call.expect_stop(30.0) == {}
    call.end(Reason.CALLER_HANGUP)
    assert (call.state.reason, call.ending.result) == (Reason.TRANSFERRED, Result.SUCCESS)
    assert not call.has_left, "the agent has not asked for it"
    call.report_end()
    (ended,) = [event for event in emitted if isinstance(event, bus.CallEnded)]
    assert (ended.reason, ended.detail, ended.speak) == ("transferred", "an operator transferred the caller", False)


@pytest.mark.parametrize("for_s", [0.0, -1.0])
def test_a_stop_after_a_refused_or_late_transfer_is_a_hangup(active: Maker, for_s: float) -> None:
    call = active()
    call.expect_stop(30.0)
    call.expect_stop(for_s)
    call.end(Reason.CALLER_HANGUP)
    assert (call.state.reason, call.ending.is_transferred) == (Reason.CALLER_HANGUP, False)


def test_only_a_stop_is_a_transfer(active: Maker) -> None:
    call = active()
    call.expect_stop(30.0)
    call.end(Reason.PHONE_LOST)
    assert call.state.reason is Reason.PHONE_LOST
