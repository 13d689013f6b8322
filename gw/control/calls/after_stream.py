"""Answers a worker whose stream ended or resumed: the next step for the call, and its conversation so far.

Facts about the calls of this process's life come from the bus, and are dropped KEEP_S after a call's end. Older ones are read
from the store, within a bound. A call with neither an end nor an owner is lost: its worker died. If the owner reports no end, the
stream is lost: Twilio asks after its end, which the worker has not noticed. An answer that would come too late is sent without a
step, and the worker continues without it. Never waits in the subscriber, never calls Twilio.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import gevent

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.call.conversation import Conversation
from gw.call.resume import NextStep, OnLost, next_step
from gw.call.state import Reason
from gw.call.turns import Turn
from gw.control.rows import CallDetails
from gw.control.store import Store, StoreError

log = logging.getLogger(__name__)

#: Bounds on an answer by the question's subject, below the worker's own.
ANSWER_S: Final = {"next": 5.5, "conversation": 0.4}
#: Time for an end that is on its way from the worker, and the interval between looks.
END_S: Final = 2.0
LOOK_S: Final = 0.02
#: Twilio asks within seconds of a stream's end; a later question is answered from the store.
KEEP_S: Final = 60.0
#: Calls in memory, those that ended within KEEP_S included.
MAX_CALLS: Final = 20_000


class _Facts:
    """Facts about one call. `whole`: since its beginning."""

    __slots__ = (
        "agent",
        "answered_at",
        "began_at",
        "conversation",
        "reason",
        "resumes",
        "speak",
        "spent_usd",
        "stream_sid",
        "transferred",
        "whole",
    )

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.agent = ""
        self.began_at = 0.0
        self.conversation = Conversation()
        self.reason = ""
        self.resumes = 0
        self.speak = False
        self.spent_usd = 0.0  # by the store
        self.stream_sid = ""  # the latest stream's
        self.answered_at = 0.0  # the latest stream's
        self.transferred = False  # by REST


class AfterStream:
    """Subscriber of the bus, and the answers to its questions."""

    def __init__(
        self,
        store: Store,
        *,
        on_lost: OnLost,
        is_lost: Callable[[str], bool],
        spent_usd: Callable[[str], float] = lambda call_sid: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_lost`: the step for a lost call; `is_lost`: whether no worker owns the call; `spent_usd`: its cost so far, where
        that is in memory."""
        self._store = store
        self._on_lost = on_lost
        self._is_lost = is_lost
        self._spent_usd = spent_usd
        self._clock = clock
        self._calls: OrderedDict[str, _Facts] = OrderedDict()
        self._ended: OrderedDict[str, float] = OrderedDict()  # calls in memory by the time of their end, oldest first

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        self._drop_ended()
        match event:
            case bus.CallStarted():
                facts = self._facts(event.call_sid, whole=True)
                if event.answered_at < facts.answered_at:
                    return  # an older stream's, sent late
                facts.agent, facts.answered_at = event.agent, event.answered_at
                facts.began_at = facts.began_at or event.answered_at
                facts.reason, facts.stream_sid = "", event.stream_sid
                self._ended.pop(event.call_sid, None)
            case bus.Turn():
                facts = self._facts(event.call_sid)
                facts.conversation.add([_turn(event)])
            case bus.CallEnded():
                facts = self._facts(event.call_sid)
                if not facts.stream_sid or event.stream_sid in ("", facts.stream_sid):  # else another stream took its place
                    facts.reason, facts.speak = event.reason, event.speak
                    self._note_end(event.call_sid)
            case bus.CallEvent(kind="resumed"):
                facts = self._facts(event.call_sid)
                n = int(event.data.get("n") or 0)
                if n > facts.resumes and not facts.conversation.turns:
                    facts.whole = False  # its beginning was another process's: the store has it
                facts.resumes = max(facts.resumes, n)
            case _:
                pass

    def on_transferred(self, call_sid: str) -> None:
        """Twilio transferred the caller: the next step is to hang up."""
        facts = self._calls.get(call_sid)
        if facts is not None:
            facts.transferred = True

    def answer(self, ask: bus.Ask) -> bus.Answer:
        """Answer a worker's question. The answer has no step if the store fails, or after ANSWER_S."""
        try:
            with within(ANSWER_S.get(ask.about, ANSWER_S["conversation"])):
                facts = self._find(ask.call_sid)
                if facts is None:
                    return bus.Answer(ask.n, step=NextStep.GOODBYE.value)  # its stream was refused
                if ask.about == "conversation":
                    spent_usd = max(facts.spent_usd, self._spent_usd(ask.call_sid))
                    utterances = facts.conversation.utterances()
                    return bus.Answer(ask.n, step=NextStep.RESUME.value, utterances=utterances, spent_usd=spent_usd)
                return self._next(ask, facts)
        except (StoreError, OutOfTimeError) as error:
            log.warning("a worker's question is not answered: %s", error, extra={"call_sid": ask.call_sid})
            return bus.Answer(ask.n)

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _next(self, ask: bus.Ask, facts: _Facts) -> bus.Answer:
        until_s = time.monotonic() + END_S
        while not facts.reason:
            if self._is_lost(ask.call_sid):
                facts.reason = Reason.WORKER_LOST.value
            elif time.monotonic() >= until_s:
                facts.reason = Reason.PHONE_LOST.value
            else:
                gevent.sleep(LOOK_S)
        self._note_end(ask.call_sid)
        step = next_step(facts.reason, resumes=facts.resumes, on_lost=self._on_lost, speak=facts.speak)
        if facts.transferred:
            step = NextStep.HANG_UP
        if step is NextStep.RESUME:
            facts.resumes += 1
        return bus.Answer(ask.n, step.value, facts.agent, facts.resumes, facts.began_at, reason=facts.reason)

    def _facts(self, call_sid: str, *, whole: bool = False) -> _Facts:
        return self._calls.get(call_sid) or self._add(call_sid, whole=whole)

    def _add(self, call_sid: str, *, whole: bool) -> _Facts:
        facts = self._calls[call_sid] = _Facts(whole=whole)
        while len(self._calls) > MAX_CALLS:
            oldest, _ = self._calls.popitem(last=False)
            self._ended.pop(oldest, None)
        return facts

    def _note_end(self, call_sid: str) -> None:
        if call_sid in self._calls:
            self._ended[call_sid] = self._clock()
            self._ended.move_to_end(call_sid)

    def _drop_ended(self) -> None:
        """Drop the facts of calls that ended KEEP_S ago."""
        before_s = self._clock() - KEEP_S
        while self._ended and next(iter(self._ended.values())) <= before_s:
            call_sid, _ = self._ended.popitem(last=False)
            self._calls.pop(call_sid, None)

    def _find(self, call_sid: str) -> _Facts | None:
        """The call's facts, from the store if memory does not reach back to its beginning. None: no such call."""
        known = self._calls.get(call_sid)
        if known is not None and known.whole:
            return known
        row = self._store.call(call_sid)
        later = self._calls.get(call_sid)  # events that came during the read count too
        if row is None or (later is not None and later.whole):
            return later
        facts = self._add(call_sid, whole=True)
        _fill(facts, row)
        if later is not None:
            stored = {turn.n for turn in row.turns}
            facts.conversation.add(turn for turn in later.conversation.turns if turn.n not in stored)
            if later.reason or later.stream_sid:  # a stream that started since has not ended, whatever the row says
                facts.reason, facts.speak = later.reason, later.speak
            facts.stream_sid, facts.answered_at = later.stream_sid, later.answered_at
            facts.resumes = max(facts.resumes, later.resumes)
            facts.transferred = later.transferred
        if facts.reason:
            self._note_end(call_sid)
        return facts


def _fill(facts: _Facts, row: CallDetails) -> None:
    facts.agent = row.agent or ""
    facts.began_at = row.answered_at or 0.0
    back = [event.at for event in row.events if event.kind == "resumed"]
    if row.ended_at is not None and row.ended_at > max(back, default=0.0):
        facts.reason = row.reason or ""
    facts.conversation.add(
        Turn(turn.n, turn.role, turn.text, turn.item_id or "", turn.start_ms, turn.interrupted, turn.heard_ms)
        for turn in row.turns
    )
    facts.resumes = len(back)
    facts.spent_usd = row.cost_usd or 0.0


def _turn(event: bus.Turn) -> Turn:
    return Turn(
        event.n, event.role, event.text, event.item_id, event.start_ms, event.interrupted, event.heard_ms, event.length_ms
    )
