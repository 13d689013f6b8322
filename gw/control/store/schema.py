"""Brings the store's schema to this code's revision, however long the store is away, and says what stands in the way meanwhile.

A store that is away is tried again after a wait that doubles; so is one that refuses, for it may be mended under us. Two
processes may try at once: the store sees to that. Never stops the start of the gateway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gevent.event import Event

from gw.control.store import Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

#: Between tries: the first doubles up to the last.
WAIT_FIRST_S: Final = 0.5
WAIT_LAST_S: Final = 30.0


class Schema:
    """`run` is a greenlet's body; it ends once the schema is as it must be, or after `stop`."""

    def __init__(self, store: Store, *, on_ready: Callable[[], None]) -> None:
        self._store = store
        self._on_ready = on_ready
        self._stopping = Event()
        self.problem = "the schema was not looked at yet"
        self.ready = Event()

    def run(self) -> None:
        """Try until it is done."""
        wait_s = WAIT_FIRST_S
        while not self._stopping.is_set():
            try:
                self._store.upgrade()
            except StoreError as error:
                if str(error) != self.problem:
                    level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
                    log.log(level, "the store's schema is not ready: %s", error)
                self.problem = str(error)
                self._stopping.wait(wait_s)
                wait_s = min(WAIT_LAST_S, wait_s * 2)
            else:
                self.problem = ""
                self.ready.set()
                self._on_ready()
                return

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()
