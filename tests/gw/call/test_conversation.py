"""What another session is told of a conversation: in order, bounded, and nothing the caller did not hear."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.conversation import CUT, MAX_CHARS, MAX_SAID, Past, Said, bounded
from gw.call.turns import Turn


def turn(
    n: int, text: str, *, role: str = "agent", start_ms: int = 0, interrupted: bool = False, heard_ms: int | None = 5
) -> Turn:
    return Turn(n, role, text, f"i{n}", start_ms, interrupted, heard_ms)


def test_it_is_told_in_the_order_it_was_spoken() -> None:
    past = Past()
    assert past.is_empty
    past.add([turn(2, "Fine.", start_ms=3000)])
    past.add([turn(3, "How are you?", role="caller", start_ms=1000, heard_ms=None)])
    assert past.told([turn(4, "And you?", start_ms=5000)]) == [
        Said("caller", "How are you?"),
        Said("agent", "Fine."),
        Said("agent", "And you?"),
    ]
    assert not past.is_empty


def test_what_was_said_before_the_stream_comes_first() -> None:
    past = Past()
    past.begin_with([Said("caller", "Hello?")])
    past.add([turn(1, "Again.", start_ms=-1)])
    assert [said.text for said in past.told()] == ["Hello?", "Again."]


def test_what_the_caller_did_not_hear_was_not_said() -> None:
    past = Past()
    past.add([turn(1, "Never heard.", interrupted=True, heard_ms=0), turn(2, "Half heard.", interrupted=True), turn(3, "")])
    assert past.told() == [Said("agent", "Half heard." + CUT)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=150))
def test_the_latest_stay_within_the_bounds(lengths: list[int]) -> None:
    said = [Said("caller", "x" * length) for length in lengths]
    kept = bounded(said)
    assert kept == said[len(said) - len(kept) :]
    assert len(kept) <= MAX_SAID
    assert sum(len(one.text) for one in kept) <= MAX_CHARS
    if len(kept) < min(len(said), MAX_SAID):
        assert sum(len(one.text) for one in said[-len(kept) - 1 :]) > MAX_CHARS
