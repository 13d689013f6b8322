"""Upgrades a database to the schema of this code, and refuses unusable revisions.

Alembic runs in-process, without an `env.py`: it receives the connection. `REVISIONS` lists every revision, oldest first; a new
one is a file in `versions/` and an entry here. Revisions never import `tables`, because their meaning must not change. Each can
run again after an interruption, because MySQL cannot roll back DDL. Alembic is imported on use: the import takes 0.3 s.

A version meets a newer schema after a rollback, or while several hosts are upgraded. `schema_range.oldest` declares which
versions can use the schema. A revision that only adds leaves it; one that earlier code cannot use raises it first of all.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from gw.control.store.faults import StoreError

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0011")
HEAD: Final = REVISIONS[-1]
_VERSION_TABLE: Final = "alembic_version"
_RANGE_TABLE: Final = "schema_range"


class SchemaAheadError(StoreError):
    """The database was upgraded by a newer version, and this one cannot use it."""

    code = "schema_ahead"


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the database; None before its first migration."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def is_ahead(connection: Connection, revision: str | None) -> bool:
    """Return whether a newer version upgraded the database. Raises SchemaAheadError if this one cannot use it."""
    if revision is None or revision in REVISIONS:
        return False
    oldest = None
    if inspect(connection).has_table(_RANGE_TABLE):
        oldest = connection.execute(text(f"SELECT oldest FROM {_RANGE_TABLE}")).scalar()
    if oldest not in REVISIONS:
        raise SchemaAheadError(
            f"the store is at schema revision {revision}, newer than {HEAD}, the last one of this version of the gateway: "
            "run the version that wrote it, or a newer one"
        )
    return True


def refuse_unusable(connection: Connection) -> None:
    """Refuse a database that this code cannot use. Raises StoreError."""
    revision = revision_of(connection)
    if not is_ahead(connection, revision) and revision != HEAD:
        raise StoreError(
            f"the store is at schema revision {revision or 'none'}, this version of the gateway needs {HEAD}: "
            "run `gateway.py db upgrade`"
        )


def upgrade(connection: Connection) -> None:
    """Migrate to HEAD; leave a newer schema that this code can use. The caller holds the lock against other migrations.

    Raises: StoreError.
    """
    revision = revision_of(connection)
    if is_ahead(connection, revision) or revision == HEAD:
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before the import, which logs each of its parts
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(__file__).parent))
    environment = EnvironmentContext(
        Config(), script, fn=lambda current, _context: script._upgrade_revs(HEAD, current), destination_rev=HEAD
    )
    with environment:
        environment.configure(connection=connection, version_table=_VERSION_TABLE)
        with environment.begin_transaction():
            environment.run_migrations()
