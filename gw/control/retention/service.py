"""Runs retention in one greenlet: recordings first, then the purge of old calls.

One gateway of a store does so at a time, by a lease. Events come first: nothing is done while the spool has a backlog. A pass is
bounded in time, and the next one continues it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import gevent
import msgspec

from gw.config import Config
from gw.control.admin.server import Command, acts
from gw.control.jobs import table
from gw.control.retention.erasure import Erasure
from gw.control.retention.purge import Swept, policy_of, sweep
from gw.control.retention.recordings import Recordings, open_files
from gw.control.spool import Spool, SpoolError
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Store, StoreError
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.rest import MEDIA_S
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

LEASE: Final = "retention"
#: Life of the lease beyond the longest download: it is renewed before each.
LEASE_S: Final = MEDIA_S + 60.0
#: From the start of control to the first pass, and between two passes.
FIRST_S: Final = 20.0
PASS_S: Final = 20.0
#: Longest part of a pass for the purge, and for beginning downloads and deletions.
WORK_S: Final = 30.0
#: Between the end of a sweep and the next one.
SWEEP_S: Final = 900.0
#: Events in the spool that count as a backlog.
BACKLOG: Final = 200
_DAY_S: Final = 86_400.0


class _Forget(msgspec.Struct, forbid_unknown_fields=True):
    call_sid: str
    twilio: bool = False


class Retention:
    """The greenlet, and the command `forget`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        spool: Spool,
        forwarder: Forwarder,
        accounts: Accounts,
        page: Page,
        *,
        owner: str,
        machine: str,
        is_owned: Callable[[str], bool],
        require_schema: Callable[[], None],
        may_settle: Callable[[], bool],
    ) -> None:
        """`owner`: this gateway's id. `may_settle`: whether it is held here. `is_owned`: whether a call is alive here.
        `require_schema` raises StoreUnavailable until the schema is ready."""
        self._store = store
        self._spool = spool
        self._owner = owner
        self._require_schema = require_schema
        self._may_settle = may_settle
        self._keep_s = config.store.keep_days * _DAY_S
        self._policy = policy_of(config)
        self._files = open_files(config)
        self._recordings = Recordings(config, store, accounts, page, machine=machine, files=self._files)
        self._erasure = Erasure(
            store,
            spool,
            forwarder,
            accounts,
            self._recordings,
            self._files,
            gateway=owner,
            fetches=self._policy.fetches,
            is_owned=is_owned,
        )
        self._purged = page.counter(declare.CALLS_PURGED)
        self._sweep: Iterator[Swept] | None = None
        self._next_sweep_s = 0.0
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def commands(self) -> dict[str, Command]:
        """Return the admin commands of this part."""
        return {"forget": acts(_Forget, self._on_forget, erases=True)}

    def start(self) -> None:
        """Start the greenlet, unless everything is kept."""
        if self._keep_s or any(self._policy):
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Kill the greenlet, and end the thread; waits at most 2 s."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=2.0)
        self._files.close()

    def pass_over(self) -> None:
        """Do the due work for a bounded time. Raises StoreError, SpoolError."""
        self._recordings.discard_parts()  # needs no lease: each gateway has its own folder
        self._require_schema()
        if not self._may_continue():
            return
        try:
            until_s = time.monotonic() + WORK_S
            if any(self._policy):
                self._recordings.pass_over(lambda: time.monotonic() < until_s and self._may_continue())
            if self._keep_s:
                self._purge()
        finally:
            self._store.release_lease(LEASE, self._owner)

    def _run(self) -> None:
        gevent.sleep(FIRST_S)
        while True:
            try:
                self.pass_over()
            except (StoreError, SpoolError) as error:
                log.warning("retention is postponed: %s", error, extra={"reason": error.code})
            except Exception:  # this greenlet's top: the next pass tries again
                log.exception("a pass of retention failed")
            gevent.sleep(PASS_S)

    def _may_continue(self) -> bool:
        """Renew the lease, unless events wait for the store or another gateway has it. Raises StoreError."""
        now = time.time()
        if self._spool.backlog() >= BACKLOG or not self._may_settle():
            return False
        return self._store.take_lease(LEASE, self._owner, now, now + LEASE_S)

    def _purge(self) -> None:
        """Continue the sweep, or begin the next one. Raises StoreError, SpoolError."""
        if self._sweep is None:
            if time.monotonic() < self._next_sweep_s:
                return
            before = time.time() - self._keep_s
            self._spool.transact(partial(table.purge, before=before))
            self._sweep = sweep(self._store, before, self._policy)
        until_s = time.monotonic() + WORK_S
        calls = 0
        try:
            for page in self._sweep:
                calls += page.calls
                self._purged.add(page.calls)
                gevent.sleep(page.pause_s())
                if time.monotonic() > until_s or not self._may_continue():
                    break
            else:
                self._sweep, self._next_sweep_s = None, time.monotonic() + SWEEP_S
        except BaseException:
            self._sweep = None  # the next pass begins a sweep
            raise
        finally:
            if calls:
                log.info("%d calls older than store.keep_days were removed from the store", calls)

    def _on_forget(self, arguments: _Forget) -> Any:
        return self._erasure.erase(arguments.call_sid, twilio=arguments.twilio)
