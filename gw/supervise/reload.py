"""One reload, from the check of the file to the former generation's farewell.

A new generation of workers is started beside the present one, worker by worker; only when all of it is ready does the former one
let go of the listening socket, to end with its last call, and control is replaced. Whatever goes wrong before changes nothing,
and each step and the end stand in the scoreboard's report. Every wait is bounded. One at a time: who asks during one gets no second.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import gevent

from gw.scoreboard import ReloadReport
from gw.supervise import cpu_affinity
from gw.supervise.child import HURRY, LEAVE
from gw.supervise.config_snapshot import RolloverError, Snapshot, Wanted, check
from gw.supervise.process_group import GRACE_S, HURRY_S, Crew
from gw.supervise.supervised import READY_S, Seat

log = logging.getLogger("gw.supervise.supervisor")

#: How long control may take to hand its spool to the disk and go.
CONTROL_STOP_S: Final = 10.0
#: Former generations that may drain at once: a worker's pages are numbered, and each keeps its memory.
MAX_LEAVING: Final = 8


class Reloading:
    """What brings new generations in. `wanted` and `snapshots`: what the present ones were started with."""

    def __init__(
        self,
        crew: Crew,
        wanted: Wanted,
        snapshot: Snapshot,
        *,
        config_path: Path | None,
        allowed: list[int],
        on_plan: Callable[[], None],
        on_report: Callable[[ReloadReport], None] | None,
    ) -> None:
        """`allowed`: the cores there are; `on_plan` is told when another plan holds."""
        self.wanted = wanted
        self._crew = crew
        self._snapshots = [snapshot]
        self._config_path = config_path
        self._allowed = allowed
        self._on_plan = on_plan
        self._on_report = on_report
        self._reports = 0
        self._former: Snapshot | None = None  # what control served with, while it is being replaced
        self._roller: gevent.Greenlet[..., None] | None = None
        self._stopped = False

    @property
    def is_running(self) -> bool:
        return self._roller is not None and not self._roller.dead

    def start(self, *, is_up: bool) -> None:
        """Begin one. What becomes of it stands in the scoreboard's report."""
        self._reports += 1
        if not is_up:
            self._tell("failed", "the start goes on", "the gateway is not up yet: try again in a moment")
            return
        self._tell("running", "the configuration is checked")
        self._roller = gevent.spawn(self._roll)

    def stop(self, timeout_s: float) -> None:
        """The gateway stops: whatever is going on ends here. Where control was told to go it is brought back, since the workers
        have last events for it. Three steps at most, each within `timeout_s`."""
        self._stopped = True
        if self._roller is not None:
            self._roller.kill(timeout=timeout_s)
        if self._former is not None:
            log.warning("the gateway stops while control is replaced: it is brought back for the workers' last events")
            control = self._bring_back_control(self._former, timeout_s)
            control.ready.wait(timeout_s)

    def close(self) -> None:
        """Let go of the configurations: nobody is started any more."""
        for snapshot in self._snapshots:
            snapshot.close()

    def _tell(self, state: str, step: str, problem: str = "") -> None:
        report = ReloadReport(self._reports, state, step, problem, time.time())
        self._crew.scoreboard.publish_report(report)
        if self._on_report is not None:
            self._on_report(report)
        if problem:
            log.error("reload: %s: %s", step, problem)
        else:
            log.info("reload: %s", step)

    def _roll(self) -> None:
        """One reload, to its end or its failure. Raises nothing: the report says what became of it."""
        try:
            leaving = self._crew.former()
            if leaving >= len(self._crew.workers) * MAX_LEAVING:
                raise RolloverError(f"{leaving} workers of former generations still drain")
            snapshot = Snapshot(self._config_path)
            self._snapshots.append(snapshot)
            wanted = check(self._crew.command, snapshot, self._crew.environ, str(self._config_path or "the configuration"))
            for key in ("listen", "var_dir"):
                if getattr(wanted, key) != getattr(self.wanted, key):
                    table = "ops" if key == "var_dir" else "server"
                    raise RolloverError(f"{table}.{key} has changed: that needs a stop and a start of the gateway")
            self._replace_workers(snapshot, wanted)
            self._replace_control(snapshot)
        except RolloverError as error:
            self._tell("failed", "what served before serves on", str(error))
        except Exception as error:  # this greenlet's top
            log.exception("the reload failed")
            self._tell("failed", "what served before serves on", f"the supervisor itself failed: {error!r}")
        else:
            self._tell("done", f"{self._crew.plan.workers} worker(s) of the new generation take the calls")
        finally:
            self._close_unused()

    def _close_unused(self) -> None:
        """Let go of configurations that nobody will be started with any more."""
        kept = self._crew.snapshots() + ([self._former] if self._former is not None else [])
        for snapshot in self._snapshots:
            if snapshot not in kept:
                snapshot.close()
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot in kept]

    def _replace_workers(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Start the new generation; the former one leaves when all of it is ready."""
        plan = cpu_affinity.plan(wanted.workers, wanted.pin, self._allowed)
        seats = self._start_workers(snapshot, plan)
        for seat in seats:
            seat.accept()
        former, self._crew.workers = self._crew.workers, seats
        bound_s = self.wanted.reload_timeout_s
        self._crew.plan, self.wanted = plan, wanted
        self._on_plan()
        for seat in former:
            seat.tell_to_go(LEAVE)
        gevent.spawn(self._see_off, former, bound_s)

    def _start_workers(self, snapshot: Snapshot, plan: cpu_affinity.Plan) -> list[Seat]:
        """One after the other, and behind those that serve where the kernel allows it: a start takes a core for a while, and
        calls go on beside it.

        Raises: RolloverError where one cannot be; calls that came to those before it go to their ends.
        """
        seats: list[Seat] = []
        try:
            for index in range(plan.workers):
                self._tell("running", f"new worker {index + 1} of {plan.workers} is started")
                seats.append(self._crew.seat_for_worker(index, snapshot, plan, behind=True))
                seats[-1].start()
                gevent.wait([seats[-1].ready, seats[-1].refused], timeout=READY_S + GRACE_S, count=1)
                if not all(seat.ready.is_set() and not seat.has_ended for seat in seats):
                    raise RolloverError(next((seat.why for seat in seats if seat.why), "a new worker was not ready in time"))
        except RolloverError:
            ready = [seat for seat in seats if seat.ready.is_set()]
            for seat in ready:
                seat.tell_to_go(LEAVE)
            gevent.spawn(self._see_off, ready, self.wanted.reload_timeout_s)
            self._crew.end([seat for seat in seats if seat not in ready], HURRY_S)
            raise
        return seats

    def _see_off(self, seats: list[Seat], bound_s: float) -> None:
        """A former generation ends with its calls; one that does not within its bound is hurried, then killed."""
        gevent.joinall([seat.keeper for seat in seats if seat.keeper is not None], timeout=bound_s + GRACE_S)
        if not self._stopped:
            for seat in seats:
                seat.send(HURRY)
            gevent.joinall([seat.keeper for seat in seats if seat.keeper is not None], timeout=HURRY_S)
            for seat in seats:
                seat.send(signal.SIGKILL)

    def _replace_control(self, snapshot: Snapshot) -> None:
        """The former control ends, the new one takes its sockets; where it refuses, one with the former configuration does.

        Raises: RolloverError where the new one refuses.
        """
        crew = self._crew
        assert crew.control is not None
        self._tell("running", "control is replaced")
        self._former = former = crew.control.snapshot
        crew.end([crew.control], CONTROL_STOP_S)
        crew.control = seat = crew.seat_for_control(snapshot)
        seat.start()
        gevent.wait([seat.ready, seat.refused], timeout=READY_S + GRACE_S, count=1)
        seat.accept()
        if seat.ready.is_set():
            self._former = None
            return
        self._bring_back_control(former, HURRY_S)
        why = seat.why or "the new control process was not ready in time"
        raise RolloverError(f"{why}; the workers are new, control runs with the former configuration")

    def _bring_back_control(self, former: Snapshot, bound_s: float) -> Seat:
        """Control with the former configuration, once whoever sits there has gone, which is within the bound."""
        crew = self._crew
        assert crew.control is not None
        crew.end([crew.control], bound_s)
        crew.control = seat = crew.seat_for_control(former)
        seat.accept()  # it served before: it is started again and again
        seat.start()
        self._former = None
        return seat
