"""The two waits of a call's outgoing side: TX for a deadline, AI-out for its next turn.

TX's wait is behind one object with one method, so that another way to sleep can be measured without touching the loop.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from gevent import get_hub, sleep
from gevent.hub import Waiter

if TYPE_CHECKING:
    from gevent.hub import Hub


class Clock:
    """TX's wait. libev rounds to whole milliseconds in an idle process; media events keep the loop turning."""

    __slots__ = ()

    def wait_until(self, deadline_s: float) -> None:
        """Return at the monotonic time given, or immediately when that time has passed."""
        delay_s = deadline_s - monotonic()
        if delay_s > 0.0:
            sleep(delay_s)


class Alarm:
    """Bounded wait that another greenlet can end: an Event with a Timeout, at half the price.

    One greenlet waits, in the hub of the thread that made the alarm; others of that hub call `set`. A `set` while no greenlet
    waits ends the next wait.
    """

    __slots__ = ("_hub", "_is_set", "_waiter")

    def __init__(self) -> None:
        self._hub: Hub = get_hub()
        self._waiter: Waiter[None] | None = None
        self._is_set = False

    def set(self) -> None:
        """End the current wait, or the next one."""
        if not self._is_set:
            self._is_set = True
            waiter = self._waiter
            if waiter is not None:
                self._hub.loop.run_callback(waiter.switch, None)

    def wait(self, limit_s: float) -> None:
        """Return after `set`, or after `limit_s`."""
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
