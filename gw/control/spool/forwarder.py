"""Carries the spool's entries into the store, and goes on doing so whatever happens to the store.

Strategy: oldest first, a batch is one transaction; an entry leaves the spool only when the store has it, so a crash in between
means writing it again, which changes nothing. A store that is not available is tried again after a pause that grows and is spread
by chance, so that many gateways do not return to a recovering database at once. A batch the store refuses is halved until the
entry at fault stands alone; that one is set aside with the reason and the rest goes in. What must be in the store before any
entry (`first`) is brought there before each batch; what follows from an event for other rows (`then`) is done before its entry
leaves the spool, and so survives whatever ends this process; where the store goes away in between, those before are not done
again. Never drops an entry.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from gevent.event import Event

from gw import bus
from gw.control.spool import Entry, Spool, SpoolError
from gw.control.store import Stamped, Store, StoreUnavailable

_log: Final = logging.getLogger(__name__)

#: Entries per transaction: few round trips each, and a transaction of some milliseconds.
BATCH: Final = 200
#: The first pause after a failure, and the longest.
_RETRY_MIN_S: Final = 0.2
_RETRY_MAX_S: Final = 15.0
#: Looks into the spool at least this often, also when nobody notified it.
_IDLE_S: Final = 5.0
#: After `stop`: how long it goes on while the store takes what it is given.
_LAST_S: Final = 5.0


class Forwarder:
    """The greenlet's body. `run` ends after `stop`; everything it has not written then stays in the spool."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        *,
        host: str,
        on_backlog: Callable[[int], None],
        first: Callable[[], None] = lambda: None,
        then: Callable[[bus.Event], None] = lambda _event: None,
        batch: int = BATCH,
        retry_min_s: float = _RETRY_MIN_S,
        retry_max_s: float = _RETRY_MAX_S,
    ) -> None:
        """`host` is what the rows will say; `on_backlog` is told how many entries wait, after each step and at each notice: a
        store that hangs ends no step for seconds.

        `first` brings to the store what must be there before the entries; it may raise StoreUnavailable or SpoolError. `then` is
        told each event that the store has, and again where that was not known; it may raise StoreUnavailable, nothing else.
        """
        self._spool = spool
        self._store = store
        self._host = host
        self._on_backlog = on_backlog
        self._first = first
        self._then = then
        self._batch = batch
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._wake = Event()
        self._stopping = Event()
        self._failures = 0
        self.applied = 0  # entries written, since the start
        self.set_aside = 0  # entries the store refused for good
        self.retries = 0  # times the store or the spool was not available
        self.failed_s = -math.inf  # when that was last the case, monotonic
        self.last_problem = ""  # why the last step failed; empty when it did not

    def notify(self) -> None:
        """The spool has something new."""
        self._on_backlog(self._spool.backlog())
        self._wake.set()

    def stop(self) -> None:
        """Let `run` end: soon while the store takes entries, at once when it does not."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Drain until stopped."""
        while not self._stopping.is_set():
            self._wake.clear()
            if self._step():
                continue
            if self._failures:
                self._stopping.wait(self._pause_s())
            else:
                self._wake.wait(_IDLE_S)
        deadline_s = time.monotonic() + _LAST_S
        while time.monotonic() < deadline_s and self._step():
            pass

    def _step(self) -> bool:
        """Take one batch. True when there was one and it is settled, so that the next may follow at once."""
        try:
            self._first()
            entries = self._spool.batch(self._batch)
            if entries:
                self._settle(self._decoded(entries))
        except (StoreUnavailable, SpoolError) as error:
            self._failed(error)
            return False
        else:
            self._recovered()
            return bool(entries)
        finally:
            self._on_backlog(self._spool.backlog())

    def _decoded(self, entries: Sequence[Entry]) -> list[tuple[Entry, Stamped]]:
        decoded: list[tuple[Entry, Stamped]] = []
        for entry in entries:
            try:
                event = bus.decode_event(entry.body)
            except bus.BusError as error:
                self._poison(entry, error)
            else:
                decoded.append((entry, Stamped(event, self._host, entry.worker, entry.instance, entry.n)))
        return decoded

    def _settle(self, pairs: Sequence[tuple[Entry, Stamped]]) -> None:
        """Write these, or find out which of them cannot be written."""
        if not pairs:
            return
        try:
            self._store.apply([stamped for _, stamped in pairs])
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  whatever one entry brings about must not stop all the others
            if len(pairs) == 1:
                self._poison(pairs[0][0], error)
                return
            middle = len(pairs) // 2
            self._settle(pairs[:middle])
            self._settle(pairs[middle:])
        else:
            self._follow(pairs)

    def _follow(self, pairs: Sequence[tuple[Entry, Stamped]]) -> None:
        """The store has these: do what follows from each, and let go of those of which all is done. Raises StoreUnavailable."""
        for index, (_, stamped) in enumerate(pairs):
            try:
                self._then(stamped.event)
            except StoreUnavailable:
                self._let_go(pairs[:index])
                raise
        self._let_go(pairs)

    def _let_go(self, pairs: Sequence[tuple[Entry, Stamped]]) -> None:
        self._spool.done([entry.id for entry, _ in pairs])
        self.applied += len(pairs)

    def _poison(self, entry: Entry, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        self._spool.set_aside(entry.id, why)
        self.set_aside += 1
        _log.error(
            "an event cannot be stored and was set aside: entry %d, %s number %d: %s", entry.id, entry.instance, entry.n, why
        )

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            _log.warning("the store takes no events, they wait in the spool: %s", error)
        self._failures += 1
        self.retries += 1
        self.failed_s = time.monotonic()
        self.last_problem = str(error)

    def _recovered(self) -> None:
        if self._failures:
            _log.warning("the store takes events again, %d are waiting", self._spool.backlog())
        self._failures = 0
        self.last_problem = ""

    def _pause_s(self) -> float:
        # Doubled each time; between half of it and all of it by chance.
        longest_s = min(self._retry_max_s, self._retry_min_s * 2.0 ** min(self._failures - 1, 30))
        return random.uniform(longest_s / 2, longest_s)
