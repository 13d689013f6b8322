"""Questions to the production code about one job: the bus, the jobs' service and the handler of tool calls, on SQLite.

Each question gets the row and the memory of one state. The service runs on a database in memory that has this row alone; what it
writes, sends and begins is the answer. Each question is asked once per `JobParts`, so construct that after a change of production
code.
"""

from __future__ import annotations

import functools
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

import gevent

from gw import bus
from gw.call.leave import KIND, Leave, encode_leave
from gw.config import Server, Tool
from gw.control.bus import server
from gw.control.jobs import leave, service, table
from gw.control.jobs.leave import LeaveHandler
from gw.control.jobs.lifecycle import Job
from gw.control.jobs.service import Handler, Jobs
from gw.control.jobs.tool import ToolHandler
from gw.control.twilio_api.answers import Kind, RestError
from gw.errors import GatewayError
from gw.protocol.hooks.tool_call import CallFacts, ToolAnswer, ToolCall, encode_call
from gw.verify.guard.parts import StandIn
from metrics.page import Page

T = TypeVar("T")

CALL: Final = "CA" + "0" * 32
JOB: Final = f"{CALL}/1/call_1"
#: Epoch seconds of a state before the deadline, the deadline, and a state after it.
NOW: Final = 1_000_000.0
DEADLINE: Final = NOW + 8.0
LATE: Final = NOW + 20.0
#: Ends of a commit: its outcome known, unknown and not done, unknown and done.
Commit = Literal["known", "lost", "done"]
_BODY: Final = encode_call(
    ToolCall(
        id=JOB,
        tool="tool",
        arguments="{}",
        call=CallFacts(sid=CALL, agent="a", direction="inbound", from_="", to="", started_at=""),
    )
)

_WISH: Final = encode_leave(Leave(key="0" * 32, tool="transfer", to="+15550001"))


class Memory(NamedTuple):
    """The service's memory of the job."""

    recovered: bool = False
    running: Job | None = None
    ended: tuple[table.Change, ...] = ()
    doubt_from: float = math.inf
    cancelled: bool = False  # its cancellation is remembered
    reserved: Job | None = None  # claimed by the commit that accepts it


class Done(NamedTuple):
    """Effects of a question: the row, the memory, outcomes sent to the worker, and the attempt begun."""

    row: Job | None
    memory: Memory
    sent: tuple[str, ...] = ()
    begun: Job | None = None


class Cancelled(NamedTuple):
    """Effects of a cancellation. `killed`: the attempt under way ended."""

    done: Done
    killed: bool


class _TurnOver(Exception):  # noqa: N818  not an error: leaves the loop where it waits
    """The service waits."""


class _Disk:
    """One transaction after the other on a database in memory."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(table.SCHEMA)
        self._commit: Commit = "known"

    def put(self, row: Job | None, commit: Commit) -> None:
        """Begin with this row alone."""
        self._commit = commit
        self._db.execute("DELETE FROM jobs")
        if row is not None:
            table.insert(self._db, [table.Wanted(row, 1_000_000)], NOW)

    def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._commit == "lost":
            raise GatewayError("the outcome of the commit is unknown")
        result = work(self._db)
        if self._commit == "done":
            raise GatewayError("the outcome of the commit is unknown")
        return result

    def row(self) -> Job | None:
        """Return the job's row."""
        found = table.find(self._db, [JOB])
        return found[0] if found else None

    def close(self) -> None:
        self._db.close()


