"""gw.supervise.reload, with real child processes: a stop in the middle of a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gw.supervise.config_snapshot import Snapshot
from gw.supervise.process import SupervisedProcess
from gw.supervise.process_group import ProcessGroup
from tests.gw.supervise.test_supervisor import Running, until
from tests.timing import scaled


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    assert made.ready.wait(scaled(30))
    yield made
    made.supervisor.stop()
    made.supervisor.stop()
    made.greenlet.join(timeout=scaled(30))


@pytest.mark.parametrize("order", ["deaf", "silent"])
def test_a_stop_during_the_replacement_of_control_restarts_it_before_the_workers_stop(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Control takes the workers' last events. `deaf`: the former control ignores the stop; `silent`: the next is not ready."""
    monkeypatch.setattr("gw.supervise.supervisor.HURRY_S", scaled(20.0))
    closed: list[Snapshot] = []
    monkeypatch.setattr(Snapshot, "close", lambda snapshot: closed.append(snapshot))
    new_control = ProcessGroup.new_control

    def process(group: ProcessGroup, snapshot: Snapshot) -> SupervisedProcess:
        assert snapshot not in closed, "the snapshot is closed"
        return new_control(group, snapshot)

    monkeypatch.setattr(ProcessGroup, "new_control", process)
    former = running.supervisor.pids()["control"]
    row = running.supervisor.scoreboard.row(0)
    for name in (order, "ticks"):
        (tmp_path / name).write_text("control")
    running.supervisor.reload()
    if order == "deaf":
        until(lambda: ("control", former, "leave") in running.lines())
    else:
        until(lambda: row.pid not in (0, former) and row.heartbeat_ns)
    (tmp_path / order).unlink()
    running.stop()
    said = [(name, what) for name, pid, what in running.lines() if pid != former and what != "leave"]
    assert ("control", "ready") in said[:-3], "control is ready before the workers stop"
    assert sorted(said[-3:-1]) == [("worker0", "term"), ("worker1", "term")]
    assert said[-1] == ("control", "term"), "control stops after the workers"
