"""gw.call.turns: each turn is returned once, with its text and outcome, in either sequence."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.call.audio.playout import Outcome
from gw.call.turns import Turn, Turns
from tests.examples import examples

LENGTH_MS = 5000


def agent(n: int, text: str, item_id: str, start_ms: int, interrupted: bool, heard_ms: int | None) -> Turn:
    """Return an agent's turn. A cut item has LENGTH_MS, a whole one was heard to its end."""
    length_ms = LENGTH_MS if interrupted else heard_ms
    return Turn(n, "agent", text, item_id, start_ms, interrupted, heard_ms, length_ms)


def caller(n: int, text: str, item_id: str, start_ms: int) -> Turn:
    return Turn(n, "caller", text, item_id, start_ms, False, None)


def whole(item_id: str, length_ms: int) -> list[Outcome]:
    return [Outcome(item_id, length_ms, length_ms, whole=True)]


def cut(item_id: str, heard_ms: int) -> list[Outcome]:
    return [Outcome(item_id, heard_ms, LENGTH_MS, whole=False)]


def test_a_turn_is_finished_once_heard() -> None:
    turns = Turns()
    assert turns.on_agent_audio("i", 100) == []
    assert turns.on_agent_audio("i", 120) == []
    assert turns.on_agent_text("i", "Hello.", 150) == []
    assert turns.on_heard(whole("i", 900)) == [agent(1, "Hello.", "i", 100, False, 900)]
    assert turns.on_heard(whole("i", 900)) == []
    assert turns.in_progress() == []


def test_a_heard_turn_waits_for_its_text_and_is_returned_once() -> None:
    turns = Turns()
    turns.on_agent_audio("i", 100)
    assert turns.on_heard(whole("i", 300)) == []
    assert turns.on_agent_audio("i", 400) == []
    assert turns.on_agent_text("i", "Hm.", 500) == [agent(1, "Hm.", "i", 100, False, 300)]
    assert turns.on_end([]) == []


def test_an_interrupted_turn_waits_for_its_text() -> None:
    turns = Turns()
    turns.on_agent_audio("i1", 100)
    turns.on_agent_audio("i2", 200)
    turns.on_agent_text("i1", "One.", 150)
    assert turns.on_interrupted([*cut("i1", 70), *cut("i2", 0), *cut("a stranger", 5)]) == [agent(1, "One.", "i1", 100, True, 70)]
    assert turns.on_agent_text("i2", "Two.", 400) == [agent(2, "Two.", "i2", 200, True, 0)]


def test_an_item_may_have_text_without_audio() -> None:
    turns = Turns()
    assert turns.on_agent_text("i", "Unheard.", 100) == []
    assert turns.on_interrupted(cut("i", 0)) == [agent(1, "Unheard.", "i", 100, True, 0)]


def test_a_callers_turn_starts_with_the_voice() -> None:
    turns = Turns()
    turns.on_caller_speech("c1", 1000)
    turns.on_agent_audio("i", 1500)
    assert turns.on_caller_text("c1", "Hello?", 2500) == [Turn(2, "caller", "Hello?", "c1", 1000, False, None)]
    assert turns.on_caller_text("c2", "Without a start.", 4000)[0].start_ms == 4000


def test_the_end_of_the_call_leaves_no_turn_open() -> None:
    turns = Turns()
    for n, item in enumerate(("cut", "heard", "half", "never")):
        turns.on_agent_audio(item, n)
    for item in ("half", "never"):
        turns.on_agent_text(item, item, 10)
    turns.on_interrupted(cut("cut", 5))
    turns.on_heard(whole("heard", 6))
    assert turns.on_end(cut("half", 40)) == [
        agent(1, "", "cut", 0, True, 5),
        agent(2, "", "heard", 1, False, 6),
        agent(3, "half", "half", 2, True, 40),
        agent(4, "never", "never", 3, False, 0),
    ]
    assert turns.on_end([]) == []


