"""Variants of self-observation: hold monitor, and gevent's tree of greenlets."""

from __future__ import annotations

from typing import Any

import gevent

from gw.media.hub.hold_monitor import HoldMonitor
from tests.bench.variants.seam import swap


def off() -> None:
    """Do not start the hold monitor: no holds are recorded."""
    swap(HoldMonitor, "start", lambda _: None)


def always() -> None:
    """Watch every second whole, with CPU times, as `hold_monitor = "always"` does."""
    plain = HoldMonitor.__init__

    def init(self: HoldMonitor, *given: Any, **named: Any) -> None:
        plain(self, *given, **{**named, "always": True})

    swap(HoldMonitor, "__init__", init)


def no_tree() -> None:
    """Do not record a greenlet's parent and the stack that spawned it."""
    swap(gevent.config, "track_greenlet_tree", False)
