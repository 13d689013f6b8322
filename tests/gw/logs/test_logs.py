"""gw.logs: complete and masked lines, written without delaying the caller."""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import gevent
import pytest
from gevent import monkey

from gw import logs
from gw.call.state import Reason
from tests.timing import scaled

ROOT = Path(__file__).resolve().parents[3]
FLUSH_S = 10.0

logger = logging.getLogger("test.logs")


@pytest.fixture(autouse=True)
def _as_it_was():
    """Restore everything that setup changes in the process."""
    root = logging.getLogger()
    level, hook, print_exception = root.level, sys.excepthook, gevent.get_hub().__dict__.get("print_exception")
    unraisable_hook = sys.unraisablehook
    logs._uncaught.__init__()
    yield
    root.setLevel(level)
    sys.unraisablehook = unraisable_hook
    sys.excepthook = hook
    logging.captureWarnings(False)
    if print_exception is None:
        gevent.get_hub().__dict__.pop("print_exception", None)
    if logs._current is not None:
        root.removeHandler(logs._current)
        logs._current.stop()


def _setup(*arguments, **options):
    """Run logs.setup without the handlers of the test runner."""
    writer = logs.setup(*arguments, **options)
    logging.getLogger().handlers = [writer]
    return writer


@pytest.fixture
def stream():
    return io.StringIO()


def _lines(stream) -> list[dict]:
    assert logs.flush(FLUSH_S)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# -- the line ---------------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object(stream):
    _setup("worker-0", "info", stream)
    logger.info("call of %s frames", 7, extra={"call_sid": "CA1", "reason": Reason.AI_LOST, "worker": 3, "secret": "never"})
    (line,) = _lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert line == {
        "level": "info",
        "process": "worker-0",
        "logger": "test.logs",
        "message": "call of 7 frames",
        "call_sid": "CA1",
        "worker": 3,
        "reason": "ai_lost",
    }


def test_levels(stream):
    _setup("control", "warning", stream)
    logger.info("no")
    logger.warning("yes")
    assert [line["message"] for line in _lines(stream)] == ["yes"]


def test_an_exception_has_its_traceback(stream):
    _setup("control", "info", stream)
    try:
        raise ValueError("call +15551234567 failed")
    except ValueError:
        logger.exception("it failed")
    (line,) = _lines(stream)
    assert line["error"] == "ValueError: call +1555***4567 failed"
    assert "test_an_exception_has_its_traceback" in line["traceback"]
    assert "+1555***4567" in line["traceback"]


def test_without_an_exception_there_is_no_traceback(stream):
    _setup("control", "info", stream)
    logger.info("no error", exc_info=True)
    assert "error" not in _lines(stream)[0]


def test_numbers_are_masked_in_message_arguments_and_extras(stream):
    _setup("control", "info", stream)
    logger.info("from %s", "+15551234567", extra={"detail": {"to": "+15557654321"}})
    assert logs.flush(FLUSH_S)
    assert "+1555***4567" in stream.getvalue()
    assert "+1555***4321" in stream.getvalue()
    assert "123" not in stream.getvalue().replace("ts", "")[40:]


def test_any_text_is_written(stream):
    _setup("control", "info", stream)
    logger.info("line\nbreak \x00 \ud800 caf\xe9")
    (line,) = _lines(stream)
    assert line["message"] == "line\nbreak \x00 \\ud800 caf\xe9"
    assert stream.getvalue().count("\n") == 1


# -- records that are not plain ---------------------------------------------------------------------------------------


def test_arguments_are_formatted_when_they_are_logged(stream):
    _setup("control", "info", stream)
    items = [1]
    logger.info("items %s", items)
    logger.info("%(n)s of a dict", {"n": items})
    items.append(2)
    assert [line["message"] for line in _lines(stream)] == ["items [1]", "[1] of a dict"]


class _Unprintable:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_record_that_cannot_be_formatted_is_reported(stream):
    _setup("control", "info", stream)
    logger.info("%d frames", "seven")
    logger.info(_Unprintable())
    logger.info("%s", _Unprintable())
    logger.info("fine")
    messages = [line["message"] for line in _lines(stream)]
    assert "'%d frames' cannot be formatted: TypeError" in messages[0]
    assert messages[1] == "a message of type _Unprintable cannot be formatted: RuntimeError"
    assert messages[2] == "a message of type str cannot be formatted: RuntimeError"
    assert messages[3] == "fine"


# -- for people -------------------------------------------------------------------------------------------------------


