"""Decides, by a unique key, who starts a call's recording, and keeps how far it got.

One row per call SID. `claim` inserts it, or takes it over from the state `wanted` in one conditional update: the database lets
exactly one succeed, across greenlets, processes and hosts. States only move forward, so a webhook that overtakes the REST
answer is not undone by it. Nothing here speaks to Twilio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypedDict

from sqlalchemy import Connection, case, literal

from gw.control.store.tables import DETAIL_CHARS, NUMBER_CHARS, SID_CHARS, URL_CHARS, recordings
from gw.control.store.values import Fit

#: In the order a recording passes them; from a settled one it only moves towards knowing better.
STATES: Final = ("wanted", "claimed", "started", "failed", "absent", "completed")
SETTLED: Final = frozenset({"failed", "absent", "completed"})


class RecordingFields(TypedDict, total=False):
    """What `update_recording` may set. Times are epoch seconds; None clears a field."""

    state: str
    recording_sid: str | None
    started_at: float | None
    trigger_ms: int | None
    attempts: int
    error_code: int | None
    error_text: str | None
    duration_s: int | None
    url: str | None
    channels: int | None


def insert_claim(connection: Connection, call_sid: str, account_sid: str, owner: str, now: float, fit: Fit) -> None:
    """The first half of a claim. Violates the unique key when the row is there."""
    connection.execute(
        recordings.insert(),
        {
            "call_sid": fit.text(call_sid, SID_CHARS),
            "account_sid": fit.word(account_sid, SID_CHARS),
            "state": "claimed",
            "owner": fit.text(owner, NUMBER_CHARS),
            "claimed_at": fit.moment(now),
            "attempts": 0,
        },
    )


def take(
    connection: Connection, call_sid: str, owner: str, now: float, states: Sequence[str], from_owner: str | None, fit: Fit
) -> bool:
    """Make a row that stands in one of `states` (and is `from_owner`'s) ours. True for exactly one of many who try."""
    statement = recordings.update().where(
        recordings.c.call_sid == fit.text(call_sid, SID_CHARS), recordings.c.state.in_(list(states))
    )
    if from_owner is not None:
        statement = statement.where(recordings.c.owner == fit.text(from_owner, NUMBER_CHARS))
    taken = connection.execute(statement.values(state="claimed", owner=fit.text(owner, NUMBER_CHARS), claimed_at=fit.moment(now)))
    return taken.rowcount == 1


def update(connection: Connection, call_sid: str, fields: RecordingFields, fit: Fit) -> bool:
    """Set fields of a row; False when there is none. A state behind the row's own is passed over, the rest is set."""
    values = {name: _fitted(name, value, fit) for name, value in fields.items()}
    state = values.pop("state", None)
    if state is not None:
        if state not in STATES:
            raise ValueError(f"a recording has no state {state!r}")
        ahead = STATES[STATES.index(state) + 1 :]
        values["state"] = case((recordings.c.state.in_(ahead), recordings.c.state), else_=literal(state)) if ahead else state
    if not values:
        return False
    done = connection.execute(recordings.update().where(recordings.c.call_sid == fit.text(call_sid, SID_CHARS)).values(values))
    return done.rowcount == 1


def _fitted(name: str, value: Any, fit: Fit) -> Any:
    if value is None:
        return None
    if name == "started_at":
        return fit.moment(value)
    if name in {"trigger_ms", "attempts", "error_code", "duration_s", "channels"}:
        return fit.integer(value)
    bounds = {"state": SID_CHARS, "recording_sid": SID_CHARS, "url": URL_CHARS, "error_text": DETAIL_CHARS}
    return fit.text(value, bounds[name])
