"""Runs transactions: MySQL in the calling greenlet, SQLite in a native thread.

PyMySQL's sockets wait cooperatively, so a MySQL transaction runs in the greenlet that asks for it, on one of a few pooled
connections, with every wait bounded. SQLite blocks, so one thread owns its engine. A caller passes a function of a connection; it
may run again after a deadlock and must have no other effect. Every exception leaves here as a StoreError. Logs nothing, and no
error shows values or the password.
"""

from __future__ import annotations

import random
import sqlite3
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import gevent
import msgspec
import pymysql
from sqlalchemy import URL, Connection, Engine, ExceptionContext, NullPool, StaticPool, create_engine, event, exc
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

import gw.config
from gw.config.store_url import MysqlUrl, SqliteUrl, parse_store_url
from gw.control.store.faults import DEADLOCK_CODES, DEMOTED_CODES, StoreError, StoreUnavailable, code_of, fault
from gw.control.store.one_thread import OneThread
from gw.control.store.sqlite_file import open_sqlite
from gw.control.store.tls import Tls, tls_of

T = TypeVar("T")

_POOL_SIZE: Final = 5
#: Below MySQL's default `wait_timeout` and the idle timeout of most proxies.
_RECYCLE_S: Final = 1800
#: Attempts of a transaction that deadlocks, and the longest pause between two.
_DEADLOCK_TRIES: Final = 5
_DEADLOCK_PAUSE_S: Final = 0.05
#: Upper bound on one statement of a migration: it may rebuild a large table.
_MIGRATION_S: Final = 1800.0
#: A write that waits for another process's lock looks this often whether the store closes.
_LOCK_LOOK_S: Final = 0.2
#: Upper bound on a SQLite transaction, beyond the wait for the file.
_SQLITE_WORK_S: Final = 30.0


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _SharedContext(pymysql.connections.Connection):
    """A connection that uses TLS if the server offers it, with the shared context instead of a new one."""

    def __init__(self, tls: Tls, **options: Any) -> None:
        self._shared = tls.context()
        super().__init__(**options)

    def _create_ssl_ctx(self, sslp: object) -> ssl.SSLContext:
        return self._shared


class MySql:
    """MySQL or MariaDB, through PyMySQL. Its failures are raised as StoreUnavailable or StoreError."""

    def __init__(self, url: MysqlUrl, password: str, config: gw.config.Store) -> None:
        self._tls = tls_of(url)
        self._url = URL.create(
            "mysql+pymysql",
            username=url.user,
            password=password or None,
            host=url.host or None,
            port=url.port,
            database=url.database,
            query={name: value for name, value in url.options.items() if name == "unix_socket"},
        )
        self._config = config
        self._engine = self._make(config.statement_timeout_s, pooled=True)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a read-only transaction."""
        return self.write(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction: commit when it returns, roll back when it raises."""
        for tries_left in reversed(range(_DEADLOCK_TRIES)):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except StoreError:
                raise
            except Exception as error:
                code = code_of(error)
                if code in DEMOTED_CODES:
                    self._engine.dispose()  # its name may resolve to another server by now
                if not tries_left or code not in DEADLOCK_CODES:
                    raise fault(error) from error
            gevent.sleep(random.uniform(0, _DEADLOCK_PAUSE_S))
        raise AssertionError("the last try returns or raises")

    def migrate(self, work: Callable[[Connection], T]) -> T:
        """Run `work` under a lock against other migrating processes, with time for long statements."""
        engine = self._make(_MIGRATION_S, pooled=False)
        wait_s = self._config.statement_timeout_s
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                name = f"submilli {self._url.database}"[:64]  # locks are per server, not per database
                if connection.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, wait_s)).scalar() != 1:
                    raise StoreUnavailable(f"another process has been migrating the store for {wait_s:g} s: try again later")
                return work(connection)  # the server releases the lock with the connection
        except StoreError:
            raise
        except Exception as error:
            raise fault(error) from error
        finally:
            engine.dispose()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _make(self, statement_s: float, *, pooled: bool) -> Engine:
        # The server gives up on a lock before the client gives up on the answer, so that the connection stays usable.
        lock_wait_s = max(1, int(self._config.statement_timeout_s / 2))
        options: dict[str, Any] = {"poolclass": NullPool}
        if pooled:
            options = {
                "pool_size": _POOL_SIZE,
                "max_overflow": 0,
                "pool_timeout": self._config.statement_timeout_s,
                "pool_recycle": _RECYCLE_S,
                "pool_pre_ping": True,
            }
        engine = create_engine(
            self._url,
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            json_serializer=_json,
            json_deserializer=msgspec.json.decode,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": self._config.connect_timeout_s,
                "read_timeout": statement_s,
                "write_timeout": statement_s,
                "init_command": f"SET SESSION innodb_lock_wait_timeout={lock_wait_s}, time_zone='+00:00', "
                "sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
            },
            **options,
        )
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "handle_error", self._close_after)
        return engine

    @staticmethod
    def _close_after(context: ExceptionContext) -> None:
        """Keep no connection whose answer PyMySQL could not read: the rest of it would answer the next statement."""
        if not isinstance(context.original_exception, pymysql.err.Error | exc.SQLAlchemyError):
            context.is_disconnect = True

    def _connect(self, dialect: MySQLDialect_pymysql, record: object, args: list[Any], options: dict[str, Any]) -> Any:
        if self._tls is None:
            return pymysql.connect(*args, **options, ssl_disabled=True)
        if self._tls.required:
            return pymysql.connect(*args, **options, ssl=self._tls.context())  # PyMySQL uses a context unchanged
        return _SharedContext(self._tls, **options)


