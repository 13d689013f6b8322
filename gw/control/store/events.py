"""Turns events into rows: a batch in one transaction, any order, any number of times, always the same rows.

Strategy: every event first becomes a row of its table, pure and bounded; then each table takes its rows in one upsert in which
the first to state a fact is right and later ones only fill gaps (COALESCE), so nothing erases what is known. The end of a call is
the exception: the latest real end wins, and `worker_lost`, which control can only infer, yields to any real one. Webhooks become
rows of `events` and nothing else: what they mean for a recording is the recorder's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Insert, Table, Update, and_, bindparam, func, literal, or_
from sqlalchemy.dialects import mysql, sqlite

from gw import bus
from gw.call.quality import Quality
from gw.call.state import Reason
from gw.control.rows import Scalar
from gw.control.store import tables
from gw.control.store.tables import DETAIL_CHARS, NUMBER_CHARS, SID_CHARS, TEXT_CHARS, calls
from gw.control.store.values import Fit

Row = dict[str, Any]


class Stamped(NamedTuple):
    """An event with where it came from and its number there: (instance, n) is what makes it itself."""

    event: bus.Event
    host: str
    worker: int
    instance: str
    n: int


_CALL_FACTS: Final = tuple(
    column.name for column in calls.c if column.name not in {"id", "ended_at", "reason", "result", "detail"}
)
_KIND_OF_STRAY: Final[dict[type[Any], str]] = {
    bus.CallStarted: "call_started",
    bus.FirstAudio: "first_audio",
    bus.StartRecording: "start_recording",
    bus.Turn: "turn",
    bus.CallEnded: "call_ended",
}


class Rows:
    """What a batch of events says, table by table."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.calls: list[Row] = []
        self.ends: list[Row] = []
        self.turns: list[Row] = []
        self.recordings: list[Row] = []
        self.quality: list[Row] = []
        self.events: list[Row] = []

    def add(self, stamped: Stamped) -> None:
        """Take one event in."""
        match stamped.event:
            case bus.Webhook() as webhook:
                call_sid = webhook.fields.get("CallSid", "")
                self._event(stamped, call_sid, f"webhook_{webhook.kind}", webhook.at, webhook.fields)
            case bus.CallEvent() as event:
                self._event(stamped, event.call_sid, event.kind, event.at, event.data)
            case event if not event.call_sid:
                self._stray(stamped, event)
            case bus.CallStarted() as event:
                self._started(stamped, event)
            case bus.FirstAudio() as event:
                self._call(stamped, event.call_sid, first_audio_at=self.fit.moment(event.at))
            case bus.StartRecording() as event:
                self._wanted(event)
            case bus.Turn() as event:
                self._turn(event)
            case bus.CallEnded() as event:
                self._ended(stamped, event)

    def _call(self, stamped: Stamped, call_sid: str, **facts: object) -> None:
        row: Row = dict.fromkeys(_CALL_FACTS)
        row |= {
            "call_sid": self.fit.text(call_sid, SID_CHARS),
            "host": self.fit.word(stamped.host, NUMBER_CHARS),
            "worker": stamped.worker if stamped.worker >= 0 else None,
            "instance": self.fit.word(stamped.instance, SID_CHARS),
        }
        self.calls.append(row | facts)

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

    def _wanted(self, event: bus.StartRecording) -> None:
        self.recordings.append(
            {
                "call_sid": self.fit.text(event.call_sid, SID_CHARS),
                "account_sid": self.fit.word(event.account_sid, SID_CHARS),
                "first_audio_at": self.fit.moment(event.first_audio_at),
                "state": "wanted",
                "attempts": 0,
            }
        )

    def _turn(self, event: bus.Turn) -> None:
        self.turns.append(
            {
                "call_sid": self.fit.text(event.call_sid, SID_CHARS),
                "n": self.fit.integer(event.n),
                "role": self.fit.text(event.role, SID_CHARS),
                "text": self.fit.text(event.text, TEXT_CHARS),
                "item_id": self.fit.word(event.item_id, NUMBER_CHARS),
                "start_ms": self.fit.integer(event.start_ms),
                "interrupted": event.interrupted,
                "heard_ms": None if event.heard_ms is None else self.fit.integer(event.heard_ms),
            }
        )

    def _ended(self, stamped: Stamped, event: bus.CallEnded) -> None:
        self._call(stamped, event.call_sid)
        real = event.reason != Reason.WORKER_LOST
        self.ends.append(
            {
                "sid": self.fit.text(event.call_sid, SID_CHARS),
                "at": self.fit.moment(event.ended_at),
                "real": real,
                "why": self.fit.text(event.reason, SID_CHARS),
                "whose": self.fit.text(event.result, SID_CHARS),
                "words": self.fit.text(event.detail, DETAIL_CHARS),
            }
        )
        if real:  # nobody measured a call whose worker was lost
            self.quality.append(self._measured(event.call_sid, event.quality))

    def _measured(self, call_sid: str, quality: Quality) -> Row:
        row: Row = {"call_sid": self.fit.text(call_sid, SID_CHARS)}
        for name in quality.__struct_fields__:
            value = getattr(quality, name)
            if isinstance(value, dict):
                row[name] = self.fit.data(value)
            elif isinstance(value, int):
                row[name] = self.fit.measured_int(value)
            else:
                row[name] = self.fit.measured(value)
        return row

    def _event(self, stamped: Stamped, call_sid: str, kind: str, at: float, data: Mapping[str, Scalar]) -> None:
        self.events.append(
            {
                "call_sid": self.fit.word(call_sid, SID_CHARS),
                "kind": self.fit.text(kind, SID_CHARS),
                "at": self.fit.moment(at),
                "data": self.fit.data(data),
                "host": self.fit.word(stamped.host, NUMBER_CHARS),
                "worker": stamped.worker if stamped.worker >= 0 else None,
                "instance": self.fit.text(stamped.instance, SID_CHARS),
                "n": self.fit.big(stamped.n),
            }
        )

    def _stray(
        self, stamped: Stamped, event: bus.CallStarted | bus.FirstAudio | bus.StartRecording | bus.Turn | bus.CallEnded
    ) -> None:
        """An event of a call that never had a SID, a refused stream's end say: kept, but it makes no call."""
        values = {name: getattr(event, name) for name in event.__struct_fields__}
        times = [value for name, value in values.items() if name == "at" or name.endswith("_at")]
        plain = {name: value for name, value in values.items() if value is None or isinstance(value, str | int | float)}
        self._event(stamped, "", _KIND_OF_STRAY[type(event)], times[0] if times else 0.0, plain)


