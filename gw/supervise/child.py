"""One child process of the supervisor: how it is started, told apart from ready, ended, and how long to wait before the next.

A child runs in a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone and a child is told to
stop once. It ties its life to its parent's itself (`end_with_parent`), so no process stays behind when the supervisor is
killed. Readiness is one byte on a pipe. Never decides whether a child should run: that is `gw.supervise.supervisor`.
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
from pathlib import Path
from typing import Final

from gevent import Timeout
from gevent import os as gevent_os
from gevent.threadpool import ThreadPool

#: prctl(2), PR_SET_PDEATHSIG: the signal a process gets when the thread that forked it ends.
_PR_SET_PDEATHSIG: Final = 1

#: How long a parent that was killed may take to be gone.
_PARENT_GONE_S: Final = 0.3
#: Tells a worker that its stop is in a hurry. A signal of its own: a service manager may send SIGTERM beside the supervisor's.
HURRY: Final = signal.SIGUSR1
#: Tells a worker that others take its place: it lets go of the listening socket, and its calls go on.
LEAVE: Final = signal.SIGHUP

#: How much nicer than those that serve a worker is that starts beside them: a third of their weight, so that a machine with no
#: time left still lets it become ready. Source: sched(7).
BEHIND: Final = 5

#: The environment variable by which a child knows the process it belongs to.
PARENT_VARIABLE: Final = "SUBMILLI_PARENT_PID"


def end_with_parent(environ: Mapping[str, str]) -> None:
    """Ask the kernel for SIGTERM when the parent ends, and leave at once if it has ended already.

    Called by a child as the first thing it does; without PARENT_VARIABLE (started by hand) it does nothing. `serve` calls it
    too, so that whoever starts a gateway for a while can be sure of its end.
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
    """Whether this is a child whose parent has ended."""
    parent = environ.get(PARENT_VARIABLE, "")
    return bool(parent) and str(os.getppid()) != parent


def settle_parent(environ: Mapping[str, str]) -> None:
    """Wait until it is clear whether SIGTERM came from a parent that lives or tells of its death: a process that is killed ends
    thread by thread, and is its children's parent until the last of them."""
    deadline_s = time.monotonic() + _PARENT_GONE_S
    while environ.get(PARENT_VARIABLE) and not is_orphan(environ) and time.monotonic() < deadline_s:
        time.sleep(0.02)


def raise_descriptor_limit() -> None:
    """Let this process and its children open as many files as the machine allows: a call has two sockets, and 1024 is what a
    login gives by itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@cache
def may_come_back() -> bool:
    """Whether a process of ours that was made nicer may be made as it was: with RLIMIT_NICE or CAP_SYS_NICE, which not every
    account and container has. Tried by a thread that ends then: on Linux each has a niceness of its own (setpriority(2))."""
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
    """How long to wait before a child is started again: after quick successive deaths doubling from the first wait to the last.
    One that had served for a while is started again after the first wait, and its end counts yet until one lives long enough."""

    def __init__(self, first_s: float = 0.1, last_s: float = 10.0, served_s: float = 5.0, forgive_s: float = 30.0) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._served_s = served_s
        self.forgive_s = forgive_s  # from here on its former ends do not count
        self._next_s = first_s
        self.failures = 0  # in a row

    def on_exit(self, served_s: float) -> float:
        """The child ended `served_s` after it was ready. Returns the seconds to wait."""
        if served_s >= self._served_s:
            self._next_s = self._first_s
        if served_s >= self.forgive_s:
            self.failures = 0
        self.failures += 1
        wait_s = self._next_s
        self._next_s = min(self._next_s * 2, self._last_s)
        return wait_s


class Child:
    """A running child process. Construct starts it."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
        """Start `argv` with `--ready-fd N` added, N being the pipe's end on which it says that it is ready."""
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
        return self._process.pid

    @property
    def served_s(self) -> float:
        """How long ago it was ready; 0.0 where it never was."""
        return max(0.0, time.monotonic() - self._ready_s)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the child's byte. False: it ended, closed the pipe, or took longer than `timeout_s`."""
        bound = Timeout.start_new(timeout_s)
        try:
            if gevent_os.nb_read(self._ready_fd, 1) != b"1":
                return False
            self._ready_s = time.monotonic()
            return True
        except Timeout as passed:
            if passed is not bound:
                raise
            return False
        finally:
            bound.close()
            os.close(self._ready_fd)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end. Returns the exit code, negative for a signal; None when `timeout_s` passed."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def set_nice(self, more: int = 0) -> None:
        """Make it, with all its threads, so much nicer than this process: its first thread first, since others it starts are as
        that one is. Raises PermissionError where that is less than it is now and `may_come_back` says no; what has ended is left
        alone."""
        nice = os.getpriority(os.PRIO_PROCESS, 0) + more
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self.pid, nice)
        threads: list[int] = []
        with suppress(FileNotFoundError, ProcessLookupError):
            threads = [int(one.name) for one in Path(f"/proc/{self.pid}/task").iterdir()]
        for thread in threads:
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread, nice)

    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signal it, if it still runs."""
        self._process.send_signal(number)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
