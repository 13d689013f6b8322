"""The connected media workers, and the owner of each call.

A worker is one process: its `instance` is the same over reconnections and new for a new process. Ownership follows the worker's
messages: `Hello.calls`, `CallStarted`, `CallEnded`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
from gevent.lock import BoundedSemaphore
from msgspec.structs import asdict

from gw import bus
from gw.control.bus.link import BusLink
from gw.procfs import birth_of

#: Long holds of the hub kept for one worker index: half a minute of a worker in trouble.
MAX_HOLDS: Final = 32


class WorkerView(msgspec.Struct, frozen=True):
    """A worker in the document of `status`."""

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
    """A long hold of a worker's hub in the document of `status --holds`."""

    worker: int
    pid: int
    at: float
    kind: str
    wall_s: float
    cpu_s: float
    stack: list[bus.StackFrame]


class WorkerRecord:
    """One worker process, connected or expected back."""

    __slots__ = (
        "_birth",
        "budgeted",
        "calls",
        "connections",
        "holds",
        "index",
        "instance",
        "last",
        "link",
        "pid",
        "status",
        "taking",
    )

    def __init__(self, hello: bus.Hello, holds: deque[HoldView]) -> None:
        """`holds`: the holds of its index, which outlive the process."""
        self.holds = holds
        self.index = hello.worker
        self.instance = hello.instance
        self.pid = hello.pid
        self._birth = birth_of(hello.pid)
        self.calls = set(hello.calls)
        self.link: BusLink | None = None
        self.budgeted: BusLink | None = None  # the connection over which it was sent every caller's budget
        self.connections = 0  # number of connections so far
        self.status: bus.WorkerStatus | None = None
        self.last: int | None = None  # the highest event number in the spool; None: read it from the spool
        self.taking = BoundedSemaphore(1)  # held while its events are committed and published

    @property
    def gone(self) -> bool:
        """True once the process has ended."""
        return self._birth is None or birth_of(self.pid) != self._birth

    @property
    def draining(self) -> bool:
        return self.status is not None and self.status.draining

    def on_hold(self, hold: bus.HubHold) -> None:
        """Store a long hold of the hub."""
        self.holds.append(HoldView(self.index, self.pid, hold.at, hold.kind, hold.wall_s, hold.cpu_s, hold.stack))

    def view(self) -> WorkerView:
        status = self.status or bus.WorkerStatus(
            calls=len(self.calls), draining=False, unacked=0, lateness_p99_s=-1.0, hold_max_s=-1.0
        )
        return WorkerView(self.index, self.pid, self.instance, self.link is not None, **asdict(status))


class Workers:
    """All workers by instance, all owned calls by SID."""

    def __init__(self) -> None:
        self._by_instance: dict[str, WorkerRecord] = {}
        self._owners: dict[str, WorkerRecord] = {}
        self._answered: dict[str, float] = {}  # start of an owned call's latest stream
        self._holds: dict[int, deque[HoldView]] = {}  # by worker index

    def on_hello(self, hello: bus.Hello) -> WorkerRecord:
        """Add a worker that connected, or update it: the calls in its Hello replace its former calls.

        A call stays with its latest stream, in whatever order the workers connect: an older one may still be open elsewhere.
        """
        worker = self._by_instance.get(hello.instance)
        if worker is None:
            worker = self._by_instance[hello.instance] = WorkerRecord(hello, self._holds_of(hello.worker))
        else:
            self._disown(worker, worker.calls - set(hello.calls))
            worker.calls = set(hello.calls)
        answered = dict(zip(hello.calls, hello.answered_at, strict=False))
        for call_sid in worker.calls:
            at = answered.get(call_sid, 0.0)
            if at >= self._answered.get(call_sid, 0.0):
                self._owners[call_sid], self._answered[call_sid] = worker, at
        return worker

    def on_event(self, worker: WorkerRecord, event: bus.Event) -> WorkerRecord | None:
        """Update the ownership of a call that started or ended. The call's latest stream owns it, in whatever order events come.

        Returns: another worker that has an older stream of a call that started.
        """
        match event:
            case bus.CallStarted():
                former = self._owners.get(event.call_sid)
                if event.answered_at < self._answered.get(event.call_sid, 0.0):
                    return None
                worker.calls.add(event.call_sid)
                self._owners[event.call_sid] = worker
                self._answered[event.call_sid] = event.answered_at
                return None if former is worker else former
            case bus.CallEnded():
                worker.calls.discard(event.call_sid)
                self._disown(worker, {event.call_sid})
            case _:
                pass
        return None

    def remove(self, worker: WorkerRecord) -> set[str]:
        """Remove a worker. Returns the calls left without an owner."""
        if self._by_instance.get(worker.instance) is worker:
            del self._by_instance[worker.instance]
        orphaned = {call_sid for call_sid in worker.calls if self._owners.get(call_sid) is worker}
        self._disown(worker, orphaned)
        worker.calls = set()
        return orphaned

    def _holds_of(self, index: int) -> deque[HoldView]:
        return self._holds.setdefault(index, deque(maxlen=MAX_HOLDS))

    def holds(self) -> list[HoldView]:
        """Return the stored long holds, newest first, including those of workers that ended."""
        return sorted((hold for holds in self._holds.values() for hold in holds), key=lambda hold: -hold.at)

    def owner(self, call_sid: str) -> WorkerRecord | None:
        return self._owners.get(call_sid)

    def owned_calls(self) -> set[str]:
        return set(self._owners)

    def all(self) -> list[WorkerRecord]:
        """Return the workers by index, then pid: an index has two while one replaces the other."""
        return sorted(self._by_instance.values(), key=lambda worker: (worker.index, worker.pid))

    def _disown(self, worker: WorkerRecord, call_sids: set[str]) -> None:
        for call_sid in call_sids:
            if self._owners.get(call_sid) is worker:
                del self._owners[call_sid]
                self._answered.pop(call_sid, None)
