"""What a service manager is told of a gateway: that it is ready, how it is, that it reloads or stops, and that its loops turn.

Decides what is said, one datagram each time, in systemd's words (sd_notify(3)). `WATCHDOG=1` is said each second for as long as
every process's loop turns: one that stands still is killed and replaced by the supervisor itself, so the manager hears nothing
only where that does not help, and then starts the whole gateway again. Without a manager nothing is said. A manager that does
not listen never holds the gateway up.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from gw.scoreboard import Flag, ProcessState, ReloadReport, Scoreboard

log = logging.getLogger("gw.supervise.supervisor")

#: The manager reads at once; while it does not, the kernel keeps some hundred datagrams.
SEND_S: Final = 1.0
_US: Final = 1_000_000


class Notifier:
    """The way to the manager; silent where the environment names none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self._failed = False
        self._status = ""
        self._reloading = False

    def ready(self, scoreboard: Scoreboard) -> None:
        """Calls are taken."""
        self._status = status_of(scoreboard)
        self._tell("READY=1", f"STATUS={self._status}")

    def look(self, scoreboard: Scoreboard, still: Sequence[str]) -> None:
        """Each second. `still`: the processes whose loop does not turn."""
        lines = [] if still else ["WATCHDOG=1"]
        status = f"stands still: {', '.join(still)}; {status_of(scoreboard)}" if still else status_of(scoreboard)
        if status != self._status and not self._reloading:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._tell(*lines)

    def report(self, report: ReloadReport) -> None:
        """A reload came further, or to its end."""
        running = report.state == "running"
        lines = [f"STATUS=reload: {report.step}" + (f": {report.problem}" if report.problem else "")]
        if running and not self._reloading:
            lines += ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]
        if not running:
            lines.append("READY=1")
        self._reloading = running
        self._tell(*lines)

    def stopping(self, bound_s: float) -> None:
        """No call is taken any more; all has ended within `bound_s`, for which the manager is asked to wait."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(bound_s * _US)}", f"STATUS=live calls end, within {bound_s:.0f} s")

    def _tell(self, *lines: str) -> None:
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_S)
                sock.connect(name)  # else a full queue would not be waited for
                sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError as error:
            if not self._failed:
                log.warning("the service manager cannot be told how the gateway is: %s", error)
            self._failed = True
        else:
            self._failed = False


def status_of(scoreboard: Scoreboard) -> str:
    """One line: calls, and how many workers take them."""
    rows = list(scoreboard.workers())
    up = [row for row in rows if row.state == ProcessState.UP]
    calls = sum(row.calls for row in rows)
    said = [f"{calls} of {sum(row.capacity for row in up)} calls", f"{len(up)} worker{'' if len(up) == 1 else 's'}"]
    for what, count in (
        ("late", sum(bool(row.flags & Flag.LATE) for row in up)),
        ("leaving", sum(row.state == ProcessState.LEAVING for row in rows)),
        ("started again", sum(row.state in (ProcessState.STARTING, ProcessState.WAITING) for row in rows)),
    ):
        if count:
            said.append(f"{count} {what}")
    if scoreboard.drained:
        said.append("drained by an operator")
    return ", ".join(said)
