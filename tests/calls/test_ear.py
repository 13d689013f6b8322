"""The judgements on the caller's ear, on timelines made by hand."""

from __future__ import annotations

import pytest

from gw.twin.sound import SILENT_FRAME
from tests.calls.ear import Ear, Item, Span, cut_goodbyes, dead_air, heard_ms, identify, repeated_frames, talked_over, talkspurts

LOUD = b"\x21" * 160


def audio(first: int, frames: int) -> bytes:
    """Return frames that differ from each other."""
    return b"".join(bytes([first + n]) * 160 for n in range(frames))


def played(start_s: float, sound: bytes) -> list[tuple[float, bytes]]:
    """Return audio as a gateway sends it, a message for each frame."""
    return [(start_s + at / 8000, sound[at : at + 160]) for at in range(0, len(sound), 160)]


def near(span: Span) -> Span:
    return Span(round(span.start_s, 6), round(span.end_s, 6), span.item, span.first)


# -- identity -----------------------------------------------------------------------------------------------------------


def test_each_frame_is_traced_to_its_item() -> None:
    items = [Item("a", 0.0, audio(1, 10)), Item("b", 2.0, audio(50, 10)[:-80])]
    heard = played(1.0, audio(1, 10)) + played(3.0, audio(50, 10)[:-80] + b"\xff" * 80) + played(4.0, b"\x99" * 320)
    spans = [near(span) for span in identify(heard, items)]
    assert spans == [Span(1.0, 1.2, "a"), Span(3.0, 3.2, "b"), Span(4.0, 4.04)]


def test_a_pause_in_an_item_makes_two_spans() -> None:
    sound = audio(1, 10)
    heard = played(1.0, sound[: 160 * 4]) + played(2.0, sound[160 * 4 :])
    assert [near(span) for span in identify(heard, [Item("a", 0.0, sound)])] == [Span(1.0, 1.08, "a"), Span(2.0, 2.12, "a", 4)]


def test_a_frame_that_was_cut_belongs_to_its_item() -> None:
    sound = audio(1, 10)
    spans = identify(played(1.0, sound[: 160 * 4 + 50]), [Item("a", 0.0, sound)])
    assert [(span.item, span.first) for span in spans] == [("a", 0)]
    assert spans[0].end_s == pytest.approx(1.0 + (160 * 4 + 50) / 8000)


def test_a_frame_that_the_ai_left_half_belongs_to_its_item() -> None:
    sound = audio(1, 10)
    half = played(1.0, sound[: 160 * 4 + 50] + b"\xff" * 110) + played(1.1, b"\xff" * 160)
    assert [near(span) for span in identify(half, [Item("a", 0.0, sound)])] == [Span(1.0, 1.1, "a")]


def test_of_equal_audio_the_latest_response_is_meant_and_none_of_the_future() -> None:
    items = [Item("a", 0.0, audio(1, 5)), Item("b", 2.0, audio(1, 5)), Item("c", 9.0, audio(1, 5))]
    heard = played(1.0, audio(1, 5)) + played(3.0, audio(1, 5))
    assert [span.item for span in identify(heard, items)] == ["a", "b"]


def test_equal_frames_within_an_item_continue_the_span() -> None:
    sound = audio(1, 2) + SILENT_FRAME * 5 + audio(9, 2)
    spans = identify(played(1.0, sound), [Item("other", 0.5, SILENT_FRAME * 9), Item("a", 0.0, sound)])
    assert [near(span) for span in spans] == [Span(1.0, 1.18, "a")]


def test_a_frame_played_twice_is_found() -> None:
    sound = audio(1, 10)
    spans = identify(played(1.0, sound[: 160 * 6] + sound[160 * 4 :]), [Item("a", 0.0, sound)])
    assert repeated_frames(Ear(agent=spans)) == 2
    assert repeated_frames(Ear(agent=identify(played(1.0, sound), [Item("a", 0.0, sound)]))) == 0


