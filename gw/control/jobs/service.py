"""Runs jobs in bounded pools of greenlets, and sends their results.

One greenlet takes turns. A turn is one commit: it writes the attempts that ended, lets late jobs expire and claims as many due
jobs as runners are free, so that jobs which come together share the wait for the disk. A tool call that finds a free runner is
claimed by the commit that accepts it: the AI waits for one commit and not for two. A request is sent after the commit of its
claim. A result is sent to the call's worker immediately; a worker that was away asks for it (`bus.JobsOpen`).

If the outcome of a commit is unknown, the next turn returns each claim that no runner here has, because its request was not
sent, and sends the results that may be unsent. At the start, claims of an earlier process are repeated or settled
(`lifecycle.on_found`). Results are kept for KEEP_S, the wishes of calls that left their stream for KEEP_LEFT_S, and events that
were not delivered for KEEP_DEAD_S.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, TypeVar

import gevent
import gevent.pool
from gevent.event import Event

from gw import bus
from gw.bounded import OutOfTimeError, within
from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Again, Ended, Job, Outcome
from gw.errors import GatewayError, ProtocolError
from gw.latest import Latest
from gw.protocol.hooks.tool_call import decode_call, failed
from metrics import declare
from metrics.page import Page

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Results kept, in seconds and in number. A worker asks again while its call waits for the tool, which is a minute. A removed job
#: that is wanted again expires, because its deadline has passed by then.
KEEP_S: Final = 300.0
MAX_KEPT: Final = 10_000
#: The wish of a call that left its stream: the end of a transfer names its target, and a `<Dial>` lasts up to four hours.
KEEP_LEFT_S: Final = 5 * 3600.0
MAX_LEFT: Final = 100_000
#: Events that were not delivered, of all endpoints: a week, and as many as may wait for one endpoint.
KEEP_DEAD_S: Final = 7 * 86_400.0
MAX_DEAD: Final = 100_000
#: Period of their removal. If undelivered events may be left, the next is sooner: 200 a second, a tenth of the spool's time.
PRUNE_S: Final = 10.0
PRUNE_AGAIN_S: Final = 0.5
#: Longest wait between two turns: the clock may have been set.
IDLE_S: Final = 5.0
#: Pause after a failure of the spool.
RETRY_S: Final = 0.5
#: Longest wait of an ended tool call for its turn, if no other waits for its runner: ends that are close share a commit.
ENDED_S: Final = 0.05
#: Pause after an attempt of an event that was ended or failed here: the longest attempt. The endpoint recognises a repetition.
UNCLEAR_S: Final = 60.0
#: Ids in one question.
MAX_ASKED: Final = 100


#: Cancelled jobs that are remembered until they are claimed. Most are under way when they are cancelled.
MAX_CANCELLED: Final = 1000


class _Cancelled(gevent.GreenletExit):
    """The worker no longer waits for the job of this greenlet."""


class Handler(Protocol):
    """Runs the jobs of one kind."""

    @property
    def kind(self) -> str: ...

    @property
    def runners(self) -> int:
        """Jobs under way at a time."""

    @property
    def capacity(self) -> int:
        """Waiting jobs at which a new one is refused."""

    @property
    def limit_s(self) -> float:
        """Longest attempt. A longer one is ended; its outcome is unclear."""

    def repeats(self, job: Job) -> float | None:
        """Return the time for a repetition, in seconds.

        None: the job, interrupted by the end of a process, must not be repeated.
        """

    def run(self, job: Job, attempt: int) -> Outcome:
        """Do the job. May wait."""


class Disk(Protocol):
    """The file of the jobs, which is the spool's."""

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in one commit. Raises GatewayError when its outcome is unknown."""


class Backlog(NamedTuple):
    """Jobs without a result, and the age of the oldest in seconds."""

    open: int
    oldest_s: float


class Jobs:
    """All jobs of one control process. A method that waits for the disk states that."""

    def __init__(
        self,
        disk: Disk,
        page: Page,
        handlers: Sequence[Handler],
        *,
        settle: Callable[[bus.JobSettled], object],
        events: Callable[[bus.Event], Sequence[table.Wanted]] = lambda event: (),
        kind_of: Callable[[bus.JobWanted], str] = lambda wanted: wanted.kind,
    ) -> None:
        """`settle` sends a result to the worker of its call, if there is one. `events` returns the jobs of other bus events.
        `kind_of` returns the kind of a worker's job, which has its own runners."""
        self._disk = disk
        self._handlers = {handler.kind: handler for handler in handlers}
        self._settle = settle
        self._events = events
        self._kind_of = kind_of
        self._pool = gevent.pool.Pool(sum(handler.runners for handler in handlers))
        self._running: dict[str, Job] = {}  # until the end of the attempt is on disk
        self._requests: dict[str, gevent.Greenlet[..., None]] = {}  # in `Handler.run`
        self._cancelled: Latest[str, None] = Latest(MAX_CANCELLED)
        self._ended: list[table.Change] = []
        self._reserved: dict[str, Job] = {}  # claimed by the commit that accepts them, which is under way
        self._offered: dict[str, int] = {}  # runners by kind that the turn under way may use
        self._waiting = set(self._handlers)  # kinds of which jobs may wait on disk: a new one does not pass them
        self._wake = Event()
        self._later: gevent.Greenlet[..., None] | None = None  # wakes after ENDED_S
        self._stopping = False
        self._recovered = False  # whether the jobs of an earlier process were decided on
        self._doubt_from = math.inf  # since then, epoch seconds, the outcome of a commit is unknown
        self._open = 0
        self._oldest_at = math.inf
        self._next_prune_s = 0.0
        self._prunes_again = False  # undelivered events may be left that are too old or too many
        self._next_report_s = 0.0
        self._lost = 0  # undelivered events removed early, since the last report
        self._backlog_gauge = page.gauge(declare.HOOK_BACKLOG)
        self._oldest_gauge = page.gauge(declare.HOOK_OLDEST)
        outcomes = declare.TOOL_SECONDS.labels["outcome"]
        self._tool_seconds = {outcome: page.histogram(declare.TOOL_SECONDS, outcome=outcome) for outcome in outcomes}
        self._greenlet: gevent.Greenlet[[], None] | None = None

    # -- the bus ----------------------------------------------------------------------------------------------------------

    def of_event(self, event: bus.Event) -> Sequence[table.Wanted]:
        """Return the jobs of an event."""
        if not isinstance(event, bus.JobWanted):
            return self._events(event)
        now, kind = time.time(), self._kind_of(event)
        job = lifecycle.want(event.id, kind, event.call_sid, event.body, deadline_at=event.deadline_ms / 1000, now=now)
        handler = self._handlers.get(kind)
        if handler is None:
            job = lifecycle.refuse(job, "refused", "This gateway does not handle such requests.", now) if job.is_open else job
            return (table.Wanted(job, 0),)
        if job.is_open and self._begins_with(job, handler):
            job = lifecycle.on_due(job, now)
            if job.is_open:
                self._reserved[job.id] = job
        return (table.Wanted(job, handler.capacity),)

    def _begins_with(self, job: Job, handler: Handler) -> bool:
        """Return whether the commit that accepts a job also claims it."""
        if not job.is_tool or not self._recovered or self._stopping or job.id in self._running or job.id in self._reserved:
            return False
        if job.kind in self._waiting:
            return False
        return self._free(self._ended)[handler.kind] > self._offered.get(handler.kind, 0)

    def on_accepted(self, jobs: Sequence[Job]) -> None:
        """Begin jobs that are on disk now, and send the results of those settled already."""
        ended = {one.after.id: one.after for one in self._ended}  # not on disk yet
        waits = not jobs
        for job in jobs:
            reserved = self._reserved.pop(job.id, None)
            after = ended.get(job.id, job)
            if not after.is_open:
                self._send(after)
                waits |= reserved is not None  # another job may wait for this runner
            elif job == reserved:
                self._begin(job)
            elif reserved is not None:  # the row was there: a turn may have taken its claim for this one's
                self.on_doubt(())
            elif job.id not in self._running:  # a turn may have taken it already
                waits = True
                self._waiting.add(job.kind)
        if waits:
            self._wake.set()

    def on_doubt(self, ids: Iterable[str]) -> None:
        """Note that the outcome of the commit of new jobs is unknown: the next turn decides by the disk."""
        for job_id in ids:
            self._reserved.pop(job_id, None)
        self._doubt_from = min(self._doubt_from, time.time())
        self._wake.set()

    def results(self, question: bus.JobsOpen) -> list[bus.JobSettled]:
        """Return the results of settled jobs, and of unknown ones. Waits for the disk; raises GatewayError."""
        ids = question.ids[:MAX_ASKED]
        ended = {one.after.id: one.after for one in self._ended}  # sent already, perhaps to a connection that broke
        found = {job.id: job for job in self._disk.transact(partial(table.find, ids=ids))} | ended
        missing = failed("unknown_outcome", "The gateway has no record of the request.").output
        results = []
        for job_id in ids:
            job = found.get(job_id)
            if job is None:
                results.append(bus.JobSettled(job_id, question.call_sid, "unknown_outcome", missing))
            elif not job.is_open:
                results.append(_settled(job))
        return results

    def of_call(self, call_sid: str, kind: str) -> list[Job]:
        """Return the jobs of a call and a kind, the newest first. Waits for the disk; raises GatewayError."""
        return self._disk.transact(partial(table.find_of_call, call_sid=call_sid, kind=kind))

    def add(self, *jobs: Job) -> None:
        """Accept jobs of this process. Waits for the disk; raises GatewayError, after which they may be accepted."""
        wanted = [table.Wanted(job, self._handlers[job.kind].capacity) for job in jobs]
        self.on_accepted(self._disk.transact(partial(table.insert, wanted=wanted, now=time.time())))

    def tools_of(self, call_sid: str, told: Container[str]) -> list[bus.OpenTool]:
        """Return the tool calls of a telephone call but those in `told`. Waits for the disk; raises GatewayError."""
        found = []
        for job in self._disk.transact(partial(table.tools_of, call_sid=call_sid, limit=MAX_ASKED)):
            try:
                call = None if job.id in told else decode_call(job.body)
            except ProtocolError:
                continue  # its handler refuses it
            if call is not None:
                found.append(bus.OpenTool(job.id, call.tool, call.arguments, round(1000 * job.deadline_at)))
        return found

    def cancel(self, job_id: str) -> None:
        """End a job's request, or do not send it: its worker does not await the result. Does not wait."""
        if (request := self._requests.get(job_id)) is not None:
            request.kill(_Cancelled, block=False)
            return
        self._cancelled[job_id] = None

    # -- life -------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Resume the jobs on disk, and run them from now on."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End every attempt under way; its job stays claimed, for the next start. Waits for the disk."""
        self._stopping = True
        self._wake.set()
        if self._later is not None:
            self._later.kill(block=False)
        if self._greenlet is not None:
            self._greenlet.join(timeout=timeout_s)  # a turn under way may have claimed jobs
            self._greenlet.kill(timeout=timeout_s)
        self._pool.kill(timeout=timeout_s)
        if not self._recovered:
            return  # each claim is an earlier process's
        try:
            with within(timeout_s):
                self._disk.transact(partial(table.turn, ended=self._ended, free={}, now=time.time(), running=self._attempts()))
        except GatewayError as error:
            log.warning("jobs are left to the next start, the spool failed: %s", error)

    def backlog(self) -> Backlog:
        """Return the number of open jobs and the age of the oldest. Reads memory only."""
        return Backlog(self._open, max(0.0, time.time() - self._oldest_at) if self._open else 0.0)

    # -- turns ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            began_at = time.time()
            try:
                if not self._recovered:
                    self._recover()
                    self._recovered = True
                wait_s = self._turn()
            except GatewayError as error:
                self._doubt_from = min(self._doubt_from, began_at)
                log.error("jobs wait, the spool failed: %s", error, extra={"reason": error.code})
                gevent.sleep(RETRY_S)
                continue
            except Exception:  # this greenlet's top: the jobs are on disk, and the next turn tries again
                self._doubt_from = min(self._doubt_from, began_at)
                log.exception("a turn of the jobs failed")
                gevent.sleep(RETRY_S)
                continue
            self._backlog_gauge.set(float(self._open))
            self._oldest_gauge.set(self.backlog().oldest_s)
            if wait_s > 0.0 and not self._stopping:
                self._wake.wait(wait_s)

    def _recover(self) -> None:
        """Decide on the jobs that an earlier process left claimed. Raises GatewayError."""
        resumed = self._disk.transact(partial(table.recover, decide=self._on_found))
        if resumed:
            repeated = sum(job.is_open for job in resumed)
            log.warning("%d jobs were interrupted: %d are repeated, the others are unknown", len(resumed), repeated)
        for job in resumed:
            if not job.is_open:
                self._send(job)

    def _on_found(self, job: Job) -> Job:
        handler = self._handlers.get(job.kind)
        renewed_s = None if handler is None else handler.repeats(job)
        return lifecycle.on_found(job, time.time(), idempotent=renewed_s is not None, renewed_s=renewed_s or 0.0)

    def _turn(self) -> float:
        """Take one turn. Returns the time until the next one. Raises GatewayError."""
        self._prune()
        ended = self._ended[:]
        free = self._offered = self._free(ended)
        try:
            wait_s = self._commit(ended, free)
            return min(wait_s, PRUNE_AGAIN_S) if self._prunes_again else wait_s
        finally:
            self._offered = {}

    def _commit(self, ended: Sequence[table.Change], free: Mapping[str, int]) -> float:
        """Take one turn. `free`: runners by kind."""
        since, self._doubt_from = self._doubt_from, math.inf  # a doubt that comes during the commit is the next turn's
        running = self._attempts(self._reserved) if since < math.inf else None
        now = time.time()
        try:
            result = self._disk.transact(partial(table.turn, ended=ended, free=free, now=now, running=running, since=since))
        except BaseException:
            self._doubt_from = min(self._doubt_from, since)
            raise
        del self._ended[: len(ended)]
        for one in ended:
            self._running.pop(one.before.id, None)
        self._open, self._oldest_at = result.open, result.oldest_at
        claimed = Counter(job.kind for job in result.claimed)
        self._waiting = {kind for kind, runners in free.items() if claimed[kind] >= runners}
        for job in (*result.unsent, *result.expired):
            self._send(job)
        for job in result.claimed:
            self._begin(job)
        return min(IDLE_S, result.next_at - now)

    def _begin(self, job: Job) -> None:
        """Run a claimed job for which a runner is free."""
        if not self._stopping:  # `stop` returns it unsent
            self._running[job.id] = job
            self._pool.spawn(self._attempt, self._handlers[job.kind], job)

    def _attempts(self, reserved: Mapping[str, Job] = MappingProxyType({})) -> dict[str, int]:
        return {job.id: job.attempts for job in (*self._running.values(), *reserved.values())}

    def _free(self, ended: Sequence[table.Change]) -> dict[str, int]:
        """Return the number of free runners by kind. Those of `ended` attempts are free: no later end would begin a turn."""
        free = {kind: handler.runners for kind, handler in self._handlers.items()}
        over = {one.before.id for one in ended}
        for job in (*self._running.values(), *self._reserved.values()):
            if job.id not in over:
                free[job.kind] -= 1
        return free

    def _prune(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_prune_s:
            self._next_prune_s = now_s + PRUNE_S
            passing, left, dead = (
                table.Kept(KEEP_S, MAX_KEPT),
                table.Kept(KEEP_LEFT_S, MAX_LEFT),
                table.Kept(KEEP_DEAD_S, MAX_DEAD),
            )
            pruned = self._disk.transact(partial(table.prune, now=time.time(), passing=passing, left=left, dead=dead))
            self._prunes_again = pruned.more
            if pruned.more:
                self._next_prune_s = now_s + PRUNE_AGAIN_S
            self._lost += pruned.lost
            if self._lost and now_s >= self._next_report_s:
                log.error("%d events that were not delivered are removed: at most %d are kept", self._lost, MAX_DEAD)
                self._lost, self._next_report_s = 0, now_s + PRUNE_S

    def _attempt(self, handler: Handler, job: Job) -> None:
        """Run a claimed job once. The body of a greenlet of the pool."""
        greenlet = gevent.getcurrent()
        assert isinstance(greenlet, gevent.Greenlet)
        self._requests[job.id] = greenlet
        try:
            if job.id in self._cancelled:
                raise _Cancelled
            with within(handler.limit_s):
                outcome = handler.run(job, job.attempts)
        except _Cancelled:
            outcome = Ended("failed", "cancelled", failed("cancelled", "The request was given up.").output)
        except OutOfTimeError:
            outcome = _unclear(job, f"The request took longer than {handler.limit_s:g} s.")
            log.error("a job took longer than %g s", handler.limit_s, extra={"call_sid": job.call_sid})
        except Exception:  # this greenlet's top: the request may have been sent
            outcome = _unclear(job, "The gateway failed while the request was under way.")
            log.exception("a job of kind %s failed", job.kind, extra={"call_sid": job.call_sid})
        finally:
            del self._requests[job.id]
            self._cancelled.pop(job.id, None)
        after = lifecycle.on_outcome(job, outcome, time.time())
        is_awaited = after.is_open or not job.is_tool or job.kind in self._waiting
        self._ended.append(table.Change(job, after))
        if not after.is_open:
            self._send(after)
        if is_awaited:
            self._wake.set()
        elif not self._later:  # a greenlet is true until it has ended
            self._later = gevent.spawn_later(ENDED_S, self._wake.set)

    def _send(self, job: Job) -> None:
        if job.is_event:
            return  # no worker waits
        cell = self._tool_seconds.get(job.outcome) if job.is_tool else None
        if cell is not None:
            cell.observe(max(0.0, job.next_at - job.at))
        self._settle(_settled(job))


def _settled(job: Job) -> bus.JobSettled:
    return bus.JobSettled(job.id, job.call_sid, job.outcome, job.result)


def _unclear(job: Job, detail: str) -> Outcome:
    if job.is_event:
        return Again(UNCLEAR_S)
    return Ended("unclear", "unknown_outcome", failed("unknown_outcome", detail).output)
