"""The claim row as the explorer sees it: every operation is the store's own SQL on a real SQLite file, done once and remembered.

A row's form is what decisions look at: state, owner, recording, and which times it has. An operation's outcome depends on the
form alone, so each pair of form and operation is tried once, on a fresh row that is brought into the form by the operations that
led there, and remembered as a number. Never states what a row becomes: the store does.
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
#: What decisions read of a row.
_READ: Final = ("state", "owner", "recording_sid")
_TIMES: Final = ("first_audio_at", "claimed_at", "started_at")
#: Where an operation's clock begins; each operation on a row has its own second.
_EPOCH: Final = 1_000_000.0


class Claim(NamedTuple):
    """`Store.claim_recording`."""

    owner: str


class Reclaim(NamedTuple):
    """`Store.reclaim_recording`."""

    owner: str
    from_owner: str


class Bring(NamedTuple):
    """`Store.bring_claims`: a claim that was taken in a spool. Its outcome says whether the row is the owner's."""

    owner: str
    kept: str = "spool"  # tuples are told apart by their values, not by their names


class Wish(NamedTuple):
    """The forwarder brings a StartRecording."""


class Write(NamedTuple):
    """`RecordingRows.write`."""

    outcome: Outcome


Operation = Claim | Reclaim | Bring | Wish | Write


class Written(NamedTuple):
    """What an operation did: the row's form now, what the operation returned, whether the time its state counts from moved."""

    form: int
    done: bool
    moved: bool


#: The time a state's age counts from. Source: `reconcile.next_step`.
AGE_OF: Final = {"wanted": "first_audio_at", "claimed": "claimed_at", "started": "started_at"}


class RowStore:
    """One SQLite store in a folder of its own. `close` removes it."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # the rows are thrown away: where there is memory they need no disk
        self._folder = tempfile.TemporaryDirectory(prefix="verify-guard-", dir=memory if memory.is_dir() else None)
        folder = Path(self._folder.name)
        self.page = Page.create(folder / "verify.page")
        self.store = Store(gw.config.Store(url=f"sqlite:///{folder}/rows.db"), "")
        self.store.upgrade()
        self.rows = RecordingRows(self.store, self.page)
        self.tried = 0  # operations the store was asked for
        self._n = 0
        self._forms: dict[tuple[object, ...], int] = {(): ABSENT}
        self._rows: list[RecordingRow | None] = [None]
        self._recipes: list[tuple[Operation, ...]] = [()]
        self._known: dict[tuple[int, Operation], Written] = {}

    def close(self) -> None:
        self.store.close()
        self.page.close()
        self._folder.cleanup()

    def row(self, form: int) -> RecordingRow | None:
        """The row's columns; its times are marks, not moments."""
        return self._rows[form]

    def apply(self, form: int, operation: Operation) -> Written:
        """What the store makes of a row of this form. Raises StoreError where the store would."""
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
            case Claim(owner):
                return self.store.claim_recording(call_sid, ACCOUNT, owner, now)
            case Reclaim(owner, from_owner):
                return self.store.reclaim_recording(call_sid, owner, now, from_owner=from_owner)
            case Bring(owner, _):
                return self.store.bring_claims([HeldClaim(call_sid, ACCOUNT, owner, now)])[call_sid] == owner
            case Wish():
                self.store.apply([Stamped(bus.StartRecording(call_sid, ACCOUNT, now), "host", 0, "verify", self._n)])
                return True
            case Write(outcome):
                return self.rows.write(call_sid, outcome)


def plain(outcome: Outcome) -> Outcome:
    """An outcome without words: what it says of the row is the same, and fewer forms are told apart."""
    return msgspec.structs.replace(outcome, error_text="", duration_s=-1)
