"""tests.schema: a store that was given its schema by statements equals a migrated one."""

from __future__ import annotations

from tests import schema
from tests.conftest import StoreMaker


def test_the_copy_equals_the_migrated_schema(open_store: StoreMaker) -> None:
    migrated = open_store()
    migrated.upgrade()
    made = migrated._backend.read(schema.statements)
    assert len(made) > 10
    migrated._backend.write(lambda c: [c.exec_driver_sql(f"DROP TABLE {one}") for one in _tables(made)])
    assert migrated.current()[0] is None
    schema._made[type(migrated._backend).__name__] = made
    schema.upgrade(migrated)
    migrated.check()
    assert migrated._backend.read(schema.statements) == made


def _tables(made: list[str]) -> list[str]:
    return [one.split()[2].strip('`"') for one in made if one.startswith("CREATE TABLE")]
