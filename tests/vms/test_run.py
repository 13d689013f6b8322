"""Two machines behind HAProxy, in short: a rolling deploy and a machine's death under calls. In full: tests/vms/run.py."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from tests.mariadb import MariaDB
from tests.vms.net import refusal
from tests.vms.run import Ledger, Line, broken, run, table

CALLS = 8


@pytest.fixture(scope="module")
def ledger(mariadb_server: MariaDB) -> Iterator[Ledger]:
    why_not = refusal()
    if why_not:
        pytest.skip(why_not)
    ledger = run(mariadb_server, calls=CALLS, say=print)
    print(table(ledger))  # pytest shows it where something does not hold
    yield ledger


def test_nothing_is_lost_but_what_was_killed(ledger: Ledger) -> None:
    assert broken(ledger) == []


def test_there_was_enough_to_judge(ledger: Ledger) -> None:
    """Laws that hold over nothing say nothing."""
    deployed = [line for line in ledger.lines if line.phase == "deploy"]
    assert len(deployed) >= 2 * CALLS
    assert {line.host for line in deployed} == {"vm-1", "vm-2"}
    killed = [line for line in ledger.lines if line.met_kill]
    assert len(killed) == CALLS // 2, "leastconn gives each machine half of the calls"
    assert ledger.killed_processes >= 4
    assert all(line.back_s is not None and line.back_s < 10.0 for line in killed)
    assert {line.reason for line in ledger.lines} == {"ai_hangup", "caller_hangup"}


def test_judging_finds_what_is_wrong() -> None:
    def call(number: int, phase: str, **more: object) -> Line:
        ends = {"deploy": "whole", "kill": "resumed" if more.get("met_kill") else "undisturbed"}
        fine = {"end": ends[phase], "host": "vm-1", "recordings": 1, "recording_state": "completed"}
        return Line(number, f"CA{number}", phase, **{**fine, **more})  # type: ignore[arg-type]

    good = Ledger(1, 2, "resume", killed="vm-1", lines=[call(1, "deploy"), call(2, "kill", met_kill=True), call(3, "kill")])
    assert broken(good) == []
    for n, changes in (
        (0, {"refused": ["voice 503"]}),
        (1, {"refused": ["https://voice.test/twilio/stream 503"]}),
        (0, {"end": "lost"}),
        (0, {"recordings": 2}),
        (1, {"end": "lost"}),
        (1, {"end": "goodbye"}),
        (1, {"host": "vm-2"}),
        (2, {"end": "lost"}),
        (2, {"recordings": 0}),
        (2, {"recording_state": ""}),
        (2, {"recording_state": "started"}),
    ):
        bad = copy.deepcopy(good)
        for name, value in changes.items():
            setattr(bad.lines[n], name, value)
        assert len(broken(bad)) == 1, changes
    told = copy.deepcopy(good)
    told.on_lost, told.lines[1].end = "goodbye", "goodbye"
    assert broken(told) == []
    told.open_rows = ["CA9"]
    assert len(broken(told)) == 1