def test_a_person_reads_a_coloured_line(stream):
    _setup("worker-0", "info", stream, human=True)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("line\nbreak \x1b[31m", extra={"call_sid": "CA1"})
    logger.info("plain")
    assert logs.flush(FLUSH_S)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    first, *rest = text.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} error   worker-0 line\\x0abreak \\x1b\[31m CA1", first)
    assert rest[0] == "    Traceback (most recent call last):"
    assert "    ValueError: broken" in rest
    assert rest[-1].endswith("info    worker-0 plain")


def test_a_terminal_gets_coloured_lines():
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        _setup("worker-0", "info", terminal)
        logger.info("hello")
        assert logs.flush(FLUSH_S)
    assert os.read(leader, 1000).decode().split("\x1b[0m")[1] == " \x1b[32minfo   "
    os.close(leader)


# -- never waiting ----------------------------------------------------------------------------------------------------


def _drain(descriptor: int, until: bytes) -> bytes:
    got = b""
    while until not in got[-4096:]:
        got += os.read(descriptor, 1 << 16)
    return got


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_does_not_read_blocks_no_caller(blocking):
    """The pipe is full from the start, so callers depend on the bound of the queue."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 4096)
    os.set_blocking(writing, blocking)
    with os.fdopen(writing, "w") as stream:
        writer = _setup("worker-0", "info", stream)
        for n in range(logs.QUEUE_LIMIT + 3000):
            logger.info("record %d %s", n, "x" * 100)
        assert 3000 - 1 <= writer.dropped <= 3000  # the thread may hold one
        assert not logs.flush(0.0)
        dropped = writer.dropped
        reader = gevent.get_hub().threadpool.spawn(_drain, reading, b'"the end"')
        assert logs.flush(FLUSH_S)
        logger.info("the end")
        assert logs.flush(FLUSH_S)
        drained = reader.get(timeout=FLUSH_S)
    os.close(reading)
    messages = [json.loads(line)["message"] for line in drained.splitlines() if line]
    assert messages[-1] == "the end"
    # two reports where the thread was started so late that records had been dropped already
    reports = [message.split(" ", 1) for message in messages if "dropped" in message]
    assert {text for _, text in reports} == {"log records were dropped: the reader of the log was too slow"}
    assert sum(int(count) for count, _ in reports) == dropped
    numbers = [int(message.split()[1]) for message in messages if message.startswith("record")]
    assert numbers == sorted(numbers)
    assert len(numbers) + dropped == logs.QUEUE_LIMIT + 3000


def test_a_missing_reader_blocks_no_caller():
    reading, writing = os.pipe()
    monkey.get_original("os", "close")(reading)  # gevent's own closes at the hub's next turn
    with os.fdopen(writing, "w") as stream:
        writer = _setup("worker-0", "info", stream)
        logger.info("nobody hears")
        assert logs.flush(FLUSH_S)
        assert writer.dropped >= 1


def test_a_closed_stream_blocks_no_caller(stream):
    writer = _setup("worker-0", "info", stream)
    stream.close()
    logger.info("nobody hears")
    assert logs.flush(FLUSH_S)
    assert writer.dropped >= 1


def test_many_threads(stream):
    _setup("worker-0", "info", stream)
    pool = gevent.get_hub().threadpool
    for result in [pool.spawn(lambda: [logger.info("x") for _ in range(100)]) for _ in range(3)]:
        result.get(timeout=FLUSH_S)
    assert len(_lines(stream)) == 300


PRINTING = """
from gevent import monkey
monkey.patch_all()
import os, sys, traceback, warnings
from gw import logs
logs.setup("worker-0", "info")
logs.capture_prints()
class Finalised:
    def __del__(self):
        raise ValueError("in a finaliser")
for n in range(1000):
    print("x" * 200)
    sys.stderr.write("half a line")
    sys.stderr.write(", and the rest" * 20 + "\\n")
    warnings.warn(f"warning {n}")
    Finalised()
    try:
        n / 0
    except ZeroDivisionError:
        traceback.print_exc()
os.write(int(sys.argv[1]), b"alive")
os._exit(0)
"""


def test_a_pipe_that_is_not_read_blocks_no_print():
    """A worker whose log is not read printed until the pipe was full, and then its hub blocked."""
    unread, errors = os.pipe()
    heard, tells = os.pipe()
    os.set_blocking(errors, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(errors, b"\n" * 4096)
    os.set_blocking(errors, True)
    program = subprocess.Popen([sys.executable, "-c", PRINTING, str(tells)], stderr=errors, pass_fds=[tells], cwd=ROOT)
    os.close(errors)
    os.close(tells)
    try:
        assert gevent.get_hub().threadpool.spawn(os.read, heard, 100).get(timeout=scaled(30)) == b"alive"
    finally:
        program.kill()
        program.wait()
        os.close(unread)
        os.close(heard)


def test_prints_are_lines_of_the_log(stream, monkeypatch):
    _setup("worker-0", "info", stream)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    logs.capture_prints()
    print("one\ntwo", end="")
    print(" and a half")
    for n in range(100):
        sys.stderr.write(f"flood {n}\n")
    messages = [line["message"] for line in _lines(stream)]
    assert messages[:3] == ["printed to stdout: one", "printed to stdout: two and a half", "printed to stderr: flood 0"]
    assert len(messages) < 100
    assert sys.stderr.writable()


def test_a_repeated_error_of_a_greenlet_is_logged_once_a_second(stream):
    _setup("control", "info", stream)

    def fail():
        raise LookupError("again")

    gevent.joinall([gevent.spawn(fail) for _ in range(10)])
    assert [line["error"] for line in _lines(stream)] == ["LookupError: again"]
    logs._uncaught._counts = {kind: (0.0, count) for kind, (_, count) in logs._uncaught._counts.items()}  # a second later
    gevent.spawn(fail).join()
    assert _lines(stream)[-1]["message"] == "uncaught LookupError in Greenlet (and 9 like this before)"


def test_an_error_in_a_finaliser_is_logged(stream):
    _setup("control", "info", stream)

    class Finalised:
        def __del__(self):
            raise ValueError("in a finaliser")

    Finalised()
    (line,) = _lines(stream)
    assert line["message"] == "uncaught ValueError in a finaliser or callback"


# -- the process ------------------------------------------------------------------------------------------------------


def test_the_last_setup_counts(stream):
    _setup("first", "info", stream)
    logger.info("one")
    assert logs.flush(FLUSH_S)
    other = io.StringIO()
    _setup("second", "info", other)
    logger.info("two")
    assert [line["process"] for line in _lines(other)] == ["second"]
    assert "two" not in stream.getvalue()


def test_nothing_to_flush(stream):
    _setup("control", "info", stream)
    assert logs.flush(0.0)


def test_flush_before_setup_has_nothing_to_do(monkeypatch):
    monkeypatch.setattr(logs, "_current", None)
    assert logs.flush(0.0)
    logs._after_fork()


def test_warnings_are_records(stream):
    _setup("control", "info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in _lines(stream)[0]["message"]


def test_an_uncaught_exception_of_a_greenlet_is_logged(stream):
    _setup("control", "info", stream)

    def fail():
        raise ValueError("in a greenlet")

    gevent.spawn(fail).join()
    (line,) = _lines(stream)
    assert line["error"] == "ValueError: in a greenlet"
    assert line["message"] == "uncaught ValueError in Greenlet"


def test_an_uncaught_exception_of_the_program_is_logged(stream):
    _setup("control", "info", stream)
    sys.excepthook(ValueError, ValueError("at the top"), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    (line,) = _lines(stream)
    assert line["level"] == "critical"
    assert line["error"] == "ValueError: at the top"


PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent, logging, os, sys
from gw import logs
logs.setup("parent", "info")
logger = logging.getLogger("program")
logger.info("before")
# gevent's os.fork installs this handler after the first fork, and waits forever for a child that has ended by then
gevent.get_hub().loop.install_sigchld()
child = os.fork()
if child == 0:
    logger.info("in the child")
    logs.flush(5.0)
    os._exit(0)
os.waitpid(child, 0)
logger.info("after")
if "fail" in sys.argv:
    raise ValueError("the end")
"""


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["fail"], 1)])
def test_a_program_that_forks_and_ends_loses_and_repeats_nothing(arguments, code):
    program = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, timeout=30, cwd=ROOT, check=False)
    messages = [json.loads(line)["message"] for line in program.stderr.splitlines()]
    expected = ["before", "in the child", "after"] + ["the process ends: ValueError"] * code
    assert sorted(messages) == sorted(expected)
    assert messages[-1] == expected[-1]
    assert program.returncode == code


