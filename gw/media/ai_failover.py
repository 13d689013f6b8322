"""One call's AI legs, one after the other: opened, read, replaced when they fail and before they must end.

A leg that fails is replaced within `media.ai_reconnect_s`: `gw.call.reconnect` says when, `gw.call.conversation` and `gw.call.pending_reply`
what its successor is told. What was already in playout goes on meanwhile, the caller's audio is kept by the uplink, and when
nothing is left to hear the holding sound is played, through playout like all audio. A session that nears its end gets a successor
that stands before it is needed; they change places when nobody speaks, or, at the last, whoever speaks. When no leg can be had
the call falls back (`Call.on_ai_gone`).

AI-in's greenlet opens and reads; a successor is opened by one greenlet more, which ends when it has taken its place. The watchdog
looks in by `check`. Never waits for the phone leg, never touches a leg's audio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

import gevent

from gw.call.bargein import is_playing
from gw.call.pending_reply import RETURN, ReplyRequest
from gw.call.playout import Playout
from gw.call.reconnect import Rollover, label, rollover
from gw.call.state import Reason, State
from gw.media.ai.leg import AiLeg, AiLegError
from gw.media.hub.greenlets import KindGreenlet, spawn
from gw.protocol import ai
from gw.protocol.audio import FRAME_BYTES, PTIME_MS

if TYPE_CHECKING:
    from gw.media.call import Call

log = logging.getLogger(__name__)

#: A leg that is back sooner leaves the caller in peace.
HOLD_AFTER_S: Final = 1.0
#: The holding sound is handed on in such pieces, so that little of it is left when the AI is back.
HOLD_PIECE_MS: Final = 200
#: Turns told in one slice of the hub: each is one message built, masked and sent, some 20 us.
SAY_BATCH: Final = 16
#: A caller whose words were lost is asked to repeat them unless the new session hears more within this time.
LISTEN_S: Final = 1.5
#: Nobody speaks: nothing came from the AI for so long, late transcripts included.
QUIET_S: Final = 0.7
#: A successor that could not be opened is tried again after so long.
ROLLOVER_RETRY_S: Final = 5.0
#: Playout's name for what is no response of any AI.
HOLDING: Final = "holding"

Take = Callable[[list[ai.AiEvent]], None]


class AiFailover:
    """One call's AI legs. It knows the call; the call does not know it, nor does it keep who takes the events: an ended call
    would otherwise be freed by the collector alone."""

    __slots__ = (
        "_call",
        "_created",
        "_later",
        "_lost",
        "_next",
        "_next_created",
        "_plan",
        "_roller",
        "_swap_at_s",
        "_taken",
        "ready",
    )

    def __init__(self, call: Call) -> None:
        self._call = call
        self.ready = False  # the leg in place confirmed its formats
        self._lost = ""  # what the last leg failed of, a label of gw_ai_reconnects_total, until another stands
        self._created = 0.0  # how long the session lasts, by its own word
        self._plan: Rollover | None = None
        self._later: tuple[float, str] | None = None  # ask for this then, if the caller stays silent
        self._roller: KindGreenlet | None = None
        self._next: AiLeg | None = None  # a successor that stands
        self._next_created = 0.0
        self._taken: AiLeg | None = None  # the successor that took its place
        self._swap_at_s = 0.0  # when a successor may be tried next; only after a failure

    # -- AI-in's greenlet -----------------------------------------------------------------------------------------------

    def run(self, take: Take) -> None:
        """Open and read legs until the call ends, or falls back. `take` handles their events; it calls `on_created`, and sets
        `ready`."""
        call = self._call
        holder: KindGreenlet | None = None
        call.recall()
        try:
            while not call.state.has_ended:
                try:
                    self._open(take)
                    if holder is not None:
                        holder.kill(block=False)
                        holder = None
                    self._read(take)
                except AiLegError as error:
                    if not self._on_lost(error):
                        return
                    if holder is None:
                        holder = spawn("other", self._hold)
                        call.helpers.append(holder)
                    self._replace()
        finally:
            if holder is not None:
                holder.kill(block=False)
            self._drop_next()

    def _read(self, take: Take) -> None:
        call = self._call
        while not call.state.has_ended:
            take(call.leg.read())
            if call.leg_failure is not None:
                raise AiLegError(*call.leg_failure)
            if self._next is not None and self._may_swap(monotonic()):
                self._swap(self._next)

    def _open(self, take: Take) -> None:
        """Connect and wait for the confirmation. Raises AiLegError."""
        call = self._call
        limit_s = call.context.config.media.ai_connect_s
        if self._lost:
            limit_s = max(0.05, min(limit_s, call.reconnect.left_s(monotonic())))
        with gevent.Timeout(limit_s, AiLegError(Reason.AI_TIMEOUT, f"the AI did not confirm a session within {limit_s:.2g} s")):
            call.leg.connect()
            while not self.ready and not call.state.has_ended:
                take(call.leg.read())
        if not call.state.has_ended:
            self._begin()

    def on_created(self, lifetime_s: float) -> None:
        """The session in place says how long it lasts."""
        self._created = lifetime_s

    def _begin(self) -> None:
        """A leg stands: tell it what was said, let the audio flow, ask for the pending reply."""
        call = self._call
        now_s = monotonic()
        call.reconnect.on_ready(now_s)
        self._plan = rollover(now_s, self._created)
        lost, self._lost = self._lost, ""
        self._tell_past()
        if call.state.has_ended:
            return
        call.playout.end_response(HOLDING)
        call.on_ai_ready()
        if lost:
            self._count(lost)
            log.info("another AI leg stands, %d attempts", call.reconnect.attempts, extra={"call_sid": call.sid})
        self._go_on(call.pending_reply.request())

    def _tell_past(self) -> None:
        call = self._call
        for n, utterance in enumerate(call.conversation.utterances(call.turns.in_progress())):
            if n % SAY_BATCH == SAY_BATCH - 1:
                gevent.sleep(0)
            call.leg.say(utterance.role, utterance.text)

    def _go_on(self, request: ReplyRequest | None) -> None:
        """The caller's audio flows to the leg in place, and it is asked for what the caller waits for."""
        call = self._call
        call.on_uplink()
        call.pending_reply.on_takeover()
        if not call.greeted:
            call.greeted = True
            if call.resumed is not None:
                call.ask(RETURN)
            elif call.agent.greeting:
                call.ask(call.agent.greeting)
        elif request is not None and request.unless_caller_speaks:
            self._later = (monotonic() + LISTEN_S, request.instructions)
        elif request is not None:
            call.ask(request.instructions)

    # -- a leg that failed ----------------------------------------------------------------------------------------------

    def _on_lost(self, error: AiLegError) -> bool:
        """The leg in place failed, or could not be opened. False: there is none any more, or no call."""
        call = self._call
        if call.state.has_ended:
            return False
        if call.state.now is not State.CLOSING:
            pause_s = call.reconnect.on_failure(error.reason, monotonic(), permanent=error.permanent)
            if pause_s is not None:
                log.warning(
                    "the AI leg failed, another is tried: %s", error, extra={"call_sid": call.sid, "reason": error.reason.value}
                )
                if not self._lost:
                    call.note("ai_leg_lost", reason=error.reason.value, detail=error.detail[:500])
                    call.on_ai_lost()
                self._lost = "expiring" if error.expired else label(error.reason)
                self._later = None
                call.over.wait(pause_s)
                return not call.state.has_ended
        call.playout.end_response(HOLDING)
        call.on_ai_gone(error.reason, error.detail)
        return False

    def _replace(self) -> None:
        """Put a leg that is still to be opened in place of the one that failed."""
        self._drop_next()
        self._put(self._call.context.ai_leg(self._call.agent), ready=False)

    def _put(self, leg: AiLeg, *, ready: bool) -> None:
        call = self._call
        old = call.leg
        call.take_leg(leg)
        self.ready = ready
        spawn("other", old.close)  # bounded by itself; it says goodbye to an AI that still listens

    def _hold(self) -> None:
        """While no leg stands and nothing else is left to hear: the holding sound, piece by piece."""
        call = self._call
        sound = call.context.holding
        call.over.wait(HOLD_AFTER_S)
        place, size = 0, HOLD_PIECE_MS // PTIME_MS * FRAME_BYTES
        while sound and not call.state.has_ended and call.state.now is State.CONNECTING:
            if call.queued_s(monotonic()) < HOLD_PIECE_MS / 1000 + call.lead_s and _may_hold(call.playout):
                call.playout.push(HOLDING, HOLDING, sound[place : place + size])
                place = (place + size) % len(sound)
                call.ai_out.wake()
            call.over.wait(HOLD_PIECE_MS / 2000)

    # -- a leg that nears its end ---------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """The watchdog's look at a call with a leg in place."""
        call = self._call
        if self._later is not None:
            at_s, instructions = self._later
            if not call.responses.is_idle or call.pending_reply.caller_speaks:
                self._later = None  # the caller is heard, or answered already
            elif now_s >= at_s:
                self._later = None
                call.ask(instructions)
        plan = self._plan
        if plan is None or now_s < plan.quiet_s or not self.ready:
            return
        if self._next is not None:
            if self._may_swap(now_s):
                call.leg.wake()  # AI-in changes them
        elif self._roller is None and now_s >= self._swap_at_s:
            self._roller = spawn("ai_in", self._open_next)
            call.helpers.append(self._roller)

    def _may_swap(self, now_s: float) -> bool:
        call = self._call
        if self._plan is None or call.state.now is not State.ACTIVE:
            return False
        if now_s >= self._plan.forced_s:
            return True
        quiet = call.responses.is_idle and call.pending_reply.request() is None and self._later is None
        return quiet and now_s - call.leg.heard_s > QUIET_S and not is_playing(call.playout, call.pacer, now_s)

    def _open_next(self) -> None:
        """The body of a greenlet: open a successor, and keep it alive until it is in place."""
        call = self._call
        leg = call.context.ai_leg(call.agent)
        try:
            with gevent.Timeout(call.context.config.media.ai_connect_s):
                leg.connect()
                lifetime_s = _until_ready(leg)
            self._next, self._next_created = leg, lifetime_s
            while self._next is leg and not call.state.has_ended:
                leg.read()
        except (AiLegError, gevent.Timeout) as error:
            log.warning("no AI leg to follow the one in place: %s", error, extra={"call_sid": call.sid})
            if self._next is leg:
                self._next = None
            self._swap_at_s = monotonic() + ROLLOVER_RETRY_S
        finally:
            self._roller = None
            if self._taken is not leg:
                leg.close()

    def _drop_next(self) -> None:
        """Nobody waits for the successor any more: its keeper closes it."""
        if self._next is not None:
            leg, self._next = self._next, None
            leg.wake()

    def _swap(self, leg: AiLeg) -> None:
        """Let the successor take the place of a session that nears its end."""
        call = self._call
        request = call.pending_reply.request()
        self._taken = leg
        self._drop_next()  # its keeper leaves it to us
        if self._roller is not None:
            self._roller.join(1.0)
        self._put(leg, ready=True)
        call.on_swap()
        now_s = monotonic()
        self._plan = rollover(now_s, self._next_created)
        call.reconnect.on_ready(now_s)
        self._tell_past()
        if call.state.has_ended:
            return
        self._count("expiring")
        log.info("a new AI session takes over before the old one's end", extra={"call_sid": call.sid})
        self._go_on(request)

    def _count(self, why: str) -> None:
        self._call.context.cells.reconnects[why].add()
        self._call.note("ai_leg_replaced", reason=why)


def _may_hold(playout: Playout) -> bool:
    return playout.depth_bytes < FRAME_BYTES


def lifetime_of(event: ai.SessionCreated) -> float:
    """How long a session lasts from now on; 0.0 where it does not say."""
    return max(1.0, event.expires_at - time.time()) if event.expires_at else 0.0


def _until_ready(leg: AiLeg) -> float:
    """Read until the session is confirmed. Returns how long it lasts. Raises AiLegError."""
    lifetime_s = 0.0
    while True:
        for event in leg.read():
            if isinstance(event, ai.SessionCreated):
                lifetime_s = lifetime_of(event)
            elif isinstance(event, ai.SessionReady):
                return lifetime_s
            elif isinstance(event, ai.AiError) and not event.benign:
                raise AiLegError(Reason.AI_REFUSED, f"{event.code}: {event.message}"[:500])
