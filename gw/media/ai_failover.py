"""Replaces one call's AI legs: after a failure, and before a session's end.

A leg that fails is replaced within `media.ai_reconnect_s`: `gw.call.reconnect` decides when, `gw.call.conversation` and
`gw.call.pending_reply` give what its successor receives. The caller still hears what the playout holds, the uplink keeps the
caller's audio, and when nothing is left to hear the holding sound is played. A session near its end gets a successor that is
ready before it is needed; the two change places when neither side speaks, or at the last moment regardless. When no leg can be
had the call falls back (`CallEnding.fall_back`).

AI-in's greenlet calls every method but `check`, which the watchdog calls. Two greenlets help it: one plays the holding sound, one
opens a successor. Never waits for the phone leg.
"""

from __future__ import annotations

import logging
import random
import time
from time import monotonic
from typing import Final

from gw.bounded import OutOfTimeError, within
from gw.call.pending_reply import RETURN, ReplyRequest
from gw.call.reconnect import Reconnect, Rollover, label, rollover
from gw.call.state import Event, Reason, State
from gw.media.ai.leg import AiLeg, AiLegError
from gw.media.call import Call
from gw.media.hub.clock import turn_loop
from gw.media.hub.greenlets import KindGreenlet, spawn
from gw.protocol import ai
from gw.protocol.audio import FRAME_BYTES, PTIME_MS

log = logging.getLogger(__name__)

#: A leg that is back sooner brings no holding sound.
HOLD_AFTER_S: Final = 1.0
#: The holding sound is played in such pieces, so that little of it is left when the AI is back.
HOLD_PIECE_MS: Final = 200
#: Turns sent to a new session in one slice of the hub: each is one message built, masked and sent, some 20 us.
SAY_BATCH: Final = 16
#: A caller whose words were lost is asked to repeat them unless the new session hears more within this time.
LISTEN_S: Final = 1.5
#: Neither side speaks: the AI has sent nothing for this time, late transcripts included.
QUIET_S: Final = 0.7
#: Pause after a successor that could not be opened.
ROLLOVER_RETRY_S: Final = 5.0
#: The holding sound's response and item in the playout.
HOLDING: Final = "holding"


