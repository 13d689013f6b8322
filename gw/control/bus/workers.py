"""Which media workers there are, and which of them owns which call.

A worker is one process: its `instance` stays the same over reconnections and is new when the process is. Ownership follows
what the worker says: `Hello.calls`, `CallStarted`, `CallEnded`. Knows no socket: of a worker's link it
uses `send` alone.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

import msgspec
from gevent.lock import BoundedSemaphore

from gw import bus
from gw.procfs import birth_of

#: Long holds of the hub kept of one worker: half a minute of a worker in trouble.
MAX_HOLDS: Final = 32


class Link(Protocol):
    """The connection of a worker, as far as others may use it."""

    def send(self, command: bus.Command) -> bool:
        """Queue a command. False when the link is closed or its queue is full."""
        ...


class WorkerView(msgspec.Struct, frozen=True):
    """What `status` shows of a worker."""

    index: int
    pid: int
    instance: str
    connected: bool
    calls: int
    draining: bool
    unacked: int
    lateness_p99_s: float
    hold_max_s: float


class HoldView(msgspec.Struct, frozen=True):
    """A long hold of a worker's hub, as `status --holds` shows it."""

    worker: int
    pid: int
    at: float
    kind: str
    wall_s: float
    cpu_s: float
    stack: list[bus.StackFrame]


class Worker:
    """One worker process, connected or expected back."""

    __slots__ = ("_birth", "calls", "connections", "holds", "index", "instance", "last", "link", "pid", "status", "taking")

    def __init__(self, hello: bus.Hello, holds: deque[HoldView]) -> None:
        """`holds`: its worker's, which outlive the process."""
        self.holds = holds
        self.index = hello.worker
        self.instance = hello.instance
        self.pid = hello.pid
        self._birth = birth_of(hello.pid)
        self.calls = set(hello.calls)
        self.link: Link | None = None
        self.connections = 0  # how often it connected
        self.status: bus.WorkerStatus | None = None
        self.last: int | None = None  # the highest number in the spool; None: ask the spool
        self.taking = BoundedSemaphore(1)  # held while its events are committed and told

    @property
    def gone(self) -> bool:
        """Whether its process ended."""
        return self._birth is None or birth_of(self.pid) != self._birth

    @property
    def draining(self) -> bool:
        return self.status is not None and self.status.draining

    def on_hold(self, hold: bus.HubHold) -> None:
        """Something held its hub."""
        self.holds.append(HoldView(self.index, self.pid, hold.at, hold.kind, hold.wall_s, hold.cpu_s, hold.stack))

    def view(self) -> WorkerView:
        status = self.status or bus.WorkerStatus(
            calls=len(self.calls), draining=False, unacked=0, lateness_p99_s=-1.0, hold_max_s=-1.0
        )
        return WorkerView(
            index=self.index,
            pid=self.pid,
            instance=self.instance,
            connected=self.link is not None,
            calls=status.calls,
            draining=status.draining,
            unacked=status.unacked,
            lateness_p99_s=status.lateness_p99_s,
            hold_max_s=status.hold_max_s,
        )


class Workers:
    """Every worker by instance, every owned call by SID."""

    def __init__(self) -> None:
        self._by_instance: dict[str, Worker] = {}
        self._owners: dict[str, Worker] = {}
        self._holds: dict[int, deque[HoldView]] = {}  # by worker index

    def on_hello(self, hello: bus.Hello) -> Worker:
        """A worker connected, for the first time or again. What it says is alive now replaces what was known."""
        worker = self._by_instance.get(hello.instance)
        if worker is None:
            worker = self._by_instance[hello.instance] = Worker(hello, self._holds_of(hello.worker))
        else:
            self._disown(worker, worker.calls - set(hello.calls))
            worker.calls = set(hello.calls)
        for call_sid in worker.calls:
            self._owners[call_sid] = worker
        return worker

    def on_event(self, worker: Worker, event: bus.Event) -> None:
        """Follow a call's beginning or end."""
        match event:
            case bus.CallStarted():
                worker.calls.add(event.call_sid)
                self._owners[event.call_sid] = worker
            case bus.CallEnded():
                worker.calls.discard(event.call_sid)
                self._disown(worker, {event.call_sid})
            case _:
                pass

    def forget(self, worker: Worker) -> set[str]:
        """The process is gone or given up. Returns the calls that nobody owns any more."""
        if self._by_instance.get(worker.instance) is worker:
            del self._by_instance[worker.instance]
        orphaned = {call_sid for call_sid in worker.calls if self._owners.get(call_sid) is worker}
        self._disown(worker, orphaned)
        worker.calls = set()
        return orphaned

    def _holds_of(self, index: int) -> deque[HoldView]:
        return self._holds.setdefault(index, deque(maxlen=MAX_HOLDS))

    def holds(self) -> list[HoldView]:
        """The long holds kept, the newest first; those of workers that are gone too."""
        return sorted((hold for holds in self._holds.values() for hold in holds), key=lambda hold: -hold.at)

    def owner(self, call_sid: str) -> Worker | None:
        return self._owners.get(call_sid)

    def owned_calls(self) -> set[str]:
        return set(self._owners)

    def all(self) -> list[Worker]:
        """Sorted by index, then pid: an index has two while one replaces the other."""
        return sorted(self._by_instance.values(), key=lambda worker: (worker.index, worker.pid))

    def _disown(self, worker: Worker, call_sids: set[str]) -> None:
        for call_sid in call_sids:
            if self._owners.get(call_sid) is worker:
                del self._owners[call_sid]
