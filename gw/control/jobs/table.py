"""The table of jobs in the spool's file. Each function is part of a transaction, in the spool's thread.

A row changes only from the state and attempt that its change was decided for: a change repeated after a commit of unknown outcome
has no second effect. The decisions are `lifecycle`'s.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import Job

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, call_sid TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
    next_at REAL NOT NULL, deadline_at REAL NOT NULL, body TEXT NOT NULL, outcome TEXT NOT NULL, result TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (kind, next_at) WHERE state = 'wanted';
CREATE INDEX IF NOT EXISTS jobs_late ON jobs (deadline_at) WHERE state = 'wanted';
CREATE INDEX IF NOT EXISTS jobs_claimed ON jobs (id) WHERE state = 'claimed';
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (at) WHERE state IN ('wanted', 'claimed');
CREATE INDEX IF NOT EXISTS jobs_requests ON jobs (at)
    WHERE state IN ('wanted', 'claimed') AND kind NOT IN ('leave', 'dial', 'pause', 'resume');
CREATE INDEX IF NOT EXISTS jobs_settled ON jobs (next_at) WHERE state NOT IN ('wanted', 'claimed');
CREATE INDEX IF NOT EXISTS jobs_left ON jobs (next_at) WHERE state NOT IN ('wanted', 'claimed') AND kind = 'leave';
CREATE INDEX IF NOT EXISTS jobs_passing ON jobs (next_at) WHERE state NOT IN ('wanted', 'claimed') AND kind != 'leave'
    AND NOT (state IN ('failed', 'expired') AND kind >= 'event' AND kind < 'evenu');
CREATE INDEX IF NOT EXISTS jobs_call ON jobs (call_sid, kind);
CREATE INDEX IF NOT EXISTS jobs_dead ON jobs (next_at)
    WHERE state IN ('failed', 'expired') AND kind >= 'event' AND kind < 'evenu';
CREATE TABLE IF NOT EXISTS stopped_endpoints (kind TEXT PRIMARY KEY, at REAL NOT NULL);
"""
_COLUMNS: Final = ", ".join(Job.__struct_fields__)
_PLACES: Final = ", ".join("?" for _ in Job.__struct_fields__)
_OPEN: Final = "state IN ('wanted', 'claimed')"
_SETTLED: Final = "state NOT IN ('wanted', 'claimed')"
_DEAD: Final = "state IN ('failed', 'expired') AND kind >= 'event' AND kind < 'evenu'"
#: Settled jobs of calls that left their stream, and those that are neither these nor events that were not delivered.
_LEFT: Final = f"{_SETTLED} AND kind = 'leave'"
_PASSING: Final = f"{_SETTLED} AND kind != 'leave' AND NOT ({_DEAD})"
#: Requests to the user's endpoints without a result. The other kinds are requests to Twilio.
_TO_ENDPOINTS: Final = f"{_OPEN} AND kind NOT IN ('leave', 'dial', 'pause', 'resume')"
#: Jobs that expire in one transaction: some milliseconds, 40 ms if they are events with bodies of 100 KB.
_LATE: Final = 100
#: Settled jobs removed in one transaction. Most have short bodies.
_REMOVED: Final = 1000
#: The same of events that were not delivered: 35 ms with bodies of 100 KB.
_DEAD_REMOVED: Final = 100
#: Events that were not delivered, read in one transaction: 10 ms.
_DEAD_READ: Final = 5000


class Wanted(NamedTuple):
    """A new job. It is refused if `capacity` jobs of its kind wait."""

    job: Job
    capacity: int


class Kept(NamedTuple):
    """Limits on settled jobs: age and number."""

    seconds: float
    most: int


class Pruned(NamedTuple):
    """Removed events that were not delivered. `lost`: before their time; `more`: whether others may have to follow."""

    lost: int
    more: bool


class Dead(NamedTuple):
    """The place of an event that was not delivered: when it was given up, and its row, which is its place in the sequence."""

    next_at: float
    row: int
    id: str
    kind: str


