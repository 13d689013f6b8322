"""The caller's audio from RX to the AI leg.

RX never waits for the AI leg: while that is connecting or congested, audio goes to a bounded buffer whose oldest frame is dropped
and counted. The payload stays base64, as Twilio sent it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gw.media.ai.leg import AiLeg
from gw.protocol.audio import PTIME_MS, PTIME_S
from metrics.declare import RX_DROPPED
from metrics.page import Page

#: Kept frames sent in one turn: a second of audio in a third of a millisecond. The rest follows with the next frames.
BATCH_FRAMES: Final = 50


class UplinkCells:
    """The uplink's cells in the worker's shared page."""

    __slots__ = ("by_reason",)

    def __init__(self, page: Page) -> None:
        self.by_reason = {reason: page.counter(RX_DROPPED, reason=reason) for reason in RX_DROPPED.labels["reason"]}


class Uplink:
    """One call's audio on its way to the AI."""

    __slots__ = ("_bound", "_cells", "_kept", "_leg", "_ready", "dropped")

    def __init__(self, leg: AiLeg, bound_s: float, cells: UplinkCells) -> None:
        """`bound_s`: seconds of audio kept while the AI leg takes none."""
        self._leg = leg
        self._bound = max(1, round(bound_s / PTIME_S))
        self._kept: deque[str] = deque()
        self._ready = False
        self._cells = cells
        self.dropped: dict[str, int] = {}

    def push(self, payload: str) -> None:
        """Send one frame, or keep it while the AI leg is not ready or congested."""
        if self._ready and not self._kept and not self._leg.is_congested:
            self._leg.send_audio(payload)
            return
        self._kept.append(payload)
        if len(self._kept) > self._bound:
            self._kept.popleft()
            self.count("ai_leg_busy" if self._ready else "ai_connecting")
        if self._ready:
            self._send_kept()

    def on_ready(self) -> None:
        """Start sending: kept frames first, a batch now and one with each later frame."""
        self._ready = True
        self._send_kept()

    def on_lost(self, leg: AiLeg) -> None:
        """Keep the caller's audio for `leg`, the replacement, until `on_ready`."""
        self._leg = leg
        self._ready = False

    @property
    def kept_ms(self) -> int:
        """Milliseconds of audio kept."""
        return len(self._kept) * PTIME_MS

    def _send_kept(self) -> None:
        for _ in range(min(len(self._kept), BATCH_FRAMES)):
            if self._leg.is_congested:
                return
            self._leg.send_audio(self._kept.popleft())

    def on_end(self) -> None:
        """Drop and count the audio that is still kept when the call ends."""
        self.count("call_ended", len(self._kept))
        self._kept.clear()

    def count(self, reason: str, frames: int = 1) -> None:
        """Count frames that do not reach the AI."""
        if frames:
            self.dropped[reason] = self.dropped.get(reason, 0) + frames
            self._cells.by_reason[reason].add(frames)
