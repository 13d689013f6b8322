"""The embedded agent: it greets, listens, and repeats the caller's words.

Its only clock is the caller's audio, 20 ms per frame received, so the same audio always gives the same events, however it is cut.
Speech is detected by level against the noise floor, the quietest frame of the last seconds: three loud frames begin a turn, half
a second of quiet ends it. An answer is produced immediately and whole, like an AI faster than real time; playout cuts it when
the caller interrupts, and a request for more repeats it. After its goodbye it still listens: the caller may return to the
conversation. No waiting, no randomness, at most 20 s of audio kept.
"""

from __future__ import annotations

from collections import deque
from itertools import cycle
from typing import Final

from gw.protocol import audio
from gw.protocol.ai import (
    HANG_UP_TOOL,
    AgentTranscript,
    AiEvent,
    AudioDelta,
    CallerTranscript,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
)

_FRAMES_PER_S: Final = 1000 // audio.PTIME_MS

#: Longer than a click, shorter than a syllable.
START_FRAMES: Final = 3
#: The pause that ends a turn; pauses between words are shorter.
PAUSE_MS: Final = 500
QUIET_FRAMES: Final = PAUSE_MS // audio.PTIME_MS
#: Captured before the level crossed the threshold: words begin softly.
PRE_ROLL_FRAMES: Final = 200 // audio.PTIME_MS
#: Repeated of the pause that ended a turn, so that the last sound fades.
TAIL_FRAMES: Final = 100 // audio.PTIME_MS
CAPTURE_FRAMES: Final = 20 * _FRAMES_PER_S
IDLE_FRAMES: Final = 20 * _FRAMES_PER_S

#: Hysteresis: four times the floor (12 dB) begins speech, twice the floor (6 dB) continues it. The minimum levels keep hum (some
#: 40 dB under full scale) on a silent line, whose floor is 0, from counting as speech.
START_FACTOR: Final = 4
START_LEVEL: Final = 200
STOP_FACTOR: Final = 2
STOP_LEVEL: Final = 120
#: The floor before the first audio, and the seconds it covers: longer than anyone speaks without a breath.
FIRST_FLOOR: Final = 50
FLOOR_SECONDS: Final = 5

#: Uneven chunk lengths, like those of real APIs.
_CHUNK_BYTES: Final = (403, 1601, 811, 2399, 3203)


class _Floor:
    """The quietest level of the last seconds, as one minimum per second."""

    __slots__ = ("_count", "_minima", "level")

    def __init__(self) -> None:
        self._minima = deque([FIRST_FLOOR] * FLOOR_SECONDS, maxlen=FLOOR_SECONDS)
        self._count = 0
        self.level = FIRST_FLOOR

    def add(self, level: int) -> None:
        if self._count == _FRAMES_PER_S:
            self._minima.append(level)
            self._count = 0
        else:
            self._minima[-1] = min(self._minima[-1], level)
        self._count += 1
        self.level = min(self._minima)


