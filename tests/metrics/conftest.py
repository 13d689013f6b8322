"""Keep pages of tests in the tests' own folders, out of the machine's shared memory."""

import pytest

from metrics import page


@pytest.fixture(autouse=True)
def _plain_directories(monkeypatch):
    monkeypatch.setattr(page, "prepare", lambda directory: directory.mkdir(parents=True, exist_ok=True))
