"""Process identity from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Fields of /proc/<pid>/stat after the command's closing bracket: the state and the start time. Source: proc_pid_stat(5).
_STATE_FIELD: Final = 0
_START_TIME_FIELD: Final = 19


def birth_of(pid: int) -> str | None:
    """Return a mark unique among processes with this pid; None once it has ended.

    A zombie has ended: only its parent has not collected the exit code.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "another user's"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "unknown" if not Path("/proc/self/stat").exists() else None
    except ProcessLookupError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[_STATE_FIELD] in "ZX" else fields[_START_TIME_FIELD]