class Parrot:
    """One call's agent."""

    __slots__ = (
        "_answered",
        "_captured",
        "_floor",
        "_frames",
        "_goodbye",
        "_is_leaving",
        "_last",
        "_loud_frames",
        "_n",
        "_quiet_frames",
        "_recent",
        "_rest",
        "_speech_item",
        "_start_ms",
    )

    def __init__(self, greeting: bytes, goodbye: bytes) -> None:
        self._last = (greeting, "(greeting)")  # the last answer: sound and text
        self._goodbye = goodbye
        self._is_leaving = False  # the key "#" was pressed: the next response is the goodbye
        self._floor = _Floor()
        self._rest = b""  # the beginning of a frame
        self._frames = 0  # received so far: the clock
        self._answered = 0  # end of the last answer, or of the caller's last word, on that clock
        self._n = 0
        self._recent: deque[bytes] = deque(maxlen=PRE_ROLL_FRAMES + START_FRAMES)
        self._loud_frames = 0
        self._quiet_frames = 0
        self._speech_item = ""  # the caller's current turn
        self._start_ms = 0
        self._captured: list[bytes] = []

    def create_response(self) -> list[AiEvent]:
        """Return the goodbye after the key "#", else the last answer; the greeting before any."""
        if self._is_leaving:
            return self._say_goodbye()
        return self._say(*self._last)

    def on_audio(self, sound: bytes) -> list[AiEvent]:
        """Process caller audio and return its events, in order.

        Shape: any number of mu-law bytes; a remainder shorter than a frame is kept for the next call. 3 us a frame.
        """
        events: list[AiEvent] = []
        data = self._rest + sound if self._rest else sound
        whole = len(data) - len(data) % audio.FRAME_BYTES
        for start in range(0, whole, audio.FRAME_BYTES):
            self._on_frame(data[start : start + audio.FRAME_BYTES], events)
        self._rest = data[whole:]
        return events

    def on_keys(self, keys: str) -> list[AiEvent]:
        """Process keys: "#" ends the caller's turn, and makes the next response the goodbye."""
        self._is_leaving = self._is_leaving or "#" in keys
        if not self._is_leaving or not self._speech_item:
            return []
        item_id, self._speech_item, self._captured = self._speech_item, "", []
        return [SpeechStopped(item_id)]

    def _on_frame(self, frame: bytes, events: list[AiEvent]) -> None:
        self._frames += 1
        level = audio.energy(frame)
        self._floor.add(level)
        if self._speech_item:
            self._captured.append(frame)
            is_quiet = level < max(STOP_LEVEL, STOP_FACTOR * self._floor.level)
            self._quiet_frames = self._quiet_frames + 1 if is_quiet else 0
            if self._quiet_frames >= QUIET_FRAMES or len(self._captured) >= CAPTURE_FRAMES:
                events += self._answer()
            return
        self._recent.append(frame)
        is_loud = level >= max(START_LEVEL, START_FACTOR * self._floor.level)
        self._loud_frames = self._loud_frames + 1 if is_loud else 0
        if self._loud_frames >= START_FRAMES:
            events.append(self._begin())
        elif self._frames - self._answered >= IDLE_FRAMES:
            events += self._say_goodbye()

    def _begin(self) -> SpeechStarted:
        """Begin a turn at the first of the loud frames. The agent's answer in progress ends with that."""
        self._captured = list(self._recent)
        self._recent.clear()
        self._loud_frames = self._quiet_frames = 0
        self._start_ms = (self._frames - START_FRAMES) * audio.PTIME_MS
        self._speech_item = self._next("item")
        self._answered = self._frames
        return SpeechStarted(self._speech_item, self._start_ms)

    def _answer(self) -> list[AiEvent]:
        """End the caller's turn and repeat it."""
        item_id = self._speech_item
        end_ms = (self._frames - self._quiet_frames) * audio.PTIME_MS  # of the last loud frame
        fading = max(0, self._quiet_frames - TAIL_FRAMES)
        words = b"".join(self._captured[: len(self._captured) - fading])
        self._speech_item, self._captured = "", []
        spoken_s = (end_ms - self._start_ms) / 1000
        self._last = (words, f"(what you said, {spoken_s:.1f} s)")
        return [
            SpeechStopped(item_id),
            CallerTranscript(item_id, f"(the caller spoke, {spoken_s:.1f} s)"),
            *self._say(*self._last),
        ]

    def _say_goodbye(self) -> list[AiEvent]:
        self._is_leaving = False
        return self._say(self._goodbye, "(goodbye)", hang_up=True)

    def _say(self, sound: bytes, text: str, *, hang_up: bool = False) -> list[AiEvent]:
        """Build one whole response, in chunks of uneven length."""
        response_id, item_id = self._next("resp"), self._next("item")
        self._answered = self._frames + audio.frames_of(len(sound))
        events: list[AiEvent] = [ResponseStarted(response_id)]
        start, lengths = 0, cycle(_CHUNK_BYTES)
        while start < len(sound):
            end = start + next(lengths)
            events.append(AudioDelta(response_id, item_id, sound[start:end]))
            start = end
        events.append(AgentTranscript(response_id, item_id, text))
        if hang_up:
            events.append(ToolCall(response_id, self._next("item"), self._next("call"), HANG_UP_TOOL, "{}"))
        events.append(ResponseDone(response_id, "completed", ""))
        return events

    def _next(self, kind: str) -> str:
        self._n += 1
        return f"{kind}_{self._n}"
