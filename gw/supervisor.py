"""Keeps the gateway's processes: one control process and N media workers, restarted when they die, stopped in order.

Construct binds: the public listening socket (or systemd's) and the lock on `var_dir`. `run` starts control, waits until it is
ready, starts the workers with the socket inherited, and keeps every seat filled until `stop`. At the very start a child that
says no (a positive exit code) ends the start; later whatever dies is started again, after a wait that doubles. `stop` tells the
workers to drain, then control to finish, then kills what is left; every wait is bounded, and a second `stop` hurries.

Never does more: no Twilio, no database, no metrics page. SIGHUP stops it like SIGTERM; it does not roll workers over yet.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event

from gw.config import Config, host_and_port
from gw.errors import GatewayError
from gw.process import HURRY, Backoff, Child, describe_exit

log = logging.getLogger("gw.supervisor")

#: Connections the kernel keeps while no worker accepts; calls arrive in bursts, never by the thousand at one instant.
BACKLOG: Final = 1024
#: The first descriptor systemd passes. Source: sd_listen_fds(3).
SYSTEMD_FIRST_FD: Final = 3
#: How long a child may take from exec to ready: imports, migrations of a fresh store, one slow disk.
READY_S: Final = 30.0
#: How long control may take to hand its spool to the disk and go.
CONTROL_STOP_S: Final = 10.0
#: On top of the drain time: a worker closes its streams, answers what Twilio asks then, hands over its last events and leaves.
GRACE_S: Final = 10.0
#: The same, for all of it, when the stop is in a hurry.
HURRY_S: Final = 4.0


class StartError(GatewayError):
    """The gateway cannot start; the text says why and what to do."""

    code = "start_failed"


class _Seat:
    """A place that must be filled by a live child until it is told to stop."""

    def __init__(self, name: str, argv: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        self.name = name
        self.argv = argv
        self.pass_fds = pass_fds
        self.child: Child | None = None
        self.ready = Event()
        self.stopping = Event()
        self.keeper: gevent.Greenlet[..., None] | None = None

    def send(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send(number)


class Supervisor:
    """One gateway. `command` starts the gateway's own command line, options included; children get a subcommand added."""

    def __init__(
        self,
        config: Config,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        on_ready: Callable[[Supervisor], None] | None = None,
    ) -> None:
        """Bind. Raises StartError when the port is taken or another gateway uses the same var_dir."""
        environ = os.environ if environ is None else environ
        self.config = config
        self._on_ready = on_ready
        self._lock_fd = _lock(Path(config.ops.var_dir))
        try:
            self.listener = _listener(config.server.listen, environ)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.environ = _for_children(config, environ)
        count = config.server.workers
        self.worker_count = (os.cpu_count() or 1) if count == "auto" else count
        self._stop = Event()
        self._hurry = Event()
        self._up = False
        self._failure = ""
        fd = self.listener.fileno()
        self._control = _Seat("control", [*command, "control"])
        self._workers = [
            _Seat(f"worker {slot}", [*command, "worker", "--slot", str(slot), "--listen-fd", str(fd)], (fd,))
            for slot in range(self.worker_count)
        ]

    @property
    def address(self) -> tuple[str, int]:
        """Where Twilio's webhooks and media sockets arrive; the port the kernel chose when the configured one is 0."""
        name = self.listener.getsockname()
        return name[0], name[1]

    def run(self) -> None:
        """Serve until `stop`. Raises StartError when a child refuses to start."""
        try:
            self._start([self._control])
            self._start(self._workers)
            if not self._stop.is_set():
                self._up = True
                log.info("ready: control and %d worker(s)", self.worker_count)
                if self._on_ready is not None:
                    self._on_ready(self)
            self._stop.wait()
        finally:
            self._shut_down()
        if self._failure:
            raise StartError(self._failure)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was asked for, or the start failed."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask `run` to end: drain, then leave. Asked again, it no longer waits for calls."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def pids(self) -> dict[str, int]:
        """The children that run now, by name."""
        return {seat.name: seat.child.pid for seat in [self._control, *self._workers] if seat.child is not None}

    # -- keeping ------------------------------------------------------------------------------------------------------

    def _start(self, seats: list[_Seat]) -> None:
        """Fill the seats and wait until each is ready, the start failed or was called off."""
        if self._stop.is_set():
            return
        for seat in seats:
            seat.keeper = gevent.spawn(self._keep, seat)
            seat.keeper.link_exception(lambda died: self._fail(f"the supervisor itself failed: {died.exception!r}"))
        for seat in seats:
            gevent.wait([seat.ready, self._stop], count=1)

    def _keep(self, seat: _Seat) -> None:
        """Run one child after the other in this seat until it is told to stop."""
        backoff = Backoff()
        while not seat.stopping.is_set():
            try:
                child = seat.child = Child(seat.name, seat.argv, self.environ, seat.pass_fds)
            except OSError as error:
                log.error("%s cannot be started: %s", seat.name, error)
                if not self._up:
                    self._fail(f"{seat.name} cannot be started: {error}")
                seat.stopping.wait(backoff.on_exit(0.0))
                continue
            if seat.stopping.is_set():
                child.send(signal.SIGTERM)  # it was being started while the others were told
            code = self._watch(seat, child)
            seat.child = None
            if seat.stopping.is_set():
                if code not in (0, -signal.SIGTERM):
                    log.warning("%s ended with %s while stopping", seat.name, describe_exit(code))
                return
            if not self._up and code >= 0:
                self._fail(f"the {seat.name} process did not start ({describe_exit(code)}); it said why above")
                return
            wait_s = backoff.on_exit(child.lived_s)
            log.error("%s (pid %d) ended: %s; starting it again in %.1f s", seat.name, child.pid, describe_exit(code), wait_s)
            seat.stopping.wait(wait_s)

    def _watch(self, seat: _Seat, child: Child) -> int:
        """Wait for readiness, then for the end. Returns the exit code."""
        if child.wait_ready(READY_S):
            log.debug("%s is ready, pid %d", seat.name, child.pid)
            seat.ready.set()
            code = child.wait()
        else:
            # The pipe closed or nothing came: it is ending by itself, or it hangs and is ended.
            code = child.wait(GRACE_S)
            if code is None:
                log.error("%s was not ready within %.0f s", seat.name, READY_S)
                child.send(signal.SIGKILL)
                code = child.wait()
        assert code is not None
        return code

    def _fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence
        self._stop.set()

    # -- stopping -----------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Workers first, so that control still takes their last events; then control; kill whatever outlives its bound."""
        self._end(self._workers, self.config.server.drain_s + GRACE_S, hurry=HURRY)
        self._end([self._control], CONTROL_STOP_S)
        self.listener.close()
        os.close(self._lock_fd)

    def _end(self, seats: list[_Seat], bound_s: float, hurry: signal.Signals | None = None) -> None:
        keepers = [seat.keeper for seat in seats if seat.keeper is not None]
        for seat in seats:
            seat.stopping.set()
            seat.send(signal.SIGTERM)
        if not self._wait_all(keepers, bound_s):
            for seat in seats:
                if hurry is not None:
                    seat.send(hurry)
            gevent.joinall(keepers, timeout=HURRY_S)
        for seat in seats:
            if seat.child is not None:
                log.error("%s did not stop in time: it is killed", seat.name)
                seat.send(signal.SIGKILL)
        gevent.joinall(keepers, timeout=GRACE_S)

    def _wait_all(self, keepers: list[gevent.Greenlet[..., None]], bound_s: float) -> bool:
        """Wait until all have ended or the bound passed. False when the stop was asked for a second time before."""
        done = Event()
        waiter = gevent.spawn(gevent.joinall, keepers, bound_s)
        waiter.rawlink(lambda _: done.set())
        gevent.wait([done, self._hurry], count=1)
        waiter.kill()
        return done.is_set()


