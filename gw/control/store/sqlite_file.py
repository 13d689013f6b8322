"""Opens SQLite files: accessible to their owner only, in WAL mode, synced at every commit, with bounded waits.

A new file can return free pages to the file system (`PRAGMA incremental_vacuum`); an older one reuses them.

Blocks. Call it in the thread that uses the connection.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gevent.monkey import get_original

#: Pause between attempts to enter WAL mode: SQLite does not wait for that lock.
_PAUSE_S: Final = 0.01
#: A checkpoint cuts the write-ahead log to this size.
JOURNAL_BYTES: Final = 16 << 20
_sleep: Final = get_original("time", "sleep")  # the calling thread has no hub


def open_sqlite(path: Path, busy_s: float) -> sqlite3.Connection:
    """Open or create `path` and its directory. Transactions begin explicitly.

    Waits at most `busy_s` for another process, here and in every later statement.
    Raises: sqlite3.Error, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite gives its side files the same mode
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES}")
        deadline_s = time.monotonic() + busy_s
        while not _enter_wal(db):
            if time.monotonic() > deadline_s:
                raise sqlite3.OperationalError(f"another process held the file for {busy_s:g} s")
            _sleep(_PAUSE_S)
        db.execute("PRAGMA synchronous=FULL")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def unsynced(db: sqlite3.Connection) -> Iterator[None]:
    """Commit without waiting for the disk: a loss of power may undo it, a crash of the process does not."""
    db.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous=FULL")


def shrink(db: sqlite3.Connection, spare: int, most: int) -> None:
    """Return free pages beyond `spare` to the file system, at most `most`. The caller has begun a transaction."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free - spare, most)):
        db.execute("PRAGMA incremental_vacuum(1)")  # `execute` steps once, which is one page


def _enter_wal(db: sqlite3.Connection) -> bool:
    """Switch the file to WAL mode, which is permanent. Returns False while another process holds the file."""
    try:
        if db.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            return True  # asked without a lock: another process may hold it for long
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a file without tables: before WAL mode writes its head
        (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    if mode != "wal":
        raise sqlite3.OperationalError(f"the file system does not support WAL mode, only {mode}")
    return True
