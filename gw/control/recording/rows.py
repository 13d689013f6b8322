"""Writes outcomes into recording rows, and counts each outcome once.

Every source of an outcome (Twilio's answer, a status callback, a listing) writes through here. The store moves a state only
forward; this adds retries while the store is away, and counters that follow the row, not the number of reports. An outcome that
cannot be written within the bound is left to the reconcile pass, which asks Twilio again. If Twilio reports a second
recording, the row keeps the first and names the second in its error text.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final, Unpack

import gevent
from gevent.lock import BoundedSemaphore

from gw.control.recording.lifecycle import CALL_OVER, Outcome
from gw.control.rows import RecordingRow, RowState
from gw.control.store import RecordingFields, Store, StoreError, StoreUnavailable
from gw.errors import GatewayError
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Waits between tries while the store is away: the first doubles up to the last.
STORE_WAIT_FIRST_S: Final = 0.1
STORE_WAIT_LAST_S: Final = 2.0
#: Time in which one outcome must be written.
WRITE_S: Final = 30.0
#: Rows written at the same time; two outcomes of one call always share a lock.
_LOCKS: Final = 64

NO_CREDENTIALS: Final = "no_credentials"
#: Outcomes that a `failed` row counts as, by its reason, if Twilio did not fail.
_NOT_FAILED: Final = {NO_CREDENTIALS: "skipped", CALL_OVER: "call_over"}
#: One call has two recordings: two hosts, one of them without the store, asked Twilio in the same moment.
TWICE: Final = "recorded_twice"
#: A row in one of these states has, or had, a recording at Twilio.
_HAD_RECORDING: Final = frozenset({"started", "completed", "absent"})


class RecordingRows:
    """Recording rows, as written by the recorder, the status callbacks and the reconcile pass."""

    def __init__(
        self,
        store: Store,
        page: Page,
        on_completed: Callable[[str, str, int | None], None] = lambda call_sid, sid, duration_s: None,
    ) -> None:
        """`on_completed` is called before a recording's completion is written, again if that fails; it may raise GatewayError."""
        self._store = store
        self._on_completed = on_completed
        self._locks = [BoundedSemaphore(1) for _ in range(_LOCKS)]
        outcomes = declare.RECORDINGS.labels["outcome"]
        self._counters = {outcome: page.counter(declare.RECORDINGS, outcome=outcome) for outcome in outcomes}

    def count(self, outcome: str) -> None:
        """Count an outcome without a row: a duplicate."""
        self._counters[outcome].add()

    def write(self, call_sid: str, outcome: Outcome, **extra: Unpack[RecordingFields]) -> bool:
        """Write an outcome and `extra` fields, with retries while the store is away.

        Returns False when nothing was written: there is no row, the outcome does not apply to the row's recording, or the store
        failed for WRITE_S, which is logged.
        """
        fields = _fields(outcome, extra)
        deadline_s = time.monotonic() + WRITE_S
        wait_s = STORE_WAIT_FIRST_S
        while True:
            try:
                return self._write(call_sid, outcome, fields)
            except StoreUnavailable as error:
                if time.monotonic() + wait_s > deadline_s:
                    log.error("a recording's outcome waits for the reconcile pass: %s", error, extra={"call_sid": call_sid})
                    return False
            except StoreError as error:
                log.error("a recording's outcome was refused by the store: %s", error, extra={"call_sid": call_sid})
                return False
            except GatewayError as error:
                log.error("a recording's outcome waits for the reconcile pass: %s", error, extra={"call_sid": call_sid})
                return False
            gevent.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(STORE_WAIT_LAST_S, wait_s * 2)

    def write_once(self, call_sid: str, outcome: Outcome, **extra: Unpack[RecordingFields]) -> bool:
        """Write an outcome with one try, for callers that retry themselves. Raises GatewayError."""
        return self._write(call_sid, outcome, _fields(outcome, extra))

    def _write(self, call_sid: str, outcome: Outcome, fields: RecordingFields) -> bool:
        with self._locks[hash(call_sid) % _LOCKS]:
            return self._write_alone(call_sid, outcome, fields)

    def _write_alone(self, call_sid: str, outcome: Outcome, fields: RecordingFields) -> bool:
        before = self._store.recording(call_sid)
        if before is None:
            return False
        if not outcome.applies_to(before.recording_sid or ""):
            self._note_second(before, outcome.recording_sid)
            return False
        fields = fields.copy()
        if before.started_at is not None:
            fields.pop("started_at", None)
        if before.reason == TWICE:  # that note stays
            fields.pop("reason", None)
            fields.pop("error_text", None)
        elif not outcome.error_code:
            fields.update(RecordingFields(error_code=None, reason=None, error_text=None))
        if outcome.state == "completed" and before.state != "completed":
            duration_s = outcome.duration_s if outcome.duration_s >= 0 else None
            self._on_completed(call_sid, outcome.recording_sid or before.recording_sid or "", duration_s)
        self._store.update_recording(call_sid, **fields)
        after = self._store.recording(call_sid)
        if after is not None:
            self._count_change(before.state, after.state, outcome)
        return True

    def _note_second(self, row: RecordingRow, recording_sid: str) -> None:
        """Name the call's second recording in the row, once."""
        noted = row.error_text or ""
        if not recording_sid or recording_sid in noted:
            return
        log.error("the call has a second recording, %s", recording_sid, extra={"call_sid": row.call_sid, "reason": TWICE})
        self._counters["twice"].add()
        text = f"also recorded as {recording_sid}" + (f"; {noted}" if noted else "")
        self._store.update_recording(row.call_sid, reason=TWICE, error_text=text)

    def _count_change(self, before: RowState, after: RowState, outcome: Outcome) -> None:
        if before == after:
            return
        if before not in _HAD_RECORDING and after in _HAD_RECORDING:
            self._counters["started"].add()
        if after == "failed" and outcome.error_code in _NOT_FAILED:
            self._counters[_NOT_FAILED[outcome.error_code]].add()
        elif after in ("completed", "absent", "failed"):
            self._counters[after].add()


def _fields(outcome: Outcome, extra: RecordingFields) -> RecordingFields:
    """An outcome and `extra` as fields of the row. Twilio's error number and our short code have separate columns."""
    fields = RecordingFields(state=outcome.state)
    if outcome.recording_sid:
        fields["recording_sid"] = outcome.recording_sid
        fields["started_at"] = time.time()
    if outcome.duration_s >= 0:
        fields["duration_s"] = outcome.duration_s
    if outcome.error_code:
        fields["error_text"] = outcome.error_text
        if outcome.error_code.isdecimal() and len(outcome.error_code) < 10:
            fields["error_code"] = int(outcome.error_code)
        else:
            fields["reason"] = outcome.error_code
    fields.update(extra)
    return fields
