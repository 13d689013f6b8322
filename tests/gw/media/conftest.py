"""Separate media contexts for each test, in the test's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metrics import page
from tests.gw.media.support import ContextMaker


@pytest.fixture(autouse=True)
def _plain_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pages of tests in the tests' folders."""
    monkeypatch.setattr(page, "prepare", lambda directory: directory.mkdir(parents=True, exist_ok=True))


@pytest.fixture
def contexts(tmp_path: Path) -> Iterator[ContextMaker]:
    """Makes contexts; closes their files at the end."""
    maker = ContextMaker(tmp_path)
    yield maker
    maker.close()
