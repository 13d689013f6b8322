"""Copies an SQLite store while a gateway uses it. For MySQL, builds the command that does.

The copy is one consistent state. It has a temporary name until it is complete, checked and synced.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from gw.config.store_url import MysqlUrl
from gw.control.store.faults import StoreError

#: Pages copied between two reports; writers wait no longer than this takes.
_PAGES: Final = 1_000
_BUSY_S: Final = 10.0


def copy(source: Path, target: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
    """Copy the database to a new file, mode 0600. Returns its size in bytes. Raises StoreError.

    `progress` receives the pages copied so far, and all.
    """
    if target.exists():
        raise StoreError(f"{target} exists already: name a new file")
    if not source.exists():
        raise StoreError(f"the store {source} does not exist")
    part = target.with_name(f".{target.name}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600))
        with closing(sqlite3.connect(source, timeout=_BUSY_S)) as store, closing(sqlite3.connect(part)) as made:
            store.backup(made, pages=_PAGES, sleep=0.01, progress=lambda _status, left, total: progress(total - left, total))
            made.execute("PRAGMA journal_mode=DELETE")  # one file, without side files
            (found,) = made.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise StoreError(f"the copy is damaged, and so is the store: {found}")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the store cannot be copied to {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return target.stat().st_size


def mysql_command(url: MysqlUrl, target: Path) -> str:
    """Return the shell command that copies a MySQL or MariaDB store. It asks for the password."""
    socket = url.options.get("unix_socket")
    place = [f"--socket={socket}"] if socket else [f"--host={url.host}", *([f"--port={url.port}"] if url.port else [])]
    words = [
        "mysqldump",
        *place,
        f"--user={url.user}",
        "--password",
        "--single-transaction",
        "--quick",
        "--routines",
        url.database,
    ]
    return f"{shlex.join(words)} | gzip > {shlex.quote(str(target))}"
