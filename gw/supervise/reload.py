"""Reload: replaces all workers and control with processes of the present code, configuration and secrets.

The configuration is checked, and control and a worker are constructed on trial beside the present ones. Then the new workers
start, one after another. When all are ready, the former ones close the listening socket and end with their last call, and control
is replaced. A failure before that changes nothing. A check alone ends after the trial. Each step and the outcome are published on
the scoreboard. Every wait is bounded. One reload at a time.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import gevent

from gw.scoreboard import ReloadReport
from gw.supervise import cpu_affinity
from gw.supervise.child import HURRY, LEAVE
from gw.supervise.config_snapshot import ReloadError, Snapshot, SupervisorSettings, check, try_out
from gw.supervise.process import READY_S, SupervisedProcess
from gw.supervise.process_group import GRACE_S, HURRY_S, ProcessGroup

log = logging.getLogger(__name__)

#: Bound on the stop of control, which flushes its spool to the disk.
CONTROL_STOP_S: Final = 10.0
#: Former generations that may drain at the same time: metric pages are numbered, and each worker keeps its memory.
MAX_LEAVING: Final = 8


class Reloader:
    """Runs reloads. `settings`: those of the current generation."""

    def __init__(
        self,
        group: ProcessGroup,
        settings: SupervisorSettings,
        snapshot: Snapshot,
        *,
        config_path: Path | None,
        environ: Mapping[str, str],
        allowed: list[int],
        on_plan: Callable[[], None],
        on_report: Callable[[ReloadReport], None] | None,
    ) -> None:
        """`environ`: of the start; each reload reads its credentials. `allowed`: the cores available. `on_plan` is called after
        the plan of cores has changed."""
        self.settings = settings
        self._of_control = settings  # of the running control, which may be of the former generation
        self._group = group
        self._snapshots = [snapshot]
        self._config_path = config_path
        self._environ = environ
        self._allowed = allowed
        self._on_plan = on_plan
        self._on_report = on_report
        self._reports = 0
        self._has_failed = False
        self._reloaded_at = 0.0
        self._is_check = False
        self._former: Snapshot | None = None  # control's configuration, while control is being replaced
        self._greenlet: gevent.Greenlet[..., None] | None = None
        self._stopped = False

    @property
    def is_running(self) -> bool:
        """True during a reload."""
        return self._greenlet is not None and not self._greenlet.dead

    def start(self, *, is_up: bool, is_check: bool) -> None:
        """Start a reload, or its check alone; the scoreboard's report has the outcome."""
        self._reports += 1
        self._is_check = is_check
        if not is_up:
            self._report("failed", "the start continues", "the gateway is not up yet: try again in a moment")
            return
        self._report("running", "checking the configuration")
        self._greenlet = gevent.spawn(self._run)

    def stop(self, timeout_s: float) -> None:
        """Abort a running reload, for the gateway's stop.

        If control was being replaced, the former configuration's control is started again: the workers have last events for it.
        Three steps at most, each within `timeout_s`.
        """
        self._stopped = True
        if self._greenlet is not None:
            self._greenlet.kill(timeout=timeout_s)
        if self._former is not None:
            log.warning("the gateway stops while control is replaced: restarting control for the workers' last events")
            control = self._bring_back_control(self._former, timeout_s)
            control.ready.wait(timeout_s)

    def close(self) -> None:
        """Close all configurations, once no process will be started."""
        for snapshot in self._snapshots:
            snapshot.close()

    def _report(self, state: str, step: str, problem: str = "") -> None:
        if not self._is_check:
            self._has_failed = state == "failed"
            self._reloaded_at = time.time() if state == "done" else self._reloaded_at
        report = ReloadReport(self._reports, state, step, problem, time.time(), self._has_failed, self._reloaded_at)
        self._group.scoreboard.publish_report(report)
        if self._on_report is not None and not self._is_check:
            self._on_report(report)
        name = "check of a reload" if self._is_check else "reload"
        if problem:
            log.error("%s: %s: %s", name, step, problem)
        else:
            log.info("%s: %s", name, step)

    def _run(self) -> None:
        """Run one reload. Raises nothing: the report has the outcome."""
        try:
            leaving = self._group.former()
            if leaving >= len(self._group.workers) * MAX_LEAVING:
                raise ReloadError(f"{leaving} workers of former generations still drain")
            snapshot = Snapshot(self._config_path, self._environ)
            self._snapshots.append(snapshot)
            settings = self._judge(snapshot)
            if not self._is_check:
                self._replace_workers(snapshot, settings)
                self._replace_control(snapshot)
                self._of_control = settings
        except ReloadError as error:
            self._report("failed", "the present processes continue to serve", str(error))
        except Exception as error:  # the greenlet's top
            log.exception("the reload failed")
            self._report("failed", "the present processes continue to serve", f"the supervisor itself failed: {error!r}")
        else:
            workers = self._group.plan.workers
            taken = f"new calls go to {workers} new worker{'' if workers == 1 else 's'}"
            self._report("done", "a reload would start" if self._is_check else taken)
        finally:
            self._close_unused()

    def _judge(self, snapshot: Snapshot) -> SupervisorSettings:
        """Check the configuration, and construct control and a worker on trial at the same time.

        Each is a process that mainly imports, and a user waits for both. The check's problems come first: they name every key.
        Raises: ReloadError.
        """
        group = self._group
        trial = gevent.spawn(try_out, group.command, snapshot, group.scoreboard.fd, self._of_control)
        try:
            settings = check(group.command, snapshot, str(self._config_path or "the configuration"))
            for key in ("listen", "var_dir"):
                if getattr(settings, key) != getattr(self.settings, key):
                    table = "ops" if key == "var_dir" else "server"
                    raise ReloadError(f"{table}.{key} has changed: stop and start the gateway to apply it")
            problem = trial.get()
        finally:
            trial.kill()
        if problem:
            raise ReloadError(problem)
        return settings

    def _close_unused(self) -> None:
        """Close the configurations that no process will be started with."""
        kept = self._group.snapshots() + ([self._former] if self._former is not None else [])
        for snapshot in self._snapshots:
            if snapshot not in kept:
                snapshot.close()
        self._snapshots = [snapshot for snapshot in self._snapshots if snapshot in kept]

    def _replace_workers(self, snapshot: Snapshot, settings: SupervisorSettings) -> None:
        """Start the new workers, then make the former ones leave."""
        plan = cpu_affinity.plan(settings.workers, settings.pin, self._allowed)
        processes = self._start_workers(snapshot, plan)
        for process in processes:
            process.accept()
        former, self._group.workers = self._group.workers, processes
        bound_s = self.settings.reload_timeout_s
        self._group.plan, self.settings = plan, settings
        self._on_plan()
        for process in former:
            process.begin_stop(LEAVE)
        gevent.spawn(self._end_former, former, bound_s)

    def _start_workers(self, snapshot: Snapshot, plan: cpu_affinity.Plan) -> list[SupervisedProcess]:
        """Start the new workers one after another, at a low priority where the kernel allows it: calls continue beside them.

        Raises: ReloadError when one is not ready; the new workers before it end with the calls they took.
        """
        processes: list[SupervisedProcess] = []
        try:
            for index in range(plan.workers):
                self._report("running", f"starting new worker {index + 1} of {plan.workers}")
                processes.append(self._group.new_worker(index, snapshot, plan, low_priority=True))
                processes[-1].start()
                gevent.wait([processes[-1].ready, processes[-1].refused], timeout=READY_S + GRACE_S, count=1)
                if not all(process.ready.is_set() and not process.has_ended for process in processes):
                    raise ReloadError(
                        next((process.refusal for process in processes if process.refusal), "a new worker was not ready in time")
                    )
        except ReloadError:
            ready = [process for process in processes if process.ready.is_set()]
            for process in ready:
                process.begin_stop(LEAVE)
            gevent.spawn(self._end_former, ready, self.settings.reload_timeout_s)
            self._group.end([process for process in processes if process not in ready], HURRY_S)
            raise
        return processes

    def _end_former(self, processes: list[SupervisedProcess], bound_s: float) -> None:
        """Wait for a former generation to end with its calls; beyond the bound, hurry and then kill it."""
        gevent.joinall([process.greenlet for process in processes if process.greenlet is not None], timeout=bound_s + GRACE_S)
        if not self._stopped:
            for process in processes:
                process.send(HURRY)
            gevent.joinall([process.greenlet for process in processes if process.greenlet is not None], timeout=HURRY_S)
            for process in processes:
                process.send(signal.SIGKILL)

    def _replace_control(self, snapshot: Snapshot) -> None:
        """Stop control and start one with the new configuration; if that fails, one with the former configuration.

        Raises: ReloadError when the new control does not start.
        """
        group = self._group
        assert group.control is not None
        self._report("running", "replacing control")
        self._former = former = group.control.snapshot
        group.end([group.control], CONTROL_STOP_S, number=LEAVE)
        group.control = process = group.new_control(snapshot)
        process.start()
        gevent.wait([process.ready, process.refused], timeout=READY_S + GRACE_S, count=1)
        process.accept()
        if process.ready.is_set():
            self._former = None
            return
        self._bring_back_control(former, HURRY_S)
        why = process.refusal or "the new control process was not ready in time"
        raise ReloadError(f"{why}; the workers are new, control runs with the former configuration")

    def _bring_back_control(self, former: Snapshot, bound_s: float) -> SupervisedProcess:
        """Stop the present control within the bound and start one with the former configuration."""
        group = self._group
        assert group.control is not None
        group.end([group.control], bound_s)
        group.control = process = group.new_control(former)
        process.accept()  # no trial: this configuration has served before
        process.start()
        self._former = None
        return process
