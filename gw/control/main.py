"""Builds, runs and shuts down the control process.

Construction binds every socket and opens the spool, so a missing precondition fails the start with one sentence. A start without
the store succeeds: calls continue, events wait in the spool, and the schema is upgraded once the store is back. Shutdown is
bounded by STOP_S, and by HAND_OVER_S where another control process follows: the workers have no bus until then. The next
start resumes from the spool and the store's rows whatever was cut off.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.call.state import Reason
from gw.config import VERSION, Config
from gw.control.admin.audit import Audit
from gw.control.admin.client import read_only
from gw.control.admin.commands import AdminCommands
from gw.control.admin.hooks import HookCommands
from gw.control.admin.lists import ListCommands
from gw.control.admin.log_levels import LogLevels
from gw.control.admin.machine import NOTICE_S, MachineState
from gw.control.admin.server import AdminServer
from gw.control.bus.server import BusServer
from gw.control.calls.after_stream import AfterStream
from gw.control.calls.left_calls import LeftCalls
from gw.control.calls.lost_calls import LostCalls
from gw.control.calls.registry import Calls
from gw.control.calls.status_callbacks import StatusCallbacks
from gw.control.fleet import Fleet, Lease
from gw.control.health import Health
from gw.control.identity import identity_in
from gw.control.jobs.dial import DialHandler
from gw.control.jobs.digits import Digits
from gw.control.jobs.event import event_hooks
from gw.control.jobs.leave import LeaveHandler
from gw.control.jobs.route import SUBJECTS, Lookups, route_handler
from gw.control.jobs.service import Handler, Jobs
from gw.control.jobs.table import Wanted
from gw.control.jobs.tool import ToolKinds, tool_handlers
from gw.control.ops_http import OpsHttp
from gw.control.outbound.service import Outbound
from gw.control.recording.claims import Claims
from gw.control.recording.pauses import Pauses
from gw.control.recording.service import RecordingService
from gw.control.retention.service import Retention
from gw.control.spending import Spending
from gw.control.spool import Spool, SpoolError
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Report, Store
from gw.control.store.schema import Schema
from gw.control.turn_metrics import TurnMetrics
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.transfers import Transfers
from gw.control.unix_socket import PrivateListener
from gw.errors import GatewayError, text_of
from gw.scoreboard import Scoreboard, ScoreboardRow
from metrics import declare, exposition, pages_dir
from metrics.page import Page, PageError

log = logging.getLogger(__name__)

#: The start waits this long for the store, and then for the check of its schema: a store that is away delays nothing else.
FIRST_ANSWER_S: Final = 0.5
#: The same for the schema of an empty store, so that a new gateway is ready with its store.
FIRST_UPGRADE_S: Final = 5.0
#: Without a supervisor, workers may take this long after their drain to hand over their last events.
LEAVE_S: Final = 10.0
#: Upper bound on the shutdown, below the time after which the supervisor kills.
STOP_S: Final = 9.0
#: The same when another control process follows, and the part of it that a request under way may take.
HAND_OVER_S: Final = 1.0
HAND_OVER_REQUEST_S: Final = 0.1
#: Bound on a request under way at any other stop.
REQUEST_S: Final = 0.5
#: Part of STOP_S in which the forwarder may empty the spool, and how long it may store nothing: the store is away then.
FORWARD_S: Final = 6.0
STUCK_S: Final = 0.3
#: A thread of this process waits no longer than this for the interpreter: a result of a tool waits for the threads of the disk.
SWITCH_S: Final = 0.0005
#: Events of an earlier process that are read at the start: a tenth of a second's work, and minutes of a busy machine's calls.
MAX_RECALLED: Final = 10_000


class Control:
    """One control process. Construction binds, `run` serves, any greenlet may call `stop`."""

    def __init__(
        self,
        config: Config,
        *,
        scoreboard: Scoreboard | None = None,
        row: ScoreboardRow | None = None,
        is_orphan: Callable[[], bool] = lambda: False,
    ) -> None:
        """`scoreboard`, `row`: the state shared by all processes, and control's row in it. `is_orphan`: whether the supervisor
        is gone. Raises OSError, GatewayError, PageError or ValueError, after closing everything opened so far."""
        self._config = config
        self._is_orphan = is_orphan
        self._scoreboard = scoreboard or Scoreboard.private()
        self._row = row or self._scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self._host = socket.gethostname()
        self._stopping = Event()
        self._leaving = Event()
        self._hands_over = False  # another control process follows
        self._failed = False
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        with ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()  # for `close`; `run` closes everything itself

    def _open(self, opened: ExitStack) -> None:
        """Construct the parts, each after its dependencies, then connect the subscribers."""
        config, var_dir = self._config, Path(self._config.ops.var_dir)
        var_dir.mkdir(parents=True, exist_ok=True)
        identity = self._identity = identity_in(var_dir)

        # State on disk and in shared memory.
        pages = var_dir / "pages"
        pages_dir.prepare(pages)
        page = self._page = Page.create(pages / "control.page")
        opened.callback(page.close)
        page.counter(declare.PROCESS_STARTS, process="control").add()
        spool = self._spool = Spool(var_dir / "spool.db")
        opened.callback(spool.close)
        store = self._store = Store(config.store, config.secrets.db_password)
        opened.callback(store.close)

        lease = self._lease = Lease(store, identity, self._report)

        # Events: from the workers into the spool, from the spool into the store.
        claims = Claims(spool, claimant=identity.gateway)
        spool.on_replaced = claims.keep_again
        forwarder = self._forwarder = Forwarder(
            spool,
            store,
            host=self._host,
            gateway=identity.gateway,
            on_backlog=page.gauge(declare.STORE_BACKLOG).set,
            before_batch=lambda: self._before_batch(claims),
            on_refusing=page.gauge(declare.STORE_REFUSES).set,
        )
        schema = self._schema = Schema(store, on_ready=forwarder.retry)
        self._lost = LostCalls(spool, page, notify=forwarder.notify)
        calls = Calls(several_accounts=len(config.accounts) > 1)
        server = self._bus = BusServer(var_dir / "bus.sock", spool, calls, on_lost=self._lost.add)
        opened.callback(server.stop)

        # Side effects outside the gateway, each a job.
        accounts = Accounts(config)
        audit = Audit(spool, forwarder.notify)
        digits = Digits(config.media.max_call_s)
        pauses = Pauses(
            spool,
            accounts,
            page,
            longest_call_s=config.media.max_call_s,
            is_over=calls.is_over,
            account_of=store.account_of,
            events_of=lambda call_sid: [] if (call := store.call(call_sid)) is None else call.events,
            waiting=_events_of_control(spool),
            note=audit.store,
        )
        hooks = event_hooks(config, page, store.call, spool, calls.is_owned, calls.is_over)
        leaves = LeaveHandler(config.server, accounts, calls.stream_began_at, server.expect_stop)
        routes = route_handler(config, page)
        outbound = self._outbound = Outbound(
            config,
            store.dials,
            accounts,
            disk=spool,
            wake_jobs=lambda: self._jobs.on_accepted(()),
            refusal=lambda: "; ".join(self._health.readiness().reasons),
            send_verdict=server.send_verdict,
            events=hooks.of_dial,
        )
        dialling = [DialHandler(store.dials, outbound, outbound)] if config.signed else []
        handlers: list[Handler] = [*tool_handlers(config, page, digits.of_call), leaves, *pauses.handlers, *hooks.handlers]
        handlers += dialling
        handlers += [routes] if routes else []

        def settle(settled: bus.JobSettled) -> bool:
            return lookups.on_settled(settled) or server.settle(settled)

        jobs = self._jobs = Jobs(spool, page, handlers, settle=settle, events=hooks.of_event, kind_of=ToolKinds(config.tools).of)

        def jobs_of(event: bus.Event) -> Sequence[Wanted]:
            return (*jobs.of_event(event), *pauses.of_event(event))

        self._lost.jobs_of = jobs_of

        # Acts on events.
        spending = self._spending = Spending(config, store, server, page)
        left_calls = LeftCalls(jobs.of_call)

        def on_foreign(kind: str) -> None:
            page.counter(declare.WEBHOOKS, kind=kind, outcome="wrong_account").add()

        after_stream = AfterStream(
            store,
            calls,
            on_lost=config.server.on_lost,
            check_owner=server.check_owner,
            on_foreign=on_foreign,
            spent_usd=spending.spent_usd,
            left_calls=left_calls,
            tools_of=jobs.tools_of,
        )
        lookups = Lookups(routes, jobs, spool, page, variables=after_stream.variables)

        def on_refused(call_sid: str) -> None:
            server.hang_up(call_sid, Reason.FALLBACK_TRANSFER)

        self._transfers = Transfers(accounts, done=calls.on_transferred, refused=on_refused)

        def on_completed(call_sid: str, recording_sid: str, duration_s: int | None) -> None:
            if wanted := hooks.of_recording(call_sid, recording_sid, duration_s):
                jobs.add(*(one.job for one in wanted))

        self._recording = RecordingService(
            config,
            store,
            accounts,
            page,
            claimant=identity.gateway,
            claims=claims,
            is_owned=calls.is_owned,
            is_over=calls.is_over,
            store_away_s=forwarder.failed_at_s,
            is_concealed=pauses.forbids_create,
            may_settle=lease.may_settle,
            adopted=lambda: self._fleet.adopted(),
            on_completed=on_completed,
        )
        pauses.is_asking = self._recording.recorder.is_creating

        def on_call_over(call_sid: str) -> None:
            self._recording.recorder.on_call_over(call_sid)
            digits.on_call_over(call_sid)
            pauses.on_call_over(call_sid)

        self._status_callbacks = StatusCallbacks(
            store,
            self._recording.rows,
            calls,
            gateway=identity.gateway,
            hang_up=server.hang_up,
            on_call_over=on_call_over,
            on_lost=self._lost.add,
            on_foreign=on_foreign,
            spooled=spool.progress,
        )

        self._retention = Retention(
            config,
            store,
            spool,
            forwarder,
            accounts,
            page,
            owner=identity.gateway,
            machine=self._host,
            is_owned=calls.is_owned,
            require_schema=schema.require,
            may_settle=lease.may_settle,
        )

        # Operations: health, metrics, admin commands.
        self._machine = MachineState(
            self._scoreboard,
            self._row,
            page,
            drain_workers=server.drain,
            is_orphan=self._is_orphan,
            notice_s=NOTICE_S if config.server.machine else 0.0,
        )

        self._fleet = Fleet(
            store,
            lease,
            identity,
            self._machine,
            longest_call_s=config.media.max_call_s,
            owned=calls.owned,
            end_calls=self._lost.add,
            backlog=spool.backlog,
            require_schema=schema.require,
        )

        def store_problem() -> str:
            return schema.problem or forwarder.last_problem

        self._health = Health(
            config,
            page,
            store=store,
            store_problem=store_problem,
            spool=spool,
            claims=claims,
            bus=server,
            machine=self._machine,
            accounts=accounts,
            jobs=jobs,
            is_stopping=self._stopping.is_set,
            schema_state=lambda: schema.state,
            gateway=identity.gateway,
            lease_problem=lambda: lease.problem,
            day=spending.day,
        )
        turns = TurnMetrics(config.agents)
        build: dict[tuple[str, ...], tuple[float]] = {(VERSION, platform.python_version()): (1.0,)}
        self._ops = OpsHttp(
            config.ops.listen,
            render=lambda: exposition.render(pages, {**turns.families(), **spending.counters(), declare.BUILD_INFO: build}),
            readiness=self._health.readiness,
            token=config.secrets.ops_token,
            refused=lambda reason: page.counter(declare.REQUESTS_REFUSED, reason=reason).add(),
            config=config,
        )
        opened.callback(self._ops.stop)
        self._commands = AdminCommands(
            store,
            server,
            accounts,
            self._health.status,
            recorder=self._recording.recorder,
            reconciler=self._recording.reconciler,
            pauses=pauses,
            spool=spool,
            audit=audit,
            jobs=jobs,
            notify=forwarder.notify,
            config=config,
        )
        levels = LogLevels(self._scoreboard, config.ops.log_level)
        commands = {
            **self._commands.table(),
            **HookCommands(spool, jobs, hooks.handlers).table(),
            **ListCommands(config, store.dials, outbound, accounts).table(),
            **self._retention.commands(),
            **self._machine.commands(),
            **self._fleet.commands(),
            **levels.commands(),
        }
        path, ops = Path(config.ops.admin_socket), config.ops
        self._admin = AdminServer(PrivateListener(path, ops.admin_group, key="ops.admin_group"), commands, on_act=audit.record)
        opened.callback(self._admin.stop)
        reader = PrivateListener(read_only(path), ops.read_group, key="ops.read_group")
        self._admin_reader = AdminServer(reader, commands, on_act=None)
        opened.callback(self._admin_reader.stop)

        # Subscriptions: each of these parts precedes its subscriber.
        forwarder.subscribe(self._on_stored)

        def answer(ask: bus.Ask) -> bus.Answer:
            part = digits if ask.about == "digits" else lookups if ask.about in SUBJECTS else after_stream
            return part.answer(ask)

        server.answer_with(answer)
        server.make_jobs_with(jobs_of, jobs.on_accepted, jobs.on_doubt)
        server.answer_jobs_with(jobs.results)
        server.cancel_jobs_with(jobs.cancel)
        server.subscribe(lambda _event: forwarder.notify())
        acting = (self._recording.recorder, self._status_callbacks, self._transfers, left_calls, outbound, self._ops.talk)
        for part in (spending, turns, *acting):
            server.subscribe(part.on_event)

    @property
    def ops_port(self) -> int:
        return self._ops.port

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stop` or the first failure. Returns the exit code."""
        self._spawn(self._schema.run)
        self._recall()
        self._bus.start()
        self._ops.start()
        self._admin.start()
        self._admin_reader.start()
        self._lost.start()
        if self._schema.reached.wait(FIRST_ANSWER_S):
            self._schema.answered.wait(FIRST_UPGRADE_S if self._schema.is_new else FIRST_ANSWER_S)
        if self._fleet.is_duplicate():
            log.critical("control cannot start: %s", self._lease.problem)
            self._failed = True
            self.stop()
            self._shut_down(None)
            return 1
        forwarding = self._spawn(self._forwarder.run)
        self._fleet.start()
        self._recording.reconciler.start()
        self._jobs.start()
        self._outbound.start()
        self._status_callbacks.start()
        self._retention.start()
        self._spawn(self._watch_orphans)
        if self._spool.was_replaced:
            self._spawn(partial(self._recording.recover_claims, self._bus.calls.owned))
        self._spawn(self._health.keep_gauges)
        self._spawn(self._health.watch_spool)
        self._spawn(self._spending.run_reads)
        self._spawn(self._spending.run)
        self._spawn(self._machine.run)
        on_ready()
        log.info("control is ready, ops port %d", self.ops_port)
        self._stopping.wait()
        self._await_workers()
        self._shut_down(forwarding)
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Let `run` end. A second call ends the wait for the workers of a lost supervisor: another control takes over."""
        if self._stopping.is_set():
            self._leaving.set()
        self._stopping.set()
        self._schema.stop()

    def hand_over(self) -> None:
        """Let `run` end quickly, because another control process follows: what waits in the spool is left to it."""
        self._hands_over = True
        self.stop()

    def close(self) -> None:
        """Close everything opened by the construction, instead of a `run`."""
        self._opened.close()

    # -- inside -----------------------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Note the latest events that wait for the store: a returning call needs its whole conversation."""
        try:
            waiting = self._spool.latest(MAX_RECALLED)
        except SpoolError as error:
            log.warning("events that wait for the store are not known: %s", error)
            return
        for entry in waiting:
            with suppress(bus.BusError):  # the forwarder sets it aside
                self._bus.calls.recall(bus.decode_event(entry.body), time.monotonic())

    def _before_batch(self, claims: Claims) -> None:
        """Refuse a schema that is not ready, then deliver the claims. Raises StoreUnavailable, SpoolError."""
        self._schema.require()
        claims.deliver(self._store)

    def _report(self) -> Report:
        """Return what the other gateways of the store see of this one."""
        return Report(
            self._identity.gateway,
            self._identity.fingerprint,
            self._config.server.machine or self._host,
            VERSION,
            ready=self._health.readiness().ready,
            drained=self._machine.drained,
            calls=self._machine.calls,
            capacity=self._machine.capacity,
        )

    def _watch_orphans(self) -> None:
        """End the calls that earlier processes left open, once the id is held: until then another gateway may have them."""
        self._lease.held.wait()
        self._lost.watch_orphans(self._store, self._identity.gateway, self._bus.calls.is_known)

    def _on_stored(self, event: bus.Event) -> None:
        """Pass on a stored event. Raises StoreUnavailable or SpoolError."""
        self._spending.on_stored(event)
        self._status_callbacks.on_stored(event)
        self._outbound.on_stored(event)

    def _spawn(self, work: Callable[[], None]) -> gevent.Greenlet[..., None]:
        greenlet = gevent.spawn(work)
        greenlet.link_exception(self._on_failure)
        self._greenlets.append(greenlet)
        return greenlet

    def _on_failure(self, greenlet: gevent.Greenlet[..., None]) -> None:
        log.critical("control ends: %s failed: %r", greenlet, greenlet.exception)
        self._failed = True
        self.stop()

    def _await_workers(self) -> None:
        """Wait, without a supervisor, for the workers to end: only this process can store their calls' ends.

        A living supervisor stops the workers before control. Workers of a killed one drain their calls first.
        """
        until_s = time.monotonic() + self._config.server.reload_timeout_s + LEAVE_S
        while self._is_orphan() and any(worker.connected for worker in self._bus.workers()) and time.monotonic() < until_s:
            if self._leaving.wait(0.1):
                return

    def _shut_down(self, forwarding: gevent.Greenlet[..., None] | None) -> None:
        """Close the listeners, stop the parts that act, let the forwarder empty the spool, close the files; in bounded time."""
        log.info("control stops")
        bound_s, request_s = (HAND_OVER_S, HAND_OVER_REQUEST_S) if self._hands_over else (STOP_S, REQUEST_S)
        try:
            with within(bound_s):
                self._bus.stop(timeout_s=1.0)
                self._admin.stop(timeout_s=request_s)
                self._admin_reader.stop(timeout_s=request_s)
                self._ops.stop(timeout_s=request_s)
                self._recording.reconciler.stop()
                self._retention.stop()
                self._fleet.stop()
                self._commands.stop()
                self._status_callbacks.stop(timeout_s=request_s)
                self._recording.recorder.stop(timeout_s=request_s)
                self._transfers.stop(timeout_s=request_s)
                self._outbound.stop(timeout_s=request_s)
                self._jobs.stop(timeout_s=request_s)
                self._lost.stop()
                self._forwarder.stop()
                if not self._hands_over and forwarding is not None:
                    self._await_forwarder(forwarding)
                    if not self._is_orphan():  # a lost supervisor's next one may run already
                        self._fleet.leave()
                gevent.killall(self._greenlets, timeout=request_s)
                self._close()
        except OutOfTimeError:
            log.warning("control did not end within %g s; the next start resumes from the spool", bound_s)

    def _await_forwarder(self, forwarding: gevent.Greenlet[..., None]) -> None:
        """Wait until the spool is empty, while the store takes events: the next control starts after this one."""
        until_s = time.monotonic() + FORWARD_S
        stored = -1
        while not forwarding.ready() and self._spool.progress()[0] != stored and time.monotonic() < until_s:
            stored = self._spool.progress()[0]
            forwarding.join(STUCK_S)

    def _close(self) -> None:
        if left := self._spool.backlog():
            log.warning("%d events wait in the spool for the next start", left)
        try:
            self._spool.close()
        except SpoolError as error:
            log.error("the spool could not be closed: %s", error)
        self._page.close()
        if not self._hands_over:
            self._store.close()  # may wait for the lock of an SQLite file; the end of the process closes it too


