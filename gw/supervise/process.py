"""Keeps one child process running: restarts the child with backoff whenever it ends.

A process is on trial until its supervisor accepts it: a child that exits with a code of 0 or more then sets `refused` and is
not restarted. An accepted process is restarted until `begin_stop`, after a wait that doubles while its ends follow one another
quickly. Its state is in its scoreboard row. The process group decides which processes exist.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import gevent
from gevent.event import Event

from gw.scoreboard import ProcessState, ScoreboardRow
from gw.supervise.child import STARTING_NICE, Backoff, ChildProcess, can_restore_nice, describe_exit
from gw.supervise.config_snapshot import Snapshot

log = logging.getLogger(__name__)

#: Bound from exec to ready: imports, migrations of a fresh store, one slow disk.
READY_S: Final = 30.0
#: Bound on the exit of a child that closed its pipe without becoming ready; beyond, the child hangs.
EXIT_S: Final = 10.0


class SupervisedProcess:
    """One kept process. After `start`, wait for `ready`, for `refused`, or for the end of `greenlet`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        row: ScoreboardRow,
        snapshot: Snapshot,
        pass_fds: tuple[int, ...] = (),
        *,
        low_priority: bool = False,
    ) -> None:
        """`snapshot`: the configuration that `argv` names; it must stay open while the process may be restarted. `low_priority`:
        on trial, the child starts at a lower priority than the processes that serve, and gets `--low-priority`."""
        self.name = name
        self.snapshot = snapshot
        self.row = row
        self.child: ChildProcess | None = None
        self.ready = Event()
        self.refused = Event()
        self.refusal = ""  # the reason, once `refused` is set
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self._argv = argv
        self._environ = environ
        self._pass_fds = (*snapshot.pass_fds, *pass_fds)
        self._low_priority = low_priority
        self._on_trial = True
        self._stopping = Event()

    def start(self) -> None:
        """Spawn the greenlet that keeps the child running."""
        self.greenlet = gevent.spawn(self._keep)

    def accept(self) -> None:
        """End the trial: from now on every end is followed by a restart."""
        self._on_trial = False

    def begin_stop(self, number: signal.Signals) -> None:
        """Signal the child, and restart none after it."""
        self._stopping.set()
        if self.child is not None:
            self.row.state = ProcessState.LEAVING
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """Signal the child, if one runs."""
        if self.child is not None:
            self.child.send(number)

    def heartbeat_age_s(self) -> float:
        """Return the age of the child's heartbeat; -1.0 without a child that has been ready."""
        return self.row.heartbeat_age_s() if self.child is not None and self.ready.is_set() else -1.0

    @property
    def has_ended(self) -> bool:
        """True once the child has ended and will not be restarted."""
        return self.greenlet is not None and self.greenlet.dead

    def _keep(self) -> None:
        """Run one child after another until `begin_stop`."""
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                self.row.state = ProcessState.STARTING
                low_priority = self._low_priority and self._on_trial
                argv = [*self._argv, "--low-priority"] if low_priority else self._argv
                try:
                    child = self.child = ChildProcess(self.name, argv, self._environ, self._pass_fds)
                except OSError as error:
                    log.error("%s cannot be started: %s", self.name, error)
                    if self._refuses(f"{self.name} cannot be started: {error}"):
                        return
                    self._wait(backoff, 0.0)
                    continue
                self.row.pid = child.pid
                if self._stopping.is_set():
                    child.send(signal.SIGTERM)  # `begin_stop` came while the child was being started
                code = self._watch(child, backoff.stable_s, low_priority=low_priority)
                self.child = None
                self.row.clear_process()
                if self._stopping.is_set():
                    if code not in (0, -signal.SIGTERM):
                        log.warning("%s ended with %s while stopping", self.name, describe_exit(code))
                    return
                how = describe_exit(code)
                if code >= 0 and self._refuses(
                    f"the {self.name} process did not start ({how}); its own log lines above give the reason"
                ):
                    return
                log.error("%s (pid %d) ended: %s", self.name, child.pid, how)
                self._wait(backoff, child.served_s)
        finally:
            self.row.clear()

    def _wait(self, backoff: Backoff, served_s: float) -> None:
        """Wait before the next child, longer after quick successive ends."""
        wait_s = backoff.on_exit(served_s)
        log.info("%s restarts in %.1f s", self.name, wait_s)
        self.row.failures = backoff.failures
        self.row.restart_in(wait_s)
        self._stopping.wait(wait_s)

    def _refuses(self, why: str) -> bool:
        if self._on_trial:
            self.refusal = why
            self.refused.set()
        return self._on_trial

    def _watch(self, child: ChildProcess, stable_s: float, *, low_priority: bool) -> int:
        """Wait for readiness, then for the end; after `stable_s` the failure count restarts at 0. Returns the exit code."""
        nicer = low_priority and can_restore_nice()
        if nicer:
            child.set_nice(STARTING_NICE)
        if child.wait_ready(READY_S):
            if nicer:
                child.set_nice()
            log.debug("%s is ready, pid %d", self.name, child.pid)
            if not self._stopping.is_set():
                self.row.state = ProcessState.UP
            self.ready.set()
            code = child.wait(stable_s)
            if code is None:
                self.row.failures = 0
                code = child.wait()
        else:
            # the pipe closed or the time passed: the child is ending, or it hangs and is killed
            code = child.wait(EXIT_S)
            if code is None:
                log.error("%s was not ready within %.0f s", self.name, READY_S)
                child.send(signal.SIGKILL)
                code = child.wait()
        assert code is not None
        return code
