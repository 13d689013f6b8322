"""gw.media.call_events: the events of a call, on a real context."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from gw import bus
from gw.call.limits import EVENTS
from gw.call.turns import Turn
from gw.media import call_events
from gw.media.call_events import CallEvents
from gw.media.shared.context import MediaContext
from gw.protocol.twilio import Start
from tests.gw.media.support import ACCOUNT, CALL, STREAM, WAIT_S, ContextMaker

STARTED_S, STARTED_AT = 1000.0, 1.7e9


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the limits, which refill with time."""
    monkeypatch.setattr(call_events, "monotonic", lambda: STARTED_S)


class Rig(NamedTuple):
    context: MediaContext
    emitted: list[bus.Event]
    events: CallEvents
    start: Start


def _rig(contexts: ContextMaker, **parameters: str) -> Rig:
    context, emitted = contexts.context(recording={"pool_size": 1})
    start = Start(STREAM, ACCOUNT, CALL, parameters)
    return Rig(context, emitted, CallEvents(context, start, started_s=STARTED_S, started_at=STARTED_AT), start)


def test_a_start_has_both_numbers_and_the_time_of_the_webhook(contexts: ContextMaker) -> None:
    rig = _rig(contexts, direction="outbound-api", caller="+1", called="+2")
    rig.events.on_start(rig.start, "clerk", STARTED_AT - 0.5)
    assert rig.emitted == [
        bus.CallStarted(CALL, STREAM, ACCOUNT, "clerk", "outbound-api", "+1", "+2", STARTED_AT - 0.5, STARTED_AT)
    ]


def test_a_start_without_parameters(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    rig.events.on_start(rig.start, "default", None)
    assert rig.emitted == [bus.CallStarted(CALL, STREAM, ACCOUNT, "default", "inbound", "", "", STARTED_AT, STARTED_AT)]


def test_a_start_that_resumes_a_call_is_noted(contexts: ContextMaker) -> None:
    rig = _rig(contexts, resume="2", began=str(STARTED_AT - 60), after="phone_lost")
    rig.events.on_start(rig.start, "default", None)
    noted = rig.emitted[1]
    assert isinstance(noted, bus.CallEvent)
    assert (noted.kind, noted.data) == ("resumed", {"n": 2, "after": "phone_lost"})


def test_turns_and_notes_have_the_call_sid(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    turns = [Turn(n, "agent", f"words {n}", f"item-{n}", 10, False, 10) for n in range(2)]
    rig.events.report_turns(turns)
    rig.events.note("keys", count=1)
    assert rig.emitted[:2] == [bus.Turn(CALL, *turn) for turn in turns]
    noted = rig.emitted[2]
    assert isinstance(noted, bus.CallEvent)
    assert (noted.call_sid, noted.kind, noted.data) == (CALL, "keys", {"count": 1})


def test_first_audio_and_recording_are_dated_by_the_first_frame_sent(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    rig.events.on_first_audio(STARTED_S + 0.75)
    assert rig.events.pool_has_room()
    rig.events.on_record()
    assert not rig.events.pool_has_room()
    rig.context.recording_pool.join(WAIT_S)
    assert rig.events.pool_has_room()
    assert rig.emitted == [bus.FirstAudio(CALL, STARTED_AT + 0.75), bus.StartRecording(CALL, ACCOUNT, STARTED_AT + 0.75)]


def test_the_recording_request_of_a_resumed_call_is_marked(contexts: ContextMaker) -> None:
    rig = _rig(contexts, resume="1", began=f"{STARTED_AT - 60:.3f}")
    rig.events.on_record()
    rig.context.recording_pool.join(WAIT_S)
    [request] = rig.emitted
    assert isinstance(request, bus.StartRecording) and request.resumed


def test_notes_of_a_kind_are_limited_and_the_first_surplus_is_noted(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    accepted = [rig.events.note("keys", count=1) for _ in range(EVENTS[1] + 40)]
    assert accepted == [True] * EVENTS[1] + [False] * 40
    kinds = [event.kind for event in rig.emitted if isinstance(event, bus.CallEvent)]
    assert kinds == ["keys"] * EVENTS[1] + ["surplus"]
    assert rig.emitted[-1].data == {"of": "keys"}  # type: ignore[union-attr]
    assert rig.context.cells.surplus["keys"].value == 40
    assert rig.events.note("ai_error", code="x"), "another kind has its own limit"


def test_turns_are_limited(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    rig.events.report_turns([Turn(n, "agent", "words", f"item-{n}", 10, False, 10) for n in range(71)])
    assert len([event for event in rig.emitted if isinstance(event, bus.Turn)]) == 64
    assert rig.context.cells.surplus["turn"].value == 7


def test_the_surplus_of_a_kind_without_a_series_is_counted_as_other(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    for _ in range(EVENTS[1] + 3):
        rig.events.note("ai_leg_lost")
    assert rig.context.cells.surplus["other"].value == 3


def test_variables_come_before_the_start_and_once_for_a_call(contexts: ContextMaker) -> None:
    rig = _rig(contexts)
    rig.events.on_start(rig.start, "default", None, {"name": "Ann"})
    variables, started = rig.emitted[-2:]
    assert isinstance(variables, bus.CallEvent)
    assert (variables.kind, variables.data, type(started)) == ("variables", {"name": "Ann"}, bus.CallStarted)
    assert rig.events.facts(rig.start, "default", None, {"name": "Ann"}).variables == {"name": "Ann"}
    again = _rig(contexts, resume="1", began=str(STARTED_AT - 60), after="no_stream")
    again.events.on_start(again.start, "default", None, {"name": "Ann"})
    assert type(again.emitted[0]) is bus.CallStarted
