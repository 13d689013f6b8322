"""One child process: start, readiness, signals, priority, and the backoff between restarts.

Each child runs in its own process group, so that Ctrl-C in a terminal reaches the supervisor alone and a child receives one
stop. A child ties its life to its parent's (`end_with_parent`), so a killed supervisor leaves no process behind. Readiness is
one byte on a pipe. `gw.supervise.process` decides whether a child runs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from math import inf
from typing import Final

from gevent import os as gevent_os
from gevent.threadpool import ThreadPool

from gw.bounded import OutOfTimeError, within

#: prctl(2), PR_SET_PDEATHSIG: the signal a process gets when the thread that forked it ends.
_PR_SET_PDEATHSIG: Final = 1

#: Time for the last thread of a killed parent to end.
_PARENT_GONE_S: Final = 0.3
#: Makes a worker end its calls immediately. A separate signal: a service manager may send SIGTERM beside the supervisor's.
HURRY: Final = signal.SIGUSR1
#: Makes a worker close the listening socket and drain, and control end quickly: other processes replace them.
LEAVE: Final = signal.SIGHUP

#: Added niceness of a worker that starts beside serving ones: a third of their weight, so it becomes ready even on a machine
#: without idle time. Source: sched(7).
STARTING_NICE: Final = 5

#: The environment variable with the parent's pid.
PARENT_VARIABLE: Final = "SUBMILLI_PARENT_PID"


def end_with_parent(environ: Mapping[str, str]) -> None:
    """Make the kernel send SIGTERM when the parent ends; exit now if it has ended.

    A child calls this first; without PARENT_VARIABLE (started by hand) nothing happens. `serve` calls it too, for programs that
    start a gateway for a limited time.
    Source: prctl(2), PR_SET_PDEATHSIG; called in the child because a callback between fork and exec is not safe with threads.
    """
    parent = environ.get(PARENT_VARIABLE, "")
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if is_orphan(environ):
        sys.exit(1)


def is_orphan(environ: Mapping[str, str]) -> bool:
    """Return whether this is a child whose parent has ended."""
    parent = environ.get(PARENT_VARIABLE, "")
    return bool(parent) and str(os.getppid()) != parent


def await_parent_end(environ: Mapping[str, str]) -> None:
    """Wait until `is_orphan` is reliable after SIGTERM, at most _PARENT_GONE_S.

    SIGTERM comes from a live parent or from its death, and a killed process remains the parent until its last thread has ended.
    """
    deadline_s = time.monotonic() + _PARENT_GONE_S
    while environ.get(PARENT_VARIABLE) and not is_orphan(environ) and time.monotonic() < deadline_s:
        time.sleep(0.02)


def raise_descriptor_limit() -> None:
    """Raise the limit of open files to the hard limit, also for children.

    A call has two sockets, and the usual soft limit is 1024.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@cache
def can_restore_nice() -> bool:
    """Return whether a raised niceness may be lowered again: needs RLIMIT_NICE or CAP_SYS_NICE.

    Tried once, in a temporary thread: on Linux each thread has its own niceness (setpriority(2)).
    """
    pool = ThreadPool(1)
    try:
        return bool(pool.apply(_there_and_back))
    finally:
        pool.kill()


def _there_and_back() -> bool:
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice + 1)
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        return False
    return True


class Backoff:
    """Computes the wait before a restart: doubles over quick successive ends, up to `last_s`.

    A child that served `served_s` is restarted after `first_s`; one that served `stable_s` also resets the failure count.
    """

    def __init__(self, first_s: float = 0.1, last_s: float = 10.0, served_s: float = 5.0, stable_s: float = 30.0) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._served_s = served_s
        self.stable_s = stable_s  # from here on earlier ends do not count
        self._next_s = first_s
        self.failures = 0  # in a row

    def on_exit(self, served_s: float) -> float:
        """Count the end of a child `served_s` after it was ready. Returns the seconds to wait."""
        if served_s >= self._served_s:
            self._next_s = self._first_s
        if served_s >= self.stable_s:
            self.failures = 0
        self.failures += 1
        wait_s = self._next_s
        self._next_s = min(self._next_s * 2, self._last_s)
        return wait_s


class ChildProcess:
    """A child process, started by the constructor."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
        """Start `argv` with `--ready-fd N` added: the child writes its readiness to descriptor N. Raises OSError."""
        self.name = name
        self._ready_s = inf
        self._ready_fd, child_fd = os.pipe()
        try:
            gevent_os.make_nonblocking(self._ready_fd)
            self._process = subprocess.Popen(
                [*argv, "--ready-fd", str(child_fd)],
                env={**environ, PARENT_VARIABLE: str(os.getpid())},
                pass_fds=[*pass_fds, child_fd],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            os.close(self._ready_fd)
            raise
        finally:
            os.close(child_fd)

    @property
    def pid(self) -> int:
        """The process ID, also after the end."""
        return self._process.pid

    @property
    def served_s(self) -> float:
        """Seconds since readiness; 0.0 before."""
        return max(0.0, time.monotonic() - self._ready_s)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for readiness. False: the child ended, closed the pipe, or took longer than `timeout_s`."""
        try:
            with within(timeout_s):
                is_ready = gevent_os.nb_read(self._ready_fd, 1) == b"1"
        except OutOfTimeError:
            return False
        finally:
            os.close(self._ready_fd)
        if is_ready:
            self._ready_s = time.monotonic()
        return is_ready

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end. Returns the exit code, negative for a signal; None when `timeout_s` passed."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def set_nice(self, more: int = 0) -> None:
        """Set the niceness of all its threads to this process's plus `more`.

        By its process group, which has all its threads: its folder in /proc may be invisible (`gw.procfs.protect_memory`).
        Raises: PermissionError when that lowers the niceness and `can_restore_nice` is False.
        """
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PGRP, self.pid, os.getpriority(os.PRIO_PROCESS, 0) + more)

    def alive(self) -> bool:
        """Return whether the child runs."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signal the child, if it runs."""
        self._process.send_signal(number)


def describe_exit(code: int) -> str:
    """Return an exit code as text."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
