"""Logging that delays no call: a bounded queue, and a native thread that formats and writes.

One JSON object a line (`ts`, `level`, `process`, `logger`, `message`, the fields of `EXTRAS`, and `error` with `traceback`), or a
coloured line if the stream is a terminal. For journald each line starts with its level. Telephone numbers are masked unless the
configuration shows them. A slow reader fills the queue; further records are dropped and counted, and the count is logged once the
reader continues. Code uses `logging` as usual: `logger.info("...", extra={"call_sid": sid})`.

A log call takes a few microseconds; arguments that are not plain values are formatted immediately, because they could change. The
thread takes no lock of gevent's and releases the interpreter at every write. The TX loop logs nothing.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

import gevent
from gevent import monkey

from gw.logs.limited import LimitedLog, LineLimit
from gw.logs.lines import EXTRAS, format_human, format_journal, format_json

if TYPE_CHECKING:
    from queue import SimpleQueue

#: Records in the queue. At a hundred lines a second a worker bridges 40 s without a reader.
QUEUE_LIMIT: Final = 4096
#: One wait for a full non-blocking stream, repeated while the stream is full.
_WRITABLE_WAIT_MS: Final = 1000
_FLUSH_POLL_S: Final = 0.002
_EXIT_FLUSH_S: Final = 1.0
#: Interval for checking the wanted level.
_FOLLOW_S: Final = 0.5

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})

#: Characters of a printed line that are logged, and such lines a second: enough for a traceback.
_PRINTED_CHARS: Final = 1000
_PRINTED_LINES: Final = 40

logger = logging.getLogger(__name__)


class LogWriter(logging.Handler):
    """The queue and its thread, as the one handler of the root logger."""

    def __init__(self, process: str, stream: TextIO, *, human: bool, numbers: bool = False) -> None:
        super().__init__()
        self._process = process
        kind = format_human if human else format_journal if is_journal(stream, os.environ) else format_json
        self._format: Callable[[logging.LogRecord, str], bytes] = partial(kind, numbers=numbers)
        self._write = _writer_to(stream)
        self.dropped = 0  # incremented by log calls
        self._reported = 0  # of these, the number the thread has logged
        self._begin()

    def _begin(self) -> None:
        """Reset to an empty queue without a thread: at start, and in a forked child, which has no copy of the thread."""
        self._queue: SimpleQueue[logging.LogRecord | _Marker | None] = monkey.get_original("queue", "SimpleQueue")()
        self._running = False
        self._reported = self.dropped

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue a record; drop and count it when the queue is full. Never waits, takes no lock."""
        queue = self._queue
        if queue.qsize() >= QUEUE_LIMIT:
            self.dropped += 1
            return False
        _freeze(record)
        queue.put(record)
        if not self._running:
            self._running = True
            monkey.get_original("_thread", "start_new_thread")(self._run, (queue,))
        return True

    def flush_within(self, timeout_s: float) -> bool:
        """Wait cooperatively until all earlier records are written. False after `timeout_s`."""
        if not self._running:
            return True
        marker = _Marker()
        self._queue.put(marker)
        deadline_s = time.monotonic() + timeout_s
        while not marker.passed:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_FLUSH_POLL_S)
        return True

    def stop(self) -> None:
        """End the thread after the queued records."""
        if self._running:
            self._queue.put(None)
            self._running = False

    def _run(self, queue: SimpleQueue[logging.LogRecord | _Marker | None]) -> None:
        """Body of the thread: one write per record."""
        while (item := queue.get()) is not None:
            if isinstance(item, _Marker):
                self._report_dropped()
                item.passed = True
                continue
            self._report_dropped()
            self._emit(item)

    def _report_dropped(self) -> None:
        dropped = self.dropped
        if dropped == self._reported:
            return
        count, self._reported = dropped - self._reported, dropped
        message = "%d log records were dropped: the reader of the log was too slow"
        self._emit(logging.LogRecord(__name__, logging.WARNING, "", 0, message, (count,), None))

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._format(record, self._process)
        except Exception as error:  # noqa: BLE001  a boundary: report the record
            failed = logging.LogRecord(
                record.name, record.levelno, "", 0, "%r cannot be formatted: %r", (record.msg, error), None
            )
            line = self._format(failed, self._process)
        if not self._write(line):
            self.dropped += 1


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether the stream leads to journald. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (AttributeError, OSError):  # no descriptor: io.UnsupportedOperation is an OSError
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Marker:
    """Passes through the queue: `passed` once all earlier records are written."""

    passed = False


