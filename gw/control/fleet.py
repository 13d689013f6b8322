"""This gateway among the others of its store: holds its id, is heard, and ends the calls of gateways that are gone.

The row of this gateway in the table `gateways` is its lease on its id: renewed every BEAT_S, free for another gateway of the same
id SILENT_S after the last time. Without the lease nothing of an earlier process is continued: it may be alive elsewhere.

The live gateway with the smallest id works for those that are gone. It looks after their recordings, and ends their calls
once they have been silent for longer than a call can last. A command shows all gateways, another drains the machine of one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import gevent
import msgspec
from gevent.event import Event

from gw.bounded import OutOfTimeError, within
from gw.control.admin.machine import MachineState
from gw.control.admin.server import Command, CommandError, NoArguments, acts, reads
from gw.control.identity import Identity
from gw.control.rows import GatewayRow, ListedGateway
from gw.control.store import Claimed, Report, Store, StoreError
from gw.control.store.gateways import SILENT_S, is_live

log = logging.getLogger(__name__)

#: Between two heartbeats.
BEAT_S: Final = 5.0
#: After a failed heartbeat: the lease is taken soon after the store is back, because recordings wait for it.
RETRY_S: Final = 1.0
#: At the start: how long another holder of the id is watched for a heartbeat, and between two looks.
WATCH_S: Final = BEAT_S + 2.0
LOOK_S: Final = 0.5
#: Bound on one claim at the start, and on the note of a stop.
CLAIM_S: Final = 1.0
#: Beyond the longest call: for its end to reach the store.
MARGIN_S: Final = 120.0
#: Between two looks for gateways that are gone.
LEAD_S: Final = 30.0
#: After a start or an outage of the store, others may take this long to be heard and to deliver their spools.
STEADY_S: Final = 60.0
#: Gateways that are gone whose recordings are looked at, the latest first.
MAX_ADOPTED: Final = 50
#: A gateway that was not heard for this long is removed from the table.
KEEP_S: Final = 7 * 86_400.0
#: Bound on the wait for another gateway's drain: its heartbeat, its notice, and its answer. Less than its client waits.
DRAIN_S: Final = 12.0


class Lease:
    """The lease on this gateway's id. `held`: set while this gateway has it. `problem`: why it does not; empty otherwise."""

    def __init__(self, store: Store, identity: Identity, report: Callable[[], Report]) -> None:
        self._store = store
        self._identity = identity
        self._report = report
        self._renewed_s = -math.inf
        self._has_begun = False
        self.held = Event()
        self.problem = ""

    def may_settle(self) -> bool:
        """Return whether the lease is held and cannot have passed to another gateway."""
        return self.held.is_set() and time.monotonic() - self._renewed_s < SILENT_S

    def take(self) -> Claimed:
        """Take or renew the lease. Raises StoreError."""
        asked_s = time.monotonic()
        claimed = self._store.claim_gateway(self._report(), begins=not self._has_begun)
        if claimed.step == "held" and claimed.before is not None:
            self._on_refused(claimed.before)
        else:
            self._on_taken(claimed, asked_s)
        return claimed

    def take_at_start(self) -> bool:
        """Take the lease. Returns False if another gateway is proven to hold it: its heartbeat changed. Raises StoreError."""
        until_s = time.monotonic() + WATCH_S
        first: float | None = None
        while True:
            with within(CLAIM_S):
                claimed = self.take()
            if claimed.step != "held" or claimed.before is None:
                return True
            first = claimed.before.heartbeat_at if first is None else first
            if claimed.before.heartbeat_at > first:
                return False
            if time.monotonic() > until_s:
                return True  # it may have lost power; its silence decides
            gevent.sleep(LOOK_S)

    def _on_taken(self, claimed: Claimed, asked_s: float) -> None:
        if claimed.step == "taken_over":
            log.warning("took over the id %s: its last holder was silent", self._identity.gateway)
        elif self.problem:
            log.warning("the id %s is held here again", self._identity.gateway)
        self._renewed_s = asked_s
        self._has_begun = True
        self.problem = ""
        self.held.set()

    def _on_refused(self, holder: GatewayRow) -> None:
        self.held.clear()
        if not self.problem:
            self.problem = (
                f"another gateway, on {holder.machine}, runs with the id {self._identity.gateway}: var_dir was copied. "
                f"Stop the copy, delete {self._identity.file} there, and start it again"
            )
            log.error("%s", self.problem)


