"""gw.control.store.backup: a copy is a complete store, also while it is written."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

import gw.config
from gw.config.store_url import MysqlUrl, parse_store_url
from gw.control.store import Store, StoreError
from gw.control.store.backup import copy, mysql_command
from tests.gw.control.stamped import call_sid, stamp, started


def test_a_copy_can_be_used_as_a_store(tmp_path: Path) -> None:
    source, target = tmp_path / "store.db", tmp_path / "copy.db"
    store = Store(gw.config.Store(url=f"sqlite:///{source}"), "")
    store.upgrade()
    store.apply(stamp(*(started(k) for k in range(1, 200))))
    written: list[int] = []

    def during(_done: int, _total: int) -> None:
        if not written:
            store.apply(stamp(started(200), instance="i2"))
            written.append(200)

    assert copy(source, target, during) == target.stat().st_size
    store.close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "store.db"]
    restored = Store(gw.config.Store(url=f"sqlite:///{target}"), "")
    restored.check()
    assert {call.call_sid for call in restored.calls(limit=1000)} >= {call_sid(k) for k in range(1, 200)}
    restored.close()


def test_a_copy_replaces_no_file(tmp_path: Path) -> None:
    source, target = tmp_path / "store.db", tmp_path / "copy.db"
    with pytest.raises(StoreError, match="does not exist"):
        copy(source, target)
    sqlite3.connect(source).close()
    target.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        copy(source, target)
    source.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be copied"):
        copy(source, tmp_path / "other.db")
    with pytest.raises(StoreError, match="cannot be copied"):
        copy(source, tmp_path / "no" / "folder.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "store.db"]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("mysql://me@db:3307/calls", "--host=db --port=3307"),
        ("mysql://me@db/calls", "--host=db"),
        ("mysql://me@/calls?unix_socket=/run/my.sock", "--socket=/run/my.sock"),
    ],
)
def test_the_command_for_mysql(url: str, place: str) -> None:
    parsed = parse_store_url(url)
    assert isinstance(parsed, MysqlUrl)
    command = mysql_command(parsed, Path("/b/c.sql.gz"))
    options = "--user=me --password --single-transaction --quick --routines calls"
    assert command == f"mysqldump {place} {options} | gzip > /b/c.sql.gz"
