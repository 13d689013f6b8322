"""Voice activity detection by the loudness of 20 ms windows. Pure.

Gives the edges of a realtime API with server VAD. Time is counted in received audio, so late or bunched audio gives the same
edges.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gw.twin.sound import FRAME_BYTES, PTIME_MS, level

#: Mean magnitude of a window with voice: about -40 dBFS, below quiet speech, above line noise.
DEFAULT_LEVEL: Final = 0.01


class SpeechEdge(NamedTuple):
    """Speech started or stopped, `at_ms` into the audio."""

    started: bool
    at_ms: int


class EnergyVad:
    """Detects speech in mu-law of any length; keeps less than one window."""

    def __init__(
        self, silence_ms: int = 500, padding_ms: int = 300, onset_ms: int = 60, loud_level: float = DEFAULT_LEVEL
    ) -> None:
        self._silence_windows = max(1, silence_ms // PTIME_MS)
        self._onset_windows = max(1, onset_ms // PTIME_MS)
        self._padding_ms = padding_ms
        self._level = loud_level
        self._rest = b""
        self._windows = 0
        self._run = 0  # consecutive windows in favour of a change
        self.speaking = False

    def feed(self, ulaw: bytes) -> list[SpeechEdge]:
        """Add audio. Returns the edges in it, in sequence.

        A start lies before the first loud window by the padding, but not before the audio's begin; a stop is where the silence
        has lasted long enough.
        """
        data = self._rest + ulaw
        whole = len(data) - len(data) % FRAME_BYTES
        self._rest = data[whole:]
        edges = []
        for at in range(0, whole, FRAME_BYTES):
            self._windows += 1
            loud = level(data[at : at + FRAME_BYTES]) >= self._level
            self._run = self._run + 1 if loud != self.speaking else 0
            if self._run < (self._silence_windows if self.speaking else self._onset_windows):
                continue
            end_ms = self._windows * PTIME_MS
            start_ms = max(0, end_ms - self._run * PTIME_MS - self._padding_ms)
            self.speaking = not self.speaking
            self._run = 0
            edges.append(SpeechEdge(self.speaking, start_ms if self.speaking else end_ms))
        return edges
