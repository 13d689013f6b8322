"""Plays the holding sound while the agent's answer is awaited.

The sound is queued piece by piece, each when hardly a frame is left to send, so the agent's audio waits for 100 ms of it at most,
beyond the lead that Twilio holds.
"""

from __future__ import annotations

from typing import Final

from gevent import getcurrent, sleep

from gw.call.audio.playout import HOLDING
from gw.media.downlink import Downlink
from gw.media.hub.greenlets import KindGreenlet, spawn
from gw.protocol.audio import FRAME_BYTES, PTIME_S

#: One piece, 80 ms. The next one follows when a frame is left, so that no gap is heard between them.
PIECE_BYTES: Final = 4 * FRAME_BYTES


class HoldSound:
    """The holding sound of one call. `sound`: one round of it, in whole frames; empty for none."""

    def __init__(self, downlink: Downlink, sound: bytes) -> None:
        self._downlink = downlink
        self._sound = sound
        self._player: KindGreenlet | None = None

    def start(self) -> None:
        """Play the sound whenever nothing else is left to send. Idempotent."""
        if self._sound and self._player is None:
            self._player = spawn("other", self._play)

    def stop(self) -> None:
        """Queue no more of it, and end its response: other audio follows. Idempotent; never waits."""
        if self._player is not None:
            player, self._player = self._player, None
            player.kill(block=False)  # it may run once more, if its sleep is over in this turn of the hub
            self._downlink.end_response(HOLDING)

    def _play(self) -> None:
        place = 0
        while self._player is getcurrent():  # not kept in the frame, which would be a cycle
            unsent_s = self._downlink.unsent_s()
            if unsent_s < 1.5 * PTIME_S:
                self._downlink.play(HOLDING, HOLDING, self._sound[place : place + PIECE_BYTES])
                place = place + PIECE_BYTES if place + PIECE_BYTES < len(self._sound) else 0
            sleep(max(PTIME_S, unsent_s - PTIME_S))
