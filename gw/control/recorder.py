"""Starts each call's recording exactly once, and sees every row through to its end.

Acts what `recording_rules` decides: claims the row under its unique key, asks Twilio, waits, asks again, settles. One greenlet
per recording under way, in a bounded pool; requests to Twilio share fewer places, for Twilio limits concurrency. What the pool
cannot take, what an earlier process left half done and what no webhook settled is found by the reconcile pass, which reads the
unsettled rows: the spool has every wish, and the drainer makes a row `wanted` of it.

The claim needs the store. While the store is away it is tried for `recording.retry_s`; the wish stays in the spool, so the
recording then starts late rather than never. A claim in the local spool, for hosts whose calls no other host can see, would
take its place in `_claim`. Never asked by anything but the event and the pass; nothing else starts a recording.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import gevent.pool
import msgspec
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.config import Config
from gw.control import recording_rules as rules
from gw.control.recording_rows import NO_CREDENTIALS, STORE_WAIT_FIRST_S, STORE_WAIT_LAST_S, RecordingRows
from gw.control.recording_rules import Create, Effort, List, Settle
from gw.control.rest_answers import Listed, RestError, Started
from gw.control.store import Store, StoreError, StoreUnavailable
from gw.control.twilio_rest import TwilioRest
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Recordings under way at once, most of them waiting. Beyond it the reconcile pass takes over.
MAX_EFFORTS: Final = 2000
#: Requests to Twilio at once: more would meet 20429.
REST_CONCURRENCY: Final = 16


class _Job:
    """One recording under way. `over`: the call ended meanwhile."""

    __slots__ = ("first_audio_at", "over", "requests", "trigger_s")

    def __init__(self, first_audio_at: float | None) -> None:
        self.first_audio_at = first_audio_at
        self.over = False
        self.requests = 0
        self.trigger_s: float | None = None  # from the first audio to the first request, where this process sent that


class Recorder:
    """`rest` is None without credentials. `owner` names this process's life and begins with its host and a slash."""

    def __init__(
        self, config: Config, store: Store, rest: TwilioRest | None, rows: RecordingRows, page: Page, *, owner: str
    ) -> None:
        self._channels = config.recording.channels
        self._retry_s = config.recording.retry_s
        self._callback = f"{config.server.public_base}/twilio/recording"
        self._store = store
        self._rest = rest
        self._rows = rows
        self._owner = owner
        self._trigger = page.histogram(declare.RECORDING_TRIGGER)
        self._jobs: dict[str, _Job] = {}
        self._pool = gevent.pool.Pool(MAX_EFFORTS)
        self._requests = BoundedSemaphore(REST_CONCURRENCY)

    def on_event(self, event: bus.Event) -> None:
        """A subscriber of the bus: returns at once."""
        match event:
            case bus.StartRecording():
                self.want(event.call_sid, event.account_sid, event.first_audio_at)
            case bus.CallEnded():
                self.on_call_over(event.call_sid)
            case _:
                pass

    def on_call_over(self, call_sid: str) -> None:
        """The call ended: nothing new is tried for it."""
        job = self._jobs.get(call_sid)
        if job is not None:
            job.over = True

    def is_working_on(self, call_sid: str) -> bool:
        return call_sid in self._jobs

    def want(self, call_sid: str, account_sid: str, first_audio_at: float | None) -> bool:
        """Record this call, if nobody did. False when it is left to the reconcile pass, or under way."""
        if call_sid in self._jobs:
            self._rows.count("duplicate")
            return False
        job = _Job(first_audio_at)
        return self._spawn(call_sid, job, lambda: self._record(call_sid, account_sid, job))

    def take_up(self, row: dict[str, Any], *, create: bool) -> bool:
        """Go on where a process that is gone stopped. Without `create`, only what Twilio has is settled."""
        call_sid = row["call_sid"]
        if call_sid in self._jobs:
            return False
        job = _Job(row["first_audio_at"])
        job.requests = row["attempts"] or 0
        job.over = not create
        return self._spawn(call_sid, job, lambda: self._take_up(call_sid, row["owner"] or "", job))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Give up what is under way; the rows stay as they are and are taken up at the next start."""
        self._pool.kill(timeout=timeout_s)

    # -- one recording ----------------------------------------------------------------------------------------------------

    def _spawn(self, call_sid: str, job: _Job, work: Callable[[], None]) -> bool:
        if self._pool.full():
            log.warning("too many recordings under way: this one waits for the reconcile pass", extra={"call_sid": call_sid})
            return False
        self._jobs[call_sid] = job
        self._pool.spawn(self._run, call_sid, work)
        return True

    def _run(self, call_sid: str, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:
            log.error("a recording waits for the reconcile pass: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the row stays unsettled and the reconcile pass takes it up
            log.exception("a recording's greenlet failed", extra={"call_sid": call_sid})
        finally:
            self._jobs.pop(call_sid, None)

    def _record(self, call_sid: str, account_sid: str, job: _Job) -> None:
        if not self._claim(call_sid, account_sid):
            self._rows.count("duplicate")
            return
        self._see_through(call_sid, job, *rules.begin(time.monotonic(), self._retry_s))

    def _take_up(self, call_sid: str, from_owner: str, job: _Job) -> None:
        if self._store.reclaim_recording(call_sid, self._owner, time.time(), from_owner=from_owner):
            self._see_through(call_sid, job, *rules.resume(time.monotonic(), self._retry_s))

    def _claim(self, call_sid: str, account_sid: str) -> bool:
        """Whether this recording is ours to start. Raises StoreUnavailable when the store stays away, StoreError."""
        deadline_s = time.monotonic() + self._retry_s
        wait_s = STORE_WAIT_FIRST_S
        unclear = False  # an attempt failed with the claim perhaps written: the row then says whose it is
        while True:
            try:
                if unclear:
                    row = self._store.recording(call_sid)
                    if row is not None and row["owner"] == self._owner:
                        return True
                return self._store.claim_recording(call_sid, account_sid, self._owner, time.time())
            except StoreUnavailable:
                unclear = True
                if time.monotonic() + wait_s > deadline_s:
                    raise
            gevent.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(STORE_WAIT_LAST_S, wait_s * 2)

    def _see_through(self, call_sid: str, job: _Job, effort: Effort, action: rules.Action) -> None:
        """Act until the table says how it ended, then settle the row."""
        rest = self._rest
        if rest is None:
            self._rows.settle(
                call_sid, Settle("failed", error_code=NO_CREDENTIALS, error_text="no Twilio credentials are configured")
            )
            return
        while True:
            if not isinstance(action, Settle):
                gevent.sleep(action.after_s)
                action = rules.revise(_follow(effort, job), action)
            if isinstance(action, Settle):
                break
            outcome = self._ask(rest, call_sid, job, action)
            effort, action = rules.decide(_follow(effort, job), outcome, time.monotonic(), random.random())
        extra: dict[str, Any] = {"attempts": job.requests}
        if job.trigger_s is not None:
            extra["trigger_ms"] = round(job.trigger_s * 1000)
        self._rows.settle(call_sid, action, **extra)
        _log_end(call_sid, action, job)

    def _ask(self, rest: TwilioRest, call_sid: str, job: _Job, action: Create | List) -> Started | list[Listed] | RestError:
        with self._requests:
            try:
                if isinstance(action, List):
                    return rest.list_recordings(call_sid)
                job.requests += 1
                if job.requests == 1 and job.first_audio_at is not None:
                    job.trigger_s = max(0.0, time.time() - job.first_audio_at)
                    self._trigger.observe(job.trigger_s)
                return rest.start_recording(call_sid, channels=self._channels, status_callback=self._callback)
            except RestError as error:
                level = logging.ERROR if error.kind == "unauthorized" else logging.WARNING
                log.log(level, "Twilio: %s", error, extra={"call_sid": call_sid, "reason": error.kind})
                return error


def _follow(effort: Effort, job: _Job) -> Effort:
    """The effort with what became known of the call meanwhile."""
    return msgspec.structs.replace(effort, call_over=True) if job.over and not effort.call_over else effort


def _log_end(call_sid: str, settle: Settle, job: _Job) -> None:
    if settle.state == "failed":
        code = settle.error_code
        log.error("no recording after %d requests: %s", job.requests, code, extra={"call_sid": call_sid, "reason": code})
    else:
        log.info("recording %s is %s", settle.recording_sid, settle.state, extra={"call_sid": call_sid})
