"""Audio formats of the bench's AI, and noise for sessions whose frames cannot be numbered. Pure.

A session is mu-law if its client asks for that in both directions, else the server's default: 16-bit samples at 24 kHz. A
bridge between those and a telephone resamples, which destroys frame numbers, so that audio is plain noise, measured by its
length.

Source: OpenAI Realtime, "audio formats".
"""

from __future__ import annotations

import binascii
import random
from array import array
from typing import Any, Final

_PCMU: Final = {"type": "audio/pcmu"}
_PCM: Final = {"type": "audio/pcm", "rate": 24000}
_PCM_HZ: Final = 24_000
_WIDTH: Final = 2
PCM_FRAME_BYTES: Final = _PCM_HZ // 50 * _WIDTH
#: A second of noise at a quarter of full scale.
_NOISE: Final = array("h", random.Random(_PCM_HZ).choices(range(-8000, 8000), k=_PCM_HZ)).tobytes()


def session(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the session that the server confirms for this request."""
    audio = asked.get("audio") or {}
    wanted = [(audio.get(way) or {}).get("format") for way in ("input", "output")]
    form = _PCMU if wanted == [_PCMU, _PCMU] else _PCM
    return {
        "type": "realtime",
        "object": "realtime.session",
        "expires_at": 4102444800,
        "audio": {"input": {"format": form}, "output": {"format": form}},
    }


def is_pcmu(described: dict[str, Any]) -> bool:
    """True if a session's audio is mu-law."""
    return bool(described["audio"]["output"]["format"] == _PCMU)


def noise(seconds: float) -> bytes:
    """Return up to a second of 16-bit noise, in base64."""
    return binascii.b2a_base64(_NOISE[: round(seconds * _PCM_HZ) * _WIDTH], newline=False)
