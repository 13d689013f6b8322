"""Starts each call's recording exactly once, and sees every row through to its end.

Acts what `recording_course` decides: claims the row under its unique key, asks Twilio, waits, asks again, settles. One greenlet
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
from typing import Any, Final

import gevent
import gevent.pool
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.config import Config
from gw.control import recording_course as course
from gw.control.recording_course import Claim, Claimed, Course, Leave, Reclaim
from gw.control.recording_rows import NO_CREDENTIALS, RecordingRows
from gw.control.recording_rules import Create, List, Settle
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
_NO_CREDENTIALS: Final = Settle("failed", error_code=NO_CREDENTIALS, error_text="no Twilio credentials are configured")


class _Job:
    """One recording under way."""

    __slots__ = ("course", "first_audio_at", "requests", "trigger_s")

    def __init__(self, at: Course, first_audio_at: float | None, requests: int = 0) -> None:
        self.course = at  # replaced by whoever learns something
        self.first_audio_at = first_audio_at
        self.requests = requests
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
            case _:
                pass  # a stream's end is not its call's: the stream may come back, at another worker or host

    def on_call_over(self, call_sid: str) -> None:
        """Twilio says that the call is over: nothing new is tried for it."""
        job = self._jobs.get(call_sid)
        if job is not None:
            job.course = course.on_call_over(job.course)

    def is_working_on(self, call_sid: str) -> bool:
        return call_sid in self._jobs

    def want(self, call_sid: str, account_sid: str, first_audio_at: float | None) -> bool:
        """Record this call, if nobody did. False when it is left to the reconcile pass, or under way."""
        if call_sid in self._jobs:
            self._rows.count("duplicate")
            return False
        return self._spawn(call_sid, account_sid, _Job(course.wished(time.monotonic(), self._retry_s), first_audio_at))

    def take_up(self, row: dict[str, Any], *, create: bool) -> bool:
        """Go on where a process that is gone stopped. Without `create`, only what Twilio has is settled."""
        call_sid = row["call_sid"]
        if call_sid in self._jobs:
            return False
        left = course.left_behind(time.monotonic(), self._retry_s, row["owner"] or "", create=create)
        return self._spawn(call_sid, row["account_sid"] or "", _Job(left, row["first_audio_at"], row["attempts"] or 0))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Give up what is under way; the rows stay as they are and are taken up at the next start."""
        self._pool.kill(timeout=timeout_s)

    # -- one recording ----------------------------------------------------------------------------------------------------

    def _spawn(self, call_sid: str, account_sid: str, job: _Job) -> bool:
        if self._pool.full():
            log.warning("too many recordings under way: this one waits for the reconcile pass", extra={"call_sid": call_sid})
            return False
        self._jobs[call_sid] = job
        self._pool.spawn(self._run, call_sid, account_sid, job)
        return True

    def _run(self, call_sid: str, account_sid: str, job: _Job) -> None:
        try:
            self._see_through(call_sid, account_sid, job)
        except StoreError as error:
            log.error("a recording waits for the reconcile pass: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the row stays unsettled and the reconcile pass takes it up
            log.exception("a recording's greenlet failed", extra={"call_sid": call_sid})
        finally:
            self._jobs.pop(call_sid, None)

    def _claim(self, call_sid: str, account_sid: str, act: Claim | Reclaim) -> Claimed:
        """Try to make the row ours. Raises StoreError for what waiting will not mend."""
        try:
            if isinstance(act, Reclaim):
                taken = self._store.reclaim_recording(call_sid, self._owner, time.time(), from_owner=act.from_owner)
                return "ours" if taken else "theirs"
            if act.unclear and course.is_claim_of(self._owner, self._store.recording(call_sid)):
                return "found"
            return "ours" if self._store.claim_recording(call_sid, account_sid, self._owner, time.time()) else "theirs"
        except StoreUnavailable:
            if isinstance(act, Reclaim):
                raise  # the next pass finds the row again
            return "away"

    def _see_through(self, call_sid: str, account_sid: str, job: _Job) -> None:
        """Act until the course says how it ended, then settle the row."""
        while True:
            act = job.course.act
            if isinstance(act, Leave):
                self._leave(call_sid, act)
                return
            if isinstance(act, Claim | Reclaim):
                gevent.sleep(act.after_s)
                answer = self._claim(call_sid, account_sid, act)
                job.course = course.on_claim(job.course, answer, time.monotonic(), random.random())
                continue
            if self._rest is None:
                self._rows.settle(call_sid, _NO_CREDENTIALS)
                return
            if not isinstance(act, Settle):
                gevent.sleep(act.after_s)
                job.course = course.when_due(job.course)
                act = job.course.act
            if not isinstance(act, Create | List):
                break
            outcome = self._ask(self._rest, call_sid, job, act)
            job.course = course.on_answer(job.course, outcome, time.monotonic(), random.random())
        assert isinstance(act, Settle), act
        extra: dict[str, Any] = {"attempts": job.requests}
        if job.trigger_s is not None:
            extra["trigger_ms"] = round(job.trigger_s * 1000)
        if self._rows.settle(call_sid, act, **extra):
            _log_end(call_sid, act, job)

    def _leave(self, call_sid: str, act: Leave) -> None:
        if act.why == "duplicate":
            self._rows.count("duplicate")
        elif act.why == "store_away":
            log.error(
                "a recording waits for the reconcile pass: the store is away", extra={"call_sid": call_sid, "reason": act.why}
            )

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


def _log_end(call_sid: str, settle: Settle, job: _Job) -> None:
    if settle.state == "failed":
        code = settle.error_code
        log.error("no recording after %d requests: %s", job.requests, code, extra={"call_sid": call_sid, "reason": code})
    else:
        log.info("recording %s is %s", settle.recording_sid, settle.state, extra={"call_sid": call_sid})
