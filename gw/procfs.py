"""Process identity from /proc, and protection of this process's memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Fields of /proc/<pid>/stat after the command's closing bracket: the state and the start time. Source: proc_pid_stat(5).
_STATE_FIELD: Final = 0
_START_TIME_FIELD: Final = 19
#: Source: linux/prctl.h.
_PR_SET_DUMPABLE: Final = 4
#: Set by measurements and tests: debuggers of the same user may attach. Not for a gateway with secrets.
TRACEABLE_VARIABLE: Final = "SUBMILLI_TRACEABLE"


def protect_memory(environ: Mapping[str, str]) -> None:
    """Keep this process's memory and environment from the user's other processes; write no core dump.

    A process with secrets calls this first. `/proc/<pid>` then belongs to root, and is invisible to others where /proc is mounted
    with hidepid, as in the systemd unit. Source: prctl(2), PR_SET_DUMPABLE; proc(5).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and not environ.get(TRACEABLE_VARIABLE):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


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
    except (FileNotFoundError, ProcessLookupError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return "invisible"  # its memory is protected; a zombie's folder is visible, since it has no memory
    fields = stat.rpartition(")")[2].split()
    return None if fields[_STATE_FIELD] in "ZX" else fields[_START_TIME_FIELD]
