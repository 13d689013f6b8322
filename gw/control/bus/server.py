"""Control's end of the bus: spools each event of each worker once, and sends commands back.

One greenlet reads each worker's connection; `link` writes. Events that arrive together are one commit of the spool. After the
commit they are acknowledged and passed to the subscribers. An event the spool already has is acknowledged and not passed on
again. A worker that sends garbage, falls silent or does not read loses its connection only: it reconnects and sends again
whatever was not acknowledged. A worker whose process ended, or that does not return within RETURN_S, loses its calls.

Notes each event in the registry of calls before its publication. Waits for no subscriber.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import gevent
import gevent.pool
import gevent.server
from gevent.event import AsyncResult

from gw import bus
from gw.call.state import Reason
from gw.control.bus.link import BusLink
from gw.control.bus.workers import HoldView, WorkerRecord, Workers, WorkerView
from gw.control.calls.registry import Calls
from gw.control.jobs.lifecycle import Job
from gw.control.jobs.table import Wanted
from gw.control.spool import Spool, SpoolError
from gw.control.unix_socket import PrivateListener, Waiting

log = logging.getLogger(__name__)

#: From the connection to its Hello.
HELLO_S: Final = 5.0
#: A worker sends a message at least once a second; a connection silent for this long is dead.
SILENCE_S: Final = 30.0
#: A worker that lost its connection while its process lives may reconnect within this time.
RETURN_S: Final = 10.0
#: Period of checks on a missing worker's process: well below the 2 s within which its calls must be closed.
LOOK_S: Final = 0.2
#: Connections without a Hello; one more ends the oldest.
MAX_WAITING: Final = 64
#: Workers whose return is awaited.
MAX_MISSING: Final = 256
#: Size of one read, and so the upper size of one commit (further reads complete a longer message).
READ_BYTES: Final = 1 << 18
#: Questions of workers being answered at a time.
MAX_ANSWERS: Final = 1000
#: Between the refusal of a worker's version and the close of its connection, so that the worker can read it.
REFUSED_S: Final = 1.0
#: A refused worker that has not reconnected for this long has ended, or was replaced.
REFUSED_FOR_S: Final = 30.0
#: Time in which Twilio's `stop` is an operator's transfer: above the bound on the request (`gw.control.admin.commands`).
STOP_S: Final = 15.0
#: Time for a worker's confirmation that it expects a stop.
EXPECT_S: Final = 1.0
#: From a failed commit to the close of the worker's connection: it limits the rate of retries.
FAILED_COMMIT_S: Final = 1.0

Subscriber = Callable[[bus.Event], None]
#: A message from a worker's connection; a command among them is an error.
FromWorker = bus.FromWorker | bus.Command | bus.Unreadable


class BusServer:
    """Listens at `path`. Construction binds, `start` serves."""

    def __init__(self, path: Path, spool: Spool, calls: Calls, *, on_lost: Callable[[set[str]], None]) -> None:
        """`on_lost` receives the calls of a worker that can no longer end them. Raises OSError for a path in use or unusable."""
        self._spool = spool
        self.calls = calls
        self._on_lost = on_lost
        self._subscribers: list[Subscriber] = []
        self._workers = Workers()
        self._connections = gevent.pool.Pool()
        self._waiting = Waiting(MAX_WAITING)
        self._missing = gevent.pool.Pool(MAX_MISSING)
        self._answer: Callable[[bus.Ask], bus.Answer] = lambda ask: bus.Answer(ask.n)
        self._jobs_of: Callable[[bus.Event], Sequence[Wanted]] = lambda event: ()
        self._on_jobs: Callable[[Sequence[Job]], None] = lambda jobs: None
        self._on_doubt: Callable[[Iterable[str]], None] = lambda ids: None
        self._results: Callable[[bus.JobsOpen], Sequence[bus.JobSettled]] = lambda open_jobs: ()
        self._cancel: Callable[[str], None] = lambda job_id: None
        self._answers = gevent.pool.Pool(MAX_ANSWERS)
        self._expected: dict[str, AsyncResult[Mapping[str, str]]] = {}  # by call: a worker is asked to expect its stop
        self._draining = False
        self.spool_problem = ""  # why the last commit failed; empty after a success
        self._version_problem = ""  # the worker last refused for its version; empty after REFUSED_FOR_S
        self._refused_s = 0.0
        self._listener = PrivateListener(path)
        self._server = gevent.server.StreamServer(self._listener.socket, self._serve, spawn=self._connections)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Pass every new event to `subscriber` after its commit, in sequence. A subscriber must not wait."""
        self._subscribers.append(subscriber)

    def answer_with(self, answer: Callable[[bus.Ask], bus.Answer]) -> None:
        """Answer workers' questions by `answer`, which may wait. Until then the answers are empty."""
        self._answer = answer

    def make_jobs_with(
        self,
        jobs_of: Callable[[bus.Event], Sequence[Wanted]],
        on_jobs: Callable[[Sequence[Job]], None],
        on_doubt: Callable[[Iterable[str]], None],
    ) -> None:
        """Commit with each event its jobs, by `jobs_of`; then pass them to `on_jobs`.

        `on_doubt`: gets the ids of workers' jobs whose commit failed; some may be on disk. None of the three may wait.
        """
        self._jobs_of, self._on_jobs, self._on_doubt = jobs_of, on_jobs, on_doubt

    def answer_jobs_with(self, results: Callable[[bus.JobsOpen], Sequence[bus.JobSettled]]) -> None:
        """Answer workers that ask for open jobs by `results`, which may wait. Until then there is no answer."""
        self._results = results

    def cancel_jobs_with(self, cancel: Callable[[str], None]) -> None:
        """Pass the ids of cancelled jobs to `cancel`, which may not wait."""
        self._cancel = cancel

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Close the listener and every connection, waiting at most `timeout_s`."""
        self._server.stop(timeout=0)
        self._missing.kill(block=False)
        self._answers.kill(block=False)
        for worker in self._workers.all():
            if worker.link is not None:
                worker.link.close()
        self._connections.kill(timeout=timeout_s)
        self._listener.close()

    def refused(self) -> str:
        """Describe the worker refused for its version of the bus; empty without one."""
        if self._version_problem and time.monotonic() - self._refused_s > REFUSED_FOR_S:
            self._version_problem = ""
        return self._version_problem

    def workers(self) -> list[WorkerView]:
        return [worker.view() for worker in self._workers.all()]

    def holds(self) -> list[HoldView]:
        """Return long holds of the workers' hubs, newest first."""
        return self._workers.holds()

    def check_spool(self) -> None:
        """Commit to the spool, and note the outcome in `spool_problem`."""
        try:
            self._spool.check()
        except SpoolError as error:
            self.spool_problem = str(error)
        else:
            self.spool_problem = ""

    def check_owner(self, call_sid: str) -> None:
        """If the call's worker is dead, take its calls now, not at the next check."""
        worker = self._owner(call_sid)
        if worker is not None and worker.gone:
            self._give_up(worker, "its process ended")

    def hang_up(self, call_sid: str, reason: str) -> bool:
        """Send the call's worker the command to end it. Returns False when no connected worker owns the call."""
        return self._send(call_sid, bus.HangUp(call_sid, reason))

    def settle(self, settled: bus.JobSettled) -> bool:
        """Send a job's result to the worker of its call. Returns False when no connected worker owns the call."""
        return self._send(settled.call_sid, settled)

    def send_verdict(self, call_sid: str, verdict: str) -> bool:
        """Send the call's worker Twilio's verdict on the party that answered. Returns False when no connected worker owns it."""
        worker = self._owner(call_sid)
        return worker is not None and worker.version >= 3 and self._send(call_sid, bus.AnsweredBy(call_sid, verdict))

    def expect_stop(self, call_sid: str, on: bool) -> Mapping[str, str]:
        """Have the call's worker take Twilio's `stop` for a transfer, within STOP_S, or no longer.

        Returns: the parameters that every stream of the call has, once the worker expects the stop. Empty without a worker that
        answers within EXPECT_S: the call ends as hung up by the caller.
        """
        worker = self._owner(call_sid)
        command = bus.ExpectStop(call_sid, STOP_S if on else 0.0)
        if worker is None or worker.version < 4 or not self._send(call_sid, command) or not on:
            return {}
        expected = self._expected.setdefault(call_sid, AsyncResult())
        try:
            return expected.get(timeout=EXPECT_S) or {}
        except gevent.Timeout:
            log.warning("a worker did not confirm a transfer in time", extra={"call_sid": call_sid})
            return {}
        finally:
            self._expected.pop(call_sid, None)

    def drain(self, on: bool) -> int:
        """Send a drain, or its end, to every worker, also to those that connect later. Returns the number sent now."""
        self._draining = on
        return sum(1 for worker in self._workers.all() if worker.link is not None and worker.link.send(bus.Drain(on)))

    def send_budget(self, news: Sequence[bus.Budget], everything: Callable[[], Sequence[bus.Budget]]) -> None:
        """Send what is left to every worker: `news`, and `everything` to one that has just connected."""
        for worker in self._workers.all():
            if worker.link is None:
                continue
            is_new = worker.budgeted is not worker.link
            worker.budgeted = worker.link
            for budget in everything() if is_new else news:
                worker.link.send(budget)

    # -- one connection ---------------------------------------------------------------------------------------------------

    def _serve(self, sock: socket.socket, _address: object) -> None:
        link = BusLink(sock)
        worker: WorkerRecord | None = None
        try:
            sock.settimeout(SILENCE_S)
            reader = bus.Reader.of_events()
            self._waiting.add(sock)
            hello, rest = self._greet(sock, reader)
            self._waiting.discard(sock)
            if not bus.OLDEST_VERSION <= hello.version <= bus.VERSION:
                self._refuse(hello, link)
                return
            worker = self._attach(hello, link)
            self._take(worker, link, rest)
            while data := sock.recv(READ_BYTES):
                self._take(worker, link, reader.feed(data))
        except bus.BusError as error:
            log.warning("a worker's connection is closed: %s", error, extra={"reason": "bus_error"})
        except TimeoutError:
            log.warning("a worker was silent for %g s", SILENCE_S, extra={"reason": "bus_silent"})
        except OSError as error:
            log.info("a worker's connection broke: %s", error)
        except SpoolError as error:
            self.spool_problem = str(error)
            log.error("events of a worker could not be spooled: %s", error, extra={"reason": error.code})
            gevent.sleep(FAILED_COMMIT_S)
        except Exception:  # top of the greenlet; the worker sends again whatever was not acknowledged
            log.exception("a worker's connection failed")
        finally:
            self._waiting.discard(sock)
            link.close()
            if worker is not None:
                self._detach(worker, link)

    def _greet(self, sock: socket.socket, reader: bus.Reader) -> tuple[bus.Hello, list[FromWorker]]:
        with gevent.Timeout(HELLO_S, bus.BusError(f"no Hello within {HELLO_S:g} s")):
            while data := sock.recv(READ_BYTES):
                if not (messages := reader.feed(data)):
                    continue
                first = messages[0]
                if not isinstance(first, bus.Hello):
                    raise bus.BusError(f"{type(first).__name__} came before Hello")
                return first, messages[1:]
        raise bus.BusError("the connection ended before Hello")

    def _refuse(self, hello: bus.Hello, link: BusLink) -> None:
        """Refuse a worker of an unsupported version; its events stay with it."""
        supported = f"{bus.OLDEST_VERSION} to {bus.VERSION}" if bus.OLDEST_VERSION < bus.VERSION else str(bus.VERSION)
        why = f"worker {hello.worker} (pid {hello.pid}) speaks bus version {hello.version}, control speaks {supported}"
        if self._version_problem != why:
            log.error("%s: replace the older of the two, the events wait in the worker", why, extra={"reason": "bus_version"})
        self._version_problem = why
        self._refused_s = time.monotonic()
        link.send(bus.VersionRefused(bus.VERSION, why))
        gevent.sleep(REFUSED_S)

    def _attach(self, hello: bus.Hello, link: BusLink) -> WorkerRecord:
        worker = self._workers.on_hello(hello)
        if worker.link is not None:
            worker.link.close()  # an older connection of the same process, which sends its unacknowledged events again here
        worker.link = link
        worker.connections += 1
        self.calls.on_hello(hello, time.monotonic())
        log.info("worker %d connected, pid %d, %d calls", worker.index, worker.pid, len(hello.calls))
        if self._draining:
            link.send(bus.Drain(True))
        return worker

    def _take(self, worker: WorkerRecord, link: BusLink, messages: list[FromWorker]) -> None:
        """Commit new events, acknowledge them, publish them. One connection of a worker at a time: none is published twice."""
        with worker.taking:
            if worker.link is not link:
                raise bus.BusError("the worker has a newer connection")
            if worker.last is None:
                worker.last = self._spool.last(worker.instance)
            highest, fresh, questions = sort_messages(worker, worker.last, messages)
            accepted: Sequence[Job] = ()
            foreign = {entry.n for entry in fresh if self._is_foreign(entry)}
            if fresh:
                worker.last = None  # unknown during the commit, and after its failure
                try:
                    items, jobs = self._split([entry for entry in fresh if entry.n not in foreign])
                    accepted = self._spool.append(worker.instance, items, worker=worker.index, jobs=jobs)
                except BaseException:
                    self._on_doubt(job_ids(fresh))
                    raise
                worker.last = fresh[-1].n
                self.spool_problem = ""
            if highest:
                link.send(bus.Ack(highest))
            if accepted:
                self._pass_jobs(accepted)
            for entry in fresh:
                if isinstance(entry, bus.Unreadable):  # the forwarder sets it aside, with the reason
                    log.error("worker %d sent event %d, which this version cannot read", worker.index, entry.n)
                    continue
                if entry.n in foreign and isinstance(entry.event, bus.CallStarted):
                    call_sid, reason = entry.event.call_sid, Reason.WRONG_ACCOUNT.value
                    log.warning("a stream of another account's call must end", extra={"call_sid": call_sid, "reason": reason})
                    link.send(bus.HangUp(call_sid, reason))
                    continue
                former = self._workers.get(self.calls.on_event(worker.instance, entry.event, time.monotonic()))
                if former is not None and former.link is not None and isinstance(entry.event, bus.CallStarted):
                    former.link.send(bus.HangUp(entry.event.call_sid, Reason.PHONE_LOST))  # Twilio has left its stream
                self._publish(entry.event)
        for question in questions:  # after the events that came with it
            if isinstance(question, bus.JobCancelled):
                self._cancel(question.id)
            elif isinstance(question, bus.StopExpected):
                if (expected := self._expected.get(question.call_sid)) is not None:
                    expected.set(question.kept)
            elif not self._answers.full():  # otherwise the worker's wait for the answer ends
                self._answers.spawn(self._reply, link, question)

    def _pass_jobs(self, accepted: Sequence[Job]) -> None:
        try:
            self._on_jobs(accepted)
        except Exception:  # the jobs are on disk, and the events behind them must be published
            log.exception("%d jobs were accepted, but not begun", len(accepted))
            self._on_doubt([job.id for job in accepted])

    def _split(
        self, fresh: Sequence[bus.Numbered | bus.Unreadable]
    ) -> tuple[list[tuple[int, bytes]], dict[int, Sequence[Wanted]]]:
        """Return the entries of the spool, and the jobs of each event. A JobWanted is a job alone: the store has no place."""
        items: list[tuple[int, bytes]] = []
        jobs: dict[int, Sequence[Wanted]] = {}
        for entry in fresh:
            if isinstance(entry, bus.Unreadable):
                items.append((entry.n, entry.body))
                continue
            if wanted := self._jobs_of(entry.event):
                jobs[entry.n] = wanted
            if not (wanted and isinstance(entry.event, bus.JobWanted)):
                items.append((entry.n, bus.encode_event(entry.event)))
        return items, jobs

    def _reply(self, link: BusLink, question: bus.Ask | bus.JobsOpen) -> None:
        try:
            if isinstance(question, bus.Ask):
                link.send(self._answer(question))
                return
            for settled in self._results(question):
                link.send(settled)
        except Exception:  # top of the greenlet; the worker's wait for the answer ends
            log.exception("a worker's question failed", extra={"call_sid": question.call_sid})

    def _publish(self, event: bus.Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # one part's fault must not cost another part the event
                log.exception("a subscriber failed on %s", type(event).__name__)

    def _detach(self, worker: WorkerRecord, link: BusLink) -> None:
        if worker.link is not link:
            return
        worker.link = None
        if not self._missing.full():
            self._missing.spawn(self._await_return, worker, worker.connections)
        else:
            self._give_up(worker, "too many workers are missing")

    def _await_return(self, worker: WorkerRecord, connections: int) -> None:
        """Wait for the worker to reconnect, while its process lives and at most RETURN_S."""
        deadline_s = time.monotonic() + RETURN_S
        while worker.connections == connections:
            if worker.gone:
                return self._give_up(worker, "its process ended")
            if time.monotonic() >= deadline_s:
                return self._give_up(worker, f"it did not reconnect within {RETURN_S:g} s")
            gevent.sleep(LOOK_S)
        return None

    def _give_up(self, worker: WorkerRecord, why: str) -> None:
        if not self._workers.remove(worker):
            return
        if orphaned := self.calls.on_worker_lost(worker.instance, time.monotonic()):
            log.error("worker %d (pid %d) lost %d calls: %s", worker.index, worker.pid, len(orphaned), why)
            self._on_lost(orphaned)
        else:
            log.info("worker %d (pid %d) left", worker.index, worker.pid)

    def _is_foreign(self, entry: bus.Numbered | bus.Unreadable) -> bool:
        """Return whether an event is the start of a stream on a call of another account: its row must not change."""
        event = None if isinstance(entry, bus.Unreadable) else entry.event
        return isinstance(event, bus.CallStarted) and self.calls.is_foreign(event.call_sid, event.account_sid)

    def _owner(self, call_sid: str) -> WorkerRecord | None:
        return self._workers.get(self.calls.owner(call_sid))

    def _send(self, call_sid: str, command: bus.Command) -> bool:
        worker = self._owner(call_sid)
        return worker is not None and worker.link is not None and worker.link.send(command)


def job_ids(entries: Iterable[bus.Numbered | bus.Unreadable]) -> list[str]:
    """Return the ids of the jobs among these events."""
    numbered = (entry.event for entry in entries if isinstance(entry, bus.Numbered))
    return [event.id for event in numbered if isinstance(event, bus.JobWanted)]


class Sorted(NamedTuple):
    """Messages of a worker by kind. `highest` is the highest event number, 0 without events."""

    highest: int
    fresh: list[bus.Numbered | bus.Unreadable]
    questions: list[bus.Ask | bus.JobsOpen | bus.JobCancelled | bus.StopExpected]


def sort_messages(worker: WorkerRecord, last: int, messages: Sequence[FromWorker]) -> Sorted:
    """Separate new events, those above `last`, and questions; store statuses and holds in `worker`.

    Raises: BusError for a message that is not allowed after Hello.
    """
    highest = 0
    fresh: list[bus.Numbered | bus.Unreadable] = []
    questions: list[bus.Ask | bus.JobsOpen | bus.JobCancelled | bus.StopExpected] = []
    for message in messages:
        match message:
            case bus.Numbered() | bus.Unreadable():
                highest = max(highest, message.n)
                if message.n <= last:
                    continue
                if message.n != last + 1:
                    log.warning("worker %d skips from event %d to %d", worker.index, last, message.n)
                last = message.n
                fresh.append(message)
            case bus.Ask() | bus.JobsOpen() | bus.JobCancelled() | bus.StopExpected():
                questions.append(message)
            case bus.WorkerStatus():
                worker.status = message
            case bus.HubHold():
                worker.on_hold(message)
            case _:
                raise bus.BusError(f"{type(message).__name__} is not allowed after Hello")
    return Sorted(highest, fresh, questions)
