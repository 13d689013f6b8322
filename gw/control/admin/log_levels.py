"""`loglevel`: what each process logs, changed while it runs.

Control writes wishes into the scoreboard, one for all processes and one for each row, and every process follows within half a
second. A wish for all also reaches processes that start later, and outlives control; one for a single process ends with it.
Neither outlives the gateway: what is meant to last belongs into `ops.log_level`.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

import msgspec

from gw.control.admin.server import Command, CommandError, typed
from gw.scoreboard import Scoreboard, ScoreboardRow

log = logging.getLogger(__name__)

Level = Literal["debug", "info", "warning", "error", "configured"]
#: The supervisor has no row: it follows the wish for all.
SUPERVISOR: Final = "supervisor"


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    level: Level | None = None  # none: only tell
    process: str = ""  # none: all


class LogLevels:
    """`configured` is `ops.log_level`."""

    def __init__(self, scoreboard: Scoreboard, configured: str) -> None:
        self._scoreboard = scoreboard
        self._configured = configured

    def commands(self) -> dict[str, Command]:
        return {"loglevel": typed(_Wish, self._carry_out)}

    def _carry_out(self, wish: _Wish) -> dict[str, Any]:
        if wish.level is not None:
            self._set(0 if wish.level == "configured" else getattr(logging, wish.level.upper()), wish.process)
            log.warning("an operator sets what is logged: %s from %s up", wish.process or "every process", wish.level)
        processes = {SUPERVISOR: self._name(self._scoreboard.log_level)}
        for row in self._scoreboard.rows():
            processes[_process(row)] = self._name(row.log_level or self._scoreboard.log_level)
        return {"configured": self._configured, "processes": processes}

    def _set(self, level: int, process: str) -> None:
        """For all: single wishes end. Raises CommandError for a process there is not."""
        if not process:
            self._scoreboard.log_level = level
        rows = [row for row in self._scoreboard.rows() if process in ("", _process(row))]
        if not rows and process:
            known = ", ".join(sorted(_process(row) for row in self._scoreboard.rows()))
            raise CommandError("not_found", f"there is no process {process!r} to set alone: there are {known}")
        for row in rows:
            row.log_level = level if process else 0

    def _name(self, level: int) -> str:
        return logging.getLevelName(level).lower() if level else self._configured


def _process(row: ScoreboardRow) -> str:
    """As the log's lines name it."""
    return "control" if row.worker < 0 else f"worker-{row.worker}"
