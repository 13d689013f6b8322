"""Reads rows of the store; every list has a limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, literal, not_, or_, select

from gw.call.cost.usage import total
from gw.control.rows import (
    OPERATOR,
    CallDetails,
    CallEnd,
    CallFilter,
    CallRow,
    EventRow,
    ListedCall,
    QualityRow,
    RecordingRow,
    RowState,
    Scalar,
    TurnRow,
    UsageRow,
)
from gw.control.store import tables
from gw.control.store.recordings import SETTLED, STATES
from gw.control.store.tables import Moment, calls, recordings

T = TypeVar("T", bound=msgspec.Struct)

#: A recording with the id of its row, for the page after it.
Numbered = tuple[int, RecordingRow]

#: Upper bound on any list, whatever limit the caller passes.
MAX_ROWS: Final = 10_000
#: Recordings in one page of unsettled ones: some milliseconds of work.
PAGE: Final = 500
#: Upper bound on the overdue recordings of a gateway.
MAX_OVERDUE: Final = 100_000
#: Turns and events read of one call.
MAX_PARTS: Final = 2_000


def list_calls(connection: Connection, limit: int, open_only: bool, which: CallFilter) -> list[ListedCall]:
    """Return calls that meet the filter: newest first, or longest gaps in the audio first."""
    quality = tables.call_quality
    joined = calls.outerjoin(recordings, recordings.c.call_sid == calls.c.call_sid)
    joined = joined.outerjoin(quality, quality.c.call_sid == calls.c.call_sid)
    usage = tables.call_usage
    cost = select(func.round(func.sum(usage.c.cost_usd), 6)).where(usage.c.call_sid == calls.c.call_sid).scalar_subquery()
    more = (
        recordings.c.state.label("recording_state"),
        quality.c.underrun_ms,
        quality.c.lateness_p999_s,
        cost.label("cost_usd"),
    )
    statement = select(*columns_of(calls), *more).select_from(joined)
    if open_only:
        statement = statement.where(calls.c.ended_at.is_(None))
    if which.since is not None:
        statement = statement.where(calls.c.started_at >= which.since)
    for column, value in ((calls.c.agent, which.agent), (calls.c.host, which.machine), (calls.c.reason, which.reason)):
        if value is not None:
            statement = statement.where(column == value)
    if which.number is not None:
        statement = statement.where(or_(calls.c.from_number == which.number, calls.c.to_number == which.number))
    order = [calls.c.started_at.desc(), calls.c.id.desc()]
    if which.worst:
        statement = statement.where(quality.c.id.is_not(None))
        order = [quality.c.underrun_ms.desc(), quality.c.lateness_p999_s.desc(), *order]
    return _rows(connection, statement.order_by(*order).limit(_bounded(limit)), ListedCall)


def one_call(connection: Connection, call_sid: str) -> CallDetails | None:
    """Return a call with its quality, recording, turns and events; None for an unknown SID."""
    row = connection.execute(select(*columns_of(calls)).where(calls.c.call_sid == call_sid)).first()
    if row is None:
        return None
    quality = tables.call_quality
    columns = [column for column in columns_of(quality) if column.name != "call_sid"]
    used = list_usage(connection, call_sid)
    tokens, cost_usd = total(used)
    return CallDetails(
        **row._mapping,
        quality=_first(connection, select(*columns).where(quality.c.call_sid == call_sid), QualityRow),
        recording=one_recording(connection, call_sid),
        turns=list_turns(connection, call_sid),
        events=list_events(connection, call_sid),
        usage=tokens._asdict(),
        cost_usd=cost_usd,
        used=used,
    )


def list_usage(connection: Connection, call_sid: str) -> list[UsageRow]:
    """Return a call's usage by stream, day and model."""
    usage = tables.call_usage
    statement = select(*columns_of(usage)).where(usage.c.call_sid == call_sid).order_by(usage.c.id)
    return _rows(connection, statement.limit(MAX_PARTS), UsageRow)


