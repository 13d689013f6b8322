"""What a gateway must have to itself before it starts a process: `var_dir`, and the public socket.

A supervisor that was killed leaves children whose calls go on. They let go of the port at once, and their control process keeps
the bus until they have left or somebody takes over; whoever holds the lock of `var_dir` may, so a new start ends the old
control, and waits a moment for the port. Every wait is bounded. Never starts a process.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gw.config import host_and_port
from gw.config.rules import is_loopback
from gw.errors import GatewayError
from gw.procfs import birth_of

log = logging.getLogger("gw.supervise.supervisor")

#: Connections the kernel keeps while no worker accepts; calls arrive in bursts, never by the thousand at one instant.
BACKLOG: Final = 1024
#: The first descriptor systemd passes. Source: sd_listen_fds(3).
SYSTEMD_FIRST_FD: Final = 3
#: After a supervisor was killed: how long its workers may take to let go of the port, and its control to go.
PORT_FREE_S: Final = 3.0
CONTROL_GONE_S: Final = 12.0
_RETRY_S: Final = 0.05
#: `struct ucred` of unix(7).
_UCRED: Final = struct.Struct("iII")


class StartError(GatewayError):
    """The gateway cannot start; the text says why and what to do."""

    code = "start_failed"


class Lock(NamedTuple):
    """`var_dir` is ours until `fd` is closed. `unclean`: the gateway before us did not end by itself."""

    fd: int
    unclean: bool

    def release(self) -> None:
        """Give it back, and leave word that this was on purpose."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)


def lock(var_dir: Path) -> Lock:
    """Create `var_dir` (owner only) and take its lock: two gateways in one would share a bus and a spool. Raises StartError."""
    try:
        var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(var_dir / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"{var_dir}/ cannot be used: {error.strerror}; set ops.var_dir to a folder this user may write"
        ) from None
    pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise StartError(
            f"a gateway (pid {pid or 'unknown'}) runs in {var_dir}/ already; stop it, or give this one another ops.var_dir"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return Lock(fd, bool(pid))


def take_over(bus_socket: Path) -> None:
    """End the control process that a killed supervisor left: its workers come to ours. The caller holds the lock of `var_dir`."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(bus_socket))
        except OSError:
            return  # nobody listens
        pid = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    log.warning("the control process %d of a gateway that was killed is asked to go; its workers' calls go on", pid)
    for number, bound_s in ((signal.SIGTERM, CONTROL_GONE_S), (signal.SIGKILL, 2.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline_s = time.monotonic() + bound_s
        while birth_of(pid) is not None and time.monotonic() < deadline_s:
            time.sleep(_RETRY_S)
        if birth_of(pid) is None:
            return


def public_socket(
    listen: str, environ: Mapping[str, str], *, patience_s: float = 0.0, loopback_only: bool = False
) -> socket.socket:
    """The public socket: systemd's when it passed one to this process, else bound here. A port in use is tried again for
    `patience_s`. `loopback_only`: who calls is not checked, which systemd does not know. Raises StartError."""
    if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0") != "0":
        return _passed(environ.get("LISTEN_FDS", ""), loopback_only)
    host, port = host_and_port(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"server.listen = {listen} cannot be used: {error.strerror or error}") from None
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            return listener
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline_s:
                time.sleep(_RETRY_S)
                continue
            listener.close()
            raise StartError(
                f"cannot listen on {listen}: {error.strerror}; stop what uses the port, or set server.listen to another"
            ) from None


def _passed(count: str, loopback_only: bool) -> socket.socket:
    """systemd's socket. Raises StartError where it is not one that can serve: a caller would wait at it for ever."""
    if count != "1":
        raise StartError(f"systemd passed {count} sockets, the gateway serves one: give its .socket unit one ListenStream")
    try:
        passed = socket.socket(fileno=SYSTEMD_FIRST_FD)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"what systemd passed is no socket: {error.strerror}") from None
    if not listens or passed.family not in (socket.AF_INET, socket.AF_INET6):
        raise StartError("the socket that systemd passed takes no TCP connections: wanted ListenStream=address:port, Accept=no")
    host = str(passed.getsockname()[0])
    if loopback_only and not is_loopback(host):
        raise StartError(
            f"systemd listens on {host}, and without Twilio credentials who calls is not checked: "
            "set twilio.account_sid and TWILIO_AUTH_TOKEN, or ListenStream=127.0.0.1:8080"
        )
    return passed
