"""Warm AI legs: opened at a call's voice webhook, so that the session is ready when the stream comes.

A leg belongs to the worker that answered the webhook. A stream that reaches another worker opens its own, and the warm one is
closed as soon as the slot's reservation shows that. At most a share of the worker's slots, each for UNUSED_S.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from gevent.event import Event

from gw.call.dialogue.inputs import Input, SuccessorReady
from gw.config import Agent
from gw.media.ai.leg import AiLeg
from gw.media.ai.successor import Successor
from gw.media.hub.greenlets import spawn
from metrics.declare import WARM_LEGS
from metrics.page import Page

#: From the webhook to the close of a leg that no stream took. Twilio mostly connects within a second.
UNUSED_S: Final = 10.0
#: One leg for so many slots: a leg that no caller uses takes a session of the AI's account.
SLOTS_PER_LEG: Final = 10
#: Time for the greenlet of a leg to end once the call's own reads it.
_HAND_OVER_S: Final = 1.0


class WarmLeg:
    """One leg that waits for its call's stream."""

    def __init__(self, agent: Agent, leg: AiLeg, limit_s: float, count: Callable[[str], None]) -> None:
        """`limit_s`: bound until the session is confirmed. `count`: receives the outcome, once."""
        self.agent = agent
        self.leg = leg
        self.opened_s = monotonic()
        self.is_doubted = False  # its stream was not expected any more, at the last check
        self._lifetime_ms: int | None = None  # of a confirmed session
        self._settled = Event()
        self._count: Callable[[str], None] | None = count
        self._successor = Successor(leg, limit_s, self._on_report)
        self._successor.greenlet = spawn("ai_in", self._successor.run)

    @property
    def has_failed(self) -> bool:
        """True once the session could not be opened, or was lost."""
        return self._settled.is_set() and self._lifetime_ms is None

    def _on_report(self, event: Input) -> None:
        self._lifetime_ms = event.lifetime_ms if isinstance(event, SuccessorReady) else None
        self._settled.set()

    def take(self, limit_s: float) -> int | None:
        """Wait until the session is confirmed, then read its leg no longer: the caller does.

        Returns: the session's lifetime in milliseconds; None if it is not confirmed within `limit_s`.
        """
        try:
            self._settled.wait(limit_s)
        finally:
            if self._lifetime_ms is None:
                self.drop("failed")
        if self._lifetime_ms is not None and self._successor.greenlet is not None:
            self._successor.take()
            self._successor.greenlet.join(_HAND_OVER_S)
            self._end("used")
        return self._lifetime_ms

    def drop(self, outcome: str) -> None:
        """Close the leg. Never waits."""
        self._successor.drop()
        self._end(outcome)

    def _end(self, outcome: str) -> None:
        count, self._count = self._count, None
        if count is not None:
            count(outcome)


class WarmLegs:
    """All warm legs of one worker, by call SID."""

    def __init__(
        self, page: Page, new_leg: Callable[[Agent], AiLeg], is_expected: Callable[[str], bool], slots: int, limit_s: float
    ) -> None:
        """`is_expected`: whether a call's stream has not come to any worker. `limit_s`: bound until a session is confirmed."""
        self._cells = {outcome: page.counter(WARM_LEGS, outcome=outcome) for outcome in WARM_LEGS.labels["outcome"]}
        self._new_leg = new_leg
        self._is_expected = is_expected
        self._limit_s = limit_s
        self._legs: dict[str, WarmLeg] = {}
        self.most = max(1, slots // SLOTS_PER_LEG)

    def open(self, call_sid: str, agent: Agent | None) -> None:
        """Open a leg for an announced call whose agent is `warm`, within the bound. Never waits."""
        if agent is None or not agent.warm or call_sid in self._legs:
            return
        if len(self._legs) >= self.most:
            self._count("full")
            return
        self._legs[call_sid] = WarmLeg(agent, self._new_leg(agent), self._limit_s, self._count)

    def take(self, call_sid: str, agent: Agent) -> WarmLeg | None:
        """Return the leg of a call whose stream came here; None without one."""
        warm = self._legs.pop(call_sid, None)
        if warm is None or warm.agent == agent:
            return warm
        warm.drop("unused")
        return None

    def check(self, now_s: float) -> None:
        """Close legs that failed, or whose stream is late or came elsewhere."""
        for call_sid, warm in list(self._legs.items()):
            is_expected, was_doubted = self._is_expected(call_sid), warm.is_doubted
            warm.is_doubted = not is_expected  # in the first check it may be about to take the leg
            if warm.has_failed:
                self._drop(call_sid, "failed")
            elif was_doubted and not is_expected:
                self._drop(call_sid, "elsewhere")
            elif now_s - warm.opened_s > UNUSED_S:
                self._drop(call_sid, "unused")

    def close(self) -> None:
        """Close all legs. Never waits."""
        for call_sid in list(self._legs):
            self._drop(call_sid, "unused")

    def _drop(self, call_sid: str, outcome: str) -> None:
        self._legs.pop(call_sid).drop(outcome)

    def _count(self, outcome: str) -> None:
        self._cells[outcome].add()