class Sqlite:
    """One SQLite file; one thread uses its engine. Its failures are raised as StoreUnavailable or StoreError."""

    def __init__(self, url: SqliteUrl, config: gw.config.Store) -> None:
        self._path = Path(url.path).absolute()
        self._busy_s = config.statement_timeout_s
        self._closing = False
        self._thread = OneThread(self._busy_s + _SQLITE_WORK_S, StoreUnavailable)
        self._engine = create_engine(
            "sqlite+pysqlite://",
            creator=lambda: open_sqlite(self._path, self._busy_s),
            poolclass=StaticPool,
            hide_parameters=True,
            json_serializer=_json,
            json_deserializer=msgspec.json.decode,
        )
        event.listen(self._engine, "begin", self._begin)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a read-only transaction."""
        return self._transaction(work, writes=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction: commit when it returns, roll back when it raises."""
        return self._transaction(work, writes=True)

    def migrate(self, work: Callable[[Connection], T]) -> T:
        """Run `work` under a lock against other migrating processes, with time for long statements."""
        return self._transaction(work, writes=True)  # SQLite rolls back DDL too, and admits one writer at a time

    def close(self) -> None:
        """Close every connection."""
        if self._thread.closed:
            return
        self._closing = True
        try:
            self._thread.run(self._engine.dispose)
        finally:
            self._thread.close()

    def _transaction(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        def in_thread() -> T:
            self._require_open()
            with self._engine.connect().execution_options(submilli_writes=writes) as connection, connection.begin():
                return work(connection)

        try:
            return self._thread.run(in_thread)
        except StoreError:
            raise
        except Exception as error:
            raise fault(error) from error

    def _require_open(self) -> None:
        if self._closing:
            raise StoreUnavailable("the store's file is being closed")

    def _begin(self, connection: Connection) -> None:
        # A writing transaction takes the lock at its start: an upgrade of the lock fails instead of waiting.
        if not connection.get_execution_options().get("submilli_writes", True):
            connection.exec_driver_sql("BEGIN")
            return
        until_s = time.monotonic() + self._busy_s
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_LOCK_LOOK_S * 1000:.0f}")
        try:
            while not self._takes_lock(connection, is_last=time.monotonic() > until_s):
                self._require_open()
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={self._busy_s * 1000:.0f}")

    @staticmethod
    def _takes_lock(connection: Connection, *, is_last: bool) -> bool:
        """Begin a writing transaction. Returns False while another process writes, and raises if `is_last`."""
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except exc.OperationalError as error:
            if is_last or getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True


#: Either database: `read`, `write` and `migrate` run a function of a connection in a transaction.
Backend = MySql | Sqlite


def open_backend(config: gw.config.Store, password: str) -> Backend:
    """Return the backend of `store.url`, without a connection yet. Raises ConfigError."""
    url = parse_store_url(config.url)
    return Sqlite(url, config) if isinstance(url, SqliteUrl) else MySql(url, password, config)
