"""Keeps the gateway's processes: one control process and N media workers, restarted when they die, rolled over, stopped in order.

Construct binds: the public listening socket (or systemd's) and the lock on `var_dir`. `run` starts control and the workers with
the socket inherited, and keeps every seat filled until `stop`. At the very start a child that says no (a positive exit code)
ends the start; later whatever dies is started again, after a wait that doubles. A process whose loop stands still is killed, and
so started again. `reload` starts a new generation of workers with the code and the configuration file as they are now; only when
all of it is ready does the former one let go of the listening socket, to end with its last call, and control is replaced. `stop`
tells the workers to drain, then control to finish, then kills what is left; every wait is bounded, and a second `stop` hurries.

Never does more: no Twilio, no database, no metrics page. Its own code is the one thing a reload does not replace.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event

from gw import cores, listening
from gw.board import Board, BoardError, Report
from gw.config import Config
from gw.listening import StartError
from gw.process import HURRY, LEAVE
from gw.rollover import RolloverError, Snapshot, Wanted, check
from gw.seat import READY_S, Seat

__all__ = ["StartError", "Supervisor"]

log = logging.getLogger("gw.supervisor")

#: How long control may take to hand its spool to the disk and go.
CONTROL_STOP_S: Final = 10.0
#: On top of the drain time: a worker closes its streams, answers what Twilio asks then, hands over its last events and leaves.
GRACE_S: Final = 10.0
#: The same, for all of it, when the stop is in a hurry.
HURRY_S: Final = 4.0
#: How often every process's loop is looked at.
LOOK_S: Final = 1.0
#: A loop that has not turned for so long is told to whoever watches; its process is killed after HANG_S. A worker's longest
#: lawful hold is a millisecond, control's some tens.
STILL_S: Final = 3.0
HANG_S: Final = 10.0
#: Former generations that may drain at once: a worker's pages are numbered, and each keeps its memory.
MAX_LEAVING: Final = 8


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
        on_report: Callable[[Report], None] | None = None,
    ) -> None:
        """Bind. `on_look` is told each second, once all is ready, the processes whose loop stands still: a service manager's
        watchdog is fed there. `on_report` is told each step of a reload. Raises StartError when the port is taken or another
        gateway uses the same var_dir."""
        environ = os.environ if environ is None else environ
        self.config = config
        self._config_path = config_path
        self._command = list(command)
        self._on_ready = on_ready
        self._on_look = on_look
        self._on_report = on_report
        var_dir = Path(config.ops.var_dir)
        self._lock = listening.lock(var_dir)
        try:
            if self._lock.unclean:
                listening.take_over(var_dir / "bus.sock")
            patience_s = listening.PORT_FREE_S if self._lock.unclean else 0.0
            self.listener = listening.public_socket(
                config.server.listen, environ, patience_s=patience_s, loopback_only=not config.signed
            )
            self._board = Board.create()
            self._snapshots = [Snapshot(config_path)]
        except (RolloverError, OSError) as error:
            self._lock.release()
            raise StartError(str(error)) from None
        except BaseException:
            self._lock.release()
            raise
        self.environ = _for_children(config, environ)
        self._allowed = cores.allowed_cores()
        self._wanted = Wanted(
            listen=config.server.listen,
            workers=config.server.workers,
            pin=config.server.pin,
            drain_s=config.server.drain_s,
            drain_timeout_s=config.server.drain_timeout_s,
            var_dir=config.ops.var_dir,
        )
        self._plan = cores.plan(self._wanted.workers, self._wanted.pin, self._allowed)
        self._stop = Event()
        self._hurry = Event()
        self._up = False
        self._failure = ""
        self._reports = 0
        self._roller: gevent.Greenlet[..., None] | None = None
        self._looker: gevent.Greenlet[..., None] | None = None
        self._control: Seat | None = None
        self._workers: list[Seat] = []  # those that take calls
        self._seats: list[Seat] = []  # workers, also those on trial and those that leave

    @property
    def worker_count(self) -> int:
        return self._plan.workers

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
        return self._wanted.drain_s + GRACE_S + CONTROL_STOP_S + 2 * (HURRY_S + GRACE_S) + HURRY_S

    @property
    def board(self) -> Board:
        """What all processes know of each other."""
        return self._board

    def run(self) -> None:
        """Serve until `stop`. Raises StartError when a child refuses to start."""
        try:
            self._start()
            if not self._stop.is_set():
                self._up = True
                self._looker = gevent.spawn(self._look)
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
            self._hurry.set()
        self._stop.set()

    def reload(self) -> None:
        """Ask for a new generation. What becomes of it stands in the board's report; asked during one, nothing more happens."""
        if self._stop.is_set() or (self._roller is not None and not self._roller.dead):
            log.warning("a reload was asked for while the gateway stops or reloads: it does not happen")
            return
        self._reports += 1
        if not self._up:
            self._tell("failed", "the start goes on", "the gateway is not up yet: try again in a moment")
            return
        self._tell("running", "the configuration is checked")
        self._roller = gevent.spawn(self._roll)

    def pids(self) -> dict[str, int]:
        """The children that take calls now, and control, by name."""
        seats = [*([self._control] if self._control is not None else []), *self._workers]
        return {seat.name: seat.child.pid for seat in seats if seat.child is not None}

    # -- starting ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Fill the seats and wait until each is ready, the start failed or was called off."""
        if self._stop.is_set():
            return
        self._bind()
        snapshot = self._snapshots[0]
        self._control = self._control_seat(snapshot)
        self._workers = self._worker_seats(snapshot, self._plan)
        seats = [self._control, *self._workers]
        for seat in seats:
            seat.start()
        for seat in seats:
            gevent.wait([seat.ready, seat.refused, self._stop], count=1)
            if seat.refused.is_set():
                self._fail(seat.why)
            seat.accept()

    def _bind(self) -> None:
        try:
            cores.bind(self._plan.rest or self._allowed)
        except OSError as error:
            log.warning("no core can be bound: %s", error)

    def _control_seat(self, snapshot: Snapshot) -> Seat:
        row = self._board.take_row(-1, index=Board.CONTROL_ROW)
        return Seat(
            "control",
            [*self._command, *snapshot.options, "control", *self._handed(row.index), "--nice", str(self._plan.control_nice)],
            self.environ,
            row,
            snapshot,
            (self._board.fd,),
        )

    def _worker_seats(self, snapshot: Snapshot, plan: cores.Plan) -> list[Seat]:
        """The seats of a generation, on trial. Raises RolloverError when the board is full."""
        listen_fd = self.listener.fileno()
        seats = []
        for slot in range(plan.workers):
            try:
                row = self._board.take_row(slot)
            except BoardError as error:
                raise RolloverError(str(error)) from None
            argv = [*self._command, *snapshot.options, "worker", "--slot", str(slot), "--listen-fd", str(listen_fd)]
            argv += [*self._handed(row.index), "--core", str(plan.core_of(slot))]
            seats.append(Seat(f"worker {slot}", argv, self.environ, row, snapshot, (listen_fd, self._board.fd)))
            self._seats.append(seats[-1])
        return seats

    def _handed(self, row: int) -> list[str]:
        return ["--board-fd", str(self._board.fd), "--row", str(row)]

    def _fail(self, sentence: str) -> None:
        self._failure = self._failure or sentence
        self._stop.set()

    # -- looking ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Each second: is there a process whose loop stands still? Not judged while this one itself could not run."""
        judged_from_s = 0.0
        while True:
            before_s = time.monotonic()
            gevent.sleep(LOOK_S)
            now_s = time.monotonic()
            if now_s - before_s > LOOK_S + STILL_S:
                judged_from_s = now_s + HANG_S
            still = []
            for seat in [*([self._control] if self._control is not None else []), *self._seats]:
                still_s = seat.still_for_s()
                if still_s > STILL_S:
                    still.append(seat.name)
                if still_s > HANG_S and now_s >= judged_from_s:
                    log.error("%s hangs: its loop has not turned for %.0f s; it is killed", seat.name, still_s)
                    seat.send(signal.SIGKILL)
            self._seats = [seat for seat in self._seats if not seat.has_ended]
            if self._on_look is not None:
                self._on_look(still)

    # -- rolling over -----------------------------------------------------------------------------------------------------

    def _tell(self, state: str, step: str, problem: str = "") -> None:
        report = Report(self._reports, state, step, problem, time.time())
        self._board.tell(report)
        if self._on_report is not None:
            self._on_report(report)
        if problem:
            log.error("reload: %s: %s", step, problem)
        else:
            log.info("reload: %s", step)

    def _roll(self) -> None:
        """One reload, to its end or its failure. Raises nothing: the report says what became of it."""
        try:
            leaving = sum(1 for seat in self._seats if seat not in self._workers and not seat.has_ended)
            if leaving >= len(self._workers) * MAX_LEAVING:
                raise RolloverError(f"{leaving} workers of former generations still drain")
            snapshot = Snapshot(self._config_path)
            self._snapshots.append(snapshot)
            wanted = check(self._command, snapshot, self.environ, str(self._config_path or "the configuration"))
            for key in ("listen", "var_dir"):
                if getattr(wanted, key) != getattr(self._wanted, key):
                    table = "ops" if key == "var_dir" else "server"
                    raise RolloverError(f"{table}.{key} has changed: that needs a stop and a start of the gateway")
            self._replace_workers(snapshot, wanted)
            self._replace_control(snapshot)
        except RolloverError as error:
            self._tell("failed", "what served before serves on", str(error))
        except Exception as error:  # this greenlet's top
            log.exception("the reload failed")
            self._tell("failed", "what served before serves on", f"the supervisor itself failed: {error!r}")
        else:
            self._tell("done", f"{self.worker_count} worker(s) of the new generation take the calls")
        finally:
            self._close_unused()

    def _close_unused(self) -> None:
        """Let go of configurations that nobody will be started with any more."""
        kept = [seat.snapshot for seat in [self._control, *self._workers] if seat is not None]
        for snapshot in self._snapshots:
            if snapshot not in kept:
                snapshot.close()
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot in kept]

    def _replace_workers(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Start the new generation; the former one leaves when all of it is ready."""
        plan = cores.plan(wanted.workers, wanted.pin, self._allowed)
        seats = self._worker_seats(snapshot, plan)
        self._tell("running", f"{len(seats)} new worker(s) are started")
        for seat in seats:
            seat.start()
        with gevent.Timeout(READY_S + GRACE_S, False):  # type: ignore[arg-type]  # False: leave the block silently
            for seat in seats:
                gevent.wait([seat.ready, seat.refused], count=1)
        if not all(seat.ready.is_set() and not seat.has_ended for seat in seats):
            why = next((seat.why for seat in seats if seat.why), "a new worker was not ready in time")
            self._end(seats, HURRY_S)
            raise RolloverError(why)
        for seat in seats:
            seat.accept()
        former, self._workers = self._workers, seats
        bound_s = self._wanted.drain_timeout_s
        self._plan, self._wanted = plan, wanted
        self._bind()
        for seat in former:
            seat.tell_to_go(LEAVE)
        gevent.spawn(self._see_off, former, bound_s)

    def _see_off(self, seats: list[Seat], bound_s: float) -> None:
        """A former generation ends with its calls; one that does not within its bound is hurried, then killed."""
        gevent.joinall([seat.keeper for seat in seats if seat.keeper is not None], timeout=bound_s + GRACE_S)
        if not self._stop.is_set():
            for seat in seats:
                seat.send(HURRY)
            gevent.joinall([seat.keeper for seat in seats if seat.keeper is not None], timeout=HURRY_S)
            for seat in seats:
                seat.send(signal.SIGKILL)

    def _replace_control(self, snapshot: Snapshot) -> None:
        """The former control ends, the new one takes its sockets; where it refuses, one with the former configuration does.

        Raises: RolloverError where the new one refuses.
        """
        assert self._control is not None
        self._tell("running", "control is replaced")
        former = self._control.snapshot
        self._end([self._control], CONTROL_STOP_S)
        self._control = seat = self._control_seat(snapshot)
        seat.start()
        gevent.wait([seat.ready, seat.refused], timeout=READY_S + GRACE_S, count=1)
        seat.accept()
        if seat.ready.is_set():
            return
        self._end([seat], HURRY_S)
        self._control = self._control_seat(former)
        self._control.accept()  # it served before: it is started again and again
        self._control.start()
        why = seat.why or "the new control process was not ready in time"
        raise RolloverError(f"{why}; the workers are new, control runs with the former configuration")

    # -- stopping ---------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Workers first, so that control still takes their last events; then control; kill whatever outlives its bound."""
        gevent.killall([one for one in (self._looker, self._roller) if one is not None], timeout=HURRY_S)
        self._end(self._seats, self._wanted.drain_s + GRACE_S, hurry=True)
        if self._control is not None:
            self._end([self._control], CONTROL_STOP_S)
        for snapshot in self._snapshots:
            snapshot.close()
        self._board.close()
        self.listener.close()
        self._lock.release()

    def _end(self, seats: list[Seat], bound_s: float, *, hurry: bool = False) -> None:
        for seat in seats:
            seat.tell_to_go(signal.SIGTERM)
        keepers = [seat.keeper for seat in seats if seat.keeper is not None]
        if not self._wait_all(keepers, bound_s):
            for seat in seats:
                if hurry:
                    seat.send(HURRY)
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


def _for_children(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The children's environment: the same, and one token key for all of them where nobody set one."""
    managers = ("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET")  # said to this process alone
    children = {name: value for name, value in environ.items() if not name.startswith(managers)}
    if not config.secrets.token_key and not config.secrets.twilio_auth_token:
        children["SUBMILLI_TOKEN_KEY"] = secrets.token_hex(32)
    return children
