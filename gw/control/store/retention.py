"""Removes calls from the store: old ones page by page, or one of them. Leases admit one gateway at a time.

A page is one transaction over a bounded number of calls, found by an index on their end. What is left of a call goes with it:
turns, quality, usage, recording, events. A call without an end or with an unsettled recording stays, and so does one whose
recording still has to be downloaded or to be deleted at Twilio.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Column, Connection, and_, delete, or_, select

from gw.control.rows import RecordingRow, RowState
from gw.control.store import tables
from gw.control.store.reads import PAGE, columns_of
from gw.control.store.recordings import SETTLED
from gw.control.store.sqlite_file import shrink
from gw.control.store.tables import calls, dial_lists, dials, events, leases, recordings

#: Pages of an SQLite file that a transaction returns to the file system.
SHRINK_PAGES: Final = 2_000
#: Tables with rows of a call, in the sequence of their removal: an interrupted removal leaves the call to be found again.
_PARTS: Final = (tables.turns, tables.call_quality, tables.call_usage, recordings, events, calls)

#: A place in a list by time: the time and the id of a row.
Place = tuple[float, int]


class Policy(NamedTuple):
    """Acts on a completed recording that precede the removal of its call."""

    fetches: bool = False
    deletes: bool = False


class Page(NamedTuple):
    """Number of removed rows, and where the next page begins: None after the last."""

    removed: int
    after: Place | None


class Forgotten(NamedTuple):
    """Number of rows removed from each table, and the removed row of the recording."""

    rows: dict[str, int]
    recording: RecordingRow | None


def may_remove(state: RowState | None, policy: Policy, *, fetched: bool, deleted: bool) -> bool:
    """Return whether an ended call may be removed. `state`, `fetched`, `deleted`: those of its recording."""
    if state is None:
        return True
    if state != "completed" or deleted:
        return state in SETTLED
    return not policy.deletes and (fetched or not policy.fetches)


def purge_calls(connection: Connection, before: float, limit: int, policy: Policy, after: Place | None, *, dry_run: bool) -> Page:
    """Remove the calls of one page that ended before an epoch time. `dry_run`: count them instead."""
    kept = (recordings.c.state, recordings.c.fetched_at, recordings.c.deleted_at)
    joined = calls.outerjoin(recordings, recordings.c.call_sid == calls.c.call_sid)
    statement = select(calls.c.ended_at, calls.c.id, calls.c.call_sid, *kept).select_from(joined)
    page = connection.execute(_page(statement, calls.c.ended_at, calls.c.id, before, limit, after)).all()
    chosen = [
        call_sid
        for _, _, call_sid, state, fetched_at, deleted_at in page
        if may_remove(state, policy, fetched=fetched_at is not None, deleted=deleted_at is not None)
    ]
    if chosen and not dry_run:
        for table in _PARTS:
            connection.execute(delete(table).where(table.c.call_sid.in_(chosen)))
        _shrink(connection)
    return Page(len(chosen), (page[-1][0], page[-1][1]) if len(page) == limit else None)


def purge_events(connection: Connection, before: float, limit: int, after: Place | None) -> Page:
    """Remove the events of one page that are old and belong to no stored call."""
    joined = events.outerjoin(calls, calls.c.call_sid == events.c.call_sid)
    statement = select(events.c.at, events.c.id, calls.c.id).select_from(joined)
    page = connection.execute(_page(statement, events.c.at, events.c.id, before, limit, after)).all()
    chosen = [number for _, number, call in page if call is None]
    if chosen:
        connection.execute(delete(events).where(events.c.id.in_(chosen)))
        _shrink(connection)
    return Page(len(chosen), (page[-1][0], page[-1][1]) if len(page) == limit else None)


def purge_dials(connection: Connection, before: float, limit: int) -> int:
    """Remove a list that is older than an epoch time, or some of its lines. Returns the number of lines removed."""
    old = select(dial_lists.c.list_id).where(dial_lists.c.created_at < before).order_by(dial_lists.c.created_at).limit(1)
    list_id = connection.execute(old).scalar()
    if list_id is None:
        return 0
    lines = list(connection.execute(select(dials.c.id).where(dials.c.list_id == list_id).limit(limit)).scalars())
    connection.execute(delete(dials).where(dials.c.id.in_(lines)))
    if len(lines) < limit:
        connection.execute(delete(dial_lists).where(dial_lists.c.list_id == list_id))
    _shrink(connection)
    return max(1, len(lines))


def forget(connection: Connection, call_sid: str) -> Forgotten:
    """Remove everything about a call.

    The recording's row is locked first: another gateway's update of it is in the returned row, or finds no row.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")  # of this connection; overwrites what is removed
    recording = select(*columns_of(recordings)).where(recordings.c.call_sid == call_sid)
    found = connection.execute(recording.with_for_update()).first()
    removed = {table.name: connection.execute(delete(table).where(table.c.call_sid == call_sid)).rowcount for table in _PARTS}
    of_call = dials.update().where(dials.c.call_sid == call_sid)
    connection.execute(of_call.values(to_number="", variables={}, state="done"))  # the line stays, and is not dialled again
    _shrink(connection)
    return Forgotten(removed, None if found is None else RecordingRow(**found._mapping))


