"""gw.control.admin.machine: capacity and problems from the scoreboard, drain and reload."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw.control.admin.machine import MachineState
from gw.control.admin.server import CommandError
from gw.scoreboard import CHECK, Flag, ProcessState, ReloadReport, Scoreboard
from metrics import declare
from metrics.page import Page


class Rig:
    """A MachineState over its own scoreboard; `sent` lists the drain commands sent to workers."""

    def __init__(self, folder: Path, scoreboard: Scoreboard, *, orphan: bool = False, notice_s: float = 0.0) -> None:
        self.scoreboard = scoreboard
        self.sent: list[bool] = []
        self.page = Page.create(folder / "control.page")
        row = scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self.machine = MachineState(
            scoreboard, row, self.page, drain_workers=self.drain, is_orphan=lambda: orphan, notice_s=notice_s
        )

    def drain(self, on: bool) -> int:
        self.sent.append(on)
        return 2

    def worker(self, index: int, *, calls: int = 0, capacity: int = 10, flags: int = 0) -> None:
        row = self.scoreboard.take_row(index)
        row.state, row.calls, row.capacity, row.flags = ProcessState.UP, calls, capacity, flags


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "pages").mkdir()
    made = Rig(tmp_path / "pages", Scoreboard.private())
    yield made
    made.page.close()


def test_a_drain_is_sent_and_outlives_control(rig: Rig, tmp_path: Path) -> None:
    assert rig.machine.commands()["drain"].run({}) == {"draining": True, "workers": 2}
    assert rig.machine.drained
    again = MachineState(rig.scoreboard, rig.scoreboard.row(0), rig.page, drain_workers=rig.drain, is_orphan=lambda: False)
    assert again.drained
    assert rig.sent == [True, True], "a new control sends the drain again"
    assert again.commands()["drain"].run({"on": False}) == {"draining": False, "workers": 2}
    assert not rig.machine.drained


def test_among_machines_a_drain_is_announced_first(tmp_path: Path) -> None:
    """The machine is no longer ready and still admits calls until the balancer follows. Undrained meanwhile, nothing is sent."""
    (tmp_path / "pages").mkdir()
    rig = Rig(tmp_path / "pages", Scoreboard.private(), notice_s=0.05)
    draining = gevent.spawn(rig.machine.drain, True)
    gevent.sleep(0.01)
    assert (rig.machine.drained, rig.sent) == (True, [])
    assert draining.get(timeout=5) == {"draining": True, "workers": 2}
    assert rig.sent == [True]
    rig.machine.drain(False)
    again = gevent.spawn(rig.machine.drain, True)
    gevent.sleep(0.01)
    rig.machine.drain(False)
    assert again.get(timeout=5)["draining"] is False
    assert True not in rig.sent[1:]
    rig.page.close()


@pytest.mark.parametrize("fields", [{"on": "yes"}, {"of": True}])
def test_wrong_arguments_are_refused(rig: Rig, fields: dict[str, object]) -> None:
    with pytest.raises(CommandError) as caught:
        rig.machine.commands()["drain"].run(fields)
    assert caught.value.code == "bad_request"
    assert rig.sent == []


def test_a_reload_is_asked_of_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pages").mkdir()
    rig = Rig(tmp_path / "pages", Scoreboard.create())
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    try:
        assert rig.machine.reload() == {"report": 1}
        assert rig.machine.commands()["reload"].run({"check": True}) == {"report": 1}
        assert sent == [(os.getppid(), signal.SIGHUP), (os.getppid(), CHECK)]
        rig.scoreboard.publish_report(ReloadReport(1, "running", "control is replaced"))
        with pytest.raises(CommandError, match="a reload is under way: control is replaced"):
            rig.machine.reload()
        rig.scoreboard.publish_report(ReloadReport(1, "failed", "as before", "why"))
        assert rig.machine.reload() == {"report": 2}
        assert rig.machine.status()["reload"]["problem"] == "why"
    finally:
        rig.page.close()


def test_a_reload_needs_a_supervisor(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="has no supervisor"):
        rig.machine.reload()


def test_the_capacity_counts_workers_that_accept_calls(rig: Rig) -> None:
    rig.worker(0, calls=3)
    rig.worker(1, calls=4, flags=Flag.LEAVING)
    status = rig.machine.status()
    assert (status["capacity"], status["calls"], status["reserved"], status["drained"]) == (10, 7, 0, False)
    assert [(one["name"], one["state"]) for one in status["processes"]] == [
        ("control", "starting"),
        ("worker 0", "up"),
        ("worker 1", "up"),
    ]
    assert rig.machine.problems() == []


def test_problems_are_reported_as_sentences(rig: Rig) -> None:
    rig.worker(0, calls=10)
    assert rig.machine.problems() == ["every slot is taken: 10 calls of 10"]
    rig.worker(1, flags=Flag.LATE)
    assert rig.machine.problems() == ["1 of 2 workers are late and accept no call"]
    row = rig.scoreboard.row(2)
    row.failures = 3
    assert "worker 1 ended 3 times in a row and was started again" in rig.machine.problems()
    row.restart_in(9.0)
    assert "worker 1 ended 3 times in a row and is started again in 9 s" in rig.machine.problems()


def test_the_loop_writes_its_tick(rig: Rig) -> None:
    rig.scoreboard.reservation_expiries[5] = 1
    greenlet = gevent.spawn(rig.machine.run)
    gevent.sleep(0)
    assert 0.0 <= rig.scoreboard.row(Scoreboard.CONTROL_ROW).heartbeat_age_s() < 5.0
    assert rig.page.gauge(declare.CALLS_RESERVED).value == 1
    greenlet.kill()
