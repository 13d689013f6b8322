"""gw.control.durable: a file is complete on disk before it has its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gw.control import durable


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, file = tmp_path / ".file.part", tmp_path / "file"
    part.write_text("whole")
    synced: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), file.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    durable.put_in_place(part, file)
    assert synced == [(str(part), False), (str(tmp_path), True)]
    assert (file.read_text(), part.exists()) == ("whole", False)


def test_a_missing_file_replaces_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(FileNotFoundError):
        durable.put_in_place(tmp_path / "none", file)
    assert file.read_text() == "old"
