"""Questions to the production code about the pauses of a recording: the call's digits, control's pauses, the table of jobs.

An attempt of a job, or an operator's act, runs in a greenlet up to its next wait: a lock, a request to Twilio, a sleep. Its state
is the history of its waits, which is run again to continue it. So others act at each wait, and a death ends it at any of them.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, cast

import greenlet
import msgspec

from gw import bus
from gw.call.dialogue import inputs as given
from gw.call.dialogue.rules import CONCEAL_MS
from gw.call.guard import RecordingGuard
from gw.call.quality import Quality
from gw.control.jobs import lifecycle, table
from gw.control.jobs.lifecycle import Job, Outcome
from gw.control.recording import pauses as pauses_module
from gw.control.recording.lifecycle import OUR_SOURCE
from gw.control.recording.pauses import CAPACITY, RUNNERS, PauseHandler, Pauses
from gw.control.rows import RECORDING_PAUSED, RECORDING_RESUMED, EventRow, Scalar
from gw.control.twilio_api.answers import Listed, RestError
from gw.media.conversation import digits
from gw.media.conversation.digits import CallDigits
from gw.protocol.hooks.pause import Pause, encode_pause
from gw.verify.guard.claim_row import ACCOUNT
from gw.verify.guard.parts import CALL, REFUSALS, StandIn
from metrics.page import Page

_production: Final[Any] = pauses_module
#: Epoch seconds of the first moment, and the time in which a pause is given up.
NOW: Final = 1_000_000.0
MOMENT_S: Final = 10.0
_LONGEST_S: Final = 100_000.0
_OPERATOR: Final[dict[str, Scalar]] = {"by": "operator"}
#: The end of a stream among the events of a worker.
ENDED: Final = "ended"


class Memory(NamedTuple):
    """Control's memory of the call. `open`: the name of the pause in effect; `held`: by an operator, if known."""

    open: str = ""
    held: bool | None = None


class World(NamedTuple):
    """The state that an attempt meets when it continues. `moment`: of MOMENT_S; `stored`: an operator's pause in the store."""

    memory: Memory
    rows: tuple[Job, ...] = ()
    moment: int = 0
    creating: bool = False
    stored: bool = False
    noted: bool = False  # the same on disk: in the spool, if the store differs


class Act(NamedTuple):
    """An attempt of a job, or an operator's act."""

    job: Job | None
    holds: bool = True  # the operator pauses, or lets the recording continue


class Point(NamedTuple):
    """The end of a wait: the answer, and the world at that time."""

    world: World
    answer: object = None


class Stop(NamedTuple):
    """An attempt at its next wait, or at its end, which has no request. `noted`: the operator's acts that were stored."""

    request: tuple[str, ...]
    memory: Memory
    locks: bool
    result: Outcome | bool | None = None
    noted: tuple[bool, ...] = ()


class Typing(NamedTuple):
    """The memory of a stream's `CallDigits`."""

    pauses: int = 0
    pause: str = ""
    awaited: str = ""


class _Lock:
    """A lock whose owner the model chooses."""

    def __init__(self, wait: Callable[[tuple[str, ...]], object]) -> None:
        self._wait = wait
        self.is_held = False

    def __enter__(self) -> None:
        self._wait(("lock",))
        self.is_held = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.is_held = False


