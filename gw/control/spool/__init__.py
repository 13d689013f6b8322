"""Durable queue between the bus and the store: every event stays on disk until the store has it.

One SQLite file in WAL mode, synced at every commit. When `append` returns, the events survive a crash of the process and of the
machine, and the worker may drop its copy. Tables: `entries` is the queue; `instances` holds the highest number accepted from
each worker process, because a worker that missed an acknowledgement sends again; `poison` holds entries the store refuses
permanently; `claims` holds recordings claimed while the store was away; `jobs` is `gw.control.jobs.table`'s. Events are opaque
bytes here.

A file that SQLite finds corrupt is renamed to `spool.db.corrupt-TIME`, and an empty one takes its place: its events do not reach
the store, and the gateway continues.

    __init__    the spool
    forwarder   carries its entries into the store
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from gw.control.jobs import table
from gw.control.jobs.lifecycle import Job
from gw.control.store import HeldClaim
from gw.control.store.one_thread import OneThread
from gw.control.store.sqlite_file import open_sqlite, shrink, unsynced
from gw.errors import GatewayError, text_of

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Upper bound on one operation, including the wait for the disk.
_OPERATION_S: Final = 30.0
#: SQLite waits this long for another process that holds the file.
_BUSY_S: Final = 5.0
#: A batch ends with the entry that reaches this size: a few of the largest messages of the bus.
_BATCH_BYTES: Final = 4 << 20
#: A worker process silent for this long does not send an old number again.
_INSTANCE_DAYS: Final = 7
_WHY_CHARS: Final = 1000
#: Free pages that a removal returns to the file system, and the number that stays for the next events.
_SHRINK_PAGES: Final = 2_000
_SPARE_PAGES: Final = 256
#: An older file of this size is not rewritten at the start, so that it can shrink: that would delay the start.
_REWRITE_BYTES: Final = 64 << 20
_DAY_S: Final = 86_400
#: Primary result codes of a file that is not a database, or a broken one.
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

#: Errors of a full disk or a quota; SQLite reports a limit on the size of files as a failed write.
_DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REMEDIES: Final = dict.fromkeys(
    (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    "the gateway's user must be able to write there, see ops.var_dir",
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL, n INTEGER NOT NULL, worker INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_of_no_worker ON entries (id) WHERE worker < 0;
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
    """The spool's disk or file failed. Nothing was accepted; the worker keeps its events."""

    code = "spool_failed"


class Entry(NamedTuple):
    """One waiting event. `worker` is the index of its worker, -1 if unknown."""

    id: int
    instance: str
    n: int
    body: bytes
    worker: int = -1


class Erased(msgspec.Struct, frozen=True):
    """Rows that named a call, removed from each table."""

    entries: int
    poison: int
    claims: int
    jobs: int


class Poisoned(msgspec.Struct, frozen=True):
    """An entry that was set aside. `bytes` is the size of its body, `at` an epoch time."""

    id: int
    instance: str
    n: int
    worker: int
    bytes: int
    why: str
    at: float


