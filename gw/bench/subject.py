"""Subjects of a bench: a gateway started as a user starts it, or the floor, a bridge in C that does the same work.

A subject listens, lists its processes and shows its metrics; the load treats all alike. The floor, compiled on demand with the
machine's compiler, is the least that kernel and protocol cost.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from gw import ROOT
from gw.bench.gateway_process import GatewayProcess, end_process, free_ports, start_process, wait_until_gone
from gw.bench.machine import role_of
from gw.errors import GatewayError

#: No server listens there: calls of a bench are not recorded.
_NO_REST: Final = "http://127.0.0.1:9"
_BUILD_S: Final = 60.0
_START_S: Final = 5.0
_SOURCE: Final = ROOT / "tests" / "bench" / "floor.c"


class BenchError(GatewayError):
    """The bench cannot continue; the text names the reason."""

    code = "bench"


class Subject(Protocol):
    """A bridge between telephones and an AI, under measurement."""

    name: str
    url: str
    marked: bool  # audio passes through unchanged, so frames keep their numbers

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        """Start the subject and wait until it listens. Raises GatewayError."""

    def processes(self) -> dict[int, str]:
        """Return its processes' ids and roles."""

    def metrics(self) -> str:
        """Return its metrics page."""

    def stop(self) -> None:
        """End it, within a bound."""


class Gateway:
    """`gateway.py serve` between the twins, without recording, which is not part of the media path."""

    name = "gateway"
    marked = True

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        workers: int,
        calls: int,
        watched: bool = False,
        recorded: bool = False,
        store_url: str = "",
        store: str = "",
        tables: Mapping[str, str] = MappingProxyType({}),
        hook_secret: str = "",
    ) -> None:
        """Configure the gateway.

        `watched`: watch the hub all the time, which costs some percent of a core. `recorded`: record calls, with the REST API
        at `api_base`. `store_url`: a store other than an SQLite file in `folder`. `store`: more lines of its table.
        `tables`: further tables of the configuration. `hook_secret`: signs requests to endpoints.
        """
        settings = {
            "server": f"workers = {workers}\nmax_calls_per_worker = {max(2000, 5 * calls)}\n",
            "store": store,
            "recording": f"enabled = {str(recorded).lower()}\n",
            "ops": f'log_level = "warning"\nhold_monitor = "{"always" if watched else "duty"}"\n',
            **tables,
        }
        self._process = GatewayProcess(command, folder, settings, store_url)
        self.api_base = _NO_REST
        self._hook_secret = hook_secret
        self.trusted: Path | None = None  # the certificate of an AI with TLS
        self.url = self._process.url
        self.config_path = self._process.config_path
        self.pages = self._process.var_dir / "pages"
        self.admin_socket = self._process.admin_socket

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        self._process.start(
            account_sid=account_sid,
            auth_token=auth_token,
            api_base=self.api_base,
            ai_url=ai_url,
            trusted=self.trusted,
            hook_secret=self._hook_secret,
        )

    def processes(self) -> dict[int, str]:
        return {pid: role_of(pid) for pid in self._process.pids()}

    def metrics(self) -> str:
        return self._process.metrics()

    def stop(self) -> None:
        pids = self._process.pids()
        self._process.stop()
        if left := wait_until_gone(pids, 2.0):
            raise BenchError(f"the gateway left {len(left)} processes behind: {left}")


class Floor:
    """`tests/bench/floor.c`, as one process."""

    name = "floor"
    marked = True

    def __init__(self, folder: Path, lead_ms: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = build_floor(folder)
        self._lead_ms = lead_ms
        (self._port,) = free_ports(1)
        self._log = folder / "floor.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self, *, account_sid: str, auth_token: str, ai_url: str) -> None:
        ai_port = ai_url.rsplit(":", 1)[1].split("/")[0]
        with self._log.open("wb") as log:
            command = [str(self._program), str(self._port), ai_port, str(self._lead_ms)]
            self._process = start_process(command, stdin=subprocess.DEVNULL, stderr=log)
        assert self._process.stdout is not None
        import gevent

        with gevent.Timeout(_START_S, BenchError("the floor did not start")):
            if self._process.stdout.readline() != b"ready\n":
                raise BenchError(f"the floor did not start: {self._log.read_text()[-500:]}")

    def processes(self) -> dict[int, str]:
        return {} if self._process is None else {self._process.pid: "floor"}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def stop(self) -> None:
        if self._process is not None:
            end_process(self._process, 2.0)


def compiler() -> str | None:
    """Return the path of the machine's C compiler: CC, else cc, gcc or clang; None without one."""
    wanted = os.environ.get("CC")
    return next((found for name in ([wanted] if wanted else ["cc", "gcc", "clang"]) if (found := shutil.which(name))), None)


def build_floor(folder: Path, source: Path = _SOURCE) -> Path:
    """Compile the floor into `folder`, unless its program is newer than its source.

    Raises: BenchError, which names the missing tool or the compiler's error.
    """
    program = folder / "floor"
    if not source.exists():
        raise BenchError(f"the floor's source is missing ({source}); --floor needs the repository")
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    cc = compiler()
    if cc is None:
        raise BenchError("the floor is C and this machine has no compiler: apt-get install gcc libc6-dev, or leave out --floor")
    command = [cc, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", str(program), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    if built.returncode != 0:
        raise BenchError(f"the floor does not compile: {built.stderr.strip()[-1000:]}")
    return program