def run(
    config: Config,
    ready_fd: int,
    *,
    scoreboard: Scoreboard | None = None,
    row: ScoreboardRow | None = None,
    is_orphan: Callable[[], bool] = lambda: False,
    await_parent_end: Callable[[], None] = lambda: None,
    leave: signal.Signals = signal.SIGHUP,
) -> int:
    """Run the control process from start to end. Returns its exit code.

    A byte is written to `ready_fd` once control serves. At a signal to stop, `await_parent_end` is called first: `is_orphan` is
    reliable after it. `leave`: the supervisor's signal that another control process follows.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        control = Control(config, scoreboard=scoreboard, row=row, is_orphan=is_orphan)
        gc.freeze()  # a full collection, which delays tool calls by tens of milliseconds, does not visit what stays
    except (OSError, GatewayError, PageError, ValueError) as error:
        log.critical("control cannot start: %s", text_of(error))
        return 1

    def on_stop() -> None:
        await_parent_end()
        control.stop()

    signals = [gevent.signal_handler(number, on_stop) for number in (signal.SIGTERM, signal.SIGINT)]
    signals.append(gevent.signal_handler(leave, control.hand_over))
    try:
        return control.run(partial(_report_ready, ready_fd))
    finally:
        for watcher in signals:
            watcher.cancel()


def _events_of_control(spool: Spool) -> Iterator[bus.CallEvent]:
    """Yield the events in the spool that are not a worker's, in sequence. Raises SpoolError."""
    last = 0
    while entries := spool.of_no_worker(last, MAX_RECALLED):
        last = entries[-1].id
        for entry in entries:
            with suppress(bus.BusError):  # the forwarder sets it aside
                if isinstance(event := bus.decode_event(entry.body), bus.CallEvent):
                    yield event


def _report_ready(ready_fd: int) -> None:
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, b"1")
    except BrokenPipeError:
        log.warning("the starter of control does not wait until it is ready")
    finally:
        os.close(ready_fd)