class PauseParts:
    """The production code of one call's pauses. Construct it after a change of production code."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(table.SCHEMA)
        self.asked = 0
        self.advance = functools.cache(self._advance)
        self.accept = functools.cache(self._accept)
        self.turn = functools.cache(self._turn)
        self.restart = functools.cache(self._restart)
        self.forbids_create = functools.cache(self._forbids_create)
        self.conceal = functools.cache(self._conceal)
        self.receive = functools.cache(self._receive)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # -- the worker -------------------------------------------------------------------------------------------------------

    def _conceal(self, typing: Typing, on: bool, moment: int) -> tuple[Typing, tuple[str, ...]]:
        """Let the caller be concealed, or heard again. Returns the names of the jobs that the worker requests."""
        with self._digits(typing, moment) as (made, wanted):
            made.conceal(on)
            return _typing_of(made), tuple(wanted)

    def _receive(self, typing: Typing, job_id: str, outcome: str) -> tuple[Typing, Literal["counts", "refused", ""]]:
        """Pass a result to the worker."""
        with self._digits(typing, 0) as (made, _):
            event = made.on_settled(bus.JobSettled(job_id, CALL, outcome, ""))
            counts = isinstance(event, given.Concealed)
            return _typing_of(made), "counts" if counts else "" if event is None else "refused"

    @contextmanager
    def _digits(self, typing: Typing, moment: int) -> Iterator[tuple[CallDigits, list[str]]]:
        self.asked += 1
        wanted: list[str] = []
        events = StandIn(sid=CALL, account_sid=ACCOUNT, resumed=None, emit=lambda event: wanted.append(event.id))
        context = StandIn(config=StandIn(media=StandIn(max_call_s=_LONGEST_S)))
        guard = RecordingGuard(enabled=True)
        guard.recording_started = True
        made = CallDigits(
            cast("Any", context), cast("Any", events), cast("Any", StandIn()), guard, on_crash=lambda greenlet: None
        )
        for name, value in zip(Typing._fields, typing, strict=True):
            setattr(made, f"_{name}", value)
        with _clock(digits, moment):
            yield made, wanted

    # -- the disk -----------------------------------------------------------------------------------------------------------

    def _accept(self, world: World, events: tuple[str, ...]) -> World:
        """Commit a worker's events with their jobs."""
        with self._pauses(world) as pauses:
            now = NOW + MOMENT_S * world.moment
            wanted: list[table.Wanted] = []
            for name in events:
                if name == ENDED:
                    wanted += pauses.of_event(bus.CallEnded(CALL, now, "caller_hangup", "success", "", Quality()))
                    continue
                kind, pause = name.split("/")[1:]
                deadline_at = now + (CONCEAL_MS / 1000 if kind == "pause" else _LONGEST_S)
                body = encode_pause(ACCOUNT, pause)
                event = bus.JobWanted(name, kind, CALL, round(1000 * deadline_at), body)
                job = lifecycle.want(name, kind, CALL, body, deadline_at=deadline_at, now=now)
                wanted += [table.Wanted(job, CAPACITY), *pauses.of_event(event)]
            table.insert(self._db, wanted, now)
            return world._replace(memory=_memory_of(pauses), rows=self._read())

    def _turn(self, world: World, ended: tuple[table.Change, ...]) -> tuple[World, tuple[Job, ...], tuple[Job, ...]]:
        """Let the jobs' service take one turn. Returns the jobs that it claimed, and those that expired."""
        self._write(world.rows)
        now = NOW + MOMENT_S * world.moment
        turn = table.turn(self._db, ended, {"pause": RUNNERS, "resume": RUNNERS}, now)
        return world._replace(rows=self._read()), tuple(turn.claimed), tuple(turn.expired)

    def _restart(self, world: World) -> World:
        """Begin a further process: with the pauses on disk, and with the jobs that the former one left claimed."""
        with self._pauses(world, is_new=True) as pauses:
            handlers: dict[str, PauseHandler] = {handler.kind: handler for handler in pauses.handlers}

            def decide(job: Job) -> Job:
                renewed_s = handlers[job.kind].repeats(job)
                now = NOW + MOMENT_S * world.moment
                return lifecycle.on_found(job, now, idempotent=renewed_s is not None, renewed_s=renewed_s or 0.0)

            table.recover(self._db, decide)
            return world._replace(memory=_memory_of(pauses), rows=self._read())

    def _write(self, rows: tuple[Job, ...]) -> None:
        self._db.execute("DELETE FROM jobs")
        for job in rows:
            table.insert(self._db, [table.Wanted(job, CAPACITY)], NOW)

    def _read(self) -> tuple[Job, ...]:
        """Return the rows, each due: a wait for the next attempt is over."""
        ids = [row[0] for row in self._db.execute("SELECT id FROM jobs ORDER BY rowid").fetchall()]
        return tuple(_due(job) for job in table.find(self._db, ids))

    # -- control ------------------------------------------------------------------------------------------------------------

    def _forbids_create(self, memory: Memory) -> bool:
        with self._pauses(World(memory)) as pauses:
            return pauses.forbids_create(CALL)

    def _advance(self, act: Act, history: tuple[Point, ...]) -> Stop:
        """Run an attempt to the wait behind this history, or to its end."""
        main, noted = greenlet.getcurrent(), list[bool]()

        def wait(request: tuple[str, ...]) -> Any:
            answer = main.switch(request)
            if isinstance(answer, RestError):
                raise answer
            return answer

        def set_recording(call_sid: str, *, status: str, bound_s: float, recording_sid: str = "") -> None:
            wait(("set", status))

        with self._pauses(history[0].world) as pauses, _clock(_production, history[0].world.moment) as clock:
            lock = _Lock(wait)
            _production.gevent = StandIn(sleep=lambda seconds: wait(("sleep",)))
            rest = StandIn(set_recording=set_recording, list_recordings=lambda call_sid: _listed(wait(("list",))))
            account = StandIn(rest=rest)
            instance: Any = pauses
            instance._lock = lambda call_sid: lock
            instance._accounts = StandIn(of=lambda sid: account)
            instance._note = lambda call_sid, kind, *, by: noted.append(kind == RECORDING_PAUSED) if by == "operator" else None
            run = greenlet.greenlet(lambda: self._run(pauses, act, account))
            try:
                request = run.switch()
                for point in history[1:]:
                    noted.clear()
                    clock[0] = point.world.moment
                    self._put(pauses, point.world)
                    request = run.switch(_error_of(point.answer))
                if run.dead:
                    return Stop((), _memory_of(pauses), False, request, tuple(noted))
                return Stop(request, _memory_of(pauses), lock.is_held, noted=tuple(noted))
            finally:
                if not run.dead:
                    run.throw(greenlet.GreenletExit)

    def _run(self, pauses: Pauses, act: Act, account: StandIn) -> Outcome | bool:
        if act.job is None:
            return pauses.hold(cast("Any", account), CALL, act.holds)
        kind: Any = act.job.kind
        return PauseHandler(pauses, kind).run(act.job, act.job.attempts)

    @contextmanager
    def _pauses(self, world: World, *, is_new: bool = False) -> Iterator[Pauses]:
        """Control's pauses in this world. `is_new`: as a process begins, with the disk and without memory."""
        self.asked += 1
        gevent = _production.gevent
        self._write(world.rows)
        pauses = Pauses(
            cast("Any", StandIn(transact=lambda work: work(self._db))),
            cast("Any", StandIn()),
            self._page,
            longest_call_s=_LONGEST_S,
            is_over=lambda call_sid: False,
            account_of=lambda call_sid: ACCOUNT,
            events_of=lambda call_sid: [],
            waiting=[_act(world.noted)] if is_new and world.noted is not world.stored else [],
            note=lambda call_sid, kind, *, by: None,
        )
        if not is_new:
            self._put(pauses, world)
        try:
            yield pauses
        finally:
            _production.gevent = gevent

    def _put(self, pauses: Pauses, world: World) -> None:
        """Let others have acted: their changes of memory, disk and store."""
        self._write(world.rows)
        memory, instance = world.memory, cast("Any", pauses)
        pauses._open = {CALL: Pause(ACCOUNT, memory.open)} if memory.open else {}
        pauses._held = {} if memory.held is None else {CALL: memory.held}
        pauses.is_asking = lambda call_sid: world.creating
        instance._events_of = lambda call_sid: (
            [EventRow(kind=RECORDING_PAUSED, at=NOW, data=_OPERATOR, instance="", n=1)] if world.stored else []
        )


