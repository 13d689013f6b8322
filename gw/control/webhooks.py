"""What control does when Twilio says something about a recording, a call or a stream.

The webhook itself is in the spool by then; this is about its meaning. A recording's status settles its row. A call's end is left
to the stream's own `stop` for a moment; if the call is still alive at a worker then, it was completed by REST, and the worker is
told. If no worker has it and its row is open, although the store has taken all that the spool held by then, the row is ended;
another host's row is that host's to end, and is ended here only when it does not for a minute. A stream's error is logged. Fields
may be missing, unknown or wrong: what cannot be used is passed over. Never answers Twilio, never waits in the subscriber.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import gevent
import gevent.pool

from gw import bus
from gw.call.state import Reason
from gw.control.recording_rows import RecordingRows
from gw.control.recording_rules import OUR_SOURCE, Settle
from gw.control.store import Store, StoreError

log = logging.getLogger(__name__)

#: Twilio's `stop` normally ends the call within this time of the status callback.
GRACE_S: Final = 2.0
#: Between two looks at a row whose end may still be in a spool, and how many; a row still open then is found at the next start.
LOOK_S: Final = 1.0
MAX_LOOKS: Final = 60
#: Webhooks being acted on, most of them waiting for the grace. Beyond it the reconcile pass settles recordings.
MAX_WEBHOOKS: Final = 2000

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


class Webhooks:
    """A subscriber of the bus."""

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

    def on_event(self, event: bus.Event) -> None:
        """Returns at once."""
        if not isinstance(event, bus.Webhook):
            return
        call_sid = event.fields.get("CallSid", "")
        match event.kind:
            case "recording" if call_sid:
                self._spawn(call_sid, self._on_recording, event.fields)
            case "status" if call_sid and event.fields.get("CallStatus") in CALL_OVER:
                self._on_call_over(call_sid)
                self._spawn(call_sid, self._on_call_end, event.fields)
            case "stream" if event.fields.get("StreamEvent") == "stream-error":
                text = event.fields.get("StreamError", "")
                log.warning(
                    "Twilio reports a stream error: %s", text[:300], extra={"call_sid": call_sid, "reason": "stream_error"}
                )
            case _:
                pass

    def stop(self, timeout_s: float = 2.0) -> None:
        self._pool.kill(timeout=timeout_s)

    def _spawn(self, call_sid: str, work: Callable[[str, Mapping[str, str]], None], fields: Mapping[str, str]) -> None:
        if self._pool.full():
            log.warning("too many webhooks at once: this one is left to the passes", extra={"call_sid": call_sid})
            return
        self._pool.spawn(self._run, call_sid, work, fields)

    def _run(self, call_sid: str, work: Callable[[str, Mapping[str, str]], None], fields: Mapping[str, str]) -> None:
        try:
            work(call_sid, fields)
        except StoreError as error:
            log.warning("a webhook could not be acted on: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the webhook itself is kept
            log.exception("a webhook could not be acted on", extra={"call_sid": call_sid})

    def _on_recording(self, call_sid: str, fields: Mapping[str, str]) -> None:
        said = recording_settle(fields)
        if said is None:
            log.debug("a recording status that says nothing of ours", extra={"call_sid": call_sid})
            return
        settle, extra = said
        if not self._rows.settle(call_sid, settle, **extra):
            log.info("a recording status changed no row", extra={"call_sid": call_sid})

    def _on_call_end(self, call_sid: str, _fields: Mapping[str, str]) -> None:
        gevent.sleep(GRACE_S)
        if self._calls.is_owned(call_sid):
            log.info("the call was completed from outside", extra={"call_sid": call_sid})
            self._calls.hang_up(call_sid, str(Reason.ADMIN_HANGUP))
            return
        wanted = sum(self._spooled())
        for _ in range(MAX_LOOKS):
            all_told = self._spooled()[0] >= wanted  # asked before the row is read
            row = self._store.call(call_sid)
            if row is not None and row["ended_at"] is not None:
                return
            theirs = row is not None and row["host"] != self._host
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
