"""Downloads finished recordings, and deletes old ones at Twilio.

A recording is deleted at Twilio after its file is complete, if there is a folder for files. A failed request is tried again: the
wait of that recording doubles. A fault of Twilio's ends the pass for that account, a fault of the disk for all. Nothing is given
up but a recording that Twilio has no more, and one whose call is erased during its download: the file is deleted when it is
complete, and stays if the gateway stops or the store or the disk fails at that moment. The parts of downloads that no gateway
continues are deleted after a day, by each gateway in its own folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from gw.config import Config
from gw.control.retention.media import FileError, MediaFiles, RemovedError
from gw.control.rows import RecordingRow
from gw.control.store import RecordingFields, Store
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Rows read in one query, for downloads and for deletions.
BATCH: Final = 200
#: Waits before the next try of one recording: the first doubles up to the last.
RETRY_FIRST_S: Final = 60.0
RETRY_LAST_S: Final = 6 * 3600.0
#: Recordings whose tries are remembered.
MAX_REMEMBERED: Final = 10_000
#: Pause after a fault of the disk.
DISK_PAUSE_S: Final = 120.0
#: A part that was not continued for this long is deleted, and so often such parts are looked for. Longer than the longest retry.
PARTS_S: Final = 86_400.0
#: A recording may be listed as completed before its audio can be read.
SETTLE_S: Final = 3600.0
_DAY_S: Final = 86_400.0
#: Faults of one recording; any other is Twilio's, the network's or the credentials'.
_OF_ONE: Final = ("gone", "rejected", "not_in_progress")


class Recordings:
    """The recordings at Twilio and their files. `pass_over` is called by one greenlet."""

    def __init__(
        self,
        config: Config,
        store: Store,
        accounts: Accounts,
        page: Page,
        *,
        machine: str,
        files: MediaFiles,
    ) -> None:
        """`machine`: goes into the row of a file, which is on this machine."""
        self._fetches = bool(config.recording.fetch_dir)
        self._keep_s = config.recording.keep_days * _DAY_S
        self._store = store
        self._accounts = accounts
        self._machine = machine
        self._files = files
        self._fetched = {
            outcome: page.counter(declare.RECORDINGS_FETCHED, outcome=outcome)
            for outcome in declare.RECORDINGS_FETCHED.labels["outcome"]
        }
        self._deleted = page.counter(declare.RECORDINGS_DELETED)
        self._tries: dict[str, tuple[float, float]] = {}  # recording SID: when to try next, the wait after that
        self._hold_until_s = 0.0  # after a fault of the disk
        self._problem = ""  # of the last pass, logged once
        self._next_parts_s = 0.0  # when to look for old parts

    def pass_over(self, may_continue: Callable[[], bool]) -> None:
        """Download, then delete, the recordings that are due. Asks `may_continue` before each. Raises StoreError."""
        for account in self._accounts:
            if self._fetches:
                rows = self._due(partial(self._store.recordings_to_fetch, account.sid, BATCH))
                if not self._each(account, rows, self._fetch, may_continue):
                    continue
            if self._keep_s:
                before = time.time() - self._keep_s
                read = partial(self._store.recordings_to_delete, account.sid, before, BATCH, fetched=self._fetches)
                self._each(account, self._due(read), self._delete, may_continue)

    def discard_parts(self) -> None:
        """Delete the parts of downloads that no gateway continues, once in PARTS_S: their rows may be gone."""
        if not self._fetches or time.monotonic() < self._next_parts_s:
            return
        self._next_parts_s = time.monotonic() + PARTS_S
        try:
            count = self._files.discard_parts(time.time() - PARTS_S)
        except FileError as error:
            log.error("%s", error, extra={"reason": error.code})
        else:
            if count:
                log.info("%d parts of downloads that did not continue were deleted", count)

    def delete(self, account: Account, recording_sid: str) -> bool:
        """Delete a recording at Twilio. False if Twilio had none. Raises RestError."""
        try:
            account.ask(lambda rest: rest.delete_recording(recording_sid))
        except RestError as error:
            if error.kind != "gone":
                raise
            return False
        self._deleted.add()
        return True

    def _due(self, read: Callable[[str], list[RecordingRow]]) -> Iterator[RecordingRow]:
        """Yield up to BATCH recordings that wait for no retry, however many before them do. `read`: the page after a call SID."""
        due, after = 0, ""
        while rows := read(after):
            for row in rows:
                if self._tries.get(row.recording_sid or "", (0.0, 0.0))[0] <= time.monotonic():
                    yield row
                    due += 1
                    if due == BATCH:
                        return
            if len(rows) < BATCH:
                return
            after = rows[-1].call_sid

    def _each(
        self,
        account: Account,
        rows: Iterable[RecordingRow],
        act: Callable[[Account, RecordingRow], None],
        may_continue: Callable[[], bool],
    ) -> bool:
        """Act on recordings of an account. False when its pass has to end."""
        for row in rows:
            sid, now_s = row.recording_sid or "", time.monotonic()
            if now_s < max(self._hold_until_s, account.hold_until_s) or not may_continue() or not account.breaker.may_ask(now_s):
                return False
            try:
                act(account, row)
                self._tries.pop(sid, None)
                self._problem = ""
            except RestError as error:
                self._note(row, error)
                self._retry_later(sid)
                if error.kind not in _OF_ONE:
                    return False
            except RemovedError as error:
                account.breaker.on_answer()
                log.info("%s", error, extra={"call_sid": row.call_sid})
                self._retry_later(sid)
            except FileError as error:
                account.breaker.on_answer()
                self._hold_until_s = time.monotonic() + DISK_PAUSE_S
                self._fetched["failed"].add()
                self._note(row, error)
                return False
        return True

    def _fetch(self, account: Account, row: RecordingRow) -> None:
        """Download a recording into its file, unless its call is erased meanwhile. Raises RestError, FileError, StoreError."""
        try:
            done = account.ask(lambda rest: self._files.fetch(rest, row))
        except (RestError, FileError) as error:
            if self._store.recording(row.call_sid) is None:
                self._files.discard(row)
                raise
            if isinstance(error, FileError):
                raise
            if error.kind != "gone" or not _is_settled(row, time.time()):
                self._fetched["failed"].add()
                raise
            self._fetched["gone"].add()
            log.error("a recording was deleted at Twilio before its download", extra={"call_sid": row.call_sid})
            self._store.update_recording(row.call_sid, deleted_at=time.time())
            return
        fields = RecordingFields(fetched_at=time.time(), fetched_by=self._machine, file=str(done.file), sha256=done.sha256)
        if not self._store.update_recording(row.call_sid, **fields):
            self._files.discard(row)
            log.info("a downloaded recording is deleted: its call was erased meanwhile", extra={"call_sid": row.call_sid})
            return
        self._fetched["fetched"].add()

    def _delete(self, account: Account, row: RecordingRow) -> None:
        """Delete an old recording at Twilio. Raises RestError, StoreError."""
        if row.recording_sid:
            self.delete(account, row.recording_sid)
        self._store.update_recording(row.call_sid, deleted_at=time.time())

    def _retry_later(self, sid: str) -> None:
        if len(self._tries) >= MAX_REMEMBERED:
            self._tries.clear()
        _, wait_s = self._tries.get(sid, (0.0, RETRY_FIRST_S))
        self._tries[sid] = (time.monotonic() + wait_s, min(RETRY_LAST_S, wait_s * 2))

    def _note(self, row: RecordingRow, error: RestError | FileError) -> None:
        kind = error.kind if isinstance(error, RestError) else error.code
        if kind != self._problem:
            self._problem = kind
            log.error("a recording is not downloaded or deleted: %s", error, extra={"call_sid": row.call_sid, "reason": kind})


def _is_settled(row: RecordingRow, now: float) -> bool:
    """Return whether a recording is so old that its audio must be readable."""
    return now - (row.started_at or 0.0) - (row.duration_s or 0) > SETTLE_S


def open_files(config: Config) -> MediaFiles:
    """Return the files of recordings in the configured folder."""
    return MediaFiles(Path(config.recording.fetch_dir or config.ops.var_dir))