def test_talkspurts_bridge_pauses_and_leave_clicks_out() -> None:
    loud_s = [*(n / 50 for n in range(20)), *(0.7 + n / 50 for n in range(10)), 3.0, 3.02]
    quiet_s = [0.5 + n / 50 for n in range(5)]
    frames = sorted([(at_s, LOUD) for at_s in loud_s] + [(at_s, SILENT_FRAME) for at_s in quiet_s])
    assert [near(span) for span in talkspurts(frames)] == [Span(0.0, 0.9)]
    assert [near(span) for span in talkspurts((n / 50 + (n >= 10), LOUD) for n in range(20))] == [Span(0.0, 0.2), Span(1.2, 1.4)]


# -- judgements ---------------------------------------------------------------------------------------------------------


def test_dead_air_lasts_until_the_answer() -> None:
    ear = Ear(agent=(Span(1.0, 2.0, "a"), Span(5.0, 6.0, "b")), ended_s=9.0)
    assert dead_air(ear, [0.0, 1.5, 3.5, 7.0]) == [1.0, 0.0, 1.5, 2.0]


def test_a_holding_sound_breaks_dead_air_without_ending_it() -> None:
    ear = Ear(agent=(Span(1.0, 2.0), Span(5.0, 6.0, "b")), ended_s=9.0)
    assert dead_air(ear, [0.5, 1.5, 2.5]) == [3.0, 3.0, 2.5]


def test_dead_air_ends_with_the_callers_next_words_and_with_the_call() -> None:
    ear = Ear(caller=(Span(0.0, 1.0), Span(3.0, 4.0)), agent=(Span(8.0, 9.0, "a"),), ended_s=6.0)
    assert dead_air(ear, [1.0, 4.0, 7.0]) == [2.0, 2.0, 0.0]


def test_the_agent_has_time_to_fall_silent() -> None:
    said = Span(2.0, 4.0)
    assert talked_over(Ear(agent=(Span(1.0, 2.29, "a"),)), [said]) == 0
    assert talked_over(Ear(agent=(Span(1.0, 2.5, "a"),)), [said]) == 10
    assert talked_over(Ear(agent=(Span(1.0, 9.0, "a"),)), [said]) == 85
    assert talked_over(Ear(agent=(Span(4.0, 5.0, "a"), Span(3.0, 3.2, "b"))), [said, Span(6.0, 7.0)]) == 10
    assert talked_over(Ear(agent=(Span(1.0, 9.0, "a"),)), [Span(2.0, 2.2)]) == 0


def test_heard_milliseconds_of_an_item() -> None:
    ear = Ear(agent=(Span(1.0, 1.5, "a"), Span(1.5, 2.0, "b"), Span(3.0, 3.25, "a", 25)))
    assert (heard_ms(ear, "a"), heard_ms(ear, "b"), heard_ms(ear, "c")) == (750, 500, 0)
    assert [heard_ms(ear, "a", until_s) for until_s in (0.5, 1.25, 2.0, 3.125)] == [0, 250, 500, 625]


def test_goodbyes_that_were_cut() -> None:
    whole, half = Ear(agent=(Span(1.0, 2.0, "a"),)), Ear(agent=(Span(1.0, 1.5, "a"),))
    assert cut_goodbyes(whole, {"a": 1000}) == []
    assert cut_goodbyes(whole, {"a": 1015}) == []
    assert cut_goodbyes(half, {"a": 1000}) == ["a"]
    assert cut_goodbyes(Ear(), {"a": 1000}) == ["a"]
    taken_back = Ear(agent=half.agent, caller=(Span(1.2, 2.0),))
    assert cut_goodbyes(taken_back, {"a": 1000}) == []
    spoke_before = Ear(agent=half.agent, caller=(Span(0.0, 0.5),))
    assert cut_goodbyes(spoke_before, {"a": 1000}) == ["a"]
