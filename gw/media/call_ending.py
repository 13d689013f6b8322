"""One call's end: the limits, the goodbye that is still heard, and the one `end`.

`finish` ends a call once the caller has heard what is queued, within a bound; `end` ends it now. The first reason is kept, also
that of an AI that failed while its last words are still heard. Never waits and closes nothing: the session does
(`gw.media.session`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic
from typing import Final

from gevent.event import Event as EndEvent

from gw.call.responses import Responses
from gw.call.state import CallState, Event, Reason, Result, State, result_of
from gw.config import Agent
from gw.media.call_events import CallEvents
from gw.media.context import MediaContext
from gw.media.downlink import Downlink

#: The time control has to transfer a caller by REST. After it the stream is closed, and Twilio asks for the next step.
TRANSFER_S: Final = 6.0


class CallEnding:
    """One call's limits and its end."""

    def __init__(
        self,
        context: MediaContext,
        state: CallState,
        agent_name: str,
        agent: Agent,
        events: CallEvents,
        downlink: Downlink,
        responses: Responses,
        wake: Callable[[], None],
    ) -> None:
        """`wake` makes RX look at the state."""
        self._context = context
        self._state = state
        self._agent_name = agent_name
        self._agent = agent
        self._events = events
        self._downlink = downlink
        self._responses = responses
        self._wake = wake
        self._reason = Reason.AI_HANGUP  # of a call that is closing
        self._until_s = 0.0  # the bound of its goodbye
        self._transfer_requested = False
        self.last_voice_s = events.started_s  # either side's
        self.over = EndEvent()  # set by `end`
        self.ended_s = 0.0  # monotonic; the report leaves out everything later
        self.ended_at = 0.0
        self.detail = ""
        self.speak = False  # Twilio owes the caller words

    def on_voice(self) -> None:
        """Restart the idle limit after speech of either side, or a key."""
        self.last_voice_s = monotonic()

    def finish(self, reason: Reason, detail: str = "") -> None:
        """End once the caller has heard all queued audio, bounded by `media.goodbye_s` after that."""
        if self._state.now not in (State.ACTIVE, State.CONNECTING):
            if self._state.now is not State.CLOSING:
                self.end(reason, detail)
            return
        self._state.on_event(Event.HANG_UP)
        self._reason, self.detail = reason, detail
        self.extend_goodbye()
        self.on_heard(monotonic())

    def fall_back(self, reason: Reason, detail: str) -> None:
        """End a call that has no AI any more: by a transfer or a goodbye where the agent has one, for `reason` otherwise."""
        if self._agent.fallback == "transfer":
            reason, detail = Reason.FALLBACK_TRANSFER, f"{reason.value}: {detail}"
        elif self._agent.goodbye:
            reason, detail = Reason.FALLBACK_GOODBYE, f"{reason.value}: {detail}"
        self.finish(reason, detail)

    def extend_goodbye(self) -> None:
        """Bound a closing call by what is queued now and `media.goodbye_s`. Called again when more audio comes."""
        now_s = monotonic()
        self._until_s = now_s + self._downlink.queued_s(now_s) + self._context.config.media.goodbye_s

    def on_heard(self, now_s: float) -> None:
        """End a closing call when the caller has heard everything."""
        if self._state.now is State.CLOSING and self._responses.is_idle and self._downlink.is_heard_out(now_s):
            self._close(now_s)

    def _close(self, now_s: float) -> None:
        """End a closing call. A transfer is first requested from control, which gets TRANSFER_S for it."""
        if self._reason is Reason.FALLBACK_TRANSFER and self._context.config.signed:
            if not self._transfer_requested:
                self._transfer_requested = True
                self._until_s = now_s + TRANSFER_S
                self._events.note("transfer_wanted", to=self._agent.transfer_to)
            if now_s < self._until_s:
                return  # Twilio's `stop` ends the call; without it the action webhook transfers the caller
        self.end(self._reason, self.detail)

    def end(self, reason: Reason, detail: str = "") -> None:
        """End now. Idempotent; never waits; RX wakes and closes.

        A closing call whose AI failed keeps that reason, unless the gateway itself fails.
        """
        if (
            self._state.now is State.CLOSING
            and result_of(self._reason) is Result.PEER_ERROR
            and result_of(reason) is not Result.OWN_ERROR
        ):
            if reason is not self._reason:
                detail = f"{self.detail}; then {reason.value}"
            reason = self._reason
        if not self._state.end(reason):
            return
        self.ended_s, self.ended_at = monotonic(), time.time()
        self.detail = detail
        self.speak = reason not in (Reason.CALLER_HANGUP, Reason.AI_HANGUP)
        self._context.keep_ending(self._events.sid, reason, self._agent_name, self.speak)
        self.over.set()
        self._wake()

    def check(self, now_s: float) -> None:
        """Apply the limits: duration, idle time, and the goodbye's bound."""
        media = self._context.config.media
        if self._downlink.is_playing(now_s):
            self.last_voice_s = now_s
        if now_s - self._events.started_s > media.max_call_s:
            self.end(Reason.DURATION_LIMIT, f"the call lasted {media.max_call_s:.0f} s")
        elif now_s - self.last_voice_s > media.idle_limit_s:
            self.end(Reason.IDLE_LIMIT, f"neither side spoke for {media.idle_limit_s:.0f} s")
        elif self._state.now is State.CLOSING and now_s > self._until_s:
            self._close(now_s)
        else:
            self.on_heard(now_s)
