"""The caller's audio from RX to the AI leg.

RX never waits for the AI leg: while that is connecting or congested, audio goes to a bounded buffer whose oldest frame is dropped
and counted. Kept audio leaves in batches, whether frames follow or not. The payload of a frame stays base64, as Twilio sent it; a
longer one is cut into frames. Audio beyond real time is dropped and counted, since the AI charges for it. While the caller's
frames are missing, silence takes their place on request: the AI's voice detection measures time by audio. While the caller types
sensitive digits, each frame is silence.
"""

from __future__ import annotations

import binascii
from collections import deque
from typing import Final

from gw.call.limits import audio_allowance, frames_charged
from gw.media.ai.leg import AiLeg
from gw.protocol.audio import FRAME_BYTES, PTIME_MS, PTIME_S, SILENCE_BYTE, frames_of
from metrics.declare import RX_DROPPED
from metrics.page import Page

#: Kept frames sent in one turn: half a second of audio in a sixth of a millisecond. The rest follows later.
BATCH_FRAMES: Final = 25
#: Audio taken from one message, 0.1 ms of one slice. Twilio sends a frame in each.
_MESSAGE_BYTES: Final = 100 * FRAME_BYTES
#: Base64 of a frame, which ends with "==".
_FRAME_CHARS: Final = -(-FRAME_BYTES // 3) * 4
#: Time without a frame after which frames are missing: above the jitter of a network.
MISSING_S: Final = 0.15
#: Silence sent in one turn; the rest follows with the next check.
FILL_FRAMES: Final = 5
_SILENCE: Final = binascii.b2a_base64(bytes([SILENCE_BYTE]) * FRAME_BYTES, newline=False).decode()


class UplinkCells:
    """The uplink's cells in the worker's shared page."""

    __slots__ = ("by_reason",)

    def __init__(self, page: Page) -> None:
        self.by_reason = {reason: page.counter(RX_DROPPED, reason=reason) for reason in RX_DROPPED.labels["reason"]}


class Uplink:
    """One call's audio on its way to the AI."""

    __slots__ = (
        "_allowance",
        "_bound",
        "_cells",
        "_filled_s",
        "_fills",
        "_kept",
        "_leg",
        "_ready",
        "dropped",
        "is_concealed",
        "last_frame_s",
    )

    def __init__(self, leg: AiLeg, bound_s: float, cells: UplinkCells) -> None:
        """`bound_s`: seconds of audio kept while the AI leg takes none."""
        self._leg = leg
        self._bound = max(1, round(bound_s / PTIME_S))
        self._kept: deque[str] = deque()
        self._ready = False
        self._cells = cells
        self._allowance = audio_allowance()
        self.dropped: dict[str, int] = {}
        self.is_concealed = False  # silence takes the place of the caller's audio
        self.last_frame_s = 0.0  # monotonic; 0.0: no audio has come
        self._fills = False  # silence takes the place of missing frames
        self._filled_s = 0.0  # until when silence was sent, or was not needed

    def try_push(self, payload: str, now_s: float) -> bool:
        """Push a message with exactly one frame: nearly every message.

        Returns: False, without effect, for a message of another length, or beyond real time.
        """
        if len(payload) != _FRAME_CHARS or payload[-2] != "=" or not self._allowance.take(now_s):
            return False
        self.last_frame_s = now_s
        self.push(payload)
        return True

    def push_any(self, payload: str, now_s: float) -> None:
        """Push a message with any amount of audio, in frames.

        `payload`: valid base64. Audio beyond real time, or beyond 2 s of one message, is dropped and counted.
        """
        self.last_frame_s = now_s
        audio = binascii.a2b_base64(payload)
        if not audio:
            self._cells.by_reason["empty"].add()
        for start in range(0, len(audio), FRAME_BYTES):
            frame = audio[start : start + FRAME_BYTES]
            if start >= _MESSAGE_BYTES or not self._allowance.take(now_s, frames_charged(len(frame))):
                self.count("surplus", frames_of(len(audio) - start))
                break
            self._keep(_SILENCE if self.is_concealed else binascii.b2a_base64(frame, newline=False).decode())
        if self._ready:
            self._send_kept()

    def is_missing(self, now_s: float) -> bool:
        """Return whether the caller's frames are missing: audio has come, and the AI leg is ready for more."""
        return now_s - self.last_frame_s > MISSING_S and self._ready and self.last_frame_s > 0.0

    @property
    def has_kept(self) -> bool:
        """True while kept audio can be sent, or soon can: the AI leg is ready."""
        return self._ready and bool(self._kept)

    def fill(self, on: bool) -> None:
        """Start or stop sending silence in real time, from the last frame on. `check_fill` sends it."""
        self._fills = on

    def check_fill(self, now_s: float) -> int:
        """Send a batch of kept audio, else the silence that is due, FILL_FRAMES at most. Returns the frames sent.

        Silence is not charged to the caller's allowance.
        """
        if not self._ready or self._kept or self._leg.is_congested:
            self._filled_s = now_s  # an AI that takes no audio misses no silence
            return self._send_kept() if self._ready else 0
        if not self._fills:
            return 0
        filled_s = max(self._filled_s, self.last_frame_s)
        due = min(int((now_s - filled_s) / PTIME_S), FILL_FRAMES)
        self._filled_s = filled_s + due * PTIME_S
        for _ in range(due):
            self._leg.send_audio(_SILENCE)
        return due

    def push(self, payload: str) -> None:
        """Send one frame, or keep it while the AI leg is not ready or congested. A concealed one is silence."""
        if self.is_concealed:
            payload = _SILENCE
        if self._ready and not self._kept and not self._leg.is_congested:
            self._leg.send_audio(payload)
            return
        self._keep(payload)
        if self._ready:
            self._send_kept()

    def _keep(self, payload: str) -> None:
        self._kept.append(payload)
        if len(self._kept) > self._bound:
            self._kept.popleft()
            self.count("ai_leg_busy" if self._ready else "ai_connecting")

    def on_ready(self) -> None:
        """Start sending: kept frames first, a batch now, and one with each later frame and each check."""
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

    def _send_kept(self) -> int:
        """Send a batch of kept audio, less if the AI leg is congested. Returns the frames sent."""
        sent = 0
        while self._kept and sent < BATCH_FRAMES and not self._leg.is_congested:
            self._leg.send_audio(self._kept.popleft())
            sent += 1
        return sent

    def on_end(self) -> None:
        """Drop and count the audio that is still kept when the call ends."""
        self.count("call_ended", len(self._kept))
        self._kept.clear()

    def count(self, reason: str, frames: int = 1) -> None:
        """Count frames that do not reach the AI."""
        if frames:
            self.dropped[reason] = self.dropped.get(reason, 0) + frames
            self._cells.by_reason[reason].add(frames)
