"""Snapshot of the configuration file and the secrets for one generation of processes.

Each is read once, and every process of that generation gets the same, including one restarted an hour later: no process reads an
unfinished edit. Children inherit the file as anonymous memory, and their secrets in the environment. The check runs in a process
of the new code, which also returns the settings the supervisor needs. The trial constructs control and a worker in another one
(`gw.supervise.trial`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gw.config.credentials import tokens_in, with_credentials
from gw.config.load import FOLDER_VARIABLE
from gw.errors import GatewayError
from gw.supervise.child import PARENT_VARIABLE

#: Bound on the check, which imports little and opens only the file.
CHECK_TIMEOUT_S: Final = 20.0
#: Bound on the trial, which imports everything.
TRIAL_TIMEOUT_S: Final = 30.0
#: A configuration file is some kilobytes.
MAX_FILE_BYTES: Final = 1 << 20


class ReloadError(GatewayError):
    """The reload failed, wholly or in part; the present processes continue to serve."""

    code = "reload_failed"


class SupervisorSettings(msgspec.Struct, frozen=True):
    """The `[server]` and `[ops]` keys that the supervisor uses. Other code may have more keys."""

    listen: str
    workers: int | Literal["auto"]
    pin: bool
    stop_timeout_s: float
    reload_timeout_s: float
    var_dir: str = ""
    ops_listen: str = ""
    admin_socket: str = ""


class Snapshot:
    """The bytes of the configuration file, and an environment with all secrets. Without a file, children read none."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        """Read the file at `path`, and the credentials. `environ`: of the gateway's start. Raises ReloadError."""
        self.fd = -1
        content = b"" if path is None else _read(path)
        self.tokens = tokens_in(content)  # the variables with MCP servers' tokens
        self.environ, unreadable = with_credentials(environ, self.tokens)
        if unreadable:
            raise ReloadError("; ".join(unreadable))
        if path is None:
            return
        self.environ[FOLDER_VARIABLE] = str(path.parent.resolve())
        self.fd = os.memfd_create("submilli-config", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(self.fd), "wb") as file:
            file.write(content)

    @property
    def path(self) -> str:
        """The path for a child that inherited `fd`; each open starts at the beginning. Source: proc_pid_fd(5)."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def options(self) -> list[str]:
        """Command line options for a child."""
        return [] if self.fd < 0 else ["--config", self.path]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors that a child must inherit."""
        return () if self.fd < 0 else (self.fd,)

    def close(self) -> None:
        """Close the memory. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _read(path: Path) -> bytes:
    """Return the file's bytes. Raises ReloadError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReloadError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ReloadError(f"{path} is longer than {MAX_FILE_BYTES} bytes")
    return content


def check(command: Sequence[str], snapshot: Snapshot, named: str) -> SupervisorSettings:
    """Check the file with the code on disk. `named`: the file's name in messages.

    Raises: ReloadError with every problem of the file.
    """
    argv = [*command, *snapshot.options, "config", "check", "--json"]
    done = _run(argv, snapshot, CHECK_TIMEOUT_S, f"the check of {named}")
    try:
        answer: dict[str, Any] = msgspec.json.decode(done.stdout, type=dict)
        if answer["problems"]:
            raise ReloadError("; ".join(str(problem).replace(snapshot.path, named) for problem in answer["problems"]))
        return settings_of(answer["config"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        raise ReloadError(f"the new code cannot check {named}: {_last_line(done.stderr)}"[:500]) from None


def settings_of(config: Mapping[str, Any]) -> SupervisorSettings:
    """Return the supervisor's settings. `config`: plain values. Raises msgspec.MsgspecError, KeyError."""
    ops = config["ops"]
    own = {"var_dir": ops["var_dir"], "ops_listen": ops.get("listen", ""), "admin_socket": ops.get("admin_socket", "")}
    return msgspec.convert({**config["server"], **own}, SupervisorSettings)


def try_out(command: Sequence[str], snapshot: Snapshot, scoreboard_fd: int, running: SupervisorSettings) -> str:
    """Construct control and a worker in a process of the code on disk. `running`: of the present control.

    Returns: the reason why one of them would not start; empty if both would.
    """
    held = ["--ops-listen", running.ops_listen, "--admin-socket", running.admin_socket]
    argv = [*command, *snapshot.options, "trial", "--scoreboard-fd", str(scoreboard_fd), *held]
    try:
        done = _run(argv, snapshot, TRIAL_TIMEOUT_S, "the trial of the new processes", (scoreboard_fd,))
    except ReloadError as error:
        return str(error)
    try:
        return str(msgspec.json.decode(done.stdout, type=dict)["problem"])
    except (msgspec.MsgspecError, KeyError):
        return f"the new code does not start: {_last_line(done.stderr)}"[:500]


def _run(
    argv: list[str], snapshot: Snapshot, bound_s: float, what: str, fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a process of the code on disk to its end. Raises ReloadError."""
    try:
        return subprocess.run(
            argv,
            env={**snapshot.environ, PARENT_VARIABLE: str(os.getpid())},
            pass_fds=(*snapshot.pass_fds, *fds),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=bound_s,
        )
    except subprocess.TimeoutExpired:
        raise ReloadError(f"{what} did not end within {bound_s:g} s") from None
    except OSError as error:
        raise ReloadError(f"{argv[0]} cannot be started: {error.strerror}") from None


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no error text"