def list_to_fetch(connection: Connection, account_sid: str, limit: int, after: str) -> list[RecordingRow]:
    """Return an account's completed recordings without a downloaded file, oldest first. `after`: a call SID."""
    missing = (recordings.c.fetched_at.is_(None), recordings.c.deleted_at.is_(None))
    of_account = recordings.c.account_sid == account_sid
    statement = select(*columns_of(recordings)).where(recordings.c.state == "completed", of_account, *missing)
    return _recordings(connection, statement, limit, after)


def list_to_delete(
    connection: Connection, account_sid: str, before: float, limit: int, after: str, *, fetched: bool
) -> list[RecordingRow]:
    """Return an account's completed recordings that Twilio still has, oldest first.

    `after`: a call SID. `fetched`: only with a file.
    """
    statement = select(*columns_of(recordings)).where(
        recordings.c.state == "completed",
        recordings.c.account_sid == account_sid,
        recordings.c.deleted_at.is_(None),
        recordings.c.started_at < before,
    )
    if fetched:
        statement = statement.where(recordings.c.fetched_at.is_not(None))
    return _recordings(connection, statement, limit, after)


def take_lease(connection: Connection, name: str, owner: str, now: float, until: float) -> bool:
    """Take or renew a lease. False while another owner has it. Violates the unique key if two take a new one."""
    free = or_(leases.c.owner == owner, leases.c.until < now)
    taken = leases.update().where(leases.c.name == name, free).values(owner=owner, until=until)
    if connection.execute(taken).rowcount == 1:
        return True
    if connection.execute(select(leases.c.name).where(leases.c.name == name)).first() is None:
        connection.execute(leases.insert(), {"name": name, "owner": owner, "until": until})
        return True
    return False


def release_lease(connection: Connection, name: str, owner: str) -> None:
    """Let another owner take the lease now."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.owner == owner))


def _page(statement: Any, at: Column[float], number: Column[int], before: float, limit: int, after: Place | None) -> Any:
    """The statement for rows with `at` before a time and beyond a place, in the sequence of the index on `at`."""
    statement = statement.where(at < before).order_by(at, number).limit(limit)
    if after is not None:
        statement = statement.where(at >= after[0], or_(at > after[0], and_(at == after[0], number > after[1])))
    return statement


def _recordings(connection: Connection, statement: Any, limit: int, after: str) -> list[RecordingRow]:
    """Return one page, after the recording of a call SID. Empty if that recording was removed: the next pass begins anew."""
    if after:
        place = select(recordings.c.id).where(recordings.c.call_sid == after).scalar_subquery()
        statement = statement.where(recordings.c.id > place)
    return [
        RecordingRow(**row._mapping) for row in connection.execute(statement.order_by(recordings.c.id).limit(min(limit, PAGE)))
    ]


def _shrink(connection: Connection) -> None:
    """Return free pages of an SQLite file to the file system: a bounded number."""
    if connection.dialect.name == "sqlite":
        shrink(cast("sqlite3.Connection", connection.connection.dbapi_connection), 0, SHRINK_PAGES)
