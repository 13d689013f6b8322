"""Lines of lists for tests."""

from __future__ import annotations

from typing import Any

from gw.control.rows import DialListRow, DialRow

LIST = "0123456789ab"


def line(n: int = 2, **changes: Any) -> DialRow:
    """Return a line."""
    standard: dict[str, Any] = {
        "list_id": LIST,
        "n": n,
        "to_number": f"+1555000{n:04d}",
        "agent": "default",
        "zone": "UTC",
        "variables": {},
        "state": "waiting",
        "attempts": 0,
        "next_at": 0.0,
    }
    return DialRow(**{**standard, **changes})


def listed(**changes: Any) -> DialListRow:
    """Return a list."""
    standard = {
        "list_id": LIST,
        "name": "list.csv",
        "from_number": "+15557654321",
        "account": "",
        "total": 3,
        "created_at": 1000.0,
    }
    return DialListRow(**{**standard, **changes})
