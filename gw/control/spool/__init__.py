"""Keeps every event of the media workers on disk until the store has it.

One SQLite file in WAL mode, synced at every commit: when `append` returns, the events survive a crash of the process and of the
machine, and the worker may forget them. Four tables: `entries` is the queue, `instances` remembers the highest number ever
accepted of each worker process (a worker that did not hear its acknowledgement sends again), `poison` holds what the store
refuses for good, `claims` the recordings that were claimed while the store was away. Events are opaque bytes here. Never drops an
entry, never talks to the store.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from gw.control.store import HeldClaim
from gw.control.store.one_thread import OneThread
from gw.control.store.sqlite_file import open_sqlite
from gw.errors import GatewayError

T = TypeVar("T")

#: Bound on one operation, the wait for the disk included.
_OPERATION_S: Final = 30.0
#: How long SQLite waits for another process that has the file.
_BUSY_S: Final = 5.0
#: A batch ends with the entry that reaches this: a few of the largest messages of the bus.
_BATCH_BYTES: Final = 4 << 20
#: A worker process that was not heard of for this long will not send an old number again.
_INSTANCE_DAYS: Final = 7
_WHY_CHARS: Final = 1000
_DAY_S: Final = 86_400

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL, n INTEGER NOT NULL, worker INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS instances (
    instance TEXT PRIMARY KEY, last INTEGER NOT NULL, heard_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS poison (
    id INTEGER PRIMARY KEY, instance TEXT NOT NULL, n INTEGER NOT NULL, worker INTEGER NOT NULL, body BLOB NOT NULL,
    why TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (
    call_sid TEXT PRIMARY KEY, account_sid TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL, recording_sid TEXT NOT NULL
) WITHOUT ROWID;
"""


class SpoolError(GatewayError):
    """The spool's disk or file failed: nothing was accepted, the worker keeps its events."""

    code = "spool_failed"


class Entry(NamedTuple):
    """One event as it waits. `worker` is the slot it came from, -1 where it was not told."""

    id: int
    instance: str
    n: int
    body: bytes
    worker: int = -1


