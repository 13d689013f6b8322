"""Turns events into rows: any order and any repetition of the same events leave the same rows.

A batch is one transaction. Every event first becomes a bounded row of its table; then each table takes its rows in one upsert in
which the first value of a column stays and later ones only fill gaps (COALESCE). The end of a call is the exception: the latest
wins, but an end that leaves the caller on the line (`gw.call.resume.RESUMABLE`) never replaces one after which no stream follows:
it is an older stream's. A caller who leaves a transfer ends the call after its last stream. Twilio's `stop` is the same for a
caller who hangs up and for a call that an operator of another gateway transferred or ended: the operator's event decides.
Webhooks become rows of `events` only; the recorder decides their effect on recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Table,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    true,
)
from sqlalchemy.dialects import mysql, sqlite

from gw import bus
from gw.call.cost.usage import KINDS, Used
from gw.call.quality import Quality
from gw.call.resume import RESUMABLE
from gw.call.state import BY_OPERATOR, Reason, result_of
from gw.control.rows import HUNG_UP, TRANSFERRED, CallRow, EventRow, QualityRow, Scalar, TurnRow, UsageRow
from gw.control.store import tables
from gw.control.store.tables import DAY_CHARS, DETAIL_CHARS, NUMBER_CHARS, SID_CHARS, TEXT_CHARS, calls
from gw.control.store.values import Fit


class Stamped(NamedTuple):
    """An event with its origin. (instance, n) identifies it."""

    event: bus.Event
    host: str
    worker: int
    instance: str
    n: int
    gateway: str = ""


class Wish(NamedTuple):
    """A row of `recordings` before its claim."""

    call_sid: str
    account_sid: str | None
    first_audio_at: float
    state: str = "wanted"
    attempts: int = 0


class End(NamedTuple):
    """The end of a call: the parameters of `_END`, named unlike its columns. `final`: no stream follows."""

    sid: str
    at: float
    final: bool
    why: str
    whose: str
    text: str


class Resumed(NamedTuple):
    """Another stream of a call: the parameters of `_RESUMED`."""

    sid: str
    at: float


class CallQuality(QualityRow, frozen=True, kw_only=True):
    """A row of `call_quality`."""

    call_sid: str


_HUNG_UP: Final = "an operator hung up"
#: Reason and detail of a call on which an operator acted, by the kind of the event. The first that is found decides.
_ACTS: Final = {TRANSFERRED: (Reason.TRANSFERRED, BY_OPERATOR), HUNG_UP: (Reason.ADMIN_HANGUP, _HUNG_UP)}

_KIND_WITHOUT_CALL: Final[dict[type[Any], str]] = {
    bus.CallStarted: "call_started",
    bus.FirstAudio: "first_audio",
    bus.StartRecording: "start_recording",
    bus.Turn: "turn",
    bus.CallEnded: "call_ended",
    bus.Usage: "usage",
}


class Rows:
    """The rows of a batch of events, table by table. Every value fits its column."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.calls: list[CallRow] = []
        self.ends: list[End] = []
        self.resumed: list[Resumed] = []
        self.acted: list[str] = []  # calls that an operator transferred or ended
        self.turns: list[TurnRow] = []
        self.recordings: list[Wish] = []
        self.quality: list[CallQuality] = []
        self.usage: list[UsageRow] = []
        self.events: list[EventRow] = []

    def add(self, stamped: Stamped) -> None:
        """Add the rows of one event."""
        match stamped.event:
            case bus.Webhook() as webhook:
                call_sid = webhook.fields.get("CallSid", "")
                self._event(stamped, call_sid, f"webhook_{webhook.kind}", webhook.at, webhook.fields)
            case bus.CallEvent() as event:
                self._event(stamped, event.call_sid, event.kind, event.at, event.data)
                if event.kind == "transfer_ended" and event.data.get("status") == "canceled":
                    self._left(stamped, event)
                if event.kind == "resumed":
                    self._call(stamped, event.call_sid)  # locked before its end is
                    self.resumed.append(Resumed(self.fit.text(event.call_sid, SID_CHARS), self.fit.moment(event.at)))
                if event.kind in _ACTS:
                    self._acted(event)
            case bus.JobWanted():
                pass  # a row of the spool, which has no place in the store
            case event if not event.call_sid:
                self._without_call(stamped, event)
            case bus.CallStarted() as event:
                self._started(stamped, event)
            case bus.FirstAudio() as event:
                self._call(stamped, event.call_sid, first_audio_at=self.fit.moment(event.at))
            case bus.StartRecording() as event:
                account_sid = self.fit.word(event.account_sid, SID_CHARS)
                wish = Wish(self.fit.text(event.call_sid, SID_CHARS), account_sid, self.fit.moment(event.first_audio_at))
                self.recordings.append(wish)
            case bus.Turn() as event:
                self._turn(event)
            case bus.CallEnded() as event:
                self._ended(stamped, event)
            case bus.Usage() as event:
                self._used(event.call_sid, event.stream_sid, event.used)

    def _call(self, stamped: Stamped, call_sid: str, **facts: Any) -> None:
        self.calls.append(
            CallRow(
                call_sid=self.fit.text(call_sid, SID_CHARS),
                host=self.fit.word(stamped.host, NUMBER_CHARS),
                gateway=self.fit.word(stamped.gateway, SID_CHARS),
                worker=stamped.worker if stamped.worker >= 0 else None,
                instance=self.fit.word(stamped.instance, SID_CHARS),
                **facts,
            )
        )

    def _started(self, stamped: Stamped, event: bus.CallStarted) -> None:
        self._call(
            stamped,
            event.call_sid,
            stream_sid=self.fit.word(event.stream_sid, SID_CHARS),
            account_sid=self.fit.word(event.account_sid, SID_CHARS),
            agent=self.fit.word(event.agent, SID_CHARS),
            direction=self.fit.word(event.direction, SID_CHARS),
            from_number=self.fit.word(event.from_number, NUMBER_CHARS),
            to_number=self.fit.word(event.to_number, NUMBER_CHARS),
            started_at=self.fit.moment(event.started_at),
            answered_at=self.fit.moment(event.answered_at),
        )

    def _turn(self, event: bus.Turn) -> None:
        self.turns.append(
            TurnRow(
                call_sid=self.fit.text(event.call_sid, SID_CHARS),
                n=self.fit.integer(event.n),
                role=self.fit.text(event.role, SID_CHARS),
                text=self.fit.text(event.text, TEXT_CHARS),
                item_id=self.fit.word(event.item_id, NUMBER_CHARS),
                start_ms=self.fit.integer(event.start_ms),
                interrupted=event.interrupted,
                heard_ms=None if event.heard_ms is None else self.fit.integer(event.heard_ms),
            )
        )

    def _ended(self, stamped: Stamped, event: bus.CallEnded) -> None:
        self._call(stamped, event.call_sid)
        self.ends.append(
            End(
                self.fit.text(event.call_sid, SID_CHARS),
                self.fit.moment(event.ended_at),
                event.reason not in RESUMABLE,
                self.fit.text(event.reason, SID_CHARS),
                self.fit.text(event.result, SID_CHARS),
                self.fit.text(event.detail, DETAIL_CHARS),
            )
        )
        self._used(event.call_sid, event.stream_sid, event.used)
        if event.reason not in (Reason.WORKER_LOST, Reason.NO_STREAM):  # they measured nothing
            self.quality.append(self._quality(event.call_sid, event.quality))

    def _left(self, stamped: Stamped, event: bus.CallEvent) -> None:
        """End the call of a caller who left a transfer: its stream ended as transferred."""
        self._call(stamped, event.call_sid)
        reason, target = Reason.CALLER_HANGUP, event.data.get("target") or "the callee"
        text = self.fit.text(f"the caller hung up before the transfer to {target} was connected", DETAIL_CHARS)
        self.ends.append(
            End(self.fit.text(event.call_sid, SID_CHARS), self.fit.moment(event.at), True, reason, result_of(reason), text)
        )

    def _acted(self, event: bus.CallEvent) -> None:
        """Note an operator's act. The row of the call, another gateway's perhaps, is locked before its end is.

        A call without a row gets one for this, which `apply` deletes.
        """
        call_sid = self.fit.text(event.call_sid, SID_CHARS)
        self.calls.append(CallRow(call_sid=call_sid))
        self.acted.append(call_sid)

    def _quality(self, call_sid: str, quality: Quality) -> CallQuality:
        values: dict[str, Any] = {}
        for name, value in asdict(quality).items():
            if isinstance(value, dict):
                values[name] = self.fit.data(value)
            elif isinstance(value, int):
                values[name] = self.fit.measured_int(value)
            else:
                values[name] = self.fit.measured(value)
        return CallQuality(call_sid=self.fit.text(call_sid, SID_CHARS), **values)

    def _used(self, call_sid: str, stream_sid: str, used: Iterable[Used]) -> None:
        for one in used:
            self.usage.append(
                UsageRow(
                    call_sid=self.fit.text(call_sid, SID_CHARS),
                    stream_sid=self.fit.text(stream_sid, SID_CHARS),
                    day=self.fit.text(one.day, DAY_CHARS),
                    model=self.fit.text(one.model, SID_CHARS),
                    cost_usd=None if one.cost_usd is None else self.fit.measured(one.cost_usd),
                    **{kind: max(0, self.fit.big(getattr(one, kind))) for kind in KINDS},
                )
            )

    def _event(self, stamped: Stamped, call_sid: str, kind: str, at: float, data: Mapping[str, Scalar]) -> None:
        self.events.append(
            EventRow(
                call_sid=self.fit.word(call_sid, SID_CHARS),
                kind=self.fit.text(kind, SID_CHARS),
                at=self.fit.moment(at),
                data=self.fit.data(data),
                host=self.fit.word(stamped.host, NUMBER_CHARS),
                gateway=self.fit.word(stamped.gateway, SID_CHARS),
                worker=stamped.worker if stamped.worker >= 0 else None,
                instance=self.fit.text(stamped.instance, SID_CHARS),
                n=self.fit.big(stamped.n),
            )
        )

    def _without_call(
        self,
        stamped: Stamped,
        event: bus.CallStarted | bus.FirstAudio | bus.StartRecording | bus.Turn | bus.CallEnded | bus.Usage,
    ) -> None:
        """Store an event without a call SID (the end of a refused stream) as a row of `events` only."""
        values = asdict(event)
        times = [value for name, value in values.items() if name == "at" or name.endswith("_at")]
        plain = {name: value for name, value in values.items() if value is None or isinstance(value, str | int | float)}
        self._event(stamped, "", _KIND_WITHOUT_CALL[type(event)], times[0] if times else 0.0, plain)


