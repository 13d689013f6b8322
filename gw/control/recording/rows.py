"""Writes what became of a recording into its row, and counts it once.

Everybody who learns something about a recording (Twilio's answer, a webhook, a listing) settles it here. The store moves a state
only forward; this adds the retry while the store is away and the counters, which follow what the row says and not how often it
was told. What cannot be written within the bound is left to the reconcile pass, which asks Twilio again. Where Twilio speaks of a
second recording of ours, the row keeps its first and says that there is another.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Final

import gevent
from gevent.lock import BoundedSemaphore

from gw.control.recording.rules import Settle, speaks_of
from gw.control.store import RecordingFields, Store, StoreError, StoreUnavailable
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Waits between tries while the store is away: the first doubles up to the last.
STORE_WAIT_FIRST_S: Final = 0.1
STORE_WAIT_LAST_S: Final = 2.0
#: How long one outcome is tried to be written.
WRITE_S: Final = 30.0
#: Rows settled at once; two outcomes of one call always share a lock.
_LOCKS: Final = 64

NO_CREDENTIALS: Final = "no_credentials"
#: Two recordings of one call: two hosts, one of them without the store, asked Twilio in the same moment.
TWICE: Final = "recorded_twice"
#: A row with one of these states had a recording at Twilio.
_HAD_ONE: Final = frozenset({"started", "completed", "absent"})


class RecordingRows:
    """The rows of the recordings, as the recorder, the webhooks and the reconcile pass settle them."""

    def __init__(self, store: Store, page: Page) -> None:
        self._store = store
        self._locks = [BoundedSemaphore(1) for _ in range(_LOCKS)]
        outcomes = declare.RECORDINGS.labels["outcome"]
        self._counters = {outcome: page.counter(declare.RECORDINGS, outcome=outcome) for outcome in outcomes}

    def count(self, outcome: str) -> None:
        """Count what has no row of its own: a duplicate."""
        self._counters[outcome].add()

    def settle(self, call_sid: str, settle: Settle, **extra: Any) -> bool:
        """Write an outcome, and `extra` fields of the row. True when it stands in the row.

        Returns False when there is no row, or the store would not take it within the bound: then it is logged.
        """
        fields = _fields(settle)
        fields.update(extra)  # type: ignore[typeddict-item]
        deadline_s = time.monotonic() + WRITE_S
        wait_s = STORE_WAIT_FIRST_S
        while True:
            try:
                return self._write_alone(call_sid, settle, fields)
            except StoreUnavailable as error:
                if time.monotonic() + wait_s > deadline_s:
                    log.error("a recording's outcome waits for the reconcile pass: %s", error, extra={"call_sid": call_sid})
                    return False
            except StoreError as error:
                log.error("a recording's outcome was refused by the store: %s", error, extra={"call_sid": call_sid})
                return False
            gevent.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(STORE_WAIT_LAST_S, wait_s * 2)

    def settle_once(self, call_sid: str, settle: Settle, **extra: Any) -> bool:
        """The same, tried once, for whoever tries again: raises StoreError."""
        return self._write_alone(call_sid, settle, {**_fields(settle), **extra})  # type: ignore[typeddict-item]

    def _write_alone(self, call_sid: str, settle: Settle, fields: RecordingFields) -> bool:
        with self._locks[hash(call_sid) % _LOCKS]:
            return self._write(call_sid, settle, fields)

    def _write(self, call_sid: str, settle: Settle, fields: RecordingFields) -> bool:
        before = self._store.recording(call_sid)
        if before is None:
            return False
        if not speaks_of(settle, before["recording_sid"] or ""):
            self._say_twice(before, settle.recording_sid)
            return False
        if before["started_at"] is not None:
            fields = fields.copy()
            fields.pop("started_at", None)
        self._store.update_recording(call_sid, **fields)
        after = self._store.recording(call_sid)
        if after is not None:
            self._follow(before["state"], after["state"], settle)
        return True

    def _say_twice(self, row: dict[str, Any], recording_sid: str) -> None:
        """Twilio told of another recording of ours than the row's: say so in the row, once."""
        call_sid, said = row["call_sid"], row["error_text"] or ""
        if not recording_sid or recording_sid in said:
            return
        log.error("the call has a second recording, %s", recording_sid, extra={"call_sid": call_sid, "reason": TWICE})
        self._counters["twice"].add()
        text = f"also recorded as {recording_sid}" + (f"; {said}" if said else "")
        self._store.update_recording(call_sid, reason=TWICE, error_text=text)

    def _follow(self, before: str, after: str, settle: Settle) -> None:
        if before == after:
            return
        if before not in _HAD_ONE and after in _HAD_ONE:
            self._counters["started"].add()
        if after == "failed" and settle.error_code == NO_CREDENTIALS:
            self._counters["skipped"].add()
        elif after in ("completed", "absent", "failed"):
            self._counters[after].add()


def _fields(settle: Settle) -> RecordingFields:
    """An outcome as fields of the row. Twilio's number has a column, a word of ours has another."""
    fields = RecordingFields(state=settle.state)
    if settle.recording_sid:
        fields["recording_sid"] = settle.recording_sid
        fields["started_at"] = time.time()
    if settle.duration_s >= 0:
        fields["duration_s"] = settle.duration_s
    if settle.error_code.isdecimal() and len(settle.error_code) < 10:
        fields["error_code"] = int(settle.error_code)
        fields["error_text"] = settle.error_text
    elif settle.error_code:
        fields["reason"] = settle.error_code
        fields["error_text"] = settle.error_text
    return fields
