"""Builds the control process from its parts, runs it until a failure or a signal, and shuts it down.

Construction binds every socket and opens the spool, so a missing precondition fails the start with one sentence. An unreachable
store is no failure: calls continue, events wait in the spool, and the schema is upgraded once the store is back. Shutdown is
bounded by STOP_S. The next start resumes from the spool and the store's rows whatever was cut off.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event

from gw.config import Config
from gw.control.admin.commands import AdminCommands
from gw.control.admin.log_levels import LogLevels
from gw.control.admin.machine import NOTICE_S, MachineState
from gw.control.admin.server import AdminServer
from gw.control.bus.server import BusServer
from gw.control.calls.after_stream import AfterStream
from gw.control.calls.lost_calls import LostCalls
from gw.control.calls.status_callbacks import StatusCallbacks
from gw.control.health import Health
from gw.control.ops_http import OpsHttp
from gw.control.recording.claims import Claims
from gw.control.recording.service import RecordingService
from gw.control.spool import Spool, SpoolError
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Store
from gw.control.store.schema import Schema
from gw.control.twilio_api.rest import TwilioRest
from gw.control.twilio_api.transfers import Transfers
from gw.errors import GatewayError
from gw.scoreboard import Scoreboard, ScoreboardRow
from metrics import declare, exposition, pages_dir
from metrics.page import Page, PageError

log = logging.getLogger(__name__)

#: How long the start waits for the store's schema before it goes on without.
FIRST_UPGRADE_S: Final = 5.0
#: Where nobody stops the workers before control: how long they may take to hand over their last events, beyond their drain.
LEAVE_S: Final = 10.0
#: The whole of `stop`, below what the supervisor allows before it kills.
STOP_S: Final = 9.0
#: Part of STOP_S in which the forwarder may empty the spool.
FORWARD_S: Final = 6.0


class Control:
    """One control process. Construct binds, `run` serves, `stop` may be called from anywhere."""

    def __init__(
        self,
        config: Config,
        *,
        scoreboard: Scoreboard | None = None,
        row: ScoreboardRow | None = None,
        is_orphan: Callable[[], bool] = lambda: False,
    ) -> None:
        """`scoreboard`, `row`: shared state of all processes, and control's row in it. `is_orphan`: whether the supervisor is
        gone. Raises OSError, GatewayError, PageError or ValueError; what was opened by then is closed again."""
        self._config = config
        self._is_orphan = is_orphan
        self._scoreboard = scoreboard or Scoreboard.private()
        self._row = row or self._scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self._host = socket.gethostname()
        self._stopping = Event()
        self._leaving = Event()
        self._failed = False
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        with ExitStack() as opened:
            self._open(config, opened)
            opened.pop_all()  # all of it stands: `run` closes it from here on

    def _open(self, config: Config, opened: ExitStack) -> None:
        """Construct the parts, each after those it needs."""
        var_dir = Path(config.ops.var_dir)
        var_dir.mkdir(parents=True, exist_ok=True)
        claimant = f"{self._host}:{zlib.crc32(os.fsencode(var_dir.resolve())):08x}"  # two gateways may share a host and a store
        pages = var_dir / "pages"
        pages_dir.prepare(pages)
        self._page = Page.create(pages / "control.page")
        opened.callback(self._page.close)
        self._page.counter(declare.PROCESS_STARTS, process="control").add()
        self._spool = Spool(var_dir / "spool.db")
        opened.callback(self._spool.close)
        self._store = Store(config.store, config.secrets.db_password)
        opened.callback(self._store.close)
        self._schema = Schema(self._store, on_ready=lambda: self._forwarder.notify())
        self._rest = TwilioRest(config) if config.signed else None

        backlog = self._page.gauge(declare.STORE_BACKLOG)
        self._claims = Claims(self._spool, claimant=claimant)
        self._forwarder = Forwarder(
            self._spool,
            self._store,
            host=self._host,
            on_backlog=lambda n: backlog.set(float(n)),
            first=lambda: self._claims.deliver(self._store),
            then=lambda event: self._status_callbacks.on_stored(event),
        )
        self._lost = LostCalls(self._spool, self._page, notify=self._forwarder.notify)
        self._after_stream = AfterStream(
            self._store, on_lost=config.server.on_lost, is_lost=lambda call_sid: self._bus.is_lost(call_sid)
        )
        self._transfers = Transfers(self._rest, done=self._after_stream.on_transferred)
        self._bus = BusServer(var_dir / "bus.sock", self._spool, on_lost=self._lost.add, answer=self._after_stream.answer)
        opened.callback(self._bus.stop)
        self._machine = MachineState(
            self._scoreboard,
            self._row,
            self._page,
            tell_workers=self._bus.drain,
            is_orphan=self._is_orphan,
            notice_s=NOTICE_S if config.server.machine else 0.0,
        )
        self._recording = RecordingService(
            config,
            self._store,
            self._rest,
            self._page,
            claimant=claimant,
            claims=self._claims,
            is_owned=self._bus.is_owned,
            store_away_s=lambda: self._forwarder.failed_s,
        )
        self._status_callbacks = StatusCallbacks(
            self._store,
            self._recording.rows,
            self._bus,
            host=self._host,
            on_call_over=self._recording.recorder.on_call_over,
            on_lost=self._lost.add,
            spooled=lambda: (self._spool.settled(), self._spool.backlog()),
        )
        acting = (self._recording.recorder, self._status_callbacks, self._after_stream, self._transfers)
        for subscriber in (lambda _event: self._forwarder.notify(), *(part.on_event for part in acting)):
            self._bus.subscribe(subscriber)

        self._health = Health(
            config,
            self._page,
            store=self._store,
            store_problem=lambda: self._schema.problem or self._forwarder.last_problem,
            spool=self._spool,
            claims=self._claims,
            bus=self._bus,
            machine=self._machine,
            breaker=self._recording.breaker,
            is_stopping=self._stopping.is_set,
        )
        self._ops = OpsHttp(config.ops.listen, render=lambda: exposition.render(pages), readiness=self._health.readiness)
        opened.callback(self._ops.stop)
        self._commands = AdminCommands(
            self._store,
            self._bus,
            self._rest,
            self._health.status,
            recorder=self._recording.recorder,
            reconciler=self._recording.reconciler,
            spool=self._spool,
            notify=self._forwarder.notify,
            config=config,
        )
        levels = LogLevels(self._scoreboard, config.ops.log_level)
        commands = {**self._commands.table(), **self._machine.commands(), **levels.commands()}
        self._admin = AdminServer(Path(config.ops.admin_socket), commands)

    @property
    def ops_port(self) -> int:
        return self._ops.port

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stop` or the first failure. Returns the exit code."""
        self._spawn(self._schema.run)
        self._bus.start()
        self._ops.start()
        self._admin.start()
        self._lost.start()
        self._schema.ready.wait(FIRST_UPGRADE_S)
        forwarder = self._spawn(self._forwarder.run)
        self._recording.reconciler.start()
        self._status_callbacks.start()
        self._lost.watch_orphans(
            self._store,
            self._host,
            owned=lambda: self._bus.owned_calls() | self._bus.calls_seen(),
            done=self._bus.stop_remembering,
        )
        self._spawn(self._health.keep_gauges)
        self._spawn(self._machine.run)
        on_ready()
        log.info("control is ready, ops port %d", self.ops_port)
        self._stopping.wait()
        self._await_workers()
        self._end(forwarder)
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Let `run` end. Asked again, it no longer waits for the workers of a supervisor that is gone: somebody takes over."""
        if self._stopping.is_set():
            self._leaving.set()
        self._stopping.set()
        self._schema.stop()

    # -- inside -----------------------------------------------------------------------------------------------------------

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
        """Where the supervisor was killed, nobody stopped the workers before us: their calls go on for the drain, and nobody
        else takes down how they end."""
        until_s = time.monotonic() + self._config.server.reload_timeout_s + LEAVE_S
        while self._is_orphan() and any(worker.connected for worker in self._bus.workers()) and time.monotonic() < until_s:
            if self._leaving.wait(0.1):
                return

    def _end(self, forwarder: gevent.Greenlet[..., None]) -> None:
        """Stop everything, in the order of the module's promise, within STOP_S."""
        log.info("control stops")
        bound = gevent.Timeout.start_new(STOP_S)
        try:
            self._bus.stop(timeout_s=1.0)
            self._admin.stop(timeout_s=0.5)
            self._ops.stop(timeout_s=0.5)
            self._recording.reconciler.stop()
            self._commands.stop()
            self._status_callbacks.stop(timeout_s=0.5)
            self._recording.recorder.stop(timeout_s=0.5)
            self._transfers.stop(timeout_s=0.5)
            self._lost.stop()
            self._forwarder.stop()
            forwarder.join(FORWARD_S)
            gevent.killall(self._greenlets, timeout=0.5)
            self._close()
        except gevent.Timeout as passed:
            if passed is not bound:
                raise
            log.warning("control did not end within %g s; what is left is found at the next start", STOP_S)
        finally:
            bound.close()

    def _close(self) -> None:
        if left := self._spool.backlog():
            log.warning("%d events wait in the spool for the next start", left)
        self._store.close()
        try:
            self._spool.close()
        except SpoolError as error:
            log.error("the spool could not be closed: %s", error)
        self._page.close()


def run(
    config: Config,
    ready_fd: int,
    *,
    scoreboard: Scoreboard | None = None,
    row: ScoreboardRow | None = None,
    is_orphan: Callable[[], bool] = lambda: False,
    settle_parent: Callable[[], None] = lambda: None,
) -> int:
    """The control process's whole life. When it is told to stop, `settle_parent` returns once `is_orphan` can be believed.
    Returns its exit code."""
    try:
        control = Control(config, scoreboard=scoreboard, row=row, is_orphan=is_orphan)
    except (OSError, GatewayError, PageError, ValueError) as error:
        log.critical("control cannot start: %s", error)
        return 1

    def on_stop() -> None:
        settle_parent()
        control.stop()

    signals = [gevent.signal_handler(number, on_stop) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        return control.run(lambda: _say_ready(ready_fd))
    finally:
        for watcher in signals:
            watcher.cancel()


def _say_ready(ready_fd: int) -> None:
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, b"1")
    except BrokenPipeError:
        log.warning("nobody waits for control to be ready")
    finally:
        os.close(ready_fd)
