"""The media workers: those connected, and those expected back.

A worker is one process: its `instance` is the same over reconnections and new for a new process. Its calls are in
`gw.control.calls.registry`.
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
        "_calls",
        "budgeted",
        "connections",
        "holds",
        "index",
        "instance",
        "last",
        "link",
        "pid",
        "status",
        "taking",
        "version",
    )

    def __init__(self, hello: bus.Hello, holds: deque[HoldView]) -> None:
        """`holds`: the holds of its index, which outlive the process."""
        self.holds = holds
        self.index = hello.worker
        self.instance = hello.instance
        self.pid = hello.pid
        self.version = hello.version  # of the bus
        self._birth = birth_of(hello.pid)
        self._calls = len(hello.calls)
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
            calls=self._calls, draining=False, unacked=0, lateness_p99_s=-1.0, hold_max_s=-1.0
        )
        return WorkerView(self.index, self.pid, self.instance, self.link is not None, **asdict(status))


class Workers:
    """All workers by instance."""

    def __init__(self) -> None:
        self._by_instance: dict[str, WorkerRecord] = {}
        self._holds: dict[int, deque[HoldView]] = {}  # by worker index

    def on_hello(self, hello: bus.Hello) -> WorkerRecord:
        """Add a worker that connected. Returns the record of a reconnected one."""
        worker = self._by_instance.get(hello.instance)
        if worker is None:
            holds = self._holds.setdefault(hello.worker, deque(maxlen=MAX_HOLDS))
            worker = self._by_instance[hello.instance] = WorkerRecord(hello, holds)
        return worker

    def remove(self, worker: WorkerRecord) -> bool:
        """Remove a worker. False: it was removed before."""
        if self.get(worker.instance) is not worker:
            return False
        del self._by_instance[worker.instance]
        return True

    def get(self, instance: str) -> WorkerRecord | None:
        return self._by_instance.get(instance)

    def holds(self) -> list[HoldView]:
        """Return the stored long holds, newest first, including those of workers that ended."""
        return sorted((hold for holds in self._holds.values() for hold in holds), key=lambda hold: -hold.at)

    def all(self) -> list[WorkerRecord]:
        """Return the workers by index, then pid: an index has two while one replaces the other."""
        return sorted(self._by_instance.values(), key=lambda worker: (worker.index, worker.pid))
