"""In which form the bench's AI takes and gives audio, and what it says where no mark would survive. Pure.

A session is mu-law where its client asks for that, both ways; one that does not ask has what the server has by itself: 16-bit
samples at 24 kHz. Whoever bridges those to a telephone resamples, which no frame's number outlives, so that audio is plain
noise and both ends tell by its length how much there was.

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
    """A session as the server describes it to a client that asked for this."""
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
    """Whether a session's audio is mu-law."""
    return bool(described["audio"]["output"]["format"] == _PCMU)


def noise(seconds: float) -> bytes:
    """At most a second of 16-bit noise, in base64."""
    return binascii.b2a_base64(_NOISE[: round(seconds * _PCM_HZ) * _WIDTH], newline=False)
