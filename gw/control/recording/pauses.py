"""Pauses of a call's recording: while the caller types sensitive digits, and by an operator.

A pause for digits is two jobs, `CA.../pause/N` and `CA.../resume/N`, each on disk before it acts.

| order | guarantees |
|---|---|
| the pause is done before a digit counts | no digit that the agent uses is recorded; if Twilio does not pause, the tool fails |
| a create waits for the end of a pause, a pause for the create | a recording that starts late does not hear the digits |
| a pause that finds its resume on disk does nothing | a late pause does not outlive its end |
| the end of a stream, also of a dead worker, adds the resume in its own commit | no recording stays paused, whatever dies |
| a resume is repeated until Twilio confirms it, or the call is over | the same while Twilio is down |

An operator's pause stays until the operator's resume: digits typed meanwhile do not end it. `gateway.py verify guard` explores
all orders of these steps. Digits typed before a pause is done are on the recording, and do not count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Literal

import gevent
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Again, Ended, Job, Outcome
from gw.control.jobs.service import Disk
from gw.control.jobs.table import Wanted
from gw.control.rows import RECORDING_PAUSED, RECORDING_RESUMED, EventRow, hold_of, is_held
from gw.control.twilio_api.accounts import Account, Accounts
from gw.control.twilio_api.answers import RestError
from gw.errors import GatewayError, ProtocolError
from gw.protocol.hooks.pause import Pause, decode_pause, encode_pause
from metrics import declare
from metrics.page import Page

log = logging.getLogger(__name__)

Kind = Literal["pause", "resume"]

#: Jobs under way at a time of each kind, and waiting ones.
RUNNERS: Final = 64
CAPACITY: Final = 10_000
#: Longest attempt.
LIMIT_S: Final = 30.0
#: Bound on one request.
REQUEST_S: Final = 5.0
#: Between two attempts of a pause, whose caller waits, and of a resume.
PAUSE_AGAIN_S: Final = 0.3
RESUME_AGAIN_S: Final = 1.0
#: Least time for one more attempt of a pause.
LEAST_S: Final = 0.1
#: Between two looks whether a create is under way.
LOOK_S: Final = 0.02
_LOCKS: Final = 64
#: The status of a recording that can have another one.
_BEFORE: Final = {"paused": "in-progress", "in-progress": "paused"}


class Pauses:
    """The pauses of all calls of this gateway."""

    def __init__(
        self,
        disk: Disk,
        accounts: Accounts,
        page: Page,
        *,
        longest_call_s: float,
        is_over: Callable[[str], bool],
        account_of: Callable[[str], str | None],
        events_of: Callable[[str], Sequence[EventRow]],
        waiting: Iterable[bus.CallEvent],
        note: Callable[..., None],
    ) -> None:
        """`account_of`, `events_of`: read a call's account and events from the store, and raise GatewayError. `waiting`:
        events that the store may lack, in sequence. `note` stores an event of a call. Raises GatewayError."""
        self._disk = disk
        self._accounts = accounts
        self._longest_call_s = longest_call_s
        self._is_over = is_over
        self._account_of = account_of
        self._events_of = events_of
        self._note = note
        self.is_asking: Callable[[str], bool] = lambda call_sid: False  # whether a create is under way
        self._open: dict[str, Pause] = {job.call_sid: _pause_of(job) for job in disk.transact(table.list_pauses)}
        acts = ((event.call_sid, hold_of(event.kind, event.data)) for event in waiting)
        self._held = {call_sid: hold for call_sid, hold in acts if hold is not None}  # as read or done by this process, too
        self._locks = [BoundedSemaphore(1) for _ in range(_LOCKS)]
        outcomes = declare.RECORDING_PAUSES.labels["outcome"]
        self._counters = {outcome: page.counter(declare.RECORDING_PAUSES, outcome=outcome) for outcome in outcomes}

    @property
    def handlers(self) -> list[PauseHandler]:
        """The handlers of both kinds of jobs."""
        return [PauseHandler(self, "pause"), PauseHandler(self, "resume")]

    def is_concealed(self, call_sid: str) -> bool:
        """Return whether the caller types digits: a pause is wanted, and its end is not done."""
        return call_sid in self._open

    def forbids_create(self, call_sid: str) -> bool:
        """Return whether a recording of the call must not start: it would run in a pause for digits, or in an operator's."""
        return self.is_concealed(call_sid) or self._held.get(call_sid, False)

    def of_event(self, event: bus.Event) -> Sequence[Wanted]:
        """Note a pause that is wanted. Returns the resume that follows the end of a stream."""
        match event:
            case bus.JobWanted(kind="pause"):
                try:
                    self._open[event.call_sid] = decode_pause(event.body)
                except ProtocolError:
                    log.exception("a pause cannot be read", extra={"call_sid": event.call_sid})
            case bus.CallEnded() if (pause := self._open.get(event.call_sid)) is not None:
                return (self._resume_of(event.call_sid, pause, time.time()),)
            case _:
                pass
        return ()

    def _resume_of(self, call_sid: str, pause: Pause, now: float) -> Wanted:
        body = encode_pause(pause.account_sid, pause.pause)
        job = lifecycle.want(
            _id(call_sid, pause.pause), "resume", call_sid, body, deadline_at=now + self._longest_call_s, now=now
        )
        return Wanted(job, CAPACITY)

    # -- the jobs ---------------------------------------------------------------------------------------------------------

    def pause(self, job: Job) -> Outcome:
        """Pause a call's recording. Done also without a recording."""
        pause = decode_pause(job.body)
        while self.is_asking(job.call_sid) and time.time() < job.deadline_at:
            gevent.sleep(LOOK_S)  # a create under way; the next one waits
        if self.is_asking(job.call_sid):
            return self._failed(job, "Twilio does not answer the request to record")
        with self._lock(job.call_sid):
            if self._disk.transact(partial(table.find, ids=[_id(job.call_sid, pause.pause)])):
                return Ended("failed", "cancelled", "")
            account = self._account(job.call_sid, pause)
            if account is None:
                return Ended("done", "ok", "")  # without credentials nothing is recorded
            while True:
                left_s = job.deadline_at - time.time()
                try:
                    was = self._set(account, job.call_sid, "paused", min(REQUEST_S, max(LEAST_S, left_s)))
                    break
                except RestError as error:
                    if left_s < PAUSE_AGAIN_S + LEAST_S:
                        return self._failed(job, error)
                gevent.sleep(PAUSE_AGAIN_S)
        if was:
            self._counters["paused"].add()
            self._note(job.call_sid, RECORDING_PAUSED, by="digits")
        return Ended("done", "ok", "")

    def _failed(self, job: Job, why: object) -> Outcome:
        self._counters["pause_failed"].add()
        log.error("the recording cannot be paused: %s", why, extra={"call_sid": job.call_sid})
        return Ended("failed", "unavailable", "")

    def resume(self, job: Job) -> Outcome:
        """Let a call's recording continue, unless an operator has paused it."""
        pause = decode_pause(job.body)
        with self._lock(job.call_sid):
            try:
                was = self._continue(job, pause)
            except GatewayError as error:
                self._counters["resume_retried"].add()
                log.warning("a recording is paused until Twilio lets it continue: %s", error, extra={"call_sid": job.call_sid})
                return Again(RESUME_AGAIN_S)
            if (known := self._open.get(job.call_sid)) is not None and known.pause == pause.pause:
                del self._open[job.call_sid]
        if was:
            self._counters["resumed"].add()
            self._note(job.call_sid, RECORDING_RESUMED, by="digits")
        return Ended("done", "ok", "")

    def _continue(self, job: Job, pause: Pause) -> bool:
        """Return whether a recording continues now. Raises GatewayError."""
        known = self._open.get(job.call_sid)
        if known is not None and known.pause != pause.pause:
            return False  # the caller types again
        account = self._account(job.call_sid, pause)
        if account is None or self._is_over(job.call_sid):
            return False
        if self.is_held(job.call_sid):
            if self.is_asking(job.call_sid):
                raise GatewayError("a recording is being started")
            self._set(account, job.call_sid, "paused", REQUEST_S)  # `hold` relied on a pause that may not have happened
            return False
        return self._set(account, job.call_sid, "in-progress", REQUEST_S)

    def _account(self, call_sid: str, pause: Pause) -> Account | None:
        if pause.account_sid or not self._accounts:
            return self._accounts.of(pause.account_sid)
        return self._accounts.of_call(call_sid, self._account_of)

    def _set(self, account: Account, call_sid: str, status: Literal["paused", "in-progress"], bound_s: float) -> bool:
        """Give a call's recording a status. Returns False if it has none that could have it. Raises RestError."""
        rest = account.rest
        try:
            rest.set_recording(call_sid, status=status, bound_s=bound_s)
            return True
        except RestError as error:
            if error.kind not in ("gone", "not_in_progress", "rejected"):
                raise
            before = [one.sid for one in rest.list_recordings(call_sid) if one.status == _BEFORE[status]]
        for sid in before:
            rest.set_recording(call_sid, status=status, recording_sid=sid, bound_s=bound_s)
        return bool(before)

    def _lock(self, call_sid: str) -> BoundedSemaphore:
        return self._locks[hash(call_sid) % _LOCKS]

    # -- an operator ------------------------------------------------------------------------------------------------------

    def is_held(self, call_sid: str) -> bool:
        """Return whether an operator has paused a call's recording. Raises GatewayError without an answer of the store."""
        if call_sid not in self._held:
            self._held[call_sid] = is_held(self._events_of(call_sid))
        return self._held[call_sid]

    def hold(self, account: Account, call_sid: str, on: bool) -> bool:
        """Pause a call's recording, or let it continue, for an operator.

        Returns False, without effect at Twilio, if the caller is typing digits or there is no such recording. Raises RestError.
        """
        with self._lock(call_sid):
            is_concealed = self.is_concealed(call_sid)
            was = is_concealed or self._set(account, call_sid, "paused" if on else "in-progress", REQUEST_S)
            if was:
                self._held[call_sid] = on
                self._note(call_sid, RECORDING_PAUSED if on else RECORDING_RESUMED, by="operator")
        return was

    def on_call_over(self, call_sid: str) -> None:
        """Drop the facts of a call that ended."""
        self._held.pop(call_sid, None)


class PauseHandler:
    """Runs the jobs of one kind."""

    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(self, pauses: Pauses, kind: Kind) -> None:
        self._pauses = pauses
        self.kind = kind

    def repeats(self, job: Job) -> float | None:
        return 0.0 if self.kind == "pause" else LIMIT_S  # each sets a status, and does so twice without harm

    def run(self, job: Job, attempt: int) -> Outcome:
        try:
            return self._pauses.pause(job) if self.kind == "pause" else self._pauses.resume(job)
        except ProtocolError as error:
            log.error("a job of kind %s cannot be read: %s", self.kind, error, extra={"call_sid": job.call_sid})
            return Ended("failed", "invalid_arguments", "")


def _id(call_sid: str, pause: str) -> str:
    return f"{call_sid}/resume/{pause}"


def _pause_of(job: Job) -> Pause:
    """Return the pause of a job; a settled one has no body."""
    return Pause("", job.id.rpartition("/")[2])
