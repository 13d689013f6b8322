"""Control's end of the bus: takes every event of every worker into the spool once, and gives commands back.

One greenlet reads a worker's connection; `bus_link` writes. Events that arrived together are one commit of the spool; only then
they are acknowledged, and only then subscribers hear of them. An event whose number the spool already has is acknowledged and
not told again. A worker that speaks garbage, falls silent or does not read loses its connection, nothing else: it connects
again and says what was not acknowledged. A worker whose process is gone, or that does not come back, loses its calls.

Never interprets an event beyond a call's beginning and end; never waits for a subscriber.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import gevent
import gevent.pool
import gevent.server

from gw import bus
from gw.control.bus.link import BusLink
from gw.control.bus.workers import HoldView, Worker, Workers, WorkerView
from gw.control.spool import Spool, SpoolError
from gw.control.unix_socket import PrivateListener

log = logging.getLogger(__name__)

#: From the connection to its Hello.
HELLO_S: Final = 5.0
#: A worker says something at least once a second; this long without a word means the connection is dead.
SILENCE_S: Final = 30.0
#: A worker that lost its connection while its process lives may come back within this time.
RETURN_S: Final = 10.0
#: How often a missing worker's process is looked at: well within the 2 s in which its calls must be closed.
LOOK_S: Final = 0.2
#: Connections at a time: workers, those they replace, and room for a worker that flaps.
MAX_CONNECTIONS: Final = 256
#: What one read takes, and so the upper size of one commit's events (a longer message is finished by the next reads).
READ_BYTES: Final = 1 << 18
#: Questions of workers being answered; each takes less than half a second.
MAX_ANSWERS: Final = 1000
#: Between telling a worker that its version is not understood and closing its connection: it reads what it was told.
REFUSED_S: Final = 1.0
#: A refused worker that did not come again for so long is gone, or was replaced.
REFUSED_FOR_S: Final = 30.0
#: After a failed commit the worker's events stay with it; its connection is closed this much later, so that nobody spins.
FAILED_COMMIT_S: Final = 1.0

Subscriber = Callable[[bus.Event], None]
#: What a worker's connection brings; a command among it is an error.
FromWorker = bus.FromWorker | bus.Command | bus.Unreadable


class BusServer:
    """Listens at `path`. `on_lost` is told the calls of a worker that will not end them itself; `answer` answers a worker's
    questions, and may take its time."""

    def __init__(
        self,
        path: Path,
        spool: Spool,
        *,
        on_lost: Callable[[set[str]], None],
        answer: Callable[[bus.Ask], bus.Answer] = lambda ask: bus.Answer(ask.n),
    ) -> None:
        """Bind. Raises OSError when another process listens there or the path cannot be used."""
        self._spool = spool
        self._on_lost = on_lost
        self._subscribers: list[Subscriber] = []
        self._workers = Workers()
        self._connections = gevent.pool.Pool(MAX_CONNECTIONS)
        self._missing = gevent.pool.Pool(MAX_CONNECTIONS)
        self._answer = answer
        self._answers = gevent.pool.Pool(MAX_ANSWERS)
        self._draining = False
        self._seen: set[str] | None = set()
        self.spool_problem = ""  # why the last commit failed; empty when it did not
        self.version_problem = ""  # which worker was refused for the version it speaks; empty once none comes any more
        self._refused_s = 0.0
        self._listener = PrivateListener(path)
        self._server = gevent.server.StreamServer(self._listener.socket, self._serve, spawn=self._connections)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Be told every new event after its commit, in order. A subscriber must return at once."""
        self._subscribers.append(subscriber)

    def start(self) -> None:
        self._server.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Close the listener and every connection; waits at most `timeout_s`."""
        self._server.stop(timeout=0)
        self._missing.kill(block=False)
        self._answers.kill(block=False)
        for worker in self._workers.all():
            if isinstance(worker.link, BusLink):
                worker.link.close()
        self._connections.kill(timeout=timeout_s)
        self._listener.close()

    def refused(self) -> str:
        """Which worker is refused for the version it speaks; empty where none is."""
        if self.version_problem and time.monotonic() - self._refused_s > REFUSED_FOR_S:
            self.version_problem = ""
        return self.version_problem

    def workers(self) -> list[WorkerView]:
        return [worker.view() for worker in self._workers.all()]

    def holds(self) -> list[HoldView]:
        """Long holds of the workers' hubs, the newest first."""
        return self._workers.holds()

    def owned_calls(self) -> set[str]:
        """Calls alive at a worker, connected or expected back."""
        return self._workers.owned_calls()

    def calls_seen(self) -> set[str]:
        """Every call heard of since the start, until `stop_remembering`: the orphan pass must not touch these."""
        return set() if self._seen is None else set(self._seen)

    def stop_remembering(self) -> None:
        self._seen = None

    def is_owned(self, call_sid: str) -> bool:
        return self._workers.owner(call_sid) is not None

    def is_lost(self, call_sid: str) -> bool:
        """Whether no worker has this call any more. A worker found dead here loses its calls now, not at the next look."""
        worker = self._workers.owner(call_sid)
        if worker is not None and worker.gone:
            self._give_up(worker, "its process is gone")
            return True
        return worker is None

    def hang_up(self, call_sid: str, reason: str) -> bool:
        """Tell the call's worker to end it. False when no connected worker owns it."""
        worker = self._workers.owner(call_sid)
        return worker is not None and worker.link is not None and worker.link.send(bus.HangUp(call_sid, reason))

    def drain(self, on: bool) -> int:
        """Tell every worker, and those still to come. Returns how many were told."""
        self._draining = on
        return sum(1 for worker in self._workers.all() if worker.link is not None and worker.link.send(bus.Drain(on)))

    # -- one connection ---------------------------------------------------------------------------------------------------

    def _serve(self, sock: socket.socket, _address: object) -> None:
        link = BusLink(sock)
        worker: Worker | None = None
        try:
            sock.settimeout(SILENCE_S)
            reader = bus.Reader.of_events()
            hello, rest = self._greet(sock, reader)
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
            log.warning("a worker said nothing for %g s", SILENCE_S, extra={"reason": "bus_silent"})
        except OSError as error:
            log.info("a worker's connection broke: %s", error)
        except SpoolError as error:
            self.spool_problem = str(error)
            log.error("events of a worker could not be kept: %s", error, extra={"reason": error.code})
            gevent.sleep(FAILED_COMMIT_S)
        except Exception:  # this greenlet's top: what was not acknowledged comes again
            log.exception("a worker's connection failed")
        finally:
            link.close()
            if worker is not None:
                self._detach(worker, link)

    def _greet(self, sock: socket.socket, reader: bus.Reader) -> tuple[bus.Hello, list[FromWorker]]:
        with gevent.Timeout(HELLO_S, bus.BusError(f"no Hello within {HELLO_S:g} s")):
            while data := sock.recv(READ_BYTES):
                messages = reader.feed(data)
                if not messages:
                    continue
                first = messages[0]
                if not isinstance(first, bus.Hello):
                    raise bus.BusError(f"{type(first).__name__} came before Hello")
                return first, messages[1:]
        raise bus.BusError("the connection ended before Hello")

    def _refuse(self, hello: bus.Hello, link: BusLink) -> None:
        """Tell a worker of another version that nobody here understands it; its events stay with it."""
        known = f"{bus.OLDEST_VERSION} to {bus.VERSION}" if bus.OLDEST_VERSION < bus.VERSION else str(bus.VERSION)
        why = f"worker {hello.worker} (pid {hello.pid}) speaks bus version {hello.version}, control speaks {known}"
        if self.version_problem != why:
            log.error("%s: replace the older of both, its events wait", why, extra={"reason": "bus_version"})
        self.version_problem = why
        self._refused_s = time.monotonic()
        link.send(bus.VersionRefused(bus.VERSION, why))
        gevent.sleep(REFUSED_S)

    def _attach(self, hello: bus.Hello, link: BusLink) -> Worker:
        worker = self._workers.on_hello(hello)
        if isinstance(worker.link, BusLink):
            worker.link.close()  # an older connection of the same process: what it had not acknowledged comes again here
        worker.link = link
        worker.connections += 1
        self._remember(worker.calls)
        log.info("worker %d connected, pid %d, %d calls", worker.index, worker.pid, len(worker.calls))
        if self._draining:
            link.send(bus.Drain(True))
        return worker

    def _take(self, worker: Worker, link: BusLink, messages: list[FromWorker]) -> None:
        """Commit what is new, acknowledge it, tell it. One connection of a worker at a time, so that nothing is told twice."""
        with worker.taking:
            if worker.link is not link:
                raise bus.BusError("the worker has a newer connection")
            if worker.last is None:
                worker.last = self._spool.last(worker.instance)
            asks = [message for message in messages if isinstance(message, bus.Ask)]
            highest, fresh = sort_messages(worker, worker.last, [one for one in messages if not isinstance(one, bus.Ask)])
            if fresh:
                items = [(one.n, one.body if isinstance(one, bus.Unreadable) else bus.encode_event(one.event)) for one in fresh]
                worker.last = None  # not known while it is under way, nor after a failure
                self._spool.append(worker.instance, items, worker=worker.index)
                worker.last = fresh[-1].n
                self.spool_problem = ""
            if highest:
                link.send(bus.Ack(highest))
            for entry in fresh:
                if isinstance(entry, bus.Unreadable):  # the forwarder sets it aside, with the reason
                    log.error("worker %d sent event %d, which nobody here can read", worker.index, entry.n)
                    continue
                self._workers.on_event(worker, entry.event)
                if isinstance(entry.event, bus.CallStarted):
                    self._remember({entry.event.call_sid})
                self._tell(entry.event)
        for ask in asks:  # what came with it is known by now
            if not self._answers.full():  # who asks goes without
                self._answers.spawn(self._reply, link, ask)

    def _reply(self, link: BusLink, ask: bus.Ask) -> None:
        try:
            link.send(self._answer(ask))
        except Exception:  # this greenlet's top: who asks goes without
            log.exception("a worker's question failed", extra={"call_sid": ask.call_sid})

    def _tell(self, event: bus.Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # a boundary: one part's fault must not cost another part the event
                log.exception("a subscriber failed on %s", type(event).__name__)

    def _detach(self, worker: Worker, link: BusLink) -> None:
        if worker.link is not link:
            return
        worker.link = None
        if worker.gone and not worker.calls:
            self._workers.forget(worker)
        elif not self._missing.full():
            self._missing.spawn(self._await_return, worker, worker.connections)
        else:
            self._give_up(worker, "too many workers are missing")

    def _await_return(self, worker: Worker, connections: int) -> None:
        """Wait for the worker to come back, while its process lives and the time lasts."""
        deadline_s = time.monotonic() + RETURN_S
        while worker.connections == connections:
            if worker.gone:
                return self._give_up(worker, "its process is gone")
            if time.monotonic() >= deadline_s:
                return self._give_up(worker, f"it did not come back within {RETURN_S:g} s")
            gevent.sleep(LOOK_S)
        return None

    def _give_up(self, worker: Worker, why: str) -> None:
        orphaned = self._workers.forget(worker)
        if orphaned:
            log.error("worker %d (pid %d) lost %d calls: %s", worker.index, worker.pid, len(orphaned), why)
            self._on_lost(orphaned)
        else:
            log.info("worker %d (pid %d) left", worker.index, worker.pid)

    def _remember(self, call_sids: set[str]) -> None:
        if self._seen is not None:
            self._seen |= call_sids


def sort_messages(worker: Worker, last: int, messages: Sequence[FromWorker]) -> tuple[int, list[bus.Numbered | bus.Unreadable]]:
    """The highest number among the messages (0: none), and the events that are new. Statuses and holds are kept at once."""
    highest = 0
    fresh: list[bus.Numbered | bus.Unreadable] = []
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
            case bus.WorkerStatus():
                worker.status = message
            case bus.HubHold():
                worker.on_hold(message)
            case _:
                raise bus.BusError(f"{type(message).__name__} is not allowed after Hello")
    return highest, fresh
