"""Maps errors of the database libraries to temporary and permanent ones.

An error caused by the data (too long, not unique, not a value of the column's type) stays: `StoreError`. An error caused by the
server, the network, the disk, the permissions or the revision of the schema may be repaired meanwhile: `StoreUnavailable`. A
doubtful error counts as temporary, because a retried event is late and a dropped one is lost. So does any exception that is not
the library's: PyMySQL raises IndexError for a short greeting. Where an operator can repair it, the text has the remedy.
Errors never quote a statement, its values or the password.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from sqlalchemy import exc

from gw.errors import GatewayError, text_of


class StoreError(GatewayError):
    """The store refused, and would refuse again."""

    code = "store_refused"


class StoreUnavailable(StoreError):  # noqa: N818  a state of the store, not a mistake
    """The store is unreachable or not usable now; a later attempt may succeed."""

    code = "store_unavailable"


class StoreMisconfigured(StoreUnavailable):
    """The store cannot be used until an operator changes the configuration or the database's rights."""


#: A deadlock: the server rolled back the whole transaction, which can run again immediately.
DEADLOCK_CODES: Final = frozenset({1213, 1020})
#: The server is read-only: it was demoted, or is about to be. Source: MariaDB and MySQL error codes.
DEMOTED_CODES: Final = frozenset({1290, 1792, 1836})
#: Codes that PyMySQL raises as OperationalError although the value is at fault. Source: MariaDB error codes.
_VALUE_CODES: Final = frozenset(
    {
        1153,  # packet larger than the limit of the server
        1292,  # not a value of the column's type
        1366,  # a string the column's character set cannot hold
        3140,  # not JSON (MySQL)
        4025,  # a CHECK failed; MariaDB checks JSON by one
    }
)
#: Codes raised as ProgrammingError that an upgrade or a grant repairs.
_SCHEMA_CODES: Final = frozenset({1146, 1054, 1049, 1142, 1143, 1370})

#: The number of a system's error, in PyMySQL's texts.
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")

_LOGIN: Final = "check the user in store.url, and SUBMILLI_DB_PASSWORD"
_RIGHTS: Final = "grant the user in store.url all rights on its database"
_FILE: Final = "the gateway's user must be able to write the file of store.url and its folder"
#: Remedies of errors that only an operator repairs. Source: MariaDB error codes, SQLite result codes.
_OPERATORS: Final = {
    1045: _LOGIN,
    1698: _LOGIN,
    1251: _LOGIN,
    1044: _RIGHTS,
    1142: _RIGHTS,
    1143: _RIGHTS,
    1227: _RIGHTS,
    1370: _RIGHTS,
    1049: "create the database, or correct its name in store.url",
    1130: "let the user in store.url connect from this machine",
    sqlite3.SQLITE_CANTOPEN: _FILE,
    sqlite3.SQLITE_READONLY: _FILE,
    sqlite3.SQLITE_PERM: _FILE,
    sqlite3.SQLITE_NOTADB: "the file of store.url is not an SQLite database: move it, or correct store.url",
}
#: Remedies of errors that may end without an operator.
_PASSING: Final = {
    2003: "check host and port in store.url, and whether the server runs",
    1040: "the server has no free connection: raise its max_connections",
    sqlite3.SQLITE_FULL: "free some of the disk of store.url",
}


def code_of(error: Exception) -> int | None:
    """Return the number of the server's error, if any."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None and error.orig.args:
        first = error.orig.args[0]
        return first if isinstance(first, int) else None
    return None


def fault(error: Exception) -> StoreError:
    """Return the store's error for an exception of a transaction."""
    if isinstance(error, OSError):
        remedy = f"; {_FILE}" if isinstance(error, PermissionError | IsADirectoryError | NotADirectoryError) else ""
        kind = StoreMisconfigured if remedy else StoreUnavailable
        return kind(f"the store's file or network failed: {text_of(error)}{remedy}")
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable("no connection to the store became free in time")
    if not isinstance(error, exc.SQLAlchemyError):
        return StoreUnavailable(f"the store's answer cannot be used: {type(error).__name__}")
    if not isinstance(error, exc.DBAPIError):
        cause = error.orig if isinstance(error, exc.StatementError) else None
        return StoreError(f"the store cannot run this statement: {cause or type(error).__name__}")
    code = code_of(error)
    text = _text_of(error)
    by_value = isinstance(error, exc.DataError | exc.IntegrityError) or code in _VALUE_CODES
    by_statement = isinstance(error, exc.ProgrammingError | exc.NotSupportedError) and code not in _SCHEMA_CODES
    if by_value or (by_statement and not error.connection_invalidated):
        return StoreError(f"the store refused: {text}")
    number = code if code is not None else getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if remedy := _OPERATORS.get(number, ""):
        return StoreMisconfigured(f"the store cannot be used: {text}; {remedy}")
    remedy = _PASSING.get(number, "")
    return StoreUnavailable(f"the store is not available: {text}{f'; {remedy}' if remedy else ''}")


def _text_of(error: exc.DBAPIError) -> str:
    """Return the server's text, with its number at the end."""
    arguments = error.orig.args if error.orig is not None else ()
    if len(arguments) == 2 and isinstance(arguments[0], int) and arguments[1]:
        text = _ERRNO.sub("", str(arguments[1])).rstrip(".")
        return f"{text} (error {arguments[0]})"
    return str(error.orig)
