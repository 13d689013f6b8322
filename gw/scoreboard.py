"""Scoreboard: the state of all processes of a gateway, in memory that all of them map.

The supervisor creates the memory without a name and passes it to its children, so it ends with the last process. Each process
has a row: the supervisor writes the process's state, pid and failures, the process its heartbeat, calls and lateness. Every cell
has one writer and is one aligned store of eight bytes, so readers need no lock. Reservations have several writers, which lock
them (`gw.media.admission.slots`). Times are of CLOCK_MONOTONIC, common to all processes of a machine. Decides nothing.

    header | rows: ROWS x _ROW_CELLS | expiries of reservations | keys of reservations, 16 bytes | reload report

Header, rows and expiries consist of cells of 8 bytes; there are MAX_RESERVATIONS expiries and keys.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

from gw.errors import GatewayError

#: Changes with the layout: a process whose code differs from the supervisor's refuses to start.
VERSION: Final = 0x5342_0002
#: Makes the supervisor check the configuration and the code of a reload, without the reload.
CHECK: Final = signal.SIGUSR2
#: Processes at the same time: control, and the workers of every generation that still drains.
ROWS: Final = 2048
#: Admitted calls whose streams have not arrived. Enough for a hundred calls a second of which none arrives.
MAX_RESERVATIONS: Final = 4096
KEY_BYTES: Final = 16
REPORT_BYTES: Final = 4096

_CELL: Final = 8
_HEADER_CELLS: Final = 16
_ROW_CELLS: Final = 16
_EXPIRIES_AT: Final = (_HEADER_CELLS + ROWS * _ROW_CELLS) * _CELL
_KEYS_AT: Final = _EXPIRIES_AT + MAX_RESERVATIONS * _CELL
_REPORT_AT: Final = _KEYS_AT + MAX_RESERVATIONS * KEY_BYTES
_BYTES: Final = _REPORT_AT + REPORT_BYTES

_NS: Final = 1_000_000_000


class ScoreboardError(GatewayError):
    """The descriptor does not hold a scoreboard of this code, or the scoreboard is full."""

    code = "start_failed"


class ProcessState(IntEnum):
    """State of a row's process, written by the supervisor."""

    EMPTY = 0  # the row is free
    STARTING = 1
    UP = 2
    LEAVING = 3  # asked to stop: its calls continue
    WAITING = 4  # ended; restarts at `retry_ns`


class Flag(IntEnum):
    """Bits a worker sets in its row."""

    DRAINING = 1  # refuses new calls
    LEAVING = 2  # accepts no connection
    LATE = 4  # its frames are late: takes no call until they are on time


class ReloadReport(msgspec.Struct, frozen=True):
    """Progress or outcome of the last reload, or of the last check before one."""

    n: int = 0  # 1 for the first
    state: str = "none"  # none | running | done | failed
    step: str = ""
    problem: str = ""
    at: float = 0.0  # epoch seconds of the last change
    has_failed: bool = False  # the last reload; a check does not change it
    reloaded_at: float = 0.0  # end of the last reload that took effect, epoch seconds; 0.0 before the first


def _cell(index: int, doc: str) -> property:
    def read(row: ScoreboardRow) -> int:
        return row.cells[row.base + index]

    def write(row: ScoreboardRow, value: int) -> None:
        row.cells[row.base + index] = value

    return property(read, write, doc=doc)


class ScoreboardRow:
    """The cells of one process."""

    __slots__ = ("base", "cells", "index")

    def __init__(self, cells: memoryview[int], index: int) -> None:
        self.cells = cells
        self.index = index
        self.base = _HEADER_CELLS + index * _ROW_CELLS

    # written by the supervisor
    state = _cell(0, "A ProcessState.")
    pid = _cell(1, "0: no process runs.")
    worker = _cell(2, "A worker's index; -1: control.")
    failures = _cell(3, "Successive ends soon after a start.")
    retry_ns = _cell(4, "Time of the restart, in state WAITING.")
    # written by the process
    heartbeat_ns = _cell(5, "Time of the last heartbeat; 0: none yet.")
    calls = _cell(6, "A worker's live calls.")
    streams = _cell(7, "A worker's media sockets, before the start message too.")
    capacity = _cell(8, "The calls a worker takes.")
    flags = _cell(9, "Bits of Flag.")
    lateness_p99_us = _cell(10, "Over the last seconds; -1: no frames.")
    log_level = _cell(12, "Level set by an operator for this process; 0: the common one.")  # written by control
    hold_max_us = _cell(11, "Longest hold of its hub over the last seconds; -1: not measured.")
    pending = _cell(13, "Its connections without a request yet, which may become media sockets.")

    def clear(self, state: ProcessState = ProcessState.EMPTY, worker: int = 0) -> None:
        """Reset the row. The state is written last, so that a reader never takes a half-written row for alive."""
        self.state = ProcessState.EMPTY
        for index in range(1, _ROW_CELLS):
            self.cells[self.base + index] = 0
        self.worker = worker
        self.state = state

    def clear_process(self) -> None:
        """Reset the cells that the ended process wrote."""
        self.pid = self.heartbeat_ns = self.calls = self.streams = self.pending = self.capacity = self.flags = 0
        self.lateness_p99_us = self.hold_max_us = -1

    def heartbeat(self) -> None:
        """Record that the process's loop runs."""
        self.heartbeat_ns = time.monotonic_ns()

    def heartbeat_age_s(self) -> float:
        """Return the time since the last heartbeat; -1.0 before the first."""
        heartbeat_ns = self.heartbeat_ns
        return -1.0 if not heartbeat_ns else (time.monotonic_ns() - heartbeat_ns) / _NS

    def retry_in_s(self) -> float:
        """Return the time until the restart; 0.0 in other states than WAITING."""
        return max(0.0, (self.retry_ns - time.monotonic_ns()) / _NS) if self.state == ProcessState.WAITING else 0.0

    def restart_in(self, seconds: float) -> None:
        """Set state WAITING and the time of the restart."""
        self.retry_ns = time.monotonic_ns() + int(seconds * _NS)
        self.state = ProcessState.WAITING


