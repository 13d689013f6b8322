"""The workers of this machine as one unit: capacity and calls, problems, drain and reload.

Reads the scoreboard. Control writes two values there: its own tick, and whether the machine is drained, so that a drain outlives
control and reaches workers that start later. The supervisor reloads: control sends it a signal and reads its report from the
scoreboard.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

import gevent
import msgspec

from gw.control.admin.server import Command, CommandError, acts
from gw.scoreboard import CHECK, Flag, ProcessState, Scoreboard, ScoreboardRow
from metrics import declare
from metrics.page import Page

#: With several machines: from `/readyz` reporting a drain until workers refuse callers. A balancer that checks once a second and
#: removes a machine after two failures (deploy/haproxy) sends no caller after that. Below the timeout of an admin client.
NOTICE_S: Final = 3.0
#: Period of control's tick.
TURN_S: Final = 0.25
#: Consecutive ends of a process that are reported as a crash loop, even if other workers serve.
LOOP: Final = 3


class _Reload(msgspec.Struct, forbid_unknown_fields=True):
    check: bool = False


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    on: bool = True


class MachineState:
    """The machine, over the scoreboard."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        row: ScoreboardRow,
        page: Page,
        *,
        drain_workers: Callable[[bool], int],
        is_orphan: Callable[[], bool],
        notice_s: float = 0.0,
    ) -> None:
        """`drain_workers` sends every worker a drain, or its end. `notice_s`: how long a drain is announced before that."""
        self._scoreboard = scoreboard
        self._row = row
        self._drain_workers = drain_workers
        self._is_orphan = is_orphan
        self._notice_s = notice_s
        self._reserved = page.gauge(declare.CALLS_RESERVED)
        if scoreboard.drained:
            drain_workers(True)

    def commands(self) -> dict[str, Command]:
        """Return the admin commands by name."""
        return {
            "drain": acts(_Drain, lambda args: self.drain(args.on)),
            "reload": acts(_Reload, lambda args: self.reload(args.check)),
        }

    def run(self) -> None:
        """Write control's tick, periodically: the body of a greenlet."""
        while True:
            self._row.heartbeat()
            self._reserved.set(float(self._scoreboard.reserved))
            gevent.sleep(TURN_S)

    @property
    def drained(self) -> bool:
        """True while the machine is drained by an operator."""
        return self._scoreboard.drained

    @property
    def has_reload_failed(self) -> bool:
        """True after a reload that failed, until the next one."""
        return self._scoreboard.report.has_failed

    @property
    def reloaded_at(self) -> float:
        """End of the last reload that took effect, epoch seconds; 0.0 before the first."""
        return self._scoreboard.report.reloaded_at

    def drain(self, on: bool) -> dict[str, Any]:
        """Drain the machine, or end the drain, also for workers that start later. Waits for the notice."""
        self._scoreboard.drained = on
        if on and self._notice_s:
            gevent.sleep(self._notice_s)
            on = self.drained  # an undrain may have come meanwhile
        return {"draining": on, "workers": self._drain_workers(on)}

    def reload(self, check: bool = False) -> dict[str, Any]:
        """Signal the supervisor to reload or only to check. Returns the number of the report to wait for. Raises CommandError."""
        report = self._scoreboard.report
        if report.state == "running":
            raise CommandError("busy", f"a reload is under way: {report.step}")
        if self._scoreboard.fd < 0 or self._is_orphan():
            raise CommandError("failed", "this gateway has no supervisor")
        os.kill(os.getppid(), CHECK if check else signal.SIGHUP)
        return {"report": report.n + 1}

    def problems(self) -> list[str]:
        """Return a sentence for each crash loop, for late workers, and for a full machine."""
        problems = []
        for row in self._scoreboard.rows():
            if row.failures >= LOOP:
                soon = (
                    f"is started again in {row.retry_in_s():.0f} s" if row.state == ProcessState.WAITING else "was started again"
                )
                problems.append(f"{_name(row)} ended {row.failures} times in a row and {soon}")
        accepting = [row for row in self._scoreboard.workers() if _accepts_calls(row)]
        late = sum(1 for row in accepting if row.flags & Flag.LATE)
        if late:
            problems.append(f"{late} of {len(accepting)} workers are late and accept no call")
        calls, capacity = self.calls, self.capacity
        if capacity and calls + self._scoreboard.reserved >= capacity:
            problems.append(f"every slot is taken: {calls} calls of {capacity}")
        return problems

    def status(self) -> dict[str, Any]:
        """Return the machine's part of the `status` document."""
        return {
            "capacity": self.capacity,
            "calls": self.calls,
            "reserved": self._scoreboard.reserved,
            "drained": self.drained,
            "reload": msgspec.to_builtins(self._scoreboard.report),
            "processes": [
                {
                    "name": _name(row),
                    "pid": row.pid,
                    "state": ProcessState(row.state).name.lower(),
                    "failures": row.failures,
                    "retry_in_s": round(row.retry_in_s(), 1),
                    "heartbeat_age_s": round(row.heartbeat_age_s(), 1),
                    "calls": row.calls,
                    "late": bool(row.flags & Flag.LATE),
                }
                for row in self._scoreboard.rows()
            ],
        }

    @property
    def calls(self) -> int:
        """The calls of all workers."""
        return sum(row.calls for row in self._scoreboard.workers())

    @property
    def capacity(self) -> int:
        """The calls that the accepting workers can have."""
        return sum(row.capacity for row in self._scoreboard.workers() if _accepts_calls(row))


def _accepts_calls(row: ScoreboardRow) -> bool:
    return row.state in (ProcessState.STARTING, ProcessState.UP) and row.capacity > 0 and not row.flags & Flag.LEAVING


def _name(row: ScoreboardRow) -> str:
    return "control" if row.worker < 0 else f"worker {row.worker}"
