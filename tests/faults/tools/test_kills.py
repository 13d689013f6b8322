"""Short run of the kills: forty calls with three tools each, two kills, judged by every law."""

from __future__ import annotations

from pathlib import Path

from tests.faults.tools.kills import run, table
from tests.faults.tools.laws import judge

CALLS = 40


def test_tools_and_events_outlive_kills(tmp_path: Path) -> None:
    record = run(tmp_path, calls=CALLS, at_once=10, seed="short", kills=2)
    print(table(record))
    assert not any(judge(record).values()), table(record)
    assert len(record.kills) >= 1
    assert len(record.executions) >= 2 * CALLS
    assert sum(call.reason == "ai_hangup" for call in record.calls) >= CALLS - 10
