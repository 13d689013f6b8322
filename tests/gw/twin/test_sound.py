"""gw.twin.sound: mu-law, frames, WAV files and the inaudible tag."""

from __future__ import annotations

import wave
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.twin import sound


def test_every_byte_survives_pcm_and_back() -> None:
    every = bytes(range(256))
    back = sound.to_ulaw(sound.to_pcm(every))
    # 0x7F is negative zero (G.711): the same sample as 0xFF, which encoding returns
    assert back == every.replace(b"\x7f", b"\xff")


def test_known_samples() -> None:
    # G.711 table 2a: the largest positive, the largest negative, zero
    assert list(sound.to_pcm(b"\x80\x00\xff")) == [32124, -32124, 0]
    assert sound.to_ulaw(array("h", [32767, -32768, 0, 8])) == b"\x80\x00\xff\xfe"


def test_level_and_peak() -> None:
    assert sound.level(b"") == 0.0
    assert sound.level(sound.SILENT_FRAME) == 0.0
    assert sound.level(b"\x80" * 160) > 0.9
    assert sound.peak(b"") == 0.0
    assert sound.peak(b"\xff\x80") == pytest.approx(32124 / 32768)


@given(st.binary(max_size=1000))
def test_frames_keep_every_byte(audio: bytes) -> None:
    cut = sound.frames(audio)
    assert all(len(frame) == sound.FRAME_BYTES for frame in cut)
    assert b"".join(cut)[: len(audio)] == audio
    assert set(b"".join(cut)[len(audio) :]) <= {0xFF}
    assert len(cut) == -(-len(audio) // sound.FRAME_BYTES)


def test_wav_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    audio = bytes(code for code in range(256) if code != 0x7F)
    sound.write_wav(path, audio)
    assert sound.read_wav(path) == audio


def test_a_wav_of_another_rate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\0\0")
    with pytest.raises(ValueError, match="8000 Hz"):
        sound.read_wav(path)


@given(st.integers(min_value=0, max_value=2**32 - 1), st.binary(max_size=400), st.binary(max_size=400))
def test_a_tag_is_found_at_any_offset(number: int, before: bytes, after: bytes) -> None:
    assert sound.find_tag(before + sound.tag(number) + after) == number


def test_other_audio_is_not_a_tag() -> None:
    assert sound.find_tag(b"") is None
    assert sound.find_tag(sound.SILENT_FRAME * 3) is None
    assert sound.find_tag(sound.tag(7)[:100]) is None
    broken = bytearray(sound.tag(7))
    broken[40] ^= 1
    assert sound.find_tag(broken) is None
    with pytest.raises(ValueError, match="32 bits"):
        sound.tag(1 << 32)


def test_a_tag_is_inaudible() -> None:
    assert sound.level(sound.tag(2**32 - 1)) == 0.0
    assert sound.peak(sound.tag(2**32 - 1)) < 0.001
