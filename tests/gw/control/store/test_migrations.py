"""gw.control.store.migrations on both databases: from nothing, after an interruption, by several processes."""

from __future__ import annotations

from pathlib import Path

import gevent
import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

import gw.config
from gw.call.quality import Quality
from gw.control.store import SchemaAheadError, Store, StoreError, migrations, tables
from tests.conftest import StoreMaker
from tests.gw.control.stamped import stamp, started
from tests.mariadb import PASSWORD
from tests.timing import scaled


@pytest.fixture
def store(open_store: StoreMaker) -> Store:
    """A store whose schema the migrations made; stores of other tests have a copy."""
    made = open_store()
    made.upgrade()
    return made


def execute(store: Store, *statements: str) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    store._backend.write(work)


def test_an_empty_database_is_upgraded(open_store: StoreMaker) -> None:
    store = open_store()
    assert store.current() == (None, migrations.HEAD)
    with pytest.raises(StoreError, match=r"schema revision none.*run `gateway\.py db upgrade`"):
        store.check()
    store.upgrade()
    assert store.current() == (migrations.HEAD, migrations.HEAD)
    store.check()
    store.upgrade()
    store.apply(stamp(started()))
    assert len(store.calls()) == 1


def test_the_migrated_schema_equals_the_tables(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), tables.metadata))

    assert store._backend.migrate(differences) == []


def test_mariadb_tables_hold_every_character(mariadb_config: gw.config.Store) -> None:
    store = Store(mariadb_config, PASSWORD)
    store.upgrade()

    def collations(connection: Connection) -> set[object]:
        query = (
            "SELECT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
            " AND collation_name IS NOT NULL AND table_name <> 'alembic_version'"
        )
        return {row[0] for row in connection.execute(text(query))}

    assert store._backend.read(collations) == {"utf8mb4_bin"}
    store.close()


@pytest.mark.parametrize("act", ["upgrade", "check"])
def test_a_schema_from_the_future_is_refused(store: Store, act: str) -> None:
    execute(store, "UPDATE alembic_version SET version_num = '9999'", "DROP TABLE schema_range")
    with pytest.raises(StoreError, match=r"9999, newer than"):
        getattr(store, act)()
    assert store.current() == ("9999", migrations.HEAD)


def test_a_newer_schema_that_declares_this_version_is_used_unchanged(store: Store) -> None:
    """Its revision only added: this version was rolled back behind it, or the other host is upgraded already."""
    execute(store, "UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE calls ADD COLUMN mood VARCHAR(20)")
    store.upgrade()
    store.check()
    store.apply(stamp(started()))
    assert (len(store.calls()), store.current()[0]) == (1, "9999")
    execute(store, "UPDATE schema_range SET oldest = '9998'")
    for act in (store.upgrade, store.check):
        with pytest.raises(SchemaAheadError, match=r"9999, newer than"):
            act()


def test_the_present_code_can_use_the_present_schema(store: Store) -> None:
    oldest = store._backend.read(lambda c: c.execute(text("SELECT oldest FROM schema_range")).scalar_one())
    assert oldest in migrations.REVISIONS


def test_an_empty_version_table_means_no_revision(store: Store) -> None:
    execute(store, "DELETE FROM alembic_version")
    assert store.current() == (None, migrations.HEAD)


def test_an_interrupted_migration_can_run_again(store: Store) -> None:
    store.apply(stamp(started()))
    execute(
        store,
        "DELETE FROM alembic_version",
        "DROP TABLE events",
        "DROP TABLE turns",
    )
    store.upgrade()
    store.check()
    assert len(store.calls()) == 1, "existing rows stay"
    assert {"events", "turns"} <= set(store._backend.read(lambda c: inspect(c).get_table_names()))


def test_several_processes_may_upgrade_at_the_same_time(open_store: StoreMaker) -> None:
    stores = [open_store() for _ in range(3)]
    jobs = [gevent.spawn(store.upgrade) for store in stores]
    gevent.joinall(jobs, timeout=scaled(30), raise_error=True)
    for store in stores:
        store.check()


def test_the_revisions_are_listed_in_sequence() -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert tuple(r.revision for r in reversed(list(script.walk_revisions()))) == migrations.REVISIONS
    assert script.get_heads() == [migrations.HEAD]


def test_every_field_of_the_quality_report_has_a_column() -> None:
    fields = {field.name for field in msgspec.structs.fields(Quality)}
    assert fields == {column.name for column in tables.call_quality.c} - {"id", "call_sid"}
