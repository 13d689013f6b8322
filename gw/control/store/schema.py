"""Upgrades the store's schema at the start of control, retrying until it succeeds.

Both an unavailable store and one that refuses are retried after a wait that doubles, because an operator may repair either. Two
processes may upgrade at the same time. A failure never stops the start of the gateway. Until the schema is ready no event is
written: a schema of another version might refuse events for ever that it would take after the upgrade.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gevent.event import Event

from gw.control.store import SchemaAheadError, Store, StoreError, StoreMisconfigured, StoreUnavailable

log = logging.getLogger(__name__)

#: The first wait between attempts, doubled up to the last.
WAIT_FIRST_S: Final = 0.5
WAIT_LAST_S: Final = 30.0
#: The longest wait while the store is away.
AWAY_LAST_S: Final = 8.0


class Schema:
    """The upgrade. `run` is the body of a greenlet; it ends with success or after `stop`."""

    def __init__(self, store: Store, *, on_ready: Callable[[], None]) -> None:
        self._store = store
        self._on_ready = on_ready
        self._stopping = Event()
        self.problem = "the schema has not been checked yet"
        self.state = "unknown"  # of gw_store_schema
        self.is_new = False  # the store is empty: the first upgrade creates every table
        self.ready = Event()
        self.reached = Event()  # the store answered for the first time, or failed
        self.answered = Event()  # the first attempt ended, well or not

    def run(self) -> None:
        """Upgrade until success or `stop`."""
        wait_s = WAIT_FIRST_S
        while not self._stopping.is_set():
            try:
                revision, _ = self._store.current()
                self.is_new = revision is None
                self.reached.set()
                self._store.upgrade()
            except StoreError as error:
                if str(error) != self.problem:
                    passes = isinstance(error, StoreUnavailable) and not isinstance(error, StoreMisconfigured)
                    log.log(logging.WARNING if passes else logging.ERROR, "the store's schema is not ready: %s", error)
                self.problem = str(error)
                is_away = isinstance(error, StoreUnavailable)
                if not is_away:
                    self.state = "ahead" if isinstance(error, SchemaAheadError) else "failed"
                self.reached.set()
                self.answered.set()
                self._stopping.wait(wait_s)
                wait_s = min(AWAY_LAST_S if is_away else WAIT_LAST_S, wait_s * 2)
            else:
                self.problem, self.state = "", "ready"
                self.ready.set()
                self.answered.set()
                self._on_ready()
                return

    def require(self) -> None:
        """Raise StoreUnavailable unless the schema is ready."""
        if self.problem:
            raise StoreUnavailable(self.problem)

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()