def apply(connection: Connection, rows: Rows) -> None:
    """Write a batch. Rows are written by key, so that two writers wait for each other instead of deadlocking."""
    merge(connection, calls, ("call_sid",), map(asdict, rows.calls))
    merge(connection, tables.events, ("instance", "n"), map(asdict, rows.events))  # an end looks for one
    if rows.ends:
        connection.execute(_END, [end._asdict() for end in sorted(rows.ends)])
    if rows.resumed:
        connection.execute(_RESUMED, [one._asdict() for one in sorted(rows.resumed)])
    if rows.acted:
        acted = [{"sid": call_sid} for call_sid in sorted(rows.acted)]
        connection.execute(_ACTED, acted)
        connection.execute(_UNKNOWN, acted)
    merge(connection, tables.turns, ("call_sid", "n"), map(asdict, rows.turns))
    merge(connection, tables.recordings, ("call_sid",), [wish._asdict() for wish in rows.recordings])
    merge(connection, tables.call_quality, ("call_sid",), map(asdict, rows.quality))
    if rows.usage:
        usage = sorted(rows.usage, key=lambda row: (row.call_sid, row.stream_sid, row.day, row.model))
        connection.execute(grow_statement(connection.dialect.name), [asdict(row) for row in usage])


def _resumable() -> ColumnElement[bool]:
    return calls.c.reason.in_([literal(str(reason)) for reason in sorted(RESUMABLE)])  # executemany takes no list


