"""Attacks in short: many at the same time beside a few good calls, judged by everything but time.

`make hostile` runs each alone, beside thirty calls, and judges punctuality too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.rig import Rig
from tests.program import program

CALLS = 4
SECONDS = 3.0
#: Share of an attack's connections: groups come together.
SIZE = 0.1
GROUPS = {
    "strangers": [name for name in ATTACKS if not name.startswith(("phone-", "ai-"))],
    "telephones": [name for name in ATTACKS if name.startswith("phone-")],
    "ais": [name for name in ATTACKS if name.startswith("ai-")],
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One gateway for all groups."""
    rig = Rig(program(), tmp_path_factory.mktemp("hostile"), CALLS, size=SIZE)
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()


@pytest.mark.parametrize("group", GROUPS)
def test_good_calls_survive_and_refusals_are_counted(rig: Rig, group: str) -> None:
    result = rig.round(GROUPS[group], SECONDS, 0.0)
    assert not result.survived(), result.document()
    assert result.newcomers_ms


def test_a_log_that_nothing_reads_blocks_nothing(tmp_path: Path) -> None:
    rig = Rig(program(), tmp_path, CALLS, size=SIZE, is_log_read=False)
    try:
        rig.start()
        result = rig.round(["half-reset", "smuggled", "bad-upgrade"], SECONDS, 0.0)
    finally:
        rig.stop()
    assert not result.survived(), result.document()
