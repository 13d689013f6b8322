"""Answers a worker's questions about a call that left its stream: the whisper for the callee, and the next step afterwards.

The wish is in the job that ended the stream (`gw.control.jobs.leave`), so an answer needs no memory of this process. One answer
per wish: a webhook that comes twice resumes the call once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gw import bus
from gw.call.leave import KIND, TRANSFER, Leave, encode_leave, settled_outcome
from gw.call.resume import MAX_STREAMS, NextStep
from gw.call.state import Reason
from gw.control.calls.registry import Call
from gw.control.jobs.leave import wish_of
from gw.control.jobs.lifecycle import Job
from gw.latest import Latest

#: Questions that this class answers, besides the wish of a call that returns.
ABOUT: Final = ("left", "whisper")
#: Answers, and accepted transfers, that are kept. A transfer ends its ringing within two minutes.
MAX_KEPT: Final = 2000


class LeftCalls:
    """The wishes of all calls, by their jobs."""

    def __init__(self, jobs_of: Callable[[str, str], Sequence[Job]]) -> None:
        """`jobs_of` returns the jobs of a call and a kind, the newest first; it waits for the disk, and raises GatewayError."""
        self._jobs_of = jobs_of
        self._answers: Latest[str, bus.Answer] = Latest(MAX_KEPT)
        self._accepted: Latest[str, None] = Latest(MAX_KEPT)

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        if isinstance(event, bus.CallEvent) and event.kind == "transfer_accepted":
            self._accepted[str(event.data.get("key") or "")] = None

    def answer(self, ask: bus.Ask, call: Call) -> bus.Answer:
        """Answer a question about a call that left its stream. Raises GatewayError."""
        if ask.about == "left" and (known := self._answers.get(ask.key)) is not None:
            return msgspec.structs.replace(known, n=ask.n)
        leave = wish_of(self._jobs_of(ask.call_sid, KIND), ask.key)
        if ask.about == "whisper":
            return bus.Answer(ask.n, text=leave.whisper if leave is not None else "")
        answer = self._next(ask, call, leave)
        self._answers[ask.key] = answer
        return answer

    def wish(self, call_sid: str, key: str) -> str:
        """Return the wish with this key for a worker; empty without one. Raises GatewayError."""
        leave = wish_of(self._jobs_of(call_sid, KIND), key) if key else None
        return "" if leave is None else encode_leave(leave)

    def _next(self, ask: bus.Ask, call: Call, leave: Leave | None) -> bus.Answer:
        outcome = settled_outcome(ask.outcome, leave, accepted=ask.key in self._accepted)
        target = "" if leave is None else leave.target or leave.to
        is_transfer = leave is None or leave.tool == TRANSFER
        reason = (Reason.TRANSFERRED if is_transfer else Reason.DIGITS_SENT).value
        if outcome in ("completed", "canceled") or call.resumes >= MAX_STREAMS:
            step = NextStep.HANG_UP if outcome in ("completed", "canceled") else NextStep.GOODBYE
            return bus.Answer(ask.n, step.value, call.agent, reason=reason, outcome=outcome, text=target)
        call.resumes += 1
        call.returns.add(call.resumes)
        return bus.Answer(
            ask.n,
            NextStep.RESUME.value,
            call.agent,
            call.resumes,
            call.began_at,
            reason=reason,
            outcome=outcome,
            text=target,
            is_recorded=call.is_recorded,
        )
