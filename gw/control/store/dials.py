"""Lists of numbers to dial, line by line: one claimant for each dial, by a conditional update.

A line moves from `waiting` to `claimed` before Twilio is asked, and its `attempts` count that dial: the database lets exactly one
claimant succeed, across greenlets, processes and hosts. Every later change names the attempt that it belongs to, so that a late
or repeated report of an earlier dial changes nothing. Sends nothing to Twilio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, func, or_, select

from gw.control.rows import DialListRow, DialRow, DialState
from gw.control.store.events import merge
from gw.control.store.reads import columns_of
from gw.control.store.tables import DETAIL_CHARS, SID_CHARS, dial_lists, dials
from gw.control.store.values import Fit

T = TypeVar("T")

#: States of a dial under way.
UNDER_WAY: Final[tuple[DialState, ...]] = ("claimed", "placed")


class Progress(NamedTuple):
    """Progress of a list. `counts`: lines by state, done ones by their result. `next_at`: of the next dial; None without one."""

    counts: dict[str, int]
    next_at: float | None


class Backend(Protocol):
    """Runs transactions."""

    def read(self, work: Callable[[Connection], T]) -> T: ...

    def write(self, work: Callable[[Connection], T]) -> T: ...


class Dials:
    """The lists. Every method is one transaction, and raises StoreError, of an outage StoreUnavailable."""

    def __init__(self, backend: Backend, fit: Fit) -> None:
        self._backend = backend
        self._fit = fit

    # -- lists ---------------------------------------------------------------------------------------------------------

    def open_list(self, row: DialListRow) -> DialListRow:
        """Insert a list, unless it is there. Returns the row that is there now."""

        def work(connection: Connection) -> DialListRow:
            merge(connection, dial_lists, ("list_id",), [_values(row)])
            return DialListRow(**connection.execute(_of_list(row.list_id)).one()._mapping)

        return self._backend.write(work)

    def one_list(self, list_id: str) -> DialListRow | None:
        """Return a list; None if it is unknown."""
        found = self._backend.read(lambda c: c.execute(_of_list(list_id)).first())
        return None if found is None else DialListRow(**found._mapping)

    def add(self, rows: Sequence[DialRow]) -> None:
        """Insert lines of a list; an existing line is unchanged."""

        def work(connection: Connection) -> None:
            named = (dials.c.list_id == rows[0].list_id, dials.c.n.in_([row.n for row in rows]))
            known = set(connection.execute(select(dials.c.n).where(*named)).scalars())
            if fresh := [_values(row) for row in rows if row.n not in known]:
                connection.execute(dials.insert(), fresh)

        if rows:
            self._backend.write(work)

    def progress(self, list_id: str) -> Progress:
        """Return how far a list is."""
        word = func.coalesce(dials.c.result, "")
        columns = dials.c.state, word, func.count(), func.min(dials.c.next_at)
        statement = select(*columns).where(dials.c.list_id == list_id).group_by(dials.c.state, word)
        counts: dict[str, int] = {}
        next_at = None
        for state, result, number, at in self._backend.read(lambda c: c.execute(statement).all()):
            key = result if state == "done" and result else state
            counts[key] = counts.get(key, 0) + number
            if state == "waiting":
                next_at = at if next_at is None else min(next_at, at)
        return Progress(counts, next_at)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def under_way(self) -> int:
        """Return the number of dials of all lists that are under way."""
        statement = select(func.count()).where(dials.c.state.in_(UNDER_WAY))
        return self._backend.read(lambda c: int(c.execute(statement).scalar_one()))

    def due(self, list_id: str, now: float, limit: int) -> list[DialRow]:
        """Return waiting lines of a list whose time has come, longest due first."""
        mine = (dials.c.state == "waiting", dials.c.list_id == list_id, dials.c.next_at <= now)
        return self._rows(select(*columns_of(dials)).where(*mine).order_by(dials.c.next_at, dials.c.n).limit(limit))

    def one(self, list_id: str, n: int) -> DialRow | None:
        """Return a line; None if it is unknown."""
        found = self._rows(select(*columns_of(dials)).where(dials.c.list_id == list_id, dials.c.n == n))
        return found[0] if found else None

    def in_state(self, state: DialState, before: float, limit: int) -> list[DialRow]:
        """Return lines in a state whose dial was claimed before an epoch time, oldest first."""
        statement = select(*columns_of(dials)).where(dials.c.state == state, dials.c.claimed_at < before)
        return self._rows(statement.order_by(dials.c.claimed_at, dials.c.id).limit(limit))

    def page(self, list_id: str, *, after: int, limit: int) -> list[DialRow]:
        """Return lines of a list beyond a line, in sequence."""
        statement = select(*columns_of(dials)).where(dials.c.list_id == list_id, dials.c.n > after)
        return self._rows(statement.order_by(dials.c.n).limit(limit))

    def ended(self, list_id: str, *, since: float, limit: int) -> list[DialRow]:
        """Return lines whose latest dial ended at an epoch time or since, in sequence."""
        statement = select(*columns_of(dials)).where(dials.c.list_id == list_id, dials.c.ended_at >= since)
        return self._rows(statement.order_by(dials.c.ended_at, dials.c.n).limit(limit))

    def has_call(self, call_sid: str) -> bool:
        """Return whether the latest dial of a line made this call."""
        statement = select(dials.c.id).where(dials.c.call_sid == call_sid).limit(1)
        return self._backend.read(lambda c: c.execute(statement).first() is not None)

    # -- one dial ------------------------------------------------------------------------------------------------------

    def claim(self, list_id: str, n: int, attempt: int, job: str, now: float) -> bool:
        """Claim the dial number `attempt` of a line. True for one of concurrent callers."""
        anew: dict[str, Any] = {"state": "claimed", "attempts": attempt, "claim": job, "claimed_at": now}
        cleared = dict.fromkeys(("call_sid", "answered_by", "result", "detail", "ended_at"))
        return self._change(list_id, n, attempt - 1, ("waiting",), anew | cleared)

    def release(self, list_id: str, n: int, attempt: int) -> bool:
        """Let a claimed line wait again whose request was not sent."""
        return self._change(list_id, n, attempt, ("claimed",), {"state": "waiting", "attempts": attempt - 1})

    def defer(self, list_id: str, n: int, attempts: int, until: float) -> bool:
        """Let a waiting line wait until an epoch time."""
        return self._change(list_id, n, attempts, ("waiting",), {"next_at": until})

    def place(self, list_id: str, n: int, attempt: int, call_sid: str) -> bool:
        """Note the call of a dial. False if Twilio's report of its end came before."""
        values = {"state": "placed", "call_sid": self._fit.text(call_sid, SID_CHARS), "result": None, "ended_at": None}
        return self._change(list_id, n, attempt, ("claimed", "unknown"), values)

    def note_verdict(self, list_id: str, n: int, attempt: int, answered_by: str) -> bool:
        """Note who answered, unless that is known already."""
        unsaid = or_(dials.c.answered_by.is_(None), dials.c.answered_by == "unknown")
        return self._change(list_id, n, attempt, None, {"answered_by": self._fit.text(answered_by, SID_CHARS)}, unsaid)

    def end(self, row: DialRow) -> bool:
        """Write the end of a dial that is under way, or whose outcome was unknown. `row`: the line after it."""
        names = ("state", "next_at", "call_sid", "result", "ended_at")
        values = {name: getattr(row, name) for name in names}
        values["detail"] = None if row.detail is None else self._fit.text(row.detail, DETAIL_CHARS)
        return self._change(row.list_id, row.n, row.attempts, (*UNDER_WAY, "unknown"), values)

    def wait_again(self, list_id: str, now: float) -> int:
        """Let the lines of a list wait whose request Twilio did not get. Returns their number."""
        unknown = dials.update().where(dials.c.list_id == list_id, dials.c.state == "unknown")
        values = {"state": "waiting", "next_at": now, "lost": dials.c.lost + 1, "result": None, "ended_at": None}
        return self._backend.write(lambda c: c.execute(unknown.values(values)).rowcount)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _change(
        self,
        list_id: str,
        n: int,
        attempts: int,
        states: Sequence[DialState] | None,
        values: dict[str, Any],
        condition: ColumnElement[bool] | None = None,
    ) -> bool:
        where = [dials.c.list_id == list_id, dials.c.n == n, dials.c.attempts == attempts]
        if states is not None:
            where.append(dials.c.state.in_(states))
        if condition is not None:
            where.append(condition)
        statement = dials.update().where(*where).values(values)
        return self._backend.write(lambda c: c.execute(statement).rowcount == 1)

    def _rows(self, statement: Any) -> list[DialRow]:
        return self._backend.read(lambda c: [DialRow(**row._mapping) for row in c.execute(statement)])


def _of_list(list_id: str) -> Any:
    return select(dial_lists).where(dial_lists.c.list_id == list_id)


def _values(row: DialListRow | DialRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}
