"""gw.cli.operate.processes: the cores of a worker during its start and afterwards.

The worker's configuration is a pipe: the worker waits there, before it imports anything large, until the test has read its cores.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import gevent
import pytest
from gevent.socket import wait_read

from gw.supervise.cpu_affinity import allowed_cores
from tests.program import ROOT
from tests.timing import scaled

CORES = allowed_cores()
HERE, THERE = {CORES[0]}, {CORES[-1]}

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="there is one core")


class Begun:
    """A worker started by a process on the core HERE, waiting for its configuration."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._var = folder / "var"
        (self._var / "pages").mkdir(parents=True)
        config = folder / "submilli.toml"
        os.mkfifo(config)
        listener = socket.create_server(("127.0.0.1", 0))
        self._ready, ready_fd = os.pipe()
        descriptors = (listener.fileno(), ready_fd)
        handed = ("--index", "0", "--listen-fd", str(descriptors[0]), "--ready-fd", str(descriptors[1]))
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SUBMILLI", "TWILIO", "OPENAI"))}
        os.sched_setaffinity(0, HERE)
        try:
            self.popen = subprocess.Popen(
                [sys.executable, "gateway.py", "--config", str(config), "worker", *handed, *options],
                cwd=ROOT,
                env={**environ, "SUBMILLI_TOKEN_KEY": "a key of the tests"},
                pass_fds=descriptors,
            )
        finally:
            os.sched_setaffinity(0, CORES)
            os.close(ready_fd)
            listener.close()
        try:
            self._config = _writer_of(config)
        except BaseException:
            self.end()
            raise

    def go_on(self) -> None:
        """Send the configuration, and wait until the worker is ready."""
        with self._config:
            self._config.write(f'[ops]\nvar_dir = "{self._var}"\nadmin_socket = "{self._var}/admin.sock"\n')
        with gevent.Timeout(scaled(20.0)):
            wait_read(self._ready)
        assert os.read(self._ready, 2) == b"1"

    def cores(self) -> set[int]:
        """Return the cores of its threads."""
        threads = [int(thread.name) for thread in Path(f"/proc/{self.popen.pid}/task").iterdir()]
        return set().union(*(os.sched_getaffinity(thread) for thread in threads))

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self._ready)


def _writer_of(fifo: Path) -> TextIO:
    """Return the writing end, once a reader has opened the pipe."""
    deadline_s = time.monotonic() + scaled(20.0)
    while True:
        try:
            return os.fdopen(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "w")
        except OSError:
            assert time.monotonic() < deadline_s, "nobody reads the configuration"
            gevent.sleep(0.02)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Begun]]:
    begun: list[Begun] = []

    def start(*options: str) -> Begun:
        begun.append(Begun(tmp_path, *options))
        return begun[-1]

    yield start
    for one in begun:
        one.end()


def test_a_worker_starts_on_its_own_cores(begin: Callable[..., Begun]) -> None:
    """All workers start at the same time, too many for the supervisor's core."""
    worker = begin("--core", str(CORES[-1]))
    assert worker.cores() == THERE
    worker.go_on()
    assert worker.cores() == THERE


@pytest.mark.parametrize("cores", [THERE, HERE | THERE])
def test_a_worker_with_low_priority_takes_its_cores_when_it_is_ready(begin: Callable[..., Begun], cores: set[int]) -> None:
    worker = begin("--core", ",".join(map(str, cores)), "--low-priority")
    assert worker.cores() == HERE
    worker.go_on()
    assert worker.cores() == cores
