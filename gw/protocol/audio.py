"""The numbers of telephone audio, written once, and what is read off its bytes.

Audio is mu-law, 8 kHz, mono: one byte a sample. The two directions of G.711 come from its formula, once, at import; whatever
runs per frame is a table look-up in C. Base64 is checked strictly, because Twilio's payload is pasted unchanged into the
AI's JSON. Never resamples, never filters, never keeps state.
"""

from __future__ import annotations

import binascii
from typing import Final

from gw.errors import ProtocolError

#: Samples a second (G.711; Twilio's mediaFormat.sampleRate).
RATE_HZ: Final = 8000
#: One frame's duration (RFC 3551 §4.2, default packetisation; what Twilio sends).
PTIME_MS: Final = 20
PTIME_S: Final = PTIME_MS / 1000
#: One byte a sample (G.711), so bytes and samples count alike.
BYTES_PER_MS: Final = RATE_HZ // 1000
FRAME_BYTES: Final = BYTES_PER_MS * PTIME_MS
#: Mu-law's positive zero, what a line carries when nobody speaks.
SILENCE_BYTE: Final = 0xFF

#: G.711 adds this before taking the logarithm, in the 16-bit scale; the loudest magnitude leaves room for it.
_BIAS: Final = 0x84
_CLIP: Final = 32635


def _expand(code: int) -> int:
    """One mu-law byte as a 16-bit sample.

    Every bit is sent inverted:   | sign | exponent: 3 | mantissa: 4 |
    """
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 0x07)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


#: Mu-law byte to 16-bit sample, -32124 to 32124.
ULAW_TO_LINEAR: Final[tuple[int, ...]] = tuple(_expand(code) for code in range(256))

# A magnitude needs 15 bits, bytes.translate gives 8: two tables, the high and the low byte of it.
_HIGH: Final = bytes(abs(sample) >> 8 for sample in ULAW_TO_LINEAR)
_LOW: Final = bytes(abs(sample) & 0xFF for sample in ULAW_TO_LINEAR)


def linear_to_ulaw(sample: int) -> int:
    """The mu-law byte nearest to a sample; beyond 16 bits it clips. Zero is always positive zero, 0xFF."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> exponent + 3 & 0x0F) & 0xFF


def energy(frame: bytes) -> int:
    """The mean absolute sample of a frame, 0 to 32124. Silence, and no audio at all, is 0.

    Shape: any number of mu-law bytes; 1.5 us for a frame.
    """
    if not frame:
        return 0
    return ((sum(frame.translate(_HIGH)) << 8) + sum(frame.translate(_LOW))) // len(frame)


def frames_of(n_bytes: int) -> int:
    """How many frames that many bytes take, the last one padded."""
    return -(-n_bytes // FRAME_BYTES)


def decode_base64(text: str | bytes) -> bytes:
    """Base64 as audio.

    Shape: RFC 4648 §4, padded, nothing else between or behind. Python's strict mode takes padding after a whole group
    ("AAAA="), so the length is checked as well.
    Raises: ProtocolError(bad_base64).
    """
    try:
        audio = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is one; a text beyond ASCII raises the plain kind
        raise ProtocolError("bad_base64", f"audio that is not base64: {error}") from error
    if len(text) != (len(audio) + 2) // 3 * 4:
        raise ProtocolError("bad_base64", "audio that is not base64: too much padding")
    return audio


def is_base64(text: str) -> bool:
    """Whether `decode_base64` takes the text: such a text may be pasted into JSON as it is. 0.5 us for a frame's."""
    try:
        audio = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return len(text) == (len(audio) + 2) // 3 * 4
