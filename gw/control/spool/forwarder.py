"""Carries the spool's entries into the store, oldest first, until the store has them.

A batch is one transaction. An entry leaves the spool after its commit, so a crash in between writes it again, which changes
nothing. An unavailable store is tried again after a pause that doubles and is randomised: many gateways must not return to a
recovering database at the same moment. A batch the store refuses is halved until the faulty entry is alone; that entry is set
aside with the reason and the rest is written. If the store refuses every entry of a batch, or a second one in a row, the fault is
the store's: nothing is set aside, and the batch is tried again after a pause, until the store accepts an entry.

`before_batch` brings to the store what must precede every entry. The subscriber acts on each stored event before its entry
leaves the spool, so the act survives the end of this process. If the store becomes unavailable between two events of a batch,
the subscriber does not receive the earlier ones again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.control.spool import Entry, Spool, SpoolError
from gw.control.store import Stamped, Store, StoreError, StoreMisconfigured, StoreUnavailable
from gw.errors import GatewayError

log = logging.getLogger(__name__)

#: Entries per transaction: few round trips each, and a transaction of some milliseconds.
BATCH: Final = 200
#: The first pause after a failure, and the longest.
_RETRY_MIN_S: Final = 0.2
_RETRY_MAX_S: Final = 15.0
#: Upper bound between two looks into the spool without a notification.
_IDLE_S: Final = 5.0
#: Between two batches that were not full. Each costs several commits, and the spool's disk is also that of new tool calls.
_PAUSE_S: Final = 0.02
#: After `stop`, forwarding continues for this long while the store accepts entries.
_LAST_S: Final = 5.0


class _RefusedAllError(GatewayError):
    """The store refused every entry of a batch."""


class Forwarder:
    """Body of one greenlet. `run` ends after `stop`; entries not yet written stay in the spool."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        *,
        host: str,
        gateway: str = "",
        on_backlog: Callable[[int], None],
        before_batch: Callable[[], None] = lambda: None,
        on_refusing: Callable[[bool], None] = lambda refuses: None,
        batch: int = BATCH,
        retry_min_s: float = _RETRY_MIN_S,
        retry_max_s: float = _RETRY_MAX_S,
    ) -> None:
        """`host` and `gateway` go into the rows. `on_backlog` receives the number of waiting entries after each batch and at each
        notification, because a hanging store ends no batch for seconds. `before_batch` may raise StoreUnavailable or SpoolError.
        `on_refusing` receives, after each batch, whether the store refused all of it.
        """
        self._spool = spool
        self._store = store
        self._host = host
        self._gateway = gateway
        self._on_backlog = on_backlog
        self._before_batch = before_batch
        self._on_refusing = on_refusing
        self._on_stored: Callable[[bus.Event], None] = lambda _event: None
        self._batch = batch
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._forwarding = BoundedSemaphore(1)
        self._wake = Event()
        self._again = Event()
        self._stopping = Event()
        self._failures = 0
        self._refuses = False
        self._set_aside_last = False  # the store has accepted nothing since it refused an entry
        self._failed_at_s = -math.inf
        self.written = 0  # entries, since the start
        self.set_aside = 0  # entries the store refused permanently
        self.retries = 0  # batches for which the store or the spool was unavailable
        self.last_problem = ""  # why the last batch failed; empty after a success

    def subscribe(self, on_stored: Callable[[bus.Event], None]) -> None:
        """Set the subscriber of stored events.

        It receives an event again if the outcome of its commit was unknown. It may raise StoreUnavailable or SpoolError.
        """
        self._on_stored = on_stored

    def notify(self) -> None:
        """Wake the greenlet: the spool has new entries."""
        self._on_backlog(self._spool.backlog())
        self._wake.set()

    def retry(self) -> None:
        """Try again without the rest of a pause: the store can be used now."""
        self._again.set()
        self.notify()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Forward nothing within the `with` block; first wait for the batch under way."""
        with self._forwarding:
            yield

    def stop(self) -> None:
        """Let `run` end: within _LAST_S while the store accepts entries, immediately otherwise."""
        self._stopping.set()
        self._again.set()
        self._wake.set()

    def failed_at_s(self) -> float:
        """Return the time of the last outage of store or spool, monotonic; -inf without one."""
        return self._failed_at_s

    def run(self) -> None:
        """Forward until stopped."""
        while not self._stopping.is_set():
            self._wake.clear()
            entries = self._step()
            if self._failures:
                self._again.wait(self._pause_s())
                self._again.clear()
            elif not entries:
                self._wake.wait(_IDLE_S)
            elif entries < self._batch:
                self._stopping.wait(_PAUSE_S)
        deadline_s = time.monotonic() + _LAST_S
        while time.monotonic() < deadline_s and self._step():
            pass

    def _step(self) -> int:
        """Forward one batch. Returns the number of its entries; 0 after a failure."""
        with self._forwarding:
            return self._forward()

    def _forward(self) -> int:
        try:
            self._before_batch()
            entries = self._spool.batch(self._batch) if self._spool.backlog() else []
            if pairs := self._decoded(entries):
                self._judge(self._write(pairs), len(pairs))
        except (StoreUnavailable, SpoolError, _RefusedAllError) as error:
            self._on_failure(error)
            return 0
        except Exception as error:  # this greenlet's top: the entries stay in the spool
            log.exception("events could not be forwarded")
            self._on_failure(error)
            return 0
        else:
            self._on_success()
            return len(entries)
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
                decoded.append((entry, self._stamped(entry, event)))
        return decoded

    def _stamped(self, entry: Entry, event: bus.Event) -> Stamped:
        return Stamped(event, self._host, entry.worker, entry.instance, entry.n, self._gateway)

    def _write(self, pairs: Sequence[tuple[Entry, Stamped]]) -> list[tuple[Entry, StoreError]]:
        """Write entries in one transaction; halve a refused batch to find the faulty entries. Returns those."""
        try:
            self._store.apply([stamped for _, stamped in pairs])
        except StoreUnavailable:
            raise
        except StoreError as error:
            if len(pairs) == 1:
                return [(pairs[0][0], error)]
            middle = len(pairs) // 2
            return [*self._write(pairs[:middle]), *self._write(pairs[middle:])]
        self._publish(pairs)
        return []

    def _judge(self, refused: Sequence[tuple[Entry, StoreError]], tried: int) -> None:
        """Set refused entries aside. Raises _RefusedAllError when the store accepts nothing."""
        if len(refused) < tried:
            self._set_aside_last = False
        elif tried > 1 or self._set_aside_last:
            raise _RefusedAllError(f"the store refuses every event: {refused[-1][1]}")
        for entry, error in refused:
            self._poison(entry, error)
            self._set_aside_last = tried == 1

    def _publish(self, pairs: Sequence[tuple[Entry, Stamped]]) -> None:
        """Pass stored events to the subscriber and remove their entries. Raises StoreUnavailable."""
        for index, (_, stamped) in enumerate(pairs):
            try:
                self._on_stored(stamped.event)
            except StoreUnavailable:
                self._remove(pairs[:index])
                raise
        self._remove(pairs)

    def _remove(self, pairs: Sequence[tuple[Entry, Stamped]]) -> None:
        self._spool.remove([entry.id for entry, _ in pairs])
        self.written += len(pairs)

    def _poison(self, entry: Entry, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        self._spool.set_aside(entry.id, why)
        self.set_aside += 1
        log.error(
            "an event cannot be stored and was set aside: entry %d, %s number %d: %s", entry.id, entry.instance, entry.n, why
        )

    def _on_failure(self, error: Exception) -> None:
        refuses = isinstance(error, _RefusedAllError)
        if not self._failures or refuses > self._refuses:
            level = logging.ERROR if refuses or isinstance(error, StoreMisconfigured) else logging.WARNING
            log.log(level, "the store accepts no events, they wait in the spool: %s", error)
        self._refuses = refuses
        self._on_refusing(refuses)
        self._failures += 1
        self.retries += 1
        self._failed_at_s = time.monotonic()
        self.last_problem = str(error)

    def _on_success(self) -> None:
        if self._failures:
            log.warning("the store accepts events again, %d are waiting", self._spool.backlog())
        self._failures = 0
        self._refuses = False
        self._on_refusing(False)
        self.last_problem = ""

    def _pause_s(self) -> float:
        longest_s = min(self._retry_max_s, self._retry_min_s * 2.0 ** min(self._failures - 1, 30))
        return random.uniform(longest_s / 2, longest_s)
