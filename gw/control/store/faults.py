"""Tells an error of the database that goes away by waiting from one that never will.

What hangs together with the data sent (too long, not unique, not a value of the column's type) stays wrong however often it is
tried: `StoreError`. Everything that depends on the server, the network, the disk, the permissions or the schema's revision can be
mended while we wait: `StoreUnavailable`. When in doubt it is worth waiting, for an event tried again is late and an event
given up is lost. Neither error ever quotes a statement, its values or the password.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import exc

from gw.errors import GatewayError


class StoreError(GatewayError):
    """The store refused, and will refuse the same again."""

    code = "store_refused"


class StoreUnavailable(StoreError):  # noqa: N818  a state of the store, not a mistake
    """The store cannot be reached or cannot work now: try again later."""

    code = "store_unavailable"


#: Two transactions in each other's way; the server undid ours whole. To be run again at once.
DEADLOCK_CODES: Final = frozenset({1213, 1020})
#: The server answers and does not write: it was demoted, or is about to be. Source: MariaDB and MySQL error codes.
DEMOTED_CODES: Final = frozenset({1290, 1792, 1836})
#: Codes PyMySQL files under "operational" although the value is to blame. Source: MariaDB error codes.
_VALUE_CODES: Final = frozenset(
    {
        1153,  # packet larger than the server takes
        1292,  # not a value of the column's type
        1366,  # a string the column's character set cannot hold
        3140,  # not JSON (MySQL)
        4025,  # a CHECK failed; MariaDB checks JSON so
    }
)
#: Codes filed under "programming" that an upgrade or a grant mends.
_SCHEMA_CODES: Final = frozenset({1146, 1054, 1049, 1142})


def code_of(error: exc.SQLAlchemyError) -> int | None:
    """The server's error number, where there is one."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None and error.orig.args:
        first = error.orig.args[0]
        return first if isinstance(first, int) else None
    return None


def fault(error: exc.SQLAlchemyError | OSError) -> StoreError:
    """Our error for one of the library's."""
    if isinstance(error, OSError):
        return StoreUnavailable(f"the store's file or network failed: {error}")
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable("no connection to the store came free in time")
    if not isinstance(error, exc.DBAPIError):
        cause = error.orig if isinstance(error, exc.StatementError) else None
        return StoreError(f"the store cannot be asked this: {cause or type(error).__name__}")
    code = code_of(error)
    text = str(error.orig)
    by_value = isinstance(error, exc.DataError | exc.IntegrityError) or code in _VALUE_CODES
    by_statement = isinstance(error, exc.ProgrammingError | exc.NotSupportedError) and code not in _SCHEMA_CODES
    if by_value or (by_statement and not error.connection_invalidated):
        return StoreError(f"the store refused: {text}")
    return StoreUnavailable(f"the store is not available: {text}")
