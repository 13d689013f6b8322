"""Whether and when an AI leg that failed is replaced, and when one that stands is replaced before it must end.

A failure opens a window of `media.ai_reconnect_s`: within it attempts are made, the first almost at once, each further one after
a pause that doubles and is spread by chance, so that all calls of a provider that stumbled do not come back in one moment. A leg
that stood for STABLE_S closes the window; one that fails sooner finds what is left of it, so that a session which always dies at
once ends in the fallback too. Some failures no second try can mend. Never waits, never draws: chance is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gw.call.state import Reason

#: A leg that stood so long was a success: what happens later is a failure of its own.
STABLE_S: Final = 10.0
MAX_ATTEMPTS: Final = 10
#: The first attempt comes after at most this, the second after at most FIRST_PAUSE_S, and so on up to LAST_PAUSE_S.
SPREAD_S: Final = 0.2
FIRST_PAUSE_S: Final = 0.4
LAST_PAUSE_S: Final = 2.0
#: Who says that it is asked too often is left alone for about so long first.
RATE_LIMIT_PAUSE_S: Final = 1.0

#: OpenAI ends a session after 60 minutes (docs, "Realtime API"), also where `expires_at` is not told.
LIFETIME_S: Final = 3600.0
#: How long before its end a session is replaced at the first moment when nobody speaks, and how long before it at any moment:
#: shares of its lifetime, at most these.
ROLLOVER_S: Final = 300.0
ROLLOVER_SHARE: Final = 0.25
LAST_CALL_S: Final = 30.0
LAST_CALL_SHARE: Final = 0.1


class Reconnect:
    """One call's attempts at an AI leg."""

    __slots__ = ("_attempts", "_bound_s", "_chance", "_left_s", "_opened_s", "_ready_s")

    def __init__(self, bound_s: float, chance: Callable[[], float]) -> None:
        """`bound_s`: how long a call may be without an AI, 0 for not at all. `chance`: from 0 to 1."""
        self._bound_s = self._left_s = bound_s
        self._chance = chance
        self._attempts = 0
        self._opened_s: float | None = None  # the window is open since then
        self._ready_s: float | None = None  # a leg stands since then

    @property
    def attempts(self) -> int:
        """Attempts granted since a leg last stood for long."""
        return self._attempts

    def on_failure(self, reason: Reason, now_s: float, *, permanent: bool = False) -> float | None:
        """A leg failed, or an attempt at one did. Returns how long to wait before the next attempt; None: there is none.

        `permanent`: no further try would do better.
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
        """A leg stands."""
        self._left_s = max(0.0, self.left_s(now_s))
        self._opened_s = None
        self._ready_s = now_s

    def left_s(self, now_s: float) -> float:
        """What is left of the window: the bound on an attempt."""
        return self._left_s if self._opened_s is None else self._left_s - (now_s - self._opened_s)


class Rollover(NamedTuple):
    """When a session is replaced: from `quiet_s` on as soon as nobody speaks, from `forced_s` on whoever speaks."""

    quiet_s: float
    forced_s: float


def rollover(ready_s: float, lifetime_s: float) -> Rollover:
    """When the session that stands since `ready_s` and lasts `lifetime_s` (0.0: it did not say) is replaced."""
    lifetime_s = min(lifetime_s, LIFETIME_S) if lifetime_s > 0 else LIFETIME_S
    end_s = ready_s + lifetime_s
    return Rollover(end_s - min(ROLLOVER_S, lifetime_s * ROLLOVER_SHARE), end_s - min(LAST_CALL_S, lifetime_s * LAST_CALL_SHARE))


#: gw_ai_reconnects_total's label for each reason; what is not here is "failed".
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
    """What a leg that failed for `reason` and was replaced is counted under."""
    return _LABELS.get(reason, "failed")