# -- where it goes, and from which level up ----------------------------------------------------------------------------


def test_journald_is_recognised_by_the_descriptor_alone(tmp_path):
    with (tmp_path / "log").open("w") as file:
        status = os.fstat(file.fileno())
        assert logs.is_journal(file, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not logs.is_journal(file, {"JOURNAL_STREAM": "8:1"}), "redirected since"
        assert not logs.is_journal(file, {})
    assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": "8:1"})


def test_a_journals_line_begins_with_its_level(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w+") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        _setup("control", "info", file)
        logger.error("from %s", "+15551234567")
        assert logs.flush(FLUSH_S)
        file.seek(0)
        assert file.read().startswith('<3>{"ts":')


def test_whole_numbers_if_configured(stream):
    _setup("control", "info", stream, numbers=True)
    logger.info("from %s", "+15551234567")
    assert _lines(stream)[0]["message"] == "from +15551234567"


def test_follow_applies_the_wanted_level(stream):
    _setup("control", "info", stream)
    wish = [0]
    keeper = logs.follow(lambda: wish[0], "warning")
    try:
        for level, expected in ((0, logging.WARNING), (logging.DEBUG, logging.DEBUG)):
            wish[0] = level
            with gevent.Timeout(scaled(5.0)):
                while logging.getLogger().level != expected:
                    gevent.sleep(0.02)
    finally:
        keeper.kill()
