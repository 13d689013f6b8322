"""Store that a script can stall: a private MariaDB where one is installed, else an SQLite file.

MariaDB is set up in a new folder by the server's bootstrap mode, listens on a free loopback port and is removed at the end. It
is stalled by a signal: connections stay open and nothing answers, as when a disk hangs. SQLite is stalled by a lock on its
file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Protocol

import gevent

from gw.bench.gateway_process import free_ports
from gw.bench.subject import BenchError

_SHARE: Final = Path("/usr/share/mysql")
#: Scripts that create the system tables, in sequence.
_TABLES: Final = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
)
_OPTIONS: Final = ("--no-defaults", f"--lc-messages-dir={_SHARE}", "--innodb-buffer-pool-size=32M", "--performance-schema=OFF")
_USER: Final = "bench"
_START_S: Final = 30.0
_STOP_S: Final = 10.0


class StallingStore(Protocol):
    """The gateway's store, with a way to stall it."""

    name: str
    url: str

    def stall(self, seconds: float) -> None:
        """Answer nothing for that long; returns when the store answers again."""

    def close(self) -> None:
        """Remove the store and its data."""


def open_store(folder: Path) -> StallingStore:
    """Open a store: MariaDB where installed, else SQLite in `folder`. Raises BenchError."""
    server = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if server is not None and (_SHARE / _TABLES[0]).exists():
        return MariaDb(server)
    return SqliteFile(folder / "pressure.db")


class SqliteFile:
    """The embedded store, stalled by another writer."""

    name = "SQLite"

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._remove()
        self.url = f"sqlite:///{path}"

    def stall(self, seconds: float) -> None:
        """Hold a writer's lock."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=5.0, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            gevent.sleep(seconds)
            other.execute("ROLLBACK")

    def close(self) -> None:
        self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


class MariaDb:
    """A private server; construct starts it."""

    name = "MariaDB"

    def __init__(self, server: str, *options: str) -> None:
        """`options`: of the server, over its own."""
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="submilli-bench-"))
        self._process: subprocess.Popen[bytes] | None = None
        (port,) = free_ports(1)
        self.url = f"mysql+pymysql://{_USER}@127.0.0.1:{port}/bench"
        try:
            self._set_up(server)
            self._start(server, port)
        except BaseException:
            self.close()
            raise

    def _set_up(self, server: str) -> None:
        """Create the system tables; bootstrap mode reads one statement a line."""
        sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
        sql += "".join((_SHARE / name).read_text() for name in _TABLES)
        sql += f"\nFLUSH PRIVILEGES;\nCREATE DATABASE bench;\nCREATE USER {_USER}@'127.0.0.1';\n"
        sql += f"GRANT ALL ON bench.* TO {_USER}@'127.0.0.1';\n"
        made = subprocess.run(
            [server, *_OPTIONS, *self._as_root(), "--bootstrap", f"--datadir={self._folder}", "--max-allowed-packet=8M"],
            input=sql.encode(),
            capture_output=True,
            timeout=_START_S,
            check=False,
        )
        if made.returncode != 0:
            raise BenchError(f"MariaDB cannot be set up: {made.stderr.decode(errors='replace').strip()[-500:]}")

    def _start(self, server: str, port: int) -> None:
        listening = ("--bind-address=127.0.0.1", f"--port={port}", f"--socket={self._folder}/s", "--skip-name-resolve")
        log_path = self._folder / "log"
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._tied(), server, *_OPTIONS, *self._options, *self._as_root(), *listening, f"--datadir={self._folder}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        until_s = time.monotonic() + _START_S
        while b"ready for connections" not in log_path.read_bytes():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise BenchError(f"MariaDB did not start: {log_path.read_text(errors='replace').strip()[-500:]}")
            gevent.sleep(0.05)

    @staticmethod
    def _tied() -> tuple[str, ...]:
        """Prefix that ends the server with this process, however that ends (util-linux)."""
        return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

    @staticmethod
    def _as_root() -> tuple[str, ...]:
        return ("--user=root",) if os.geteuid() == 0 else ()  # as root the server requires this

    def stall(self, seconds: float) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            gevent.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)
