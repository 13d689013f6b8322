"""Supervisor: starts, watches, reloads and stops one control process and N media workers.

Constructing binds the public listening socket (or takes systemd's) and locks `var_dir`. `run` starts control and the workers, which
inherit the socket, and keeps every process running until `stop`. During the start, a child that exits with a code >= 0 ends the
start. Later, any process that ends is restarted after a wait that doubles while it keeps dying, and a process whose loop hangs is
killed, hence restarted. `reload` loads new code and configuration (`gw.supervise.reload`). `stop` drains the workers, stops
control, and kills what is left. Every wait is bounded; a second `stop` ends calls immediately.

The supervisor does nothing else: no Twilio, no database, no metrics page. A reload does not replace its own code.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gevent
from gevent.event import Event

from gw.config import Config
from gw.scoreboard import ReloadReport, Scoreboard
from gw.supervise import cpu_affinity, sockets
from gw.supervise.config_snapshot import RolloverError, Snapshot, Wanted
from gw.supervise.process_group import GRACE_S, HURRY_S, Crew
from gw.supervise.reload import CONTROL_STOP_S, Reloading
from gw.supervise.sockets import StartError

__all__ = ["StartError", "Supervisor"]

log = logging.getLogger("gw.supervise.supervisor")


class Supervisor:
    """One gateway. `command` starts the gateway's own command line; children get the configuration and a subcommand added."""

    def __init__(
        self,
        config: Config,
        command: Sequence[str],
        *,
        config_path: Path | None = None,
        environ: Mapping[str, str] | None = None,
        on_ready: Callable[[Supervisor], None] | None = None,
        on_look: Callable[[list[str]], None] | None = None,
        on_report: Callable[[ReloadReport], None] | None = None,
    ) -> None:
        """Bind. `on_look` is told each second, once all is ready, the processes whose loop stands still: a service manager's
        watchdog is fed there. `on_report` is told each step of a reload. Raises StartError when the port is taken or another
        gateway uses the same var_dir."""
        environ = os.environ if environ is None else environ
        self.config = config
        self._on_ready = on_ready
        self._on_look = on_look
        var_dir = Path(config.ops.var_dir)
        self._lock = sockets.lock(var_dir)
        try:
            if self._lock.unclean:
                sockets.take_over(var_dir / "bus.sock")
            patience_s = sockets.PORT_FREE_S if self._lock.unclean else 0.0
            self.listener = sockets.public_socket(
                config.server.listen, environ, patience_s=patience_s, loopback_only=not config.signed
            )
            self._scoreboard = Scoreboard.create()
            snapshot = Snapshot(config_path)
        except (RolloverError, OSError) as error:
            self._lock.release()
            raise StartError(str(error)) from None
        except BaseException:
            self._lock.release()
            raise
        self.environ = _for_children(config, environ)
        self._allowed = cpu_affinity.allowed_cores()
        server = config.server
        self._crew = Crew(
            command,
            self.environ,
            self._scoreboard,
            self.listener.fileno(),
            cpu_affinity.plan(server.workers, server.pin, self._allowed),
            self._allowed,
        )
        self._reloading = Reloading(
            self._crew,
            Wanted(
                listen=server.listen,
                workers=server.workers,
                pin=server.pin,
                stop_timeout_s=server.stop_timeout_s,
                reload_timeout_s=server.reload_timeout_s,
                var_dir=config.ops.var_dir,
            ),
            snapshot,
            config_path=config_path,
            allowed=self._allowed,
            on_plan=self._bind,
            on_report=on_report,
        )
        self._snapshot = snapshot
        self._stop = Event()
        self._up = False
        self._failure = ""
        self._looker: gevent.Greenlet[..., None] | None = None

    @property
    def worker_count(self) -> int:
        return self._crew.plan.workers

    @property
    def address(self) -> tuple[str, int]:
        """Where Twilio's webhooks and media sockets arrive; the port the kernel chose when the configured one is 0."""
        name = self.listener.getsockname()
        return name[0], name[1]

    @property
    def stopping(self) -> bool:
        """Whether `stop` was asked for, or the start failed."""
        return self._stop.is_set()

    @property
    def stop_bound_s(self) -> float:
        """How long a stop may take: the drain, then every process's last words, and the wait for those that were killed."""
        return self._reloading.wanted.stop_timeout_s + GRACE_S + CONTROL_STOP_S + 2 * (HURRY_S + GRACE_S) + 3 * HURRY_S

    @property
    def scoreboard(self) -> Scoreboard:
        """What all processes know of each other."""
        return self._scoreboard

    def run(self) -> None:
        """Serve until `stop`. Raises StartError when a child refuses to start."""
        try:
            self._start()
            if not self._stop.is_set():
                self._up = True
                self._looker = gevent.spawn(self._crew.watch, self._look)
                self._looker.link_exception(lambda died: self._fail(f"the supervisor itself failed: {died.exception!r}"))
                log.info("ready: control and %d worker(s)", self.worker_count)
                if self._on_ready is not None:
                    self._on_ready(self)
            self._stop.wait()
        finally:
            self._shut_down()
        if self._failure:
            raise StartError(self._failure)

    def stop(self) -> None:
        """Ask `run` to end: drain, then leave. Asked again, it no longer waits for calls."""
        if self._stop.is_set():
            self._crew.hurry.set()
        self._stop.set()

    def reload(self) -> None:
        """Ask for a new generation. What becomes of it stands in the scoreboard's report; asked during one, nothing more happens."""
        if self._stop.is_set() or self._reloading.is_running:
            log.warning("a reload was asked for while the gateway stops or reloads: it does not happen")
            return
        self._reloading.start(is_up=self._up)

    def pids(self) -> dict[str, int]:
        """The children that take calls now, and control, by name."""
        return self._crew.pids()

    # -- starting ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Fill the seats and wait until each is ready, the start failed or was called off."""
        if self._stop.is_set():
            return
        self._bind()
        crew = self._crew
        crew.control = crew.seat_for_control(self._snapshot)
        indexes = range(crew.plan.workers)
        crew.workers = [crew.seat_for_worker(index, self._snapshot, crew.plan, behind=False) for index in indexes]
        seats = [crew.control, *crew.workers]
        for seat in seats:
            seat.start()
        for seat in seats:
            gevent.wait([seat.ready, seat.refused, self._stop], count=1)
            if seat.refused.is_set():
                self._fail(seat.why)
            seat.accept()

    def _bind(self) -> None:
        cpu_affinity.bind(self._crew.plan.rest or self._allowed)

    def _fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence
        self._stop.set()

    def _look(self, still: list[str]) -> None:
        if self._on_look is not None:
            self._on_look(still)

    # -- stopping ---------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Workers first, so that control still takes their last events; then control; kill whatever outlives its bound."""
        if self._looker is not None:
            self._looker.kill(timeout=HURRY_S)
        self._reloading.stop(HURRY_S)
        self._crew.end_all(self._reloading.wanted.stop_timeout_s + GRACE_S, CONTROL_STOP_S)
        self._reloading.close()
        self._scoreboard.close()
        self.listener.close()
        self._lock.release()


def _for_children(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The children's environment: the same, and one token key for all of them where nobody set one."""
    managers = ("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET")  # said to this process alone
    children = {name: value for name, value in environ.items() if not name.startswith(managers)}
    if not config.secrets.token_key and not config.secrets.twilio_auth_token:
        children["SUBMILLI_TOKEN_KEY"] = secrets.token_hex(32)
    return children
