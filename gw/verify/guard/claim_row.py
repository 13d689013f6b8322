"""The model's claim row; every operation is the store's own SQL on a SQLite file.

A row's form is the part that decisions read: state, owner, recording, and which times are set. An operation's result depends on
the form alone, so each pair of form and operation is run once and cached: on a new row, after the operations that lead to the
form. The result is always the store's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import gw.config
from gw import bus
from gw.control.recording.lifecycle import Outcome
from gw.control.recording.rows import RecordingRows
from gw.control.rows import RecordingRow
from gw.control.store import HeldClaim, Stamped, Store
from metrics.page import Page

ACCOUNT: Final = "AC" + "0" * 32
#: No row.
ABSENT: Final = 0
#: The fields of a row that decisions read.
_READ: Final = ("state", "owner", "recording_sid")
_TIMES: Final = ("first_audio_at", "claimed_at", "started_at")
#: Epoch seconds of a row's first operation; each further one is a second later.
_EPOCH: Final = 1_000_000.0


class ClaimRow(NamedTuple):
    """`Store.claim_recording`."""

    owner: str


class ReclaimRow(NamedTuple):
    """`Store.reclaim_recording`."""

    owner: str
    from_owner: str


class DeliverClaim(NamedTuple):
    """`Store.bring_claims`: a claim made in a spool. Its result: whether the row is the owner's."""

    owner: str
    kept: str = "spool"  # tuples of one value are equal, whatever their type


class WriteWish(NamedTuple):
    """The forwarder writes a StartRecording to the store."""


class WriteOutcome(NamedTuple):
    """`RecordingRows.write`."""

    outcome: Outcome


Operation = ClaimRow | ReclaimRow | DeliverClaim | WriteWish | WriteOutcome


class Written(NamedTuple):
    """Result of an operation: the row's form, the operation's return value, and whether the state's time moved."""

    form: int
    done: bool
    moved: bool


#: The time from which a state's age counts. Source: `reconcile.reconcile_step`.
AGE_OF: Final = {"wanted": "first_audio_at", "claimed": "claimed_at", "started": "started_at"}


class RowStore:
    """One SQLite store in a temporary folder, which `close` removes."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # faster than a disk; the rows are discarded
        self._folder = tempfile.TemporaryDirectory(prefix="verify-guard-", dir=memory if memory.is_dir() else None)
        folder = Path(self._folder.name)
        self.page = Page.create(folder / "verify.page")
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/rows.db"), "")
        self.store.upgrade()
        self.rows = RecordingRows(self.store, self.page)
        self.tried = 0  # operations that the store ran
        self._n = 0
        self._forms: dict[tuple[object, ...], int] = {(): ABSENT}
        self._rows: list[RecordingRow | None] = [None]
        self._recipes: list[tuple[Operation, ...]] = [()]
        self._known: dict[tuple[int, Operation], Written] = {}

    def close(self) -> None:
        """Close the store and delete its folder."""
        self.store.close()
        self.page.close()
        self._folder.cleanup()

    def row(self, form: int) -> RecordingRow | None:
        """The row in this form; only whether a time is set counts."""
        return self._rows[form]

    def apply(self, form: int, operation: Operation) -> Written:
        """Apply an operation to a row of this form. Raises StoreError as the store does."""
        found = self._known.get((form, operation))
        if found is None:
            found = self._known[form, operation] = self._try(form, operation)
        return found

    def _try(self, form: int, operation: Operation) -> Written:
        self._n += 1
        call_sid = f"CA{self._n:032d}"
        recipe = self._recipes[form]
        for step, earlier in enumerate(recipe):
            self._do(call_sid, earlier, _EPOCH + step)
        before = self.store.recording(call_sid)
        done = self._do(call_sid, operation, _EPOCH + len(recipe))
        after = self.store.recording(call_sid)
        if after is None:
            return Written(ABSENT, done, moved=False)
        key = (*(getattr(after, name) for name in _READ), *(getattr(after, name) is not None for name in _TIMES))
        now = self._forms.get(key)
        if now is None:
            now = self._forms[key] = len(self._rows)
            self._rows.append(after)
            self._recipes.append((*recipe, operation))
        age_of = AGE_OF.get(after.state)
        if before is None or before.state != after.state:
            moved = True
        else:
            moved = age_of is not None and getattr(before, age_of) != getattr(after, age_of)
        return Written(now, done, moved)

    def _do(self, call_sid: str, operation: Operation, now: float) -> bool:
        self.tried += 1
        match operation:
            case ClaimRow(owner):
                return self.store.claim_recording(call_sid, ACCOUNT, owner, now)
            case ReclaimRow(owner, from_owner):
                return self.store.reclaim_recording(call_sid, owner, now, from_owner=from_owner)
            case DeliverClaim(owner, _):
                return self.store.bring_claims([HeldClaim(call_sid, ACCOUNT, owner, now)])[call_sid] == owner
            case WriteWish():
                self.store.apply([Stamped(bus.StartRecording(call_sid, ACCOUNT, now), "host", 0, "verify", self._n)])
                return True
            case WriteOutcome(outcome):
                return self.rows.write(call_sid, outcome)


def plain(outcome: Outcome) -> Outcome:
    """The outcome without text and duration, so that fewer forms differ."""
    return msgspec.structs.replace(outcome, error_text="", duration_s=-1)
