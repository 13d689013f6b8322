"""gw.protocol.wav: each format that a recorder writes becomes telephone audio, any other an error with its remedy."""

from __future__ import annotations

import math
import struct

import pytest

from gw.protocol import wav as wav_file
from gw.protocol.audio import RATE_HZ, SILENCE_BYTE, ULAW_TO_LINEAR, linear_to_ulaw
from gw.protocol.wav import MAX_S, RATES_HZ, WavError, parse

LOUD = 12_000


def to_ulaw(data: bytes) -> bytes:
    return wav_file.to_ulaw(parse(data))


def wav(data: bytes, *, code: int = 1, channels: int = 1, rate_hz: int = 8000, bits: int = 16, more: bytes = b"") -> bytes:
    """Build a WAV file. `more`: chunks before the samples."""
    block = channels * bits // 8
    described = struct.pack("<HHIIHH", code, channels, rate_hz, rate_hz * block, block, bits)
    if code == 0xFFFE:
        described += struct.pack("<HHIH14s", 22, bits, 0, 1, b"")
    chunks = b"fmt " + struct.pack("<I", len(described)) + described + more + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(hz: float, rate_hz: int, channels: int = 1, seconds: float = 0.5) -> bytes:
    """Return a sine wave, the same in each channel."""
    samples = [round(LOUD * math.sin(2 * math.pi * hz * n / rate_hz)) for n in range(round(seconds * rate_hz))]
    return b"".join(struct.pack("<h", sample) * channels for sample in samples)


def level(audio: bytes, hz: float) -> tuple[float, float]:
    """Return the amplitude of a tone in mu-law audio, and of everything else."""
    samples = [ULAW_TO_LINEAR[code] for code in audio[200:-200]]
    angles = [2 * math.pi * hz * n / RATE_HZ for n in range(len(samples))]
    real = sum(sample * math.cos(angle) for sample, angle in zip(samples, angles, strict=True))
    imaginary = sum(sample * math.sin(angle) for sample, angle in zip(samples, angles, strict=True))
    found = 2 * math.hypot(real, imaginary) / len(samples)
    power = 2 * sum(sample * sample for sample in samples) / len(samples)
    return found, math.sqrt(max(0.0, power - found * found))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_tone_of_the_voice_is_kept(rate_hz: int, channels: int) -> None:
    audio = to_ulaw(wav(tone(1000, rate_hz, channels), rate_hz=rate_hz, channels=channels))
    assert len(audio) == RATE_HZ // 2
    found, rest = level(audio, 1000)
    assert found == pytest.approx(LOUD, rel=0.03)
    assert rest < LOUD / 20, "mu-law itself adds a fortieth"


@pytest.mark.parametrize("rate_hz", RATES_HZ[1:])
def test_a_tone_above_the_band_does_not_come_back_below_it(rate_hz: int) -> None:
    found, rest = level(to_ulaw(wav(tone(5200, rate_hz), rate_hz=rate_hz)), RATE_HZ - 5200)
    assert math.hypot(found, rest) < LOUD / 100


def test_samples_of_the_telephones_rate_are_converted_one_by_one() -> None:
    samples = [0, 1000, -1000, 32_767, -32_768]
    assert to_ulaw(wav(struct.pack("<5h", *samples))) == bytes(map(linear_to_ulaw, samples))


def test_channels_are_mixed() -> None:
    assert to_ulaw(wav(struct.pack("<4h", 2000, -2000, 4000, 0), channels=2)) == bytes(map(linear_to_ulaw, (0, 2000)))


def test_mu_law_is_unchanged() -> None:
    audio = bytes(range(256))
    assert to_ulaw(wav(audio, code=7, bits=8)) == audio


def test_the_extensible_form_and_other_chunks_are_read() -> None:
    more = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # a chunk of odd length is padded
    assert to_ulaw(wav(bytes(320), code=0xFFFE, more=more)) == bytes([SILENCE_BYTE]) * 160


def test_half_a_sample_at_the_end_is_left_out() -> None:
    assert len(to_ulaw(wav(bytes(321)))) == 160


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "is not a WAV file"),
        (b"ID3" + bytes(100), "is not a WAV file"),
        (wav(b""), "has no audio"),
        (wav(bytes(16))[:-24], "no audio behind it"),
        (wav(bytes(16))[:30], "no audio behind it"),
        (wav(bytes(16), rate_hz=11_025), "11025 Hz"),
        (wav(bytes(24), bits=24), "24 bit"),
        (wav(bytes(16), channels=4), "4 channel"),
        (wav(bytes(16), code=7, bits=8, channels=2), "mu-law"),
        (wav(bytes(16), code=3, bits=32), "format 3"),
        (wav(bytes(2 * RATE_HZ * MAX_S + 2)), "30.0 s long; expected at most 30 s"),
        (wav(bytes(RATE_HZ * MAX_S + 1), code=7, bits=8), "expected at most 30 s"),
    ],
    ids=[
        *("nothing", "another format", "no audio", "no data", "short", "a rare rate", "24 bit", "four channels"),
        *("stereo mu-law", "floating point", "too long", "too long in mu-law"),
    ],
)
def test_another_file_is_an_error_with_its_fault(data: bytes, error: str) -> None:
    with pytest.raises(WavError, match=error) as raised:
        parse(data)
    assert any(remedy in str(raised.value) for remedy in ("ffmpeg", "record it again", "at most 30 s"))


def test_the_longest_audio_passes() -> None:
    assert len(to_ulaw(wav(bytes(RATE_HZ * MAX_S), code=7, bits=8))) == RATE_HZ * MAX_S
