"""gw.media.shared.context: what the calls of one worker share."""

from __future__ import annotations

import pytest

from gw.call.state import Event, Reason, State
from gw.config import Agent
from gw.errors import StateError
from gw.media.ai.openai_leg import OpenAiLeg
from gw.media.ai.parrot_leg import ParrotLeg
from gw.media.shared import context as context_module
from gw.media.shared.context import CountedState
from gw.protocol.token import ledger_key
from tests.gw.media.support import CALL, ContextMaker


def test_a_state_is_counted_where_the_call_is(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    alive = context.cells.alive
    state = CountedState(context.cells)
    assert alive[State.WAITING].value == 1
    state.on_event(Event.START)
    assert (alive[State.WAITING].value, alive[State.CONNECTING].value) == (0, 1)
    with pytest.raises(StateError):
        state.on_event(Event.START)
    assert alive[State.CONNECTING].value == 1
    assert state.end(Reason.CALLER_HANGUP)
    assert not state.end(Reason.CALLER_HANGUP)
    assert [cell.value for cell in alive.values()] == [0] * len(alive)


def test_each_provider_has_its_leg(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    assert isinstance(context.ai_leg(Agent(provider="parrot")), ParrotLeg)
    assert isinstance(context.ai_leg(Agent(provider="openai")), OpenAiLeg)


def test_the_last_endings_are_kept(contexts: ContextMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "MAX_ENDINGS", 2)
    context, _ = contexts.context()
    for n in range(3):
        context.keep_ending(f"CA{n}", Reason.CALLER_HANGUP, "clerk")
    assert list(context.endings.items()) == [(f"CA{n}", (Reason.CALLER_HANGUP, "clerk", False, "")) for n in (1, 2)]


def test_a_media_socket_is_taken_while_slots_are_free_or_a_call_is_expected(contexts: ContextMaker) -> None:
    context, _ = contexts.context(max_calls=1)
    assert context.may_open()
    context.draining = True
    assert not context.may_open()
    assert context.reserve(CALL) == "drained"
    context.draining = False
    assert context.reserve(CALL) == ""
    context.draining, context.streams = True, 1
    assert context.may_open(), "its stream is on its way"


def test_the_worker_publishes_its_load(contexts: ContextMaker) -> None:
    context, _ = contexts.context()
    context.streams, context.pending, context.overdue = 3, 5, 2
    context.publish()
    row = context.slots._row
    assert (row.streams, row.pending) == (3, 3)


def test_a_token_key_is_made_where_neither_key_nor_token_is_configured(contexts: ContextMaker) -> None:
    assert len(contexts.context()[0].token_key) == 32
    signed = contexts.context(signed=True, public_url="http://localhost")[0]
    assert signed.token_key == ledger_key(b"secret", signed.ledger.id)
