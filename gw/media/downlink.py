"""One call's outgoing side: all that the caller hears passes here.

AI-in pushes audio into the playout, AI-out cuts frames from it into TX's queue, TX sends them as the pacer times them. The pacer
and Twilio's mark echoes give how far the caller has heard. An interruption empties all of it in one turn, without a switch. Until
an interruption is judged TX can be held: nothing is discarded, and `release` continues at the next frame.

    AI leg -> AI-in -> playout -> AI-out -> TX's queue -> TX -> transport -> Twilio
"""

from __future__ import annotations

from typing import Final

from gw.call.audio import bargein
from gw.call.audio.bargein import Interruption
from gw.call.audio.pacer import Pacer
from gw.call.audio.playout import HOLDING, Playout
from gw.call.dialogue.commands import Verdict
from gw.call.guard import RecordingGuard
from gw.media.ai_out import AiOut
from gw.media.call_events import CallEvents
from gw.media.shared.context import MediaContext
from gw.media.transport.plain import Transport
from gw.media.tx import Tx
from gw.protocol.audio import FRAME_BYTES, PTIME_MS, PTIME_S
from gw.protocol.twilio import build_clear
from gw.protocol.websocket.frames import text_message

_MS: Final = 1000.0


class Downlink:
    """One call's playout, AI-out and TX, and the account of what was heard."""

    def __init__(
        self, context: MediaContext, stream_sid: str, transport: Transport, events: CallEvents, *, guard: RecordingGuard
    ) -> None:
        media = context.config.media
        self._cells = context.cells
        self._stream_sid = stream_sid
        self._transport = transport
        self.pacer = Pacer(media.lead_ms)
        self.playout = Playout(int(media.playout_s * _MS) // PTIME_MS)
        self.tx = Tx(transport, self.pacer, self.playout, context.clock, context.tx_cells)
        self.guard = guard
        self.ai_out = AiOut(
            stream_sid,
            self.tx,
            self.playout,
            guard,
            lead_ms=media.lead_ms,
            pool_has_room=events.pool_has_room,
            on_record=events.on_record,
            on_first_audio=events.on_first_audio,
        )
        self.interruptions = 0
        self.bargein_dropped = 0  # frames

    def play(self, response_id: str, item_id: str, audio: bytes) -> None:
        """Queue audio for the caller. Over the playout's bound the oldest frames are dropped and counted."""
        dropped = self.playout.push(response_id, item_id, audio)
        if dropped:
            self._cells.dropped["overrun"].add(dropped)
        self.ai_out.wake()

    def end_response(self, response_id: str) -> None:
        """Mark the end of a response: no more audio of it comes."""
        self.playout.end_response(response_id)
        self.ai_out.wake()

    def end_open_response(self) -> None:
        """The same for a response whose AI session is gone."""
        self.playout.end_open_response()
        self.ai_out.wake()

    def hold(self) -> None:
        """Pause: nothing leaves from now on, and the caller hears silence after the lead. Idempotent."""
        self.tx.hold()

    def release(self) -> None:
        """End a hold: the next frame leaves now. Does nothing without a hold."""
        self.tx.release()

    def interrupt(self, now_s: float, verdict: Verdict = "model") -> Interruption | None:
        """Cut what the caller has not heard: playout, TX's queue, and by `clear` what Twilio holds. Ends a hold.

        Returns: what was cut, without the holding sound's item; None when nothing was left to hear.
        """
        self.tx.release()
        cut = bargein.cut(self.playout, self.pacer, now_s)
        if cut is not None:
            self.interruptions += 1
            self.tx.discard()
            self._transport.write(text_message(build_clear(self._stream_sid)))
            self._cells.interruptions[verdict].add()
            self._cells.dropped["bargein"].add(cut.dropped_frames)
            self.bargein_dropped += cut.dropped_frames
            cut = cut._replace(outcomes=[item for item in cut.outcomes if item.item_id != HOLDING])
        return cut

    def on_mark_echo(self, name: str, now_s: float) -> int | None:
        """Note that Twilio played everything before a mark. Returns the frames heard; None for a mark that a clear returned."""
        frames = self.playout.on_mark_echo(name)
        if frames is not None:
            self.pacer.on_echo(frames, now_s)
        return frames

    def is_playing(self, now_s: float) -> bool:
        """Return whether the caller hears the agent now, or will hear queued audio."""
        return bargein.is_playing(self.playout, self.pacer, now_s)

    def is_heard_out(self, now_s: float) -> bool:
        """Return whether the caller has heard everything: nothing is queued here or at Twilio."""
        return not self.playout.marks_pending and self.playout.is_empty and not self.is_playing(now_s)

    def is_starved(self, now_s: float) -> bool:
        """Return whether every whole frame that came was heard."""
        return not self.tx.held and self.unsent_s() <= 0.0 and now_s >= self.pacer.heard_out_s() - self.pacer.echo_delay_s

    def unsent_s(self) -> float:
        """Seconds of audio received and not sent."""
        return (self.playout.depth_bytes // FRAME_BYTES + self.playout.cut_frames - self.pacer.sent_frames) * PTIME_S

    @property
    def next_frame(self) -> int:
        """Number, within this generation, of the first frame of audio that is queued now."""
        return self.playout.cut_frames - (-self.playout.depth_bytes // FRAME_BYTES)

    def queued_s(self, now_s: float) -> float:
        """Seconds until the caller has heard all that is queued, a hold left aside."""
        return max(0.0, self.pacer.heard_out_s() - now_s) + self.unsent_s()

    def stop(self) -> None:
        """Let AI-out and TX end at their next turn."""
        self.tx.stop()
        self.ai_out.stop()
