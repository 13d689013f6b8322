"""Watchdog of an AI leg: detects a leg that is dead although no call on it failed.

Two signs: audio the AI does not take, a ping without a pong. Each must be found in two consecutive
checks: after a stall of this process, events the AI sent meanwhile are read between the two. Acts on nothing.
"""

from __future__ import annotations

from gw.call.state import Reason
from gw.media.ai.leg import AiLeg

#: Why a leg is given up, and the sentence for it.
Problem = tuple[Reason, str]


class Watchdog:
    """Checks one AI leg. `limit_s`: how long a leg may keep a call waiting."""

    __slots__ = ("_congested_s", "_doubted", "_limit_s", "pinged_s")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._congested_s = 0.0  # since when; 0.0: not congested
        self._doubted = False  # the last check found a problem
        self.pinged_s = 0.0  # when the last ping was sent

    def check(self, leg: AiLeg, now_s: float) -> Problem | None:
        """Return the problem for which the leg is given up, or None."""
        found = self._problem(leg, now_s)
        was_doubted, self._doubted = self._doubted, found is not None
        return found if was_doubted else None

    def _problem(self, leg: AiLeg, now_s: float) -> Problem | None:
        limit_s = self._limit_s
        if self._is_deaf(leg, now_s):
            return Reason.AI_LEG_STALLED, f"the AI took nothing of the caller's audio for {limit_s:g} s"
        if self.pinged_s > leg.heard_s and not leg.is_congested:
            if now_s - self.pinged_s > limit_s / 2:
                return Reason.AI_STALLED, f"the AI answered no ping for {limit_s / 2:g} s"
        elif now_s - leg.heard_s > limit_s / 2:
            self.pinged_s = now_s
            leg.ping()
        return None

    def _is_deaf(self, leg: AiLeg, now_s: float) -> bool:
        """True when the leg has been congested for longer than the limit."""
        if not leg.is_congested:
            self._congested_s = 0.0
            return False
        self._congested_s = self._congested_s or now_s
        return now_s - self._congested_s > self._limit_s
