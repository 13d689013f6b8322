"""gw.logs.limited: one line per reason and second, and a count of the others."""

from __future__ import annotations

import logging

import pytest

from gw.logs.limited import LimitedLog, LineLimit


def test_a_line_a_second_has_the_count_of_the_others() -> None:
    limit = LineLimit()
    assert [limit.admit("a", now_s) for now_s in (0.0, 0.1, 0.9, 1.0, 1.9, 5.0, 7.0)] == [0, None, None, 2, None, 1, 0]


def test_each_key_has_its_own_count_and_burst() -> None:
    limit = LineLimit(burst=2)
    assert [limit.admit("a", 0.0) for _ in range(4)] == [0, 0, None, None]
    assert limit.admit("b", 0.0) == 0
    assert limit.admit("a", 1.0) == 2


def test_a_warning_has_its_reason_and_the_count(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    lines = LimitedLog(logging.getLogger("test.limited"), clock=lambda: now_s[0])
    for _ in range(3):
        lines.warning("bad_field", "refused: %s", "x%d", call_sid="CA1")
    now_s[0] = 1.0
    lines.warning("bad_field", "refused: %s", "y")
    assert [record.getMessage() for record in caplog.records] == ["refused: x%d", "refused: y (and 2 lines like this before)"]
    first = caplog.records[0]
    assert (first.levelname, first.reason, first.call_sid) == ("WARNING", "bad_field", "CA1")  # type: ignore[attr-defined]
