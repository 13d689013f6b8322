"""Maps errors of the database libraries to temporary and permanent ones.

An error caused by the data (too long, not unique, not a value of the column's type) stays: `StoreError`. An error caused by the
server, the network, the disk, the permissions or the revision of the schema may be repaired meanwhile: `StoreUnavailable`. A
doubtful error counts as temporary, because a retried event is late and a dropped one is lost. So does any exception that is not
the library's: PyMySQL raises IndexError for a short greeting. Errors never quote a statement, its values or the password.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import exc

from gw.errors import GatewayError


class StoreError(GatewayError):
    """The store refused, and would refuse again."""

    code = "store_refused"


class StoreUnavailable(StoreError):  # noqa: N818  a state of the store, not a mistake
    """The store is unreachable or not usable now; a later attempt may succeed."""

    code = "store_unavailable"


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
_SCHEMA_CODES: Final = frozenset({1146, 1054, 1049, 1142})


def code_of(error: Exception) -> int | None:
    """Return the server's error number, if any."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None and error.orig.args:
        first = error.orig.args[0]
        return first if isinstance(first, int) else None
    return None


def fault(error: Exception) -> StoreError:
    """Return the store's error for an exception of a transaction."""
    if isinstance(error, OSError):
        return StoreUnavailable(f"the store's file or network failed: {error}")
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable("no connection to the store became free in time")
    if not isinstance(error, exc.SQLAlchemyError):
        return StoreUnavailable(f"the store's answer cannot be used: {type(error).__name__}")
    if not isinstance(error, exc.DBAPIError):
        cause = error.orig if isinstance(error, exc.StatementError) else None
        return StoreError(f"the store cannot run this statement: {cause or type(error).__name__}")
    code = code_of(error)
    text = str(error.orig)
    by_value = isinstance(error, exc.DataError | exc.IntegrityError) or code in _VALUE_CODES
    by_statement = isinstance(error, exc.ProgrammingError | exc.NotSupportedError) and code not in _SCHEMA_CODES
    if by_value or (by_statement and not error.connection_invalidated):
        return StoreError(f"the store refused: {text}")
    return StoreUnavailable(f"the store is not available: {text}")
