"""WAV files to telephone audio: mu-law, 8 kHz, mono.

A file is RIFF: chunks of a name, a length and content; `fmt ` describes the samples in `data`.

    "RIFF" length "WAVE" | "fmt " length format channels rate ... bits | "data" length samples

Other rates are converted by a low-pass filter (a windowed sinc) that is computed at the positions of the new samples alone, one
set of weights for each fraction between two old ones. MAX_S of audio takes two seconds of CPU: for a process that starts.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction
from operator import mul
from typing import Final, NamedTuple

from gw.errors import GatewayError
from gw.protocol.audio import RATE_HZ, linear_to_ulaw

#: Rates that are converted, in Hz.
RATES_HZ: Final = (8000, 16_000, 24_000, 44_100, 48_000)
#: Longest audio, seconds.
MAX_S: Final = 30
#: Codes of `fmt `. Source: RFC 2361; Microsoft, WAVEFORMATEXTENSIBLE, whose code is the start of its sub-format.
_PCM: Final = 1
_MU_LAW: Final = 7
_EXTENSIBLE: Final = 0xFFFE
_FORMAT: Final = struct.Struct("<HHIIHH")
_CHUNK: Final = struct.Struct("<4sI")
_SUB_FORMAT_AT: Final = 24
_SAMPLE_BYTES: Final = 2
#: Pass band of the filter, below half the rate: telephones carry up to 3400 Hz.
_PASS_HZ: Final = 3600
#: Zero crossings of the filter on each side. More make its edge steeper.
_CROSSINGS: Final = 12


class WavError(GatewayError):
    """The file is not a WAV file, or its audio cannot be used."""

    code = "bad_wav"


class Wav(NamedTuple):
    """A WAV file that can be converted."""

    code: int
    channels: int
    rate_hz: int
    audio: bytes


def parse(data: bytes) -> Wav:
    """Parse a WAV file.

    Shape: 16 bit PCM, mono or stereo, at one of RATES_HZ; or mu-law, mono, 8 kHz. At most MAX_S.
    Raises: WavError.
    """
    code, channels, rate_hz, bits, audio = _parse(data)
    if code == _MU_LAW and (channels, rate_hz, bits) == (1, RATE_HZ, 8):
        _check_length(len(audio), RATE_HZ)
        return Wav(code, channels, rate_hz, audio)
    if code != _PCM or bits != 8 * _SAMPLE_BYTES or channels not in (1, 2) or rate_hz not in RATES_HZ:
        kind = {_PCM: "PCM", _MU_LAW: "mu-law"}.get(code, f"format {code}")
        raise WavError(f"the audio is {kind}, {bits} bit, {channels} channel(s), {rate_hz} Hz; {_EXPECTED}")
    frames = len(audio) // (_SAMPLE_BYTES * channels)
    _check_length(frames, rate_hz)
    return Wav(code, channels, rate_hz, audio[: frames * _SAMPLE_BYTES * channels])


def to_ulaw(wav: Wav) -> bytes:
    """Return the audio as mu-law, 8 kHz, mono."""
    code, channels, rate_hz, audio = wav
    if code == _MU_LAW:
        return audio
    values = array("h", audio)
    if sys.byteorder == "big":
        values.byteswap()
    mono: Sequence[int] = values
    if channels == 2:
        mono = [(left + right) // 2 for left, right in zip(values[::2], values[1::2], strict=True)]
    return bytes(linear_to_ulaw(sample) for sample in (mono if rate_hz == RATE_HZ else _resampled(mono, rate_hz)))


#: The remedy in every error.
_EXPECTED: Final = (
    f"expected 16 bit PCM, mono or stereo, at {', '.join(map(str, RATES_HZ[:-1]))} or {RATES_HZ[-1]} Hz, or mu-law, mono, at "
    "8000 Hz; convert it, for example with: ffmpeg -i FILE -ar 8000 -ac 1 hello.wav"
)


def _check_length(frames: int, rate_hz: int) -> None:
    if not frames:
        raise WavError("the file has no audio; record it again")
    if frames > MAX_S * rate_hz:
        raise WavError(f"the audio is {frames / rate_hz:.1f} s long; expected at most {MAX_S} s")


def _parse(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Return format code, channels, rate, bits of a sample, and the samples. Raises WavError."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError(f"the file is not a WAV file; {_EXPECTED}")
    described: tuple[int, int, int, int] | None = None
    at = 12
    while at + _CHUNK.size <= len(data):
        name, length = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        content = data[at : at + length]
        at += length + length % 2
        if name == b"fmt ":
            if len(content) < _FORMAT.size:
                break
            code, channels, rate_hz, _, _, bits = _FORMAT.unpack_from(content)
            if code == _EXTENSIBLE and len(content) >= _SUB_FORMAT_AT + 2:
                code = int.from_bytes(content[_SUB_FORMAT_AT : _SUB_FORMAT_AT + 2], "little")
            described = code, channels, rate_hz, bits
        elif name == b"data" and described is not None:
            return *described, content
    raise WavError(f"the WAV file has no description of its audio, or no audio behind it; {_EXPECTED}")


def _resampled(samples: Sequence[int], rate_hz: int) -> Iterator[int]:
    """Yield the samples at RATE_HZ."""
    step = Fraction(rate_hz, RATE_HZ)
    half = math.ceil(_CROSSINGS * step)
    banks = [_taps(part / step.denominator, half, float(step)) for part in range(step.denominator)]
    padded = array("h", bytes(_SAMPLE_BYTES * half)) + array("h", samples) + array("h", bytes(_SAMPLE_BYTES * (half + 1)))
    taps = 2 * half + 1
    for n in range(len(samples) * RATE_HZ // rate_hz):
        at, part = divmod(n * step.numerator, step.denominator)
        yield round(sum(map(mul, banks[part], padded[at : at + taps])))


def _taps(offset: float, half: int, step: float) -> list[float]:
    """Return the weights of the old samples from `half` before to `half` behind a new one; `offset`: behind an old one."""
    cutoff = 2 * _PASS_HZ / RATE_HZ / step  # of half the old rate
    weights = []
    for n in range(-half, half + 1):
        x = n - offset
        window = 0.5 + 0.5 * math.cos(math.pi * x / (half + 1))
        weights.append(window * (math.sin(math.pi * cutoff * x) / (math.pi * x) if x else cutoff))
    total = sum(weights)
    return [weight / total for weight in weights]