class Change(NamedTuple):
    """A job before and after a decision."""

    before: Job
    after: Job


class Turn(NamedTuple):
    """Results of one turn. `unsent`: settled jobs whose results may not have been sent.

    `next_at`: when the next is due, infinite without a waiting job; `open`, `oldest_at`: of the requests to endpoints.
    """

    claimed: list[Job]
    expired: list[Job]
    unsent: list[Job]
    next_at: float
    open: int
    oldest_at: float


def insert(db: sqlite3.Connection, wanted: Sequence[Wanted], now: float) -> list[Job]:
    """Add jobs, and return their rows. A known id keeps its row; beyond the capacity a job is settled."""
    accepted: list[Job] = []
    for job, capacity in wanted:
        if known := find(db, (job.id,)):
            accepted += known
            continue
        if job.state == "wanted" and _waiting(db, job.kind, capacity) >= capacity:
            job = lifecycle.on_full(job, now)
        if job.is_event and job.is_open and _is_behind(db, job):
            job = lifecycle.on_behind(job)
        db.execute(f"INSERT INTO jobs ({_COLUMNS}) VALUES ({_PLACES})", _row(job))
        accepted.append(job)
    return accepted


def renew(db: sqlite3.Connection, wanted: Wanted, now: float) -> list[Job]:
    """Add a job in the place of a settled one with its id. An open one stays."""
    db.execute(f"DELETE FROM jobs WHERE id = ? AND {_SETTLED}", (wanted.job.id,))
    return insert(db, [wanted], now)


def turn(
    db: sqlite3.Connection,
    ended: Iterable[Change],
    free: Mapping[str, int],
    now: float,
    *,
    running: Mapping[str, int] | None = None,
    since: float = math.inf,
) -> Turn:
    """Write ended attempts, let late jobs expire, claim due jobs for free runners.

    `running`: attempts under way in this process, by id, after a commit of unknown outcome: any other claim was not sent.
    `since`: the time of that commit.
    """
    unsent: list[Job] = []
    if running is not None:
        for job in _claimed(db):
            if running.get(job.id) != job.attempts:
                change(db, Change(job, lifecycle.on_unsent(job)))
        unsent = _select(db, f"WHERE {_SETTLED} AND next_at >= ? ORDER BY next_at LIMIT ?", since, _REMOVED)
    for one in ended:
        change(db, one)
    late = _select(db, "WHERE state = 'wanted' AND deadline_at < ? ORDER BY deadline_at LIMIT ?", now, _LATE)
    expired = [lifecycle.on_due(job, now) for job in late]
    for before, after in zip(late, expired, strict=True):
        change(db, Change(before, after))
    claimed: list[Job] = []
    next_at = now if len(late) == _LATE else _least(db, "deadline_at", "state = 'wanted'")
    for kind, runners in free.items():
        if runners <= 0:
            continue  # a runner that ends begins the next turn
        where = "WHERE kind = ? AND state = 'wanted' AND next_at <= ? ORDER BY next_at, rowid LIMIT ?"
        for job in _select(db, where, kind, now, runners):
            claimed.append(lifecycle.on_due(job, now))
            change(db, Change(job, claimed[-1]))
        next_at = min(next_at, _least(db, "next_at", "kind = ? AND state = 'wanted' AND next_at > ?", kind, now))
    (count,) = db.execute(f"SELECT count(*) FROM jobs WHERE {_TO_ENDPOINTS}").fetchone()
    return Turn(claimed, expired, unsent, next_at, count, _least(db, "at", _TO_ENDPOINTS))


def recover(db: sqlite3.Connection, decide: Callable[[Job], Job]) -> list[Job]:
    """Decide on each job that an earlier process left claimed. Returns the jobs afterwards."""
    found = _claimed(db)
    resumed = [decide(job) for job in found]
    for before, after in zip(found, resumed, strict=True):
        change(db, Change(before, after))
    return resumed


