"""Audio schedule of a session of the bench's AI: audio without end, in one of three patterns.

`steady`: 200 ms each 200 ms, 600 ms ahead. `bursty`: responses of 5 s, each at ten times real time in uneven pieces, the next
before the last was heard. `bargein`: steady, with a `speech_started` about every two seconds.
"""

from __future__ import annotations

import binascii
import json
import random
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gw.bench.load import audio as bench_audio
from gw.bench.load.loop import TICKS_PER_S, Loop
from gw.bench.load.wire import FRAME_BYTES, MAGIC, MARK, NOISE, text

PATTERNS: Final = ("steady", "bursty", "bargein")
PIECE_S: Final = 0.2
AHEAD_S: Final = 0.6
RESPONSE_S: Final = 5.0
#: Rate of a bursty response, in multiples of real time.
SPEED: Final = 10.0
BARGEIN_S: Final = 2.0
#: From `speech_started` to the next response.
ANSWER_S: Final = 0.3
_BYTES_PER_S: Final = 8000


class Voice:
    """One session's audio and events."""

    def __init__(self, number: int, loop: Loop, pattern: str, send: Callable[[bytes], bool]) -> None:
        """`send` writes bytes to the session's websocket."""
        self.stopped = False  # set at the session's end
        self.in_pcm = False  # send 16-bit noise, not mu-law
        self.interruptions: list[float] = []
        self._number = number
        self._loop = loop
        self._pattern = pattern
        self._send = send
        self._chance = random.Random(number)
        self._talking = False
        self._response = 0
        self._events = 0
        self._prefix = b""
        self._frame = 0
        self._left = b""  # audio made and not yet sent
        self._due_tick = 0

    @property
    def response_id(self) -> str:
        """The identifier of the latest response."""
        return f"resp_{self._number:04}_{self._response:06}"

    def start(self) -> None:
        """Begin a response, and all that follow from it; no effect while one is active."""
        if self._talking:
            return
        self._talking = True
        self._due_tick = self._loop.tick
        self._begin_response()
        if self._pattern == "bursty":
            self._burst(0.0)
            return
        for _ in range(round(AHEAD_S / PIECE_S)):
            self._send_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)
        if self._pattern == "bargein":
            self._loop.after(BARGEIN_S * self._chance.uniform(1.0, 2.0), self._interrupt)

    def _plan(self, delay_s: float, action: Any) -> None:
        """Schedule the next step, on an absolute schedule."""
        self._due_tick += round(delay_s * TICKS_PER_S)
        self._loop.at(self._due_tick, action)

    def _piece(self, _: float) -> None:
        if self.stopped or not self._talking:
            return
        self._send_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)

    def _burst(self, said_s: float) -> None:
        """Send one piece of a response at SPEED; after the last, schedule the next response before the audio runs out."""
        if self.stopped:
            return
        piece_s = min(self._chance.choice((0.013, 0.05, 0.2, 0.35, 0.6)), RESPONSE_S - said_s)
        self._send_audio(piece_s)
        said_s += piece_s
        if said_s < RESPONSE_S - 1e-6:
            self._plan(piece_s / SPEED, lambda _: self._burst(said_s))
            return
        self._end_response("completed")
        ahead_s = AHEAD_S if self._response == 1 else 0.0  # once: later responses keep that distance
        self._plan(RESPONSE_S * (1 - 1 / SPEED) - ahead_s, self._next_burst)

    def _next_burst(self, _: float) -> None:
        if not self.stopped:
            self._begin_response()
            self._burst(0.0)

    def _interrupt(self, _: float) -> None:
        """Report caller speech: cancel the response, and answer later."""
        if self.stopped:
            return
        if self._loop.measuring:
            self.interruptions.append(monotonic())
        self.send_event({"type": "input_audio_buffer.speech_started", "item_id": f"caller_{self._response}", "audio_start_ms": 0})
        self._talking = False
        self._end_response("cancelled")
        self._loop.after(ANSWER_S, self._answer)

    def _answer(self, _: float) -> None:
        if self.stopped:
            return
        event = {"type": "input_audio_buffer.speech_stopped", "item_id": f"caller_{self._response}", "audio_end_ms": 0}
        self.send_event(event)
        self._frame += -len(self._left) // FRAME_BYTES  # restart at a whole frame
        self._left = b""
        self._talking = True
        self._due_tick = self._loop.tick
        self._begin_response()
        for _ in range(round(AHEAD_S / PIECE_S)):
            self._send_audio(PIECE_S)
        self._plan(PIECE_S, self._piece)
        self._loop.after(BARGEIN_S * self._chance.uniform(0.8, 1.2), self._interrupt)

    def _begin_response(self) -> None:
        self._response += 1
        name = f"{self._number:04}_{self._response:06}"
        self.send_event({"type": "response.created", "response": {"id": f"resp_{name}", "status": "in_progress"}})
        self._prefix = (
            f'{{"type":"response.output_audio.delta","event_id":"event_{name}","response_id":"resp_{name}",'
            f'"item_id":"item_{name}","output_index":0,"content_index":0,"delta":"'
        ).encode()

    def _end_response(self, status: str) -> None:
        self.send_event({"type": "response.done", "response": {"id": self.response_id, "status": status}})

    def _send_audio(self, seconds: float) -> None:
        """Send one delta of any length; frames are numbered through all responses."""
        if self.in_pcm:
            self._send(text(self._prefix + bench_audio.noise(seconds) + b'"}'))
            return
        wanted = round(seconds * _BYTES_PER_S)
        audio = bytearray(self._left)
        while len(audio) < wanted:
            audio += MARK.pack(MAGIC, self._number & 0xFFFF, self._frame, 0)
            audio += NOISE
            self._frame += 1
        self._left = bytes(audio[wanted:])
        self._send(text(self._prefix + binascii.b2a_base64(audio[:wanted], newline=False) + b'"}'))

    def send_event(self, event: dict[str, Any]) -> None:
        """Send an event with an id, which some clients require."""
        self._events += 1
        self._send(text(json.dumps({"event_id": f"event_{self._number:04}_{self._events:06}", **event}).encode()))
