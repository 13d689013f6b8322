"""Media worker: one process on one core, with as many calls as fit.

The constructor binds, `run` serves, `stop` drains. A worker has no store, no REST client and no metrics page: events go over the
bus, counters into shared memory.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

import gevent
from gevent import socket
from gevent.event import Event

from gw import bus
from gw.call.state import Reason
from gw.config import Config
from gw.media.admission.overload import SECONDS, LatenessMonitor
from gw.media.admission.slots import AdmissionSlots
from gw.media.admission.token_ledger import TokenLedger
from gw.media.bus_client import BusClient
from gw.media.http.server import MediaServer
from gw.media.hub.gc_control import collect_when_idle, tune
from gw.media.hub.greenlets import spawn
from gw.media.hub.hold_monitor import HoldMonitor
from gw.media.shared.context import MediaContext
from gw.scoreboard import Scoreboard, ScoreboardRow
from metrics.declare import CALL_CAPACITY, PROCESS_STARTS, STREAMS_MISSED
from metrics.page import Page
from metrics.process_figures import ProcessFigures

log = logging.getLogger(__name__)

#: Time the last events have to reach control when the gateway waits for the worker's end.
FLUSH_S: Final = 3.0
#: Additional time when other workers replace this one: a control that is replaced may take ten seconds to end, and some to start.
LEAVE_FLUSH_S: Final = 60.0
#: Window of the longest hub hold in the status.
RECENT_S: Final = 60.0
#: Time that calls have to close after the drain has ended them.
END_S: Final = 3.0
#: Time after the last stream for Twilio's action webhook, which must find the worker listening.
ACTION_S: Final = 1.0
#: Divisor of the capacity. With fewer calls than that, other causes make a worker late, and one call less would not help.
LATE_FROM: Final = 4
#: Time a replaced worker stays for connections it accepted: a webhook on its way, or a stream to come.
LINGER_S: Final = 1.0
#: Interval of the heartbeats.
HEARTBEAT_S: Final = 0.05


class Worker:
    """One worker process's parts."""

    def __init__(
        self,
        config: Config,
        index: int,
        listener: socket.socket,
        *,
        scoreboard: Scoreboard | None = None,
        row: ScoreboardRow | None = None,
        is_orphan: Callable[[], bool] = lambda: False,
    ) -> None:
        """`scoreboard`, `row`: shared state of all processes, this worker's row. `is_orphan`: whether the
        supervisor is gone."""
        pages = Path(config.ops.var_dir) / "pages"
        self._config = config
        self._page = Page.claim(pages, f"worker-{index}")
        self._page.counter(PROCESS_STARTS, process="worker").add()
        self._ledger = TokenLedger(pages / "tokens.ledger")
        slots = None if scoreboard is None or row is None else AdmissionSlots(scoreboard, row, config.server.max_calls_per_worker)
        self.context = MediaContext(config, self._page, self._ledger, slots)
        self.context.draining = scoreboard is not None and scoreboard.drained
        self._is_orphan = is_orphan
        self._lateness = LatenessMonitor(lambda: self.context.tx_cells.lateness.buckets)
        self._capacity = self._page.gauge(CALL_CAPACITY)
        self._missed = self._page.counter(STREAMS_MISSED)
        self._figures = ProcessFigures(self._page, "worker")
        always = config.ops.hold_monitor == "always"
        self._monitor = HoldMonitor(self._page, always=always, report=lambda hold: self._bus.send_hold(hold))
        self.context.hold_max_s = self._monitor.max_hold_s
        self._bus = BusClient(
            Path(config.ops.var_dir) / "bus.sock",
            index,
            self._page,
            calls=self.context.open_calls,
            status=self._status,
            on_command=self._on_command,
            open_jobs=self.context.open_jobs,
        )
        self.context.emit = self._bus.emit
        self.context.cancel_job = self._bus.cancel_job
        self.context.ask = self._bus.ask
        self.context.lookups.put = self._bus.put
        self.context.keep_digits = self._bus.keep_digits
        self.server = MediaServer(listener, self.context)
        self._stopping = Event()
        self._hurry = Event()
        self._is_awaited = False  # the supervisor waits for the end: the gateway stops, or restarts this worker
        self._crashed = False
        self._until_s = inf  # when a drain ends the remaining calls

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stop`, then drain. Returns the exit code."""
        idle = spawn("other", lambda: collect_when_idle(lambda: not self.context.streams))
        publisher = spawn("other", self._publish)
        helpers = [spawn("bus", self._bus.run), spawn("other", self.server.watch), publisher, idle]
        for helper in helpers:
            helper.link_exception(lambda greenlet: self._on_helper_crash(greenlet.exception))
        publisher.link_exception(lambda _: helpers.append(spawn("other", self._keep_heartbeat)))
        self._monitor.start()
        thaw_gc = tune(self._page)
        self.server.start()
        on_ready()
        self._stopping.wait()
        self._drain()
        self._flush()
        self._bus.stop()
        self._monitor.stop()
        gevent.killall(helpers, timeout=1.0)
        thaw_gc()
        self._page.close()
        self._ledger.close()
        return 1 if self._crashed else 0

    def stop(self) -> None:
        """Let `run` drain and end. Idempotent. If the supervisor was killed, release the port as in `leave`."""
        if self._is_orphan():
            self.leave()
        elif not self._stopping.is_set() or self.context.leaving:
            self.context.draining = True
            self._until_s = min(self._until_s, monotonic() + self._config.server.stop_timeout_s)
            self._is_awaited = True
            self._stopping.set()

    def leave(self) -> None:
        """Close the listening socket, and end with the last call: other workers replace this one."""
        if not self._stopping.is_set():
            self.context.leaving = True
            self.server.close()
            self.context.publish()
            self._until_s = monotonic() + self._config.server.reload_timeout_s
            self._stopping.set()

    def hurry(self) -> None:
        """End the drain now, with its calls."""
        self._hurry.set()
        self.stop()

    def _on_helper_crash(self, error: BaseException | None) -> None:
        log.error("a background greenlet of the worker failed, the worker stops", exc_info=error)
        self._crashed = True
        if self._config.server.workers != 1:
            self.leave()  # the other workers take new connections
            self._until_s = monotonic() + self._config.server.stop_timeout_s
        self.stop()

    def _drain(self) -> None:
        """Let the current calls end until the bound, then end them.

        When the gateway stops, webhooks are answered to the last: a new caller hears that all lines are busy, instead of waiting
        for a connection that no worker accepts. A replaced worker answers one request of each connection it has.
        """
        had_calls = bool(self.server.sessions)
        linger_s = monotonic() + LINGER_S if self.context.leaving else 0.0
        while (self.server.sessions or monotonic() < linger_s) and not self._hurry.is_set() and monotonic() < self._until_s:
            had_calls = had_calls or bool(self.server.sessions)
            gevent.sleep(0.05)
        for session in list(self.server.sessions):
            session.end(Reason.SHUTDOWN, "the gateway stops")
        until_s = monotonic() + END_S
        while self.server.sessions and monotonic() < until_s:
            gevent.sleep(0.02)
        self.context.warm.close()
        self.context.parked.close()
        if had_calls:
            gevent.sleep(ACTION_S)
        self.server.stop(timeout=1.0)

    def _flush(self) -> None:
        """Deliver the last events to control. A replaced worker, for whose end no process waits, gives control more time, because
        control is replaced too."""
        until_s = monotonic() + LEAVE_FLUSH_S
        while self.context.leaving and self._bus.unacked and monotonic() < until_s:
            if self._is_awaited or self._hurry.is_set():
                break
            gevent.sleep(HEARTBEAT_S)
        if not self._bus.flush(FLUSH_S):
            log.error("control did not acknowledge the last %d events: they may be lost", self._bus.unacked)

    def _publish(self) -> None:
        """Publish load and heartbeat to the other workers. A greenlet's body."""
        second_s = monotonic()
        slots, context = self.context.slots, self.context
        while True:
            if monotonic() - second_s >= 1.0:
                second_s = monotonic()
                self._lateness.end_second()
                late = self._lateness.late and len(context.calls) * LATE_FROM >= self._config.server.max_calls_per_worker
                if context.late != late:
                    context.late = late
                    log.warning("frames are %s", "late: no new call is accepted" if context.late else "punctual again")
                context.warm.check(second_s)
                self._figures.update()
                context.parked.check(second_s)
                self._missed.add(slots.release_expired())
                self._capacity.set(
                    0.0 if context.draining or context.leaving else float(self._config.server.max_calls_per_worker)
                )
            slots.heartbeat(self._lateness.p99_s, self._monitor.max_hold_s(monotonic() - SECONDS))
            context.publish()
            gevent.sleep(HEARTBEAT_S)

    def _keep_heartbeat(self) -> None:
        """Publish heartbeats after `_publish` failed, so that the supervisor lets the calls drain. A greenlet's body."""
        while True:
            self.context.slots.heartbeat(-1.0, -1.0)
            gevent.sleep(HEARTBEAT_S)

    # -- the bus --------------------------------------------------------------------------------------------------------

    def _on_command(self, command: bus.Command) -> None:
        if isinstance(command, bus.Drain):
            stops = self._stopping.is_set() and not self.context.leaving
            self.context.draining = command.on or stops  # `undrain` does not cancel a stop
        elif isinstance(command, bus.Budget):
            self.context.budget_board.on_budget(command)
        elif isinstance(command, bus.JobSettled):
            if (call := self.context.calls.get(command.call_sid)) is not None:
                call.on_job_settled(command)
        elif isinstance(command, bus.AnsweredBy):
            if (call := self.context.calls.get(command.call_sid)) is not None:
                call.on_answered_by(command.verdict)
        elif isinstance(command, bus.ExpectStop):
            call = self.context.calls.get(command.call_sid)
            self._bus.confirm(bus.StopExpected(command.call_sid, {} if call is None else call.expect_stop(command.for_s)))
        elif isinstance(command, bus.HangUp):
            call = self.context.calls.get(command.call_sid)
            if call is not None:
                reason = command.reason if command.reason in Reason._value2member_map_ else Reason.ADMIN_HANGUP
                replaced = reason == Reason.PHONE_LOST
                call.end(Reason(reason), "another stream took its place" if replaced else "hung up by command")

    def _status(self, unacked: int) -> bus.WorkerStatus:
        return bus.WorkerStatus(
            self.context.streams,
            self.context.draining or self.context.leaving,
            unacked,
            self._lateness.p99_s,
            self._monitor.max_hold_s(monotonic() - RECENT_S),
        )


def run(
    config: Config,
    index: int,
    listen_fd: int,
    ready_fd: int,
    *,
    before_ready: Callable[[], None],
    hurry: signal.Signals,
    leave: signal.Signals,
    scoreboard: Scoreboard | None = None,
    row: ScoreboardRow | None = None,
    is_orphan: Callable[[], bool] = lambda: False,
    await_parent_end: Callable[[], None] = lambda: None,
) -> int:
    """Serve on the inherited socket. A worker process's body.

    `before_ready`: called before the ready byte is written. `leave`: the signal of a replacement. `hurry`: the signal that ends a
    drain. `await_parent_end`: called on a stop signal, returns once `is_orphan` is reliable.
    Returns: the exit code.
    """
    listener = socket.socket(fileno=listen_fd)
    worker = Worker(config, index, listener, scoreboard=scoreboard, row=row, is_orphan=is_orphan)

    def on_stop() -> None:
        await_parent_end()
        worker.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, on_stop)
    gevent.signal_handler(hurry, worker.hurry)
    gevent.signal_handler(leave, worker.leave)

    def write_ready() -> None:
        before_ready()
        os.write(ready_fd, b"1")
        os.close(ready_fd)

    return worker.run(write_ready)
