"""What control does when Twilio says something about a recording, a call or a stream.

The webhook itself is in the spool by then; this is about its meaning. A recording's status settles its row before the webhook
leaves the spool, so that no end of this process comes between. A call's end is left to the stream's own `stop` for a moment; if
the call is still alive at a worker then, it was completed by REST, and the worker is told. If no worker has it and its row is
open, although the store has taken all that the spool held by then, the row is ended; another host's row is that host's to end,
and is ended here only when it does not for a minute. Ends that an earlier process heard of and did not see through are taken up
at the start. A stream's error is logged. Fields may be missing, unknown or wrong: what cannot be used is passed over. Never
answers Twilio, never waits in the subscriber.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import gevent
import gevent.pool

from gw import bus
from gw.call.state import Reason
from gw.control.recording.rows import RecordingRows
from gw.control.recording.rules import OUR_SOURCE, Settle
from gw.control.store import Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

#: Twilio's `stop` normally ends the call within this time of the status callback.
GRACE_S: Final = 2.0
#: Between two looks at a row whose end may still be in a spool, and how many; a row still open then is found at the next start.
LOOK_S: Final = 1.0
MAX_LOOKS: Final = 60
#: The same after a look for which the store was away: many may look, and a store that is back is the forwarder's first.
AWAY_S: Final = 5.0
#: Ends of calls being seen to, most of them waiting for the grace. Beyond it they are found at the next start.
MAX_WEBHOOKS: Final = 2000
#: Ends of calls that are remembered: what the spool tells of once more is not new.
MAX_HEARD: Final = 10_000
#: From the start until ends that an earlier process heard of are looked for: the workers say within it what they own.
TAKE_UP_S: Final = 10.0
#: Between tries while the store is away.
RETRY_S: Final = 1.0

#: CallStatus values after which a call is over. Source: Twilio, Voice status callbacks.
CALL_OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


class Calls(Protocol):
    """What the bus offers here."""

    def is_owned(self, call_sid: str) -> bool: ...

    def hang_up(self, call_sid: str, reason: str) -> bool: ...


def recording_settle(fields: Mapping[str, str]) -> tuple[Settle, dict[str, Any]] | None:
    """What a recording status says of the row: its outcome and further fields. None where it says nothing of ours.

    Source: Twilio, RecordingStatusCallback: in-progress | completed | absent.
    """
    sid = fields.get("RecordingSid", "")
    if fields.get("RecordingSource", OUR_SOURCE) != OUR_SOURCE:
        return None
    extra: dict[str, Any] = {}
    if fields.get("RecordingUrl"):
        extra["url"] = fields["RecordingUrl"]
    channels = _number(fields.get("RecordingChannels"))
    if channels is not None:
        extra["channels"] = channels
    match fields.get("RecordingStatus"):
        case "in-progress":
            return Settle("started", sid), extra
        case "completed":
            duration_s = _number(fields.get("RecordingDuration"))
            return Settle("completed", sid, -1 if duration_s is None else duration_s), extra
        case "absent":
            return Settle("absent", sid, error_code=fields.get("ErrorCode") or "absent"), extra
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
        host: str,
        on_call_over: Callable[[str], None],
        on_lost: Callable[[set[str]], None],
        spooled: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        """`spooled`: how many events of the spool the store has taken since the start, and how many wait in it."""
        self._store = store
        self._rows = rows
        self._calls = calls
        self._host = host
        self._on_call_over = on_call_over
        self._on_lost = on_lost
        self._spooled = spooled
        self._pool = gevent.pool.Pool(MAX_WEBHOOKS)
        self._heard: dict[str, None] = {}  # calls whose end was heard of, oldest first
        self._starter: gevent.Greenlet[[], None] | None = None

    def on_event(self, event: bus.Event) -> None:
        """Returns at once."""
        if not isinstance(event, bus.Webhook):
            return
        call_sid = event.fields.get("CallSid", "")
        match event.kind:
            case "status" if call_sid and event.fields.get("CallStatus") in CALL_OVER:
                self._heard[call_sid] = None
                if len(self._heard) > MAX_HEARD:
                    del self._heard[next(iter(self._heard))]
                self._on_call_over(call_sid)
                self._spawn(call_sid)
            case "stream" if event.fields.get("StreamEvent") == "stream-error":
                text = event.fields.get("StreamError", "")
                log.warning(
                    "Twilio reports a stream error: %s", text[:300], extra={"call_sid": call_sid, "reason": "stream_error"}
                )
            case _:
                pass

    def on_stored(self, event: bus.Event) -> None:
        """The store has the event, the spool still. Told again, nothing more happens. Raises StoreUnavailable."""
        if not isinstance(event, bus.Webhook) or not (call_sid := event.fields.get("CallSid", "")):
            return
        try:
            if event.kind == "recording":
                self._on_recording(call_sid, event.fields)
            elif event.kind == "status" and call_sid not in self._heard:  # spooled by an earlier process
                self.on_event(event)
        except StoreUnavailable:
            raise
        except StoreError as error:
            log.error("a webhook could not be acted on: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # a boundary: one webhook must not hold up all that waits behind it
            log.exception("a webhook could not be acted on", extra={"call_sid": call_sid})

    def start(self) -> None:
        """See to the ends of which an earlier process heard, once."""
        self._starter = gevent.spawn(self._take_up)

    def stop(self, timeout_s: float = 2.0) -> None:
        if self._starter is not None:
            self._starter.kill(timeout=timeout_s)
        self._pool.kill(timeout=timeout_s)

    def _take_up(self) -> None:
        gevent.sleep(TAKE_UP_S)
        while True:
            try:
                told = self._store.statuses_of_open_calls()
                break
            except StoreError as error:
                log.debug("ends of calls cannot be looked for yet: %s", error)
                gevent.sleep(RETRY_S)
        for call_sid in {call_sid for call_sid, fields in told if fields.get("CallStatus") in CALL_OVER}:
            if call_sid not in self._heard:
                self._spawn(call_sid)

    def _spawn(self, call_sid: str) -> None:
        if self._pool.full():
            log.warning("too many calls end at once: this one's row is left to the next start", extra={"call_sid": call_sid})
            return
        self._pool.spawn(self._see_to_end, call_sid)

    def _see_to_end(self, call_sid: str) -> None:
        try:
            self._on_call_end(call_sid)
        except StoreError as error:
            log.warning("a call's end could not be seen to: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the webhook itself is kept
            log.exception("a call's end could not be seen to", extra={"call_sid": call_sid})

    def _on_recording(self, call_sid: str, fields: Mapping[str, str]) -> None:
        said = recording_settle(fields)
        if said is None:
            log.debug("a recording status that says nothing of ours", extra={"call_sid": call_sid})
            return
        settle, extra = said
        if not self._rows.settle_once(call_sid, settle, **extra):
            log.info("a recording status changed no row", extra={"call_sid": call_sid})

    def _on_call_end(self, call_sid: str) -> None:
        gevent.sleep(GRACE_S)
        if self._calls.is_owned(call_sid):
            log.info("the call was completed from outside", extra={"call_sid": call_sid})
            self._calls.hang_up(call_sid, str(Reason.ADMIN_HANGUP))
            return
        wanted = sum(self._spooled())
        theirs = False
        for _ in range(MAX_LOOKS):
            all_told = self._spooled()[0] >= wanted  # asked before the row is read
            try:
                row = self._store.call(call_sid)
            except StoreUnavailable as error:
                log.debug("a call's row cannot be looked at yet: %s", error, extra={"call_sid": call_sid})
                theirs = False  # its host could not end it either
                gevent.sleep(AWAY_S)
                continue
            if row is not None and row.ended_at is not None:
                return
            theirs = row is not None and row.host != self._host
            if all_told and not theirs:
                if row is not None:
                    self._on_lost({call_sid})
                return
            gevent.sleep(LOOK_S)
        if theirs:  # it is gone for longer than it takes to come back; a real end it may still tell of supersedes this
            log.warning("a call of another host is ended in its name", extra={"call_sid": call_sid})
            self._on_lost({call_sid})
            return
        log.warning("a call's end is not known yet: the store lags behind", extra={"call_sid": call_sid})


def _number(value: str | None) -> int | None:
    """A count out of a form field; None where there is none that a column takes."""
    return int(value) if value is not None and value.isascii() and value.isdecimal() and len(value) < 10 else None
