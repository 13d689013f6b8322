"""Removes one call everywhere: store, spool, its file, and on request its recordings at Twilio.

Twilio comes first: its recordings can only be found by the row, and a refusal there leaves everything in place. Forwarding
pauses meanwhile, so that no batch under way writes the call again. Files are deleted before the row, which names them, and again
after it, by the removed row: a download may have completed between, also on another machine. One that completes later
finds no row and deletes its file (`recordings`). A call that is alive, or whose recording is not finished, is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gw.control.admin.server import CommandError
from gw.control.retention.media import MediaFiles
from gw.control.retention.recordings import Recordings
from gw.control.rows import RecordingRow
from gw.control.spool import Erased as ErasedSpool
from gw.control.spool import Spool
from gw.control.spool.forwarder import Forwarder
from gw.control.store import Store
from gw.control.store.recordings import SETTLED
from gw.control.twilio_api.accounts import Accounts
from gw.control.twilio_api.answers import RestError


class Erased(msgspec.Struct, frozen=True):
    """The removed parts of a call, and the remaining ones."""

    call_sid: str
    store: dict[str, int]  # rows removed, by table
    spool: ErasedSpool
    twilio: list[str]  # recordings deleted there
    file: str  # deleted here, or the part of a broken download; empty without one
    remains: list[str]  # sentences


class Erasure:
    """Removes calls on request."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        forwarder: Forwarder,
        accounts: Accounts,
        recordings: Recordings,
        files: MediaFiles,
        *,
        gateway: str,
        fetches: bool,
        is_owned: Callable[[str], bool],
    ) -> None:
        """`gateway`: this one's id. `fetches`: whether recordings are downloaded."""
        self._store = store
        self._spool = spool
        self._forwarder = forwarder
        self._accounts = accounts
        self._recordings = recordings
        self._files = files
        self._gateway = gateway
        self._fetches = fetches
        self._is_owned = is_owned

    def erase(self, call_sid: str, *, twilio: bool) -> Erased:
        """Remove a call. Raises CommandError, StoreError, SpoolError, FileError."""
        row = self._removable(call_sid)
        remains: list[str] = []
        deleted = self._delete_at_twilio(call_sid, row) if twilio else []
        if not twilio and row is not None and row.recording_sid and row.state == "completed" and row.deleted_at is None:
            remains.append(f"Twilio has the recording {row.recording_sid}: delete it there")
        files: list[Path] = []
        with self._forwarder.paused():
            row = self._store.recording(call_sid)  # again: it may have a file by now
            if row is not None:
                files += self._files.discard(row)
            erased = self._spool.erase(call_sid)
            removed = self._store.forget(call_sid)
        row = removed.recording or row  # a download may have completed between
        if row is not None:
            files += self._files.discard(row)
            remains += self._remaining_files(row, files)
        if corrupt := self._spool.corrupt_files():
            remains.append(f"{corrupt} corrupt spool files in var_dir may name the call")
        return Erased(call_sid, removed.rows, erased, deleted, str(files[0]) if files else "", remains)

    def _removable(self, call_sid: str) -> RecordingRow | None:
        """Return the row of the call's recording. Raises CommandError for a call that is not over."""
        [end] = self._store.ends_of_calls([call_sid]).values() or [None]
        if self._is_owned(call_sid) or (end is not None and end.ended_at is None):
            raise CommandError("failed", f"{call_sid} has not ended: end it with gateway.py calls hangup")
        row = self._store.recording(call_sid)
        if row is not None and row.state not in SETTLED:
            raise CommandError(
                "failed", f"the recording of {call_sid} is {row.state}: try again later, or see gateway.py recordings reconcile"
            )
        return row

    def _delete_at_twilio(self, call_sid: str, row: RecordingRow | None) -> list[str]:
        """Delete all recordings of a call at Twilio. Returns their SIDs."""
        account = self._accounts.of_call(call_sid, self._store.account_of)
        if account is None:
            which = f" for the account of {call_sid}" if self._accounts else ""
            raise CommandError("failed", f"there are no Twilio credentials{which}: nothing was removed")
        try:
            sids = {one.sid for one in account.rest.list_recordings(call_sid)}
        except RestError as error:
            if error.kind != "gone":
                raise CommandError("failed", f"Twilio did not list the recordings: {error}; nothing was removed") from error
            sids = set()
        if row is not None and row.recording_sid:
            sids.add(row.recording_sid)
        try:
            deleted = [sid for sid in sorted(sids) if self._recordings.delete(account, sid)]
        except RestError as error:
            raise CommandError("failed", f"Twilio did not delete the recording: {error}; the call was not removed") from error
        if row is not None:
            self._store.update_recording(call_sid, deleted_at=time.time())
        return deleted

    def _remaining_files(self, row: RecordingRow, deleted: list[Path]) -> list[str]:
        """Return sentences about the recording's files that may be on other machines."""
        remains = []
        if row.file and Path(row.file) not in deleted:
            remains.append(f"{row.fetched_by} downloaded the recording to {row.file}: it is not on this machine")
        if self._fetches and row.state == "completed" and row.fetched_at is None and (others := self._others()):
            remains.append(
                f"unless recording.fetch_dir is shared, a broken download may have left a part of the recording on "
                f"{' or '.join(others)}: a gateway that runs there deletes such parts after a day"
            )
        return remains

    def _others(self) -> list[str]:
        """Return the machines of the store's other gateways."""
        _, gateways = self._store.gateways()
        return sorted({one.machine for one in gateways if one.gateway != self._gateway})
