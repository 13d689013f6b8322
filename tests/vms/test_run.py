"""Short run of the scenario: two machines behind HAProxy, a rolling deploy and a machine's death."""

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
    print(table(ledger))  # pytest shows it when a test fails
    yield ledger


def test_only_the_killed_machine_s_streams_are_lost(ledger: Ledger) -> None:
    assert broken(ledger) == []


def test_there_was_enough_to_judge(ledger: Ledger) -> None:
    deployed = [line for line in ledger.lines if line.phase == "deploy"]
    assert len(deployed) >= 2 * CALLS
    assert {line.host for line in deployed} == {"vm-1", "vm-2"}
    killed = [line for line in ledger.lines if line.met_kill]
    assert len(killed) == CALLS // 2, "leastconn gives each machine half of the calls"
    assert ledger.killed_processes >= 4
    assert all(line.back_s is not None and line.back_s < 10.0 for line in killed)
    assert {line.reason for line in ledger.lines} == {"ai_hangup", "caller_hangup"}


def test_every_violation_is_found() -> None:
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
    goodbye = copy.deepcopy(good)
    goodbye.on_lost, goodbye.lines[1].end = "goodbye", "goodbye"
    assert broken(goodbye) == []
    goodbye.open_rows = ["CA9"]
    assert len(broken(goodbye)) == 1
