"""Who owns which call, over reconnections, replacements and processes that are gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gw import bus
from gw.control.bus import workers
from gw.control.bus.workers import Workers
from gw.procfs import birth_of
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started
from tests.timing import scaled


def hello(instance: str, *calls: str, index: int = 0, pid: int | None = None) -> bus.Hello:
    return bus.Hello(index, instance, os.getpid() if pid is None else pid, list(calls))


def test_a_mark_lasts_as_long_as_the_process() -> None:
    assert birth_of(os.getpid()) == birth_of(os.getpid()) is not None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = birth_of(process.pid)
    assert mark not in (None, birth_of(os.getpid()))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
    assert birth_of(process.pid) is None
    process.wait(scaled(20))
    assert birth_of(process.pid) is None


def test_a_process_that_may_not_be_asked_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(workers.os, "kill", refuse)
    assert birth_of(1) == "another user's"


def test_a_reconnection_says_what_is_alive() -> None:
    table = Workers()
    worker = table.on_hello(hello("a", CALL, OTHER))
    assert table.on_hello(hello("a", OTHER)) is worker
    assert table.owned_calls() == {OTHER}
    assert table.owner(CALL) is None
    assert not worker.gone


def test_a_call_that_moved_stays_with_its_new_worker() -> None:
    table = Workers()
    old = table.on_hello(hello("a", CALL))
    new = table.on_hello(hello("b"))
    table.on_event(new, call_started(CALL))
    table.on_event(old, call_ended(CALL))
    assert table.owner(CALL) is new
    assert table.forget(old) == set()
    assert table.forget(new) == {CALL}
    assert table.owned_calls() == set()


def test_a_forgotten_worker_is_not_forgotten_twice() -> None:
    table = Workers()
    first = table.on_hello(hello("a", CALL))
    assert table.forget(first) == {CALL}
    again = table.on_hello(hello("a", CALL))
    assert table.forget(first) == set()
    assert table.all() == [again]


def test_other_events_move_nothing() -> None:
    table = Workers()
    worker = table.on_hello(hello("a", CALL))
    table.on_event(worker, bus.FirstAudio(OTHER, 1.0))
    assert table.owned_calls() == {CALL}


def test_two_of_one_slot_stand_side_by_side() -> None:
    table = Workers()
    table.on_hello(hello("a", CALL, index=1, pid=7))
    table.on_hello(hello("b", index=1, pid=5))
    table.on_hello(hello("c", index=0, pid=9))
    assert [(view.index, view.pid, view.calls, view.connected) for view in (worker.view() for worker in table.all())] == [
        (0, 9, 0, False),
        (1, 5, 0, False),
        (1, 7, 1, False),
    ]
