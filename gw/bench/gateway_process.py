"""Gateway child process with its own folder and ports, started as a user starts one.

A TOML file, secrets in the environment, `gateway.py serve`. The gateway ends with the process that started it, however that
ends.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import gevent
from gevent import os as gevent_os

from gw.bounded import OutOfTimeError, within
from gw.config.credentials import FOLDERS
from gw.errors import GatewayError
from gw.procfs import TRACEABLE_VARIABLE
from gw.supervise.child import PARENT_VARIABLE

#: From exec to the three lines that report readiness: imports and migrations of three processes on a slow machine.
READY_S: Final = 30.0
#: After SIGTERM: its stop timeout is a second, the control process's own bound ten.
STOP_S: Final = 12.0
_LOG_LINES: Final = 15
#: Folder for the unpacked one-file binary: part of the command's environment, not of a gateway's settings.
CACHE_VARIABLE: Final = "SUBMILLI_CACHE"
#: File of certificates that OpenSSL trusts.
_TRUST_VARIABLE: Final = "SSL_CERT_FILE"
#: Linux takes the ports of outgoing connections from 32768 upwards.
LISTENER_PORTS: Final = range(20_000, 32_000)
#: Processes side by side choose from different ports: none has a listener yet while it is chosen.
_SHARES: Final = 24


class GatewayProcessError(GatewayError):
    """The gateway did not start, or did not answer."""

    code = "demo_gateway"


class GatewayProcess:
    """One gateway: construct chooses ports, `start` configures and runs it, `stop` ends it and its children."""

    def __init__(
        self, command: Sequence[str], folder: Path, settings: Mapping[str, str] | None = None, store_url: str = ""
    ) -> None:
        """Choose two free ports and remove the `var` folder of an earlier run.

        `command` runs gateway.py; `settings` are more lines of TOML, by table; `store_url` replaces an SQLite file in `folder`.
        """
        folder = folder.absolute()  # a path in the configuration would begin at its own folder
        folder.mkdir(parents=True, exist_ok=True)
        self.var_dir = folder / "var"
        shutil.rmtree(self.var_dir, ignore_errors=True)
        self._public_port, self._ops_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self._public_port}"
        self.config_path = folder / "submilli.toml"
        self.log_path = folder / "gateway.log"
        self.admin_socket = self.var_dir / "admin.sock"
        self._store_url = store_url or f"sqlite:///{self.var_dir}/submilli.db"
        self._settings = {} if settings is None else settings
        self._command = [*command, "--config", str(self.config_path), "serve"]
        self._process: subprocess.Popen[bytes] | None = None

    def configuration(self, account_sid: str, api_base: str, ai_url: str) -> str:
        """Return the TOML file, as a user would write it."""
        tables = {
            "server": f'listen = "127.0.0.1:{self._public_port}"\npublic_url = "{self.url}"\nstop_timeout_s = 1.0\n',
            "ops": f'listen = "127.0.0.1:{self._ops_port}"\nadmin_socket = "{self.admin_socket}"\nvar_dir = "{self.var_dir}"\n',
            "twilio": f'account_sid = "{account_sid}"\napi_base = "{api_base}"\n',
            "store": f'url = "{self._store_url}"\n',
            "agents.default": f'provider = "openai"\nbase_url = "{ai_url}"\n',
        }
        for table, lines in self._settings.items():
            tables[table] = tables.get(table, "") + lines
        whole = "\n".join(f"[{table}]\n{lines}" for table, lines in tables.items())
        return f"# A gateway between the twins, for one run.\n{whole}"

    def start(
        self,
        *,
        account_sid: str,
        auth_token: str,
        api_base: str,
        ai_url: str,
        trusted: Path | None = None,
        credentials: Path | None = None,
        hook_secret: str = "",
    ) -> None:
        """Run the gateway and wait until it reports readiness.

        `trusted`: the only certificate it trusts, instead of the system's. `credentials`: a folder of secrets.
        Raises: GatewayProcessError with its log's end.
        """
        self.config_path.write_text(self.configuration(account_sid, api_base, ai_url))
        ours = ("SUBMILLI_", "LISTEN_", "TWILIO_", "OPENAI_")
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours) or name == CACHE_VARIABLE},
            "TWILIO_AUTH_TOKEN": auth_token,
            "OPENAI_API_KEY": "none-is-needed-for-the-twin",
            PARENT_VARIABLE: str(os.getpid()),
            TRACEABLE_VARIABLE: "1",  # memory is measured, and there is no secret
            **({"SUBMILLI_HOOK_SECRET": hook_secret} if hook_secret else {}),
            **({} if trusted is None else {_TRUST_VARIABLE: str(trusted)}),
            **({} if credentials is None else {FOLDERS[0]: str(credentials)}),
        }
        with self.log_path.open("wb") as log:
            self._process = start_process(self._command, env=environ, stdin=subprocess.DEVNULL, stderr=log)
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        gevent_os.make_nonblocking(fd)
        output = b""
        with suppress(OutOfTimeError), within(READY_S):
            while output.count(b"\n") < 3 and (more := gevent_os.nb_read(fd, 4096)):
                output += more
        if output.count(b"\n") < 3:
            self.stop()
            raise GatewayProcessError(f"the gateway did not start; {self.log_path} ends with:\n{self._log_end()}")

    def metrics(self) -> str:
        """Return the gateway's metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ops_port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def pids(self) -> list[int]:
        """Return the process ids of the gateway and its children, from /proc."""
        if self._process is None:
            return []
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [self._process.pid, *(map(int, children.read_text().split()) if children.exists() else ())]

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL after STOP_S. The children end with it."""
        if self._process is not None:
            end_process(self._process, STOP_S)

    def _log_end(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a child process with a pipe for its output. `options` go to `subprocess.Popen`.

    An interruption while the child starts ends the child: under gevent, `Popen` switches greenlets after the fork.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0, **options)

    starting = gevent.spawn(start)
    try:
        return starting.get()
    except BaseException:
        starting.join()
        if starting.value is not None:
            end_process(starting.value, STOP_S)
        raise


def end_process(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """End a child process, and close its pipes.

    One with a stdin pipe ends when that closes, any other by SIGTERM; SIGKILL follows after `timeout_s`.
    """
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_ports(count: int) -> list[int]:
    """Return unused ports of the loopback interface.

    They lie below the range the kernel uses for outgoing connections, which could take one before its listener starts.
    """
    ports: list[int] = []
    for port in islice(_own_ports(os.getpid()), len(LISTENER_PORTS) // _SHARES):
        if len(ports) == count:
            break
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.append(port)
    return ports


@cache
def _own_ports(pid: int) -> Iterator[int]:
    """Return the ports of a process's share, in random sequence: none comes again before all others did."""
    own = LISTENER_PORTS[pid % _SHARES :: _SHARES]
    return cycle(random.sample(own, len(own)))


def wait_until_gone(pids: Sequence[int], timeout_s: float) -> list[int]:
    """Wait until the processes have ended. Returns those that still exist after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return left