class _DrainMachine(msgspec.Struct, forbid_unknown_fields=True):
    machine: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]  # or the gateway's id
    on: bool = True


class Fleet:
    """The greenlet of heartbeats, and the commands over all gateways."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        identity: Identity,
        machine: MachineState,
        *,
        longest_call_s: float,
        owned: Callable[[], set[str]],
        end_calls: Callable[[set[str]], None],
        backlog: Callable[[], int],
        require_schema: Callable[[], None],
    ) -> None:
        """`owned`: the calls alive here. `backlog`: number of events that wait for the store. `require_schema` raises
        StoreUnavailable until the schema is ready."""
        self._store = store
        self._lease = lease
        self._identity = identity
        self._machine = machine
        self._gone_s = gone_after_s(longest_call_s)
        self._owned = owned
        self._end_calls = end_calls
        self._backlog = backlog
        self._require_schema = require_schema
        self._steady_s = math.inf  # since when every heartbeat succeeded
        self._lead_s = 0.0  # when to look next
        self._adopted: list[str] = []
        self._abandoned: set[str] = set()  # at the last look; bounded by the store's lists
        self._problem = ""
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def commands(self) -> dict[str, Command]:
        """Return the admin commands by name."""
        return {
            "fleet": reads(NoArguments, lambda _: listed(*self._store.gateways(), self._gone_s)),
            "drain_machine": acts(_DrainMachine, self._on_drain_machine),
        }

    def adopted(self) -> Sequence[str]:
        """Return the gateways that are gone and whose recordings this one looks after."""
        return self._adopted

    def is_duplicate(self) -> bool:
        """Take the lease at the start. Returns whether another live gateway has it and this one has no calls."""
        try:
            self._require_schema()
            if self._owned() or self._machine.calls:
                with within(CLAIM_S):
                    self._lease.take()
                return False
            return not self._lease.take_at_start()
        except (StoreError, OutOfTimeError) as error:
            log.info("the lease on the id waits for the store: %s", error)
            return False

    def start(self) -> None:
        """Start the greenlet."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Kill the greenlet; waits at most 1 s."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)

    def leave(self) -> None:
        """Note that this gateway has stopped, so that a copy of it may start. Waits at most CLAIM_S."""
        if not self._lease.held.is_set():
            return
        try:
            with within(CLAIM_S):
                self._store.stop_gateway(self._identity.gateway, self._identity.fingerprint)
        except (StoreError, OutOfTimeError) as error:
            log.info("the stop is not noted in the store, the others will find this gateway silent: %s", error)

    def beat(self) -> None:
        """Renew the lease, drain the machine if asked, and look after gateways that are gone. Raises StoreError."""
        self._require_schema()
        claimed = self._lease.take()
        now_s = time.monotonic()
        self._steady_s = min(self._steady_s, now_s)
        if claimed.step == "held":
            self._adopted = []
            return
        if claimed.before is not None and claimed.before.drain_asked is not None:
            self._drain(claimed.before.drain_asked)
        if now_s >= self._lead_s and now_s - self._steady_s >= STEADY_S and not self._backlog():
            self._lead_s = now_s + LEAD_S
            self._lead()

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            problem = ""
            try:
                self.beat()
            except StoreError as error:
                problem = str(error)
                self._steady_s = math.inf
                if not self._problem:
                    log.info("no heartbeat: %s", error, extra={"reason": error.code})
            except Exception as error:  # this greenlet's top: the next heartbeat tries again
                problem = str(error)
                log.exception("a heartbeat failed")
            self._problem = problem
            gevent.sleep(RETRY_S if problem else BEAT_S)

    def _lead(self) -> None:
        """Look after the gateways that are gone, if no other live gateway has a smaller id. Raises StoreError."""
        now, rows = self._store.gateways()
        if min((row.gateway for row in rows if is_live(row, now)), default="") != self._identity.gateway:
            self._adopted = []
            return
        gone = sorted((row for row in rows if not is_live(row, now)), key=lambda row: -row.heartbeat_at)
        self._adopted = [row.gateway for row in gone[:MAX_ADOPTED]]
        abandoned = {row.call_sid for row in self._store.abandoned_calls(self._gone_s)} - self._owned()
        # A look ago too: the clock of a database that failed over may have jumped, and every gateway seemed gone.
        left, self._abandoned = abandoned & self._abandoned, abandoned
        if left:
            log.warning("%d calls were left open by gateways that are gone", len(left))
            self._end_calls(left)
        if removed := self._store.forget_gateways(max(KEEP_S, self._gone_s)):
            log.info("%d gateways that were not heard for a week were removed from the store", removed)

    def _drain(self, on: bool) -> None:
        """Carry out the request of an operator at another gateway. Raises StoreError."""
        log.warning("an operator at another gateway %s this machine", "drains" if on else "undrains")
        self._machine.drain(on)
        self._store.answer_drain(self._identity.gateway, on=on)

    def _on_drain_machine(self, args: _DrainMachine) -> Any:
        row = self._live_gateway(args.machine)
        found = {"gateway": row.gateway, "machine": row.machine}
        if row.gateway == self._identity.gateway:
            return {**found, **self._machine.drain(args.on)}
        self._store.ask_drain(row.gateway, on=args.on)
        until_s = time.monotonic() + DRAIN_S
        while time.monotonic() < until_s:
            gevent.sleep(LOOK_S)
            _, rows = self._store.gateways()
            if not any(one.gateway == row.gateway and one.drain_asked is not None for one in rows):
                return {**found, "draining": args.on}
        raise CommandError(
            "timeout",
            f"{row.machine} ({row.gateway}) has not answered within {DRAIN_S:g} s; it follows the request at its next heartbeat. "
            "See gateway.py status --fleet",
        )

    def _live_gateway(self, name: str) -> GatewayRow:
        """Return the live gateway of a machine, or with an id. Raises CommandError, StoreError."""
        now, rows = self._store.gateways()
        live = [row for row in rows if is_live(row, now)]
        named = [row for row in live if name in (row.machine, row.gateway)]
        if len(named) == 1:
            return named[0]
        if named:
            ids = ", ".join(row.gateway for row in named)
            raise CommandError("failed", f"{len(named)} gateways run on {name}; use the id of one instead: {ids}")
        machines = ", ".join(sorted({row.machine for row in live})) or "none"
        raise CommandError("not_found", f"no live gateway on a machine {name!r}; the live ones: {machines}")


def gone_after_s(longest_call_s: float) -> float:
    """Return how long a gateway is silent until none of its calls can be alive."""
    return longest_call_s + MARGIN_S


def listed(now: float, rows: Sequence[GatewayRow], gone_s: float) -> list[ListedGateway]:
    """Return the gateways with their states. `gone_s`: silent for longer, a gateway has no call."""
    return [
        ListedGateway(
            **msgspec.structs.asdict(row),
            state=_state(row, now, gone_s),
            heartbeat_age_s=round(max(0.0, now - row.heartbeat_at), 1),
        )
        for row in rows
    ]


def _state(row: GatewayRow, now: float, gone_s: float) -> str:
    if row.stopped_at is not None:
        return "stopped"
    if is_live(row, now):
        return "live"
    return "gone" if now - row.heartbeat_at > gone_s else "silent"
