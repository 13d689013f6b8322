"""gw.procfs: the identity of a process, until it has ended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gw.procfs import birth_of


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
