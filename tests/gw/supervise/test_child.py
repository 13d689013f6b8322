"""gw.supervise.child, with real child processes: readiness, niceness, the end, and the backoff."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gw.supervise.child import Backoff, ChildProcess, describe_exit
from tests.timing import scaled

#: Becomes ready, with three threads, and waits.
THREADS = """
import os, sys, threading, time
for _ in range(2):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
os.write(int(sys.argv[-1]), b"1")
time.sleep(60)
"""


@contextmanager
def child_of(code: str) -> Iterator[ChildProcess]:
    child = ChildProcess("test", [sys.executable, "-c", code], os.environ)
    try:
        yield child
    finally:
        child.send(signal.SIGKILL)
        assert child.wait(scaled(30)) is not None


def test_backoff_doubles_to_its_bound_and_resets() -> None:
    backoff = Backoff(first_s=0.1, last_s=1.0, stable_s=30.0)
    assert [backoff.on_exit(1.0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [backoff.on_exit(30.0), backoff.on_exit(0.0)] == [0.1, 0.2]
    assert backoff.failures == 2


def test_backoff_is_short_after_a_child_that_served() -> None:
    """A process that is killed occasionally restarts quickly each time, and its failures are still counted."""
    backoff = Backoff(first_s=0.1, last_s=1.0, served_s=5.0, stable_s=30.0)
    assert [backoff.on_exit(lived_s) for lived_s in (1.0, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0)] == [0.1, 0.2, 0.1, 0.1, 0.1, 0.2, 0.4]
    assert backoff.failures == 7


def test_a_child_without_readiness() -> None:
    child = ChildProcess("test", [sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    try:
        assert child.wait_ready(0.05) is False
        assert child.wait(0.05) is None
    finally:
        child.send(signal.SIGKILL)
    assert child.wait(scaled(30)) == -signal.SIGKILL
    child.send(signal.SIGTERM)  # the process has ended: no effect


def test_a_missing_program() -> None:
    with pytest.raises(OSError):
        ChildProcess("test", ["no-such-program"], os.environ)


def test_a_child_that_was_never_ready_has_not_served() -> None:
    """However long it took to fail: else a slow failing start would be retried without a wait."""
    with child_of("pass") as child:
        assert child.wait_ready(scaled(30)) is False
        assert child.wait(scaled(30)) == 0
        assert child.served_s == 0.0
    with child_of(THREADS) as child:
        assert child.served_s == 0.0
        assert child.wait_ready(scaled(30))
        assert child.served_s > 0.0


def test_every_thread_gets_the_niceness() -> None:
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
    with child_of(THREADS) as child:
        assert child.wait_ready(scaled(30))
        threads = [int(one.name) for one in Path(f"/proc/{child.pid}/task").iterdir()]
        assert len(threads) == 3
        child.set_nice(1)
        assert [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads] == [nice] * 3


def test_setting_the_niceness_of_an_ended_process_has_no_effect() -> None:
    with child_of("pass") as child:
        assert child.wait(scaled(30)) == 0
        child.set_nice(1)
        assert not child.wait_ready(scaled(30))


def test_exit_codes_as_text() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "SIGKILL"
    assert describe_exit(-99) == "signal 99"
