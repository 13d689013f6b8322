"""gw.control.store.faults: temporary and permanent errors, without a value or a password in their text."""

from __future__ import annotations

import sqlite3

import pymysql
import pytest
from sqlalchemy import exc

from gw.control.store.faults import StoreError, StoreMisconfigured, StoreUnavailable, code_of, fault


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


def _sqlite(code: int, text: str) -> Exception:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return exc.OperationalError("s", None, error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            exc.OperationalError("s", None, pymysql.err.OperationalError(1045, "Access denied for user 'a'@'b'")),
            "the store cannot be used: Access denied for user 'a'@'b' (error 1045); check the user in store.url, and "
            "SUBMILLI_DB_PASSWORD",
        ),
        (
            exc.ProgrammingError("s", None, pymysql.err.ProgrammingError(1142, "INSERT command denied.")),
            "the store cannot be used: INSERT command denied (error 1142); grant the user in store.url all rights on its "
            "database",
        ),
        (
            _sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"),
            "the store cannot be used: unable to open database file; the gateway's user must be able to write the file of "
            "store.url and its folder",
        ),
        (
            PermissionError(13, "Permission denied", "/x/y.db"),
            "the store's file or network failed: /x/y.db: Permission denied; the gateway's user must be able to write the file "
            "of store.url and its folder",
        ),
    ],
)
def test_an_error_that_an_operator_repairs_has_the_remedy(error: Exception, text: str) -> None:
    found = fault(error)
    assert isinstance(found, StoreMisconfigured)
    assert str(found) == text


def test_an_error_that_may_pass_has_its_remedy_too() -> None:
    away = fault(exc.OperationalError("s", None, pymysql.err.OperationalError(2003, "Can't connect to MySQL server on 'h'")))
    assert not isinstance(away, StoreMisconfigured)
    assert str(away).endswith("(error 2003); check host and port in store.url, and whether the server runs")
    full = fault(_sqlite(sqlite3.SQLITE_FULL, "database or disk is full"))
    assert str(full) == "the store is not available: database or disk is full; free some of the disk of store.url"


def test_the_code_of_an_error_is_the_servers() -> None:
    assert code_of(exc.OperationalError("s", None, pymysql.err.OperationalError(1213, "Deadlock"))) == 1213
    assert code_of(exc.InternalError("s", None, pymysql.err.InternalError("no number"))) is None
    assert code_of(exc.ArgumentError("x")) is None
