"""Constants of telephone audio, mu-law conversion and level, strict base64.

Audio is mu-law, 8 kHz, mono: one byte a sample. Both directions of G.711 are computed once, at import; per-frame code is a table
look-up in C. Base64 is checked strictly, because Twilio's payload is pasted unchanged into the AI's JSON. No resampling, no
filters, no state.
"""

from __future__ import annotations

import binascii
from typing import Final

from gw.errors import ProtocolError

#: Samples per second (G.711; Twilio's mediaFormat.sampleRate).
RATE_HZ: Final = 8000
#: Duration of a frame (RFC 3551 §4.2, default packetisation; Twilio sends the same).
PTIME_MS: Final = 20
PTIME_S: Final = PTIME_MS / 1000
#: One byte a sample (G.711): bytes and samples count alike.
BYTES_PER_MS: Final = RATE_HZ // 1000
FRAME_BYTES: Final = BYTES_PER_MS * PTIME_MS
#: Mu-law's positive zero: silence on a line.
SILENCE_BYTE: Final = 0xFF

#: G.711 adds this before the logarithm, on the 16-bit scale; the loudest magnitude leaves headroom for the bias.
_BIAS: Final = 0x84
_CLIP: Final = 32635


def _expand(code: int) -> int:
    """Convert one mu-law byte to a 16-bit sample.

    Every bit is sent inverted:   | sign | exponent: 3 | mantissa: 4 |
    """
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 0x07)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


#: Mu-law byte to 16-bit sample, -32124 to 32124.
ULAW_TO_LINEAR: Final[tuple[int, ...]] = tuple(_expand(code) for code in range(256))

# A magnitude has 15 bits, bytes.translate returns 8: one table for the high byte, one for the low.
_HIGH: Final = bytes(abs(sample) >> 8 for sample in ULAW_TO_LINEAR)
_LOW: Final = bytes(abs(sample) & 0xFF for sample in ULAW_TO_LINEAR)


def linear_to_ulaw(sample: int) -> int:
    """Return the mu-law byte nearest to a sample.

    Shape: samples beyond 16 bits are clipped. Zero is positive zero, 0xFF.
    """
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> exponent + 3 & 0x0F) & 0xFF


def energy(frame: bytes) -> int:
    """Return the mean absolute sample, 0 to 32124; 0 for silence and for no audio.

    Shape: any number of mu-law bytes; 1.5 us for a frame.
    """
    if not frame:
        return 0
    return ((sum(frame.translate(_HIGH)) << 8) + sum(frame.translate(_LOW))) // len(frame)


def frames_of(n_bytes: int) -> int:
    """Return the number of frames `n_bytes` fill, the last one padded."""
    return -(-n_bytes // FRAME_BYTES)


def decode_base64(text: str | bytes) -> bytes:
    """Decode base64 audio.

    Shape: RFC 4648 §4, padded, nothing else between or behind. Python's strict mode accepts padding after a whole group
    ("AAAA="), so the length is checked as well.
    Raises: ProtocolError(bad_base64).
    """
    try:
        audio = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is a subclass; text beyond ASCII raises ValueError
        raise ProtocolError("bad_base64", f"audio is not base64: {error}") from error
    if len(text) != (len(audio) + 2) // 3 * 4:
        raise ProtocolError("bad_base64", "audio is not base64: too much padding")
    return audio


def is_base64(text: str) -> bool:
    """Return True for text `decode_base64` accepts, safe to paste into JSON. 0.5 us a frame."""
    try:
        audio = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return len(text) == (len(audio) + 2) // 3 * 4