def change(db: sqlite3.Connection, one: Change) -> bool:
    """Write a decision. Returns False if the row is in another state, or gone."""
    fields = ", ".join(f"{name} = ?" for name in Job.__struct_fields__)
    where = "WHERE id = ? AND state = ? AND attempts = ?"
    values = (*_row(one.after), one.before.id, one.before.state, one.before.attempts)
    changed = db.execute(f"UPDATE jobs SET {fields} {where}", values).rowcount == 1
    if changed and one.after.is_event and not one.after.is_open:
        following = "SELECT min(rowid) FROM jobs WHERE call_sid = ? AND kind = ? AND state = 'wanted'"
        due = f"UPDATE jobs SET next_at = ? WHERE rowid = ({following}) AND next_at = ?"
        db.execute(due, (one.after.next_at, one.after.call_sid, one.after.kind, lifecycle.BEHIND))
    return changed


def find(db: sqlite3.Connection, ids: Sequence[str]) -> list[Job]:
    """Return the jobs with these ids; unknown ids are left out."""
    return [job for job_id in ids for job in _select(db, "WHERE id = ?", job_id)]


def find_of_call(db: sqlite3.Connection, call_sid: str, kind: str) -> list[Job]:
    """Return the jobs of a call and a kind, the newest first."""
    return _select(db, "WHERE call_sid = ? AND kind = ? ORDER BY rowid DESC LIMIT ?", call_sid, kind, _REMOVED)


def tools_of(db: sqlite3.Connection, call_sid: str, limit: int) -> list[Job]:
    """Return the tool calls of a telephone call, oldest first."""
    tools = "WHERE call_sid = ? AND kind >= 'tool' AND kind < 'toom' ORDER BY rowid LIMIT ?"
    return _select(db, tools, call_sid, limit)


def prune(db: sqlite3.Connection, now: float, *, passing: Kept, left: Kept, dead: Kept) -> Pruned:
    """Remove some of the settled jobs that are too old or too many.

    `left`: wishes of calls that left their stream; `dead`: events that were not delivered; `passing`: all others.
    """
    _remove(db, _PASSING, passing, now, _REMOVED)
    _remove(db, _LEFT, left, now, _REMOVED)
    old, lost = _remove(db, _DEAD, dead, now, _DEAD_REMOVED)
    return Pruned(lost, more=_DEAD_REMOVED in (old, lost))


def list_pauses(db: sqlite3.Connection) -> list[Job]:
    """Return the pauses of recordings that no settled job has ended."""
    resume = f"SELECT 1 FROM jobs AS r WHERE r.id = replace(jobs.id, '/pause/', '/resume/') AND r.{_SETTLED}"
    return _select(db, f"WHERE kind = 'pause' AND NOT EXISTS ({resume}) ORDER BY rowid")


def list_events(db: sqlite3.Connection, limit: int, *, dead: bool) -> list[Job]:
    """Return the events that wait, oldest first, or those that were not delivered, newest first."""
    if dead:
        return _select(db, f"WHERE {_DEAD} ORDER BY next_at DESC LIMIT ?", limit)
    return _select(db, f"WHERE {_OPEN} AND kind >= 'event' AND kind < 'evenu' ORDER BY at LIMIT ?", limit)


def dead_after(db: sqlite3.Connection, before: Dead | None) -> list[Dead]:
    """Return the events that were not delivered, and given up after another: some, in that order. Empty: there is no other."""
    next_at, row = (0.0, 0) if before is None else (before.next_at, before.row)
    following = f"WHERE {_DEAD} AND (next_at, rowid) > (?, ?) ORDER BY next_at, rowid LIMIT ?"
    return _dead(db, following, next_at, row, _DEAD_READ)


def dead_of(db: sqlite3.Connection, ids: Sequence[str]) -> list[Dead]:
    """Return those of some events that were not delivered."""
    return [one for job_id in ids for one in _dead(db, f"WHERE id = ? AND {_DEAD}", job_id)]


