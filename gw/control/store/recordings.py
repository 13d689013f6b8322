"""Recording rows: one claimant per call, by a unique key, and states that only move forward.

One row per call SID. A claim inserts the row, or takes it over from the state `wanted` in one conditional update: the database
lets exactly one claimant succeed, across greenlets, processes and hosts. A webhook that overtakes the REST answer is not undone
by it. Sends nothing to Twilio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypedDict, get_args

from sqlalchemy import Connection, case, literal, select

from gw.control.rows import RowState
from gw.control.store.tables import DETAIL_CHARS, NUMBER_CHARS, SID_CHARS, URL_CHARS, recordings
from gw.control.store.values import Fit

STATES: Final[tuple[RowState, ...]] = get_args(RowState)
SETTLED: Final[frozenset[RowState]] = frozenset({"failed", "absent", "completed"})


#: The fields that describe a state.
_OF_STATE: Final = frozenset({"state", "duration_s", "error_code", "reason", "error_text"})
_TEXT_CHARS: Final = {
    **dict.fromkeys(("state", "reason", "recording_sid", "sha256"), SID_CHARS),
    **dict.fromkeys(("url", "file"), URL_CHARS),
    "error_text": DETAIL_CHARS,
    "fetched_by": NUMBER_CHARS,
}


def claimant_of(owner: str | None) -> str:
    """The gateway in an owner, `CLAIMANT/PROCESS`; empty for an unclaimed row."""
    return (owner or "").rpartition("/")[0]


class RecordingFields(TypedDict, total=False):
    """The fields `update_recording` may set. Times are epoch seconds; None clears a field."""

    state: RowState
    recording_sid: str | None
    started_at: float | None
    trigger_ms: int | None
    attempts: int
    error_code: int | None
    reason: str | None
    error_text: str | None
    duration_s: int | None
    url: str | None
    channels: int | None
    fetched_at: float | None
    fetched_by: str | None
    file: str | None
    sha256: str | None
    deleted_at: float | None


class HeldClaim(NamedTuple):
    """A claim made while the store was away. `recording_sid`: the recording made under it, if known."""

    call_sid: str
    account_sid: str
    owner: str
    at: float
    recording_sid: str = ""


def claim_row(claim: HeldClaim, fit: Fit) -> dict[str, Any]:
    """A claim as a new row's values; they also fill a `wanted` row."""
    return {
        "call_sid": fit.text(claim.call_sid, SID_CHARS),
        "account_sid": fit.word(claim.account_sid, SID_CHARS),
        "state": "claimed",
        "owner": fit.text(claim.owner, NUMBER_CHARS),
        "claimed_at": fit.moment(claim.at),
        "attempts": 0,
    }


def insert_claim(connection: Connection, claim: HeldClaim, fit: Fit) -> None:
    """Insert a claim as a new row. Violates the unique key when the call has a row."""
    connection.execute(recordings.insert(), claim_row(claim, fit))


def promote_wishes(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Move `wanted` rows that have an owner to `claimed`. Returns the owner of each row, by call SID."""
    named = recordings.c.call_sid.in_([row["call_sid"] for row in rows])
    wished = recordings.update().where(named, recordings.c.state == "wanted", recordings.c.owner.is_not(None))
    connection.execute(wished.values(state="claimed"))
    owners = connection.execute(select(recordings.c.call_sid, recordings.c.owner).where(named))
    return {call_sid: owner or "" for call_sid, owner in owners}


def claim_existing(
    connection: Connection, call_sid: str, owner: str, now: float, states: Sequence[str], from_owner: str | None, fit: Fit
) -> bool:
    """Claim a row in one of `states` (owned by `from_owner`, if given). True for exactly one of concurrent callers."""
    statement = recordings.update().where(
        recordings.c.call_sid == fit.text(call_sid, SID_CHARS), recordings.c.state.in_(list(states))
    )
    if from_owner is not None:
        statement = statement.where(recordings.c.owner == fit.text(from_owner, NUMBER_CHARS))
    anew = {"state": "claimed", "owner": fit.text(owner, NUMBER_CHARS), "claimed_at": fit.moment(now)}
    taken = connection.execute(statement.values(**anew, error_code=None, error_text=None, reason=None))
    return taken.rowcount == 1


def update(connection: Connection, call_sid: str, fields: RecordingFields, fit: Fit) -> bool:
    """Set fields of a row; False when there is no row.

    With a state behind the row's own, that state and the fields that describe it are ignored, and the rest is set.
    """
    values = {name: _fitted(name, value, fit) for name, value in fields.items()}
    state = values.pop("state", None)
    if state is not None:
        ahead = STATES[STATES.index(state) + 1 :]
        for name, value in {**values, "state": state}.items():
            if name in _OF_STATE and ahead:
                column = recordings.c[name]
                values[name] = case((recordings.c.state.in_(ahead), column), else_=literal(value, column.type))
            else:
                values[name] = value
    if not values:
        return False
    done = connection.execute(recordings.update().where(recordings.c.call_sid == fit.text(call_sid, SID_CHARS)).values(values))
    return done.rowcount == 1


def _fitted(name: str, value: Any, fit: Fit) -> Any:
    if value is None:
        return None
    if name in {"started_at", "fetched_at", "deleted_at"}:
        return fit.moment(value)
    if name in {"trigger_ms", "attempts", "error_code", "duration_s", "channels"}:
        return fit.integer(value)
    return fit.text(value, _TEXT_CHARS[name])
