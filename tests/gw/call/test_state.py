"""gw.call.state: the table of transitions, one end per call, a result for every reason."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.state import TRANSITIONS, CallState, Event, Reason, Result, State, ai_reason, phone_reason, result_of
from gw.errors import ProtocolCode, StateError

#: The transitions, written a second time. Any other event raises, except END, which ends the call.
ALLOWED = {
    ("waiting", "start"): "connecting",
    ("connecting", "ai_ready"): "active",
    ("connecting", "hang_up"): "closing",
    ("active", "ai_lost"): "connecting",
    ("active", "hang_up"): "closing",
    ("closing", "taken_back"): "active",
}
#: Events that bring a new call to each state.
PATHS = {
    State.WAITING: [],
    State.CONNECTING: [Event.START],
    State.ACTIVE: [Event.START, Event.AI_READY],
    State.CLOSING: [Event.START, Event.AI_READY, Event.HANG_UP],
    State.ENDED: [Event.END],
}
#: Only a phone leg has a `start` that can be missing, repeated, or of another stream, and audio in separate messages.
PHONE_ONLY = {"media_before_start", "second_start", "wrong_stream", "message_flood"}
CODES = get_args(ProtocolCode)


def call_in(state: State) -> CallState:
    call = CallState()
    for event in PATHS[state]:
        call.on_event(event)
    assert call.now is state
    return call


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_is_in_the_table_or_raises(state: State, event: Event) -> None:
    call = call_in(state)
    following = "ended" if event is Event.END and state is not State.ENDED else ALLOWED.get((state.value, event.value))
    if following is None:
        with pytest.raises(StateError, match=f"{event} is not allowed in state {state}"):
            call.on_event(event)
        assert call.now is state
    else:
        assert call.on_event(event) == following
        assert call.now == following
    assert ((state, event) in TRANSITIONS) == (following is not None)


@pytest.mark.parametrize("state", [state for state in State if state is not State.ENDED])
def test_a_call_ends_once_from_every_state_with_the_first_reason(state: State) -> None:
    call = call_in(state)
    assert not call.has_ended
    assert call.reason is None
    assert call.end(Reason.PHONE_LOST)
    assert call.has_ended
    assert not call.end(Reason.CALLER_HANGUP)
    assert (call.now, call.reason) == (State.ENDED, Reason.PHONE_LOST)


@given(st.lists(st.sampled_from([*Event, *Reason]), max_size=20))
def test_an_ended_call_stays_ended_after_any_event(script: list[Event | Reason]) -> None:
    call = CallState()
    ends: list[Reason] = []
    for what in script:
        if isinstance(what, Reason):
            if call.end(what):
                ends.append(what)
        elif what is not Event.END:
            try:
                call.on_event(what)
            except StateError:
                pass
        assert call.has_ended == bool(ends)
    assert len(ends) <= 1
    assert call.reason == (ends[0] if ends else None)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_result(reason: Reason) -> None:
    """A failed leg is the peer's fault; own errors are listed."""
    expected = Result.PEER_ERROR
    if reason.endswith(("_hangup", "_limit")) or reason in ("budget", "machine", "shutdown", "transferred", "digits_sent"):
        expected = Result.SUCCESS
    elif reason in ("internal_error", "worker_lost"):
        expected = Result.OWN_ERROR
    assert result_of(reason) is expected


@pytest.mark.parametrize("code", CODES)
def test_every_protocol_code_is_a_reason_of_the_phone_leg(code: ProtocolCode) -> None:
    assert phone_reason(code) == f"phone_{code}"


@pytest.mark.parametrize("code", CODES)
def test_every_protocol_code_an_ai_leg_can_raise_is_a_reason_of_it(code: ProtocolCode) -> None:
    if code in PHONE_ONLY:
        with pytest.raises(ValueError, match=code):
            ai_reason(code)
    else:
        assert ai_reason(code) == f"ai_{code}"


def test_the_words_in_logs_store_and_metrics() -> None:
    assert [state.value for state in State] == ["waiting", "connecting", "active", "closing", "ended"]
    assert [result.value for result in Result] == ["success", "own_error", "peer_error"]
    assert all(reason.value == reason.name.lower() for reason in Reason)
    assert all(event.value == event.name.lower() for event in Event)
