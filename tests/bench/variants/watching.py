"""What the gateway keeps of itself while it works: holds of the hub, and gevent's tree of who spawned whom."""

from __future__ import annotations

from typing import Any

import gevent

from gw.media.hub.hold_monitor import HoldMonitor
from tests.bench.variants.seam import swap


def off() -> None:
    """The monitor never begins; nobody watches, so there are no holds to tell of."""
    swap(HoldMonitor, "start", lambda _: None)


def always() -> None:
    """As `hold_monitor = "always"` does it: each second whole, with CPU times."""
    plain = HoldMonitor.__init__

    def init(self: HoldMonitor, *given: Any, **named: Any) -> None:
        plain(self, *given, **{**named, "always": True})

    swap(HoldMonitor, "__init__", init)


def no_tree() -> None:
    """A greenlet does not keep who spawned it, nor the stack from which."""
    swap(gevent.config, "track_greenlet_tree", False)