def test_pending_turns_are_bounded_and_the_oldest_is_returned_incomplete() -> None:
    turns = Turns()
    out = [turn for n in range(33) for turn in turns.on_agent_audio(f"i{n}", n)]
    assert out == [agent(1, "", "i0", 0, False, None)]
    assert turns.on_interrupted([outcome for n in range(1, 33) for outcome in cut(f"i{n}", n)]) == []
    turns.on_agent_audio("one more", 99)
    assert turns.on_heard(whole("one more", 7)) == [agent(2, "", "i1", 1, True, 1)]
    assert [turn for n in range(33) for turn in turns.on_caller_speech(f"c{n}", n)] == [caller(35, "", "c0", 0)]
    assert turns.on_caller_text("c1", "x", 500)[0].start_ms == 1
    assert turns.on_caller_text("c1", "x", 500)[0].start_ms == 500, "a turn has one start"


events = st.lists(
    st.tuples(st.sampled_from(["audio", "text", "heard", "cut"]), st.sampled_from("abcd"), st.integers(0, 99)), max_size=30
)


@settings(max_examples=examples(300))
@given(events)
def test_in_any_sequence_each_item_is_returned_once_with_its_outcome(script: list[tuple[str, str, int]]) -> None:
    """Items as a leg sends them: audio first, one text, one outcome."""
    turns = Turns()
    out: list[Turn] = []
    began: dict[str, int] = {}
    texts: dict[str, str] = {}
    outcomes: dict[str, tuple[bool, int]] = {}
    for now_ms, (what, item, heard_ms) in enumerate(script):
        if what == "audio":
            if item not in outcomes:
                out += turns.on_agent_audio(item, now_ms)
                began.setdefault(item, now_ms)
        elif item not in began:
            continue
        elif what == "text" and item not in texts:
            texts[item] = f"text of {item}"
            out += turns.on_agent_text(item, texts[item], now_ms)
        elif what == "heard" and item not in outcomes:
            outcomes[item] = (False, heard_ms)
            out += turns.on_heard(whole(item, heard_ms))
        elif what == "cut" and item not in outcomes:
            outcomes[item] = (True, heard_ms)
            out += turns.on_interrupted(cut(item, heard_ms))
        assert {turn.item_id for turn in out} == set(texts) & set(outcomes)
    out += turns.on_end([outcome for item in began for outcome in cut(item, 50)])
    numbers = {item: n for n, item in enumerate(began, start=1)}
    assert sorted(out) == sorted(
        agent(numbers[item], texts.get(item, ""), item, start_ms, *outcomes.get(item, (True, 50)))
        for item, start_ms in began.items()
    )


def test_a_partial_transcript_is_the_text_of_a_turn_whose_ai_was_lost() -> None:
    turns = Turns()
    for item in ("heard", "playing", "whole"):
        turns.on_agent_audio(item, 1)
        turns.on_agent_text_delta(item, "Some ")
        turns.on_agent_text_delta(item, "words")
    turns.on_agent_text_delta("a stranger", "x")
    turns.on_agent_text("whole", "All of it.", 5)
    assert [turn.text for turn in turns.in_progress()] == ["Some words", "Some words", "All of it."]
    assert turns.on_heard(whole("heard", 300)) == [], "its text has not come"
    turns.on_agent_text_delta("heard", ", more")
    assert turns.on_ai_lost() == [agent(1, "Some words, more", "heard", 1, False, 300)]
    assert turns.on_heard(whole("playing", 400)) == [agent(2, "Some words", "playing", 1, False, 400)]
    assert turns.on_heard(whole("whole", 500)) == [agent(3, "All of it.", "whole", 1, False, 500)]
    assert turns.on_ai_lost() == []


def test_partial_transcripts_are_bounded_and_numbers_continue() -> None:
    turns = Turns(200)
    turns.on_agent_audio("i", 1)
    for _ in range(3):
        turns.on_agent_text_delta("i", "x" * 8_000)
    (turn,) = turns.in_progress()
    assert (turn.n, len(turn.text)) == (201, 16_000)