class Scoreboard:
    """The mapped memory. Made by `create`, `attach` or `private`."""

    #: Control's row; the others are for workers.
    CONTROL_ROW: Final = 0

    def __init__(self, memory: mmap.mmap, fd: int) -> None:
        self.fd = fd  # locked, and inherited by children; -1: private to this process
        self._memory = memory
        self._bytes = memoryview(memory)
        self._cells: memoryview[int] = self._bytes[:_EXPIRIES_AT].cast("q")
        self.reservation_expiries: memoryview[int] = self._bytes[_EXPIRIES_AT:_KEYS_AT].cast("q")  # 0: free
        self.reservation_keys = self._bytes[_KEYS_AT:_REPORT_AT]  # of the call that holds the reservation
        self._report = self._bytes[_REPORT_AT:]

    @classmethod
    def create(cls) -> Scoreboard:
        """Create a scoreboard for children to inherit. Raises OSError."""
        fd = os.memfd_create("submilli-scoreboard", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, _BYTES)  # without memory this fails; a later store into a hole would kill the process
            scoreboard = cls(mmap.mmap(fd, _BYTES), fd)
        except OSError:
            os.close(fd)
            raise
        scoreboard._cells[0] = VERSION
        return scoreboard

    @classmethod
    def attach(cls, fd: int) -> Scoreboard:
        """Map the scoreboard that this process inherited. Raises ScoreboardError."""
        try:
            size = os.fstat(fd).st_size
            scoreboard = cls(mmap.mmap(fd, _BYTES), fd) if size == _BYTES else None
        except OSError as error:
            raise ScoreboardError(f"descriptor {fd} is not the supervisor's scoreboard: {error.strerror}") from None
        if scoreboard is None or scoreboard._cells[0] != VERSION:
            raise ScoreboardError("the supervisor runs other code than this process: stop the gateway and start it again")
        return scoreboard

    @classmethod
    def private(cls) -> Scoreboard:
        """Create one for a single process, started by hand or by a test. No descriptor stays open."""
        scoreboard = cls(mmap.mmap(-1, _BYTES), -1)
        scoreboard._cells[0] = VERSION
        return scoreboard

    def close(self) -> None:
        """Unmap the memory. Rows raise ValueError from here on."""
        for view in (self._cells, self.reservation_expiries, self.reservation_keys, self._report, self._bytes):
            view.release()
        self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)

    # -- the header -------------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        """True while an operator has drained this machine. Written by control, read by every new worker."""
        return bool(self._cells[1])

    @drained.setter
    def drained(self, on: bool) -> None:
        self._cells[1] = int(on)

    @property
    def log_level(self) -> int:
        """Level set by an operator for all processes; 0: the configured one. Written by control."""
        return self._cells[6]

    @log_level.setter
    def log_level(self, level: int) -> None:
        self._cells[6] = level

    def log_level_of(self, index: int) -> int:
        """Return the operator's level for the process of that row, else for all processes; 0: none."""
        return self.row(index).log_level or self.log_level

    @property
    def reserved(self) -> int:
        """Slots reserved for streams that have not arrived."""
        return MAX_RESERVATIONS - self.reservation_expiries.tolist().count(0)

    # -- rows -------------------------------------------------------------------------------------------------------------

    def row(self, index: int) -> ScoreboardRow:
        """Return the row at an index, free or not."""
        return ScoreboardRow(self._cells, index)

    def take_row(self, worker: int, *, index: int | None = None) -> ScoreboardRow:
        """Take row `index`, or the first free one, for a process to be started. Called by the supervisor only.

        `worker`: the worker's index; -1: control.
        Raises: ScoreboardError when all rows are taken.
        """
        if index is None:
            for index in range(1, ROWS):
                if not self._cells[_HEADER_CELLS + index * _ROW_CELLS]:
                    break
            else:
                raise ScoreboardError(f"more than {ROWS} processes: wait for former workers to end")
        row = self.row(index)
        row.clear(ProcessState.STARTING, worker)
        self._cells[3] = max(self._cells[3], index + 1)
        return row

    def rows(self) -> Iterator[ScoreboardRow]:
        """Yield every row in use, control's first."""
        for index in range(self._cells[3]):
            row = self.row(index)
            if row.state:
                yield row

    def workers(self) -> Iterator[ScoreboardRow]:
        """Yield the rows of workers."""
        return (row for row in self.rows() if row.worker >= 0)

    # -- the report -------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> ReloadReport:
        """The last reload's report."""
        for _ in range(100):
            before = self._cells[4]
            text = bytes(self._report[: self._cells[5]])
            if before % 2 == 0 and self._cells[4] == before:
                return msgspec.json.decode(text, type=ReloadReport) if text else ReloadReport()
        return ReloadReport(state="running", step="the supervisor is writing the report")

    def publish_report(self, report: ReloadReport) -> None:
        """Replace the report. Called by the supervisor only; the count is odd during the write."""
        text = msgspec.json.encode(report)
        if len(text) > REPORT_BYTES:
            text = msgspec.json.encode(msgspec.structs.replace(report, problem=report.problem[: REPORT_BYTES // 8]))
        self._cells[4] += 1
        self._report[: len(text)] = text
        self._cells[5] = len(text)
        self._cells[4] += 1