class Spool:
    """The queue between the bus and the store."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, readable by its owner alone. Raises SpoolError."""
        self._path = path
        self._thread = OneThread(_OPERATION_S, SpoolError)
        self._backlog = 0
        self._settled = 0
        self._refused = 0
        try:
            self._db: sqlite3.Connection = self._run(self._open)
        except SpoolError:
            self._thread.close()
            raise

    def append(self, instance: str, items: Sequence[tuple[int, bytes]], *, worker: int = -1) -> None:
        """Accept numbered events of one worker process, in one commit.

        Shape: numbers above `last(instance)` are new; the others were accepted before and are passed over.
        Raises: SpoolError: not known to be accepted, to be sent again.
        """
        self._run(lambda: self._append(instance, items, worker))

    def last(self, instance: str) -> int:
        """The highest number ever accepted of this worker process, drained ones included; 0 if none."""
        return self._run(lambda: self._last(instance))

    def batch(self, limit: int) -> list[Entry]:
        """The oldest entries, at most `limit` and some megabytes. They stay until `done` or `set_aside`."""

        def work() -> list[Entry]:
            entries: list[Entry] = []
            size = 0
            rows = self._db.execute("SELECT id, instance, n, body, worker FROM entries ORDER BY id LIMIT ?", (limit,))
            for row in rows:
                entries.append(Entry(*row))
                size += len(entries[-1].body)
                if size >= _BATCH_BYTES:
                    break
            rows.close()
            return entries

        return self._run(work)

    def done(self, ids: Sequence[int]) -> None:
        """Forget entries that the store has."""

        def work() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                removed = self._db.executemany("DELETE FROM entries WHERE id = ?", [(entry_id,) for entry_id in ids])
            self._settled += removed.rowcount  # first this, so that the sum of both never misses an entry
            self._backlog -= removed.rowcount

        if ids:
            self._run(work)

    def set_aside(self, entry_id: int, why: str) -> None:
        """Take an entry the store refuses for good out of the queue, and keep it with the reason."""

        def work() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(
                    "INSERT OR REPLACE INTO poison (id, instance, n, worker, body, why, at)"
                    " SELECT id, instance, n, worker, body, ?, ? FROM entries WHERE id = ?",
                    (why[:_WHY_CHARS], time.time(), entry_id),
                )
                removed = self._db.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
            self._settled += removed.rowcount
            self._backlog -= removed.rowcount
            self._refused += removed.rowcount

        self._run(work)

    def backlog(self) -> int:
        """Entries waiting for the store, poison not counted. Costs nothing: no disk is asked."""
        return self._backlog

    def settled(self) -> int:
        """Entries the store has taken, or refused for good, since the start. What waits now is settled, oldest first, once this
        has grown by `backlog()`."""
        return self._settled

    def refused(self) -> int:
        """Entries that were set aside and not brought back. Costs nothing: no disk is asked."""
        return self._refused

    def poison(self, limit: int) -> list[dict[str, object]]:
        """What was set aside, oldest first: id, instance, n, worker, bytes (of its body), why, at."""

        def work() -> list[dict[str, object]]:
            cursor = self._db.execute(
                "SELECT id, instance, n, worker, length(body) AS bytes, why, at FROM poison ORDER BY id LIMIT ?", (limit,)
            )
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

        return self._run(work)

    def bring_back(self, ids: Sequence[int] | None = None) -> int:
        """Queue what was set aside once more, these or all of it, say after an upgrade. Returns how many entries that were."""

        def work() -> int:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                wanted = ids
                if wanted is None:
                    wanted = [entry_id for (entry_id,) in self._db.execute("SELECT id FROM poison ORDER BY id")]
                moved = self._db.executemany(
                    "INSERT INTO entries (instance, n, worker, body) SELECT instance, n, worker, body FROM poison WHERE id = ?",
                    [(entry_id,) for entry_id in wanted],
                ).rowcount
                self._db.executemany("DELETE FROM poison WHERE id = ?", [(entry_id,) for entry_id in wanted])
            self._backlog += moved
            self._refused -= moved
            return moved

        return self._run(work)

    # -- claims taken while the store is away ---------------------------------------------------------------------------

    def claims(self) -> list[HeldClaim]:
        """Every claim that is kept, oldest first."""
        columns = ", ".join(HeldClaim._fields)
        return self._run(lambda: [HeldClaim(*row) for row in self._db.execute(f"SELECT {columns} FROM claims ORDER BY at")])

    def keep_claim(self, claim: HeldClaim) -> None:
        """Keep a claim: when this returns, it survives a crash of the machine."""
        self._run(lambda: self._db.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", claim))

    def note_claim(self, call_sid: str, recording_sid: str) -> None:
        """Add to a claim, if it is still kept, what was made under it."""
        self._run(lambda: self._db.execute("UPDATE claims SET recording_sid = ? WHERE call_sid = ?", (recording_sid, call_sid)))

    def drop_claims(self, call_sids: Sequence[str]) -> None:
        """Forget claims that the store has."""

        def work() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("DELETE FROM claims WHERE call_sid = ?", [(call_sid,) for call_sid in call_sids])

        self._run(work)

    def close(self) -> None:
        """Close the file. What is in it stays; later calls raise SpoolError, but for `close`."""
        if self._thread.closed:
            return
        try:
            self._run(self._db.close)
        finally:
            self._thread.close()

    # -- in the spool's thread -----------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        db = open_sqlite(self._path, _BUSY_S)
        db.executescript(_SCHEMA)
        db.execute(
            "DELETE FROM instances WHERE heard_at < ? AND instance NOT IN (SELECT instance FROM entries)",
            (time.time() - _INSTANCE_DAYS * _DAY_S,),
        )
        (self._backlog,) = db.execute("SELECT count(*) FROM entries").fetchone()
        (self._refused,) = db.execute("SELECT count(*) FROM poison").fetchone()
        return db

    def _last(self, instance: str) -> int:
        row = self._db.execute("SELECT last FROM instances WHERE instance = ?", (instance,)).fetchone()
        return int(row[0]) if row else 0

    def _append(self, instance: str, items: Sequence[tuple[int, bytes]], worker: int) -> None:
        fresh: list[tuple[str, int, int, bytes]] = []
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            last = self._last(instance)
            for n, body in sorted(items, key=lambda item: item[0]):
                if n > last:
                    fresh.append((instance, n, worker, body))
                    last = n
            if fresh:
                self._db.executemany("INSERT INTO entries (instance, n, worker, body) VALUES (?, ?, ?, ?)", fresh)
                self._db.execute(
                    "INSERT INTO instances (instance, last, heard_at) VALUES (?, ?, ?)"
                    " ON CONFLICT (instance) DO UPDATE SET last = excluded.last, heard_at = excluded.heard_at",
                    (instance, last, time.time()),
                )
        self._backlog += len(fresh)

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return self._thread.run(work)
        except (sqlite3.Error, OSError) as error:
            raise SpoolError(f"the spool {self._path} failed: {error}") from error
