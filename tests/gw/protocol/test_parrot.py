"""The embedded agent: what it hears, when, and what it says."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from gw.protocol import ai, audio, parrot
from gw.protocol.parrot import Parrot

GREETING = bytes(i * 13 & 0xFF for i in range(5000))
GOODBYE = bytes(i * 7 & 0xFF for i in range(3001))
SILENCE = b"\xff" * audio.FRAME_BYTES


def tone(level: int, frames: int) -> bytes:
    """A 400 Hz tone with that mean level: 20 samples a period, so every frame is alike."""
    period = bytes(audio.linear_to_ulaw(round(level * math.pi / 2 * math.sin(2 * math.pi * i / 20))) for i in range(20))
    return period * (8 * frames)


def voice(frames: int) -> bytes:
    """Syllables: nine loud frames and one quiet, as no tone or hum is."""
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
    assert len(set(lengths)) == 4 and all(length % audio.FRAME_BYTES for length in lengths)
    response_id = events[0].response_id
    assert only(events, ai.AgentTranscript).text == "(greeting)"
    assert events[-1] == ai.ResponseDone(response_id, "completed", "")
    assert agent.create_response() == []


def test_it_need_not_greet() -> None:
    assert Parrot(b"", GOODBYE).create_response() == []


def test_it_says_the_callers_words_back() -> None:
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
    assert said(events) == quiet(parrot.PRE_ROLL_FRAMES) + words + quiet(parrot.TAIL_FRAMES)
    identities = {event[0] for event in events if isinstance(event, ai.ResponseStarted | ai.AudioDelta | ai.ResponseDone)}
    assert len(identities) == 1


def test_speech_from_the_first_frame_has_no_pre_roll() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(tone(3000, 5) + quiet(25))
    assert events[0] == ai.SpeechStarted("item_1", 0)
    assert said(events) == tone(3000, 5) + quiet(parrot.TAIL_FRAMES)


def test_how_the_audio_is_cut_makes_no_difference() -> None:
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
    soft = tone(160, 40)  # too soft to begin with, loud enough to go on with
    assert agent.on_audio(quiet(10) + soft) == []
    assert kinds(agent.on_audio(tone(3000, 3) + soft)) == ["SpeechStarted"]
    assert "SpeechStopped" in kinds(agent.on_audio(tone(90, 25)))


def test_the_floor_rises_with_a_noisy_line() -> None:
    noise = tone(800, 1)
    agent = Parrot(GREETING, GOODBYE)
    first = agent.on_audio(noise * 400)
    assert kinds(first)[:2] == ["SpeechStarted", "SpeechStopped"]  # unheard-of noise may be speech, for some seconds
    assert agent.on_audio(noise * 100) == []
    loud = agent.on_audio(tone(2500, 30))
    assert kinds(loud) == []  # not 12 dB over it
    events = agent.on_audio(tone(9000, 30) + noise * 25)
    assert kinds(events)[:2] == ["SpeechStarted", "SpeechStopped"]


def test_the_floor_falls_at_once() -> None:
    agent = Parrot(GREETING, GOODBYE)
    agent.on_audio(tone(800, 400))
    assert kinds(agent.on_audio(quiet(1) + tone(2500, 3))) == ["SpeechStarted"]


def test_a_capture_is_bounded() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(quiet(20) + voice(1100))
    assert kinds(events)[:2] == ["SpeechStarted", "SpeechStopped"]
    # Full after the pre-roll and 990 frames of voice, of which the last lies between two syllables: 989 * 20 ms.
    assert events[1:3] == [ai.SpeechStopped("item_1"), ai.CallerTranscript("item_1", "(the caller spoke, 19.8 s)")]
    assert len(said(events)) == parrot.CAPTURE_FRAMES * audio.FRAME_BYTES
    assert kinds(events)[-1] == "SpeechStarted"  # whoever talks on, talks on


def test_it_hangs_up_on_the_hash_key_once() -> None:
    agent = Parrot(GREETING, GOODBYE)
    for digit in "0123456789*ABCD":
        assert agent.on_dtmf(digit) == []
    events = agent.on_dtmf("#")
    assert said(events) == GOODBYE
    assert kinds(events)[-3:] == ["AgentTranscript", "ToolCall", "ResponseDone"]
    call = only(events, ai.ToolCall)
    assert isinstance(call, ai.ToolCall) and (call.name, call.arguments) == (ai.HANG_UP_TOOL, "{}")
    assert agent.on_dtmf("#") == agent.create_response() == agent.on_audio(voice(100) + quiet(2000)) == []


def test_the_hash_key_ends_a_turn_under_way() -> None:
    agent = Parrot(GREETING, GOODBYE)
    agent.on_audio(tone(3000, 30) + quiet(5))
    events = agent.on_dtmf("#")
    assert events[0] == ai.SpeechStopped("item_1")
    assert said(events) == GOODBYE


def test_it_hangs_up_on_a_silent_caller() -> None:
    agent = Parrot(b"", GOODBYE)
    assert agent.on_audio(quiet(parrot.IDLE_FRAMES - 1)) == []
    events = agent.on_audio(quiet(500))
    assert said(events) == GOODBYE
    assert "ToolCall" in kinds(events)


def test_a_goodbye_of_nothing_still_hangs_up() -> None:
    assert kinds(Parrot(b"", b"").on_dtmf("#")) == ["ResponseStarted", "AgentTranscript", "ToolCall", "ResponseDone"]


@pytest.mark.parametrize("greeting_frames", [1, 200])
def test_the_silence_counts_from_the_end_of_the_greeting(greeting_frames: int) -> None:
    agent = Parrot(SILENCE * greeting_frames, GOODBYE)
    agent.create_response()
    assert agent.on_audio(quiet(greeting_frames + parrot.IDLE_FRAMES - 1)) == []
    assert said(agent.on_audio(SILENCE)) == GOODBYE


def test_the_silence_counts_from_the_end_of_the_last_answer() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.on_audio(voice(100) + quiet(parrot.QUIET_FRAMES))
    answer_frames = audio.frames_of(len(said(events)))
    assert answer_frames > 90
    assert agent.on_audio(quiet(answer_frames + parrot.IDLE_FRAMES - 2)) == []
    assert said(agent.on_audio(quiet(2))) == GOODBYE


def test_a_caller_who_interrupts_is_answered() -> None:
    agent = Parrot(SILENCE * 500, GOODBYE)
    agent.create_response()
    events = agent.on_audio(quiet(20) + voice(30) + quiet(25))
    assert kinds(events)[:4] == ["SpeechStarted", "SpeechStopped", "CallerTranscript", "ResponseStarted"]
    assert len(said(events)) < 50 * audio.FRAME_BYTES


def test_no_name_is_given_twice() -> None:
    agent = Parrot(GREETING, GOODBYE)
    events = agent.create_response() + agent.on_audio((voice(30) + quiet(30)) * 3) + agent.on_dtmf("#")
    items = [event.item_id for event in events if isinstance(event, ai.SpeechStarted | ai.AgentTranscript | ai.ToolCall)]
    responses = [event.response_id for event in events if isinstance(event, ai.ResponseStarted)]
    assert len(set(items)) == len(items) == 9
    assert len(set(responses)) == len(responses) == 5
