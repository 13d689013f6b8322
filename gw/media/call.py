"""One call: its two legs, its pure parts, and the one way it ends.

The four greenlets (RX, AI-in, AI-out, TX) share this object; whatever it does, it does in one turn without a switch, so they need
no lock. `end` is idempotent: the first reason stands. `finish` lets the caller hear what is queued, then ends, with a bound.
Closing sockets and joining greenlets is the session's (`gw.media.session`), never TX's.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from gevent.event import Event as Ended

from gw.call.bargein import BargeIn, is_playing
from gw.call.conversation import Conversation
from gw.call.guard import RecordingGuard
from gw.call.pacer import Pacer
from gw.call.pending_reply import PendingReply
from gw.call.playout import Playout
from gw.call.reconnect import Reconnect
from gw.call.responses import Responses
from gw.call.resume import TURNS_PER_STREAM, parse_resumed
from gw.call.state import CallState, Event, Reason, Result, State, result_of
from gw.call.turns import Turn, Turns
from gw.config import Agent
from gw.media.ai.leg import AiLeg
from gw.media.ai.watchdog import Problem, Watchdog
from gw.media.ai_out import AiOut
from gw.media.call_events import CallEvents
from gw.media.context import MediaContext
from gw.media.hub.greenlets import KindGreenlet
from gw.media.transport.plain import Transport
from gw.media.tx import Tx
from gw.media.uplink import Uplink
from gw.protocol.audio import FRAME_BYTES, PTIME_MS
from gw.protocol.frames import text_message
from gw.protocol.twilio import Start, build_clear

log = logging.getLogger(__name__)

_MS: Final = 1000.0
#: Items of one AI session that may be cut short: those of the last responses.
MAX_ITEMS: Final = 64
#: Keys kept for an AI that is being reached.
MAX_KEYS: Final = 32
#: Greenlets that open and close AI legs: they end by themselves, these are the ones looked after at the end of the call.
MAX_HELPERS: Final = 16
#: How long control may take to transfer a caller by REST before the stream is closed, which makes Twilio ask what is next.
TRANSFER_S: Final = 6.0


class Call:
    """A call from Twilio's `start` to its end."""

    def __init__(
        self,
        context: MediaContext,
        state: CallState,
        start: Start,
        agent_name: str,
        agent: Agent,
        transport: Transport,
        *,
        voice_at: float | None,
        wake: Callable[[], None],
    ) -> None:
        """`voice_at`: when the voice webhook was answered, epoch seconds; `wake` makes RX look at the state."""
        config = context.config
        self.context = context
        self.state = state
        self.sid = start.call_sid
        self.stream_sid = start.stream_sid
        self.agent_name = agent_name
        self.agent = agent
        self.transport = transport
        self._wake = wake
        self.started_s = self.last_voice_s = monotonic()
        self.started_at = time.time()
        self.ended_s = 0.0  # when `end` was called: what happens to the greenlets after it is no part of the call
        self.ended_at = 0.0
        self.detail = ""
        self.pacer = Pacer(config.media.lead_ms)
        self.playout = Playout(int(config.media.playout_s * _MS) // PTIME_MS)
        self.tx = Tx(transport, self.pacer, self.playout, context.clock, context.tx_cells)
        self.events = CallEvents(context, start, self.tx, started_s=self.started_s, started_at=self.started_at)
        self.guard = RecordingGuard(enabled=config.recording.enabled)
        self.ai_out = AiOut(
            start.stream_sid,
            self.tx,
            self.playout,
            self.guard,
            lead_ms=config.media.lead_ms,
            pool_has_room=self.events.pool_has_room,
            on_record=self.events.on_record,
            on_first_audio=self.events.on_first_audio,
        )
        self.lead_s = config.media.lead_ms / _MS
        self.leg = context.ai_leg(agent)
        self.watch = Watchdog(config.media.ai_stall_s)
        self.leg_failure: Problem | None = None  # what the watchdog found: AI-in takes it from here
        self.helpers: deque[KindGreenlet] = deque(maxlen=MAX_HELPERS)
        self.over = Ended()  # set when the call is
        self.reconnect = Reconnect(config.media.ai_reconnect_s, random.random)
        self.pending_reply = PendingReply()
        self.conversation = Conversation()
        self.greeted = False
        self._items: deque[str] = deque(maxlen=MAX_ITEMS)  # what it said: what it can be told to truncate
        self._keys: list[str] = []  # pressed while no AI leg stood
        self._handed_on = False
        self.uplink = Uplink(self.leg, config.media.ai_connect_s, context.uplink_cells)
        self.responses = Responses()
        self.bargein = BargeIn()
        self.resumed = parse_resumed(start.parameters, self.started_at)
        self._before_ms = round((self.started_at - self.resumed.began_at) * _MS) if self.resumed else 0
        self.session_began_ms = self._before_ms  # when the AI session in place began to hear the caller
        self.turns = Turns(self.resumed.n * TURNS_PER_STREAM if self.resumed else 0)
        self.last_ai_s = 0.0  # the AI's last event of a response under way
        self.asked_s = 0.0  # when the first response was asked for
        self.ai_first_audio_ms = -1
        self.bargein_dropped = 0
        self._closing_reason = Reason.AI_HANGUP
        self._closing_until_s = 0.0
        self.events.on_start(start, agent_name, voice_at)

    def recall(self) -> None:
        """Before the first AI leg of a call that came back: what was said until then. Waits for control, for a moment."""
        if self.resumed is None:
            return
        self.note("resumed", n=self.resumed.n)
        log.warning("the call comes back after its worker died", extra={"call_sid": self.sid})
        answer = self.context.ask(self.sid, "conversation")
        if answer is not None:
            self.conversation.resume_from(answer.utterances)

    # -- what is told ---------------------------------------------------------------------------------------------------

    def note(self, kind: str, **data: str | int | float | bool | None) -> None:
        """Keep something of this call in the events table."""
        self.events.note(kind, **data)

    def report_turns(self, turns: list[Turn]) -> None:
        """Keep turns that are whole."""
        self.conversation.add(turns)
        self.events.report_turns(turns)

    def now_ms(self) -> int:
        """Milliseconds since the call's first stream started."""
        return self._before_ms + int((monotonic() - self.started_s) * _MS)

    # -- what is heard --------------------------------------------------------------------------------------------------

    def on_speech_started(self, item_id: str, audio_start_ms: int) -> None:
        """The caller began to talk: cut what of the agent is still to be heard, in this one turn."""
        begun_s = self.last_voice_s = monotonic()
        self.pending_reply.on_caller_started(item_id)
        self.turns.on_caller_speech(item_id, audio_start_ms)
        cut = self.bargein.on_speech_started(self.playout, self.pacer, begun_s, self.responses.active_id)
        if cut is None:
            return
        self.tx.discard()
        self.transport.write(text_message(build_clear(self.stream_sid)))
        for item_id, heard_ms in cut.truncations:
            if item_id in self._items:
                self.leg.truncate(item_id, heard_ms)
        self.context.cells.bargein.observe(monotonic() - begun_s)
        self.context.cells.dropped["bargein"].add(cut.dropped_frames)
        self.bargein_dropped += cut.dropped_frames
        self.report_turns(self.turns.on_interrupted(cut.truncations))

    def on_mark_echo(self, name: str) -> None:
        """Twilio played everything before this mark, or gave it back after a clear."""
        frames = self.playout.on_mark_echo(name)
        if frames is None:
            return
        now_s = self.last_voice_s = monotonic()
        self.pacer.on_echo(frames, now_s)
        unheard = {item_id for item_id, _ in self.playout.unheard(frames)}
        for item_id in self.turns.unresolved_items():
            if item_id not in unheard:
                self.report_turns(self.turns.on_heard(item_id, self.playout.heard_ms(item_id, frames)))
        if self.state.now is State.CLOSING and self._all_heard(now_s):
            self._on_heard_out(now_s)

    def _all_heard(self, now_s: float) -> bool:
        """Nothing of the agent is under way: not at the AI, not here, not at Twilio."""
        if not self.responses.is_idle or self.playout.marks_pending or not self.playout.is_empty:
            return False
        return not is_playing(self.playout, self.pacer, now_s)

    # -- the AI's legs ------------------------------------------------------------------------------------------------------

    def ask(self, instructions: str, *, insist: bool = False) -> None:
        """Ask the AI for a response, now or after the one under way."""
        if self.responses.request(insist=insist):
            self.last_ai_s = monotonic()
            self.asked_s = self.asked_s or self.last_ai_s
            self.pending_reply.on_requested(instructions)
            self.leg.create_response(instructions)

    def item_came(self, item_id: str) -> None:
        """Audio of this item came from the session in place."""
        if not self._items or self._items[-1] != item_id:
            self._items.append(item_id)

    def on_key(self, digit: str) -> None:
        """The caller pressed a key."""
        if self.state.now is State.ACTIVE:
            self.leg.send_dtmf(digit)
        elif self.state.now is State.CONNECTING and len(self._keys) < MAX_KEYS:
            self._keys.append(digit)

    def on_ai_ready(self) -> None:
        """The AI leg confirmed its formats."""
        self._move(Event.AI_READY)

    def on_uplink(self) -> None:
        """The session in place hears the caller from here on; what was kept goes first."""
        if self.greeted:
            self.session_began_ms = max(0, self.now_ms() - self.uplink.kept_ms)
        self.uplink.on_ready()
        for digit in self._keys:
            self.leg.send_dtmf(digit)
        self._keys.clear()

    def fail_leg(self, reason: Reason, detail: str) -> None:
        """The leg in place is as good as gone: AI-in learns it at once."""
        self.leg_failure = (reason, detail)
        self.leg.wake()

    def on_ai_lost(self) -> None:
        """The leg in place failed and another is tried: what was said so far is whole, what was asked for will not come."""
        self.on_swap()
        if self.state.now is State.ACTIVE:
            self._move(Event.AI_LOST)

    def on_swap(self) -> None:
        """Nothing more comes of the session that was in place."""
        self.playout.end_open_response()
        self.responses.on_lost()
        self.report_turns(self.turns.on_ai_lost())
        self.ai_out.wake()

    def take_leg(self, leg: AiLeg) -> None:
        """`leg` takes the place of the one before it; the caller's audio is kept until it is ready."""
        self.leg = leg
        self.leg_failure = None
        self.uplink.on_lost(leg)
        self._items.clear()
        self.watch = Watchdog(self.context.config.media.ai_stall_s)

    def queued_s(self, now_s: float) -> float:
        """How long the caller still hears what there is."""
        queued_s = (self.playout.depth_bytes // FRAME_BYTES + len(self.tx.queue)) * PTIME_MS / _MS
        return max(0.0, self.pacer.heard_out_s() - now_s) + queued_s

    # -- the end --------------------------------------------------------------------------------------------------------

    def on_ai_gone(self, reason: Reason, detail: str) -> None:
        """The AI is gone for good: what it has said is still heard, then the caller is helped on as configured."""
        self.on_swap()
        if self.agent.fallback == "transfer":
            reason, detail = Reason.FALLBACK_TRANSFER, f"{reason.value}: {detail}"
        elif self.agent.goodbye:
            reason, detail = Reason.FALLBACK_GOODBYE, f"{reason.value}: {detail}"
        self.finish(reason, detail)

    def finish(self, reason: Reason, detail: str = "") -> None:
        """End for `reason` once the caller has heard what is queued; bounded by that and `media.goodbye_s`."""
        if self.state.now not in (State.ACTIVE, State.CONNECTING):
            if self.state.now is not State.CLOSING:
                self.end(reason, detail)
            return
        self._move(Event.HANG_UP)
        self._closing_reason, self.detail = reason, detail
        self.bound_closing()
        if self._all_heard(monotonic()):
            self._on_heard_out(monotonic())

    def _on_heard_out(self, now_s: float) -> None:
        """Nothing is left to hear, or it takes too long: end. A caller to be transferred is control's first, for a moment."""
        if self._closing_reason is Reason.FALLBACK_TRANSFER and self.context.config.signed:
            if not self._handed_on:
                self._handed_on = True
                self._closing_until_s = now_s + TRANSFER_S
                self.note("transfer_wanted", to=self.agent.transfer_to)
            if now_s < self._closing_until_s:
                return  # Twilio's `stop` ends the call; without it the action webhook transfers it
        self.end(self._closing_reason, self.detail)

    def bound_closing(self) -> None:
        """How long the goodbye may take: what there is of it now, and `media.goodbye_s`. Asked again when more of it comes."""
        now_s = monotonic()
        self._closing_until_s = now_s + self.queued_s(now_s) + self.context.config.media.goodbye_s

    def end(self, reason: Reason, detail: str = "") -> None:
        """End now. The first reason stands, also that of an AI that failed while it is still heard; RX wakes and closes. Never
        waits."""
        before = self.state.now
        if (
            before is State.CLOSING
            and result_of(self._closing_reason) is Result.PEER_ERROR
            and result_of(reason) is not Result.OWN_ERROR
        ):
            if reason is not self._closing_reason:  # the AI had failed already; whoever ends what is left of the call is no news
                detail = f"{self.detail}; then {reason.value}"
            reason = self._closing_reason
        if not self.state.end(reason):
            return
        self.context.cells.alive[before].add(-1)
        self.ended_s, self.ended_at = monotonic(), time.time()
        self.detail = detail
        self.context.keep_ending(self.sid, reason, self.agent_name)
        self.over.set()
        self._wake()

    def _move(self, event: Event) -> None:
        before = self.state.now
        after = self.state.on_event(event)
        self.context.cells.alive[before].add(-1)
        self.context.cells.alive[after].add(1)

    def check(self, now_s: float) -> None:
        """The watchdog's look, several times a second: every wait of this call is bounded here or by a timeout of its own."""
        media = self.context.config.media
        if is_playing(self.playout, self.pacer, now_s):
            self.last_voice_s = now_s
        if now_s - self.started_s > media.max_call_s:
            self.end(Reason.DURATION_LIMIT, f"the call lasted {media.max_call_s:.0f} s")
        elif now_s - self.last_voice_s > media.idle_limit_s:
            self.end(Reason.IDLE_LIMIT, f"nobody spoke for {media.idle_limit_s:.0f} s")
        elif self.state.now is State.CLOSING:
            if self._all_heard(now_s) or now_s > self._closing_until_s:
                self._on_heard_out(now_s)
        elif self.state.now is State.ACTIVE:
            waits = not self.responses.is_idle
            found = self.watch.look(self.leg, now_s, self.last_ai_s if waits else None)
            if found is not None:
                self.fail_leg(*found)
