"""gw.control.admin.machine: what the scoreboard says of the workers, drain and reload, as an operator hears of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw.control.admin.machine import MachineState
from gw.control.admin.server import CommandError
from gw.scoreboard import Flag, ProcessState, ReloadReport, Scoreboard
from metrics import declare
from metrics.page import Page


class House:
    """A MachineState over its own scoreboard; `told` lists the drain commands sent to workers."""

    def __init__(self, folder: Path, scoreboard: Scoreboard, *, orphan: bool = False, notice_s: float = 0.0) -> None:
        self.scoreboard = scoreboard
        self.told: list[bool] = []
        self.page = Page.create(folder / "control.page")
        row = scoreboard.take_row(-1, index=Scoreboard.CONTROL_ROW)
        self.machine = MachineState(
            scoreboard, row, self.page, tell_workers=self.tell, is_orphan=lambda: orphan, notice_s=notice_s
        )

    def tell(self, on: bool) -> int:
        self.told.append(on)
        return 2

    def worker(self, index: int, *, calls: int = 0, capacity: int = 10, flags: int = 0) -> None:
        row = self.scoreboard.take_row(index)
        row.state, row.calls, row.capacity, row.flags = ProcessState.UP, calls, capacity, flags


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "pages").mkdir()
    made = House(tmp_path / "pages", Scoreboard.private())
    yield made
    made.page.close()


def test_a_drain_is_told_and_outlives_control(house: House, tmp_path: Path) -> None:
    assert house.machine.commands()["drain"]({}) == {"draining": True, "workers": 2}
    assert house.machine.drained
    again = MachineState(house.scoreboard, house.scoreboard.row(0), house.page, tell_workers=house.tell, is_orphan=lambda: False)
    assert again.drained
    assert house.told == [True, True], "a new control tells the workers again"
    assert again.commands()["drain"]({"on": False}) == {"draining": False, "workers": 2}
    assert not house.machine.drained


def test_among_machines_a_drain_is_announced_first(tmp_path: Path) -> None:
    """Ready no longer, and calls are let in until the balancer knows; taken back meanwhile, nobody is told of it."""
    (tmp_path / "pages").mkdir()
    house = House(tmp_path / "pages", Scoreboard.private(), notice_s=0.05)
    draining = gevent.spawn(house.machine.drain, True)
    gevent.sleep(0.01)
    assert (house.machine.drained, house.told) == (True, [])
    assert draining.get(timeout=5) == {"draining": True, "workers": 2}
    assert house.told == [True]
    house.machine.drain(False)
    again = gevent.spawn(house.machine.drain, True)
    gevent.sleep(0.01)
    house.machine.drain(False)
    assert again.get(timeout=5)["draining"] is False
    assert True not in house.told[1:]
    house.page.close()


@pytest.mark.parametrize("fields", [{"on": "yes"}, {"of": True}])
def test_wrong_arguments_are_refused(house: House, fields: dict[str, object]) -> None:
    with pytest.raises(CommandError) as caught:
        house.machine.commands()["drain"](fields)
    assert caught.value.code == "bad_request"
    assert house.told == []


def test_a_reload_is_asked_of_the_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pages").mkdir()
    house = House(tmp_path / "pages", Scoreboard.create())
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    try:
        assert house.machine.reload() == {"report": 1}
        assert sent == [(os.getppid(), signal.SIGHUP)]
        house.scoreboard.publish_report(ReloadReport(1, "running", "control is replaced"))
        with pytest.raises(CommandError, match="a reload is under way: control is replaced"):
            house.machine.reload()
        house.scoreboard.publish_report(ReloadReport(1, "failed", "as before", "why"))
        assert house.machine.reload() == {"report": 2}
        assert house.machine.status()["reload"]["problem"] == "why"
    finally:
        house.page.close()


def test_nobody_to_ask_for_a_reload(house: House, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nobody supervises"):
        house.machine.reload()


def test_the_capacity_is_that_of_those_who_take_calls(house: House) -> None:
    house.worker(0, calls=3)
    house.worker(1, calls=4, flags=Flag.LEAVING)
    status = house.machine.status()
    assert (status["capacity"], status["calls"], status["reserved"], status["drained"]) == (10, 7, 0, False)
    assert [(one["name"], one["state"]) for one in status["processes"]] == [
        ("control", "starting"),
        ("worker 0", "up"),
        ("worker 1", "up"),
    ]
    assert house.machine.problems() == []


def test_what_an_operator_should_know(house: House) -> None:
    house.worker(0, calls=10)
    assert house.machine.problems() == ["every place is taken: 10 calls of 10"]
    house.worker(1, flags=Flag.LATE)
    assert house.machine.problems() == ["1 of 2 workers are late and take no call"]
    row = house.scoreboard.row(2)
    row.failures = 3
    assert "worker 1 ended 3 times in a row and was started again" in house.machine.problems()
    row.wait_until(9.0)
    assert "worker 1 ended 3 times in a row and is started again in 9 s" in house.machine.problems()


def test_the_loop_says_that_it_turns(house: House) -> None:
    house.scoreboard.reservation_expiries[5] = 1
    greenlet = gevent.spawn(house.machine.run)
    gevent.sleep(0)
    assert 0.0 <= house.scoreboard.row(Scoreboard.CONTROL_ROW).still_for_s() < 5.0
    assert house.page.gauge(declare.CALLS_RESERVED).value == 1
    greenlet.kill()
