"""gw.control.bus.workers: processes, over reconnections and replacements."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gw import bus, procfs
from gw.control.bus.workers import Workers
from gw.procfs import birth_of
from tests.gw.control.bus_client import CALL
from tests.timing import scaled


def hello(instance: str, *calls: str, index: int = 0, pid: int | None = None) -> bus.Hello:
    return bus.Hello(index, instance, os.getpid() if pid is None else pid, list(calls))


def test_the_birth_of_a_process_is_unknown_after_its_end() -> None:
    assert birth_of(os.getpid()) == birth_of(os.getpid()) is not None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = birth_of(process.pid)
    assert mark not in (None, birth_of(os.getpid()))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
    assert birth_of(process.pid) is None
    process.wait(scaled(20))
    assert birth_of(process.pid) is None


def test_a_process_of_another_user_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(procfs.os, "kill", refuse)
    assert birth_of(1) == "another user's"


def test_a_worker_that_reconnects_is_the_same() -> None:
    table = Workers()
    worker = table.on_hello(hello("a"))
    assert table.on_hello(hello("a")) is worker
    assert table.get("a") is worker
    assert not worker.gone


def test_a_worker_is_removed_once() -> None:
    table = Workers()
    first = table.on_hello(hello("a", CALL))
    assert table.remove(first)
    again = table.on_hello(hello("a", CALL))
    assert not table.remove(first)
    assert table.all() == [again]


def test_two_workers_of_one_index_are_both_listed() -> None:
    table = Workers()
    table.on_hello(hello("a", CALL, index=1, pid=7))
    table.on_hello(hello("b", index=1, pid=5))
    table.on_hello(hello("c", index=0, pid=9))
    assert [(view.index, view.pid, view.calls, view.connected) for view in (worker.view() for worker in table.all())] == [
        (0, 9, 0, False),
        (1, 5, 0, False),
        (1, 7, 1, False),
    ]
