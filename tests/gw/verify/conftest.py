"""Fixtures of the guard's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.parts import Parts


@pytest.fixture(scope="module")
def rows() -> Iterator[RowStore]:
    made = RowStore()
    yield made
    made.close()


@pytest.fixture(scope="module")
def parts(rows: RowStore) -> Parts:
    return Parts(rows)
