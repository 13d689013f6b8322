"""Who said what: a turn goes out once, with its words and its fate, whichever of the two comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gw.call.playout import Truncation
from gw.call.turns import MAX_PENDING, Turn, Turns


def agent(n: int, text: str, item: str, start_ms: int, *, interrupted: bool = False, heard_ms: int | None = None) -> Turn:
    return Turn(n, "agent", text, item, start_ms, interrupted, heard_ms)


def test_a_turn_heard_to_its_end():
    turns = Turns()
    assert turns.on_agent_audio("a", 100) == []
    assert turns.on_agent_audio("a", 140) == []
    assert turns.on_agent_text("a", "Hello.", 150) == []
    assert turns.waiting() == ["a"]
    assert turns.on_heard("a", 900) == [agent(1, "Hello.", "a", 100, heard_ms=900)]
    assert turns.waiting() == []
    assert turns.on_heard("a", 900) == []
    assert turns.on_end({}, set()) == []


def test_text_that_comes_after_it_was_heard():
    turns = Turns()
    turns.on_agent_audio("a", 0)
    assert turns.on_heard("a", 300) == [], "its words are on their way"
    assert turns.on_agent_audio("a", 400) == []
    assert turns.on_agent_text("a", "Yes.", 500) == [agent(1, "Yes.", "a", 0, heard_ms=300)]
    assert turns.on_end({}, set()) == []


def test_an_interruption_with_the_text_there():
    turns = Turns()
    turns.on_agent_audio("a", 0)
    turns.on_agent_text("a", "A long story.", 10)
    assert turns.on_interrupted([Truncation("a", 420)]) == [agent(1, "A long story.", "a", 0, interrupted=True, heard_ms=420)]
    assert turns.on_interrupted([Truncation("a", 420)]) == []


def test_an_interruption_before_the_text():
    turns = Turns()
    turns.on_agent_audio("a", 0)
    assert turns.on_interrupted([Truncation("a", 420)]) == []
    assert turns.waiting() == [], "its fate is known"
    assert turns.on_agent_text("a", "A long", 900) == [agent(1, "A long", "a", 0, interrupted=True, heard_ms=420)]


def test_one_interruption_of_several_items():
    turns = Turns()
    for item in ("a", "b", "c"):
        turns.on_agent_audio(item, 0)
    turns.on_agent_text("a", "one", 1)
    turns.on_agent_text("c", "three", 1)
    whole = turns.on_interrupted([Truncation("a", 100), Truncation("b", 0), Truncation("c", 0), Truncation("nobody", 0)])
    assert [turn.item_id for turn in whole] == ["a", "c"]
    assert [turn.item_id for turn in turns.on_end({}, set())] == ["b"]


def test_text_without_audio_waits_like_audio():
    turns = Turns()
    assert turns.on_agent_text("a", "Only words.", 70) == []
    assert turns.on_end({}, {"a"}) == [agent(1, "Only words.", "a", 70, interrupted=True, heard_ms=0)]


def test_the_end_settles_what_is_open_in_order():
    turns = Turns()
    turns.on_agent_audio("wordless", 0)
    turns.on_agent_audio("heard", 10)
    turns.on_agent_audio("cut", 20)
    turns.on_agent_text("heard", "two", 11)
    turns.on_agent_text("cut", "three", 21)
    turns.on_interrupted([Truncation("wordless", 40)])
    assert turns.on_end({"heard": 500, "cut": 60}, {"cut"}) == [
        agent(1, "", "wordless", 0, interrupted=True, heard_ms=40),
        agent(2, "two", "heard", 10, heard_ms=500),
        agent(3, "three", "cut", 20, interrupted=True, heard_ms=60),
    ]
    assert turns.on_end({}, set()) == []


def test_the_callers_words_carry_the_start_of_their_speech():
    turns = Turns()
    turns.on_caller_speech("x", 1200)
    turns.on_agent_audio("a", 3000)
    assert turns.on_caller_text("x", "Hello?", 4000) == [Turn(2, "caller", "Hello?", "x", 1200, False, None)]
    assert turns.on_caller_text("y", "Late.", 5000) == [Turn(3, "caller", "Late.", "y", 5000, False, None)]


def test_every_memory_is_bounded():
    turns = Turns()
    out = []
    for n in range(3 * MAX_PENDING):
        out += turns.on_agent_audio(f"a{n}", n)
        turns.on_caller_speech(f"c{n}", n)
    assert len(turns.waiting()) == MAX_PENDING
    assert [turn.item_id for turn in out] == [f"a{n}" for n in range(2 * MAX_PENDING)], "the oldest, as they stand"
    assert {(turn.heard_ms, turn.interrupted) for turn in out} == {(None, False)}
    assert turns.on_caller_text("c0", "", 9)[0].start_ms == 9, "forgotten"
    assert turns.on_caller_text(f"c{3 * MAX_PENDING - 1}", "", 9)[0].start_ms == 3 * MAX_PENDING - 1
    out = []
    for n in range(2 * MAX_PENDING):
        turns.on_agent_audio(f"b{n}", n)
        out += turns.on_interrupted([Truncation(f"b{n}", 5)])
    assert [turn.item_id for turn in out] == [f"b{n}" for n in range(MAX_PENDING)]
    assert {turn.heard_ms for turn in out} == {5}


ITEMS = st.sampled_from("abcde")
STEPS = st.lists(st.tuples(st.sampled_from(["audio", "text", "heard", "cut"]), ITEMS), max_size=40)


@given(STEPS)
def test_no_item_is_told_twice_between_its_audio_and_the_end(steps: list[tuple[str, str]]):
    """Each item that said something gets one turn per life, and numbers are never used twice."""
    turns, out, lives = Turns(), [], {}
    alive: dict[str, set[str]] = {}  # what is known of the items that are not told yet
    for at_ms, (kind, item) in enumerate(steps):
        known = alive.get(item)
        if kind in ("audio", "text") and known is None:
            known = alive[item] = set()
            lives[item] = lives.get(item, 0) + 1
        if known is None:
            continue
        if kind == "text" and "text" in known:
            continue  # an API says an item's words once
        match kind:
            case "audio":
                whole = turns.on_agent_audio(item, at_ms)
            case "text":
                whole = turns.on_agent_text(item, "words", at_ms)
            case "heard":
                whole = turns.on_heard(item, 1)
            case _:
                whole = turns.on_interrupted([Truncation(item, 1)])
        known.add("fate" if kind in ("heard", "cut") else kind)
        assert bool(whole) == ({"text", "fate"} <= known)
        out += whole
        if whole:
            del alive[item]
    rest = turns.on_end({}, set())
    assert {turn.item_id for turn in rest} == set(alive)
    told = [turn.item_id for turn in out + rest]
    assert {item: told.count(item) for item in told} == lives
    numbers = [turn.n for turn in out + rest]
    assert len(set(numbers)) == len(numbers)
