"""The holding sound while another AI is being reached: two soft notes and a pause, repeated.

Computed once per process, outside of calls, in 25 ms. The notes begin and end at zero, so the sound can be cut and joined
between them without a click.
"""

from __future__ import annotations

import math
from typing import Final

from gw.protocol.audio import FRAME_BYTES, RATE_HZ, SILENCE_BYTE, linear_to_ulaw

#: One round: a note, a note a fourth above, a pause below a second. Telephones carry 300 to 3400 Hz; these are an A and a D.
_NOTES_HZ: Final = (440.0, 587.33)
_NOTE_S: Final = 0.4
_ROUND_S: Final = 1.6
#: About 26 dB below full scale: softer than speech, which is at 15 to 20.
_AMPLITUDE: Final = 1600


def hold_tone() -> bytes:
    """Return one round of the sound: mu-law, whole frames."""
    samples = bytearray()
    for note_hz in _NOTES_HZ:
        count = int(_NOTE_S * RATE_HZ)
        for n in range(count):
            swell = math.sin(math.pi * n / count) ** 2
            samples.append(linear_to_ulaw(round(_AMPLITUDE * swell * math.sin(2 * math.pi * note_hz * n / RATE_HZ))))
    size = int(_ROUND_S * RATE_HZ) // FRAME_BYTES * FRAME_BYTES
    return bytes(samples) + bytes([SILENCE_BYTE]) * (size - len(samples))
