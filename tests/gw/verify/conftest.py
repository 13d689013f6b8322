"""What the tests of the recording's model share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gw.verify.guard_parts import Parts
from gw.verify.guard_store import RowStore


@pytest.fixture(scope="module")
def rows() -> Iterator[RowStore]:
    made = RowStore()
    yield made
    made.close()


@pytest.fixture(scope="module")
def parts(rows: RowStore) -> Parts:
    return Parts(rows)
