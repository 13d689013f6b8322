"""A media worker: one process, one core, as many calls as fit. Construct binds, `run` serves until told to stop, `stop` drains.

It holds no store, no REST client and no metrics page: what it has to tell goes over the bus, what it counts into shared memory.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

import gevent
from gevent import socket
from gevent.event import Event

from gw import bus
from gw.call.report import LatencyCounts
from gw.call.state import Reason
from gw.config import Config
from gw.media.admission import TokenLedger
from gw.media.bus_client import BusClient
from gw.media.collector import collect_when_idle, tune
from gw.media.greenlets import spawn
from gw.media.hub import HoldMonitor
from gw.media.plane import MediaPlane
from gw.media.server import MediaServer
from metrics.declare import BOUNDS, PROCESS_STARTS
from metrics.page import Page

log = logging.getLogger(__name__)

#: How long the last reports may take to reach control at the end.
FLUSH_S: Final = 3.0
#: The status shows the longest hold of the hub within this time.
RECENT_S: Final = 60.0
#: How long calls that are told to end may take to close.
END_S: Final = 3.0
#: After the last stream: Twilio asks at once what comes next (the action), and a caller must not hear that nobody answers.
ACTION_S: Final = 1.0


class Worker:
    """One worker process's parts."""

    def __init__(self, config: Config, slot: int, listener: socket.socket) -> None:
        pages = Path(config.ops.var_dir) / "pages"
        self._config = config
        self._page = Page.claim(pages, f"worker-{slot}")
        self._page.counter(PROCESS_STARTS, process="worker").add()
        self._ledger = TokenLedger(pages / "tokens.ledger")
        self.plane = MediaPlane(config, self._page, self._ledger)
        always = config.ops.hold_monitor == "always"
        self._monitor = HoldMonitor(self._page, always=always, report=lambda hold: self._bus.tell(hold))
        self.plane.hold_max_s = self._monitor.max_hold_s
        self._bus = BusClient(
            Path(config.ops.var_dir) / "bus.sock",
            slot,
            self._page,
            calls=lambda: list(self.plane.calls),
            status=self._status,
            on_command=self._on_command,
        )
        self.plane.emit = self._bus.emit
        self.server = MediaServer(listener, self.plane)
        self._stopping = Event()
        self._hurry = Event()
        self._crashed = False
        self._lateness_before: list[float] = []

    def run(self, on_ready: Callable[[], None]) -> int:
        """Serve until `stop`, then drain. Returns the exit code."""
        idle = spawn("other", lambda: collect_when_idle(lambda: not self.plane.streams))
        helpers = [spawn("bus", self._bus.run), spawn("other", self.server.watch), idle]
        for helper in helpers:
            helper.link_exception(lambda greenlet: self._on_helper_crash(greenlet.exception))
        self._monitor.start()
        thaw_gc = tune(self._page)
        self.server.start()
        on_ready()
        self._stopping.wait()
        self._drain()
        self._bus.flush(FLUSH_S)
        self._bus.stop()
        self._monitor.stop()
        gevent.killall(helpers, timeout=1.0)
        thaw_gc()
        self._page.close()
        self._ledger.close()
        return 1 if self._crashed else 0

    def stop(self) -> None:
        """Let `run` drain and end. Harmless when called twice."""
        self._stopping.set()

    def hurry(self) -> None:
        """End: calls do not go on for the rest of the drain."""
        self._hurry.set()
        self._stopping.set()

    def _on_helper_crash(self, error: BaseException | None) -> None:
        log.error("a helper of the worker failed, the worker stops", exc_info=error)
        self._crashed = True
        self._stopping.set()

    def _drain(self) -> None:
        """Take no new call, let the present ones end for `server.drain_s`, then end them. Webhooks are answered to the last: a
        new caller is told that all lines are busy, instead of waiting for a connection that nobody takes."""
        self.plane.draining = True
        if self._crashed and self._config.server.workers != 1:
            self.server.stop_accepting()  # the others take what comes
        had_calls = bool(self.server.sessions)
        until_s = monotonic() + self._config.server.drain_s
        while self.server.sessions and not self._hurry.is_set() and monotonic() < until_s:
            gevent.sleep(0.05)
        for session in list(self.server.sessions):
            session.end(Reason.SHUTDOWN, "the gateway stops")
        until_s = monotonic() + END_S
        while self.server.sessions and monotonic() < until_s:
            gevent.sleep(0.02)
        if had_calls:
            gevent.sleep(ACTION_S)
        self.server.stop(timeout=1.0)

    # -- the bus --------------------------------------------------------------------------------------------------------

    def _on_command(self, command: bus.Command) -> None:
        if isinstance(command, bus.Drain):
            self.plane.draining = command.on or self._stopping.is_set()  # nothing calls a stop off
        elif isinstance(command, bus.HangUp):
            call = self.plane.calls.get(command.call_sid)
            if call is not None:
                reason = command.reason if command.reason in Reason._value2member_map_ else Reason.ADMIN_HANGUP
                call.end(Reason(reason), "hung up by command")

    def _status(self, unacked: int) -> bus.WorkerStatus:
        held_s = self._monitor.max_hold_s(monotonic() - RECENT_S)
        return bus.WorkerStatus(self.plane.streams, self.plane.draining, unacked, self._lateness_p99_s(), held_s)

    def _lateness_p99_s(self) -> float:
        """The frames' lateness since the last look."""
        counts = self.plane.tx_cells.lateness.buckets
        before = self._lateness_before or [0.0] * len(counts)
        self._lateness_before = counts
        recent = LatencyCounts(BOUNDS)
        recent.counts = [int(now - then) for now, then in zip(counts, before, strict=True)]
        recent.max_s = BOUNDS[-1]
        return recent.percentile_s(0.99)


def run(config: Config, slot: int, listen_fd: int, ready_fd: int, hurry: signal.Signals) -> int:
    """A worker process's body: serve on the inherited socket. `hurry` ends a drain. Returns the exit code."""
    listener = socket.socket(fileno=listen_fd)
    worker = Worker(config, slot, listener)
    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, worker.stop)
    gevent.signal_handler(hurry, worker.hurry)

    def tell_ready() -> None:
        os.write(ready_fd, b"1")
        os.close(ready_fd)

    return worker.run(tell_ready)
