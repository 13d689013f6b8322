"""Jobs of kind `dial`: calls that Twilio places, each at most once.

Twilio has no idempotency key. So the dial is claimed in the store, under the job's id, before Twilio is asked; the SID in the
answer is on disk, in the job's body, before it goes to the store. A dial whose answer was lost is looked up at Twilio for LOOK_S,
and never placed again: without such a call its outcome is unknown.

    attempt of the job            the line in the store                   then
    first                         waiting                                 claimed, and Twilio is asked
    first, after a store outage   claimed by this job                     Twilio is asked
    any, with a SID               claimed by this job                     placed
    any other                     claimed by this job                     looked up at Twilio
    any                           claimed by another job, or settled      nothing
"""

from __future__ import annotations

import logging
import time
from typing import Final, NamedTuple, Protocol

import msgspec

from gw.control.jobs import lifecycle
from gw.control.jobs.lifecycle import Ended, Job, Outcome, Rewritten
from gw.control.jobs.table import Wanted
from gw.control.rows import DialRow
from gw.control.twilio_api.answers import UNCLEAR, RestError
from gw.errors import GatewayError

log = logging.getLogger(__name__)

KIND: Final = "dial"
#: Requests to Twilio at a time.
RUNNERS: Final = 8
#: Waiting dials: the pace of the lists makes few.
CAPACITY: Final = 1000
#: Longest attempt: two requests to Twilio.
LIMIT_S: Final = 60.0
#: Time for which a dial whose answer was lost is looked up, and the pause between two looks.
LOOK_S: Final = 30.0
LOOK_EVERY_S: Final = 3.0
#: Pause of a dial while Twilio or the store does not take it.
PAUSE_S: Final = 1.0
#: A dial without an end is given up: the store was away all the time.
GIVE_UP_S: Final = 30 * 86_400.0
#: Errors after which Twilio has not placed the call, and may take it later.
_NOT_SENT: Final = frozenset({"busy", "unreachable", "unauthorized"})


class DialBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a job. `until`: Twilio is not asked after that epoch time."""

    list_id: str
    n: int
    attempt: int
    to: str
    caller: str
    agent: str
    account: str
    variables: dict[str, str] = {}
    former_sid: str = ""  # the call of the line's dial before
    until: float
    is_asked: bool = False  # Twilio may have the request
    attempt_of_job: int = 1  # a greater one follows the end of a process, which may have asked Twilio
    call_sid: str = ""


class DialEnded(NamedTuple):
    """The end of a dial, for the user's endpoints. `list_name` is empty, and `line` 0, for a single call."""

    call_sid: str
    dial: str
    at: float
    to: str
    caller: str
    agent: str
    result: str
    status: str
    answered_by: str
    attempt: int
    is_last: bool
    list_name: str
    line: int


class Lines(Protocol):
    """The lines of the lists: `gw.control.store.dials.Dials`."""

    def one(self, list_id: str, n: int) -> DialRow | None: ...

    def claim(self, list_id: str, n: int, attempt: int, job: str, now: float) -> bool: ...

    def release(self, list_id: str, n: int, attempt: int) -> bool: ...

    def place(self, list_id: str, n: int, attempt: int, call_sid: str) -> bool: ...


class Phone(Protocol):
    """Twilio. Raises RestError."""

    def place(self, body: DialBody) -> str:
        """Place the call. Returns its SID."""

    def find(self, body: DialBody, since: float) -> str:
        """Return the SID of the call; empty if Twilio lists none since an epoch time."""


class Reports(Protocol):
    """Receives what no webhook will report. Raises GatewayError."""

    def on_refused(self, row: DialRow, detail: str) -> None:
        """Twilio refused a dial."""

    def on_lost(self, row: DialRow) -> None:
        """The outcome of a dial is unknown."""

    def on_turn(self, body: DialBody) -> None:
        """A dial has had its turn: it is claimed, or not made."""


class DialHandler:
    """Places the calls."""

    kind: Final = KIND
    runners: Final = RUNNERS
    capacity: Final = CAPACITY
    limit_s: Final = LIMIT_S

    def __init__(self, lines: Lines, phone: Phone, reports: Reports, *, look_s: float = LOOK_S) -> None:
        self._lines = lines
        self._phone = phone
        self._reports = reports
        self._look_s = look_s

    def repeats(self, job: Job) -> float | None:
        return GIVE_UP_S  # a repetition asks for the call, and places none

    def run(self, job: Job, attempt: int) -> Outcome:
        try:
            body = msgspec.json.decode(job.body, type=DialBody)
        except msgspec.MsgspecError as error:
            return Ended("failed", "invalid", str(error))
        is_asked = body.is_asked or attempt > body.attempt_of_job
        body = msgspec.structs.replace(body, is_asked=is_asked, attempt_of_job=attempt)
        try:
            return self._go_on(job.id, body)
        except GatewayError:  # the store is away
            return Rewritten(_encode(body), PAUSE_S)

    def _go_on(self, job_id: str, body: DialBody) -> Outcome:
        if body.call_sid:
            self._lines.place(body.list_id, body.n, body.attempt, body.call_sid)
            return Ended("done", "ok", body.call_sid)
        row, now = self._lines.one(body.list_id, body.n), time.time()
        if row is not None and (row.claim, row.attempts) == (job_id, body.attempt):
            if row.state != "claimed":
                return Ended("done", "ok", row.call_sid or "")  # Twilio reported it before
            if body.is_asked:
                return self._look(row, body, now)
        else:
            try:
                if now > body.until or not self._lines.claim(body.list_id, body.n, body.attempt, job_id, now):
                    return Ended("failed", "late" if now > body.until else "taken", "")
            finally:
                self._reports.on_turn(body)
            body = msgspec.structs.replace(body, is_asked=False)
        return self._place(body, now)

    def _place(self, body: DialBody, now: float) -> Outcome:
        """Place the call of a claimed line."""
        if now > body.until:
            self._lines.release(body.list_id, body.n, body.attempt)
            return Ended("failed", "late", "")
        try:
            call_sid = self._phone.place(body)
        except RestError as error:
            if error.kind in _NOT_SENT:
                return Rewritten(_encode(body), max(PAUSE_S, error.retry_after_s))
            asked = msgspec.structs.replace(body, is_asked=True)
            if error.kind in UNCLEAR:
                return Rewritten(_encode(asked), LOOK_EVERY_S)
            row = self._lines.one(body.list_id, body.n)
            if row is not None:
                self._reports.on_refused(row, str(error))
            return Ended("failed", "refused", str(error))
        return Rewritten(_encode(msgspec.structs.replace(body, call_sid=call_sid)))

    def _look(self, row: DialRow, body: DialBody, now: float) -> Outcome:
        """Look a dial up at Twilio whose answer was lost."""
        since = row.claimed_at or now
        try:
            if call_sid := self._phone.find(body, since):
                log.warning("a dial whose answer was lost is found at Twilio", extra={"call_sid": call_sid})
                return Rewritten(_encode(msgspec.structs.replace(body, call_sid=call_sid)))
        except RestError:
            return Rewritten(_encode(body), LOOK_EVERY_S)
        if now < since + self._look_s:
            return Rewritten(_encode(body), LOOK_EVERY_S)
        self._reports.on_lost(row)
        return Ended("unclear", "unknown_outcome", "")


def want(body: DialBody, job_id: str, now: float) -> Wanted:
    """Return the job of a dial."""
    return Wanted(lifecycle.want(job_id, KIND, "", _encode(body), deadline_at=now + GIVE_UP_S, now=now), CAPACITY)


def _encode(body: DialBody) -> str:
    return msgspec.json.encode(body).decode()