def _freeze(record: logging.LogRecord) -> None:
    """Format now everything that could change before the thread reads the record."""
    args = record.args
    if type(record.msg) is not str or (args and not (type(args) is tuple and all(type(arg) in _PLAIN for arg in args))):
        try:
            record.msg = record.getMessage()
        except Exception as error:  # noqa: BLE001  a boundary: foreign __str__ and wrong format strings
            record.msg = f"a message of type {type(record.msg).__name__} cannot be formatted: {type(error).__name__}"
        record.args = None
    for name in EXTRAS:
        value = record.__dict__.get(name)
        if type(value) not in _PLAIN:
            record.__dict__[name] = str(value)


def _writer_to(stream: TextIO) -> Callable[[bytes], bool]:
    """Return the write function: to the descriptor, if the stream has one. It returns False without a reader."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return lambda line: _write_text(stream, line)
    return lambda line: _write_all(descriptor, line)


def _write_text(stream: TextIO, line: bytes) -> bool:
    try:
        stream.write(line.decode())
        stream.flush()
    except (OSError, ValueError):  # ValueError: closed
        return False
    return True


def _write_all(descriptor: int, line: bytes) -> bool:
    rest = memoryview(line)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _wait_writable(descriptor)
        except OSError:
            return False
    return True


def _wait_writable(descriptor: int) -> None:
    """Wait with the operating system's poll: gevent's belongs to the hub's thread."""
    poll = monkey.get_original("select", "poll")()
    poll.register(descriptor, 4)  # POLLOUT
    poll.poll(_WRITABLE_WAIT_MS)


_current: LogWriter | None = None


def setup(
    process: str, level: str, stream: TextIO | None = None, *, human: bool | None = None, numbers: bool = False
) -> LogWriter:
    """Log all records of `level` and above to `stream`, by default standard error, as `process`.

    Includes uncaught exceptions of the program, of greenlets, of the hub and of finalisers, and Python's warnings. `human`:
    coloured lines or JSON; None: by whether the stream is a terminal. `numbers`: show whole telephone numbers. The last call
    counts.
    """
    global _current
    stream = sys.stderr if stream is None else stream
    if human is None:
        human = stream.isatty()
    root = logging.getLogger()
    previous, _current = _current, LogWriter(process, stream, human=human, numbers=numbers)
    root.addHandler(_current)
    if previous is None:
        atexit.register(flush, _EXIT_FLUSH_S)
        os.register_at_fork(after_in_child=_after_fork)
    else:
        root.removeHandler(previous)
        previous.stop()
    root.setLevel(level.upper())
    # caller and thread are not written, and finding them costs time
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable
    gevent.get_hub().print_exception = _log_unhandled  # type: ignore[method-assign]
    return _current


def capture_prints() -> None:
    """Log everything that Python code of this process prints: a full pipe would block the print, and the hub with it."""
    sys.stdout, sys.stderr = _Printed("stdout"), _Printed("stderr")


class _Printed(io.TextIOBase):
    """Logs each printed line."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = ""
        self._lines = LimitedLog(logger, burst=_PRINTED_LINES)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, rest = (self._begun + text).split("\n")
        self._begun = rest[:_PRINTED_CHARS]
        for line in filter(None, lines):
            self._lines.warning("printed", "printed to %s: %s", self._name, line[:_PRINTED_CHARS])
        return len(text)


def follow(wanted: Callable[[], int], configured: str) -> gevent.Greenlet[..., None]:
    """Spawn a greenlet that applies the level returned by `wanted`; 0: the configured level."""

    def keep() -> None:
        while True:
            root.setLevel(wanted() or configured.upper())
            gevent.sleep(_FOLLOW_S)

    root = logging.getLogger()
    return gevent.spawn(keep)


def flush(timeout_s: float) -> bool:
    """Wait until all earlier records are written. False after `timeout_s`."""
    return True if _current is None else _current.flush_within(timeout_s)


def _after_fork() -> None:
    if _current is not None:
        _current._begin()


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logger.critical("the process ends: %s", kind.__name__, exc_info=(kind, error, trace))
    flush(_EXIT_FLUSH_S)


_uncaught = LineLimit()


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    logger.error("uncaught %s in a finaliser or callback", unraisable.exc_type.__name__, exc_info=error)


def _log_unhandled(
    context: object, t: type[BaseException] | None, v: BaseException | str | None, tb: TracebackType | None
) -> None:
    """Replace gevent's print to standard error, which would block the hub on the reader."""
    error = v if isinstance(v, BaseException) else RuntimeError(str(v))
    left_out = _uncaught.admit((type(error), type(context)), time.monotonic())
    if left_out is None:
        return  # a stranger may repeat it
    message = "uncaught %s in %s" + (f" (and {left_out} like this before)" if left_out else "")
    logger.error(message, type(error).__name__, type(context).__name__, exc_info=(type(error), error, tb))
