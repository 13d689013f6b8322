"""Logging that never makes a call wait: records go to a bounded queue, a native thread formats and writes them.

One JSON object a line (`ts`, `level`, `process`, `logger`, `message`, the extras of `EXTRAS` that a record carries, and `error`
with `traceback`), or a coloured line for a person where the stream is a terminal; where it leads to journald the line begins
with its level, as journald takes it. Telephone numbers are masked in everything that is written, unless the configuration shows
them. A reader that does not read fills the queue: further records are dropped and counted, and the count is written when it
reads again. Libraries' and our code use `logging` as always: `logger.info("...", extra={"call_sid": sid})`.

The caller's share is a few microseconds; only arguments that are not plain values are turned into text at once, because they
could change. The thread takes no lock and none of gevent's: it works one record at a time and gives the interpreter back at
every write. Never used by the TX loop, which logs nothing.
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

from gw.logs.lines import EXTRAS, format_human, format_journal, format_json

if TYPE_CHECKING:
    from queue import SimpleQueue

#: Records that wait for the writer. A worker that logs a hundred lines a second gets 40 s of a reader that does not read.
QUEUE_LIMIT: Final = 4096
#: One wait for a full non-blocking stream; it is repeated for as long as the stream is full.
_WRITABLE_WAIT_MS: Final = 1000
_FLUSH_POLL_S: Final = 0.002
_EXIT_FLUSH_S: Final = 1.0
#: How soon a wish for another level is followed.
_FOLLOW_S: Final = 0.5

_PLAIN: Final = frozenset({str, int, float, bool, type(None)})

logger = logging.getLogger(__name__)


class Writer(logging.Handler):
    """The queue and its thread, as the one handler of the root logger."""

    def __init__(self, process: str, stream: TextIO, *, human: bool, numbers: bool = False) -> None:
        super().__init__()
        self._process = process
        kind = format_human if human else format_journal if is_journal(stream, os.environ) else format_json
        self._format: Callable[[logging.LogRecord, str], bytes] = partial(kind, numbers=numbers)
        self._write = _writer_to(stream)
        self.dropped = 0  # counted by callers; only grows
        self._reported = 0  # how many of them the thread has told
        self._begin()

    def _begin(self) -> None:
        """An empty queue without a thread: at start, and in a forked child, where the parent's thread does not exist."""
        self._queue: SimpleQueue[logging.LogRecord | _Marker | None] = monkey.get_original("queue", "SimpleQueue")()
        self._running = False
        self._reported = self.dropped

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, or drop and count it when the queue is full. Never waits, takes no lock."""
        queue = self._queue
        if queue.qsize() >= QUEUE_LIMIT:
            self.dropped += 1
            return False
        _settle(record)
        queue.put(record)
        if not self._running:
            self._running = True
            monkey.get_original("_thread", "start_new_thread")(self._run, (queue,))
        return True

    def flush_within(self, timeout_s: float) -> bool:
        """Wait, switching to others meanwhile, until what was logged so far is written. False when time ran out."""
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
        """Let the thread end after what is queued."""
        if self._running:
            self._queue.put(None)
            self._running = False

    def _run(self, queue: SimpleQueue[logging.LogRecord | _Marker | None]) -> None:
        """The thread: one record, one write."""
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
        except Exception as error:  # noqa: BLE001  a boundary: a record that cannot be formatted is told, and harms no other
            told = logging.LogRecord(record.name, record.levelno, "", 0, "%r cannot be formatted: %r", (record.msg, error), None)
            line = self._format(told, self._process)
        if not self._write(line):
            self.dropped += 1


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream leads to journald and not to where somebody redirected it. Source: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (AttributeError, OSError):  # no descriptor: io.UnsupportedOperation is an OSError
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Marker:
    """Passes through the queue to tell that what was before it is written."""

    passed = False


def _settle(record: logging.LogRecord) -> None:
    """Turn into text now what could change before the thread reads it."""
    args = record.args
    if type(record.msg) is not str or (args and not (type(args) is tuple and all(type(arg) in _PLAIN for arg in args))):
        try:
            record.msg = record.getMessage()
        except Exception as error:  # noqa: BLE001  a boundary: other people's __str__ and wrong format strings
            record.msg = f"a message of type {type(record.msg).__name__} cannot be formatted: {type(error).__name__}"
        record.args = None
    for name in EXTRAS:
        value = record.__dict__.get(name)
        if type(value) not in _PLAIN:
            record.__dict__[name] = str(value)


def _writer_to(stream: TextIO) -> Callable[[bytes], bool]:
    """How the thread writes: to the descriptor where there is one. Returns False when the reader is gone."""
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
    """In the thread, so with the operating system's own poll: gevent's belongs to the hub."""
    poll = monkey.get_original("select", "poll")()
    poll.register(descriptor, 4)  # POLLOUT
    poll.poll(_WRITABLE_WAIT_MS)


_current: Writer | None = None


def setup(process: str, level: str, stream: TextIO | None = None, *, human: bool | None = None, numbers: bool = False) -> Writer:
    """Send every logger's records from `level` up to `stream` (default: standard error), named as coming from `process`.

    Also what nobody caught: an exception of the program, of a greenlet or of the hub, and Python's warnings. `human`: lines
    for a person or JSON; None decides by whether the stream is a terminal. `numbers`: telephone numbers are shown whole.
    May be called again; the last call counts.
    """
    global _current
    stream = sys.stderr if stream is None else stream
    if human is None:
        human = stream.isatty()
    root = logging.getLogger()
    previous, _current = _current, Writer(process, stream, human=human, numbers=numbers)
    root.addHandler(_current)
    if previous is None:
        atexit.register(flush, _EXIT_FLUSH_S)
        os.register_at_fork(after_in_child=_after_fork)
    else:
        root.removeHandler(previous)
        previous.stop()
    root.setLevel(level.upper())
    # who called, from which thread: none of it is written, all of it costs the caller
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    gevent.get_hub().print_exception = _log_unhandled  # type: ignore[method-assign]
    return _current


def follow(wanted: Callable[[], int], configured: str) -> gevent.Greenlet[..., None]:
    """Log from the level up that `wanted` says, whenever it changes; 0: the configured one. Returns the greenlet that looks."""

    def keep() -> None:
        while True:
            root.setLevel(wanted() or configured.upper())
            gevent.sleep(_FOLLOW_S)

    root = logging.getLogger()
    return gevent.spawn(keep)


def flush(timeout_s: float) -> bool:
    """Wait until everything logged so far is written, `timeout_s` at most. False when it is not."""
    return True if _current is None else _current.flush_within(timeout_s)


def _after_fork() -> None:
    if _current is not None:
        _current._begin()


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logger.critical("the process ends: %s", kind.__name__, exc_info=(kind, error, trace))
    flush(_EXIT_FLUSH_S)


def _log_unhandled(
    context: object, t: type[BaseException] | None, v: BaseException | str | None, tb: TracebackType | None
) -> None:
    """In place of gevent's print to standard error, which would make the hub wait for the reader."""
    error = v if isinstance(v, BaseException) else RuntimeError(str(v))
    logger.error("nobody caught %s in %s", type(error).__name__, type(context).__name__, exc_info=(type(error), error, tb))
