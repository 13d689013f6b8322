"""AI-out: cuts playout audio into frames for TX, and asks the recording guard on every turn.

AI-out keeps TX's queue between two watermarks. A turn comes when AI-in has new audio for a low queue, and every TURN_S at the
latest, also when no more AI audio comes: so the recording starts for a greeting of three frames followed by silence. The guard is
asked once more at the end, for a call that ended before the next turn. A turn cuts a bounded batch and never waits; a full
recording pool leaves the guard armed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gw.call.audio.playout import HOLDING, Playout, ResponseMark
from gw.call.guard import RecordingGuard
from gw.media.hub.clock import Alarm, turn_loop
from gw.media.tx import Ready, Tx
from gw.protocol.audio import PTIME_MS
from gw.protocol.twilio import FrameBuilder, build_mark
from gw.protocol.websocket.frames import text_message

#: The longest time between two questions to the guard, and between two fillings of TX's queue.
TURN_S: Final = 0.1
#: TX's queue is filled up to this much beyond the lead: several turns, and a short stall of the hub.
HIGH_MS: Final = 400
#: TX's queue is filled again below this much beyond the lead: two turns before it would run dry.
LOW_MS: Final = 200
#: Frames cut in one turn, about 40 us, so that no turn holds the hub.
BATCH_FRAMES: Final = 16
#: Questions to the guard after the last turn while the pool is full: all calls of a worker may end at the same time.
LAST_ASKS: Final = 100


class AiOut:
    """One call's AI-out greenlet."""

    __slots__ = (
        "_builder",
        "_guard",
        "_on_first_audio",
        "_on_record",
        "_pool_has_room",
        "_reported",
        "_stream_sid",
        "_wake",
        "high_frames",
        "low_frames",
        "playout",
        "stopped",
        "tx",
    )

    def __init__(
        self,
        stream_sid: str,
        tx: Tx,
        playout: Playout,
        guard: RecordingGuard,
        *,
        lead_ms: int,
        pool_has_room: Callable[[], bool],
        on_record: Callable[[], None],
        on_first_audio: Callable[[float], None],
    ) -> None:
        """`on_record` spawns the recording's start into the pool. `on_first_audio` receives the monotonic time of the first
        frame. Neither may wait."""
        self._stream_sid = stream_sid
        self._builder = FrameBuilder(stream_sid)
        self.tx = tx
        self.playout = playout
        self._guard = guard
        self._pool_has_room = pool_has_room
        self._on_record = on_record
        self._on_first_audio = on_first_audio
        self._reported = False
        self._wake = Alarm()
        self.stopped = False
        self.high_frames = (lead_ms + HIGH_MS) // PTIME_MS
        self.low_frames = (lead_ms + LOW_MS) // PTIME_MS

    def wake(self) -> None:
        """Take a turn for new audio in the playout, if TX's queue is low."""
        if len(self.tx.queue) < self.low_frames:
            self._wake.set()

    def stop(self) -> None:
        """Let the loop end at its next turn."""
        self.stopped = True
        self._wake.set()

    def run(self) -> None:
        """Take turns until `stop`. The greenlet's body."""
        while not self.stopped:
            if self.turn():
                turn_loop()  # let other greenlets run before the next batch
            else:
                self._wake.wait(TURN_S)
        for _ in range(LAST_ASKS):
            self._ask()
            if not self._is_owed:
                break
            turn_loop()  # the pool's greenlets never wait, so a slot is free soon

    def turn(self) -> bool:
        """Ask the guard, then fill TX's queue if it is low. True: the batch was used up and more could be cut."""
        self._ask()
        return self._fill()

    def _ask(self) -> None:
        """Report the first frame, once, and ask the guard."""
        sent = self.tx.first_audio_sent
        if sent and not self._reported:
            self._reported = True
            self._on_first_audio(self.tx.first_audio_s)
        if self._guard.may_start(first_audio_sent=sent, pool_has_room=self._pool_has_room()):
            self._on_record()

    @property
    def _is_owed(self) -> bool:
        """True when audio was sent and its recording has not been requested."""
        guard = self._guard
        may_start = guard.enabled and guard.is_announced and not guard.is_concealed
        return self.tx.first_audio_sent and may_start and not guard.recording_started

    def _fill(self) -> bool:
        tx, playout = self.tx, self.playout
        depth = len(tx.queue)
        if depth >= self.low_frames:
            return False
        generation = playout.generation
        for _ in range(min(BATCH_FRAMES, self.high_frames - depth)):
            piece = playout.pop()
            if piece is None:
                return False
            if isinstance(piece, ResponseMark):
                tx.put(Ready(generation, text_message(build_mark(self._stream_sid, piece.name)), False))
            else:
                tx.put(Ready(generation, self._builder.build(piece), True, playout.cut_response != HOLDING))
        return len(tx.queue) < self.low_frames
