"""Who sits where: control's seat, the workers' of this generation, and those of former ones that still drain.

It makes seats, watches whose loop stands still, and ends them in bounded time: told to go, hurried, killed. Never decides when
somebody is to start or to end: that is the supervisor's, and the reload's.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import gevent
from gevent.event import Event

from gw.scoreboard import Scoreboard, ScoreboardError
from gw.supervise.child import HURRY
from gw.supervise.config_snapshot import RolloverError, Snapshot
from gw.supervise.cpu_affinity import Plan
from gw.supervise.supervised import Seat

log = logging.getLogger("gw.supervise.supervisor")

#: On top of the drain time: a worker closes its streams, answers what Twilio asks then, hands over its last events and leaves.
GRACE_S: Final = 10.0
#: The same, for all of it, when the stop is in a hurry.
HURRY_S: Final = 4.0
#: How often every process's loop is looked at.
LOOK_S: Final = 1.0
#: A loop that has not turned for so long is told to whoever watches; its process is killed after HANG_S. A worker's longest
#: lawful hold is a millisecond, control's some tens.
STILL_S: Final = 3.0
HANG_S: Final = 10.0


class Crew:
    """All seats of one gateway."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        scoreboard: Scoreboard,
        listen_fd: int,
        plan: Plan,
        allowed: Sequence[int],
    ) -> None:
        """`allowed`: the cores there are. A child inherits those of this process, which may be fewer."""
        self.environ = environ
        self.command = list(command)
        self.scoreboard = scoreboard
        self.plan = plan  # of those that take calls
        self.control: Seat | None = None
        self.workers: list[Seat] = []  # those that take calls
        self.hurry = Event()  # nobody waits for calls any more
        self._all_workers: list[Seat] = []  # also those on trial and those that leave
        self._listen_fd = listen_fd
        self._allowed = allowed

    def pids(self) -> dict[str, int]:
        """The children that take calls now, and control, by name."""
        return {seat.name: seat.child.pid for seat in self._serving() if seat.child is not None}

    def former(self) -> int:
        """How many workers of former generations still drain."""
        return sum(1 for seat in self._all_workers if seat not in self.workers and not seat.has_ended)

    def snapshots(self) -> list[Snapshot]:
        """The configurations that somebody may still be started with."""
        return [seat.snapshot for seat in self._serving()]

    def _serving(self) -> list[Seat]:
        return [*([self.control] if self.control is not None else []), *self.workers]

    # -- seats ------------------------------------------------------------------------------------------------------------

    def seat_for_control(self, snapshot: Snapshot) -> Seat:
        """Control's, on trial."""
        row = self.scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        argv = [*self.command, *snapshot.options, "control", *self._handed(row.index), "--nice", str(self.plan.control_nice)]
        return Seat("control", argv, self.environ, row, snapshot, (self.scoreboard.fd,))

    def seat_for_worker(self, index: int, snapshot: Snapshot, plan: Plan, *, behind: bool) -> Seat:
        """A worker's, on trial. `behind`: whether others serve meanwhile. Raises RolloverError when the scoreboard is full."""
        try:
            row = self.scoreboard.take_row(index)
        except ScoreboardError as error:
            raise RolloverError(str(error)) from None
        argv = [*self.command, *snapshot.options, "worker", "--index", str(index), "--listen-fd", str(self._listen_fd)]
        own = plan.core_of(index)
        cores = [own] if own >= 0 else self._allowed
        argv += [*self._handed(row.index), "--core", ",".join(map(str, cores))]
        handed = (self._listen_fd, self.scoreboard.fd)
        seat = Seat(f"worker {index}", argv, self.environ, row, snapshot, handed, behind=behind)
        self._all_workers.append(seat)
        return seat

    def _handed(self, row: int) -> list[str]:
        return ["--scoreboard-fd", str(self.scoreboard.fd), "--row", str(row)]

    # -- who stands still -------------------------------------------------------------------------------------------------

    def watch(self, on_look: Callable[[list[str]], None]) -> None:
        """Each second: is there a process whose loop stands still? Not judged while this one could not run. Never returns."""
        judged_from_s = 0.0
        while True:
            before_s = time.monotonic()
            gevent.sleep(LOOK_S)
            now_s = time.monotonic()
            if now_s - before_s > LOOK_S + STILL_S:
                judged_from_s = now_s + HANG_S
            on_look(self._look(may_kill=now_s >= judged_from_s))

    def _look(self, *, may_kill: bool) -> list[str]:
        """Whose loop stands still, by name; whoever hangs is killed, and so started again."""
        still = []
        for seat in [*([self.control] if self.control is not None else []), *self._all_workers]:
            still_s = seat.still_for_s()
            if still_s > STILL_S:
                still.append(seat.name)
            if still_s > HANG_S and may_kill:
                log.error("%s hangs: its loop has not turned for %.0f s; it is killed", seat.name, still_s)
                seat.send(signal.SIGKILL)
        self._all_workers = [seat for seat in self._all_workers if not seat.has_ended]
        return still

    # -- ending -----------------------------------------------------------------------------------------------------------

    def end_all(self, workers_s: float, control_s: float) -> None:
        """Workers first, so that control still takes their last events; then control."""
        self.end(self._all_workers, workers_s, may_hurry=True)
        if self.control is not None:
            self.end([self.control], control_s)

    def end(self, seats: Sequence[Seat], bound_s: float, *, may_hurry: bool = False) -> None:
        """Tell them to stop, wait for it, and kill whoever outlives the bound."""
        for seat in seats:
            seat.tell_to_go(signal.SIGTERM)
        keepers = [seat.keeper for seat in seats if seat.keeper is not None]
        if not self._wait_all(keepers, bound_s):
            for seat in seats:
                if may_hurry:
                    seat.send(HURRY)
            gevent.joinall(keepers, timeout=HURRY_S)
        for seat in seats:
            if seat.child is not None:
                log.error("%s did not stop in time: it is killed", seat.name)
                seat.send(signal.SIGKILL)
        gevent.joinall(keepers, timeout=GRACE_S)

    def _wait_all(self, keepers: list[gevent.Greenlet[..., None]], bound_s: float) -> bool:
        """Wait until all have ended or the bound passed. False when `hurry` was set before."""
        done = Event()
        waiter = gevent.spawn(gevent.joinall, keepers, bound_s)
        waiter.rawlink(lambda _: done.set())
        gevent.wait([done, self.hurry], count=1)
        waiter.kill()
        return done.is_set()
