"""The TX loop: real-time code. If an operation can take more than 1 ms, it doesn't go in here.

TX takes a ready frame, waits until the frame is due, hands it to the kernel without blocking, bumps counters, and sets one flag
when the agent's first frame is out. Nothing else: no logging, no JSON, no lock, no other wait. AI-out makes the frames and stamps
each with its generation. A frame of an old generation is dropped after the wait (the clear that ended the generation has counted
it), and nothing is sent after `stop`, because a close frame may be out. While TX is held no frame is sent; the one in hand stays
there, and leaves first. A mark whose frames have left passes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from time import monotonic
from typing import Final, NamedTuple

from gevent.event import Event

from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import Playout
from gw.call.quality import LatencyCounts
from gw.media.hub.clock import Clock
from gw.media.transport.plain import Transport
from metrics.declare import BOUNDS, TX_FRAMES, TX_HELD, TX_LATENESS, TX_SEND, TX_UNDERRUN
from metrics.page import Page

#: An idle or held TX checks its stop flag this often; AI-out wakes it for frames, `release` ends a hold.
IDLE_S: Final = 1.0


class Ready(NamedTuple):
    """One websocket message ready to send: a frame of audio, or a mark. `is_voice`: the agent's, not the holding sound."""

    generation: int
    data: bytes
    is_audio: bool
    is_voice: bool = True


class TxCells:
    """TX's cells in the worker's shared page, bound once per worker."""

    __slots__ = ("ai_underrun", "frames", "held", "lateness", "send", "underrun")

    def __init__(self, page: Page) -> None:
        self.frames = page.counter(TX_FRAMES)
        self.lateness = page.histogram(TX_LATENESS)
        self.send = page.histogram(TX_SEND)
        self.underrun = page.counter(TX_UNDERRUN, cause="gateway")
        self.ai_underrun = page.counter(TX_UNDERRUN, cause="ai")
        self.held = page.counter(TX_HELD)


class Tx:
    """One call's sender. AI-out puts, TX takes; both run in one hub, so no lock is needed."""

    __slots__ = (
        "_cells",
        "_clock",
        "_pacer",
        "_playout",
        "_ready",
        "_released",
        "_transport",
        "first_audio_s",
        "first_audio_sent",
        "frames_sent",
        "held",
        "lateness",
        "queue",
        "send",
        "stopped",
    )

    def __init__(self, transport: Transport, pacer: Pacer, playout: Playout, clock: Clock, cells: TxCells) -> None:
        self._transport = transport
        self._pacer = pacer
        self._playout = playout
        self._clock = clock
        self._cells = cells
        self._ready = Event()
        self._released = Event()
        self.queue: deque[Ready] = deque()  # bounded by AI-out's high watermark
        self.stopped = False
        self.held = False
        self.first_audio_sent = False  # AI-out passes this flag to the recording guard
        self.first_audio_s = 0.0
        self.frames_sent = 0
        self.lateness = LatencyCounts(BOUNDS)
        self.send = LatencyCounts(BOUNDS)

    # -- AI-out and barge-in ------------------------------------------------------------------------------------------

    def put(self, ready: Ready) -> None:
        """Queue a message; wakes an idle TX."""
        self.queue.append(ready)
        if len(self.queue) == 1:
            self._ready.set()

    def discard(self) -> None:
        """Drop all queued messages."""
        self.queue.clear()

    def hold(self) -> None:
        """Send no further frame until `release`. Idempotent."""
        self.held = True
        self._released.clear()

    def release(self) -> None:
        """Continue with the next message. Idempotent."""
        self.held = False
        self._released.set()

    def stop(self) -> None:
        """Let the loop end at its next turn, also when held."""
        self.stopped = True
        self._ready.set()
        self._released.set()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Send queued messages until `stop`, or until the transport fails (its reader ends the call). The greenlet's body."""
        queue, pacer, playout, clock, transport = self.queue, self._pacer, self._playout, self._clock, self._transport
        while not self.stopped:
            if not queue:
                self._ready.clear()
                is_dry = playout.is_dry
                self._ready.wait(IDLE_S)
                pacer.on_starved(monotonic(), is_dry)
                continue
            generation, data, is_audio, is_voice = queue.popleft()
            if is_audio:
                clock.wait_until(pacer.deadline(monotonic()))
                if self.held:
                    self._pause()
            if generation != playout.generation or self.stopped:
                continue
            begun_s = monotonic()
            taken = transport.write(data)
            if not taken and transport.failure:
                return
            if is_audio:
                self._count(begun_s, monotonic(), taken and is_voice)
            else:
                pacer.on_mark()

    def _pause(self) -> None:
        """Wait for `release` with a frame in hand, and count the pause that the caller heard."""
        pacer = self._pacer
        while self.held and not self.stopped:
            self._released.wait(IDLE_S)
        held_s = pacer.held_s
        pacer.on_held(monotonic())
        self._cells.held.add(pacer.held_s - held_s)

    def _count(self, begun_s: float, sent_s: float, taken: bool) -> None:
        """Record one frame sent: the send's duration and the frame's lateness, in the call's and in the worker's counters.

        `taken`: the kernel took the agent's audio.
        """
        cells, send, lateness, pacer = self._cells, self.send, self.lateness, self._pacer
        underrun_s, ai_underrun_s = pacer.underrun_s, pacer.ai_underrun_s
        late_s = pacer.on_sent(sent_s)
        took_s = sent_s - begun_s
        self.frames_sent += 1
        cells.frames.add()
        cells.send.observe(took_s)
        cells.lateness.observe(late_s)
        send.counts[bisect_left(BOUNDS, took_s)] += 1
        lateness.counts[bisect_left(BOUNDS, late_s)] += 1
        if took_s > send.max_s:
            send.max_s = took_s
        if late_s > lateness.max_s:
            lateness.max_s = late_s
        if pacer.underrun_s != underrun_s:
            ai_underrun_s = pacer.ai_underrun_s - ai_underrun_s
            cells.ai_underrun.add(ai_underrun_s)
            cells.underrun.add(pacer.underrun_s - underrun_s - ai_underrun_s)
        if taken and not self.first_audio_sent:
            self.first_audio_s = sent_s
            self.first_audio_sent = True
