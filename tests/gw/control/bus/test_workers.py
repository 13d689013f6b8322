"""gw.control.bus.workers: the owner of each call over reconnections, replacements and ends of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from gw import bus, procfs
from gw.control.bus.workers import Workers
from gw.procfs import birth_of
from tests.gw.control.bus_client import CALL, OTHER, call_ended, call_started
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


def test_a_reconnection_replaces_the_calls() -> None:
    table = Workers()
    worker = table.on_hello(hello("a", CALL, OTHER))
    assert table.on_hello(hello("a", OTHER)) is worker
    assert table.owned_calls() == {OTHER}
    assert table.owner(CALL) is None
    assert not worker.gone


def test_a_reconnection_with_an_older_stream_takes_no_call() -> None:
    table = Workers()
    old = table.on_hello(hello("a", CALL))
    new = table.on_hello(hello("b"))
    table.on_event(new, call_started(CALL))
    assert table.on_hello(hello("a", CALL)) is old
    assert table.owner(CALL) is new
    table.on_event(old, call_ended(CALL))
    assert table.owner(CALL) is new


@pytest.mark.parametrize("newer_first", [True, False])
def test_after_a_restart_of_control_the_newer_stream_owns_its_call(newer_first: bool) -> None:
    table = Workers()
    older = msgspec.structs.replace(hello("a", CALL), answered_at=[10.0])
    newer = msgspec.structs.replace(hello("b", CALL), answered_at=[20.0])
    for one in (newer, older) if newer_first else (older, newer):
        table.on_hello(one)
    owner = table.owner(CALL)
    assert owner is not None
    assert owner.instance == "b"


def test_a_call_that_moved_stays_with_its_new_worker() -> None:
    table = Workers()
    old = table.on_hello(hello("a", CALL))
    new = table.on_hello(hello("b"))
    table.on_event(new, call_started(CALL))
    table.on_event(old, call_ended(CALL))
    assert table.owner(CALL) is new
    assert table.remove(old) == set()
    assert table.remove(new) == {CALL}
    assert table.owned_calls() == set()


def test_the_latest_stream_owns_its_call_in_whatever_order_events_come() -> None:
    """Control was away while a call changed its worker, and the two workers reconnect in the wrong sequence."""
    table = Workers()
    old, new = table.on_hello(hello("a")), table.on_hello(hello("b"))
    first, second = call_started(CALL), call_started(CALL)
    assert table.on_event(new, second) is None
    assert table.on_event(old, msgspec.structs.replace(first, answered_at=second.answered_at - 1)) is None
    table.on_event(old, call_ended(CALL))
    assert table.owner(CALL) is new
    table.on_event(new, call_ended(CALL))
    assert table.owner(CALL) is None


def test_a_worker_with_an_older_stream_is_named() -> None:
    table = Workers()
    old, new = table.on_hello(hello("a")), table.on_hello(hello("b"))
    assert table.on_event(old, call_started(CALL)) is None
    assert table.on_event(new, call_started(CALL)) is old
    assert table.on_event(new, call_started(CALL)) is None


def test_a_worker_is_removed_once() -> None:
    table = Workers()
    first = table.on_hello(hello("a", CALL))
    assert table.remove(first) == {CALL}
    again = table.on_hello(hello("a", CALL))
    assert table.remove(first) == set()
    assert table.all() == [again]


def test_other_events_move_nothing() -> None:
    table = Workers()
    worker = table.on_hello(hello("a", CALL))
    table.on_event(worker, bus.FirstAudio(OTHER, 1.0))
    assert table.owned_calls() == {CALL}


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
