"""gw.control.store.faults: temporary and permanent errors, without a value or a password in their text."""

from __future__ import annotations

import pymysql
import pytest
from sqlalchemy import exc

from gw.control.store.faults import StoreError, StoreUnavailable, code_of, fault


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (exc.OperationalError("s", None, pymysql.err.OperationalError(2013, "Lost connection")), True),
        (exc.OperationalError("s", None, pymysql.err.OperationalError(1205, "Lock wait timeout")), True),
        (exc.OperationalError("s", None, pymysql.err.OperationalError(1114, "The table is full")), True),
        (exc.OperationalError("s", None, pymysql.err.OperationalError(1366, "Incorrect string value")), False),
        (exc.OperationalError("s", None, pymysql.err.OperationalError(4025, "CONSTRAINT failed")), False),
        (exc.ProgrammingError("s", None, pymysql.err.ProgrammingError(1146, "no such table")), True),
        (exc.ProgrammingError("s", None, pymysql.err.ProgrammingError(1064, "syntax")), False),
        (exc.DataError("s", None, pymysql.err.DataError(1406, "Data too long")), False),
        (exc.IntegrityError("s", None, pymysql.err.IntegrityError(1062, "Duplicate")), False),
        (exc.InterfaceError("s", None, pymysql.err.InterfaceError(0, "")), True),
        (exc.InternalError("s", None, pymysql.err.InternalError("Packet sequence number wrong")), True),
        (exc.TimeoutError(), True),
        (exc.ArgumentError("secret value"), False),
        (ConnectionResetError("reset"), True),
        (IndexError("secret value"), True),
    ],
)
def test_an_error_is_temporary_or_permanent(error: Exception, waits: bool) -> None:
    found = fault(error)
    assert isinstance(found, StoreUnavailable) is waits
    assert isinstance(found, StoreError)
    assert "secret value" not in str(found)


def test_the_code_of_an_error_is_the_servers() -> None:
    assert code_of(exc.OperationalError("s", None, pymysql.err.OperationalError(1213, "Deadlock"))) == 1213
    assert code_of(exc.InternalError("s", None, pymysql.err.InternalError("no number"))) is None
    assert code_of(exc.ArgumentError("x")) is None
