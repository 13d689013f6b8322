"""The `loglevel` command: changes the log level of running processes.

Control writes levels into the scoreboard, one for all processes and one for each row; every process follows within half a second.
The level for all also reaches processes that start later, and outlives control. The level of one process ends with it. Neither
outlives the gateway: a permanent level belongs into `ops.log_level`.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

import msgspec

from gw.control.admin.server import Command, CommandError, acts
from gw.scoreboard import Scoreboard, ScoreboardRow

Level = Literal["debug", "info", "warning", "error", "configured"]
#: The supervisor has no row: it follows the level for all.
SUPERVISOR: Final = "supervisor"


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    level: Level | None = None  # None: only show
    process: str = ""  # empty: all


class LogLevels:
    """Log levels in the scoreboard. `configured` is `ops.log_level`."""

    def __init__(self, scoreboard: Scoreboard, configured: str) -> None:
        self._scoreboard = scoreboard
        self._configured = configured

    def commands(self) -> dict[str, Command]:
        return {"loglevel": acts(_Arguments, self._set_and_show, when=lambda fields: fields.get("level") is not None)}

    def _set_and_show(self, arguments: _Arguments) -> dict[str, Any]:
        if arguments.level is not None:
            self._set(0 if arguments.level == "configured" else getattr(logging, arguments.level.upper()), arguments.process)
        processes = {SUPERVISOR: self._name(self._scoreboard.log_level)}
        for row in self._scoreboard.rows():
            processes[_process(row)] = self._name(row.log_level or self._scoreboard.log_level)
        return {"configured": self._configured, "processes": processes}

    def _set(self, level: int, process: str) -> None:
        """Set the level of one process; for all processes, clear the single levels too. Raises CommandError."""
        if not process:
            self._scoreboard.log_level = level
        rows = [row for row in self._scoreboard.rows() if process in ("", _process(row))]
        if not rows and process:
            known = ", ".join(sorted(_process(row) for row in self._scoreboard.rows()))
            raise CommandError("not_found", f"there is no process {process!r}; use one of: {known}")
        for row in rows:
            row.log_level = level if process else 0

    def _name(self, level: int) -> str:
        return logging.getLevelName(level).lower() if level else self._configured


def _process(row: ScoreboardRow) -> str:
    """Return the name of a process in log lines."""
    return "control" if row.worker < 0 else f"worker-{row.worker}"