def retry(db: sqlite3.Connection, ids: Sequence[str], now: float, deadline_of: Callable[[Job], float]) -> int:
    """Want events that were not delivered once more, in the sequence of `ids`. Their endpoints receive events again.

    Returns: their number.
    """
    chosen = [job for job in find(db, ids) if job.is_dead]
    for job in chosen:
        again = lifecycle.on_retry(job, now, deadline_at=deadline_of(job))
        change(db, Change(job, lifecycle.on_behind(again) if _is_behind(db, job) else again))
    db.executemany("DELETE FROM stopped_endpoints WHERE kind = ?", {(job.kind,) for job in chosen})
    return len(chosen)


def resume_all(db: sqlite3.Connection) -> None:
    """Let every endpoint receive events again."""
    db.execute("DELETE FROM stopped_endpoints")


def stop(db: sqlite3.Connection, kind: str, now: float) -> None:
    """Record that an endpoint receives no more events. `kind`: of its jobs."""
    db.execute("INSERT OR IGNORE INTO stopped_endpoints VALUES (?, ?)", (kind, now))


def stopped(db: sqlite3.Connection) -> dict[str, float]:
    """Return the kinds of jobs of endpoints that receive no more events, and since when."""
    return dict(db.execute("SELECT kind, at FROM stopped_endpoints").fetchall())


def drop(db: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Remove events that were not delivered. Returns their number."""
    return sum(db.execute(f"DELETE FROM jobs WHERE id = ? AND {_DEAD}", (one,)).rowcount for one in ids)


def purge(db: sqlite3.Connection, before: float) -> int:
    """Remove the settled jobs of calls older than an epoch time. Returns their number."""
    return db.execute(f"DELETE FROM jobs WHERE {_SETTLED} AND at < ?", (before,)).rowcount


def erase(db: sqlite3.Connection, call_sid: str) -> int:
    """Remove the jobs of a call. Returns their number."""
    return db.execute("DELETE FROM jobs WHERE call_sid = ?", (call_sid,)).rowcount


def _remove(db: sqlite3.Connection, which: str, kept: Kept, now: float, most: int) -> tuple[int, int]:
    """Remove jobs that are too old, and others that are too many. Returns both numbers, each at most `most`."""
    settled = f"SELECT rowid FROM jobs WHERE {which}"
    old = f"DELETE FROM jobs WHERE rowid IN ({settled} AND next_at < ? ORDER BY next_at LIMIT ?)"
    surplus = f"DELETE FROM jobs WHERE rowid IN ({settled} ORDER BY next_at DESC LIMIT ? OFFSET ?)"
    return db.execute(old, (now - kept.seconds, most)).rowcount, db.execute(surplus, (most, kept.most)).rowcount


def _dead(db: sqlite3.Connection, where: str, *values: object) -> list[Dead]:
    return [Dead(*row) for row in db.execute(f"SELECT next_at, rowid, id, kind FROM jobs {where}", values)]


def _claimed(db: sqlite3.Connection) -> list[Job]:
    return _select(db, "WHERE state = 'claimed'")


def _is_behind(db: sqlite3.Connection, event: Job) -> bool:
    """Return whether an earlier event of the call for the same endpoint is open."""
    before = f"SELECT 1 FROM jobs WHERE call_sid = ? AND kind = ? AND {_OPEN} LIMIT 1"
    return db.execute(before, (event.call_sid, event.kind)).fetchone() is not None


def _waiting(db: sqlite3.Connection, kind: str, most: int) -> int:
    """Return the number of waiting jobs of a kind, at most `most`."""
    waiting = "SELECT 1 FROM jobs WHERE kind = ? AND state = 'wanted' LIMIT ?"
    (count,) = db.execute(f"SELECT count(*) FROM ({waiting})", (kind, most)).fetchone()
    return int(count)


def _least(db: sqlite3.Connection, column: str, where: str, *values: object) -> float:
    (least,) = db.execute(f"SELECT min({column}) FROM jobs WHERE {where}", values).fetchone()
    return math.inf if least is None else float(least)


def _select(db: sqlite3.Connection, where: str, *values: object) -> list[Job]:
    return [Job(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()]


def _row(job: Job) -> tuple[object, ...]:
    return tuple(getattr(job, name) for name in Job.__struct_fields__)
