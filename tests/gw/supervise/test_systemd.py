"""gw.supervise.systemd: the notifications word for word, over a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gw.scoreboard import Flag, ProcessState, ReloadReport, Scoreboard
from gw.supervise import systemd
from gw.supervise.systemd import Notifier, status_of

Say = Callable[[], list[list[str]]]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Notifier, Say]]:
    """A notifier, and a function that returns the manager's messages since its last call."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@submilli-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + address[1:] if address.startswith("@") else address)
        heard.settimeout(0.0)

        def said() -> list[list[str]]:
            lines = []
            while True:
                try:
                    lines.append(heard.recv(4096).decode().split("\n"))
                except BlockingIOError:
                    return lines

        yield Notifier({"NOTIFY_SOCKET": address}), said


@pytest.fixture
def scoreboard() -> Scoreboard:
    """Two workers that take calls, and a third that starts."""
    scoreboard = Scoreboard.private()
    for index, state, calls in ((0, ProcessState.UP, 3), (1, ProcessState.UP, 4), (2, ProcessState.STARTING, 0)):
        row = scoreboard.take_row(index)
        row.state, row.calls, row.capacity = state, calls, 225
    return scoreboard


def test_notifications_from_ready_to_stop(manager: tuple[Notifier, Say], scoreboard: Scoreboard) -> None:
    notifier, said = manager
    notifier.ready(scoreboard)
    status = "7 of 450 calls, 2 workers, 1 restarting"
    assert said() == [["READY=1", f"STATUS={status}"]]
    notifier.check(scoreboard, [])
    assert said() == [["WATCHDOG=1"]]  # nothing has changed
    next(iter(scoreboard.workers())).calls = 9
    notifier.check(scoreboard, [])
    assert said() == [["WATCHDOG=1", "STATUS=13 of 450 calls, 2 workers, 1 restarting"]]
    notifier.stopping(78.0)
    assert said() == [["STOPPING=1", "EXTEND_TIMEOUT_USEC=78000000", "STATUS=stopping: live calls end within 78 s"]]


def test_the_watchdog_is_not_fed_while_a_process_is_stalled(manager: tuple[Notifier, Say], scoreboard: Scoreboard) -> None:
    notifier, said = manager
    notifier.check(scoreboard, ["worker 1"])
    assert said() == [[f"STATUS=stalled: worker 1; {status_of(scoreboard)}"]]
    notifier.check(scoreboard, ["worker 1"])
    assert said() == []
    notifier.check(scoreboard, [])
    assert said() == [["WATCHDOG=1", f"STATUS={status_of(scoreboard)}"]]


def test_notifications_of_a_reload(
    manager: tuple[Notifier, Say], scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier, said = manager
    monkeypatch.setattr("gw.supervise.systemd.time.monotonic_ns", lambda: 5_000_999)
    notifier.report(ReloadReport(1, "running", "the file is checked"))
    notifier.report(ReloadReport(1, "running", "new workers start"))
    notifier.check(scoreboard, [])
    notifier.report(ReloadReport(1, "failed", "the present processes continue to serve", "one\ntwo"))
    assert said() == [
        ["STATUS=reload: the file is checked", "RELOADING=1", "MONOTONIC_USEC=5000"],
        ["STATUS=reload: new workers start"],
        ["WATCHDOG=1"],  # the reload's status stays
        ["STATUS=reload: the present processes continue to serve: one two", "READY=1"],
    ]
    notifier.check(scoreboard, [])
    assert said() == [["WATCHDOG=1", f"STATUS={status_of(scoreboard)}"]]


def test_the_status_line() -> None:
    scoreboard = Scoreboard.private()
    assert status_of(scoreboard) == "0 of 0 calls, 0 workers"
    row = scoreboard.take_row(0)
    row.state, row.capacity, row.flags = ProcessState.UP, 10, Flag.LATE
    assert status_of(scoreboard) == "0 of 10 calls, 1 worker, 1 late"
    former = scoreboard.take_row(0)
    former.state, former.calls = ProcessState.LEAVING, 2
    scoreboard.drained = True
    assert status_of(scoreboard) == "2 of 10 calls, 1 worker, 1 late, 1 leaving, drained by an operator"


def test_without_a_manager_nothing_is_sent(scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gw.supervise.systemd.socket.socket", None)
    Notifier({}).ready(scoreboard)


def test_a_missing_manager_is_logged_once(tmp_path: Path, scoreboard: Scoreboard, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with caplog.at_level(logging.WARNING):
        notifier.check(scoreboard, [])
        notifier.check(scoreboard, [])
    assert [record.getMessage() for record in caplog.records] == [
        "cannot notify the service manager: [Errno 2] No such file or directory"
    ]


def test_a_manager_that_does_not_read_delays_little(
    tmp_path: Path, scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "SEND_S", 0.01)
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        while not notifier._failed:
            notifier.check(scoreboard, [])
        while True:
            deaf.setblocking(False)
            try:
                deaf.recv(4096)
            except BlockingIOError:
                break
        notifier.check(scoreboard, [])
        assert not notifier._failed
