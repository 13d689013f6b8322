"""Starts each call's recording exactly once, and sees every row through to its end.

Acts what `recording_course` decides: claims the row under its unique key, asks Twilio, waits, asks again, settles. One greenlet
per recording under way, in a bounded pool; requests to Twilio share fewer places, for Twilio limits concurrency. What the pool
cannot take, what an earlier process left half done and what no webhook settled is found by the reconcile pass, which reads the
unsettled rows: the spool has every wish, and the forwarder makes a row `wanted` of it.

The claim is the store's; where that cannot be reached within a second it is kept in the spool (`spool_claims`), and Twilio's list
decides whether there is a recording already. While Twilio is down (`breaker`) nobody is asked, and recordings wait as long as
their calls live. Never asked by anything but the event, the pass and the operator; nothing else starts a recording.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import gevent.pool
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.config import Config
from gw.control.recording import lifecycle as course
from gw.control.recording.claims import Claims
from gw.control.recording.lifecycle import Claim, Claimed, ClaimHere, Course, Leave, Left, Reclaim
from gw.control.recording.rows import NO_CREDENTIALS, RecordingRows
from gw.control.recording.rules import Create, Later, List, Settle
from gw.control.spool import SpoolError
from gw.control.store import HeldClaim, Store, StoreError, StoreUnavailable
from gw.control.twilio_api.answers import Listed, RestError, Started
from gw.control.twilio_api.circuit_breaker import CircuitBreaker
from gw.control.twilio_api.rest import TwilioRest
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Recordings under way at once, most of them waiting. Beyond it the reconcile pass takes over.
MAX_EFFORTS: Final = 2000
#: Requests to Twilio at once: more would meet 20429.
REST_CONCURRENCY: Final = 16
#: Ends of calls that are remembered: a recording left waiting is not begun after it.
MAX_OVER: Final = 10_000
#: A store that does not take a claim within this time is away: the caller is talking already.
CLAIM_S: Final = 1.0
#: After the store was away, for so long Twilio's list is asked first: every host has brought its claims by then.
BACK_S: Final = 30.0
#: Between two looks at whether Twilio may be asked again; spread by half.
HOLD_S: Final = 1.0
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
    """`rest` is None without credentials. `owner` names this process's life and begins with its host and a slash.

    `is_owned`: whether a call is alive at a worker of ours; `store_away_s`: when the store was last found away, monotonic.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        rest: TwilioRest | None,
        rows: RecordingRows,
        page: Page,
        *,
        owner: str,
        claims: Claims,
        breaker: CircuitBreaker,
        is_owned: Callable[[str], bool],
        store_away_s: Callable[[], float] = lambda: -BACK_S,
    ) -> None:
        self._channels = config.recording.channels
        self._retry_s = config.recording.retry_s
        self._longest_hold_s = config.media.max_call_s
        self._callback = f"{config.server.public_base}/twilio/recording"
        self._store = store
        self._rest = rest
        self._rows = rows
        self.owner = owner
        self.claimant = owner.rpartition("/")[0] + "/"
        self._claims = claims
        claims.on_conflict = self._on_conflict
        self._breaker = breaker
        self._is_owned = is_owned
        self._store_away_s = store_away_s
        self._away_s = -BACK_S
        self._trigger = page.histogram(declare.RECORDING_TRIGGER)
        self._jobs: dict[str, _Job] = {}
        self._over: dict[str, None] = {}  # calls that are over, oldest first
        self._pool = gevent.pool.Pool(MAX_EFFORTS)
        self._requests = BoundedSemaphore(REST_CONCURRENCY)

    def on_event(self, event: bus.Event) -> None:
        """A subscriber of the bus: returns at once."""
        match event:
            case bus.StartRecording():
                self.want(event.call_sid, event.account_sid, event.first_audio_at, lists=event.resumed)
            case _:
                pass  # a stream's end is not its call's: the stream may come back, at another worker or host

    def on_call_over(self, call_sid: str) -> None:
        """Twilio says that the call is over: nothing new is tried for it."""
        self._over[call_sid] = None
        if len(self._over) > MAX_OVER:
            del self._over[next(iter(self._over))]
        job = self._jobs.get(call_sid)
        if job is not None:
            job.course = course.on_call_over(job.course)

    def is_working_on(self, call_sid: str) -> bool:
        return call_sid in self._jobs

    def want(self, call_sid: str, account_sid: str, first_audio_at: float | None, *, lists: bool = False) -> bool:
        """Record this call, if nobody did. False when it is left to the reconcile pass, or under way.

        `lists`: the wish is an old one, or the call was at another host: somebody may have asked Twilio, so its list decides.
        """
        if call_sid in self._jobs:
            self._rows.count("duplicate")
            return False
        wished = course.wished(time.monotonic(), self._retry_s, lists=lists)
        if call_sid in self._over:  # the worker's pool was full, and Twilio's word was faster
            wished = course.on_call_over(wished)
        return self._spawn(call_sid, account_sid, _Job(wished, first_audio_at))

    def take_up(self, row: dict[str, Any], *, create: bool, state: Left = "claimed") -> bool:
        """Go on with a row in `state` where its owner stopped. Without `create`, only what Twilio has is settled."""
        call_sid = row["call_sid"]
        if call_sid in self._jobs:
            return False
        create = create and call_sid not in self._over
        left = course.left_behind(time.monotonic(), self._retry_s, row["owner"] or "", create=create, state=state)
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
        except (StoreError, SpoolError) as error:
            log.error("a recording waits for the reconcile pass: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the row stays unsettled and the reconcile pass takes it up
            log.exception("a recording's greenlet failed", extra={"call_sid": call_sid})
        finally:
            self._jobs.pop(call_sid, None)

    def _claim(self, call_sid: str, account_sid: str, act: Claim | ClaimHere | Reclaim) -> Claimed:
        """Try to make the row ours. Raises StoreError for what waiting will not mend."""
        if isinstance(act, ClaimHere):
            return self._claim_here(call_sid, account_sid)
        held = self._claims.holds(call_sid)
        asked_s = time.monotonic()
        bound = gevent.Timeout.start_new(CLAIM_S)
        try:
            if isinstance(act, Reclaim):
                states, now = (act.state,), time.time()
                taken = self._store.reclaim_recording(call_sid, self.owner, now, from_owner=act.from_owner, states=states)
            else:
                taken = self._store.claim_recording(call_sid, account_sid, self.owner, time.time())
        except (StoreUnavailable, gevent.Timeout) as error:
            if isinstance(error, gevent.Timeout) and error is not bound:
                raise
            if isinstance(act, Reclaim):  # the next pass finds the row again
                raise StoreUnavailable("the store did not answer in time") from error
            self._away_s = time.monotonic()
            return "away"
        finally:
            bound.close()
        if not taken:
            return "theirs"
        if isinstance(act, Reclaim):
            return "ours"
        if held:
            self._claims.drop(call_sid)
            return "found"
        # another host may have claimed in its spool what the store, which is just back, does not know of yet
        return "found" if asked_s - max(self._away_s, self._store_away_s()) < BACK_S else "ours"

    def _claim_here(self, call_sid: str, account_sid: str) -> Claimed:
        if not self._is_owned(call_sid):
            return "away"
        try:
            self._claims.take(HeldClaim(call_sid, account_sid, self.owner, time.time()))
        except SpoolError as error:
            log.error("a claim cannot be kept: %s", error, extra={"call_sid": call_sid, "reason": error.code})
            return "away"
        log.warning("the store is away: the recording is claimed in the spool", extra={"call_sid": call_sid})
        return "ours"

    def _bring_claims(self) -> None:
        """Before something is created under a claim of the spool's: if the store is back, it says whose the row is."""
        try:
            with gevent.Timeout(CLAIM_S, StoreUnavailable("no answer in time")):
                self._claims.deliver(self._store)
        except (StoreUnavailable, SpoolError):
            pass  # still away: the claim stands here

    def _on_conflict(self, claim: HeldClaim) -> None:
        """The store is back, and the row of what was claimed here is another host's: it is respected."""
        job = self._jobs.get(claim.call_sid)
        if job is not None:
            job.course = course.on_taken(job.course)
        elif claim.recording_sid:  # two were made: the row will say so
            self._pool.spawn(self._rows.settle, claim.call_sid, Settle("started", claim.recording_sid))

    def _see_through(self, call_sid: str, account_sid: str, job: _Job) -> None:
        """Act until the course says how it ended, then settle the row."""
        while True:
            act = job.course.act
            if isinstance(act, Leave | Later):
                self._leave(call_sid, act)
                return
            if isinstance(act, Claim | ClaimHere | Reclaim):
                claimed = self._claim(call_sid, account_sid, act)  # meanwhile the course may hear that the call is over
                job.course = course.on_claim(job.course, claimed, time.monotonic())
                continue
            if self._rest is None:
                self._rows.settle(call_sid, _NO_CREDENTIALS)
                return
            if isinstance(act, Settle):
                break
            gevent.sleep(act.after_s)
            if not self._ask_when_due(self._rest, call_sid, job):
                log.warning("a recording waits until Twilio is back: its call is over", extra={"call_sid": call_sid})
                return
        extra: dict[str, Any] = {"attempts": job.requests}
        if job.trigger_s is not None:
            extra["trigger_ms"] = round(job.trigger_s * 1000)
        if self._rows.settle(call_sid, act, **extra):
            _log_end(call_sid, act, job)
        elif self._claims.holds(call_sid):
            self._claims.note(call_sid, act.recording_sid)

    def _ask_when_due(self, rest: TwilioRest, call_sid: str, job: _Job) -> bool:
        """Ask Twilio what the course wants asked, if it still does. While Twilio is down that waits, as long as the call lives.

        Returns False where the call ended meanwhile: the row is left to the pass.
        """
        held_s = 0.0
        while True:
            with self._requests:
                if isinstance(job.course.act, Create) and self._claims.holds(call_sid):
                    self._bring_claims()
                job.course = course.when_due(job.course, owned=self._is_owned(call_sid))
                act = job.course.act
                if not isinstance(act, Create | List):
                    return True
                if self._breaker.may_ask(time.monotonic()):
                    job.course = course.on_held(job.course, held_s)
                    outcome = self._ask(rest, call_sid, job, act)
                    job.course = course.on_answer(job.course, outcome, time.monotonic(), random.random())
                    return True
            if job.course.effort.call_over or held_s > self._longest_hold_s:
                return False
            wait_s = HOLD_S * random.uniform(0.5, 1.5)
            gevent.sleep(wait_s)
            held_s += wait_s

    def _leave(self, call_sid: str, act: Leave | Later) -> None:
        if isinstance(act, Later):
            log.warning(
                "a recording waits for the reconcile pass: Twilio gave no clear answer: %s",
                act.error_text,
                extra={"call_sid": call_sid, **_reason(act.error_code)},
            )
        elif act.why == "duplicate":
            self._rows.count("duplicate")
        elif act.why == "store_away":
            log.error(
                "a recording waits for the reconcile pass: store and spool are away",
                extra={"call_sid": call_sid, "reason": act.why},
            )

    def _ask(self, rest: TwilioRest, call_sid: str, job: _Job, action: Create | List) -> Started | list[Listed] | RestError:
        try:
            answer: Started | list[Listed]
            if isinstance(action, List):
                answer = rest.list_recordings(call_sid)
            else:
                job.requests += 1
                if job.requests == 1 and job.first_audio_at is not None:
                    job.trigger_s = max(0.0, time.time() - job.first_audio_at)
                    self._trigger.observe(job.trigger_s)
                answer = rest.start_recording(call_sid, channels=self._channels, status_callback=self._callback)
        except RestError as error:
            self._breaker.on_error(error.kind, str(error), time.monotonic())
            level = logging.ERROR if error.kind == "unauthorized" else logging.WARNING
            log.log(level, "Twilio: %s", error, extra={"call_sid": call_sid, "reason": error.kind})
            return error
        self._breaker.on_answer()
        return answer


def _log_end(call_sid: str, settle: Settle, job: _Job) -> None:
    if settle.state == "failed":
        code = settle.error_code
        log.error("no recording after %d requests: %s", job.requests, code, extra={"call_sid": call_sid, **_reason(code)})
    else:
        log.info("recording %s is %s", settle.recording_sid, settle.state, extra={"call_sid": call_sid})


def _reason(label: str) -> dict[str, str]:
    """A row's short word as a line of the log has it: Twilio's numbers are no words of ours."""
    return {"reason": "twilio_error", "code": label} if label.isdecimal() else {"reason": label}
