"""Acts on what Twilio's status callbacks report about a recording, a call or a stream.

The callback itself is already in the spool.

- A recording's status is written into its row before the callback leaves the spool, so that a process's death cannot lose it.
- A call's end is left to the stream's own `stop` for a moment. If the call is then still alive at a worker, it was completed by
  REST, and the worker is asked to hang up. If no worker has it, and its row is open although the store has taken everything that
  the spool held, the row is ended here. Another gateway's row is ended here only if its end does not come for a minute.
- A stream's error is logged.
- A report from another account than the call's changes nothing: its sender has that account's token, and the call's SID.

Ends that an earlier process did not act on are taken up at the start. Fields may be missing, unknown or wrong; unusable ones are
ignored. Never answers Twilio, never waits in the subscriber.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import gevent
import gevent.pool

from gw import bus
from gw.call.state import Reason
from gw.control.calls.registry import Calls
from gw.control.recording.lifecycle import OUR_SOURCE, Outcome, lost
from gw.control.recording.rows import RecordingRows
from gw.control.rows import CallEnd
from gw.control.spool import SpoolError
from gw.control.store import RecordingFields, Store, StoreError, StoreUnavailable
from gw.control.twilio_api.answers import parse_count
from gw.errors import GatewayError
from gw.protocol.webhook_form import CALL_OVER

log = logging.getLogger(__name__)

#: Twilio's `stop` normally ends the call within this time of the status callback.
GRACE_S: Final = 2.0
#: Between two looks at the rows whose end may still be in a spool, one query for all of them, and the number of looks at each; a
#: row still open then waits for the next start.
LOOK_S: Final = 1.0
MAX_LOOKS: Final = 60
#: Between looks while the store is away: a store that is back serves the spool first.
AWAY_S: Final = 5.0
#: Ends of calls under way: in their grace, or looked at. The rest is found at the next start.
MAX_ENDING: Final = 2000
#: From the start until ends are looked for that an earlier process did not act on; by then the workers have reported their calls.
TAKE_UP_S: Final = 10.0
#: Between tries while the store is away.
RETRY_S: Final = 1.0


@dataclass
class _Ending:
    """A call whose row is looked at. `due`: events that the store must have taken before the row counts as open."""

    due: int
    account_sid: str
    looks: int = 0
    is_theirs: bool = False  # at the last look: the row is another gateway's


def recording_outcome(fields: Mapping[str, str]) -> tuple[Outcome, RecordingFields] | None:
    """Read a recording status callback: the row's outcome and further fields; None without an outcome.

    Source: Twilio, RecordingStatusCallback: in-progress | completed | absent; failed, by its help article 360014251313.
    """
    if fields.get("RecordingSource", OUR_SOURCE) != OUR_SOURCE:
        return None
    sid = fields.get("RecordingSid", "")
    extra = RecordingFields()
    if fields.get("RecordingUrl"):
        extra["url"] = fields["RecordingUrl"]
    channels = parse_count(fields.get("RecordingChannels"))
    if channels is not None:
        extra["channels"] = channels
    match fields.get("RecordingStatus"):
        case "in-progress":
            return Outcome("started", sid), extra
        case "completed":
            duration_s = parse_count(fields.get("RecordingDuration"))
            return Outcome("completed", sid, -1 if duration_s is None else duration_s), extra
        case "absent" | "failed" as status:
            return lost(status, sid, fields.get("ErrorCode", "")), extra
        case _:
            return None


class StatusCallbacks:
    """A subscriber of the bus, and of the forwarder."""

    def __init__(
        self,
        store: Store,
        rows: RecordingRows,
        calls: Calls,
        *,
        gateway: str,
        hang_up: Callable[[str, str], bool],
        on_call_over: Callable[[str], None],
        on_lost: Callable[[set[str]], None],
        on_foreign: Callable[[str], None] = lambda kind: None,
        spooled: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        """`gateway`: this one's id. `hang_up`: as of the bus server. `on_foreign` receives the kind of a report from another
        account than its call's. `spooled`: events of the spool that the store has taken since the start, and waiting ones."""
        self._store = store
        self._rows = rows
        self._calls = calls
        self._gateway = gateway
        self._hang_up = hang_up
        self._on_call_over = on_call_over
        self._on_lost = on_lost
        self._on_foreign = on_foreign
        self._spooled = spooled
        self._grace = gevent.pool.Pool()
        self._ending: dict[str, _Ending] = {}
        self._looker: gevent.Greenlet[[], None] | None = None
        self._starter: gevent.Greenlet[[], None] | None = None

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        if not isinstance(event, bus.Webhook):
            return
        call_sid, account_sid = event.fields.get("CallSid", ""), event.fields.get("AccountSid", "")
        match event.kind:
            case "status" | "stream" if self._is_foreign(event):
                self._refuse(event.kind, call_sid, account_sid)
            case "status" if call_sid and event.fields.get("CallStatus") in CALL_OVER:
                self._calls.on_over(call_sid)
                self._on_call_over(call_sid)
                self._spawn(call_sid, account_sid)
            case "action" if call_sid and event.fields.get("CallStatus") in CALL_OVER and not self._is_foreign(event):
                self._calls.on_over(call_sid)
            case "stream" if event.fields.get("StreamEvent") == "stream-error":
                text = event.fields.get("StreamError", "")
                log.warning(
                    "Twilio reports a stream error: %s", text[:300], extra={"call_sid": call_sid, "reason": "stream_error"}
                )
            case _:
                pass

    def on_stored(self, event: bus.Event) -> None:
        """The store has the event, and the spool still has it. Idempotent. Raises StoreUnavailable or SpoolError."""
        if not isinstance(event, bus.Webhook) or not (call_sid := event.fields.get("CallSid", "")):
            return
        try:
            if event.kind == "recording":
                self._on_recording(call_sid, event.fields)
            elif event.kind == "status" and not (self._calls.is_over(call_sid) or self._is_foreign(event)):
                self.on_event(event)  # spooled by an earlier process
        except (StoreUnavailable, SpoolError):
            raise
        except GatewayError as error:
            log.error("a webhook could not be acted on: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # a boundary: one webhook must not block the spool behind it
            log.exception("a webhook could not be acted on", extra={"call_sid": call_sid})

    def start(self) -> None:
        """Take up, once, the ends that an earlier process did not act on."""
        self._starter = gevent.spawn(self._take_up)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop every greenlet; ends under way are found at the next start."""
        for greenlet in (self._starter, self._looker):
            if greenlet is not None:
                greenlet.kill(timeout=timeout_s)
        self._grace.kill(timeout=timeout_s)

    def _take_up(self) -> None:
        gevent.sleep(TAKE_UP_S)
        while True:
            try:
                reported = self._store.statuses_of_open_calls()
                break
            except StoreError as error:
                log.debug("ends of calls cannot be looked for yet: %s", error)
                gevent.sleep(RETRY_S)
        over = {(sid, str(fields.get("AccountSid") or "")) for sid, fields in reported if fields.get("CallStatus") in CALL_OVER}
        for call_sid, account_sid in over:
            if not self._calls.is_over(call_sid):
                self._spawn(call_sid, account_sid)

    def _is_foreign(self, event: bus.Webhook) -> bool:
        return self._calls.is_foreign(event.fields.get("CallSid", ""), event.fields.get("AccountSid", ""))

    def _refuse(self, kind: str, call_sid: str, account_sid: str) -> None:
        self._on_foreign(kind)
        log.warning(
            "a %s webhook of another account is ignored: %s",
            kind,
            account_sid,
            extra={"call_sid": call_sid, "reason": "wrong_account"},
        )

    def _spawn(self, call_sid: str, account_sid: str) -> None:
        if len(self._grace) + len(self._ending) >= MAX_ENDING:
            log.warning(
                "too many calls end at the same time: this call's row waits for the next start", extra={"call_sid": call_sid}
            )
            return
        self._grace.spawn(self._after_grace, call_sid, account_sid)

    def _after_grace(self, call_sid: str, account_sid: str) -> None:
        """Hang up a call that is still alive at a worker. Leave any other to the looks at its row."""
        gevent.sleep(GRACE_S)
        if self._calls.is_owned(call_sid):
            log.info("the call was completed from outside", extra={"call_sid": call_sid})
            self._hang_up(call_sid, str(Reason.ADMIN_HANGUP))
            return
        self._ending[call_sid] = _Ending(sum(self._spooled()), account_sid)
        if not self._looker:
            self._looker = gevent.spawn(self._look_at_rows)

    def _look_at_rows(self) -> None:
        """Look at the rows of all ending calls until each is settled, with one query a look. The greenlet's body."""
        while self._ending:
            wait_s = LOOK_S
            stored = self._spooled()[0]  # read before the rows
            asked = dict(self._ending)
            rows: dict[str, CallEnd] | None = None
            is_refused = False
            try:
                rows = self._store.ends_of_calls(list(asked))
            except StoreUnavailable as error:
                log.debug("the rows of ending calls cannot be read yet: %s", error)
                wait_s = AWAY_S
            except StoreError as error:
                log.warning("the ends of %d calls could not be handled: %s", len(asked), error, extra={"reason": error.code})
                is_refused = True
            for call_sid, ending in asked.items():
                if is_refused or self._is_settled(call_sid, ending, rows, stored):
                    del self._ending[call_sid]
            gevent.sleep(wait_s)

    def _is_settled(self, call_sid: str, ending: _Ending, rows: Mapping[str, CallEnd] | None, stored: int) -> bool:
        """Judge one look at a call's row, and end a row that is open. `rows`: None while the store is away."""
        if rows is None:
            ending.is_theirs = False  # its gateway could not end it either
        else:
            row = rows.get(call_sid)
            if row is not None and row.ended_at is not None:
                return True
            if row is not None and self._calls.differ(row.account_sid or "", ending.account_sid):
                self._refuse("status", call_sid, ending.account_sid)
                return True
            ending.is_theirs = row is not None and row.gateway != self._gateway
            if stored >= ending.due and not ending.is_theirs:
                if row is not None:
                    self._on_lost({call_sid})
                return True
        ending.looks += 1
        if ending.looks < MAX_LOOKS:
            return False
        if ending.is_theirs:  # that gateway is gone for longer than a restart takes; a real end from it supersedes this one
            log.warning("ended a call that another gateway left open", extra={"call_sid": call_sid})
            self._on_lost({call_sid})
        else:
            log.warning("a call's end is not known yet: the store lags behind", extra={"call_sid": call_sid})
        return True

    def _on_recording(self, call_sid: str, fields: Mapping[str, str]) -> None:
        reported = recording_outcome(fields)
        if reported is None:
            log.debug("a recording status without an outcome for the row", extra={"call_sid": call_sid})
            return
        outcome, extra = reported
        account_sid = fields.get("AccountSid", "")
        row = self._store.recording(call_sid)
        if row is not None and self._calls.differ(row.account_sid or "", account_sid):
            self._refuse("recording", call_sid, account_sid)
            return
        if not self._rows.write_once(call_sid, outcome, **extra):
            log.info("a recording status changed no row", extra={"call_sid": call_sid})