def _end() -> Update:
    """Return the end of a call. The end of a stream that another has followed changes nothing."""
    final: ColumnElement[bool] = bindparam("final")
    at: ColumnElement[float] = bindparam("at")
    resumable, events = _resumable(), tables.events
    later = calls.c.ended_at < at
    follows = exists().where(events.c.call_sid == bindparam("sid"), events.c.kind == "resumed", events.c.at >= at)
    supersedes = or_(and_(final, or_(resumable, later)), and_(resumable, later))
    is_hangup = literal(Reason.CALLER_HANGUP.value) == bindparam("why")
    reason, detail = _by_acts(is_hangup, bindparam("why"), bindparam("text"))
    return (
        calls.update()
        .where(calls.c.call_sid == bindparam("sid"), or_(calls.c.ended_at.is_(None), supersedes), or_(final, not_(follows)))
        .values(ended_at=at, reason=reason, result=bindparam("whose"), detail=detail)
    )


def _acted() -> Update:
    """Return the same for a call that has ended before the operator's event came."""
    is_open = or_(calls.c.reason == Reason.CALLER_HANGUP.value, calls.c.detail == _HUNG_UP)  # a transfer may still follow
    reason, detail = _by_acts(true(), calls.c.reason, calls.c.detail)
    return calls.update().where(calls.c.call_sid == bindparam("sid"), is_open).values(reason=reason, detail=detail)


