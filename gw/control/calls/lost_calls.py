"""Ends calls for workers that are gone: `worker_lost`, through the spool like any other event.

So the end of a lost call is ordered after its beginning, survives an outage of the store, and yields to a real end that still
arrives. Calls that a former control process left open are looked for once, after the workers had time to connect and the store
has the events that wait in the spool: a call's end may be among them. Never ends a call that a worker owns.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import gevent
import gevent.event

from gw import bus
from gw.call.quality import Quality
from gw.call.state import Reason, result_of
from gw.control.calls.registry import KEEP_S
from gw.control.jobs.table import Wanted
from gw.control.spool import Spool, SpoolError
from gw.control.store import Store, StoreError
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: From the start until calls without a worker count as lost; by then the workers have connected.
GRACE_S: Final = 10.0
#: Within this time the backlog of the spool must be in the store, so that a call that ended meanwhile is still known.
STORED_S: Final = KEEP_S / 2
#: Between tries while the spool or the store fails.
RETRY_S: Final = 1.0


class LostCalls:
    """Ends of lost calls, written by one greenlet. `notify` is called after each commit."""

    def __init__(self, spool: Spool, page: Page, *, notify: Callable[[], None]) -> None:
        self._spool = spool
        self._notify = notify
        self.jobs_of: Callable[[bus.Event], Sequence[Wanted]] = lambda event: ()
        self._ended = page.counter(declare.CALLS_ENDED, reason=str(Reason.WORKER_LOST))
        self._instance = f"control-{os.getpid()}-{time.time_ns():x}"
        self._n = 0
        self._pending: dict[str, float] = {}  # bounded by the calls workers and rows can name
        self._wake = gevent.event.Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        """Start the greenlet that writes."""
        self._greenlets.append(gevent.spawn(self._run))

    def stop(self) -> None:
        """Write the pending ends, then stop."""
        gevent.killall(self._greenlets, timeout=2.0)
        if self._pending:
            try:
                self._write()
            except SpoolError as error:
                log.error("%d lost calls stay open until the next start: %s", len(self._pending), error)

    def add(self, call_sids: Iterable[str], at: float | None = None) -> None:
        """End these calls, as of `at` (default: now)."""
        ended_at = time.time() if at is None else at
        for call_sid in call_sids:
            self._pending.setdefault(call_sid, ended_at)
        self._wake.set()

    def watch_orphans(self, store: Store, gateway: str, is_known: Callable[[str], bool]) -> None:
        """After the grace, end this gateway's open calls that are not known: no worker had them since the start."""
        self._greenlets.append(gevent.spawn(self._end_orphans, store, gateway, is_known))

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._pending:
                try:
                    self._write()
                except SpoolError as error:
                    log.error("lost calls cannot be ended yet: %s", error, extra={"reason": error.code})
                    gevent.sleep(RETRY_S)

    def _write(self) -> None:
        batch = dict(self._pending)
        reason = Reason.WORKER_LOST
        ends = [
            bus.CallEnded(call_sid, ended_at, str(reason), str(result_of(reason)), "its worker is gone", Quality())
            for call_sid, ended_at in batch.items()
        ]
        first = self._n + 1
        self._n += len(ends)  # a number is never used twice, even if the commit may have failed
        jobs = {first + k: self.jobs_of(end) for k, end in enumerate(ends)}
        self._spool.append(self._instance, [(first + k, bus.encode_event(end)) for k, end in enumerate(ends)], jobs=jobs)
        for call_sid in batch:
            del self._pending[call_sid]
        self._ended.add(len(ends))
        self._notify()

    def _end_orphans(self, store: Store, gateway: str, is_known: Callable[[str], bool]) -> None:
        gevent.sleep(GRACE_S)
        logged = ""
        while True:
            due, asked_s = sum(self._spool.progress()), time.monotonic()
            try:
                while self._spool.progress()[0] < due:  # a call's end may wait there
                    gevent.sleep(RETRY_S)
                rows = store.open_calls(gateway=gateway)
                if time.monotonic() - asked_s < STORED_S:
                    break
            except StoreError as error:
                if logged != (logged := str(error)):  # not once a second for the hours a store may be away
                    log.info("open calls of earlier workers cannot be looked for yet: %s", error)
                gevent.sleep(RETRY_S)
        orphans = {row.call_sid for row in rows if not is_known(row.call_sid)}
        if orphans:
            log.warning("%d calls were left open by workers that are gone", len(orphans))
            self.add(orphans)
