"""How the media plane waits where it waits most: TX for a deadline, AI-out for its next turn.

TX's wait is one object with one method, so that a better sleep can replace it without touching the loop. It is `gevent.sleep`
without what a general sleep needs: the timer switches straight back to the greenlet that waits, and no other object stands
between. And it goes first: of what is ready in one turn of the loop, a frame that is due leaves before what has come to be read.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gevent import get_hub
from gevent.hub import Waiter
from greenlet import getcurrent

if TYPE_CHECKING:
    from gevent._types import _Loop
    from gevent.hub import Hub


class Clock:
    """Waits in the hub of the thread that made it. libev rounds to whole milliseconds on an idle process; media events keep the
    loop turning."""

    __slots__ = ("_hub", "_loop", "_priority")

    def __init__(self) -> None:
        self._hub: Hub = get_hub()
        self._loop: _Loop = self._hub.loop
        self._priority: int = self._loop.MAXPRI  # type: ignore[attr-defined]  # libev's, which the stubs leave out

    def wait_until(self, deadline_s: float) -> None:
        """Return at the monotonic time given, or at once when it has passed."""
        delay_s = deadline_s - monotonic()
        if delay_s > 0.0:
            timer = self._loop.timer(delay_s, priority=self._priority)
            timer.start(getcurrent().switch, update=True)
            try:
                self._hub.switch()
            finally:
                timer.close()


class Alarm:
    """Waits a moment at most, unless somebody wakes it: an Event with a Timeout, at half the price.

    One greenlet waits, in the hub of the thread that made it; others of that hub wake it. A wake while nobody waits ends the next
    wait.
    """

    __slots__ = ("_hub", "_is_set", "_waiter")

    def __init__(self) -> None:
        self._hub: Hub = get_hub()
        self._waiter: Waiter[None] | None = None
        self._is_set = False

    def set(self) -> None:
        """Wake the one that waits, or will."""
        if not self._is_set:
            self._is_set = True
            waiter = self._waiter
            if waiter is not None:
                self._hub.loop.run_callback(waiter.switch, None)

    def wait(self, limit_s: float) -> None:
        """Return when woken, or after `limit_s`."""
        if not self._is_set:
            waiter: Waiter[None] = Waiter(self._hub)
            self._waiter = waiter
            timer = self._hub.loop.timer(limit_s)
            timer.start(waiter.switch, None, update=True)
            try:
                waiter.get()
            finally:
                timer.close()
                self._waiter = None
        self._is_set = False
