"""Greenlets with a kind, under which the hold monitor files their holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import Greenlet, getcurrent

if TYPE_CHECKING:
    _Greenlet = Greenlet[[], Any]
else:
    _Greenlet = Greenlet  # generic for the type checker only


class KindGreenlet(_Greenlet):
    """Greenlet of one kind, a label value of gw_hub_hold_seconds."""

    def __init__(self, kind: str, body: Callable[[], Any]) -> None:
        super().__init__(body)
        self.kind = kind


class PoolGreenlet(_Greenlet):
    """Greenlet of a pool."""

    kind = "pool"


def spawn(kind: str, body: Callable[[], Any]) -> KindGreenlet:
    """Start `body` in a greenlet of this kind."""
    greenlet = KindGreenlet(kind, body)
    greenlet.start()
    return greenlet


def mark_current(kind: str) -> None:
    """Set the kind of the running greenlet from here on."""
    getcurrent().kind = kind  # type: ignore[attr-defined]
