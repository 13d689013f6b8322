"""Playout at Twilio: when the caller hears each byte, when marks are due, what `clear` drops. Pure.

Nothing ticks: audio plays at 8 bytes a millisecond from its arrival, or from the end of the audio before it. Time is passed in.

    push          push        push      clear
     |=============|====]      |=========|xxxx]      = heard, x never heard
                        |<gap >|                     an underrun, unless a mark or clear lies between

Source: Twilio Media Streams, "media", "mark", "clear"; debugger code 31931 for more than ten minutes buffered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from gw.twin.sound import BYTES_PER_MS, RATE_HZ, SILENCE

LIMIT_BYTES: Final = 10 * 60 * RATE_HZ
#: Clock rounding, under one sample: not an audible gap.
_TOLERANCE_S: Final = 1 / RATE_HZ


class Arrival(NamedTuple):
    """Audio from the network. `continues`: no mark or clear since the audio before."""

    at_s: float
    size: int
    continues: bool


class Gap(NamedTuple):
    """Silence of `ms` in the middle of a talkspurt."""

    at_s: float
    ms: float


@dataclass(slots=True)
class _Piece:
    start_s: float
    audio: bytes

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.audio) / RATE_HZ


class Player:
    """One stream's playout buffer. Times must not run backwards."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: list[_Piece] = []
        self._end_s = float("-inf")  # end of the buffered audio
        self._marks: list[tuple[float, int, str]] = []  # due, number, name
        self._mark_number = 0
        self._parted = True  # a mark or a clear came since the last audio
        self.arrivals: list[Arrival] = []
        self.gaps: list[Gap] = []
        self.dropped_bytes = 0  # beyond the limit
        self.cleared_bytes = 0  # never heard, due to a clear

    # -- arrival ----------------------------------------------------------------------------------------------------

    def push(self, now_s: float, audio: bytes) -> int:
        """Buffer audio. Returns the bytes that did not fit: Twilio drops what exceeds ten minutes."""
        room = self._limit_bytes - round(self.buffered_s(now_s) * RATE_HZ)
        kept = audio[: max(0, room)]
        dropped = len(audio) - len(kept)
        self.dropped_bytes += dropped
        if not kept:
            return dropped
        continues = not self._parted
        self.arrivals.append(Arrival(now_s, len(kept), continues))
        self._parted = False
        if now_s > self._end_s + _TOLERANCE_S:
            if continues:
                self.gaps.append(Gap(self._end_s, (now_s - self._end_s) * 1000))
            self._end_s = now_s
        self._pieces.append(_Piece(self._end_s, kept))
        self._end_s += len(kept) / RATE_HZ
        return dropped

    def mark(self, now_s: float, name: str) -> tuple[float, int]:
        """Buffer a mark. Returns when it is due and its number, for `take_mark`."""
        due_s = max(now_s, self._end_s)
        self._mark_number += 1
        self._marks.append((due_s, self._mark_number, name))
        self._parted = True
        return due_s, self._mark_number

    def clear(self, now_s: float) -> list[str]:
        """Empty the buffer. Returns all pending marks, oldest first; they are echoed immediately."""
        self._parted = True
        while self._pieces and self._pieces[-1].end_s > now_s:
            piece = self._pieces.pop()
            played = max(0, int((now_s - piece.start_s) * RATE_HZ))
            self.cleared_bytes += len(piece.audio) - played
            if played:
                self._pieces.append(_Piece(piece.start_s, piece.audio[:played]))
                break
        self._end_s = min(self._end_s, now_s)
        names = [name for _, _, name in self._marks]
        self._marks.clear()
        return names

    # -- playout ----------------------------------------------------------------------------------------------------

    def take_mark(self, number: int) -> str | None:
        """Remove a pending mark and return its name; None after a clear."""
        for place, (_, its_number, name) in enumerate(self._marks):
            if its_number == number:
                del self._marks[place]
                return name
        return None

    @property
    def pending_marks(self) -> list[str]:
        """Names of the marks not echoed yet."""
        return [name for _, _, name in self._marks]

    def buffered_s(self, now_s: float) -> float:
        """Return the duration of the audio still to be played."""
        return max(0.0, self._end_s - now_s)

    def is_playing(self, now_s: float) -> bool:
        """True while the caller hears audio."""
        return self.buffered_s(now_s) > 0

    def played(self, now_s: float) -> list[tuple[float, bytes]]:
        """Return the played part of each piece of audio until `now_s`, and its start."""
        cut = ((one.start_s, one.audio[: max(0, round((now_s - one.start_s) * RATE_HZ))]) for one in self._pieces)
        return [(start_s, audio) for start_s, audio in cut if audio]

    def heard(self, now_s: float, since_s: float | None = None) -> bytes:
        """Return the audio played until `now_s`.

        Without `since_s` the audio only, gaps left out. With `since_s` everything from then on, silence in the gaps, as long as
        the call, so that it can be aligned with the caller's audio.
        """
        ear: list[bytes] = []
        size = 0
        for piece in self._pieces:
            played = min(len(piece.audio), max(0, round((now_s - piece.start_s) * RATE_HZ)))
            if since_s is not None:
                quiet = round((piece.start_s - since_s) * RATE_HZ) - size
                if quiet > 0 and played:
                    ear.append(SILENCE * quiet)
                    size += quiet
            ear.append(piece.audio[:played])
            size += played
        if since_s is not None:
            ear.append(SILENCE * max(0, round((now_s - since_s) * RATE_HZ) - size))
        return b"".join(ear)

    def heard_ms(self, now_s: float) -> int:
        """Return the milliseconds of audio played, gaps left out."""
        played = (min(len(piece.audio), max(0.0, (now_s - piece.start_s) * RATE_HZ)) for piece in self._pieces)
        return int(sum(played) / BYTES_PER_MS)

    @property
    def first_heard_s(self) -> float | None:
        """Time at which the first audio was played."""
        return self._pieces[0].start_s if self._pieces else None

    @property
    def underrun_ms(self) -> float:
        """Sum of the gaps inside talkspurts, for an ear directly behind the buffer."""
        return sum(gap.ms for gap in self.gaps)

    def underrun_behind_ms(self, jitter_ms: float) -> float:
        """Return the same sum behind a jitter buffer that delays each talkspurt by `jitter_ms`.

        Ignores clears: only valid for calls without interruptions.
        """
        end_s = float("-inf")
        missing_s = 0.0
        for arrival in self.arrivals:
            if not arrival.continues:
                end_s = max(end_s, arrival.at_s + jitter_ms / 1000)
            elif arrival.at_s > end_s + _TOLERANCE_S:
                missing_s += arrival.at_s - end_s
                end_s = arrival.at_s
            end_s += arrival.size / RATE_HZ
        return missing_s * 1000