def _lock(var_dir: Path) -> int:
    """Create `var_dir` (owner only) and take its lock: two gateways in one would share a bus and a spool."""
    try:
        var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(var_dir / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"{var_dir}/ cannot be used: {error.strerror}; set ops.var_dir to a folder this user may write"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise StartError(
            f"a gateway (pid {pid}) runs in {var_dir}/ already; stop it, or give this one another ops.var_dir"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _listener(listen: str, environ: Mapping[str, str]) -> socket.socket:
    """The public socket: systemd's when it passed one to this process, else bound here."""
    if environ.get("LISTEN_PID") == str(os.getpid()) and int(environ.get("LISTEN_FDS") or 0) >= 1:
        return socket.socket(fileno=SYSTEMD_FIRST_FD)
    host, port = host_and_port(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"server.listen = {listen} cannot be used: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartError(
            f"cannot listen on {listen}: {error.strerror}; stop what uses the port, or set server.listen to another"
        ) from None
    return listener


def _for_children(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The children's environment: the same, and one token key for all of them where nobody set one."""
    children = {name: value for name, value in environ.items() if not name.startswith("LISTEN_")}
    if not config.secrets.token_key and not config.secrets.twilio_auth_token:
        children["SUBMILLI_TOKEN_KEY"] = secrets.token_hex(32)
    return children
