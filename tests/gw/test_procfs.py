"""gw.procfs: the identity of a process, until it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gw import procfs
from gw.procfs import TRACEABLE_VARIABLE, birth_of


def test_a_process_keeps_its_mark_until_it_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    mark = birth_of(process.pid)
    assert mark is not None
    assert birth_of(process.pid) == mark
    process.stdin.close()
    process.wait()
    assert birth_of(process.pid) is None


def test_a_zombie_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert birth_of(process.pid) is None
    process.wait()
    process.stdout.close()


def test_another_users_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert birth_of(os.getpid()) == "another user's"


def test_an_invisible_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under hidepid: its folder in /proc is missing until it is a zombie."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as hidden:
        hidden.setattr(procfs, "Path", lambda path: Path("/proc/nowhere"))
        assert birth_of(process.pid) == birth_of(process.pid) == "invisible"
        process.communicate()
        assert birth_of(process.pid) is None


def test_a_process_that_ends_before_it_is_read_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, ProcessLookupError()])

    def kill(_pid: int, _signal: int) -> None:
        if error := next(answers):
            raise error

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(procfs, "Path", lambda path: Path("/proc/nowhere"))
    assert birth_of(1) is None


@pytest.mark.parametrize(("environ", "dumpable"), [({}, 0), ({TRACEABLE_VARIABLE: "1"}, 1)])
def test_memory_is_protected_unless_debuggers_are_allowed(environ: dict[str, str], dumpable: int) -> None:
    code = (
        "import ctypes, resource\n"
        "from gw.procfs import protect_memory\n"
        f"protect_memory({environ})\n"
        "PR_GET_DUMPABLE = 3\n"
        "print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == f"{dumpable} (0, 0)\n"