def spent_on(connection: Connection, day: str) -> float:
    """Return the cost of a day in USD: of all calls in the store."""
    usage = tables.call_usage
    return float(connection.execute(select(func.sum(usage.c.cost_usd)).where(usage.c.day == day)).scalar() or 0.0)


def spent_by_callers(connection: Connection, day: str, limit: int) -> dict[str, float]:
    """Return the cost of a day's inbound calls in USD, by the caller's number: of those that spent most."""
    usage = tables.call_usage
    cost = func.sum(usage.c.cost_usd)
    statement = select(calls.c.from_number, cost).select_from(usage.join(calls, calls.c.call_sid == usage.c.call_sid))
    statement = statement.where(usage.c.day == day, calls.c.direction == "inbound", calls.c.from_number.is_not(None))
    statement = statement.group_by(calls.c.from_number).order_by(cost.desc()).limit(_bounded(limit))
    return {number: float(spent or 0.0) for number, spent in connection.execute(statement)}


def list_turns(connection: Connection, call_sid: str) -> list[TurnRow]:
    """Return a call's turns in spoken order."""
    turns = tables.turns
    spoken = select(*columns_of(turns)).where(turns.c.call_sid == call_sid).order_by(turns.c.start_ms, turns.c.n)
    return _rows(connection, spoken.limit(MAX_PARTS), TurnRow)


def list_events(connection: Connection, call_sid: str) -> list[EventRow]:
    """Return a call's events by time."""
    events = tables.events
    by_time = select(*columns_of(events)).where(events.c.call_sid == call_sid).order_by(events.c.at, events.c.n)
    return _rows(connection, by_time.limit(MAX_PARTS), EventRow)


def list_acts(connection: Connection, limit: int, since: float | None) -> list[EventRow]:
    """Return the acts of operators, newest first."""
    events = tables.events
    statement = select(*columns_of(events)).where(events.c.kind == OPERATOR)
    if since is not None:
        statement = statement.where(events.c.at >= since)
    return _rows(connection, statement.order_by(events.c.at.desc(), events.c.id.desc()).limit(_bounded(limit)), EventRow)


def gateway_of_call() -> ColumnElement[str | None]:
    """The gateway that owns a row of `calls`: the last one that resumed the call, or the first."""
    events = tables.events
    resumed_by = select(events.c.gateway).where(events.c.call_sid == calls.c.call_sid, events.c.kind == "resumed")
    return func.coalesce(resumed_by.order_by(events.c.at.desc()).limit(1).scalar_subquery(), calls.c.gateway)


def list_open_calls(connection: Connection, gateway: str) -> list[CallRow]:
    """Return a gateway's calls without an end, oldest first."""
    statement = select(*columns_of(calls)).where(calls.c.ended_at.is_(None), gateway_of_call() == gateway)
    return _rows(connection, statement.order_by(calls.c.id).limit(MAX_ROWS), CallRow)


def list_ends(connection: Connection, call_sids: Sequence[str]) -> dict[str, CallEnd]:
    """Return the ends of these calls, by SID. Unknown calls are missing."""
    columns = (calls.c.call_sid, calls.c.account_sid, calls.c.ended_at, gateway_of_call().label("gateway"))
    statement = select(*columns).where(calls.c.call_sid.in_(call_sids))
    return {row.call_sid: row for row in _rows(connection, statement.limit(MAX_ROWS), CallEnd)}


def account_of(connection: Connection, call_sid: str) -> str | None:
    """Return the SID of a call's Twilio account; None for an unknown call."""
    return connection.execute(select(calls.c.account_sid).where(calls.c.call_sid == call_sid)).scalar()


def list_statuses_of_open_calls(connection: Connection) -> list[tuple[str, dict[str, Scalar]]]:
    """Return the status callbacks of calls without an end, newest first: call SID and form."""
    events = tables.events
    joined = calls.join(events, events.c.call_sid == calls.c.call_sid)
    statement = select(calls.c.call_sid, events.c.data).select_from(joined)
    statuses = statement.where(calls.c.ended_at.is_(None), events.c.kind == "webhook_status").order_by(events.c.id.desc())
    return [(call_sid, data) for call_sid, data in connection.execute(statuses.limit(MAX_ROWS))]


