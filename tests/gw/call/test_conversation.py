"""gw.call.conversation: utterances in the sequence spoken, bounded, without unheard turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.call.conversation import CUT, Conversation, Correction, Utterance
from gw.call.turns import Turn

TEN = "one two three four five six seven eight nine ten"


def turn(
    n: int,
    text: str,
    *,
    role: str = "agent",
    start_ms: int = 0,
    interrupted: bool = False,
    heard_ms: int | None = 5000,
    length_ms: int | None = 5000,
) -> Turn:
    return Turn(n, role, text, f"i{n}", start_ms, interrupted, heard_ms, length_ms)


def said(n: int, text: str, role: str = "agent") -> Utterance:
    return Utterance(role, text, f"t{n}")


def test_utterances_come_in_the_order_spoken() -> None:
    conversation = Conversation()
    assert conversation.utterances() == []
    conversation.add([turn(2, "Fine.", start_ms=3000)])
    conversation.add([turn(3, "How are you?", role="caller", start_ms=1000, heard_ms=None)])
    assert conversation.utterances([turn(4, "And you?", start_ms=5000)]) == [
        said(3, "How are you?", "caller"),
        said(2, "Fine."),
        said(4, "And you?"),
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
        [
            turn(1, "Never heard.", interrupted=True, heard_ms=0),
            turn(2, "Dropped.", heard_ms=0),
            turn(3, ""),
            turn(4, "Extraordinary!", interrupted=True, heard_ms=2500),
        ]
    )
    assert conversation.utterances() == []


def heard_of(text: str, heard_ms: int, *, length_ms: int | None = 5000) -> str:
    conversation = Conversation()
    conversation.add([turn(1, text, interrupted=True, heard_ms=heard_ms, length_ms=length_ms)])
    return "".join(utterance.text for utterance in conversation.utterances())


@pytest.mark.parametrize(
    ("text", "heard_ms", "words"),
    [
        (TEN, 2500, "one two three four five"),
        (TEN, 4999, "one two three four five six seven eight nine"),
        (TEN, 5000, TEN),
        (TEN, 9999, TEN),
        ("four by four", 5000 * 4 // 12 + 1, "four"),
        ("明日は雨です", 2500, "明日は"),
    ],
)
def test_an_interrupted_turn_is_cut_to_its_heard_words(text: str, heard_ms: int, words: str) -> None:
    assert heard_of(text, heard_ms) == words + CUT


def test_the_length_of_a_stored_turn_is_estimated() -> None:
    assert heard_of(TEN, 65 * 13, length_ms=None) == "one two three" + CUT
    assert heard_of(TEN, 65 * len(TEN), length_ms=None) == TEN + CUT
    conversation = Conversation()
    conversation.add([turn(1, TEN, heard_ms=40, length_ms=None)])
    assert conversation.utterances() == [said(1, TEN)], "heard to its end"


@given(st.text(max_size=60), st.integers(0, 2000), st.integers(0, 2000))
def test_heard_words_are_a_beginning_of_the_text_and_grow_with_time(text: str, one_ms: int, other_ms: int) -> None:
    sooner, later = (heard_of(text, at_ms, length_ms=1000).removesuffix(CUT) for at_ms in sorted((one_ms, other_ms)))
    assert text.startswith(later)
    assert later.startswith(sooner)
    assert len(later) <= len(text) * max(one_ms, other_ms) / 1000


def test_an_interruption_after_the_replacement_is_corrected() -> None:
    conversation = Conversation()
    conversation.resume_from([Utterance("caller", "Hello?", "t1")])
    conversation.add([turn(202, "Count to ten.", role="caller", start_ms=1, heard_ms=None, length_ms=None)])
    counting = turn(203, TEN, start_ms=2, heard_ms=None, length_ms=None)
    assert conversation.restate([counting])[1:] == [said(202, "Count to ten.", "caller"), said(203, TEN)]
    cut = counting._replace(interrupted=True, heard_ms=2500, length_ms=5000)
    half = Utterance("agent", "one two three four five" + CUT, "t203c")
    assert conversation.corrections([cut]) == [Correction("t203", "t202", half)]
    assert conversation.corrections([cut]) == []


def test_a_turn_heard_as_sent_needs_no_correction() -> None:
    conversation = Conversation()
    conversation.add([turn(1, "Before.")])
    conversation.restate([turn(2, "Now.", heard_ms=None)])
    assert conversation.corrections([turn(1, "Before."), turn(2, "Now."), turn(3, "Later.", interrupted=True)]) == []


def test_corrected_items_keep_their_sequence() -> None:
    """The first is deleted, so the second follows the beginning; the third follows the second's new item."""
    conversation = Conversation()
    turns = [turn(n, TEN, start_ms=n, heard_ms=None) for n in (1, 2, 3)]
    conversation.restate(turns)
    heard = (0, 2500, 1000)
    cut = [one._replace(interrupted=True, heard_ms=heard_ms) for one, heard_ms in zip(turns, heard, strict=True)]
    assert conversation.corrections(cut) == [
        Correction("t1", "root", None),
        Correction("t2", "root", Utterance("agent", "one two three four five" + CUT, "t2c")),
        Correction("t3", "t2c", Utterance("agent", "one two" + CUT, "t3c")),
    ]


def test_the_next_session_gets_the_corrected_words_under_the_first_id() -> None:
    conversation = Conversation()
    playing = turn(1, TEN, heard_ms=None)
    conversation.restate([playing])
    cut = [playing._replace(interrupted=True, heard_ms=2500)]
    assert conversation.corrections(cut)
    conversation.add(cut)
    assert conversation.restate([]) == [said(1, "one two three four five" + CUT)]
    assert conversation.corrections(cut) == []


def test_words_that_came_late_are_created() -> None:
    """Nothing of the turn had text when the session began."""
    conversation = Conversation()
    conversation.restate([turn(1, "", heard_ms=None)])
    assert conversation.corrections([turn(1, "Late words.")]) == [
        Correction("", "root", Utterance("agent", "Late words.", "t1c"))
    ]


def test_only_the_latest_turns_of_a_stream_are_kept() -> None:
    conversation = Conversation()
    conversation.add(turn(n, f"{n}") for n in range(101))
    assert [one.n for one in conversation.turns] == list(range(1, 101))


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