def _resumed() -> Update:
    """Return the removal of the end that a stream left before another one began: the call continues."""
    has_ended = and_(_resumable(), calls.c.ended_at < bindparam("at"))
    nothing: dict[str, Any] = dict.fromkeys(("ended_at", "reason", "result", "detail"))
    return calls.update().where(calls.c.call_sid == bindparam("sid"), has_ended).values(nothing)


def _by_acts(is_hangup: ColumnElement[bool], why: Any, text: Any) -> tuple[ColumnElement[str], ColumnElement[str]]:
    """Return the reason and the detail of an end: those of the operator's act, if there was one, for a caller's hang-up."""
    kind, sid = tables.events.c.kind, tables.events.c.call_sid
    found = [(and_(is_hangup, exists().where(sid == bindparam("sid"), kind == act)), by) for act, by in _ACTS.items()]
    return (
        case(*((acted, reason.value) for acted, (reason, _) in found), else_=why),
        case(*((acted, detail) for acted, (_, detail) in found), else_=text),
    )


_END: Final = _end()
_RESUMED: Final = _resumed()
_ACTED: Final = _acted()
#: An open row of no gateway would be taken for an abandoned call.
_UNKNOWN: Final = calls.delete().where(calls.c.call_sid == bindparam("sid"), calls.c.instance.is_(None))


def grow_statement(dialect: str) -> Insert:
    """Return the upsert of usage: it only grows, so of two reports the greater values are the later ones."""
    table, names = tables.call_usage, (*KINDS, "cost_usd")
    if dialect == "mysql":
        into = mysql.insert(table)
        return into.on_duplicate_key_update({name: _greater(table.c[name], into.inserted[name], func.greatest) for name in names})
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(
        index_elements=["call_sid", "stream_sid", "day", "model"],
        set_={name: _greater(table.c[name], lite.excluded[name], func.max) for name in names},
    )


def _greater(old: ColumnElement[Any], new: ColumnElement[Any], choose: Callable[..., ColumnElement[Any]]) -> ColumnElement[Any]:
    """The greater of two values; the other one where one is NULL."""
    return func.coalesce(choose(old, new), old, new)


def merge(connection: Connection, table: Table, key: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Insert new rows, and fill the gaps of existing ones. All rows have the same columns."""
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in key))
    if not ordered:
        return
    connection.execute(merge_statement(table, key, list(ordered[0]), connection.dialect.name), ordered)


def merge_statement(table: Table, key: Sequence[str], columns: Sequence[str], dialect: str) -> Insert:
    """Return the upsert of rows with these columns, in the dialect `mysql` or `sqlite`."""
    gaps = [name for name in columns if name not in key]
    if dialect == "mysql":
        into = mysql.insert(table)
        return into.on_duplicate_key_update({name: func.coalesce(table.c[name], into.inserted[name]) for name in gaps})
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(
        index_elements=list(key), set_={name: func.coalesce(table.c[name], lite.excluded[name]) for name in gaps}
    )
