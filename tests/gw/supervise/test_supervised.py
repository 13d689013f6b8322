"""gw.supervise.supervised, with real child processes: who sits there again after what, and what the scoreboard says of it."""

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
from gw.supervise import supervised as module
from gw.supervise.child import Backoff
from gw.supervise.config_snapshot import Snapshot
from gw.supervise.supervised import Seat
from tests.timing import scaled

#: Notes that it was started and with what; ends before it is ready in a folder with `fails`, else says so and stays.
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
        assert time.monotonic() < deadline_s, "it did not happen in time"
        gevent.sleep(0.01)


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    scoreboard = Scoreboard.private()
    argv = [sys.executable, "-c", CHILD, str(tmp_path)]
    seat = Seat("worker 0", argv, os.environ, scoreboard.take_row(0), Snapshot(None), behind=True)
    yield seat
    seat.tell_to_go(signal.SIGKILL)
    if seat.keeper is not None:
        seat.keeper.join(timeout=scaled(15.0))
    scoreboard.close()


def test_the_ends_of_former_children_are_forgotten_once_one_has_served(
    seat: Seat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the scoreboard says is what an operator is told: that it ended so often in a row."""
    served: list[float] = []

    class Short(Backoff):
        def __init__(self) -> None:
            super().__init__(first_s=0.02, last_s=0.02, forgive_s=0.2)

        def on_exit(self, served_s: float) -> float:
            served.append(served_s)
            return super().on_exit(served_s)

    monkeypatch.setattr(module, "Backoff", Short)
    (tmp_path / "fails").touch()
    seat.accept()
    seat.start()
    until(lambda: seat.row.failures >= 2)
    (tmp_path / "fails").unlink()
    until(lambda: seat.row.state == ProcessState.UP and seat.row.failures == 0)
    assert seat.child is not None and seat.child.alive(), "nobody had to come after it"
    assert set(served) == {0.0}, "who was never ready has not served, however long that took"
    os.kill(seat.child.pid, signal.SIGKILL)
    until(lambda: seat.row.failures == 1)
    assert served[-1] >= 0.2


def test_only_on_trial_it_starts_behind_others(seat: Seat, tmp_path: Path) -> None:
    seat.start()
    until(seat.ready.is_set)
    seat.accept()
    assert seat.child is not None
    seat.child.send(signal.SIGKILL)
    until(lambda: (tmp_path / "starts").read_text().count("\n") == 2)
    starts = [line.split() for line in (tmp_path / "starts").read_text().splitlines()]
    assert ["--behind" in words for words in starts] == [True, False]
