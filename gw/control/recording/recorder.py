"""Starts each call's recording exactly once, and continues until an outcome is written.

Takes the actions that `lifecycle` decides: claims the row under its unique key, asks Twilio, waits, retries, writes the outcome.
One greenlet per recording under way, in a bounded pool; requests for one account share fewer slots, because Twilio limits their
concurrency. The reconcile pass takes up the rest from the unsettled rows: recordings beyond the pool's bound, those an earlier
process left half done, those whose status callback never came. The spool has every wish, and its forwarder makes a `wanted` row
of each.

The claim is the store's. If the store cannot be reached within a second, the claim is kept in the spool (`claims`), and Twilio's
list decides whether there is a recording already. While Twilio is down for an account (`CircuitBreaker`) no request is sent, and
its recordings wait as long as their calls live. Only the event, the reconcile pass and the operator start recordings; no other
code does.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

import gevent
import gevent.pool

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.config import REPEATED, Config
from gw.control.recording import lifecycle
from gw.control.recording.claims import Claims
from gw.control.recording.lifecycle import (
    CALL_OVER,
    Claim,
    ClaimHere,
    ClaimResult,
    Create,
    Later,
    Leave,
    Lifecycle,
    List,
    Outcome,
    Reclaim,
)
from gw.control.recording.rows import NO_CREDENTIALS, RecordingRows
from gw.control.rows import RecordingRow
from gw.control.spool import SpoolError
from gw.control.store import HeldClaim, RecordingFields, Store, StoreError, StoreUnavailable, claimant_of
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import Listed, RestError, Started
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

#: Recordings under way at the same time, most of them waiting. The reconcile pass takes up the rest.
MAX_EFFORTS: Final = 2000
#: A store that does not take a claim within this time is away: the caller is already talking.
CLAIM_S: Final = 1.0
#: For this long after the store was away, Twilio's list is asked first; by then every host has delivered its claims.
BACK_S: Final = 30.0
#: Between two checks whether Twilio may be asked again; spread by half.
HOLD_S: Final = 1.0
_NO_CREDENTIALS: Final = Outcome("failed", error_code=NO_CREDENTIALS, error_text="no Twilio credentials are configured")


class _Job:
    """One recording under way."""

    __slots__ = ("first_audio_at", "lifecycle", "requests", "trigger_s")

    def __init__(self, at: Lifecycle, first_audio_at: float | None, requests: int = 0) -> None:
        self.lifecycle = at  # replaced by every greenlet that has news
        self.first_audio_at = first_audio_at
        self.requests = requests
        self.trigger_s: float | None = None  # from the first audio to the first request, if this process sent that request


class Recorder:
    """Starter of recordings, one per control process.

    `owner` names this process's life, as `CLAIMANT/PROCESS`.
    `is_owned`: whether a call is alive at a worker of this host; `is_over`: whether Twilio reported its end.
    `store_away_s`: when the store was last found away, monotonic. `is_concealed`: whether no recording of the call may start now.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        accounts: Accounts,
        rows: RecordingRows,
        page: Page,
        *,
        owner: str,
        claims: Claims,
        is_owned: Callable[[str], bool],
        is_over: Callable[[str], bool],
        store_away_s: Callable[[], float] = lambda: -BACK_S,
        is_concealed: Callable[[str], bool] = lambda call_sid: False,
    ) -> None:
        self._channels = config.recording.channels
        self._retry_s = config.recording.retry_s
        self._longest_hold_s = config.media.max_call_s
        self._callback = f"{config.server.public_base}/twilio/recording{REPEATED}"
        self._store = store
        self._accounts = accounts
        self._rows = rows
        self.owner = owner
        self.claimant = claimant_of(owner)
        self._claims = claims
        claims.on_conflict = self._on_conflict
        self._is_owned = is_owned
        self._is_over = is_over
        self._store_away_s = store_away_s
        self._is_concealed = is_concealed
        self._creating: set[str] = set()  # calls of which a create is under way
        self._away_s = -BACK_S
        self._trigger = page.histogram(declare.RECORDING_TRIGGER)
        self._jobs: dict[str, _Job] = {}
        self._pool = gevent.pool.Pool(MAX_EFFORTS)

    def on_event(self, event: bus.Event) -> None:
        """Subscriber of the bus: returns immediately."""
        match event:
            case bus.StartRecording():
                self.want(event.call_sid, event.account_sid, event.first_audio_at, lists=event.resumed)
            case _:
                pass  # the end of a stream is not the end of its call: the stream may resume, at another worker or host

    def on_call_over(self, call_sid: str) -> None:
        """Twilio reports the call's end: nothing new is tried for it."""
        job = self._jobs.get(call_sid)
        if job is not None:
            job.lifecycle = job.lifecycle.on_call_over()

    @property
    def is_full(self) -> bool:
        """True while as many recordings are under way as may be."""
        return self._pool.full()

    def is_creating(self, call_sid: str) -> bool:
        """Return whether Twilio is being asked for the call's recording."""
        return call_sid in self._creating

    def is_working_on(self, call_sid: str) -> bool:
        """Return whether the call's recording is under way in this process."""
        return call_sid in self._jobs

    def want(self, call_sid: str, account_sid: str, first_audio_at: float | None, *, lists: bool = False) -> bool:
        """Record a call, unless its recording is claimed. Returns False when under way, or left to the reconcile pass.

        `lists`: the wish is old, or the call was at another host: Twilio may have been asked, so its list decides.
        """
        if call_sid in self._jobs:
            self._rows.count("duplicate")
            return False
        at = lifecycle.begin(time.monotonic(), self._retry_s, lists=lists)
        if self._is_over(call_sid):  # the worker's pool was full, and Twilio's report of the end came first
            at = at.on_call_over()
        return self._spawn(call_sid, account_sid, _Job(at, first_audio_at))

    def take_up(self, row: RecordingRow, *, create: bool) -> bool:
        """Continue a claimed or failed row where its owner stopped. Without `create`, only an existing recording is looked for.

        Returns False when under way, or left to the reconcile pass.
        """
        if row.call_sid in self._jobs:
            return False
        at = lifecycle.resume_claim(
            time.monotonic(),
            self._retry_s,
            row.owner or "",
            create=create and not self._is_over(row.call_sid),
            state="failed" if row.state == "failed" else "claimed",
        )
        return self._spawn(row.call_sid, row.account_sid or "", _Job(at, row.first_audio_at, row.attempts))

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop every recording under way; the rows stay unsettled, for the next start."""
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
            self._work(call_sid, account_sid, job)
        except (StoreError, SpoolError) as error:
            log.error("a recording waits for the reconcile pass: %s", error, extra={"call_sid": call_sid, "reason": error.code})
        except Exception:  # this greenlet's top: the row stays unsettled and the reconcile pass takes it up
            log.exception("a recording's greenlet failed", extra={"call_sid": call_sid})
        finally:
            self._jobs.pop(call_sid, None)

    def _claim(self, call_sid: str, account_sid: str, action: Claim | ClaimHere | Reclaim) -> ClaimResult:
        """Try to claim the row. Raises StoreError for a failure that waiting does not repair."""
        if isinstance(action, ClaimHere):
            return self._claim_here(call_sid, account_sid)
        held = self._claims.holds(call_sid)
        asked_s = time.monotonic()
        try:
            with within(CLAIM_S):
                if isinstance(action, Reclaim):
                    claimed = self._store.reclaim_recording(
                        call_sid, self.owner, time.time(), from_owner=action.from_owner, states=(action.state,)
                    )
                else:
                    claimed = self._store.claim_recording(call_sid, account_sid, self.owner, time.time())
        except (StoreUnavailable, OutOfTimeError) as error:
            if isinstance(action, Reclaim):  # the next pass finds the row again
                raise StoreUnavailable("the store did not answer in time") from error
            self._away_s = time.monotonic()
            return "away"
        if not claimed:
            return "theirs"
        if isinstance(action, Reclaim):
            return "ours"
        if held:
            self._claims.drop(call_sid)
            return "found"
        # another host may hold a claim in its spool that the store, just back, does not have yet
        return "found" if asked_s - max(self._away_s, self._store_away_s()) < BACK_S else "ours"

    def _claim_here(self, call_sid: str, account_sid: str) -> ClaimResult:
        if not self._is_owned(call_sid):
            return "away"
        try:
            self._claims.take(HeldClaim(call_sid, account_sid, self.owner, time.time()))
        except SpoolError as error:
            log.error("a claim cannot be kept: %s", error, extra={"call_sid": call_sid, "reason": error.code})
            return "away"
        log.warning("the store is away: the recording is claimed in the spool", extra={"call_sid": call_sid})
        return "ours"

    def _deliver_claims(self) -> None:
        """Before a create under a claim in the spool: if the store is back, it decides whose the row is."""
        try:
            with within(CLAIM_S):
                self._claims.deliver(self._store)
        except (StoreUnavailable, OutOfTimeError, SpoolError):
            pass  # still away: the claim in the spool is valid

    def _on_conflict(self, claim: HeldClaim) -> None:
        """The store is back, and the row of a claim made here is another host's, which keeps it."""
        job = self._jobs.get(claim.call_sid)
        if job is not None:
            job.lifecycle = job.lifecycle.on_taken()
        elif claim.recording_sid:  # two were made: the row will name both
            self._pool.spawn(self._rows.write, claim.call_sid, Outcome("started", claim.recording_sid))

    def _work(self, call_sid: str, account_sid: str, job: _Job) -> None:
        """Take one action after the other until the lifecycle ends, then write its outcome."""
        account = self._accounts.of(account_sid)
        if account is None and self._accounts:
            log.error("a recording waits: its account %s is not configured", account_sid, extra={"call_sid": call_sid})
            return
        while True:
            action = job.lifecycle.action
            if isinstance(action, Leave | Later):
                self._leave(call_sid, action)
                return
            if isinstance(action, Claim | ClaimHere | Reclaim):
                result = self._claim(call_sid, account_sid, action)  # meanwhile the call may end
                job.lifecycle = job.lifecycle.on_claim(result, time.monotonic())
                continue
            if account is None:
                self._rows.write(call_sid, _NO_CREDENTIALS)
                return
            if isinstance(action, Outcome):
                break
            gevent.sleep(action.after_s)
            if not self._ask_when_due(account, call_sid, job):
                log.warning("a recording waits until Twilio is back: its call is over", extra={"call_sid": call_sid})
                return
        extra = RecordingFields(attempts=job.requests)
        if job.trigger_s is not None:
            extra["trigger_ms"] = round(job.trigger_s * 1000)
        if self._rows.write(call_sid, action, **extra):
            _log_end(call_sid, action, job)
        elif self._claims.holds(call_sid):
            self._claims.note(call_sid, action.recording_sid)

    def _ask_when_due(self, account: Account, call_sid: str, job: _Job) -> bool:
        """Send the lifecycle's request, if it is still due. While Twilio is down, wait as long as the call lives.

        Returns False when the call ended during that wait: the row is left to the reconcile pass.
        """
        held_s = 0.0
        while True:
            with account.slots:
                if isinstance(job.lifecycle.action, Create) and self._claims.holds(call_sid):
                    self._deliver_claims()
                job.lifecycle = job.lifecycle.when_due(owned=self._is_owned(call_sid))
                action = job.lifecycle.action
                if not isinstance(action, Create | List):
                    return True
                is_concealed = isinstance(action, Create) and self._is_concealed(call_sid)
                if not is_concealed and account.breaker.may_ask(time.monotonic()):
                    job.lifecycle = job.lifecycle.on_held(held_s)
                    answer = self._ask(account, call_sid, job, action)
                    owned = self._is_owned(call_sid)
                    job.lifecycle = job.lifecycle.on_answer(answer, time.monotonic(), random.random(), owned=owned)
                    return True
            if job.lifecycle.call_over or held_s > self._longest_hold_s:
                return False
            wait_s = HOLD_S * random.uniform(0.5, 1.5)
            gevent.sleep(wait_s)
            held_s += wait_s

    def _leave(self, call_sid: str, action: Leave | Later) -> None:
        if isinstance(action, Later):
            log.warning(
                "a recording waits for the reconcile pass: Twilio gave no clear answer: %s",
                action.error_text,
                extra={"call_sid": call_sid, **_reason(action.error_code)},
            )
        elif action.reason == "duplicate":
            self._rows.count("duplicate")
        elif action.reason == "store_away":
            log.error(
                "a recording waits for the reconcile pass: store and spool are away",
                extra={"call_sid": call_sid, "reason": action.reason},
            )

    def _ask(self, account: Account, call_sid: str, job: _Job, action: Create | List) -> Started | list[Listed] | RestError:
        try:
            if isinstance(action, List):
                return account.ask(lambda rest: rest.list_recordings(call_sid))
            job.requests += 1
            if job.requests == 1 and job.first_audio_at is not None:
                job.trigger_s = max(0.0, time.time() - job.first_audio_at)
                self._trigger.observe(job.trigger_s)
            self._creating.add(call_sid)
            try:
                return account.ask(
                    lambda rest: rest.start_recording(call_sid, channels=self._channels, status_callback=self._callback)
                )
            finally:
                self._creating.discard(call_sid)
        except RestError as error:
            hung_up = job.lifecycle.call_over and error.kind in ("not_in_progress", "gone")
            level = logging.ERROR if error.kind == "unauthorized" else logging.INFO if hung_up else logging.WARNING
            log.log(level, "Twilio: %s", error, extra={"call_sid": call_sid, "reason": error.kind})
            return error


def _log_end(call_sid: str, outcome: Outcome, job: _Job) -> None:
    code = outcome.error_code
    if code == CALL_OVER:
        log.info("no recording: the call was over", extra={"call_sid": call_sid, **_reason(code)})
    elif outcome.state == "failed":
        log.error("no recording after %d requests: %s", job.requests, code, extra={"call_sid": call_sid, **_reason(code)})
    else:
        log.info("recording %s is %s", outcome.recording_sid, outcome.state, extra={"call_sid": call_sid})


def _reason(label: str) -> dict[str, str]:
    """A row's error code as fields of a log line: Twilio's numbers go into `code`."""
    return {"reason": "twilio_error", "code": label} if label.isdecimal() else {"reason": label}
