"""The one door to the database: what is written about calls, and what is read back.

`Store` puts the parts together: `address` and `engine` reach a MySQL or SQLite database, `migrations` gives it its tables,
`events` and `recordings` write, `reads` reads. Every method is one transaction, waits a bounded time, and raises StoreUnavailable
for what waiting may mend and StoreError for what it will not. Only control uses it; workers never do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from sqlalchemy import Connection, exc

import gw.config
from gw.control.rows import CallDetails, CallRow, ListedCall, RecordingRow, Scalar
from gw.control.store import migrations, reads
from gw.control.store import recordings as claims
from gw.control.store.engine import open_backend
from gw.control.store.events import Rows, Stamped, apply, merge
from gw.control.store.faults import StoreError, StoreUnavailable
from gw.control.store.recordings import HeldClaim, RecordingFields, claimant_of
from gw.control.store.tables import recordings as recordings_table
from gw.control.store.values import Fit

__all__ = [
    "HeldClaim",
    "RecordingFields",
    "Stamped",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "claimant_of",
]


class Store:
    """The calls' database. May be used by many greenlets of one thread at a time."""

    def __init__(self, config: gw.config.Store, password: str) -> None:
        """Connects to nothing yet. Raises ConfigError for a `store.url` that cannot be meant."""
        self._backend = open_backend(config, password)
        self._fit = Fit()

    @property
    def cut_values(self) -> int:
        """Values shortened to fit their column, since the start."""
        return self._fit.cut

    # -- the schema ----------------------------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """Bring the schema to this code's revision; two processes may try at once. Refuses a database that is ahead."""
        self._backend.migrate(migrations.upgrade)

    def current(self) -> tuple[str | None, str]:
        """The database's revision, None if it has none, and the one this code needs."""
        return self._backend.read(migrations.revision_of), migrations.HEAD

    def check(self) -> None:
        """Raises StoreError, saying what to do, unless the schema is exactly what this code needs."""
        migrations.refuse_unusable(self._backend.read(migrations.revision_of))

    # -- events --------------------------------------------------------------------------------------------------------

    def apply(self, events: Sequence[Stamped]) -> None:
        """Write events, all or none. The same events in any order, any number of times, leave the same rows.

        Raises: StoreUnavailable; StoreError when one of them can never be written.
        """
        rows = Rows(self._fit)
        for stamped in events:
            rows.add(stamped)
        self._backend.write(lambda connection: apply(connection, rows))

    # -- recordings ----------------------------------------------------------------------------------------------------

    def claim_recording(self, call_sid: str, account_sid: str, owner: str, now: float) -> bool:
        """Whether the caller, and nobody else, is to start this call's recording: True once per call SID, ever.

        Raises: StoreUnavailable, and then it is open whether the claim was written: `recording(call_sid)["owner"]` tells,
        given that `owner` names one process's life and one attempt at most claims a call in it.
        """
        try:
            self._backend.write(lambda c: claims.insert_claim(c, HeldClaim(call_sid, account_sid, owner, now), self._fit))
        except StoreError as error:
            if not isinstance(error.__cause__, exc.IntegrityError):
                raise
        else:
            return True
        return self._backend.write(lambda c: claims.claim_existing(c, call_sid, owner, now, ("wanted",), None, self._fit))

    def reclaim_recording(
        self, call_sid: str, owner: str, now: float, *, from_owner: str, states: Sequence[str] = ("claimed",)
    ) -> bool:
        """Take over what a process that is gone (or an attempt that failed) left. True for one of many who try."""
        return self._backend.write(lambda c: claims.claim_existing(c, call_sid, owner, now, states, from_owner, self._fit))

    def bring_claims(self, some: Sequence[HeldClaim]) -> dict[str, str]:
        """Write claims that were taken while the store was away; a row that is another's stays so. Returns each row's owner."""
        rows = [claims.claim_row(claim, self._fit) for claim in some]

        def work(connection: Connection) -> dict[str, str]:
            merge(connection, recordings_table, ("call_sid",), rows)
            return claims.promote_wishes(connection, rows)

        return self._backend.write(work) if rows else {}

    def update_recording(self, call_sid: str, **fields: Unpack[RecordingFields]) -> bool:
        """Set fields of a recording's row; False where there is none. A state never moves backwards."""
        return self._backend.write(lambda c: claims.update(c, call_sid, fields, self._fit))

    def recording(self, call_sid: str) -> RecordingRow | None:
        """Return a call's recording; None where none was wanted."""
        return self._backend.read(lambda c: reads.one_recording(c, call_sid))

    def recordings(self, *, limit: int = 50, state: str | None = None) -> list[RecordingRow]:
        """Return recordings, newest first."""
        return self._backend.read(lambda c: reads.list_recordings(c, limit, state))

    def unsettled_recordings(self) -> list[RecordingRow]:
        """Return recordings that are neither completed, failed nor absent, oldest first."""
        return self._backend.read(reads.list_unsettled)

    # -- reads ---------------------------------------------------------------------------------------------------------

    def calls(self, *, limit: int = 50, open_only: bool = False) -> list[ListedCall]:
        """Return calls, newest first."""
        return self._backend.read(lambda c: reads.list_calls(c, limit, open_only))

    def call(self, call_sid: str) -> CallDetails | None:
        """Return a call with its quality, recording, turns and events; None for an unknown SID."""
        return self._backend.read(lambda c: reads.one_call(c, call_sid))

    def open_calls(self, *, host: str) -> list[CallRow]:
        """Return a host's calls without an end, oldest first."""
        return self._backend.read(lambda c: reads.list_open_calls(c, host))

    def statuses_of_open_calls(self) -> list[tuple[str, dict[str, Scalar]]]:
        """Return the status callbacks of calls of any host without an end here: call SID and form."""
        return self._backend.read(reads.list_statuses_of_open_calls)

    def close(self) -> None:
        """Let go of every connection. Later calls fail."""
        self._backend.close()
