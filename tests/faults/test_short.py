"""Short run of the fault bench: ten faults in forty seconds, judged by every law.

`make faults` is the long run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.faults.records.laws import LAWS, judge, totals
from tests.faults.records.ledger import Ledger
from tests.faults.records.report import print_tables, write_ledger
from tests.faults.run import run
from tests.faults.scenarios import short
from tests.mariadb import MariaDB

SEED = "short"


@pytest.fixture(scope="module")
def ledger(mariadb_server: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One run for all laws. Its ledger is written to the temporary folder."""
    try:
        ledger = run(short(SEED), mariadb_server)
    finally:
        mariadb_server.revive()
    kept: Path = tmp_path_factory.mktemp("faults") / "ledger.json"
    write_ledger(ledger, kept)
    print_tables(ledger, Console())  # pytest shows it when a law is broken
    yield ledger


def test_there_was_enough_to_judge(ledger: Ledger) -> None:
    counted = totals(ledger)
    assert counted["faults"] == len(short(SEED).strikes)
    assert counted["calls placed"] >= 15
    assert counted["calls a fault met"] >= 8
    assert counted["calls judged byte for byte"] >= 4
    assert counted["recordings made, Twilio's count"] >= 10
    assert counted["events sent by workers"] >= 100
    assert counted["of them turns"] and counted["of them webhooks"]
    assert ledger.returns and max(one.backlog for one in ledger.returns) > 0
    assert {one.role for one in ledger.census} == {"control", "worker"}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_every_law_holds(ledger: Ledger, law: object) -> None:
    assert not judge(ledger)[getattr(law, "name", "")]
