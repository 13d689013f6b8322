"""gw.protocol.parrot: detection of speech, and the answers, by the caller's audio alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from gw.protocol import ai, audio
from gw.protocol.parrot import Parrot, _Floor

GREETING = bytes(i * 13 & 0xFF for i in range(5000))
GOODBYE = bytes(i * 7 & 0xFF for i in range(3001))
SILENCE = b"\xff" * audio.FRAME_BYTES


def tone(level: int, frames: int) -> bytes:
    """Return a 400 Hz tone of a mean level: 20 samples a period, so all frames are alike."""
    period = bytes(audio.linear_to_ulaw(round(level * math.pi / 2 * math.sin(2 * math.pi * i / 20))) for i in range(20))
    return period * (8 * frames)


def voice(frames: int) -> bytes:
    """Return syllables: nine loud frames and a quiet one."""
    return b"".join(tone(60, 1) if i % 10 == 9 else tone(3000, 1) for i in range(frames))


def quiet(frames: int) -> bytes:
    return SILENCE * frames


def kinds(events: Sequence[ai.AiEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def said(events: Sequence[ai.AiEvent]) -> bytes:
    return b"".join(event.audio for event in events if isinstance(event, ai.AudioDelta))


def only(events: Sequence[ai.AiEvent], kind: type) -> ai.AiEvent:
    (event,) = (event for event in events if isinstance(event, kind))
    return event


def test_it_greets_once_in_uneven_chunks() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.create_response()
    assert said(events) == GREETING
    assert kinds(events) == ["ResponseStarted", *["AudioDelta"] * 4, "AgentTranscript", "ResponseDone"]
    lengths = [len(event.audio) for event in events if isinstance(event, ai.AudioDelta)]
    assert lengths == [403, 1601, 811, 2185]
    assert events[0] == ai.ResponseStarted("resp_1")
    assert {(event.response_id, event.item_id) for event in events if isinstance(event, ai.AudioDelta)} == {("resp_1", "item_2")}
    assert events[-2:] == [ai.AgentTranscript("resp_1", "item_2", "(greeting)"), ai.ResponseDone("resp_1", "completed", "")]


def test_every_request_is_answered_with_the_last_words() -> None:
    agent = Parrot(GREETING, GOODBYE)
    first, again = agent.create_response(), agent.create_response()
    assert said(again) == said(first) == GREETING
    assert again[0] == ai.ResponseStarted("resp_3")
    words = said(agent.on_audio(voice(30) + quiet(25)))
    events = agent.create_response()
    assert said(events) == words
    assert only(events, ai.AgentTranscript).text == "(what you said, 0.6 s)"


def test_chunk_lengths_repeat() -> None:
    events = Parrot(bytes(9000), b"").create_response()
    lengths = [len(event.audio) for event in events if isinstance(event, ai.AudioDelta)]
    assert lengths == [403, 1601, 811, 2399, 3203, 403, 180]


def test_a_greeting_of_nothing_still_answers() -> None:
    assert kinds(Parrot(b"", GOODBYE).create_response()) == ["ResponseStarted", "AgentTranscript", "ResponseDone"]


def test_it_repeats_the_callers_words() -> None:
    agent = Parrot(GREETING, GOODBYE)
    before, words = quiet(50), voice(59)
    heard = agent.on_audio(before + words)
    assert heard == [ai.SpeechStarted("item_1", 1000)]
    assert agent.on_audio(quiet(24)) == []
    events = agent.on_audio(quiet(1))
    assert kinds(events)[:4] == ["SpeechStopped", "CallerTranscript", "ResponseStarted", "AudioDelta"]
    assert events[0] == ai.SpeechStopped("item_1")
    assert events[1] == ai.CallerTranscript("item_1", "(the caller spoke, 1.2 s)")
    assert only(events, ai.AgentTranscript).text == "(what you said, 1.2 s)"
    assert said(events) == quiet(10) + words + quiet(5)
    identities = {
        event.response_id for event in events if isinstance(event, ai.ResponseStarted | ai.AudioDelta | ai.ResponseDone)
    }
    assert len(identities) == 1


def test_speech_from_the_first_frame_has_no_pre_roll() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(tone(3000, 5) + quiet(25))
    assert events[0] == ai.SpeechStarted("item_1", 0)
    assert said(events) == tone(3000, 5) + quiet(5)


def test_any_cut_of_the_audio_gives_the_same_events() -> None:
    sound = quiet(30) + voice(40) + quiet(40) + voice(17) + quiet(30)
    whole = Parrot(GREETING, GOODBYE).on_audio(sound)
    assert kinds(whole).count("ResponseDone") == 2
    dice = random.Random(3)
    for longest in (7, 161, 1000):
        agent, events, start = Parrot(GREETING, GOODBYE), [], 0
        while start < len(sound):
            end = start + dice.randint(0, longest)
            events += agent.on_audio(sound[start:end])
            start = end
        assert events == whole


def test_two_loud_frames_are_a_click() -> None:
    agent = Parrot(GREETING, GOODBYE)
    assert agent.on_audio((quiet(10) + tone(9000, 2)) * 20) == []


def test_a_short_pause_does_not_end_a_turn() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(quiet(10) + (voice(20) + quiet(23)) * 3)
    assert kinds(events) == ["SpeechStarted"]


def test_hysteresis() -> None:
    agent = Parrot(GREETING, GOODBYE)
    soft = tone(160, 40)  # too soft to begin a turn, loud enough to continue one
    assert agent.on_audio(quiet(10) + soft) == []
    assert kinds(agent.on_audio(tone(3000, 3) + soft)) == ["SpeechStarted"]
    assert "SpeechStopped" in kinds(agent.on_audio(tone(90, 25)))


def test_the_floor_rises_with_a_noisy_line() -> None:
    noise = tone(800, 1)
    agent = Parrot(GREETING, GOODBYE)
    first = agent.on_audio(noise * 400)
    assert kinds(first)[:2] == ["SpeechStarted", "SpeechStopped"]  # new noise counts as speech for some seconds
    assert agent.on_audio(noise * 100) == []
    loud = agent.on_audio(tone(2500, 30))
    assert kinds(loud) == []  # not 12 dB over it
    events = agent.on_audio(tone(9000, 30) + noise * 25)
    assert kinds(events)[:2] == ["SpeechStarted", "SpeechStopped"]


def test_the_floor_falls_immediately() -> None:
    agent = Parrot(GREETING, GOODBYE)
    agent.on_audio(tone(800, 400))
    assert kinds(agent.on_audio(quiet(1) + tone(2500, 3))) == ["SpeechStarted"]


def test_a_capture_is_bounded() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(quiet(20) + voice(1100))
    assert kinds(events)[:2] == ["SpeechStarted", "SpeechStopped"]
    # Full after the pre-roll and 990 frames of voice, of which the last lies between two syllables: 989 * 20 ms.
    assert events[1:3] == [ai.SpeechStopped("item_1"), ai.CallerTranscript("item_1", "(the caller spoke, 19.8 s)")]
    assert len(said(events)) == 1000 * audio.FRAME_BYTES
    assert kinds(events)[-1] == "SpeechStarted"  # the caller continues to talk


def test_it_hangs_up_on_the_hash_key() -> None:
    agent = Parrot(GREETING, GOODBYE)
    for digit in "0123456789*ABCD":
        assert agent.on_keys(digit) == []
    assert agent.on_keys("#") == []
    events = agent.create_response()
    assert said(events) == GOODBYE
    assert said(agent.create_response()) == GREETING
    assert kinds(events)[-3:] == ["AgentTranscript", "ToolCall", "ResponseDone"]
    assert events[-3:] == [
        ai.AgentTranscript("resp_1", "item_2", "(goodbye)"),
        ai.ToolCall("resp_1", "item_3", "call_4", "hang_up", "{}"),
        ai.ResponseDone("resp_1", "completed", ""),
    ]


def test_a_caller_who_speaks_after_the_goodbye_is_answered() -> None:
    agent = Parrot(GREETING, GOODBYE)
    agent.on_keys("12#")
    agent.create_response()
    events = agent.on_audio(quiet(20) + voice(29) + quiet(25))
    assert said(events) == quiet(10) + voice(29) + quiet(5)


def test_the_hash_key_ends_a_turn_in_progress() -> None:
    agent = Parrot(GREETING, GOODBYE)
    agent.on_audio(tone(3000, 30) + quiet(5))
    assert agent.on_keys("#") == [ai.SpeechStopped("item_1")]
    assert said(agent.create_response()) == GOODBYE
    assert said(agent.on_audio(quiet(20) + voice(29) + quiet(25))) == quiet(10) + voice(29) + quiet(5), "a turn of its own"


def test_it_hangs_up_on_a_silent_caller() -> None:
    agent = Parrot(b"", GOODBYE)
    assert agent.on_audio(quiet(1000 - 1)) == []
    events = agent.on_audio(quiet(500))
    assert said(events) == GOODBYE
    assert "ToolCall" in kinds(events)


def test_a_goodbye_of_nothing_still_hangs_up() -> None:
    agent = Parrot(b"", b"")
    agent.on_keys("#")
    assert kinds(agent.create_response()) == ["ResponseStarted", "AgentTranscript", "ToolCall", "ResponseDone"]


@pytest.mark.parametrize("greeting_frames", [1, 200])
def test_the_silence_counts_from_the_end_of_the_greeting(greeting_frames: int) -> None:
    agent = Parrot(SILENCE * greeting_frames, GOODBYE)
    agent.create_response()
    assert agent.on_audio(quiet(greeting_frames + 1000 - 1)) == []
    assert said(agent.on_audio(SILENCE)) == GOODBYE


def test_the_silence_counts_from_the_end_of_the_last_answer() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(voice(100) + quiet(25))
    answer_frames = audio.frames_of(len(said(events)))
    assert answer_frames > 90
    assert agent.on_audio(quiet(answer_frames + 1000 - 2)) == []
    assert said(agent.on_audio(quiet(2))) == GOODBYE


def test_a_caller_who_interrupts_is_answered() -> None:
    agent = Parrot(SILENCE * 500, GOODBYE)
    agent.create_response()
    events = agent.on_audio(quiet(20) + voice(30) + quiet(25))
    assert kinds(events)[:4] == ["SpeechStarted", "SpeechStopped", "CallerTranscript", "ResponseStarted"]
    assert len(said(events)) < 50 * audio.FRAME_BYTES


def test_no_name_is_given_twice() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.create_response() + agent.on_audio((voice(30) + quiet(30)) * 3) + agent.on_keys("#") + agent.create_response()
    items = [event.item_id for event in events if isinstance(event, ai.SpeechStarted | ai.AgentTranscript | ai.ToolCall)]
    responses = [event.response_id for event in events if isinstance(event, ai.ResponseStarted)]
    assert len(set(items)) == len(items) == 9
    assert len(set(responses)) == len(responses) == 5


# -- levels, exactly --------------------------------------------------------------------------------------------------


def exact(level: int, frames: int) -> bytes:
    """Return frames of exactly this mean level."""
    codes = {audio.ULAW_TO_LINEAR[code]: code for code in range(0xFF, 0x7F, -1)}
    low = max(sample for sample in codes if sample <= level)
    high = min(sample for sample in codes if sample > level)
    n_high = math.ceil((level - low) * audio.FRAME_BYTES / (high - low))
    frame = bytes([codes[high]] * n_high + [codes[low]] * (audio.FRAME_BYTES - n_high))
    assert audio.energy(frame) == level
    return frame * frames


def test_the_floor_is_the_minimum_of_the_last_five_seconds() -> None:
    dice = random.Random(5)
    for _ in range(20):
        floor, levels = _Floor(), []
        for n in range(700):
            levels.append(dice.randint(0, 90) + (n // 60 % 7) * dice.randint(0, 9))
            floor.add(levels[-1])
            seconds = [min(levels[at : at + 50]) for at in range(0, len(levels), 50)]
            first = min(50, seconds[0])  # the floor before the first audio is 50
            assert floor.level == min([50, 50, 50, 50, first, *seconds[1:]][-5:])


@pytest.mark.parametrize(("level", "begins"), [(199, False), (200, True)])
def test_the_least_level_that_begins_a_turn(level: int, begins: bool) -> None:
    agent = Parrot(b"", b"")
    agent.on_audio(quiet(5))
    assert bool(agent.on_audio(exact(level, 3))) is begins


@pytest.mark.parametrize(("level", "ends"), [(119, True), (120, False)])
def test_the_least_level_that_continues_a_turn(level: int, ends: bool) -> None:
    agent = Parrot(b"", b"")
    assert kinds(agent.on_audio(quiet(5) + tone(3000, 3))) == ["SpeechStarted"]
    assert agent.on_audio(exact(level, 24)) == []
    assert bool(agent.on_audio(exact(level, 1))) is ends


@pytest.mark.parametrize(("level", "begins"), [(399, False), (400, True)])
def test_over_a_floor_of_100_a_turn_begins_at_400(level: int, begins: bool) -> None:
    agent = Parrot(b"", b"")
    assert agent.on_audio(exact(100, 300)) == []
    assert bool(agent.on_audio(exact(level, 3))) is begins


@pytest.mark.parametrize(("level", "ends"), [(199, True), (200, False)])
def test_over_a_floor_of_100_a_turn_continues_at_200(level: int, ends: bool) -> None:
    agent = Parrot(b"", b"")
    assert kinds(agent.on_audio(exact(100, 300) + tone(3000, 3))) == ["SpeechStarted"]
    assert bool(agent.on_audio(exact(level, 25))) is ends


def test_the_loud_frames_that_begin_a_turn_are_in_sequence() -> None:
    agent = Parrot(b"", b"")
    assert agent.on_audio((tone(3000, 2) + quiet(1)) * 3) == []
    assert agent.on_audio(tone(3000, 3)) == [ai.SpeechStarted("item_1", 180)]


def test_a_turn_after_a_turn_starts_from_nothing() -> None:
    agent = Parrot(b"", b"")
    first = agent.on_audio(quiet(20) + tone(3000, 10) + quiet(25))
    second = agent.on_audio(quiet(20) + tone(3000, 10) + quiet(24))
    assert said(first) == quiet(10) + tone(3000, 10) + quiet(5)
    assert second == [ai.SpeechStarted("item_4", (20 + 10 + 25 + 20) * 20)]
    third = agent.on_audio(quiet(1))
    assert said(third) == said(first)
    assert third[:2] == [ai.SpeechStopped("item_4"), ai.CallerTranscript("item_4", "(the caller spoke, 0.2 s)")]


def test_a_full_capture_is_repeated_to_its_last_frame() -> None:
    agent = Parrot(b"", b"")
    assert kinds(agent.on_audio(voice(999))) == ["SpeechStarted"]
    events = agent.on_audio(voice(1))
    assert said(events) == voice(999) + voice(1)
    assert events[1] == ai.CallerTranscript("item_1", "(the caller spoke, 20.0 s)")


def test_a_remainder_waits_for_the_rest_of_its_frame() -> None:
    agent = Parrot(b"", b"")
    sound = tone(3000, 3)
    assert agent.on_audio(sound[:-1]) == []
    assert agent.on_audio(sound[-1:]) == [ai.SpeechStarted("item_1", 0)]


def test_the_silence_counts_from_the_callers_last_word() -> None:
    agent = Parrot(b"", GOODBYE)
    agent.on_audio(quiet(500) + tone(3000, 3))
    events = agent.on_audio(quiet(25))
    answer = audio.frames_of(len(said(events)))
    assert agent.on_audio(quiet(answer + 999)) == []
    assert said(agent.on_audio(quiet(1))) == GOODBYE