class AiFailover:
    """Decides which AI leg one call has. Refers to the call; the call does not refer to it, so no object cycle arises."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._reconnect = Reconnect(call.context.config.media.ai_reconnect_s, random.random)
        self._greeted = False
        self._lost = ""  # why the last leg failed, a label of gw_ai_reconnects_total, until another is ready
        self._holder: KindGreenlet | None = None  # plays the holding sound
        self._later: tuple[float, str] | None = None  # request this then, if the caller stays silent
        self.lifetime_s = 0.0  # of the current session, as it announced; 0.0: unknown
        self._rollover: Rollover | None = None
        self._opener: KindGreenlet | None = None  # opens and keeps the successor
        self._successor: AiLeg | None = None  # ready, not yet current
        self._successor_lifetime_s = 0.0
        self._taken: AiLeg | None = None  # the successor that became the current leg
        self._retry_s = 0.0  # when a successor may be tried again after a failure

    # -- a leg that opens -------------------------------------------------------------------------------------------------

    def connect_limit_s(self) -> float:
        """Seconds the current leg may take to connect and confirm its session."""
        limit_s = self._call.context.config.media.ai_connect_s
        if self._lost:
            limit_s = max(0.05, min(limit_s, self._reconnect.left_s(monotonic())))
        return limit_s

    def on_open(self) -> None:
        """Hand the conversation over to a leg that confirmed its session: history, caller audio, the pending reply."""
        call = self._call
        now_s = monotonic()
        self._reconnect.on_ready(now_s)
        self._rollover = rollover(now_s, self.lifetime_s)
        lost, self._lost = self._lost, ""
        self._send_history()
        if call.state.has_ended:
            return
        call.downlink.end_response(HOLDING)
        call.state.on_event(Event.AI_READY)
        if lost:
            self._count(lost)
            log.info("the AI leg was replaced after %d attempts", self._reconnect.attempts, extra={"call_sid": call.sid})
        self._resume_dialogue(call.ai.pending_reply.request())
        self._stop_holding()

    def _send_history(self) -> None:
        call = self._call
        for n, utterance in enumerate(call.ai.conversation.utterances(call.turns.in_progress())):
            if n % SAY_BATCH == SAY_BATCH - 1:
                turn_loop()
            call.ai.leg.say("agent" if utterance.role == "agent" else "caller", utterance.text)

    def _resume_dialogue(self, request: ReplyRequest | None) -> None:
        """Let the caller's audio flow to the current leg, and request what the caller waits for."""
        call, side = self._call, self._call.ai
        if self._greeted:
            side.session_began_ms = max(0, call.now_ms() - side.uplink.kept_ms)
        side.start_uplink()
        side.pending_reply.on_takeover()
        if not self._greeted:
            self._greeted = True
            if call.events.resumed is not None:
                side.request(RETURN)
            elif call.agent.greeting:
                side.request(call.agent.greeting)
        elif request is not None and request.unless_caller_speaks:
            self._later = (monotonic() + LISTEN_S, request.instructions)
        elif request is not None:
            side.request(request.instructions)

    # -- a ready leg ---------------------------------------------------------------------------------------------------

    def check_leg(self) -> None:
        """Act on what the watchdog found, between two reads. Raises AiLegError for a leg that is given up."""
        if self._call.ai.failure is not None:
            raise AiLegError(*self._call.ai.failure)
        if self._successor is not None and self._may_swap(monotonic()):
            self._swap(self._successor)

    def check(self, now_s: float) -> None:
        """Send a delayed request, start a rollover, or wake AI-in for one. For the watchdog, while a leg is in place."""
        call, side = self._call, self._call.ai
        if self._later is not None:
            at_s, instructions = self._later
            if not side.responses.is_idle or side.pending_reply.caller_speaks:
                self._later = None  # the caller is heard, or answered already
            elif now_s >= at_s:
                self._later = None
                side.request(instructions)
        if self._rollover is None or now_s < self._rollover.quiet_s or not side.ready:
            return
        if self._successor is not None:
            if self._may_swap(now_s):
                side.leg.wake()
        elif self._opener is None and now_s >= self._retry_s:
            self._opener = spawn("ai_in", self._open_successor)
            call.ai.greenlets.append(self._opener)

    # -- a leg that failed ------------------------------------------------------------------------------------------------

    def replace(self, error: AiLegError) -> bool:
        """Replace a failed leg by a new one, still to be opened. Waits for the pause before the attempt.

        Returns: False when the call has ended, or falls back because no attempt is left.
        """
        call = self._call
        if call.state.has_ended:
            return False
        pause_s = None
        if call.state.now is not State.CLOSING:
            pause_s = self._reconnect.on_failure(error.reason, monotonic(), permanent=error.permanent)
        if pause_s is None:
            call.downlink.end_response(HOLDING)
            call.on_session_over()
            call.ending.fall_back(error.reason, error.detail)
            return False
        log.warning("the AI leg failed, another is tried: %s", error, extra={"call_sid": call.sid, "reason": error.reason.value})
        if not self._lost:
            call.events.note("ai_leg_lost", reason=error.reason.value, detail=error.detail[:500])
            call.on_session_over()
            if call.state.now is State.ACTIVE:
                call.state.on_event(Event.AI_LOST)
        self._lost = "expiring" if error.expired else label(error.reason)
        self._later = None
        if call.ending.over.wait(pause_s):
            return False
        if self._holder is None:
            self._holder = spawn("other", self._hold)
            call.ai.greenlets.append(self._holder)
        self._drop_successor()
        call.ai.replace(call.ai.new_leg(), ready=False)
        return True

    def _hold(self) -> None:
        """Play the holding sound, piece by piece, while no leg is ready and nothing else is left to hear."""
        call, downlink = self._call, self._call.downlink
        sound, over = call.context.holding, call.ending.over
        over.wait(HOLD_AFTER_S)
        place, size = 0, HOLD_PIECE_MS // PTIME_MS * FRAME_BYTES
        while sound and not call.state.has_ended and call.state.now is State.CONNECTING:
            may_hold = downlink.playout.depth_bytes < FRAME_BYTES
            if may_hold and downlink.queued_s(monotonic()) < HOLD_PIECE_MS / 1000 + downlink.lead_s:
                downlink.play(HOLDING, HOLDING, sound[place : place + size])
                place = (place + size) % len(sound)
            over.wait(HOLD_PIECE_MS / 2000)

    def _stop_holding(self) -> None:
        if self._holder is not None:
            self._holder.kill(block=False)
            self._holder = None

    # -- a session that nears its end -------------------------------------------------------------------------------------

    def _may_swap(self, now_s: float) -> bool:
        call, side = self._call, self._call.ai
        if self._rollover is None or call.state.now is not State.ACTIVE:
            return False
        if now_s >= self._rollover.forced_s:
            return True
        is_quiet = side.responses.is_idle and side.pending_reply.request() is None and self._later is None
        return is_quiet and now_s - side.leg.heard_s > QUIET_S and not call.downlink.is_playing(now_s)

    def _open_successor(self) -> None:
        """Open a successor, and read it until it becomes the current leg. A greenlet's body."""
        call = self._call
        leg = call.ai.new_leg()
        try:
            with within(call.context.config.media.ai_connect_s):
                leg.connect()
                lifetime_s = _until_ready(leg)
            self._successor, self._successor_lifetime_s = leg, lifetime_s
            while self._successor is leg and not call.state.has_ended:
                leg.read()
        except (AiLegError, OutOfTimeError) as error:
            log.warning("no AI leg could be opened as a successor: %s", error, extra={"call_sid": call.sid})
            if self._successor is leg:
                self._successor = None
            self._retry_s = monotonic() + ROLLOVER_RETRY_S
        finally:
            self._opener = None
            if self._taken is not leg:
                leg.close()

    def _drop_successor(self) -> None:
        """Let the successor's greenlet end. It closes the leg unless the leg became the current one."""
        if self._successor is not None:
            leg, self._successor = self._successor, None
            leg.wake()

    def _swap(self, leg: AiLeg) -> None:
        """Put the successor in place of a session near its end."""
        call = self._call
        request = call.ai.pending_reply.request()
        self._taken = leg
        self._drop_successor()
        if self._opener is not None:
            self._opener.join(1.0)
        call.ai.replace(leg, ready=True)
        call.on_session_over()
        now_s = monotonic()
        self._rollover = rollover(now_s, self._successor_lifetime_s)
        self._reconnect.on_ready(now_s)
        self._send_history()
        if call.state.has_ended:
            return
        self._count("expiring")
        log.info("a new AI session takes over before the end of the old one", extra={"call_sid": call.sid})
        self._resume_dialogue(request)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the holding sound and drop the successor."""
        self._stop_holding()
        self._drop_successor()

    def _count(self, why: str) -> None:
        self._call.context.cells.reconnects[why].add()
        self._call.events.note("ai_leg_replaced", reason=why)


def lifetime_of(event: ai.SessionCreated) -> float:
    """Seconds a session lasts from now on; 0.0 when it does not say."""
    return max(1.0, event.expires_at - time.time()) if event.expires_at else 0.0


def _until_ready(leg: AiLeg) -> float:
    """Read until the session is confirmed. Returns its lifetime in seconds. Raises AiLegError."""
    lifetime_s = 0.0
    while True:
        for event in leg.read():
            if isinstance(event, ai.SessionCreated):
                lifetime_s = lifetime_of(event)
            elif isinstance(event, ai.SessionReady):
                return lifetime_s
            elif isinstance(event, ai.AiError) and (event.fatal or event.trouble):
                raise AiLegError(Reason.AI_REFUSED, f"{event.code}: {event.message}"[:500])
