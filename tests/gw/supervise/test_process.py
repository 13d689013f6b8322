"""gw.supervise.process, with real child processes: restarts, backoff, priority, and the scoreboard row."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from gw.scoreboard import ProcessState, Scoreboard
from gw.supervise import process as module
from gw.supervise.child import Backoff
from gw.supervise.config_snapshot import Snapshot
from gw.supervise.process import SupervisedProcess
from tests.timing import scaled

#: Records its start and arguments; ends before readiness in a folder with `fails`, else becomes ready and waits.
CHILD = """
import os, sys, time
folder = sys.argv[1]
with open(folder + "/starts", "a") as file:
    file.write(" ".join(sys.argv[2:]) + "\\n")
if os.path.exists(folder + "/fails"):
    sys.exit(1)
os.write(int(sys.argv[-1]), b"1")
time.sleep(60)
"""


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + scaled(15.0)
    while not condition():
        assert time.monotonic() < deadline_s, "timed out"
        gevent.sleep(0.01)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SupervisedProcess]:
    scoreboard = Scoreboard.private()
    argv = [sys.executable, "-c", CHILD, str(tmp_path)]
    process = SupervisedProcess(
        "worker 0", argv, os.environ, scoreboard.take_row(0), Snapshot(None, os.environ), low_priority=True
    )
    yield process
    process.begin_stop(signal.SIGKILL)
    if process.greenlet is not None:
        process.greenlet.join(timeout=scaled(15.0))
    scoreboard.close()


def test_failures_are_reset_once_a_child_has_served(
    process: SupervisedProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator sees the number of successive failures in the scoreboard."""
    served: list[float] = []

    class Short(Backoff):
        def __init__(self) -> None:
            super().__init__(first_s=0.02, last_s=0.02, stable_s=0.2)

        def on_exit(self, served_s: float) -> float:
            served.append(served_s)
            return super().on_exit(served_s)

    monkeypatch.setattr(module, "Backoff", Short)
    (tmp_path / "fails").touch()
    process.accept()
    process.start()
    until(lambda: process.row.failures >= 2)
    (tmp_path / "fails").unlink()
    until(lambda: process.row.state == ProcessState.UP and process.row.failures == 0)
    assert process.child is not None and process.child.alive(), "no restart was needed"
    assert set(served) == {0.0}, "a child that was never ready has not served, however long its start took"
    os.kill(process.child.pid, signal.SIGKILL)
    until(lambda: process.row.failures == 1)
    assert served[-1] >= 0.2


def test_only_a_child_on_trial_starts_at_low_priority(process: SupervisedProcess, tmp_path: Path) -> None:
    process.start()
    until(process.ready.is_set)
    process.accept()
    assert process.child is not None
    process.child.send(signal.SIGKILL)
    until(lambda: (tmp_path / "starts").read_text().count("\n") == 2)
    starts = [line.split() for line in (tmp_path / "starts").read_text().splitlines()]
    assert ["--low-priority" in words for words in starts] == [True, False]