def apply(connection: Connection, rows: Rows) -> None:
    """Write a batch. Rows go in the order of their keys, so that two writers wait for each other instead of deadlocking."""
    merge(connection, calls, ("call_sid",), rows.calls)
    if rows.ends:
        connection.execute(_END, sorted(rows.ends, key=lambda end: (end["sid"], end["at"])))
    merge(connection, tables.turns, ("call_sid", "n"), rows.turns)
    merge(connection, tables.recordings, ("call_sid",), rows.recordings)
    merge(connection, tables.call_quality, ("call_sid",), rows.quality)
    merge(connection, tables.events, ("instance", "n"), rows.events)


def _end() -> Update:
    supersedes = or_(calls.c.reason == literal(str(Reason.WORKER_LOST)), calls.c.ended_at < bindparam("at"))
    return (
        calls.update()
        .where(
            calls.c.call_sid == bindparam("sid"),
            or_(calls.c.ended_at.is_(None), and_(bindparam("real"), supersedes)),
        )
        .values(
            ended_at=bindparam("at"),
            reason=bindparam("why"),
            result=bindparam("whose"),
            detail=bindparam("words"),
        )
    )


_END: Final = _end()


def merge(connection: Connection, table: Table, key: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert what is new, fill the gaps of what is there."""
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in key))
    if not ordered:
        return
    connection.execute(merge_statement(table, key, list(ordered[0]), connection.dialect.name), ordered)


def merge_statement(table: Table, key: Sequence[str], columns: Sequence[str], dialect: str) -> Insert:
    """The upsert of rows with these columns, in the words of either database."""
    gaps = [name for name in columns if name not in key]
    if dialect == "mysql":
        into = mysql.insert(table)
        return into.on_duplicate_key_update({name: func.coalesce(table.c[name], into.inserted[name]) for name in gaps})
    lite = sqlite.insert(table)
    return lite.on_conflict_do_update(
        index_elements=list(key), set_={name: func.coalesce(table.c[name], lite.excluded[name]) for name in gaps}
    )
