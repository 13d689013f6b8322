"""The states of the model: what is forgotten, and what is not."""

from __future__ import annotations

from gw.verify.guard.state import NEVER, Hook, State, StreamState, at_rest, excused, span


def test_a_stream_at_rest_keeps_what_counts() -> None:
    told = StreamState(0, phase="ended", heard=True, flag=True, fired=1, outbox=("record",), spooled=1, acked=1)
    assert at_rest(told) == StreamState(0, phase="ended", chunks=0, heard=True)
    untold = told._replace(spooled=0, acked=0)
    assert at_rest(untold).outbox == ("record",)
    assert at_rest(told._replace(fired=2)).fired == 2
    assert at_rest(told._replace(phase="open")).flag


def test_an_excuse_ends_the_promise() -> None:
    state = State(1, (StreamState(0, due_ms=500),), ())
    assert excused(state).streams[0].due_ms == NEVER
    assert not excused(state._replace(over=True)).excused


def test_times_in_words() -> None:
    assert (span(100), span(1500), span(40_000)) == ("100 ms", "1.5 s", "40 s")


def test_webhooks_have_no_order() -> None:
    assert sorted([Hook("over", 0), Hook("completed", 1)]) == [Hook("completed", 1), Hook("over", 0)]
