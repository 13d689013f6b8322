"""What the commands show: rows as plain dictionaries, times as epoch seconds, every list with a limit. Never writes."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, func, select

from gw.control.store import tables
from gw.control.store.recordings import SETTLED
from gw.control.store.tables import calls, recordings

#: No list is longer, whatever is asked for.
MAX_ROWS: Final = 10_000
#: Turns and events shown of one call.
MAX_PARTS: Final = 2_000

Shown = dict[str, Any]


def list_calls(connection: Connection, limit: int, open_only: bool) -> list[Shown]:
    """Newest first, each with its `recording_state`."""
    joined = calls.outerjoin(recordings, recordings.c.call_sid == calls.c.call_sid)
    statement = select(*_columns(calls), recordings.c.state.label("recording_state")).select_from(joined)
    if open_only:
        statement = statement.where(calls.c.ended_at.is_(None))
    return _rows(connection, statement.order_by(calls.c.started_at.desc(), calls.c.id.desc()).limit(_bounded(limit)))


def one_call(connection: Connection, call_sid: str) -> Shown | None:
    """A call with `quality`, `recording`, `turns` and `events`; None where nothing is known of it."""
    call = _first(connection, select(*_columns(calls)).where(calls.c.call_sid == call_sid))
    if call is None:
        return None
    quality = tables.call_quality
    columns = [column for column in _columns(quality) if column.name != "call_sid"]
    call["quality"] = _first(connection, select(*columns).where(quality.c.call_sid == call_sid))
    call["recording"] = one_recording(connection, call_sid)
    call["turns"] = list_turns(connection, call_sid)
    call["events"] = list_events(connection, call_sid)
    return call


def list_turns(connection: Connection, call_sid: str) -> list[Shown]:
    """In the order they were spoken."""
    turns = tables.turns
    spoken = select(*_columns(turns)).where(turns.c.call_sid == call_sid).order_by(turns.c.start_ms, turns.c.n)
    return _rows(connection, spoken.limit(MAX_PARTS))


def list_events(connection: Connection, call_sid: str) -> list[Shown]:
    """In the order they happened."""
    events = tables.events
    by_time = select(*_columns(events)).where(events.c.call_sid == call_sid).order_by(events.c.at, events.c.n)
    return _rows(connection, by_time.limit(MAX_PARTS))


def list_events_of_kind(connection: Connection, kind: str, limit: int) -> list[Shown]:
    """Newest first, of every call and of none: a stream that was refused belongs to no call."""
    events = tables.events
    newest = select(*_columns(events)).where(events.c.kind == kind).order_by(events.c.id.desc())
    return _rows(connection, newest.limit(_bounded(limit)))


def list_open_calls(connection: Connection, host: str) -> list[Shown]:
    """The calls of a host that did not end, oldest first. A call that came back on another host is that one's."""
    events = tables.events
    came_back = select(events.c.host).where(events.c.call_sid == calls.c.call_sid, events.c.kind == "resumed")
    last_host = came_back.order_by(events.c.at.desc()).limit(1).scalar_subquery()
    statement = select(*_columns(calls)).where(calls.c.ended_at.is_(None), func.coalesce(last_host, calls.c.host) == host)
    return _rows(connection, statement.order_by(calls.c.id).limit(MAX_ROWS))


def list_open_calls_told_of(connection: Connection) -> list[tuple[str, Shown]]:
    """Of calls that did not end: what status webhooks said of them."""
    events = tables.events
    joined = calls.join(events, events.c.call_sid == calls.c.call_sid)
    statement = select(calls.c.call_sid, events.c.data).select_from(joined)
    told = statement.where(calls.c.ended_at.is_(None), events.c.kind == "webhook_status").order_by(events.c.id.desc())
    return [(call_sid, data) for call_sid, data in connection.execute(told.limit(MAX_ROWS))]


def one_recording(connection: Connection, call_sid: str) -> Shown | None:
    """A call's recording; None where none was wanted."""
    return _first(connection, select(*_columns(recordings)).where(recordings.c.call_sid == call_sid))


def list_recordings(connection: Connection, limit: int, state: str | None) -> list[Shown]:
    """Newest first."""
    statement = select(*_columns(recordings))
    if state is not None:
        statement = statement.where(recordings.c.state == state)
    return _rows(connection, statement.order_by(recordings.c.id.desc()).limit(_bounded(limit)))


def list_unsettled(connection: Connection) -> list[Shown]:
    """Those somebody still has to see to, oldest first."""
    statement = select(*_columns(recordings)).where(recordings.c.state.not_in(sorted(SETTLED)))
    return _rows(connection, statement.order_by(recordings.c.id).limit(MAX_ROWS))


def _columns(table: Table) -> list[Any]:
    return [column for column in table.c if column.name != "id"]


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_ROWS))


def _rows(connection: Connection, statement: Select[Any]) -> list[Shown]:
    return [_plain(row) for row in connection.execute(statement)]


def _first(connection: Connection, statement: Select[Any]) -> Shown | None:
    row = connection.execute(statement).first()
    return None if row is None else _plain(row)


def _plain(row: Row[Any]) -> Shown:
    return dict(row._mapping)
