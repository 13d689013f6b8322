"""The gateway's exclusive resources: the lock of `var_dir` and the public listening socket.

A killed supervisor leaves children whose calls continue. Its workers close the port immediately, and its control process serves
the bus until they have ended or a new gateway takes over: the holder of the `var_dir` lock ends the old control and waits a
moment for the port. Every wait is bounded. Starts no process.
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

log = logging.getLogger(__name__)

#: Connections the kernel queues until a worker accepts; bursts of calls are far smaller.
BACKLOG: Final = 1024
#: The first descriptor systemd passes. Source: sd_listen_fds(3).
SYSTEMD_FIRST_FD: Final = 3
#: After a supervisor was killed: bounds for its workers to close the port, and for its control to exit.
PORT_FREE_S: Final = 3.0
CONTROL_GONE_S: Final = 12.0
_RETRY_S: Final = 0.05
#: `struct ucred` of unix(7).
_UCRED: Final = struct.Struct("iII")


class StartError(GatewayError):
    """The gateway cannot start; the message gives the reason and the remedy."""

    code = "start_failed"


class Lock(NamedTuple):
    """The lock of `var_dir`, held until `fd` is closed. `unclean`: the previous gateway was killed."""

    fd: int
    unclean: bool

    def release(self) -> None:
        """Release the lock, and mark the end as clean."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)


def lock(var_dir: Path) -> Lock:
    """Create `var_dir` (owner only) and lock it. Raises StartError.

    Two gateways in one `var_dir` would share a bus and a spool.
    """
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
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(fd)
        remedy = "free some of the disk of ops.var_dir"
        raise StartError(f"{var_dir}/ cannot be written: {error.strerror}; {remedy}") from None
    return Lock(fd, bool(pid))


def take_over(bus_socket: Path) -> None:
    """End the control process of a killed supervisor; its workers reconnect to the new one.

    The caller holds the lock of `var_dir`.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(bus_socket))
        except OSError:
            return  # no process listens
        pid = _UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    log.warning("stopping control process %d of a killed gateway; the calls of its workers continue", pid)
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
    """Return the public socket: the one systemd passed to this process, or a new one.

    `patience_s`: how long a port in use is retried. `loopback_only`: callers are not authenticated, so a passed socket must be on
    loopback.
    Raises: StartError.
    """
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
    """Return systemd's socket. Raises StartError for one that cannot serve: callers would wait there without end."""
    if count != "1":
        raise StartError(f"systemd passed {count} sockets, the gateway serves one: give its .socket unit one ListenStream")
    try:
        passed = socket.socket(fileno=SYSTEMD_FIRST_FD)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"systemd passed a descriptor that is not a socket: {error.strerror}") from None
    if not listens or passed.family not in (socket.AF_INET, socket.AF_INET6):
        raise StartError("the socket that systemd passed takes no TCP connections: expected ListenStream=address:port, Accept=no")
    host = str(passed.getsockname()[0])
    if loopback_only and not is_loopback(host):
        raise StartError(
            f"systemd listens on {host}, and without Twilio credentials callers are not authenticated: "
            "set twilio.account_sid and TWILIO_AUTH_TOKEN, or ListenStream=127.0.0.1:8080"
        )
    return passed
