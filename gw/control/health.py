"""Reports the gateway's health: `/readyz`, the `status` command, and the gauges of the control process.

The gateway is ready while a worker is connected that does not drain, no operator drained the machine, no other gateway holds its
id, it is not stopping, and the spool can be written if calls are to be recorded: a wish that cannot be kept is not carried out.
Other problems are reported beside that and do not change it. Only `status` asks the store, within PROBE_S; the other reports use
the forwarder's last outcome.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import msgspec

from gw.config import VERSION, Config
from gw.control.admin.machine import MachineState
from gw.control.bus.server import BusServer
from gw.control.jobs.service import Jobs
from gw.control.ops_http import Readiness
from gw.control.recording.claims import Claims
from gw.control.spool import Spool
from gw.control.store import Store, StoreError
from gw.control.twilio_api.accounts import Account, Accounts
from metrics import declare
from metrics.page import Page
from metrics.process_figures import ProcessFigures

#: Period of the gauges.
GAUGES_S: Final = 1.0
#: `status` waits this long for the store: less than the admin client waits for `status`.
PROBE_S: Final = 2.0
#: With less free space the disk of the spool counts as full: SQLite writes whole pages, and the log of a commit first.
FULL_BYTES: Final = 1 << 20
#: Between two looks whether the spool accepts a commit again.
SPOOL_LOOK_S: Final = 2.0


class Health:
    """Joins the states of control's parts."""

    def __init__(
        self,
        config: Config,
        page: Page,
        *,
        store: Store,
        store_problem: Callable[[], str],
        spool: Spool,
        claims: Claims,
        bus: BusServer,
        machine: MachineState,
        accounts: Accounts,
        jobs: Jobs,
        is_stopping: Callable[[], bool],
        schema_state: Callable[[], str],
        gateway: str,
        lease_problem: Callable[[], str],
        day: Callable[[], dict[str, object]] = dict,
    ) -> None:
        """`store_problem` returns why the store last accepted no events, `lease_problem` why the id `gateway` is not held here;
        empty otherwise. `schema_state` returns a state of `gw_store_schema`, `day` that of the day's budget."""
        self._started_at, self._started_s = time.time(), time.monotonic()
        self._config = config
        self._store = store
        self._store_problem = store_problem
        self._spool = spool
        self._claims = claims
        self._bus = bus
        self._machine = machine
        self._accounts = accounts
        self._jobs = jobs
        self._is_stopping = is_stopping
        self._schema_state = schema_state
        self._gateway = gateway
        self._lease_problem = lease_problem
        self._day = day
        self._is_disk_full = False
        self._probe: gevent.Greenlet[..., tuple[str | None, str]] | None = None  # its value: the revision, and the problem
        self._probed_s = 0.0
        self._ready = page.gauge(declare.READY)
        self._drained = page.gauge(declare.DRAINED)
        page.gauge(declare.START_TIME).set(self._started_at)
        self._reload_time = page.gauge(declare.RELOAD_TIME)
        self._reload_failed = page.gauge(declare.RELOAD_FAILED)
        self._figures = ProcessFigures(page, "control")
        self._corrupt = page.gauge(declare.SPOOL_CORRUPT)
        self._disk_free = page.gauge(declare.DISK_FREE)
        self._schema = {state: page.gauge(declare.STORE_SCHEMA, state=state) for state in declare.STORE_SCHEMA.labels["state"]}
        self._refused = page.gauge(declare.STORE_REFUSED)
        self._circuit = page.gauge(declare.TWILIO_CIRCUIT_OPEN)
        self._claims_held = page.gauge(declare.RECORDING_CLAIMS_HELD)
        self._workers = {state: page.gauge(declare.WORKERS, state=state) for state in declare.WORKERS.labels["state"]}
        outcomes = declare.RECORDINGS.labels["outcome"]
        self._recordings = {outcome: page.counter(declare.RECORDINGS, outcome=outcome) for outcome in outcomes}

    def readiness(self) -> Readiness:
        """Return whether new calls are accepted, and every problem."""
        # While the spool fails, workers reconnect repeatedly. They accept calls and keep their events.
        spool_problem = self._spool_problem()
        workers = [worker for worker in self._bus.workers() if worker.connected or spool_problem]
        reasons = []
        if not workers:
            reasons.append("no worker is connected")
        elif all(worker.draining for worker in workers):
            reasons.append("every worker drains")
        if self._machine.drained:
            reasons.append("drained by an operator")
        if problem := self._lease_problem():
            reasons.append(problem)
        if spool_problem and self._config.recording.enabled and self._accounts:
            reasons.append(f"calls would not be recorded, {spool_problem}")
        stopping = self._is_stopping()
        ready = not reasons and not stopping
        reasons += self._machine.problems()
        if stopping:
            reasons.append("the gateway stops")
        if spool_problem:
            reasons.append(f"events stay with the workers, {spool_problem}")
        if refused := self._bus.refused():
            reasons.append(f"{refused}: that worker keeps its events")
        reasons += [account.problem for account in self._accounts if account.problem]
        if problem := self._store_problem():
            reasons.append(f"the store accepts no events, {self._spool.backlog()} wait in the spool: {problem}")
        return Readiness(ready=ready, reasons=reasons)

    def status(self) -> dict[str, Any]:
        """Return the document of the `status` command."""
        return {
            "version": VERSION,
            "host": socket.gethostname(),
            "gateway": self._gateway,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "public_url": self._config.server.public_url,
            "signed": self._config.signed,
            "readiness": msgspec.to_builtins(self.readiness()),
            "workers": msgspec.to_builtins(self._bus.workers()),
            "machine": self._machine.status(),
            "calls": len(self._bus.calls.owned()),
            "backlog": self._spool.backlog(),
            "poison": self._spool.poisoned(),
            "jobs": {"open": self._jobs.backlog().open, "oldest_s": round(self._jobs.backlog().oldest_s, 3)},
            "claims": len(self._claims),
            "budget": self._day(),
            "cut_values": self._store.cut_values,
            "twilio": self._twilio(),
            "store": self._probe_store(),
            "recordings": {outcome: int(counter.value) for outcome, counter in self._recordings.items()},
        }

    def watch_spool(self) -> None:
        """After a failed commit, look whether the spool accepts one again, periodically: the body of a greenlet.

        The worker whose events failed may have ended, so that no other commit would come.
        """
        while True:
            gevent.sleep(SPOOL_LOOK_S)
            if self._bus.spool_problem:
                self._bus.check_spool()

    def keep_gauges(self) -> None:
        """Set the gauges, periodically: the body of a greenlet."""
        while True:
            counts = dict.fromkeys(self._workers, 0)
            for worker in self._bus.workers():
                counts["lost" if not worker.connected else "draining" if worker.draining else "up"] += 1
            for state, gauge in self._workers.items():
                gauge.set(float(counts[state]))
            self._refused.set(float(self._spool.poisoned()))
            self._circuit.set(float(any(account.breaker.is_open for account in self._accounts)))
            self._claims_held.set(float(len(self._claims)))
            self._ready.set(float(self.readiness().ready))
            self._drained.set(float(self._machine.drained))
            self._reload_failed.set(float(self._machine.has_reload_failed))
            self._reload_time.set(self._machine.reloaded_at)
            self._figures.update()
            with contextlib.suppress(OSError):
                disk = os.statvfs(self._config.ops.var_dir)
                free = disk.f_bavail * disk.f_frsize
                self._disk_free.set(float(free))
                self._is_disk_full = bool(disk.f_blocks) and free < FULL_BYTES  # a size of 0 is an unknown one
                self._corrupt.set(float(self._spool.corrupt_files()))
            for state, gauge in self._schema.items():
                gauge.set(float(state == self._schema_state()))
            gevent.sleep(GAUGES_S)

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _twilio(self) -> dict[str, Any]:
        """Return the circuit of the main account, and those of the named ones."""
        main = self._accounts.named("")
        named = {account.name: _circuit(account) for account in self._accounts if account.name}
        return {**(_circuit(main) if main else {"circuit": "none", "opened": 0, "problem": ""}), "accounts": named}

    def _spool_problem(self) -> str:
        """Return why events cannot be spooled; empty while they can."""
        full = f"the disk of {self._config.ops.var_dir} (ops.var_dir) is full: free some of it" if self._is_disk_full else ""
        return self._bus.spool_problem or full

    def _probe_store(self) -> dict[str, Any]:
        """Ask the store for its revision, once at a time: a request meanwhile waits no longer than the first."""
        if self._probe is None or self._probe.ready():
            self._probe, self._probed_s = gevent.spawn(self._current), time.monotonic()
        self._probe.join(max(0.0, self._probed_s + PROBE_S - time.monotonic()))
        revision, problem = self._probe.value or (None, "")
        if not self._probe.ready():
            problem = f"no answer within {PROBE_S:g} s: check the server of store.url"
        kind = "sqlite" if self._config.store.url.startswith("sqlite") else "mysql"
        shown = {"kind": kind, "reachable": not problem, "revision": revision, "schema": self._schema_state()}
        return {**shown, "problem": problem or self._store_problem()}

    def _current(self) -> tuple[str | None, str]:
        try:
            return self._store.current()[0], ""
        except StoreError as error:
            return None, str(error)


def _circuit(account: Account) -> dict[str, Any]:
    breaker = account.breaker
    return {"circuit": breaker.state, "opened": breaker.opened, "problem": breaker.last_problem}
