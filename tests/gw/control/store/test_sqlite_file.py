"""gw.control.store.sqlite_file: private, in WAL mode, synced, with a bounded wait for other processes."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from gw.control.store.one_thread import OneThread
from gw.control.store.sqlite_file import open_sqlite
from gw.errors import GatewayError
from tests.timing import scaled


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A file in which another connection writes, not yet in WAL mode."""
    path = tmp_path / "x.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (id)")
    other.execute("BEGIN EXCLUSIVE")
    yield path, other
    other.close()


def test_a_new_file_is_private_synced_and_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.db"
    db = open_sqlite(path, 1.0)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA busy_timeout").fetchone() == (1000,)
    db.execute("CREATE TABLE t (id)")
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    db.close()


def test_another_process_is_waited_for(held: tuple[Path, sqlite3.Connection]) -> None:
    path, other = held
    thread = OneThread(scaled(20), GatewayError)
    opening = gevent.spawn(thread.run, lambda: open_sqlite(path, scaled(10.0)))
    gevent.sleep(0.05)
    assert not opening.ready()
    other.execute("COMMIT")
    db = opening.get(timeout=scaled(20))
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
    thread.close()


def test_the_wait_for_another_process_is_bounded(held: tuple[Path, sqlite3.Connection]) -> None:
    with pytest.raises(sqlite3.OperationalError, match="another process held the file"):
        open_sqlite(held[0], 0.05)


def test_another_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not SQLite at all " * 200)
    with pytest.raises(sqlite3.DatabaseError):
        open_sqlite(tmp_path / "x.db", 1.0)
