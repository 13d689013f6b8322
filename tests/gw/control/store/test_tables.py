"""gw.control.store.tables: times are epoch seconds in Python, and datetimes in UTC in either database."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.dialects import mysql, sqlite

from gw.control.store import Store
from gw.control.store.tables import Moment
from tests.gw.control.stamped import T0, call_sid, stamp, started


@pytest.mark.parametrize("dialect", [mysql.dialect(), sqlite.dialect()])
def test_a_moment_survives_the_conversion(dialect: object) -> None:
    moment = Moment()
    bound = moment.process_bind_param(T0 + 0.25, dialect)  # type: ignore[arg-type]
    assert bound == datetime(2026, 9, 21, 14, 13, 20, 250_000)
    assert moment.process_result_value(bound, dialect) == T0 + 0.25  # type: ignore[arg-type]
    assert moment.process_bind_param(None, dialect) is None  # type: ignore[arg-type]
    assert moment.process_result_value(None, dialect) is None  # type: ignore[arg-type]


def test_a_manual_query_reads_a_date_in_utc(store: Store) -> None:
    store.apply(stamp(started(1, started_at=T0)))

    def day(connection: Connection) -> str:
        query = text("SELECT started_at FROM calls WHERE call_sid = :sid")
        return str(connection.execute(query, {"sid": call_sid(1)}).scalar())

    assert store._backend.read(day).startswith("2026-09-21 14:13:20")