class JobParts:
    """The production code of one job. `idempotent`: whether its tool may be called again. `leaves`: it is a transfer."""

    def __init__(self, page: Page, *, idempotent: bool, leaves: bool = False) -> None:
        self._page = page
        self._leaves = leaves
        self._began_at: float | None = 0.0
        self._tools = {"tool": Tool(url="https://tool.example/", timeout_s=8.0, idempotent=idempotent)}
        self._answer = ToolAnswer("", "ok")
        self._kill: BaseException | None = None  # that reaches the attempt under way
        self._calls = 0
        self._disk = _Disk()
        self._greenlet = gevent.Greenlet(lambda: None)  # of an attempt
        self.asked = 0
        self.pass_on = functools.cache(self._pass_on)
        self.fresh = functools.cache(self._fresh)
        self.accept = functools.cache(self._accept)
        self.doubt = functools.cache(self._doubt)
        self.turn = functools.cache(self._turn)
        self.end = functools.cache(self._end)
        self.stop = functools.cache(self._stop)
        self.results = functools.cache(self._results)
        self.cancel = functools.cache(self._cancel)
        self.begins = functools.cache(self._begins)

    def close(self) -> None:
        """Close the database."""
        self._disk.close()

    # -- the bus ------------------------------------------------------------------------------------------------------

    def _fresh(self, numbers: tuple[int, ...], last: int) -> tuple[int, ...]:
        """Return the numbers of new events."""
        numbered = [bus.Numbered(n, _wanted(self._leaves)) for n in numbers]
        return tuple(entry.n for entry in server.sort_messages(cast("Any", StandIn(index=0)), last, numbered).fresh)

    def _accept(
        self, row: Job | None, memory: Memory, count: int, now: float, *, is_busy: bool = False
    ) -> tuple[Done, tuple[Job, ...]]:
        """Commit `count` wishes for the job. `is_busy`: no runner is free. Returns the rows passed to the service too."""
        with self._service(row, memory, now) as asked:
            jobs, accepted = asked.jobs, []
            if is_busy:
                jobs._offered = {kind: handler.runners for kind, handler in jobs._handlers.items()}
            wanted = [one for _ in range(count) for one in jobs.of_event(_wanted(self._leaves))]
            accepted = asked.disk.transact(functools.partial(table.insert, wanted=wanted, now=now))
            return asked.done(), tuple(accepted)

    # -- the service --------------------------------------------------------------------------------------------------

    def _pass_on(self, row: Job | None, memory: Memory, accepted: tuple[Job, ...]) -> Done:
        """Pass accepted jobs to the service."""
        with self._service(row, memory, NOW) as asked:
            asked.jobs.on_accepted(accepted)
            return asked.done()

    def _doubt(self, row: Job | None, memory: Memory, now: float) -> Done:
        """Notify the service that the outcome of the commit of the job is unknown."""
        with self._service(row, memory, now) as asked:
            asked.jobs.on_doubt(server.job_ids([bus.Numbered(1, _wanted(self._leaves))]))
            return asked.done()

    def _turn(self, row: Job | None, memory: Memory, now: float, commit: Commit) -> Done:
        """Let the service take one turn, with the recovery before the first one."""
        with self._service(row, memory, now, commit) as asked:
            try:
                asked.jobs._run()
            except _TurnOver:
                pass  # the turn was taken
            return asked.done()

    def _end(self, row: Job | None, memory: Memory, now: float, answer: ToolAnswer, began_at: float | None = 0.0) -> Done:
        """Let the running attempt end with the endpoint's answer. `began_at`: of the call's stream; None without one."""
        assert memory.running is not None
        self._answer, self._began_at = answer, began_at
        with self._service(row, memory, now) as asked:
            asked.jobs._attempt(next(iter(asked.jobs._handlers.values())), memory.running)
            return asked.done()

    def _begins(self, row: Job | None, memory: Memory, now: float, began_at: float | None = 0.0) -> bool:
        """Begin the running attempt. Returns whether it sends a request."""
        assert memory.running is not None
        calls, self._answer, self._began_at = self._calls, ToolAnswer("", "ok"), began_at
        with self._service(row, memory, now) as asked:
            asked.jobs._attempt(next(iter(asked.jobs._handlers.values())), memory.running)
        return self._calls > calls

    def _cancel(self, row: Job | None, memory: Memory, now: float, *, is_sent: bool) -> Cancelled:
        """Pass the worker's cancellation to the service. `is_sent`: an attempt is under way, and its request was sent."""
        kills: list[BaseException] = []
        with self._service(row, memory, now) as asked:
            if is_sent:
                asked.jobs._requests[JOB] = cast("Any", StandIn(kill=lambda error, block: kills.append(error())))
            asked.jobs.cancel(JOB)
            asked.jobs._requests.clear()
            if kills and memory.running is not None:
                self._kill = kills[0]
                try:
                    asked.jobs._attempt(next(iter(asked.jobs._handlers.values())), memory.running)
                finally:
                    self._kill = None
            return Cancelled(asked.done(), bool(kills))

    def _call(self, body: ToolCall, attempt: int, deadline_s: float) -> ToolAnswer:
        self._calls += 1
        if self._kill is not None:
            raise self._kill
        return self._answer

    def _redirect(self, call_sid: str, document: str, *, bound_s: float) -> None:
        """Answer a transfer as Twilio's REST API does."""
        self._calls += 1
        if self._answer.status != "ok":
            kind: Kind = "unreachable" if self._answer.status == "unavailable" else "timeout"
            raise RestError(kind, 0, 0, "")

    def _handler(self) -> Handler:
        if not self._leaves:
            return ToolHandler(cast("Any", StandIn(call=self._call)), self._tools)
        account = StandIn(rest=StandIn(redirect_call=self._redirect))
        return LeaveHandler(Server(), cast("Any", StandIn(of=lambda sid: account)), lambda call_sid: self._began_at)

    def _stop(self, row: Job | None, memory: Memory, now: float) -> Done:
        """Stop the service in an orderly way."""
        with self._service(row, memory, now) as asked:
            asked.jobs._greenlet = cast("Any", StandIn(join=lambda timeout: None, kill=lambda timeout: None))
            asked.jobs.stop()
            return asked.done()

    def _results(self, row: Job | None, memory: Memory) -> tuple[str, ...]:
        """Return the answers to a worker that asks for the job."""
        with self._service(row, memory, NOW) as asked:
            found = asked.jobs.results(bus.JobsOpen(CALL, [JOB]))
            return tuple(settled.outcome for settled in found)

    @contextmanager
    def _service(self, row: Job | None, memory: Memory, now: float, commit: Commit = "known") -> Iterator[_Asked]:
        """The service with this row and memory, at this time."""
        self.asked += 1
        disk = self._disk
        disk.put(row, commit)
        sent: list[str] = []
        jobs = Jobs(disk, self._page, [self._handler()], settle=lambda settled: sent.append(settled.outcome))
        jobs._recovered, jobs._doubt_from = memory.recovered, memory.doubt_from
        jobs._waiting = set()  # `is_busy` is the same for a new job
        jobs._next_prune_s = math.inf  # results are kept for longer than a worker waits
        jobs._running = {} if memory.running is None else {memory.running.id: memory.running}
        jobs._reserved = {} if memory.reserved is None else {memory.reserved.id: memory.reserved}
        jobs._ended = list(memory.ended)
        if memory.cancelled:
            jobs._cancelled[JOB] = None
        begun: list[Job] = []
        jobs._pool = cast("Any", StandIn(spawn=lambda attempt, handler, job: begun.append(job), kill=lambda timeout: None))

        def wait(timeout: float | None = None) -> None:
            raise _TurnOver

        jobs._wake = cast("Any", StandIn(wait=wait, set=lambda: None, clear=lambda: None))
        production: Any = service
        clock, hub = production.time, production.gevent
        production.time = StandIn(time=lambda: now, monotonic=lambda: 0.0)
        production.gevent = StandIn(
            sleep=wait, getcurrent=lambda: self._greenlet, Greenlet=gevent.Greenlet, spawn_later=lambda *given: None
        )
        waits: Any = leave
        connect_s, waits.CONNECT_S = waits.CONNECT_S, 0.0  # the model's worker has connected
        try:
            yield _Asked(jobs, disk, sent, begun)
        finally:
            production.time, production.gevent = clock, hub
            waits.CONNECT_S = connect_s


class _Asked(NamedTuple):
    jobs: Jobs
    disk: _Disk
    sent: list[str]
    begun: list[Job]

    def done(self) -> Done:
        """Return what happened."""
        jobs = self.jobs
        running = next(iter(jobs._running.values()), None)
        reserved = next(iter(jobs._reserved.values()), None)
        memory = Memory(jobs._recovered, running, tuple(jobs._ended), jobs._doubt_from, JOB in jobs._cancelled, reserved)
        return Done(self.disk.row(), memory, tuple(self.sent), self.begun[0] if self.begun else None)


def _wanted(leaves: bool) -> bus.JobWanted:
    kind, body = (KIND, _WISH) if leaves else ("tool", _BODY)
    return bus.JobWanted(JOB, kind, CALL, round(1000 * DEADLINE), body)
