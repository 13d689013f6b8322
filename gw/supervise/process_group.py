"""All supervised processes: control, the current workers, and workers of former generations that still drain.

Creates processes, watches their heartbeats, and ends them in bounded time: asked to stop, hurried, killed. The supervisor and the
reload decide when a process starts or ends.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import gevent
from gevent.event import Event

from gw.config import SECRETS_OF, field_of
from gw.scoreboard import Scoreboard, ScoreboardError
from gw.supervise.child import HURRY
from gw.supervise.config_snapshot import ReloadError, Snapshot
from gw.supervise.cpu_affinity import Plan
from gw.supervise.process import SupervisedProcess

log = logging.getLogger(__name__)

#: Beyond the drain time: a worker closes its streams, answers the webhooks that follow, sends its last events and exits.
GRACE_S: Final = 10.0
#: Bound on the whole stop of a worker in a hurried stop.
HURRY_S: Final = 4.0
#: Interval of the heartbeat check.
HEARTBEAT_CHECK_S: Final = 1.0
#: Heartbeat age from which a process is reported as stalled, and the age from which it is killed. A worker holds its hub for at
#: most a millisecond, control for some tens.
STALLED_S: Final = 3.0
HANG_S: Final = 10.0


class ProcessGroup:
    """All processes of one gateway."""

    def __init__(
        self,
        command: Sequence[str],
        scoreboard: Scoreboard,
        listen_fd: int,
        plan: Plan,
        allowed: Sequence[int],
    ) -> None:
        """`allowed`: the cores a child may use. A child inherits this process's cores, which may be fewer."""
        self.command = list(command)
        self.scoreboard = scoreboard
        self.plan = plan  # of `workers`
        self.control: SupervisedProcess | None = None
        self.workers: list[SupervisedProcess] = []  # of the current generation
        self.hurry = Event()  # set: end calls instead of waiting for them
        self._all_workers: list[SupervisedProcess] = []  # including workers on trial and former ones
        self._listen_fd = listen_fd
        self._allowed = allowed

    def pids(self) -> dict[str, int]:
        """Return the pids of control and the current workers, by name."""
        return {process.name: process.child.pid for process in self._serving() if process.child is not None}

    def former(self) -> int:
        """Return the number of workers of former generations that still drain."""
        return sum(1 for process in self._all_workers if process not in self.workers and not process.has_ended)

    def snapshots(self) -> list[Snapshot]:
        """Return the configurations that a process may be restarted with."""
        return [process.snapshot for process in self._serving()]

    def _serving(self) -> list[SupervisedProcess]:
        return [*([self.control] if self.control is not None else []), *self.workers]

    # -- processes --------------------------------------------------------------------------------------------------------

    def new_control(self, snapshot: Snapshot) -> SupervisedProcess:
        """Return the control process, not started, on trial."""
        row = self.scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        argv = [*self.command, *snapshot.options, "control", *self._handed(row.index), "--nice", str(self.plan.control_nice)]
        return SupervisedProcess("control", argv, environ_of("control", snapshot), row, snapshot, (self.scoreboard.fd,))

    def new_worker(self, index: int, snapshot: Snapshot, plan: Plan, *, low_priority: bool) -> SupervisedProcess:
        """Return a worker, not started, on trial. `low_priority`: other workers are serving.

        Raises: ReloadError when the scoreboard is full.
        """
        try:
            row = self.scoreboard.take_row(index)
        except ScoreboardError as error:
            raise ReloadError(str(error)) from None
        argv = [*self.command, *snapshot.options, "worker", "--index", str(index), "--listen-fd", str(self._listen_fd)]
        own = plan.core_of(index)
        cores = [own] if own >= 0 else self._allowed
        argv += [*self._handed(row.index), "--core", ",".join(map(str, cores))]
        handed = (self._listen_fd, self.scoreboard.fd)
        environ = environ_of("worker", snapshot)
        process = SupervisedProcess(f"worker {index}", argv, environ, row, snapshot, handed, low_priority=low_priority)
        self._all_workers.append(process)
        return process

    def _handed(self, row: int) -> list[str]:
        return ["--scoreboard-fd", str(self.scoreboard.fd), "--row", str(row)]

    # -- heartbeats -------------------------------------------------------------------------------------------------------

    def watch(self, on_check: Callable[[list[str]], None]) -> None:
        """Check the heartbeats each second and pass the names of stalled processes to `on_check`. Never returns.

        After a pause of this process itself, no process is killed for HANG_S.
        """
        judged_from_s = 0.0
        while True:
            before_s = time.monotonic()
            gevent.sleep(HEARTBEAT_CHECK_S)
            now_s = time.monotonic()
            if now_s - before_s > HEARTBEAT_CHECK_S + STALLED_S:
                judged_from_s = now_s + HANG_S
            on_check(self._check(may_kill=now_s >= judged_from_s))

    def _check(self, *, may_kill: bool) -> list[str]:
        """Return the names of stalled processes; kill those that hang, which restarts them."""
        stalled = []
        for process in [*([self.control] if self.control is not None else []), *self._all_workers]:
            age_s = process.heartbeat_age_s()
            if age_s > STALLED_S:
                stalled.append(process.name)
            if age_s > HANG_S and may_kill:
                log.error("%s hangs: no heartbeat for %.0f s; killing it", process.name, age_s)
                process.send(signal.SIGKILL)
        self._all_workers = [process for process in self._all_workers if not process.has_ended]
        return stalled

    # -- ending -----------------------------------------------------------------------------------------------------------

    def end_all(self, workers_s: float, control_s: float) -> None:
        """End the workers, then control, which takes their last events."""
        self.end(self._all_workers, workers_s, may_hurry=True)
        if self.control is not None:
            self.end([self.control], control_s)

    def end(
        self,
        processes: Sequence[SupervisedProcess],
        bound_s: float,
        *,
        may_hurry: bool = False,
        number: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Send `number`, wait, and kill the processes that outlive the bound. `may_hurry`: send HURRY before the kill."""
        for process in processes:
            process.begin_stop(number)
        greenlets = [process.greenlet for process in processes if process.greenlet is not None]
        if not self._wait_all(greenlets, bound_s):
            for process in processes:
                if may_hurry:
                    process.send(HURRY)
            gevent.joinall(greenlets, timeout=HURRY_S)
        for process in processes:
            if process.child is not None:
                log.error("%s did not stop in time; killing it", process.name)
                process.send(signal.SIGKILL)
        gevent.joinall(greenlets, timeout=GRACE_S)

    def _wait_all(self, greenlets: list[gevent.Greenlet[..., None]], bound_s: float) -> bool:
        """Wait until all have ended or the bound passed. False when `hurry` was set first."""
        done = Event()
        waiter = gevent.spawn(gevent.joinall, greenlets, bound_s)
        waiter.rawlink(lambda _: done.set())
        gevent.wait([done, self.hurry], count=1)
        waiter.kill()
        return done.is_set()


def environ_of(process: str, snapshot: Snapshot) -> dict[str, str]:
    """Return an environment without the secrets of other kinds of processes. MCP servers' tokens go where the AI's key goes."""
    own = SECRETS_OF[process]
    others = frozenset() if "openai_api_key" in own else snapshot.tokens
    return {
        name: value
        for name, value in snapshot.environ.items()
        if name not in others and ((field := field_of(name)) is None or field in own)
    }
