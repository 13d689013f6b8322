"""gw.call.conversation: utterances in the sequence spoken, bounded, without unheard turns."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.conversation import CUT, Conversation, Utterance
from gw.call.turns import Turn


def turn(
    n: int, text: str, *, role: str = "agent", start_ms: int = 0, interrupted: bool = False, heard_ms: int | None = 5
) -> Turn:
    return Turn(n, role, text, f"i{n}", start_ms, interrupted, heard_ms)


def test_utterances_come_in_the_order_spoken() -> None:
    conversation = Conversation()
    assert conversation.utterances() == []
    conversation.add([turn(2, "Fine.", start_ms=3000)])
    conversation.add([turn(3, "How are you?", role="caller", start_ms=1000, heard_ms=None)])
    assert conversation.utterances([turn(4, "And you?", start_ms=5000)]) == [
        Utterance("caller", "How are you?"),
        Utterance("agent", "Fine."),
        Utterance("agent", "And you?"),
    ]
    assert [one.n for one in conversation.turns] == [2, 3]


def test_of_turns_that_began_together_the_lower_number_comes_first() -> None:
    conversation = Conversation()
    conversation.add([turn(2, "Second."), turn(1, "First.")])
    assert [utterance.text for utterance in conversation.utterances()] == ["First.", "Second."]


def test_utterances_before_the_stream_come_first() -> None:
    conversation = Conversation()
    conversation.resume_from([Utterance("caller", "Hello?")])
    conversation.add([turn(1, "Again.", start_ms=-1)])
    assert [utterance.text for utterance in conversation.utterances()] == ["Hello?", "Again."]


def test_a_turn_the_caller_did_not_hear_is_left_out() -> None:
    conversation = Conversation()
    conversation.add(
        [turn(1, "Never heard.", interrupted=True, heard_ms=0), turn(2, "Half heard.", interrupted=True), turn(3, "")]
    )
    assert conversation.utterances() == [Utterance("agent", "Half heard." + CUT)]


def test_only_the_latest_turns_of_a_stream_are_kept() -> None:
    conversation = Conversation()
    conversation.add(turn(n, f"{n}") for n in range(101))
    assert [one.n for one in conversation.turns] == list(range(1, 101))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6000), max_size=150))
def test_the_latest_stay_within_the_bounds(lengths: list[int]) -> None:
    said = [Utterance("caller", f"{n} " + "x" * length) for n, length in enumerate(lengths)]
    conversation = Conversation()
    conversation.resume_from(said)
    kept = conversation.utterances()
    assert kept == said[len(said) - len(kept) :]
    assert len(kept) <= 100
    assert sum(len(one.text) for one in kept) <= 20_000
    if len(kept) < min(len(said), 100):
        assert sum(len(one.text) for one in said[-len(kept) - 1 :]) > 20_000


def test_exactly_the_bound_of_characters_is_kept() -> None:
    conversation = Conversation()
    conversation.resume_from([Utterance("caller", "x" * (19_999)), Utterance("agent", "y")])
    assert len(conversation.utterances()) == 2
    conversation.resume_from([Utterance("caller", "x" * 20_000), Utterance("agent", "y")])
    assert len(conversation.utterances()) == 1
