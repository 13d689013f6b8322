"""Turns: each of the agent's comes out once, with its text and its fate, whichever was known first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.playout import Truncation
from gw.call.turns import MAX_PENDING, MAX_WORDS_CHARS, Turn, Turns
from tests.examples import examples


def agent(n: int, text: str, item_id: str, start_ms: int, interrupted: bool, heard_ms: int | None) -> Turn:
    return Turn(n, "agent", text, item_id, start_ms, interrupted, heard_ms)


def test_a_turn_is_whole_once_heard() -> None:
    turns = Turns()
    assert turns.on_agent_audio("i", 100) == []
    assert turns.on_agent_audio("i", 120) == []
    assert turns.on_agent_text("i", "Hello.", 150) == []
    assert turns.unresolved_items() == ["i"]
    assert turns.on_heard("i", 900) == [agent(1, "Hello.", "i", 100, False, 900)]
    assert turns.on_heard("i", 900) == []
    assert turns.unresolved_items() == []


def test_a_turn_heard_before_its_text_came_waits_for_it_and_comes_once() -> None:
    turns = Turns()
    turns.on_agent_audio("i", 100)
    assert turns.on_heard("i", 300) == []
    assert turns.on_agent_audio("i", 400) == []
    assert turns.on_agent_text("i", "Hm.", 500) == [agent(1, "Hm.", "i", 100, False, 300)]
    assert turns.on_end({}, set()) == []


def test_an_interrupted_turn_waits_for_its_text() -> None:
    turns = Turns()
    turns.on_agent_audio("i1", 100)
    turns.on_agent_audio("i2", 200)
    turns.on_agent_text("i1", "One.", 150)
    truncations = [Truncation("i1", 70), Truncation("i2", 0), Truncation("a stranger", 5)]
    assert turns.on_interrupted(truncations) == [agent(1, "One.", "i1", 100, True, 70)]
    assert turns.on_agent_text("i2", "Two.", 400) == [agent(2, "Two.", "i2", 200, True, 0)]


def test_text_may_be_all_that_comes_of_an_item() -> None:
    turns = Turns()
    assert turns.on_agent_text("i", "Unheard.", 100) == []
    assert turns.on_interrupted([Truncation("i", 0)]) == [agent(1, "Unheard.", "i", 100, True, 0)]


def test_the_callers_words_start_where_the_voice_did() -> None:
    turns = Turns()
    turns.on_caller_speech("c1", 1000)
    turns.on_agent_audio("i", 1500)
    assert turns.on_caller_text("c1", "Hello?", 2500) == [Turn(2, "caller", "Hello?", "c1", 1000, False, None)]
    assert turns.on_caller_text("c2", "Nobody heard me begin.", 4000)[0].start_ms == 4000


def test_the_end_of_the_call_leaves_no_turn_open() -> None:
    turns = Turns()
    for n, item in enumerate(("cut", "heard", "half", "never")):
        turns.on_agent_audio(item, n)
    for item in ("half", "never"):
        turns.on_agent_text(item, item, 10)
    turns.on_interrupted([Truncation("cut", 5)])
    turns.on_heard("heard", 6)
    assert turns.on_end({"half": 40}, {"half"}) == [
        agent(1, "", "cut", 0, True, 5),
        agent(2, "", "heard", 1, False, 6),
        agent(3, "half", "half", 2, True, 40),
        agent(4, "never", "never", 3, False, 0),
    ]
    assert turns.on_end({}, set()) == []


def test_every_store_of_turns_is_bounded_and_the_oldest_goes_out_as_it_is() -> None:
    turns = Turns()
    out = [turn for n in range(MAX_PENDING + 1) for turn in turns.on_agent_audio(f"i{n}", n)]
    assert out == [agent(1, "", "i0", 0, False, None)]
    cut = [Truncation(f"i{n}", n) for n in range(1, MAX_PENDING + 1)]
    assert turns.on_interrupted(cut) == []
    turns.on_agent_audio("one more", 99)
    assert turns.on_heard("one more", 7) == [agent(2, "", "i1", 1, True, 1)]
    for n in range(MAX_PENDING + 1):
        turns.on_caller_speech(f"c{n}", n)
    assert turns.on_caller_text("c0", "x", 500)[0].start_ms == 500
    assert turns.on_caller_text("c1", "x", 500)[0].start_ms == 1


events = st.lists(
    st.tuples(st.sampled_from(["audio", "text", "heard", "cut"]), st.sampled_from("abcd"), st.integers(0, 99)), max_size=30
)


@settings(max_examples=examples(300), deadline=None)
@given(events)
def test_whatever_the_order_each_item_comes_out_once_with_what_came_of_it(script: list[tuple[str, str, int]]) -> None:
    """Items as a leg brings them: audio first, one text, one fate."""
    turns = Turns()
    out: list[Turn] = []
    began: dict[str, int] = {}
    texts: dict[str, str] = {}
    fates: dict[str, tuple[bool, int]] = {}
    for now_ms, (what, item, heard_ms) in enumerate(script):
        if what == "audio":
            if item not in fates:
                out += turns.on_agent_audio(item, now_ms)
                began.setdefault(item, now_ms)
        elif item not in began:
            continue
        elif what == "text" and item not in texts:
            texts[item] = f"text of {item}"
            out += turns.on_agent_text(item, texts[item], now_ms)
        elif what == "heard" and item not in fates:
            fates[item] = (False, heard_ms)
            out += turns.on_heard(item, heard_ms)
        elif what == "cut" and item not in fates:
            fates[item] = (True, heard_ms)
            out += turns.on_interrupted([Truncation(item, heard_ms)])
        assert {turn.item_id for turn in out} == set(texts) & set(fates)
    out += turns.on_end(dict.fromkeys(began, 50), set(began))
    numbers = {item: n for n, item in enumerate(began, start=1)}
    assert sorted(out) == sorted(
        agent(numbers[item], texts.get(item, ""), item, start_ms, *fates.get(item, (True, 50)))
        for item, start_ms in began.items()
    )


def test_the_words_that_came_are_the_text_of_a_turn_whose_ai_was_lost() -> None:
    turns = Turns()
    for item in ("heard", "under way", "whole"):
        turns.on_agent_audio(item, 1)
        turns.on_agent_text_delta(item, "Some ")
        turns.on_agent_text_delta(item, "words")
    turns.on_agent_text_delta("a stranger", "x")
    turns.on_agent_text("whole", "All of it.", 5)
    assert [turn.text for turn in turns.in_progress()] == ["Some words", "Some words", "All of it."]
    assert turns.on_heard("heard", 300) == [], "its text is still to come"
    turns.on_agent_text_delta("heard", ", more")
    assert turns.on_ai_lost() == [agent(1, "Some words, more", "heard", 1, False, 300)]
    assert turns.on_heard("under way", 400) == [agent(2, "Some words", "under way", 1, False, 400)]
    assert turns.on_heard("whole", 500) == [agent(3, "All of it.", "whole", 1, False, 500)]
    assert turns.on_ai_lost() == []


def test_a_turns_words_are_bounded_and_numbers_go_on_from_where_they_are_told() -> None:
    turns = Turns(200)
    turns.on_agent_audio("i", 1)
    for _ in range(3):
        turns.on_agent_text_delta("i", "x" * MAX_WORDS_CHARS)
    (turn,) = turns.in_progress()
    assert (turn.n, len(turn.text)) == (201, MAX_WORDS_CHARS)
