"""The calls' database: writes events and recordings, reads calls.

Every method of `Store` is one transaction and waits a bounded time. It raises StoreUnavailable for a failure that may pass, and
StoreError for a permanent one. Only control uses the store.

    engine, one_thread, sqlite_file, tls   transactions on MySQL or SQLite
    faults                                 temporary and permanent errors
    schema, migrations, tables             the schema, and its upgrade
    events, values                         events to rows that fit
    gateways                               who holds an id, and who is heard
    recordings                             claims and states of recordings
    dials                                  lists of numbers, and claims of their dials
    reads                                  rows for control and the commands
    retention, backup                      removal of calls; a copy of the file
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Unpack

from sqlalchemy import Connection, exc

import gw.config
from gw.control.rows import (
    CallDetails,
    CallEnd,
    CallFilter,
    CallRow,
    EventRow,
    GatewayRow,
    ListedCall,
    RecordingRow,
    RowState,
    Scalar,
)
from gw.control.store import gateways, migrations, reads, retention
from gw.control.store import recordings as claims
from gw.control.store.dials import Dials
from gw.control.store.engine import open_backend
from gw.control.store.events import Rows, Stamped, apply, merge
from gw.control.store.faults import StoreError, StoreMisconfigured, StoreUnavailable
from gw.control.store.gateways import Claimed, Report
from gw.control.store.migrations import SchemaAheadError
from gw.control.store.reads import Numbered
from gw.control.store.recordings import HeldClaim, RecordingFields, claimant_of
from gw.control.store.retention import Forgotten, Page, Place, Policy
from gw.control.store.tables import recordings as recordings_table
from gw.control.store.values import Fit

__all__ = [
    "ALL_CALLS",
    "Claimed",
    "HeldClaim",
    "RecordingFields",
    "Report",
    "SchemaAheadError",
    "Stamped",
    "Store",
    "StoreError",
    "StoreMisconfigured",
    "StoreUnavailable",
    "claimant_of",
]


#: The filter that every call meets.
ALL_CALLS: Final = CallFilter()


class Store:
    """The database. Greenlets of one thread may share it."""

    def __init__(self, config: gw.config.Store, password: str) -> None:
        """Open no connection yet. Raises ConfigError for an invalid `store.url`."""
        self._backend = open_backend(config, password)
        self._fit = Fit()
        self.dials = Dials(self._backend, self._fit)

    @property
    def cut_values(self) -> int:
        """Number of values changed to fit their column, since the start."""
        return self._fit.cut

    # -- the schema ----------------------------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """Upgrade the schema to this code's revision. Two processes may try at the same time.

        Raises: StoreUnavailable; SchemaAheadError for a database that a newer version upgraded and this one cannot use.
        """
        self._backend.migrate(migrations.upgrade)

    def current(self) -> tuple[str | None, str]:
        """Return the revision of the database (None without a schema) and the needed one."""
        return self._backend.read(migrations.revision_of), migrations.HEAD

    def check(self) -> None:
        """Check the revision of the schema. Raises StoreError, with a remedy, unless this code can use it."""
        self._backend.read(migrations.refuse_unusable)

    # -- events --------------------------------------------------------------------------------------------------------

    def apply(self, events: Sequence[Stamped]) -> None:
        """Write events, all or none. Any order and any repetition of the same events leave the same rows.

        Raises: StoreUnavailable; StoreError when an event can never be written.
        """
        rows = Rows(self._fit)
        for stamped in events:
            try:
                rows.add(stamped)
            except Exception as error:
                raise StoreError(f"an event does not become a row: {type(error).__name__}: {error}") from error
        self._backend.write(lambda connection: apply(connection, rows))

    # -- recordings ----------------------------------------------------------------------------------------------------

    def claim_recording(self, call_sid: str, account_sid: str, owner: str, now: float) -> bool:
        """Claim the start of a call's recording. Returns True once per call SID, ever.

        Raises: StoreUnavailable, with an unknown outcome: then `recording(call_sid).owner` shows it, provided that `owner` names
        one process and at most one of its attempts claims the call.
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
        """Take over the claim of an ended process or a failed attempt. Returns True for one of concurrent callers."""
        return self._backend.write(lambda c: claims.claim_existing(c, call_sid, owner, now, states, from_owner, self._fit))

    def bring_claims(self, some: Sequence[HeldClaim]) -> dict[str, str]:
        """Write claims made while the store was away. A row owned by another stays so. Returns the owner of each row."""
        rows = [claims.claim_row(claim, self._fit) for claim in some]

        def work(connection: Connection) -> dict[str, str]:
            merge(connection, recordings_table, ("call_sid",), rows)
            return claims.promote_wishes(connection, rows)

        return self._backend.write(work) if rows else {}

    def update_recording(self, call_sid: str, **fields: Unpack[RecordingFields]) -> bool:
        """Set fields of a recording's row. Returns False without a row. A state never moves backwards."""
        if fields.get("state", "wanted") not in claims.STATES:
            raise ValueError(f"a recording has no state {fields['state']!r}")
        return self._backend.write(lambda c: claims.update(c, call_sid, fields, self._fit))

    def recording(self, call_sid: str) -> RecordingRow | None:
        """Return a call's recording; None where none was asked for."""
        return self._backend.read(lambda c: reads.one_recording(c, call_sid))

    def recordings(self, *, limit: int = 50, state: str | None = None) -> list[RecordingRow]:
        """Return recordings, newest first."""
        return self._backend.read(lambda c: reads.list_recordings(c, limit, state))

    def unstarted_recordings(self, state: RowState, below: int | None = None) -> list[Numbered]:
        """Return a page of recordings in state `wanted` or `claimed`, with ids, newest first."""
        return self._backend.read(lambda c: reads.list_unstarted(c, state, below))

    def started_recordings(self, claimant: str, *, own: bool, before: float | None = None, above: int = 0) -> list[Numbered]:
        """Return a page of recordings in state `started`, with ids, oldest first: this gateway's own, or all others."""
        return self._backend.read(lambda c: reads.list_started(c, claimant, own=own, before=before, above=above))

    def overdue_recordings(self, claimant: str, before: float) -> list[str]:
        """Return the calls whose recording is unclaimed or this gateway's, and unsettled since `before`."""
        return self._backend.read(lambda c: reads.list_overdue(c, claimant, before))

    # -- reads ---------------------------------------------------------------------------------------------------------

    def calls(self, *, limit: int = 50, open_only: bool = False, which: CallFilter = ALL_CALLS) -> list[ListedCall]:
        """Return calls that meet the filter, newest or worst first."""
        return self._backend.read(lambda c: reads.list_calls(c, limit, open_only, which))

    def call(self, call_sid: str) -> CallDetails | None:
        """Return a call with its quality, recording, turns and events; None for an unknown SID."""
        return self._backend.read(lambda c: reads.one_call(c, call_sid))

    def spent_on(self, day: str) -> float:
        """Return the cost of a day in USD: of all calls in the store."""
        return self._backend.read(lambda c: reads.spent_on(c, day))

    def spent_by_callers(self, day: str, limit: int) -> dict[str, float]:
        """Return the cost of a day's inbound calls in USD, by the caller's number: of those that spent most."""
        return self._backend.read(lambda c: reads.spent_by_callers(c, day, limit))

    def account_of(self, call_sid: str) -> str | None:
        """Return the SID of a call's Twilio account; None for an unknown call."""
        return self._backend.read(lambda c: reads.account_of(c, call_sid))

    def acts(self, *, limit: int = 50, since: float | None = None) -> list[EventRow]:
        """Return the acts of operators, newest first. `since`: epoch time."""
        return self._backend.read(lambda c: reads.list_acts(c, limit, since))

    def open_calls(self, *, gateway: str) -> list[CallRow]:
        """Return a gateway's calls without an end, oldest first."""
        return self._backend.read(lambda c: reads.list_open_calls(c, gateway))

    def ends_of_calls(self, call_sids: Sequence[str]) -> dict[str, CallEnd]:
        """Return the ends and gateways of these calls, by SID, with one query. Unknown calls are missing."""
        return self._backend.read(lambda c: reads.list_ends(c, call_sids))

    def statuses_of_open_calls(self) -> list[tuple[str, dict[str, Scalar]]]:
        """Return the status callbacks of all calls without an end: call SID and form."""
        return self._backend.read(reads.list_statuses_of_open_calls)

    # -- gateways ------------------------------------------------------------------------------------------------------

    def claim_gateway(self, report: Report, *, begins: bool = False) -> Claimed:
        """Take or renew the row of a gateway's id, unless another holds it. `begins`: the gateway was started."""

        def work(connection: Connection) -> Claimed:
            return gateways.claim(connection, report, begins, self._fit)

        try:
            return self._backend.write(work)
        except StoreError as error:
            if not isinstance(error.__cause__, exc.IntegrityError):
                raise
            return self._backend.write(work)  # another gateway inserted the row in the same moment

    def stop_gateway(self, gateway: str, fingerprint: str) -> None:
        """Note that a gateway has stopped, if it holds its id."""
        self._backend.write(lambda c: gateways.stop(c, gateway, fingerprint))

    def gateways(self) -> tuple[float, list[GatewayRow]]:
        """Return the time by the clock of the database, and the gateways by machine."""
        return self._backend.read(gateways.list_gateways)

    def ask_drain(self, gateway: str, *, on: bool) -> None:
        """Ask a gateway to drain its machine, or to end the drain."""
        self._backend.write(lambda c: gateways.ask_drain(c, gateway, on))

    def answer_drain(self, gateway: str, *, on: bool) -> None:
        """Remove a request that was carried out, unless another one replaced it."""
        self._backend.write(lambda c: gateways.answer_drain(c, gateway, on))

    def forget_gateways(self, silent_s: float) -> int:
        """Remove the gateways that were not heard for this long. Returns their number."""
        return self._backend.write(lambda c: gateways.forget_gateways(c, silent_s))

    def abandoned_calls(self, silent_s: float) -> list[CallRow]:
        """Return open calls of gateways that were not heard for this long. A call that began since is not among them."""
        return self._backend.read(lambda c: gateways.list_abandoned_calls(c, silent_s))

    # -- retention -----------------------------------------------------------------------------------------------------

    def purge_calls(
        self, before: float, limit: int, policy: Policy, after: Place | None = None, *, dry_run: bool = False
    ) -> Page:
        """Remove the calls of one page that ended before an epoch time. `dry_run`: count them instead."""
        work = self._backend.read if dry_run else self._backend.write
        return work(lambda c: retention.purge_calls(c, before, limit, policy, after, dry_run=dry_run))

    def purge_events(self, before: float, limit: int, after: Place | None = None) -> Page:
        """Remove the old events of one page that are of no stored call."""
        return self._backend.write(lambda c: retention.purge_events(c, before, limit, after))

    def purge_dials(self, before: float, limit: int) -> int:
        """Remove an old list of numbers, or some of its lines. Returns the number of lines removed; 0 without such a list."""
        return self._backend.write(lambda c: retention.purge_dials(c, before, limit))

    def forget(self, call_sid: str) -> Forgotten:
        """Remove everything about a call. Returns the number of rows removed from each table, and the recording's row."""
        return self._backend.write(lambda c: retention.forget(c, call_sid))

    def recordings_to_fetch(self, account_sid: str, limit: int, after: str = "") -> list[RecordingRow]:
        """Return an account's completed recordings without a downloaded file, oldest first. `after`: those after this call's."""
        return self._backend.read(lambda c: retention.list_to_fetch(c, account_sid, limit, after))

    def recordings_to_delete(
        self, account_sid: str, before: float, limit: int, after: str = "", *, fetched: bool
    ) -> list[RecordingRow]:
        """Return an account's completed recordings older than an epoch time, still at Twilio.

        `after`: those after this call's. `fetched`: only with a file.
        """
        return self._backend.read(lambda c: retention.list_to_delete(c, account_sid, before, limit, after, fetched=fetched))

    def take_lease(self, name: str, owner: str, now: float, until: float) -> bool:
        """Take or renew the lease on work of a single gateway. False while another has it."""
        try:
            return self._backend.write(lambda c: retention.take_lease(c, name, owner, now, until))
        except StoreError as error:
            if not isinstance(error.__cause__, exc.IntegrityError):
                raise
            return False

    def release_lease(self, name: str, owner: str) -> None:
        """Let another gateway take the lease now."""
        self._backend.write(lambda c: retention.release_lease(c, name, owner))

    def close(self) -> None:
        """Close every connection. Later calls fail."""
        self._backend.close()
