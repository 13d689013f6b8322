"""gw.twin.ai.vad: real recordings, cut in any way, without a clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gw.twin import sound, speech
from gw.twin.ai.vad import EnergyVad, SpeechEdge
from tests.examples import examples

LOUD = b"\x80" * sound.FRAME_BYTES


def test_silence_and_tags_are_not_speech() -> None:
    vad = EnergyVad()
    assert vad.feed(sound.silence(3000) + sound.tag(5)) == []


def test_two_phrases_are_two_turns() -> None:
    audio = b"".join(speech.script(500, "weasels", 1500, "monkeys", 1500))
    edges = EnergyVad(silence_ms=500).feed(audio)
    assert [edge.started for edge in edges] == [True, False, True, False]
    assert 150 <= edges[0].at_ms <= 500
    assert 500 + 2820 <= edges[1].at_ms <= 500 + 2820 + 600


def test_edges_at_exact_times() -> None:
    vad = EnergyVad(silence_ms=100, padding_ms=20, onset_ms=60)
    assert vad.feed(sound.silence(200) + LOUD * 3) == [SpeechEdge(True, 180)]
    assert vad.speaking
    assert vad.feed(sound.silence(80)) == []
    assert vad.feed(sound.silence(20)) == [SpeechEdge(False, 360)]


def test_a_click_is_not_speech_and_a_start_is_never_negative() -> None:
    vad = EnergyVad(onset_ms=60)
    assert vad.feed(LOUD * 2 + sound.silence(100)) == []
    assert EnergyVad().feed(LOUD * 3) == [SpeechEdge(True, 0)]


@settings(max_examples=examples(20))
@given(st.lists(st.integers(1, 3000), max_size=40))
def test_the_packing_of_the_audio_does_not_matter(sizes: list[int]) -> None:
    audio = b"".join(speech.script(300, "something-wrong", 800))
    packed, at, edges = EnergyVad(), 0, []
    for size in sizes:
        edges += packed.feed(audio[at : at + size])
        at += size
    edges += packed.feed(audio[at:])
    assert edges == EnergyVad().feed(audio)
