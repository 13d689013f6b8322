"""How TX waits: one object, one method, so that a better sleep can replace it without touching the loop."""

from __future__ import annotations

from time import monotonic

import gevent


class Clock:
    """Waits by `gevent.sleep`. libev rounds to whole milliseconds on an idle process; media events keep the loop turning."""

    __slots__ = ()

    def wait_until(self, deadline_s: float) -> None:
        """Return at the monotonic time given, or at once when it has passed."""
        delay_s = deadline_s - monotonic()
        if delay_s > 0.0:
            gevent.sleep(delay_s)