def one_recording(connection: Connection, call_sid: str) -> RecordingRow | None:
    """Return a call's recording; None where none was asked for."""
    return _first(connection, select(*columns_of(recordings)).where(recordings.c.call_sid == call_sid), RecordingRow)


def list_recordings(connection: Connection, limit: int, state: str | None) -> list[RecordingRow]:
    """Return recordings, newest first."""
    statement = select(*columns_of(recordings))
    if state is not None:
        statement = statement.where(recordings.c.state == state)
    return _rows(connection, statement.order_by(recordings.c.id.desc()).limit(_bounded(limit)), RecordingRow)


def list_unstarted(connection: Connection, state: RowState, below: int | None) -> list[Numbered]:
    """Return a page of recordings in `state`, with their ids, newest first. `below`: the last id of the page before."""
    statement = select(recordings.c.id, *columns_of(recordings)).where(recordings.c.state == state)
    if below is not None:
        statement = statement.where(recordings.c.id < below)
    return _numbered(connection, statement.order_by(recordings.c.id.desc()))


def list_started(connection: Connection, claimant: str, *, own: bool, before: float | None, above: int) -> list[Numbered]:
    """Return a page of recordings in state `started`, with their ids, oldest first.

    `own`: those of this gateway, otherwise those of all others. `before`: only those that started before this epoch time, or at
    an unknown one. `above`: the last id of the page before.
    """
    owner, started_at = recordings.c.owner, recordings.c.started_at
    number = recordings.c.id + 0  # an index by id would read the calls alive on every host
    started = recordings.c.state == "started"
    statement = select(recordings.c.id, *columns_of(recordings)).where(number > above)
    statement = statement.where(_owned_by(claimant) if own else or_(owner.is_(None), not_(_owned_by(claimant))))
    if before is None or own:
        statement = statement.where(started)
    if before is not None:  # the state in both parts: an index by state alone would read those calls too
        statement = statement.where(or_(and_(started, started_at < before), and_(started, started_at.is_(None))))
    return _numbered(connection, statement.order_by(number))


def list_overdue(connection: Connection, claimant: str, before: float) -> list[str]:
    """Return the calls whose unclaimed or own recording is unsettled since `before`, epoch time."""
    # not the claim, which every try renews
    since = func.coalesce(recordings.c.started_at, recordings.c.first_audio_at, recordings.c.claimed_at)
    unsettled = recordings.c.state.in_([state for state in STATES if state not in SETTLED])
    ours = or_(recordings.c.owner.is_(None), _owned_by(claimant))
    statement = select(recordings.c.call_sid).where(unsettled, ours, or_(since < literal(before, Moment()), since.is_(None)))
    return list(connection.execute(statement.limit(MAX_OVERDUE)).scalars())


def _owned_by(claimant: str) -> ColumnElement[bool]:
    """Condition of a row owned by `claimant`: a range of the index, as owners are `CLAIMANT/PROCESS` and compared by bytes."""
    return and_(recordings.c.owner >= f"{claimant}/", recordings.c.owner < f"{claimant}0")  # 0 follows / in ASCII


def _numbered(connection: Connection, statement: Select[Any]) -> list[Numbered]:
    found = connection.execute(statement.limit(PAGE))
    return [(number, RecordingRow(**dict(zip(RecordingRow.__struct_fields__, values, strict=True)))) for number, *values in found]


def columns_of(table: Table) -> list[Any]:
    """Return a table's columns without its id: the fields of its row."""
    return [column for column in table.c if column.name != "id"]


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_ROWS))


def _rows(connection: Connection, statement: Select[Any], kind: type[T]) -> list[T]:
    return [_typed(row, kind) for row in connection.execute(statement)]


def _first(connection: Connection, statement: Select[Any], kind: type[T]) -> T | None:
    row = connection.execute(statement).first()
    return None if row is None else _typed(row, kind)


def _typed(row: Row[Any], kind: type[T]) -> T:
    return kind(**row._mapping)
