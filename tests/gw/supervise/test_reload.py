"""gw.supervise.reload, with real child processes: what a stop finds in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gw.supervise.config_snapshot import Snapshot
from gw.supervise.process_group import Crew
from gw.supervise.supervised import Seat
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
def test_a_stop_while_control_is_replaced_brings_it_back_before_the_workers_are_told(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Their last events are for it. `deaf`: the former one has been told to go; `silent`: it has gone, the next is not ready."""
    monkeypatch.setattr("gw.supervise.supervisor.HURRY_S", scaled(20.0))
    closed: list[Snapshot] = []
    monkeypatch.setattr(Snapshot, "close", lambda snapshot: closed.append(snapshot))
    seat_for_control = Crew.seat_for_control

    def seat(crew: Crew, snapshot: Snapshot) -> Seat:
        assert snapshot not in closed, "nobody can be started with it"
        return seat_for_control(crew, snapshot)

    monkeypatch.setattr(Crew, "seat_for_control", seat)
    former = running.supervisor.pids()["control"]
    row = running.supervisor.scoreboard.row(0)
    for name in (order, "ticks"):
        (tmp_path / name).write_text("control")
    running.supervisor.reload()
    if order == "deaf":
        until(lambda: ("control", former, "term") in running.lines())
    else:
        until(lambda: row.pid not in (0, former) and row.tick_ns)
    (tmp_path / order).unlink()
    running.stop()
    said = [(name, what) for name, pid, what in running.lines() if pid != former and what != "leave"]
    assert ("control", "ready") in said[:-3], "it is there before the workers are told"
    assert sorted(said[-3:-1]) == [("worker0", "term"), ("worker1", "term")]
    assert said[-1] == ("control", "term"), "it is told after the workers"
