"""Supervisor: starts, watches, reloads and stops one control process and N media workers.

Constructing binds the public listening socket (or takes systemd's) and locks `var_dir`. `run` starts control and the workers,
which inherit the socket, and keeps every process running until `stop`. During the start, a child that exits with a code >= 0
ends the start. Later, any process that ends is restarted after a wait that doubles while it keeps dying, and a process whose
loop hangs is killed, hence restarted. `reload` loads new code and configuration (`gw.supervise.reload`). `stop` drains the
workers, stops control, and kills what is left. Every wait is bounded; a second `stop` ends calls immediately.

The supervisor does nothing else: no Twilio, no database, no metrics page. A reload does not replace its own code.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gevent
import msgspec
from gevent.event import Event

from gw.config import Config, talk_url
from gw.scoreboard import ReloadReport, Scoreboard
from gw.supervise import cpu_affinity, sockets
from gw.supervise.config_snapshot import ReloadError, Snapshot, settings_of
from gw.supervise.process_group import GRACE_S, HURRY_S, ProcessGroup
from gw.supervise.reload import CONTROL_STOP_S, Reloader
from gw.supervise.sockets import StartError

__all__ = ["StartError", "Supervisor"]

log = logging.getLogger(__name__)


class Supervisor:
    """One gateway's processes. `command` starts the gateway's command line; a child adds options and a subcommand."""

    def __init__(
        self,
        config: Config,
        command: Sequence[str],
        *,
        config_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        on_ready: Callable[[Supervisor], None] | None = None,
        on_check: Callable[[list[str]], None] | None = None,
        on_report: Callable[[ReloadReport], None] | None = None,
    ) -> None:
        """Bind the socket and lock `var_dir`.

        `on_check` gets the names of stalled processes each second, once all are ready: it feeds a service manager's watchdog.
        `on_report` gets each step of a reload.
        Raises: StartError when the port is taken or another gateway uses the same var_dir.
        """
        environ = os.environ if environ is None else environ
        self.config = config
        self._on_ready = on_ready
        self._on_check = on_check or (lambda stalled: None)
        var_dir = Path(config.ops.var_dir)
        self._lock = sockets.lock(var_dir)
        try:
            if self._lock.unclean:
                sockets.take_over(var_dir / "bus.sock")
            patience_s = sockets.PORT_FREE_S if self._lock.unclean else 0.0
            self.listener = sockets.public_socket(
                config.server.listen, environ, patience_s=patience_s, loopback_only=not config.signed
            )
            self.scoreboard = Scoreboard.create()  # the shared state of all processes
            self.environ = _for_children(config, environ)
            snapshot = Snapshot(config_path, self.environ)
        except (ReloadError, OSError) as error:
            self._lock.release()
            raise StartError(str(error)) from None
        except BaseException:
            self._lock.release()
            raise
        self._allowed = cpu_affinity.allowed_cores()
        server = config.server
        self._group = ProcessGroup(
            command,
            self.scoreboard,
            self.listener.fileno(),
            cpu_affinity.plan(server.workers, server.pin, self._allowed),
            self._allowed,
        )
        self._reloader = Reloader(
            self._group,
            settings_of({"server": msgspec.structs.asdict(server), "ops": msgspec.structs.asdict(config.ops)}),
            snapshot,
            config_path=config_path,
            environ=self.environ,
            allowed=self._allowed,
            on_plan=self._bind,
            on_report=on_report,
        )
        self._snapshot = snapshot
        self._stop = Event()
        self._up = False
        self._failure = ""
        self._watcher: gevent.Greenlet[..., None] | None = None

    @property
    def worker_count(self) -> int:
        """The number of workers of the current generation."""
        return self._group.plan.workers

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the public socket. A configured port 0 is replaced by the kernel's choice."""
        name = self.listener.getsockname()
        return name[0], name[1]

    @property
    def talk_url(self) -> str:
        """The talk page's URL; empty with Twilio credentials."""
        key = self.environ.get("SUBMILLI_TALK_KEY", "")
        return "" if self.config.signed or not key else talk_url(*self.address, key)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called or the start failed."""
        return self._stop.is_set()

    @property
    def stop_bound_s(self) -> float:
        """Bound on a stop: the drain, every process's exit, and the wait for killed ones."""
        return self._reloader.settings.stop_timeout_s + GRACE_S + CONTROL_STOP_S + 2 * (HURRY_S + GRACE_S) + 3 * HURRY_S

    def run(self) -> None:
        """Serve until `stop`. Raises StartError when a child does not start."""
        try:
            self._start()
            if not self._stop.is_set():
                self._up = True
                self._watcher = gevent.spawn(self._group.watch, self._on_check)
                self._watcher.link_exception(lambda died: self._fail(f"the supervisor itself failed: {died.exception!r}"))
                log.info("ready: control and %d worker%s", self.worker_count, "" if self.worker_count == 1 else "s")
                if self._on_ready is not None:
                    self._on_ready(self)
            self._stop.wait()
        finally:
            self._shut_down()
        if self._failure:
            raise StartError(self._failure)

    def stop(self) -> None:
        """Make `run` end: drain, then exit. A second call ends the calls immediately."""
        if self._stop.is_set():
            self._group.hurry.set()
        self._stop.set()

    def reload(self, *, is_check: bool = False) -> None:
        """Start a reload, or its check alone; the scoreboard's report has the outcome.

        During a reload or a stop, only log a warning.
        """
        if self._stop.is_set() or self._reloader.is_running:
            log.warning("ignored a reload request: the gateway is stopping or already reloading")
            return
        self._reloader.start(is_up=self._up, is_check=is_check)

    def pids(self) -> dict[str, int]:
        """Return the pids of control and the current workers, by name."""
        return self._group.pids()

    # -- starting ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start all processes and wait until each is ready, the start failed, or `stop` was called."""
        if self._stop.is_set():
            return
        self._bind()
        group = self._group
        group.control = group.new_control(self._snapshot)
        indexes = range(group.plan.workers)
        group.workers = [group.new_worker(index, self._snapshot, group.plan, low_priority=False) for index in indexes]
        processes = [group.control, *group.workers]
        for process in processes:
            process.start()
        for process in processes:
            gevent.wait([process.ready, process.refused, self._stop], count=1)
            if process.refused.is_set():
                self._fail(process.refusal)
            process.accept()

    def _bind(self) -> None:
        cpu_affinity.bind(self._group.plan.rest or self._allowed)

    def _fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence
        self._stop.set()

    # -- stopping ---------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """End the workers, then control, then kill the processes that outlive their bound."""
        if self._watcher is not None:
            self._watcher.kill(timeout=HURRY_S)
        self._reloader.stop(HURRY_S)
        self._group.end_all(self._reloader.settings.stop_timeout_s + GRACE_S, CONTROL_STOP_S)
        self._reloader.close()
        self.scoreboard.close()
        self.listener.close()
        self._lock.release()


def _for_children(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for all generations of children: this one, a token key, and the talk page's key.

    The token key outlives a change of the auth token: a stream may reach another generation than the webhook that announced it.
    """
    managers = ("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET")  # meant for this process alone
    children = {name: value for name, value in environ.items() if not name.startswith(managers)}
    own = config.secrets
    keys = {"SUBMILLI_TOKEN_KEY": own.token_key or own.twilio_auth_token or secrets.token_hex(32)}
    if not config.signed:
        keys["SUBMILLI_TALK_KEY"] = own.talk_key or secrets.token_hex(16)
    return {**children, **keys}
