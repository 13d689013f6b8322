"""The machine's workers as a whole: how many calls they may have, what their supervisor says of them, drain and reload.

Reads the scoreboard; of it control writes its own tick and whether the machine is drained, which so outlives control and reaches
workers that start later. A reload is the supervisor's doing: it is asked for by the signal an operator would send, and what
becomes of it stands in the scoreboard. Waits for a drain's notice alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Final

import gevent
import msgspec

from gw.control.admin.server import Command, CommandError, typed
from gw.scoreboard import Flag, ProcessState, Scoreboard, ScoreboardRow
from metrics import declare
from metrics.page import Page

#: Among several machines: from `/readyz` saying no until callers are turned away here. A balancer that looks each second and
#: believes the second no (deploy/haproxy) has sent the last one by then. Below what an admin client waits.
NOTICE_S: Final = 3.0
#: How often control says that its loop turns.
TURN_S: Final = 0.25
#: A process that ended so often in a row is a crash loop: it is told of, also where others serve.
LOOP: Final = 3


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    on: bool = True


class MachineState:
    """`tell_workers` sends them a drain, or its end."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        row: ScoreboardRow,
        page: Page,
        *,
        tell_workers: Callable[[bool], int],
        is_orphan: Callable[[], bool],
        notice_s: float = 0.0,
    ) -> None:
        """`notice_s`: how long a drain is only announced."""
        self._scoreboard = scoreboard
        self._row = row
        self._tell_workers = tell_workers
        self._is_orphan = is_orphan
        self._notice_s = notice_s
        self._reserved = page.gauge(declare.CALLS_RESERVED)
        if scoreboard.drained:
            tell_workers(True)

    def commands(self) -> dict[str, Command]:
        """The admin commands over it."""
        return {"drain": typed(_Drain, lambda args: self.drain(args.on)), "reload": typed(_Nothing, lambda _: self.reload())}

    def run(self) -> None:
        """The greenlet's body: say that the loop turns."""
        while True:
            self._row.turn()
            self._reserved.set(float(self._scoreboard.reserved))
            gevent.sleep(TURN_S)

    @property
    def drained(self) -> bool:
        """Whether an operator took this machine out."""
        return self._scoreboard.drained

    def drain(self, on: bool) -> dict[str, Any]:
        """Take the machine out, or back in. Workers that start from now on know it too. Waits for the notice."""
        self._scoreboard.drained = on
        if on and self._notice_s:
            gevent.sleep(self._notice_s)
            on = self.drained  # taken back meanwhile
        return {"draining": on, "workers": self._tell_workers(on)}

    def reload(self) -> dict[str, Any]:
        """Ask the supervisor for a new generation. Returns the number of the report to wait for. Raises CommandError."""
        report = self._scoreboard.report
        if report.state == "running":
            raise CommandError("busy", f"a reload is under way: {report.step}")
        if self._scoreboard.fd < 0 or self._is_orphan():
            raise CommandError("failed", "nobody supervises this gateway")
        os.kill(os.getppid(), signal.SIGHUP)
        return {"report": report.n + 1}

    def problems(self) -> list[str]:
        """What an operator should know: a crash loop, and a machine that takes no call for what it has or is."""
        said = []
        for row in self._scoreboard.rows():
            if row.failures >= LOOP:
                soon = (
                    f"is started again in {row.retry_in_s():.0f} s" if row.state == ProcessState.WAITING else "was started again"
                )
                said.append(f"{_name(row)} ended {row.failures} times in a row and {soon}")
        taking = [row for row in self._scoreboard.workers() if _takes(row)]
        late = sum(1 for row in taking if row.flags & Flag.LATE)
        if late:
            said.append(f"{late} of {len(taking)} workers are late and take no call")
        calls, capacity = self._calls(), self._capacity()
        if capacity and calls + self._scoreboard.reserved >= capacity:
            said.append(f"every place is taken: {calls} calls of {capacity}")
        return said

    def status(self) -> dict[str, Any]:
        """What the `status` command shows of it."""
        return {
            "capacity": self._capacity(),
            "calls": self._calls(),
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
                    "still_s": round(row.still_for_s(), 1),
                    "calls": row.calls,
                    "late": bool(row.flags & Flag.LATE),
                }
                for row in self._scoreboard.rows()
            ],
        }

    def _calls(self) -> int:
        return sum(row.calls for row in self._scoreboard.workers())

    def _capacity(self) -> int:
        return sum(row.capacity for row in self._scoreboard.workers() if _takes(row))


def _takes(row: ScoreboardRow) -> bool:
    """Whether a worker is one that new calls go to."""
    return row.state in (ProcessState.STARTING, ProcessState.UP) and row.capacity > 0 and not row.flags & Flag.LEAVING


def _name(row: ScoreboardRow) -> str:
    return "control" if row.worker < 0 else f"worker {row.worker}"
