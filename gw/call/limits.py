"""Limits of one call: how much audio, how many events and messages a peer may cause.

Each limit is a token bucket: a rate, and a burst that is free at first and refills at that rate. The surplus is dropped and
counted by the caller of `take`; it ends no call until it is a flood.
"""

from __future__ import annotations

from typing import Final

from gw.protocol.audio import FRAME_BYTES, PTIME_S

#: Audio that may go to the AI: real time, a fifth for clocks that differ, and 2 s. Time without audio is saved, since a stall of
#: the network delays the speech in it; a longer stall ends the call (the default of `media.phone_silence_s`).
AUDIO_SPEED: Final = 1.2
AUDIO_BURST_S: Final = 2.0
AUDIO_SAVED_S: Final = 10.0
#: A message with less audio is charged as half a frame: the shortest frame in use has 10 ms.
MIN_CHARGE_BYTES: Final = FRAME_BYTES // 2
#: Events of one kind a call may send to control: rate per second, and burst. A burst can come in one slice of the hub's time,
#: where an event with all it causes takes about 25 us. A person presses five keys a second at most.
EVENTS: Final = (5.0, 20)
_EVENTS_OF: Final = {
    "interruption": (2.0, 10),  # each also sends a clear, and truncations
    "ai_error": (0.2, 5),  # each is logged
    "turn": (5.0, 64),  # a call's end reports all that are open
}
#: Messages on one stream besides audio for the AI. Twilio sends a few; a minute of late audio in one burst is 3000.
MESSAGES_PER_S: Final = 5000
MESSAGES_BURST: Final = 10_000
#: Bytes read from an AI: audio in base64 at a hundred times real time, after three minutes of it as fast as it comes. An event of
#: 2 MiB does not delay the audio behind it.
AI_BYTES_PER_S: Final = 1 << 20
AI_BURST_BYTES: Final = 2 << 20
#: Bytes read from a phone, which sends 18 KB/s: after a minute of late audio as fast as it comes.
PHONE_BYTES_PER_S: Final = 64 << 10
PHONE_BURST_BYTES: Final = 1 << 20
#: A read is charged as a few messages: reads of one byte each are a flood too.
READ_CHARGE_BYTES: Final = 256

#: Rounding of a sum of many times; far below one frame.
_ROUNDING_S: Final = 1e-6


class Allowance:
    """Token bucket, kept as the time at which it is full again."""

    __slots__ = ("_burst_s", "_full_s", "_saved_s", "_unit_s")

    def __init__(self, per_s: float, burst: float, saved: float = 0.0) -> None:
        """`saved`: tokens beyond the burst, which it lacks at first."""
        self._unit_s = 1 / per_s
        self._saved_s = saved / per_s
        self._burst_s = burst / per_s + self._saved_s + _ROUNDING_S
        self._full_s = 0.0  # before the first use

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Take `amount` tokens, or none. Returns False when there are fewer."""
        full_s = self._full_s or now_s + self._saved_s
        full_s = (full_s if full_s > now_s else now_s) + amount * self._unit_s
        if full_s - now_s > self._burst_s:
            return False
        self._full_s = full_s
        return True

    def charge(self, now_s: float, amount: float) -> float:
        """Take `amount` tokens, also such that are not there yet. Returns the time until they are, in seconds."""
        full_s = self._full_s or now_s + self._saved_s
        self._full_s = full_s = (full_s if full_s > now_s else now_s) + amount * self._unit_s
        late_s = full_s - now_s - self._burst_s
        return late_s if late_s > 0 else 0.0


def audio_allowance() -> Allowance:
    """Return the allowance of a call's audio, in frames."""
    return Allowance(AUDIO_SPEED / PTIME_S, AUDIO_BURST_S / PTIME_S, AUDIO_SAVED_S / PTIME_S)


def ai_reads() -> Allowance:
    """Return the allowance of an AI leg's reads, in bytes."""
    return Allowance(AI_BYTES_PER_S, AI_BURST_BYTES)


def phone_reads() -> Allowance:
    """Return the allowance of a phone leg's reads, in bytes."""
    return Allowance(PHONE_BYTES_PER_S, PHONE_BURST_BYTES)


def event_allowance(kind: str) -> Allowance:
    """Return the allowance of a call's events of one kind."""
    return Allowance(*_EVENTS_OF.get(kind, EVENTS))


def frames_charged(n_bytes: int) -> float:
    """Return the charge for a piece of audio no longer than a frame."""
    return max(n_bytes, MIN_CHARGE_BYTES) / FRAME_BYTES
