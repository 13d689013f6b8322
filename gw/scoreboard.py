"""What the gateway's processes know of each other at any moment: a few pages of memory that all of them map.

The supervisor makes it without a name and hands it down, so it ends with its last process and never tells of a former gateway.
Each process has a row. Of a row the supervisor writes what it knows of the process (whose it is, whether it runs, how often it
failed), the process itself how it is (its loop's tick, its calls, its lateness); every cell has one writer and is one aligned
store of eight bytes, so readers need no lock. What more than one process writes, the places kept for calls to come, is locked by
whoever writes it (`gw.media.admission.slots`). Times are of CLOCK_MONOTONIC, which all processes of a machine share.

    header | rows: ROWS x _ROW_CELLS | reservations' expiries, then keys of 16 bytes: MAX_RESERVATIONS each | report

Never decides anything.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import msgspec

from gw.errors import GatewayError

#: Changes with the layout: a process of other code than the supervisor's refuses to start instead of misreading.
VERSION: Final = 0x5342_0001
#: Processes at once: control, and the workers of every generation that still drains.
ROWS: Final = 2048
#: Calls that were let in and whose streams have not come: a hundred a second, and none of them comes.
MAX_RESERVATIONS: Final = 4096
KEY_BYTES: Final = 16
REPORT_BYTES: Final = 4096

_CELL: Final = 8
_HEADER_CELLS: Final = 16
_ROW_CELLS: Final = 16
_LAPSES_AT: Final = (_HEADER_CELLS + ROWS * _ROW_CELLS) * _CELL
_KEYS_AT: Final = _LAPSES_AT + MAX_RESERVATIONS * _CELL
_REPORT_AT: Final = _KEYS_AT + MAX_RESERVATIONS * KEY_BYTES
_BYTES: Final = _REPORT_AT + REPORT_BYTES

_NS: Final = 1_000_000_000


class ScoreboardError(GatewayError):
    """What was handed down is not this code's scoreboard."""

    code = "start_failed"


class ProcessState(IntEnum):
    """What the supervisor knows of the process a row is for."""

    EMPTY = 0  # the row is nobody's
    STARTING = 1
    UP = 2
    LEAVING = 3  # it was told to go: calls it has go on
    WAITING = 4  # it ended, and is started again at `retry_at_s`


class Flag(IntEnum):
    """Bits of what a worker says of itself."""

    DRAINING = 1  # answers that no call is taken
    LEAVING = 2  # takes no connection any more
    LATE = 4  # its frames are late: it takes no call until they are not


class ReloadReport(msgspec.Struct, frozen=True):
    """What became of the last reload."""

    n: int = 0  # 1 for the first
    state: str = "none"  # none | running | done | failed
    step: str = ""
    problem: str = ""
    at: float = 0.0  # epoch seconds of the last change


def _cell(index: int, doc: str) -> property:
    def read(row: ScoreboardRow) -> int:
        return row.cells[row.base + index]

    def write(row: ScoreboardRow, value: int) -> None:
        row.cells[row.base + index] = value

    return property(read, write, doc=doc)


class ScoreboardRow:
    """One process's cells."""

    __slots__ = ("base", "cells", "index")

    def __init__(self, cells: memoryview[int], index: int) -> None:
        self.cells = cells
        self.index = index
        self.base = _HEADER_CELLS + index * _ROW_CELLS

    # the supervisor's
    state = _cell(0, "A ProcessState.")
    pid = _cell(1, "The process; 0 where none runs.")
    worker = _cell(2, "A worker's worker; -1 is control.")
    failures = _cell(3, "How often in a row it ended soon after its start.")
    retry_ns = _cell(4, "When it is started again, where it waits for that.")
    # the process's
    tick_ns = _cell(5, "When its loop turned last; 0 before it ever did.")
    calls = _cell(6, "A worker's calls, from their start to their end.")
    streams = _cell(7, "Its media sockets, those that have not started included.")
    capacity = _cell(8, "The calls it takes.")
    flags = _cell(9, "Bits of Flag.")
    lateness_p99_us = _cell(10, "Of the frames of its last seconds; -1 where none were sent.")
    log_level = _cell(12, "What it logs, by an operator's wish; 0: what the scoreboard or the configuration says.")  # control's
    hold_max_us = _cell(11, "Who held its hub longest in its last seconds; -1 where nobody looked.")
    coming = _cell(13, "Its connections that may become media sockets: what they ask for is not known yet.")

    def clear(self, state: ProcessState = ProcessState.EMPTY, worker: int = 0) -> None:
        """Forget who sat here. The state is written last: what a reader takes for alive is whole."""
        self.state = ProcessState.EMPTY
        for index in range(1, _ROW_CELLS):
            self.cells[self.base + index] = 0
        self.worker = worker
        self.state = state

    def forget_process(self) -> None:
        """The process is gone, and with it whatever it said."""
        self.pid = self.tick_ns = self.calls = self.streams = self.coming = self.capacity = self.flags = 0
        self.lateness_p99_us = self.hold_max_us = -1

    def turn(self) -> None:
        """Say that the loop turns."""
        self.tick_ns = time.monotonic_ns()

    def still_for_s(self) -> float:
        """How long its loop has not turned; -1.0 where it never did."""
        tick_ns = self.tick_ns
        return -1.0 if not tick_ns else (time.monotonic_ns() - tick_ns) / _NS

    def retry_in_s(self) -> float:
        """How long until it is started again; 0.0 where that is not what it waits for."""
        return max(0.0, (self.retry_ns - time.monotonic_ns()) / _NS) if self.state == ProcessState.WAITING else 0.0

    def wait_until(self, seconds: float) -> None:
        """It is started again in so many seconds."""
        self.retry_ns = time.monotonic_ns() + int(seconds * _NS)
        self.state = ProcessState.WAITING


