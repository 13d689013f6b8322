"""A short run of `dials.py`: forty numbers, two kills of control and one of the command."""

from __future__ import annotations

from pathlib import Path

from tests.faults.dials import CALLEES, expected_dials, run


def test_each_number_is_dialled_as_often_as_its_retries_permit(tmp_path: Path) -> None:
    found = run(tmp_path, numbers=40, per_s=20.0, kills=2, seed="short")
    assert found.wrong == {}
    assert found.kills == ["in a request", "between requests"]
    assert found.runs >= 2
    assert sum(found.results.values()) == 40


def test_the_right_number_of_dials() -> None:
    assert [expected_dials(reactions) for _, reactions in CALLEES] == [3, 3, 2, 1, 1]
