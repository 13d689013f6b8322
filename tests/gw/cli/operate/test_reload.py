"""gw.cli.operate.reload: the command waits while a reload makes progress, and no longer."""

from __future__ import annotations

from typing import Any

import pytest

import gw.cli.operate.reload as reload
from gw.cli.context import Failure, Settings, Unreachable


class Clock:
    """A clock that advances by sleeping alone."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Asked(Settings):
    """A gateway whose reload has `steps` steps of `step_s` each."""

    def __init__(self, clock: Clock, step_s: float, steps: int) -> None:
        super().__init__(None)
        self._clock, self._step_s, self._steps = clock, step_s, steps

    def ask(self, command: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        step = int((self._clock.now_s - 1000.0) // self._step_s)
        if step == 1:
            raise Unreachable("control is being replaced")
        state = "done" if step >= self._steps else "running"
        return {"machine": {"reload": {"n": 7, "state": state, "step": f"step {step}", "problem": ""}}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reload, "time", clock)
    monkeypatch.setattr(reload, "POLL_S", 5.0)
    return clock


def test_a_reload_that_makes_progress_is_awaited(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Many workers start one after another, each within a bound."""
    report = reload._follow(Asked(clock, 50.0, 20), 7, quiet=False)
    assert (report["state"], report["step"]) == ("done", "step 20")
    said = capsys.readouterr().err.splitlines()
    assert said == [f"step {step} ..." for step in range(20) if step != 1]


def test_a_reload_without_progress_fails(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Failure, match="made no progress for 120 s"):
        reload._follow(Asked(clock, 1e9, 2), 7, quiet=True)
    assert 1120.0 <= clock.now_s < 1130.0
    assert capsys.readouterr().err == ""