class Scoreboard:
    """The whole of it, mapped. Made by `create`, `attach` or `private`."""

    #: Control's row; the others are workers'.
    CONTROL_ROW: Final = 0

    def __init__(self, memory: mmap.mmap, fd: int) -> None:
        self.fd = fd  # what is locked and handed down; -1: no other process has it
        self._memory = memory
        self._bytes = memoryview(memory)
        self._cells: memoryview[int] = self._bytes[:_LAPSES_AT].cast("q")
        self.reservation_expiries: memoryview[int] = self._bytes[_LAPSES_AT:_KEYS_AT].cast(
            "q"
        )  # when a place is free again; 0: it is
        self.reservation_keys = self._bytes[_KEYS_AT:_REPORT_AT]  # whose a place is
        self._report = self._bytes[_REPORT_AT:]

    @classmethod
    def create(cls) -> Scoreboard:
        """A new one, to be handed down. Raises OSError."""
        fd = os.memfd_create("submilli-scoreboard", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, _BYTES)  # memory that is full refuses here: a store into a hole would kill
            scoreboard = cls(mmap.mmap(fd, _BYTES), fd)
        except OSError:
            os.close(fd)
            raise
        scoreboard._cells[0] = VERSION
        return scoreboard

    @classmethod
    def attach(cls, fd: int) -> Scoreboard:
        """The one this process was handed. Raises ScoreboardError."""
        try:
            size = os.fstat(fd).st_size
            scoreboard = cls(mmap.mmap(fd, _BYTES), fd) if size == _BYTES else None
        except OSError as error:
            raise ScoreboardError(f"no scoreboard was handed down: {error.strerror}") from None
        if scoreboard is None or scoreboard._cells[0] != VERSION:
            raise ScoreboardError("the supervisor runs other code than this: stop the gateway and start it again")
        return scoreboard

    @classmethod
    def private(cls) -> Scoreboard:
        """One for a single process, which a hand started or a test. No descriptor stays open."""
        scoreboard = cls(mmap.mmap(-1, _BYTES), -1)
        scoreboard._cells[0] = VERSION
        return scoreboard

    def close(self) -> None:
        """Let go of the memory. Its rows raise ValueError from here on."""
        for view in (self._cells, self.reservation_expiries, self.reservation_keys, self._report, self._bytes):
            view.release()
        self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)

    # -- the header -------------------------------------------------------------------------------------------------------

    @property
    def drained(self) -> bool:
        """Whether an operator took this machine out; control writes it, a worker that starts anew reads it."""
        return bool(self._cells[1])

    @drained.setter
    def drained(self, on: bool) -> None:
        self._cells[1] = int(on)

    @property
    def log_level(self) -> int:
        """What every process logs, by an operator's wish; 0: what the configuration says. Control writes it."""
        return self._cells[6]

    @log_level.setter
    def log_level(self, level: int) -> None:
        self._cells[6] = level

    def log_level_of(self, index: int) -> int:
        """What the process of that row is to log: its own wish before everybody's; 0 where there is none."""
        return self.row(index).log_level or self.log_level

    @property
    def reserved(self) -> int:
        """Places kept for streams that have not come yet."""
        return MAX_RESERVATIONS - self.reservation_expiries.tolist().count(0)

    # -- rows -------------------------------------------------------------------------------------------------------------

    def row(self, index: int) -> ScoreboardRow:
        return ScoreboardRow(self._cells, index)

    def take_row(self, worker: int, *, index: int | None = None) -> ScoreboardRow:
        """A row for a process to come: the given one, or the first that is nobody's. The supervisor's alone.

        Raises: ScoreboardError when all are taken.
        """
        if index is None:
            for index in range(1, ROWS):
                if not self._cells[_HEADER_CELLS + index * _ROW_CELLS]:
                    break
            else:
                raise ScoreboardError(f"{ROWS} processes are too many")
        row = self.row(index)
        row.clear(ProcessState.STARTING, worker)
        self._cells[3] = max(self._cells[3], index + 1)
        return row

    def rows(self) -> Iterator[ScoreboardRow]:
        """Every row that is somebody's, control's first."""
        for index in range(self._cells[3]):
            row = self.row(index)
            if row.state:
                yield row

    def workers(self) -> Iterator[ScoreboardRow]:
        """The rows of workers."""
        return (row for row in self.rows() if row.worker >= 0)

    # -- the report -------------------------------------------------------------------------------------------------------

    @property
    def report(self) -> ReloadReport:
        """What the supervisor said last of a reload."""
        for _ in range(100):
            before = self._cells[4]
            text = bytes(self._report[: self._cells[5]])
            if before % 2 == 0 and self._cells[4] == before:
                return msgspec.json.decode(text, type=ReloadReport) if text else ReloadReport()
        return ReloadReport(state="running", step="the supervisor is writing")

    def publish_report(self, report: ReloadReport) -> None:
        """Replace the report: the supervisor's alone. The count is odd while it is being written."""
        text = msgspec.json.encode(report)
        if len(text) > REPORT_BYTES:
            text = msgspec.json.encode(msgspec.structs.replace(report, problem=report.problem[: REPORT_BYTES // 8]))
        self._cells[4] += 1
        self._report[: len(text)] = text
        self._cells[5] = len(text)
        self._cells[4] += 1
