"""Removes one call everywhere: store, spool, its file, and on request its recordings at Twilio.

Twilio comes first: its recordings can only be found by the row, and a refusal there leaves everything in place. Forwarding
pauses meanwhile, so that no batch under way writes the call again. A call that is alive, or whose recording is not finished, is
refused.
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
    file: str  # deleted here; empty without one
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
        machine: str,
        is_owned: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._spool = spool
        self._forwarder = forwarder
        self._accounts = accounts
        self._recordings = recordings
        self._files = files
        self._machine = machine
        self._is_owned = is_owned

    def erase(self, call_sid: str, *, twilio: bool) -> Erased:
        """Remove a call. Raises CommandError, StoreError, SpoolError, FileError."""
        row = self._removable(call_sid)
        remains: list[str] = []
        deleted = self._delete_at_twilio(call_sid, row) if twilio else []
        if not twilio and row is not None and row.recording_sid and row.state == "completed" and row.deleted_at is None:
            remains.append(f"Twilio has the recording {row.recording_sid}: delete it there")
        file = self._delete_file(row, remains)
        with self._forwarder.paused():
            erased = self._spool.erase(call_sid)
            removed = self._store.forget(call_sid)
        if corrupt := self._spool.corrupt_files():
            remains.append(f"{corrupt} corrupt spool files in var_dir may name the call")
        return Erased(call_sid, removed, erased, deleted, file, remains)

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

    def _delete_file(self, row: RecordingRow | None, remains: list[str]) -> str:
        """Delete the call's file if it is on this machine. Returns its path."""
        if row is None or not row.file:
            return ""
        if not self._files.remove(Path(row.file)):
            remains.append(f"{row.fetched_by} downloaded the recording to {row.file}: it is not on this machine")
            return ""
        return row.file