def test_texts_are_kept_over_partial_transcripts() -> None:
    turns = Turns()
    turns.on_agent_text_delta("i", "early")
    turns.on_agent_audio("i", 1)
    turns.on_agent_text("i", "Whole.", 2)
    turns.on_agent_text_delta("i", "part")
    assert turns.on_ai_lost() == []
    assert [turn.text for turn in turns.in_progress()] == ["Whole."]
    assert turns.in_progress() == [agent(1, "Whole.", "i", 1, False, None)]


def test_turns_end_by_number_at_the_calls_end() -> None:
    turns = Turns()
    for item in ("first", "second", "third"):
        turns.on_agent_audio(item, 0)
    turns.on_heard(whole("third", 30))
    turns.on_heard(whole("first", 10))
    assert [(turn.n, turn.heard_ms) for turn in turns.on_end(whole("second", 20))] == [(1, 10), (2, 20), (3, 30)]


def test_one_interruption_resolves_what_was_heard_before_it() -> None:
    """The echo of its mark comes after the clear, and is no longer known."""
    turns = Turns()
    for item in ("heard", "playing", "queued"):
        turns.on_agent_audio(item, 0)
        turns.on_agent_text(item, item, 1)
    assert turns.on_interrupted([*whole("heard", 400), *cut("playing", 80), *cut("queued", 0)]) == [
        agent(1, "heard", "heard", 0, False, 400),
        agent(2, "playing", "playing", 0, True, 80),
        agent(3, "queued", "queued", 0, True, 0),
    ]


def test_an_echo_resolves_the_whole_items_only() -> None:
    turns = Turns()
    turns.on_agent_audio("playing", 0)
    turns.on_agent_text("playing", "x", 1)
    assert turns.on_heard(cut("playing", 80)) == []
    assert turns.on_heard(whole("playing", 80)) == [agent(1, "x", "playing", 0, False, 80)]


def test_words_before_the_first_audio_are_kept() -> None:
    turns = Turns()
    turns.on_agent_text_delta("i", "Good ")
    turns.on_agent_audio("i", 5)
    turns.on_agent_text_delta("i", "morning")
    assert [turn.text for turn in turns.in_progress()] == ["Good morning"]
    turns.on_ai_lost()
    turns.on_agent_audio("later", 9)
    assert [turn.text for turn in turns.in_progress()] == ["Good morning", ""]


def test_early_words_are_bounded() -> None:
    turns = Turns()
    for n in range(65):
        turns.on_agent_text_delta(f"i{n}", "words")
    for n in (0, 1, 64):
        turns.on_agent_audio(f"i{n}", n)
    assert [turn.text for turn in turns.in_progress()] == ["", "words", "words"]


def test_the_words_so_far_are_stored_if_the_call_ends_before_the_text() -> None:
    turns = Turns()
    for item in ("heard", "playing"):
        turns.on_agent_audio(item, 0)
        turns.on_agent_text_delta(item, f"{item} half")
    turns.on_heard(whole("heard", 300))
    assert turns.on_end(cut("playing", 100)) == [
        agent(1, "heard half", "heard", 0, False, 300),
        agent(2, "playing half", "playing", 0, True, 100),
    ]


def test_a_lost_ai_leaves_no_turn_waiting_for_its_text() -> None:
    turns = Turns()
    turns.on_agent_audio("i", 0)
    turns.on_caller_speech("c", 40)
    assert turns.on_ai_lost() == [caller(2, "", "c", 40)]
    assert turns.on_heard(whole("i", 300)) == [agent(1, "", "i", 0, False, 300)]


def test_a_callers_turn_without_words_is_kept() -> None:
    turns = Turns()
    for n in range(4):
        turns.on_caller_speech(f"c{n}", n * 1000)
    assert turns.on_caller_text_failed("c1", 9000) == [caller(1, "", "c1", 1000)]
    turns.on_caller_noise("c2")
    turns.on_caller_noise("a stranger")
    assert turns.on_end([]) == [caller(2, "", "c0", 0), caller(3, "", "c3", 3000)]
    assert turns.on_end([]) == []
