"""Answers a worker whose stream ended or resumed: the next step for the call, and its conversation so far.

The facts are in the registry, or else in the store, which is asked within a bound. A call with neither an end nor an owner is
lost: its worker died. If the owner reports no end, the stream is lost: Twilio asks after its end, which the worker has not
noticed. An answer that would come too late is sent without a step, and the worker continues without it. Never calls Twilio.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from typing import Final

import gevent

from gw import bus
from gw.bounded import within
from gw.call.resume import NextStep, OnLost, next_step
from gw.call.state import Reason
from gw.control.calls.left_calls import ABOUT, LeftCalls
from gw.control.calls.registry import Call, Calls
from gw.control.store import Store
from gw.errors import GatewayError

log = logging.getLogger(__name__)

#: Bounds on an answer by the question's subject, below the worker's own.
ANSWER_S: Final = {"next": 5.5, "conversation": 1.4, "variables": 0.8, "left": 3.5, "whisper": 3.5}
#: Time for an end that is on its way from the worker, and the interval between looks.
END_S: Final = 2.0
LOOK_S: Final = 0.02


class AfterStream:
    """The answers to the questions of the bus."""

    def __init__(
        self,
        store: Store,
        calls: Calls,
        *,
        on_lost: OnLost,
        check_owner: Callable[[str], None],
        on_foreign: Callable[[str], None] = lambda kind: None,
        spent_usd: Callable[[str], float] = lambda call_sid: 0.0,
        left_calls: LeftCalls | None = None,
        tools_of: Callable[[str, Container[str]], list[bus.OpenTool]] = lambda call_sid, told: [],
    ) -> None:
        """`on_lost`: the step for a lost call. `check_owner`: take the call from its owner if that is dead. `on_foreign` receives
        the kind of a webhook from another account than its call's. `spent_usd`: a call's cost so far, if in memory.
        `left_calls`: calls that left their streams on purpose. `tools_of`: the tool calls of a call, but those whose jobs are
        named; raises GatewayError."""
        self._store = store
        self._calls = calls
        self._on_lost = on_lost
        self._check_owner = check_owner
        self._on_foreign = on_foreign
        self._spent_usd = spent_usd
        self._left_calls = left_calls or LeftCalls(lambda call_sid, kind: ())
        self._tools_of = tools_of

    def answer(self, ask: bus.Ask) -> bus.Answer:
        """Answer a worker's question. The answer has no step if the store fails, or after ANSWER_S."""
        try:
            with within(ANSWER_S.get(ask.about, ANSWER_S["conversation"])):
                call = self._find(ask.call_sid)
                if call is None:
                    return bus.Answer(ask.n, step=NextStep.GOODBYE.value, reason=Reason.NO_STREAM.value)  # the worker reports it
                if self._calls.differ(call.account_sid, ask.account_sid):
                    self._on_foreign("action")
                    log.warning("another account asks about a call: %s", ask.account_sid, extra={"call_sid": ask.call_sid})
                    return bus.Answer(ask.n, step=NextStep.HANG_UP.value)
                if ask.about in ABOUT:
                    return self._left_calls.answer(ask, call)
                if ask.about == "conversation":
                    left = self._left_calls.wish(ask.call_sid, ask.key)
                    spent_usd = max(call.spent_usd, self._spent_usd(ask.call_sid))
                    utterances, tools = call.conversation.utterances(), self._open_tools(ask.call_sid, call)
                    step = NextStep.RESUME.value
                    return bus.Answer(ask.n, step=step, utterances=utterances, spent_usd=spent_usd, left=left, tools=tools)
                return self._next(ask, call)
        except GatewayError as error:
            log.warning("a worker's question is not answered: %s", error, extra={"call_sid": ask.call_sid})
            return bus.Answer(ask.n)

    def variables(self, call_sid: str) -> dict[str, str]:
        """Return the variables of a call's route. Bounded. Raises StoreError, OutOfTimeError."""
        with within(ANSWER_S["variables"]):
            call = self._find(call_sid)
            return {} if call is None else call.variables

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _next(self, ask: bus.Ask, call: Call) -> bus.Answer:
        until_s = time.monotonic() + END_S
        while not call.reason:
            self._check_owner(ask.call_sid)
            if call.is_lost:
                call.reason = Reason.WORKER_LOST.value
            elif time.monotonic() >= until_s:
                call.reason = Reason.PHONE_LOST.value
            else:
                gevent.sleep(LOOK_S)
        step = next_step(call.reason, resumes=call.failures, on_lost=self._on_lost, speak=call.speak)
        if call.transferred:
            step = NextStep.HANG_UP
        if step is NextStep.RESUME:
            call.resumes += 1
        return bus.Answer(
            ask.n, step.value, call.agent, call.resumes, call.began_at, reason=call.reason, is_recorded=call.is_recorded
        )

    def _open_tools(self, call_sid: str, call: Call) -> list[bus.OpenTool]:
        """Return the tool calls whose results the AI was not given; none if the disk fails."""
        try:
            return self._tools_of(call_sid, call.told)
        except GatewayError as error:
            log.warning("open tools of a call are not found: %s", error, extra={"call_sid": call_sid})
            return []

    def _find(self, call_sid: str) -> Call | None:
        """Return the call's facts, from the store if memory does not reach back to its beginning. None: no such call."""
        known = self._calls.get(call_sid, time.monotonic())
        if known is not None and known.whole:
            return known
        row = self._store.call(call_sid)
        now_s = time.monotonic()
        return self._calls.get(call_sid, now_s) if row is None else self._calls.on_row(call_sid, row, now_s)
