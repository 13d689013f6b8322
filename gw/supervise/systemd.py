"""Notifications to the service manager: ready, status, reload, stop, and the watchdog.

One datagram each, in the format of sd_notify(3). `WATCHDOG=1` is sent each second while every process's heartbeat is fresh: the
supervisor itself kills and replaces a stalled process, so the manager misses the message only when that does not help, and then
restarts the whole gateway. Without a manager nothing is sent. A manager that does not read delays the gateway by SEND_S at most.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Final

from gw.scoreboard import Flag, ProcessState, ReloadReport, Scoreboard

log = logging.getLogger(__name__)

#: The manager reads immediately; otherwise the kernel queues some hundred datagrams.
SEND_S: Final = 1.0
_US: Final = 1_000_000


class Notifier:
    """Sends notifications; without NOTIFY_SOCKET in the environment it sends nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self._failed = False
        self._status = ""
        self._reloader = False

    def ready(self, scoreboard: Scoreboard) -> None:
        """Report that the gateway takes calls."""
        self._status = status_of(scoreboard)
        self._send("READY=1", f"STATUS={self._status}")

    def check(self, scoreboard: Scoreboard, stalled: Sequence[str]) -> None:
        """Feed the watchdog, each second. `stalled`: the names of processes without a heartbeat."""
        lines = [] if stalled else ["WATCHDOG=1"]
        status = f"stalled: {', '.join(stalled)}; {status_of(scoreboard)}" if stalled else status_of(scoreboard)
        if status != self._status and not self._reloader:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self._send(*lines)

    def report(self, report: ReloadReport) -> None:
        """Report a step or the end of a reload."""
        running = report.state == "running"
        lines = [f"STATUS=reload: {report.step}" + (f": {report.problem}" if report.problem else "")]
        if running and not self._reloader:
            lines += ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]
        if not running:
            lines.append("READY=1")
        self._reloader = running
        self._send(*lines)

    def stopping(self, bound_s: float) -> None:
        """Report the stop, and make the manager wait `bound_s` for it."""
        self._send(
            "STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(bound_s * _US)}", f"STATUS=stopping: live calls end within {bound_s:.0f} s"
        )

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_S)
                sock.connect(name)  # a connected socket waits on a full queue
                sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())
        except OSError as error:
            if not self._failed:
                log.warning("cannot notify the service manager: %s", error)
            self._failed = True
        else:
            self._failed = False


def status_of(scoreboard: Scoreboard) -> str:
    """Return one line: calls, capacity and workers."""
    rows = list(scoreboard.workers())
    up = [row for row in rows if row.state == ProcessState.UP]
    calls = sum(row.calls for row in rows)
    parts = [f"{calls} of {sum(row.capacity for row in up)} calls", f"{len(up)} worker{'' if len(up) == 1 else 's'}"]
    for what, count in (
        ("late", sum(bool(row.flags & Flag.LATE) for row in up)),
        ("leaving", sum(row.state == ProcessState.LEAVING for row in rows)),
        ("restarting", sum(row.state in (ProcessState.STARTING, ProcessState.WAITING) for row in rows)),
    ):
        if count:
            parts.append(f"{count} {what}")
    if scoreboard.drained:
        parts.append("drained by an operator")
    return ", ".join(parts)