class Spool:
    """The queue. Methods wait for the disk, at most _OPERATION_S, and raise SpoolError."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, readable by its owner only. Raises SpoolError."""
        self._path = path
        self._thread = OneThread(_OPERATION_S, SpoolError)
        self._backlog = 0
        self._removed = 0
        self._poisoned = 0
        self._is_open = True  # False after a failed try to replace a corrupt file
        self.was_replaced = False  # by an empty one, at the start or since
        self.on_replaced: Callable[[], None] = lambda: None  # not called for the start
        try:
            self._db: sqlite3.Connection = self._thread.run(self._open_or_replace)
        except (sqlite3.Error, OSError) as error:
            self._thread.close()
            raise self._failed(error) from error
        except SpoolError:
            self._thread.close()
            raise
        if self.was_replaced:
            self._report_replaced()

    def append(
        self,
        instance: str,
        items: Sequence[tuple[int, bytes]],
        *,
        worker: int = -1,
        jobs: Mapping[int, Sequence[table.Wanted]] | None = None,
    ) -> list[Job]:
        """Accept numbered events of one worker process, in one commit.

        Shape: numbers above `last(instance)` are new; the others were accepted before and are skipped. `jobs`: those of an
        event, by its number; an event that is only a job is not among the items.
        Returns: the rows of the new events' jobs.
        Raises: SpoolError when the outcome is unknown; the worker has to send again.
        """
        return self._run(lambda: self._append(instance, items, worker, jobs or {}))

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work on the file's tables, in one commit. Raises SpoolError when its outcome is unknown."""

        def commit() -> T:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return work(self._db)

        return self._run(commit)

    def check(self) -> None:
        """Commit a row of no worker. Raises SpoolError while the disk accepts nothing."""
        row = "INSERT OR REPLACE INTO instances (instance, last, heard_at) VALUES ('check', 0, ?)"
        self.transact(lambda db: db.execute(row, (time.time(),)))

    def last(self, instance: str) -> int:
        """Return the highest number ever accepted from this worker process; 0 for an unknown process."""
        return self._run(lambda: self._last(instance))

    def batch(self, limit: int) -> list[Entry]:
        """Return the oldest entries, at most `limit` and _BATCH_BYTES. They stay until `remove` or `set_aside`."""
        return self._entries("ORDER BY id", limit)

    def latest(self, limit: int) -> list[Entry]:
        """Return the newest entries within the same bounds, the oldest of them first."""
        return self._entries("ORDER BY id DESC", limit)[::-1]

    def of_no_worker(self, after: int, limit: int) -> list[Entry]:
        """Return the oldest entries of control itself beyond an id, within the same bounds. Does not read the others."""
        return self._entries(f"WHERE worker < 0 AND id > {after} ORDER BY id", limit)

    def _entries(self, which: str, limit: int) -> list[Entry]:
        def work() -> list[Entry]:
            entries: list[Entry] = []
            size = 0
            rows = self._db.execute(f"SELECT id, instance, n, body, worker FROM entries {which} LIMIT ?", (limit,))
            for row in rows:
                entries.append(Entry(*row))
                size += len(entries[-1].body)
                if size >= _BATCH_BYTES:
                    break
            rows.close()
            return entries

        return self._run(work)

    def remove(self, ids: Sequence[int]) -> None:
        """Delete entries that the store has. After a power loss some may be there again: the store takes each once."""

        def work() -> None:
            with unsynced(self._db), self._db:
                self._db.execute("BEGIN IMMEDIATE")
                removed = self._db.executemany("DELETE FROM entries WHERE id = ?", [(entry_id,) for entry_id in ids])
                if self._backlog == removed.rowcount:
                    shrink(self._db, _SPARE_PAGES, _SHRINK_PAGES)
            self._removed += removed.rowcount  # before the backlog, so that their sum never misses an entry
            self._backlog -= removed.rowcount

        if ids:
            self._run(work)

    def set_aside(self, entry_id: int, why: str) -> None:
        """Move an entry that the store refuses permanently to the poison, with the reason."""

        def work() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(
                    "INSERT OR REPLACE INTO poison (id, instance, n, worker, body, why, at)"
                    " SELECT id, instance, n, worker, body, ?, ? FROM entries WHERE id = ?",
                    (why[:_WHY_CHARS], time.time(), entry_id),
                )
                removed = self._db.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
            self._removed += removed.rowcount
            self._backlog -= removed.rowcount
            self._poisoned += removed.rowcount

        self._run(work)

    def backlog(self) -> int:
        """Return the number of entries waiting for the store, poison excluded. Reads memory only."""
        return self._backlog

    def progress(self) -> tuple[int, int]:
        """Return the number of entries removed since the start, and the backlog.

        Removed entries are stored or set aside. Reads memory only. The present backlog is done, oldest first, once the first
        number has grown by the second.
        """
        return self._removed, self._backlog

    def poisoned(self) -> int:
        """Return the number of entries set aside. Reads memory only."""
        return self._poisoned

    def list_poison(self, limit: int) -> list[Poisoned]:
        """Return the entries set aside, oldest first."""
        statement = "SELECT id, instance, n, worker, length(body), why, at FROM poison ORDER BY id LIMIT ?"
        return self._run(lambda: [Poisoned(*row) for row in self._db.execute(statement, (limit,))])

    def requeue(self, ids: Sequence[int] | None = None) -> int:
        """Queue entries set aside once more, all of them without `ids`. Returns their number."""

        def work() -> int:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                chosen = ids
                if chosen is None:
                    chosen = [entry_id for (entry_id,) in self._db.execute("SELECT id FROM poison ORDER BY id")]
                moved = self._db.executemany(
                    "INSERT INTO entries (instance, n, worker, body) SELECT instance, n, worker, body FROM poison WHERE id = ?",
                    [(entry_id,) for entry_id in chosen],
                ).rowcount
                self._db.executemany("DELETE FROM poison WHERE id = ?", [(entry_id,) for entry_id in chosen])
            self._backlog += moved
            self._poisoned -= moved
            return moved

        return self._run(work)

    def export_poison(self, after: int = 0) -> list[tuple[Poisoned, bytes]]:
        """Return entries set aside beyond an id with their bodies, oldest first: at most _BATCH_BYTES."""
        statement = "SELECT id, instance, n, worker, length(body), why, at, body FROM poison WHERE id > ? ORDER BY id"

        def work() -> list[tuple[Poisoned, bytes]]:
            found: list[tuple[Poisoned, bytes]] = []
            size = 0
            rows = self._db.execute(statement, (after,))
            for *facts, body in rows:
                found.append((Poisoned(*facts), body))
                size += len(body)
                if size >= _BATCH_BYTES:
                    break
            rows.close()
            return found

        return self._run(work)

    def drop_poison(self, ids: Sequence[int] | None = None) -> int:
        """Delete entries set aside, all of them without `ids`. Returns their number."""

        def work() -> int:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                if ids is None:
                    dropped = self._db.execute("DELETE FROM poison").rowcount
                else:
                    dropped = self._db.executemany("DELETE FROM poison WHERE id = ?", [(one,) for one in ids]).rowcount
                shrink(self._db, _SPARE_PAGES, _SHRINK_PAGES)
            self._poisoned -= dropped
            return dropped

        return self._run(work)

    def erase(self, call_sid: str) -> Erased:
        """Delete every row that names a call, and overwrite what the file had of it."""

        def work() -> Erased:
            named = (call_sid.encode(),)  # bodies are bytes; a SID is ASCII and part of them unchanged
            self._db.execute("PRAGMA secure_delete=ON")
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    entries = self._db.execute("DELETE FROM entries WHERE instr(body, ?)", named).rowcount
                    poison = self._db.execute("DELETE FROM poison WHERE instr(body, ?)", named).rowcount
                    claims = self._db.execute("DELETE FROM claims WHERE call_sid = ?", (call_sid,)).rowcount
                    jobs = table.erase(self._db, call_sid)
                    shrink(self._db, 0, _SHRINK_PAGES)  # other events of the call may have been there before
            finally:
                self._db.execute("PRAGMA secure_delete=OFF")
            self._removed += entries
            self._backlog -= entries
            self._poisoned -= poison
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return Erased(entries, poison, claims, jobs)

        return self._run(work)

    # -- claims made while the store is away ---------------------------------------------------------------------------

    def claims(self) -> list[HeldClaim]:
        """Return every stored claim, oldest first."""
        columns = ", ".join(HeldClaim._fields)
        return self._run(lambda: [HeldClaim(*row) for row in self._db.execute(f"SELECT {columns} FROM claims ORDER BY at")])

    def keep_claim(self, claim: HeldClaim) -> None:
        """Store a claim. It survives a crash of the machine once this returns."""
        self._run(lambda: self._db.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", claim))

    def note_claim(self, call_sid: str, recording_sid: str) -> None:
        """Add the recording made under a claim, if the claim is still stored."""
        self._run(lambda: self._db.execute("UPDATE claims SET recording_sid = ? WHERE call_sid = ?", (recording_sid, call_sid)))

    def drop_claims(self, call_sids: Sequence[str]) -> None:
        """Delete claims that the store has."""

        def work() -> None:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("DELETE FROM claims WHERE call_sid = ?", [(call_sid,) for call_sid in call_sids])

        self._run(work)

    def close(self) -> None:
        """Close the file. Later calls raise SpoolError, except `close`."""
        if self._thread.closed:
            return
        try:
            self._run(self._db.close)
        finally:
            self._thread.close()

    def corrupt_files(self) -> int:
        """Return the number of corrupt files beside the spool. Reads the directory."""
        return sum(
            1 for path in self._path.parent.glob(f"{self._path.name}.corrupt-*") if not path.name.endswith(("-wal", "-shm"))
        )

    def _report_replaced(self) -> None:
        log.critical(
            "the spool %s is corrupt: it was renamed to %s.corrupt-*, and its events are not in the store; an empty one is used",
            self._path,
            self._path.name,
        )

    def _failed(self, error: Exception) -> SpoolError:
        """Return the error for people, with its remedy if there is one."""
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_full = number in _DISK or getattr(error, "errno", 0) in _NO_SPACE
        remedy = "free some of the disk of ops.var_dir" if is_full else _REMEDIES.get(number, "")
        return SpoolError(f"the spool {self._path} failed: {text_of(error)}{f'; {remedy}' if remedy else ''}")

    # -- in the spool's thread -----------------------------------------------------------------------------------------

    def _open_or_replace(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.Error as error:
            if not _is_corrupt(error):
                raise
            return self._replace()

    def _replace(self) -> sqlite3.Connection:
        """Rename the file and its side files, and open an empty one with new ids: the forwarder may still remove the old."""
        now_ms = time.time_ns() // 1_000_000
        aside = f"{self._path}.corrupt-{now_ms}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        self._removed += self._backlog  # none of them will come
        self._backlog = 0
        self.was_replaced = True
        db = self._open()
        db.execute("INSERT INTO sqlite_sequence VALUES ('entries', ?)", (now_ms,))  # the next entry's id is above it
        return db

    def _reopen(self, failed: sqlite3.Connection) -> bool:
        """Replace the corrupt file; after a failed try, open whatever is there. Returns False if another operation has done so.

        `failed`: the connection whose operation failed.
        """
        if self._db is not failed:
            return False
        was_open, self._is_open = self._is_open, False
        self._db.close()
        self._db = self._replace() if was_open else self._open_or_replace()
        self._is_open = True
        return True

    def _open(self) -> sqlite3.Connection:
        db = open_sqlite(self._path, _BUSY_S)
        try:
            db.executescript(_SCHEMA + table.SCHEMA)
            db.execute(
                "DELETE FROM instances WHERE heard_at < ? AND instance NOT IN (SELECT instance FROM entries)",
                (time.time() - _INSTANCE_DAYS * _DAY_S,),
            )
            _let_shrink(db)
            (self._backlog,) = db.execute("SELECT count(*) FROM entries").fetchone()
            (self._poisoned,) = db.execute("SELECT count(*) FROM poison").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def _last(self, instance: str) -> int:
        row = self._db.execute("SELECT last FROM instances WHERE instance = ?", (instance,)).fetchone()
        return int(row[0]) if row else 0

    def _append(
        self, instance: str, items: Sequence[tuple[int, bytes]], worker: int, jobs: Mapping[int, Sequence[table.Wanted]]
    ) -> list[Job]:
        now = time.time()
        accepted: list[Job] = []
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            last = self._last(instance)
            bodies = {n: body for n, body in items if n > last}
            new = sorted(bodies.keys() | {n for n in jobs if n > last})
            fresh = [(instance, n, worker, bodies[n]) for n in new if n in bodies]
            if new:
                self._db.executemany("INSERT INTO entries (instance, n, worker, body) VALUES (?, ?, ?, ?)", fresh)
                for n in new:
                    accepted += table.insert(self._db, jobs.get(n, ()), now)
                self._db.execute(
                    "INSERT INTO instances (instance, last, heard_at) VALUES (?, ?, ?)"
                    " ON CONFLICT (instance) DO UPDATE SET last = excluded.last, heard_at = excluded.heard_at",
                    (instance, new[-1], now),
                )
        self._backlog += len(fresh)
        return accepted

    def _run(self, work: Callable[[], T]) -> T:
        used = self._db

        def act() -> T:
            nonlocal used
            used = self._db  # another operation may replace the file before this one's turn
            return work()

        try:
            try:
                return self._thread.run(act)
            except sqlite3.Error as error:
                if self._is_open and not _is_corrupt(error):
                    raise
                if self._thread.run(lambda: self._reopen(used)):
                    self._report_replaced()
                    self.on_replaced()
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error


def _let_shrink(db: sqlite3.Connection) -> None:
    """Rewrite a file of an earlier version, once, so that it can shrink."""
    (mode,) = db.execute("PRAGMA auto_vacuum").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    if not mode and pages * page_bytes < _REWRITE_BYTES:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # the mode that VACUUM writes
        db.execute("VACUUM")


def _is_corrupt(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT
