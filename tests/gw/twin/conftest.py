"""Fixtures of the twins' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gw.twin.twilio.rest_account import Account, open_account


@pytest.fixture
def account() -> Iterator[Account]:
    """Return an account of the REST twin with one call in progress."""
    with open_account() as opened:
        yield opened
