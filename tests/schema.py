"""Gives a store its schema: by the migrations the first time, then by the statements of that result.

The migrations take 0.8 s on MariaDB and most of it is theirs; hundreds of tests begin with an empty database. What the
migrations do is tested in `tests/gw/control/store/test_migrations.py`.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect

import gw.config
from gw.bench.gateway_process import GatewayProcess
from gw.control.store import Store

#: Statements that make the schema, by dialect.
_made: dict[str, list[str]] = {}
#: The tables with rows in an empty store.
_FILLED = ("alembic_version", "schema_range")


def upgrade(store: Store) -> None:
    """Upgrade an empty store. Unlike `Store.upgrade`, without a lock against other processes' upgrades."""
    kind = type(store._backend).__name__
    if kind not in _made:
        store.upgrade()
        _made[kind] = store._backend.read(statements)
    elif store.current()[0] is None:
        store._backend.write(lambda connection: _run(connection, _made[kind]))


def upgrade_at(config: gw.config.Store, password: str = "") -> None:
    """Upgrade the empty store at this URL."""
    store = Store(config, password)
    try:
        upgrade(store)
    finally:
        store.close()


def prepare(gateway: GatewayProcess) -> None:
    """Upgrade the SQLite store of a gateway before its start, which then imports no alembic."""
    gateway.var_dir.mkdir(0o700)
    upgrade_at(gw.config.Store(url=f"sqlite:///{gateway.var_dir}/submilli.db"))


def statements(connection: Connection) -> list[str]:
    """Return the statements that make the schema of a database, with its revision."""
    found: list[str] = []
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        found += [row[0] for row in rows]
    else:
        for table in sorted(inspect(connection).get_table_names()):
            found.append(connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").one()[1])
    for table in _FILLED:
        (value,) = connection.exec_driver_sql(f"SELECT * FROM {table}").one()
        found.append(f"INSERT INTO {table} VALUES ('{value}')")
    return found


def _run(connection: Connection, some: list[str]) -> None:
    for statement in some:
        connection.exec_driver_sql(statement)
