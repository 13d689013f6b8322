"""A media worker: one process, one core, as many calls as fit. Construct binds, `run` serves until told to stop, `stop` drains.

It holds no store, no REST client and no metrics page: what it has to tell goes over the bus, what it counts into shared memory.
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
from gw.media.admission.overload import SECONDS, Load
from gw.media.admission.slots import AdmissionSlots
from gw.media.admission.token_ledger import TokenLedger
from gw.media.bus_client import BusClient
from gw.media.context import MediaContext
from gw.media.hub.gc_control import collect_when_idle, tune
from gw.media.hub.greenlets import spawn
from gw.media.hub.hold_monitor import HoldMonitor
from gw.media.server import MediaServer
from gw.scoreboard import Scoreboard, ScoreboardRow
from metrics.declare import CALL_CAPACITY, PROCESS_STARTS
from metrics.page import Page

log = logging.getLogger(__name__)

#: How long the last reports may take to reach control at the end, where the gateway waits for it.
FLUSH_S: Final = 3.0
#: On top of that where others take its place: a control that is replaced may take ten seconds to go, and some to start.
LEAVE_FLUSH_S: Final = 60.0
#: The status shows the longest hold of the hub within this time.
RECENT_S: Final = 60.0
#: How long calls that are told to end may take to close.
END_S: Final = 3.0
#: After the last stream: Twilio asks at once what comes next (the action), and a caller must not hear that nobody answers.
ACTION_S: Final = 1.0
#: With fewer calls than this part of its capacity it is not the calls that make a worker late, and one less would not help.
LATE_FROM: Final = 4
#: Where others take its place: how long it stays for who is connected already, a webhook on its way or a stream to come.
LINGER_S: Final = 1.0
#: How often the worker tells how it is.
TURN_S: Final = 0.05


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
        self._load = Load(lambda: self.context.tx_cells.lateness.buckets)
        self._capacity = self._page.gauge(CALL_CAPACITY)
        always = config.ops.hold_monitor == "always"
        self._monitor = HoldMonitor(self._page, always=always, report=lambda hold: self._bus.tell(hold))
        self.context.hold_max_s = self._monitor.max_hold_s
        self._bus = BusClient(
            Path(config.ops.var_dir) / "bus.sock",
            index,
            self._page,
            calls=lambda: list(self.context.calls),
            status=self._status,
            on_command=self._on_command,
        )
        self.context.emit = self._bus.emit
        self.context.ask = self._bus.ask
        self.server = MediaServer(listener, self.context)
        self._stopping = Event()
        self._hurry = Event()
        self._is_awaited = False  # the gateway stops, or this worker is to be started again
        self._crashed = False
        self._until_s = inf  # when calls are ended, once the worker drains

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stop`, then drain. Returns the exit code."""
        idle = spawn("other", lambda: collect_when_idle(lambda: not self.context.streams))
        turn = spawn("other", self._turn)
        helpers = [spawn("bus", self._bus.run), spawn("other", self.server.watch), turn, idle]
        for helper in helpers:
            helper.link_exception(lambda greenlet: self._on_helper_crash(greenlet.exception))
        turn.link_exception(lambda _: helpers.append(spawn("other", self._turn_on)))
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
        """Let `run` drain and end. Harmless when called twice. Where the supervisor was killed, the port is let go of."""
        if self._is_orphan():
            self.leave()
        elif not self._stopping.is_set() or self.context.leaving:
            self.context.draining = True
            self._until_s = min(self._until_s, monotonic() + self._config.server.stop_timeout_s)
            self._is_awaited = True
            self._stopping.set()

    def leave(self) -> None:
        """Others take this worker's place: let go of the listening socket, and end with the last call."""
        if not self._stopping.is_set():
            self.context.leaving = True
            self.server.close()
            self.context.publish()
            self._until_s = monotonic() + self._config.server.reload_timeout_s
            self._stopping.set()

    def hurry(self) -> None:
        """End: calls do not go on for the rest of the drain."""
        self._hurry.set()
        self.stop()

    def _on_helper_crash(self, error: BaseException | None) -> None:
        log.error("a helper of the worker failed, the worker stops", exc_info=error)
        self._crashed = True
        if self._config.server.workers != 1:
            self.leave()  # the others take what comes
            self._until_s = monotonic() + self._config.server.stop_timeout_s
        self.stop()

    def _drain(self) -> None:
        """Let the present calls end until the bound, then end them. Where the gateway stops, webhooks are answered to the last: a
        new caller is told that all lines are busy, instead of waiting for a connection that nobody takes. Where others take this
        worker's place, who is connected to it is answered as ever, once."""
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
        if had_calls:
            gevent.sleep(ACTION_S)
        self.server.stop(timeout=1.0)

    def _flush(self) -> None:
        """Hand the last reports to control. Where others take this worker's place nobody waits for its end, and control may be
        away for a while: it is replaced as well."""
        until_s = monotonic() + LEAVE_FLUSH_S
        while self.context.leaving and self._bus.unacked and monotonic() < until_s:
            if self._is_awaited or self._hurry.is_set():
                break
            gevent.sleep(TURN_S)
        if not self._bus.flush(FLUSH_S):
            log.error("control did not confirm the last %d events: they may be lost", self._bus.unacked)

    def _turn(self) -> None:
        """Tell the others how it stands here; what changes with a socket is told with it."""
        second_s = monotonic()
        slots, context = self.context.slots, self.context
        while True:
            if monotonic() - second_s >= 1.0:
                second_s = monotonic()
                self._load.end_second()
                late = self._load.late and len(context.calls) * LATE_FROM >= self._config.server.max_calls_per_worker
                if context.late != late:
                    context.late = late
                    log.warning("frames are %s", "late: no new call is taken" if context.late else "punctual again")
                slots.release_expired()
                self._capacity.set(
                    0.0 if context.draining or context.leaving else float(self._config.server.max_calls_per_worker)
                )
            slots.heartbeat(self._load.lateness_p99_s, self._monitor.max_hold_s(monotonic() - SECONDS))
            context.publish()
            gevent.sleep(TURN_S)

    def _turn_on(self) -> None:
        """After a turn that failed: the loop turns while the calls drain, and whoever judges it by that must not kill it."""
        while True:
            self.context.slots.heartbeat(-1.0, -1.0)
            gevent.sleep(TURN_S)

    # -- the bus --------------------------------------------------------------------------------------------------------

    def _on_command(self, command: bus.Command) -> None:
        if isinstance(command, bus.Drain):
            stops = self._stopping.is_set() and not self.context.leaving
            self.context.draining = command.on or stops  # nothing calls a stop off
        elif isinstance(command, bus.HangUp):
            call = self.context.calls.get(command.call_sid)
            if call is not None:
                reason = command.reason if command.reason in Reason._value2member_map_ else Reason.ADMIN_HANGUP
                call.end(Reason(reason), "hung up by command")

    def _status(self, unacked: int) -> bus.WorkerStatus:
        return bus.WorkerStatus(
            self.context.streams,
            self.context.draining or self.context.leaving,
            unacked,
            self._load.lateness_p99_s,
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
    """A worker process's body: serve on the inherited socket. `before_ready` is called when all is there but the word. `leave`:
    others take its place; `hurry` ends a drain; when told to stop, `await_parent_end` returns once `is_orphan` can be believed.
    Returns the exit code."""
    listener = socket.socket(fileno=listen_fd)
    worker = Worker(config, index, listener, scoreboard=scoreboard, row=row, is_orphan=is_orphan)

    def on_stop() -> None:
        await_parent_end()
        worker.stop()

    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, on_stop)
    gevent.signal_handler(hurry, worker.hurry)
    gevent.signal_handler(leave, worker.leave)

    def tell_ready() -> None:
        before_ready()
        os.write(ready_fd, b"1")
        os.close(ready_fd)

    return worker.run(tell_ready)
