"""AI legs of calls that left their stream, kept for their return.

The session continues as if the caller were silent. A leg belongs to the worker that had the stream: if the call returns to
another worker, or later than KEEP_S, its conversation goes to a new session. That makes the leg stale: only the return from the
leave that parked it takes it. At most a share of the worker's slots.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

from gw.call.leave import Leave
from gw.media.ai.leg import AiLeg, AiLegError
from gw.media.ai.warm import SLOTS_PER_LEG
from gw.media.hub.greenlets import KindGreenlet, spawn

log = logging.getLogger(__name__)

#: Longest wait for a call's return.
KEEP_S: Final = 15.0
#: Shortest lifetime of a session that is worth keeping.
LEAST_LIFETIME_MS: Final = 120_000
#: Time for the greenlet of a leg to end once the call's own reads it.
_HAND_OVER_S: Final = 1.0
_MS: Final = 1000


class ParkedLeg:
    """One leg without a call. Its greenlet reads what comes, and drops it."""

    def __init__(self, leg: AiLeg, lifetime_ms: int, session_ms: int, wish: Leave) -> None:
        """`lifetime_ms`: of the session, from now on. `session_ms`: the caller's audio that it has heard.

        `wish`: what left the stream; the session waits for the output of its tool call.
        """
        self.leg = leg
        self.session_ms = session_ms
        self.wish = wish
        self.parked_s = monotonic()
        self._lifetime_ms = lifetime_ms
        self._is_kept = True
        self._is_taken = False
        self._greenlet: KindGreenlet = spawn("ai_in", self._run)

    @property
    def is_alive(self) -> bool:
        """True while the session can be taken."""
        return self._is_kept and not self._is_taken

    def _run(self) -> None:
        try:
            while self.is_alive:
                self.leg.read()
        except AiLegError as error:
            log.info("a parked AI session is lost: %s", error)
            self._is_kept = False
        finally:
            if not self._is_taken:
                self.leg.close()

    def take(self, limit_s: float) -> int | None:
        """Read the leg no longer: the caller does. Returns the session's lifetime in milliseconds; None if it is lost."""
        if not self.is_alive:
            return None
        self._is_taken = True
        self.leg.wake()
        self._greenlet.join(min(limit_s, _HAND_OVER_S))
        return self._lifetime_ms - round((monotonic() - self.parked_s) * _MS) if self._is_kept else None

    def drop(self, outcome: str = "") -> None:
        """Close the leg. Never waits. `outcome` is not counted."""
        if self.is_alive:
            self._is_kept = False
            self.leg.wake()


class ParkedLegs:
    """All parked legs of one worker, by call SID."""

    def __init__(self, slots: int) -> None:
        self._legs: dict[str, ParkedLeg] = {}
        self.most = max(1, slots // SLOTS_PER_LEG)

    def keep(self, call_sid: str, leg: ParkedLeg) -> None:
        """Keep a leg for the return of its call."""
        if (old := self._legs.pop(call_sid, None)) is not None:
            old.drop()
        self._legs[call_sid] = leg

    @property
    def has_room(self) -> bool:
        """True if one more leg may be parked."""
        return len(self._legs) < self.most

    def take(self, call_sid: str, key: str) -> ParkedLeg | None:
        """Return the leg of a call that is back; None without one. `key`: of its wish; a leg of an earlier one is closed."""
        parked = self._legs.pop(call_sid, None)
        if parked is not None and parked.wish.key != key:
            parked.drop()
        return parked if parked is not None and parked.is_alive else None

    def check(self, now_s: float) -> None:
        """Close the legs whose calls did not return in time."""
        for call_sid, parked in list(self._legs.items()):
            if not parked.is_alive or now_s - parked.parked_s > KEEP_S:
                self._legs.pop(call_sid).drop()

    def close(self) -> None:
        """Close all legs. Never waits."""
        while self._legs:
            self._legs.popitem()[1].drop()
