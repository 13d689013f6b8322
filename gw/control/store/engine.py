"""Runs transactions: MySQL in the asking greenlet, SQLite in one thread of its own.

PyMySQL's sockets wait cooperatively, so a MySQL transaction runs where it is asked for, on one of a few pooled connections with
every wait bounded. SQLite blocks, so its engine is used inside one thread alone. Whoever asks gives a function of a connection;
it may be run again after a deadlock and must have no other effect. Never logs, never shows values or the password.
"""

from __future__ import annotations

import random
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import gevent
import msgspec
import pymysql
from sqlalchemy import URL, Connection, Engine, NullPool, StaticPool, create_engine, event, exc
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

import gw.config
from gw.config.store_url import MysqlUrl, SqliteUrl, parse_store_url
from gw.control.store.faults import DEADLOCK_CODES, DEMOTED_CODES, StoreUnavailable, code_of, fault
from gw.control.store.one_thread import OneThread
from gw.control.store.sqlite_file import open_sqlite
from gw.control.store.tls import Tls, tls_of

T = TypeVar("T")

_POOL_SIZE: Final = 5
#: Below MySQL's default `wait_timeout` and below what most proxies allow an idle connection.
_RECYCLE_S: Final = 1800
#: A deadlock's victim runs again this often, with a pause of up to this long.
_DEADLOCK_TRIES: Final = 5
_DEADLOCK_PAUSE_S: Final = 0.05
#: Bound on one step of a migration: a large table may be rebuilt.
_MIGRATION_S: Final = 1800.0
#: SQLite holds a transaction this much longer than it waits for the file, at the most.
_SQLITE_WORK_S: Final = 30.0


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class Backend(ABC):
    """One database. Every method raises StoreUnavailable or StoreError, and nothing else for the database's faults."""

    @abstractmethod
    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads."""

    @abstractmethod
    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that is committed when it returns and undone when it raises."""

    @abstractmethod
    def migrate(self, work: Callable[[Connection], T]) -> T:
        """Run `work` alone: no other process migrates meanwhile. Long-running statements are allowed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of every connection."""


def open_backend(config: gw.config.Store, password: str) -> Backend:
    """The backend for `store.url`. Connects to nothing yet. Raises ConfigError."""
    url = parse_store_url(config.url)
    return Sqlite(url, config) if isinstance(url, SqliteUrl) else MySql(url, password, config)


class _SharedContext(pymysql.connections.Connection):
    """A connection that prefers TLS with the one context there is, where PyMySQL would build a context of its own."""

    def __init__(self, tls: Tls, **options: Any) -> None:
        self._shared = tls.context()
        super().__init__(**options)

    def _create_ssl_ctx(self, sslp: object) -> ssl.SSLContext:
        return self._shared


class MySql(Backend):
    """MySQL and MariaDB, through PyMySQL."""

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
        return self.write(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        for tries_left in reversed(range(_DEADLOCK_TRIES)):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except exc.SQLAlchemyError as error:
                if code_of(error) in DEMOTED_CODES:
                    self._engine.dispose()  # its name may lead to another server by now; who connects anew finds out
                if not tries_left or code_of(error) not in DEADLOCK_CODES:
                    raise fault(error) from error
            except OSError as error:
                raise fault(error) from error
            gevent.sleep(random.uniform(0, _DEADLOCK_PAUSE_S))
        raise AssertionError("the last try returns or raises")

    def migrate(self, work: Callable[[Connection], T]) -> T:
        engine = self._make(_MIGRATION_S, pooled=False)
        wait_s = self._config.statement_timeout_s
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                name = f"submilli {self._url.database}"[:64]  # the server's locks are not per database
                if connection.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, wait_s)).scalar() != 1:
                    raise StoreUnavailable(f"another process has been migrating the store for {wait_s:g} s: try again later")
                try:
                    return work(connection)
                finally:
                    connection.exec_driver_sql("DO RELEASE_LOCK(%s)", (name,))
        except (exc.SQLAlchemyError, OSError) as error:
            raise fault(error) from error
        finally:
            engine.dispose()

    def close(self) -> None:
        self._engine.dispose()

    def _make(self, statement_s: float, *, pooled: bool) -> Engine:
        # A lock is given up by the server before the client gives up the answer, so that the connection stays of use.
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
        return engine

    def _connect(self, dialect: MySQLDialect_pymysql, record: object, args: list[Any], options: dict[str, Any]) -> Any:
        if self._tls is None:
            return pymysql.connect(*args, **options, ssl_disabled=True)
        if self._tls.required:
            return pymysql.connect(*args, **options, ssl=self._tls.context())  # a context is taken as it is
        return _SharedContext(self._tls, **options)


class Sqlite(Backend):
    """One SQLite file, its engine used by one thread."""

    def __init__(self, url: SqliteUrl, config: gw.config.Store) -> None:
        self._path = Path(url.path).absolute()
        self._busy_s = config.statement_timeout_s
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
        return self._transaction(work, writes=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work, writes=True)

    def migrate(self, work: Callable[[Connection], T]) -> T:
        return self._transaction(work, writes=True)  # SQLite undoes its DDL too, and lets one writer in at a time

    def close(self) -> None:
        if self._thread.closed:
            return
        try:
            self._thread.run(self._engine.dispose)
        finally:
            self._thread.close()

    def _transaction(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        def in_thread() -> T:
            with self._engine.connect().execution_options(submilli_writes=writes) as connection, connection.begin():
                return work(connection)

        try:
            return self._thread.run(in_thread)
        except (exc.SQLAlchemyError, OSError) as error:
            raise fault(error) from error

    @staticmethod
    def _begin(connection: Connection) -> None:
        # A transaction that will write says so at once: asking for the lock halfway fails instead of waiting.
        writes = connection.get_execution_options().get("submilli_writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
