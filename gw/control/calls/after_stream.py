"""What a worker asks when a stream is over or comes back: what Twilio is to do with the call, and what was said in it so far.

Knows the calls of this life from the bus, with their last turns and their ends; what it does not know, because control itself was
replaced, it reads from the store, within a bound. A call that has neither ended nor an owner is lost: its worker died with it. An
answer that would come too late is not given; the worker goes without. Never waits in the subscriber, never talks to Twilio.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import gevent

from gw import bus
from gw.call.conversation import Conversation
from gw.call.resume import OnLost, Step, next_step
from gw.call.state import Reason
from gw.call.turns import Turn
from gw.control.rows import CallDetails
from gw.control.store import Store, StoreError

log = logging.getLogger(__name__)

#: Below what a worker waits, by what it asks about.
ANSWER_S: Final = {"next": 5.5, "conversation": 0.4}
#: How long an end that is on its way is waited for, and how often it is looked for.
END_S: Final = 0.3
LOOK_S: Final = 0.02
#: Calls remembered, those that ended included: Twilio asks within a moment of a stream's end.
MAX_KNOWN: Final = 20_000


class _Known:
    """What is known of one call. `whole`: from its beginning."""

    __slots__ = ("agent", "began_at", "conversation", "handed_on", "reason", "resumes", "whole")

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.agent = ""
        self.began_at = 0.0
        self.conversation = Conversation()
        self.reason = ""
        self.resumes = 0
        self.handed_on = False  # transferred by REST


class AfterStream:
    """A subscriber of the bus, and the answers to its questions."""

    def __init__(self, store: Store, *, on_lost: OnLost, is_lost: Callable[[str], bool]) -> None:
        """`is_lost`: whether no worker has this call any more."""
        self._store = store
        self._on_lost = on_lost
        self._is_lost = is_lost
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def on_event(self, event: bus.Event) -> None:
        """A subscriber: returns at once."""
        match event:
            case bus.CallStarted():
                known = self._known.get(event.call_sid) or self._add(event.call_sid, whole=True)
                known.agent = event.agent
                known.began_at = known.began_at or event.answered_at
                known.reason = ""
            case bus.Turn():
                known = self._known.get(event.call_sid) or self._add(event.call_sid, whole=False)
                known.conversation.add([_turn(event)])
            case bus.CallEnded():
                known = self._known.get(event.call_sid) or self._add(event.call_sid, whole=False)
                known.reason = event.reason
            case bus.CallEvent(kind="resumed"):
                known = self._known.get(event.call_sid) or self._add(event.call_sid, whole=False)
                known.resumes = max(known.resumes, int(event.data.get("n") or 0))
            case _:
                pass

    def on_transferred(self, call_sid: str) -> None:
        """Twilio has the caller elsewhere: there is nothing left to do."""
        known = self._known.get(call_sid)
        if known is not None:
            known.handed_on = True

    def answer(self, ask: bus.Ask) -> bus.Answer:
        """What the worker wants to know; an answer without a step when it cannot be known in time."""
        nothing = bus.Answer(ask.n)
        bound = gevent.Timeout.start_new(ANSWER_S.get(ask.about, ANSWER_S["conversation"]))
        try:
            known = self._find(ask.call_sid)
            if known is None:
                return bus.Answer(ask.n, step=Step.HANG_UP.value)
            if ask.about == "conversation":
                return bus.Answer(ask.n, step=Step.RESUME.value, utterances=known.conversation.utterances())
            return self._next(ask, known)
        except StoreError as error:
            log.warning("a worker's question is not answered: %s", error, extra={"call_sid": ask.call_sid})
            return nothing
        except gevent.Timeout as passed:
            if passed is not bound:
                raise
            log.warning("a worker's question is not answered in time", extra={"call_sid": ask.call_sid})
            return nothing
        finally:
            bound.close()

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _next(self, ask: bus.Ask, known: _Known) -> bus.Answer:
        until_s = time.monotonic() + END_S
        while not known.reason:
            if self._is_lost(ask.call_sid):
                known.reason = Reason.WORKER_LOST.value
            elif time.monotonic() >= until_s:
                break
            else:
                gevent.sleep(LOOK_S)
        step = next_step(known.reason, resumes=known.resumes, on_lost=self._on_lost)
        if known.handed_on:
            step = Step.HANG_UP
        if step is Step.RESUME:
            known.resumes += 1
        return bus.Answer(ask.n, step=step.value, agent=known.agent, resumes=known.resumes, began_at=known.began_at)

    def _add(self, call_sid: str, *, whole: bool) -> _Known:
        known = self._known[call_sid] = _Known(whole=whole)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    def _find(self, call_sid: str) -> _Known | None:
        """From memory, and from the store where memory does not reach back to the call's beginning. None: no such call."""
        known = self._known.get(call_sid)
        if known is not None and known.whole:
            return known
        row = self._store.call(call_sid)
        if row is None:
            return known
        later = known
        known = self._add(call_sid, whole=True)
        _fill(known, row)
        if later is not None:
            held = {turn.n for turn in row.turns}
            known.conversation.add(turn for turn in later.conversation.turns if turn.n not in held)
            known.reason = later.reason or known.reason
            known.resumes = max(known.resumes, later.resumes)
            known.handed_on = later.handed_on
        return known


def _fill(known: _Known, row: CallDetails) -> None:
    """What the store has of a call."""
    known.agent = row.agent or ""
    known.began_at = row.answered_at or 0.0
    known.reason = row.reason or ""
    known.conversation.add(
        Turn(turn.n, turn.role, turn.text, turn.item_id or "", turn.start_ms, turn.interrupted, turn.heard_ms)
        for turn in row.turns
    )
    known.resumes = sum(1 for event in row.events if event.kind == "resumed")


def _turn(event: bus.Turn) -> Turn:
    return Turn(event.n, event.role, event.text, event.item_id, event.start_ms, event.interrupted, event.heard_ms)
