"""One call's end: one reason, written once, and what Twilio still owes the caller.

The dialogue decides when a call ends and whether the caller heard words; `end` carries it out. Never waits and closes nothing:
the session does (`gw.media.session`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from time import monotonic
from typing import Final

from gevent.event import Event as EndEvent

from gw.call.state import BY_OPERATOR, CallState, Reason, Result, result_of
from gw.config import Agent
from gw.media.call_events import CallEvents
from gw.media.hub.greenlets import KindGreenlet
from gw.media.shared.context import MediaContext

log = logging.getLogger(__name__)

#: The time control has to transfer a caller by REST. After it the stream is closed, and Twilio asks for the next step.
TRANSFER_S: Final = 6.0


class CallEnding:
    """One call's end."""

    def __init__(
        self,
        context: MediaContext,
        state: CallState,
        agent_name: str,
        agent: Agent,
        events: CallEvents,
        wake: Callable[[], None],
    ) -> None:
        """`wake` makes RX look at the state."""
        self._context = context
        self._state = state
        self._agent_name = agent_name
        self._agent = agent
        self._events = events
        self._wake = wake
        self._until_s: float | None = None  # the bound of a transfer that was requested
        self._stop_until_s = 0.0  # until then Twilio's `stop` is an operator's transfer
        self.is_transferred = False  # by an operator
        self.had_dead_air = False  # the caller waited too long in silence for an answer
        self.over = EndEvent()  # set by `end`
        self.ended_s = 0.0  # monotonic; the report leaves out everything later
        self.ended_at = 0.0
        self.silent_s = 0.0  # how long ago Twilio left the stream, which another may have followed
        self.detail = ""
        self.speak = False  # Twilio owes the caller words

    def fall_back(self, cause: Reason, detail: str, *, then: Reason | None = None, speak: bool) -> None:
        """End a call that has no AI any more: by a transfer or a goodbye where the agent has one, for `cause` otherwise.

        `then`: what ended the stream during the last words.
        """
        if then is not None:
            detail = f"{detail}; then {then.value}"
        why = f"{cause.value}: {detail}" if detail else cause.value
        if self._agent.fallback == "transfer":
            self.detail = why
            if speak and then is None and self._context.config.signed:
                self._until_s = monotonic() + TRANSFER_S
                self._events.note("transfer_wanted", to=self._agent.transfer_to, account=self._events.account_sid)
                return  # Twilio's `stop` ends the call; without it the action webhook transfers the caller
            self.end(Reason.FALLBACK_TRANSFER, why)
        elif self._agent.goodbye:
            self.end(Reason.FALLBACK_GOODBYE, why, speak=speak)
        else:
            self.end(cause, detail, speak=speak)

    def check(self, now_s: float) -> None:
        """End a call whose transfer by REST did not come."""
        if self._until_s is not None and now_s > self._until_s:
            self.end(Reason.FALLBACK_TRANSFER, self.detail)

    def expect_stop(self, for_s: float) -> None:
        """Take Twilio's `stop` within this time for an operator's transfer."""
        self._stop_until_s = monotonic() + for_s

    def end(self, reason: Reason, detail: str = "", *, speak: bool = True) -> None:
        """End now. Idempotent; never waits; RX wakes and closes.

        A call that waits for its transfer keeps that reason, unless the gateway itself fails. `speak`: Twilio still owes the
        caller words.
        """
        if self._until_s is not None and result_of(reason) is not Result.OWN_ERROR:
            detail = self.detail if reason is Reason.FALLBACK_TRANSFER else f"{self.detail}; then {reason.value}"
            reason = Reason.FALLBACK_TRANSFER
        if reason is Reason.CALLER_HANGUP and monotonic() < self._stop_until_s:  # Twilio's `stop` is the same for both
            reason, detail, self.is_transferred = Reason.TRANSFERRED, BY_OPERATOR, True
        if not self._state.end(reason):
            return
        self.ended_s, self.ended_at = monotonic(), time.time() - self.silent_s
        self.detail = detail
        self.speak = speak
        self._context.keep_ending(self._events.sid, reason, self._agent_name, self.speak, self._events.account_sid)
        self.over.set()
        self._wake()

    def on_crash(self, greenlet: KindGreenlet) -> None:
        """End this call, and no other, when one of its greenlets failed."""
        error, kind = greenlet.exception, greenlet.kind
        extra = {"call_sid": self._events.sid, "reason": Reason.INTERNAL_ERROR.value}
        log.error("%s failed", kind, exc_info=error, extra=extra)
        self.end(Reason.INTERNAL_ERROR, f"{kind}: {type(error).__name__}: {error}"[:500])

    @property
    def result(self) -> Result:
        """Responsibility for the end: no call whose caller waited in silence is a success."""
        result = result_of(self._state.reason or Reason.INTERNAL_ERROR)
        return Result.PEER_ERROR if self.had_dead_air and result is Result.SUCCESS else result
