"""Pages of tests stay in the tests' own folders: the shared memory of the machine is not theirs to fill."""

import pytest

from metrics import page


@pytest.fixture(autouse=True)
def _plain_directories(monkeypatch):
    monkeypatch.setattr(page, "prepare", lambda directory: directory.mkdir(parents=True, exist_ok=True))