@contextmanager
def _clock(module: Any, moment: int) -> Iterator[list[int]]:
    """A module's clock at this moment, which can be moved."""
    time, now = module.time, [moment]
    module.time = StandIn(time=lambda: NOW + MOMENT_S * now[0])
    try:
        yield now
    finally:
        module.time = time


def _act(holds: bool) -> bus.CallEvent:
    return bus.CallEvent(CALL, RECORDING_PAUSED if holds else RECORDING_RESUMED, NOW, _OPERATOR)


def _due(job: Job) -> Job:
    """Return a row without the time and the number of its attempts."""
    attempts = min(1, job.attempts) if job.state == "wanted" else job.attempts
    return msgspec.structs.replace(job, next_at=NOW, at=NOW, attempts=attempts)


def _typing_of(made: CallDigits) -> Typing:
    return Typing(made._pauses, made._pause, made._awaited)


def _memory_of(pauses: Pauses) -> Memory:
    known = pauses._open.get(CALL)
    return Memory("" if known is None else known.pause, pauses._held.get(CALL))


def _error_of(answer: object) -> object:
    return RestError(*REFUSALS[answer], "") if isinstance(answer, str) and answer in REFUSALS else answer


def _listed(status: Any) -> list[Listed]:
    return [Listed("RE1", status, OUR_SOURCE, 2, -1, 0)] if status else []


def pause_of(job_id: str) -> str:
    """Return the name of the pause of a job."""
    return job_id.rpartition("/")[2]
