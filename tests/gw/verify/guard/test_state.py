"""States of the model, reduced to the facts that still matter."""

from __future__ import annotations

from gw.verify.guard.state import NEVER, Hook, ModelState, StreamState, at_rest, excused, span


def test_a_stream_at_rest_keeps_the_facts_that_matter() -> None:
    read = StreamState(0, phase="ended", heard=True, flag=True, fired=1, outbox=("record",), spooled=1, acked=1)
    assert at_rest(read) == StreamState(0, phase="ended", chunks=0, heard=True)
    unread = read._replace(spooled=0, acked=0)
    assert at_rest(unread).outbox == ("record",)
    assert at_rest(read._replace(fired=2)).fired == 2
    assert at_rest(read._replace(phase="open")).flag


def test_an_excuse_ends_the_promise() -> None:
    state = ModelState(1, (StreamState(0, due_ms=500),), ())
    assert excused(state).streams[0].due_ms == NEVER
    assert not excused(state._replace(over=True)).excused


def test_durations_as_text() -> None:
    assert (span(100), span(1500), span(40_000)) == ("100 ms", "1.5 s", "40 s")


def test_webhooks_have_no_order() -> None:
    assert sorted([Hook("over", 0), Hook("completed", 1)]) == [Hook("completed", 1), Hook("over", 0)]
