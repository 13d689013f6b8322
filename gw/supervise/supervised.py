"""A place for one process, and the greenlet that keeps it filled.

A seat is on trial until its supervisor accepts it: a child that says no then (an exit code of its own) makes the seat `refused`,
and nothing is started again. An accepted seat is filled until it is told to stop: whatever ends is started again, after a wait
that doubles while its ends follow one another quickly. What the seat knows of its process stands in its row of the scoreboard. Never
decides which seats there are.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import gevent
from gevent.event import Event

from gw.scoreboard import ProcessState, ScoreboardRow
from gw.supervise.child import BEHIND, Backoff, Child, describe_exit, may_come_back
from gw.supervise.config_snapshot import Snapshot

log = logging.getLogger("gw.supervise.supervisor")

#: How long a child may take from exec to ready: imports, migrations of a fresh store, one slow disk.
READY_S: Final = 30.0
#: A child that closed its pipe without a word ends by itself; longer than this it hangs.
GRACE_S: Final = 10.0


class Seat:
    """One place. `start` begins to fill it; `ready`, `refused` and the end of `keeper` are what to wait for."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        row: ScoreboardRow,
        snapshot: Snapshot,
        pass_fds: tuple[int, ...] = (),
        *,
        behind: bool = False,
    ) -> None:
        """`snapshot`: the configuration that `argv` names; it stays open for as long as the seat may be filled again. `behind`:
        on trial it starts in the time that those who serve already leave, and is told so with `--behind`; later, when it is
        missed, as fast as it can."""
        self.name = name
        self.snapshot = snapshot
        self.row = row
        self.child: Child | None = None
        self.ready = Event()
        self.refused = Event()
        self.why = ""  # it was refused
        self.keeper: gevent.Greenlet[..., None] | None = None
        self._argv = argv
        self._environ = environ
        self._pass_fds = (*snapshot.pass_fds, *pass_fds)
        self._behind = behind
        self._on_trial = True
        self._stopping = Event()

    def start(self) -> None:
        """Begin to fill it."""
        self.keeper = gevent.spawn(self._keep)

    def accept(self) -> None:
        """The trial is over: from now on it is kept filled."""
        self._on_trial = False

    def tell_to_go(self, number: signal.Signals) -> None:
        """Send the child that signal; nobody follows it."""
        self._stopping.set()
        if self.child is not None:
            self.row.state = ProcessState.LEAVING
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """Signal the child, if there is one."""
        if self.child is not None:
            self.child.send(number)

    def still_for_s(self) -> float:
        """How long the loop of its process has not turned; -1.0 where there is none that ever did."""
        return self.row.still_for_s() if self.child is not None and self.ready.is_set() else -1.0

    @property
    def has_ended(self) -> bool:
        """Whether nobody sits here any more, nor will."""
        return self.keeper is not None and self.keeper.dead

    def _keep(self) -> None:
        """Run one child after the other until told to stop."""
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                self.row.state = ProcessState.STARTING
                behind = self._behind and self._on_trial
                argv = [*self._argv, "--behind"] if behind else self._argv
                try:
                    child = self.child = Child(self.name, argv, self._environ, self._pass_fds)
                except OSError as error:
                    log.error("%s cannot be started: %s", self.name, error)
                    if self._refuses(f"{self.name} cannot be started: {error}"):
                        return
                    self._wait(backoff, 0.0)
                    continue
                self.row.pid = child.pid
                if self._stopping.is_set():
                    child.send(signal.SIGTERM)  # it was being started while the others were told
                code = self._watch(child, backoff.forgive_s, behind=behind)
                self.child = None
                self.row.forget_process()
                if self._stopping.is_set():
                    if code not in (0, -signal.SIGTERM):
                        log.warning("%s ended with %s while stopping", self.name, describe_exit(code))
                    return
                how = describe_exit(code)
                if code >= 0 and self._refuses(f"the {self.name} process did not start ({how}); it said why above"):
                    return
                log.error("%s (pid %d) ended: %s", self.name, child.pid, how)
                self._wait(backoff, child.served_s)
        finally:
            self.row.clear()

    def _wait(self, backoff: Backoff, served_s: float) -> None:
        """Before the next child: where the last ones ended soon, longer and longer."""
        wait_s = backoff.on_exit(served_s)
        log.info("%s is started again in %.1f s", self.name, wait_s)
        self.row.failures = backoff.failures
        self.row.wait_until(wait_s)
        self._stopping.wait(wait_s)

    def _refuses(self, why: str) -> bool:
        if self._on_trial:
            self.why = why
            self.refused.set()
        return self._on_trial

    def _watch(self, child: Child, forgive_s: float, *, behind: bool) -> int:
        """Wait for readiness, then for the end; the ends before it are forgotten after `forgive_s`. Returns the exit code."""
        nicer = behind and may_come_back()
        if nicer:
            child.set_nice(BEHIND)
        if child.wait_ready(READY_S):
            if nicer:
                child.set_nice()
            log.debug("%s is ready, pid %d", self.name, child.pid)
            if not self._stopping.is_set():
                self.row.state = ProcessState.UP
            self.ready.set()
            code = child.wait(forgive_s)
            if code is None:
                self.row.failures = 0
                code = child.wait()
        else:
            # The pipe closed or nothing came: it is ending by itself, or it hangs and is ended.
            code = child.wait(GRACE_S)
            if code is None:
                log.error("%s was not ready within %.0f s", self.name, READY_S)
                child.send(signal.SIGKILL)
                code = child.wait()
        assert code is not None
        return code
