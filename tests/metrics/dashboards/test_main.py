"""metrics.dashboards: the files that `make dashboards` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metrics.dashboards.__main__ import DASHBOARDS, write
from metrics.dashboards.assemble import as_text


def test_all_dashboards_are_written_and_other_files_removed(tmp_path: Path) -> None:
    folder = tmp_path / "dashboards"
    folder.mkdir()
    (folder / "old.json").write_text("{}")
    (folder / "notes.txt").write_text("kept")
    write(folder)
    assert {path.name for path in folder.iterdir()} == {*(f"{name}.json" for name in DASHBOARDS), "notes.txt"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboards_address_is_its_file_name(name: str) -> None:
    assert json.loads(as_text(DASHBOARDS[name]()))["uid"] == f"submilli-{name}"
