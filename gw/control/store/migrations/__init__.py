"""Brings a database to the schema this code needs, and says when it cannot work with the one it finds.

Alembic runs in-process, without an `env.py`: the connection is handed to it. `REVISIONS` names every revision, oldest first; a
new one is a file in `versions/` and a line here. Revisions never import `tables`: they must go on meaning what they meant. Each
can be run again after it was broken off halfway, since MySQL cannot undo DDL. Alembic is imported on use: it takes a third of a
second.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from gw.control.store.faults import StoreError

REVISIONS: Final = ("0001", "0002")
HEAD: Final = REVISIONS[-1]
_VERSION_TABLE: Final = "alembic_version"


def revision_of(connection: Connection) -> str | None:
    """The revision the database is at; None for one that was never migrated."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()
    return None if found is None else str(found)


def refuse_unknown(revision: str | None) -> None:
    """Raises StoreError for a database that is ahead of this code."""
    if revision is not None and revision not in REVISIONS:
        raise StoreError(
            f"the store is at schema revision {revision}, which this version of the gateway does not know "
            f"(it knows up to {HEAD}): run the version that wrote it, or a newer one"
        )


def refuse_unusable(revision: str | None) -> None:
    """Raises StoreError for a database that is not at exactly the revision this code needs."""
    refuse_unknown(revision)
    if revision != HEAD:
        raise StoreError(
            f"the store is at schema revision {revision or 'none'}, this version of the gateway needs {HEAD}: "
            "run `gateway.py db upgrade`"
        )


def upgrade(connection: Connection) -> None:
    """Migrate to the head. The caller sees to it that nobody else does so meanwhile. Raises StoreError."""
    revision = revision_of(connection)
    refuse_unknown(revision)
    if revision == HEAD:
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before the import, which names each of its parts
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
