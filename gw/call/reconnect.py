"""Retries of a failed AI leg, and replacement of a session that nears its end.

A failure opens a window of `media.ai_reconnect_s` for attempts: the first almost immediately, each further one after a pause that
doubles and is randomised, so that all calls of a failed provider do not return at the same moment. A leg that lasted STABLE_S
closes the window. A leg that fails sooner gets the rest of the window, so that a session which always fails right away also ends
in the fallback. Permanent failures are not retried. No waiting; random numbers are passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gw.call.state import Reason

#: A leg that lasted this long was a success: a later failure opens a new window.
STABLE_S: Final = 10.0
MAX_ATTEMPTS: Final = 10
#: Longest pause before the first attempt; before the second FIRST_PAUSE_S, doubling up to LAST_PAUSE_S.
SPREAD_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.4
LAST_PAUSE_S: Final = 2.0
#: Shortest pause after a rate limit, before randomisation.
RATE_LIMIT_PAUSE_S: Final = 1.0

#: OpenAI ends a session after 60 minutes (docs, "Realtime API"), with or without an `expires_at`.
LIFETIME_S: Final = 3600.0
#: Time before a session's end from which it is replaced in a moment of silence (QUIET) or at any moment (FORCED): a share
#: of its lifetime, at most these seconds.
ROLLOVER_QUIET_S: Final = 300.0
ROLLOVER_QUIET_SHARE: Final = 0.25
ROLLOVER_FORCED_S: Final = 30.0
ROLLOVER_FORCED_SHARE: Final = 0.1


class Reconnect:
    """Schedules one call's attempts at an AI leg."""

    __slots__ = ("_attempts", "_bound_s", "_chance", "_left_s", "_opened_s", "_ready_s")

    def __init__(self, bound_s: float, chance: Callable[[], float]) -> None:
        """`bound_s`: longest time a call may be without an AI; 0 disables retries. `chance`: random numbers from 0 to 1."""
        self._bound_s = self._left_s = bound_s
        self._chance = chance
        self._attempts = 0
        self._opened_s: float | None = None  # start of the open window
        self._ready_s: float | None = None  # since when a leg is ready

    @property
    def attempts(self) -> int:
        """Number of attempts since the last stable leg."""
        return self._attempts

    def on_failure(self, reason: Reason, now_s: float, *, permanent: bool = False) -> float | None:
        """Handle the failure of a leg, or of an attempt at one.

        `permanent`: another attempt would fail alike.
        Returns: the pause before the next attempt; None: give up.
        """
        if self._ready_s is not None and now_s - self._ready_s >= STABLE_S:
            self._attempts, self._left_s = 0, self._bound_s
        self._ready_s = None
        if self._opened_s is None:
            self._opened_s = now_s
        if permanent or self._attempts >= MAX_ATTEMPTS:
            return None
        pause_s = self._pause_s(reason)
        if pause_s >= self.left_s(now_s):
            return None
        self._attempts += 1
        return pause_s

    def _pause_s(self, reason: Reason) -> float:
        longest_s = SPREAD_S
        if self._attempts:
            longest_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self._attempts - 1))
        if reason is Reason.AI_RATE_LIMITED:
            return max(RATE_LIMIT_PAUSE_S, longest_s) * (0.75 + 0.5 * self._chance())
        return longest_s * (0.5 + 0.5 * self._chance())

    def on_ready(self, now_s: float) -> None:
        """Record that a leg is ready."""
        self._left_s = max(0.0, self.left_s(now_s))
        self._opened_s = None
        self._ready_s = now_s

    def left_s(self, now_s: float) -> float:
        """Return the rest of the window: the bound on an attempt."""
        return self._left_s if self._opened_s is None else self._left_s - (now_s - self._opened_s)


class Rollover(NamedTuple):
    """Replacement times of a session: from `quiet_s` in a moment of silence, from `forced_s` at any moment."""

    quiet_s: float
    forced_s: float


def rollover(ready_s: float, lifetime_s: float) -> Rollover:
    """Plan the replacement of a session that is ready since `ready_s` and lasts `lifetime_s` (0.0: unknown)."""
    lifetime_s = min(lifetime_s, LIFETIME_S) if lifetime_s > 0 else LIFETIME_S
    end_s = ready_s + lifetime_s
    return Rollover(
        quiet_s=end_s - min(ROLLOVER_QUIET_S, lifetime_s * ROLLOVER_QUIET_SHARE),
        forced_s=end_s - min(ROLLOVER_FORCED_S, lifetime_s * ROLLOVER_FORCED_SHARE),
    )


#: Labels of gw_ai_reconnects_total; "failed" for all other reasons.
_LABELS: Final = {
    Reason.AI_CLOSED: "closed",
    Reason.AI_LOST: "lost",
    Reason.AI_UNREACHABLE: "lost",
    Reason.AI_STALLED: "stalled",
    Reason.AI_LEG_STALLED: "stalled",
    Reason.AI_TIMEOUT: "stalled",
    Reason.AI_RATE_LIMITED: "rate_limited",
}


def label(reason: Reason) -> str:
    """Return the metric label of a leg that failed for `reason` and was replaced."""
    return _LABELS.get(reason, "failed")
