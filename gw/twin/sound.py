"""Telephone audio of the twins: mu-law bytes, frames, silence, tags, WAV files.

Implements ITU-T G.711 separately from the gateway, so that a mistake there is not repeated here. Pure, but for the WAV files.
"""

from __future__ import annotations

import sys
import wave
from array import array
from pathlib import Path
from typing import Final

RATE_HZ: Final = 8000  # RFC 3551 section 4.5.14, PCMU
PTIME_MS: Final = 20  # RFC 3551 section 4.2
BYTES_PER_MS: Final = RATE_HZ // 1000  # one byte a sample
FRAME_BYTES: Final = PTIME_MS * BYTES_PER_MS
PTIME_S: Final = PTIME_MS / 1000
SILENCE: Final = b"\xff"  # mu-law zero, G.711 table 2a
SILENT_FRAME: Final = SILENCE * FRAME_BYTES

_BIAS: Final = 0x84  # G.711: added before the segment is looked up
_CLIP: Final = 32635  # the largest magnitude that does not overflow with the bias


def _decode_byte(code: int) -> int:
    """Decode a byte: sign, three bits of segment, four of step, all inverted on the wire."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 7)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


def _encode_sample(sample: int) -> int:
    """Encode a 16-bit sample."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    segment = magnitude.bit_length() - 8
    return ~(sign | segment << 4 | magnitude >> segment + 3 & 0x0F) & 0xFF


_DECODED: Final = tuple(_decode_byte(code) for code in range(256))
#: A byte's loudness, 0 to 251, in steps of 128: `translate` and `sum`, both in C, measure the energy.
_LOUDNESS: Final = bytes(abs(sample) >> 7 for sample in _DECODED)


def level(ulaw: bytes) -> float:
    """Return the mean magnitude, 0.0 to 1.0 of full scale; 0.0 for empty audio."""
    return sum(ulaw.translate(_LOUDNESS)) / len(ulaw) / 256 if ulaw else 0.0


def peak(ulaw: bytes) -> float:
    """Return the largest magnitude, 0.0 to 1.0 of full scale."""
    return max((abs(_DECODED[code]) for code in ulaw), default=0) / 32768


def frames(ulaw: bytes) -> list[bytes]:
    """Cut audio into frames; the last one is padded with silence."""
    whole = ulaw + SILENCE * (-len(ulaw) % FRAME_BYTES)
    return [whole[at : at + FRAME_BYTES] for at in range(0, len(whole), FRAME_BYTES)]


def silence(ms: int) -> bytes:
    """Return `ms` milliseconds of silence."""
    return SILENCE * (ms * BYTES_PER_MS)


def to_pcm(ulaw: bytes) -> array[int]:
    """Decode mu-law to 16-bit samples."""
    return array("h", [_DECODED[code] for code in ulaw])


def to_ulaw(samples: array[int]) -> bytes:
    """Encode 16-bit samples as mu-law."""
    return bytes(map(_encode_sample, samples))


def write_wav(path: Path | str, ulaw: bytes) -> None:
    """Write audio as 16-bit PCM, 8 kHz, mono, which every player supports."""
    samples = to_pcm(ulaw)
    if sys.byteorder == "big":
        samples.byteswap()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def read_wav(path: Path | str) -> bytes:
    """Read a WAV as mu-law.

    Shape: 16-bit PCM, 8 kHz, mono. Raises: ValueError for any other format; nothing is resampled.
    """
    with wave.open(str(path), "rb") as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE_HZ):
            raise ValueError(f"{path} is not 16-bit PCM, {RATE_HZ} Hz, mono")
        samples = array("h", file.readframes(file.getnframes()))
    if sys.byteorder == "big":
        samples.byteswap()
    return to_ulaw(samples)


# -- tags ---------------------------------------------------------------------------------------------------------------
#
# A tag identifies a call by its audio: one inaudible frame, its samples 0 or 8 of 32767. It begins with a pattern that speech
# does not contain, followed by a number. Only unchanged mu-law preserves it, so a missing tag shows that audio was altered.
#
#     | 32 bytes: FE FF FF FE ... | 32 bits, 4 bytes each: FE FE FE FE = 1, FF FF FF FF = 0 |

_ONE: Final = b"\xfe" * 4
_ZERO: Final = b"\xff" * 4
_TAG_BITS: Final = 32
_TAG_START: Final = bytes(0xFE if bit == "1" else 0xFF for bit in "10010111000110101111001000101101")


def tag(number: int) -> bytes:
    """Return an inaudible frame that carries `number`, 0 to 2**32 - 1."""
    if not 0 <= number < 1 << _TAG_BITS:
        raise ValueError(f"a tag holds {_TAG_BITS} bits")
    bits = (_ONE if number >> place & 1 else _ZERO for place in reversed(range(_TAG_BITS)))
    return (_TAG_START + b"".join(bits)).ljust(FRAME_BYTES, SILENCE)


def find_tag(ulaw: bytes | bytearray) -> int | None:
    """Return the number of the first tag, at any offset; None without one."""
    at = ulaw.find(_TAG_START)
    body = bytes(ulaw[at + len(_TAG_START) : at + len(_TAG_START) + _TAG_BITS * len(_ONE)])
    if at < 0 or len(body) < _TAG_BITS * len(_ONE):
        return None
    number = 0
    for place in range(0, len(body), len(_ONE)):
        piece = body[place : place + len(_ONE)]
        if piece not in (_ONE, _ZERO):
            return None
        number = number << 1 | (piece == _ONE)
    return number
