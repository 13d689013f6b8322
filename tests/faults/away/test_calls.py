"""Short run of calls that leave and return: sixteen calls, two kills, judged by every law."""

from __future__ import annotations

from pathlib import Path

from tests.faults.away.calls import run, table
from tests.faults.away.laws import judge

CALLS = 16


def test_calls_that_leave_and_return_outlive_kills(tmp_path: Path) -> None:
    record = run(tmp_path, calls=CALLS, at_once=8, seed="short", kills=2)
    print(table(record))
    assert not any(judge(record).values()), table(record)
    assert len(record.calls) == CALLS
    assert len(record.kills) >= 1
    assert sum(len(call.dials) for call in record.calls) >= CALLS // 2
    assert any(call.tones for call in record.calls)
    assert any(call.takeovers for call in record.calls)
