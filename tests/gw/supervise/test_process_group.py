"""gw.supervise.process_group: the processes' command lines, and a bounded end, with real child processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import gevent
import pytest

from gw.config import ENVIRONMENT, SECRETS_OF
from gw.config.load import variables_of
from gw.scoreboard import ROWS, ProcessState, Scoreboard
from gw.supervise import process_group
from gw.supervise.config_snapshot import ReloadError, Snapshot
from gw.supervise.cpu_affinity import Plan
from gw.supervise.process_group import ProcessGroup
from tests.timing import scaled

#: Becomes ready and ignores SIGTERM, as a worker with a call does.
CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(int(sys.argv[-1]), b"1")
time.sleep(60)
"""
LISTEN_FD = 0


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    scoreboard = Scoreboard.create()
    plan = Plan(2, cores=(1, 2), rest=(0,), control_nice=5)
    group = ProcessGroup([sys.executable, "-c", CHILD], scoreboard, LISTEN_FD, plan, [0, 1, 2])
    yield group
    group.hurry.set()
    group.end_all(0.1, 0.1)
    scoreboard.close()


def test_a_worker_gets_its_index_sockets_and_core(group: ProcessGroup) -> None:
    worker = group.new_worker(1, Snapshot(None, os.environ), group.plan, low_priority=False)
    words = list(worker._argv)
    assert words[3:8] == ["worker", "--index", "1", "--listen-fd", str(LISTEN_FD)]
    assert words[-2:] == ["--core", "2"]
    unbound = group.new_worker(0, Snapshot(None, os.environ), Plan(1, (), ()), low_priority=False)
    assert list(unbound._argv)[-2:] == ["--core", "0,1,2"], "a child would inherit the supervisor's cores"
    assert [row.worker for row in group.scoreboard.workers()] == [1, 0]


def test_control_gets_its_row_and_niceness(group: ProcessGroup) -> None:
    control = group.new_control(Snapshot(None, os.environ))
    assert control.row.index == Scoreboard.CONTROL_ROW
    assert list(control._argv)[-4:] == ["--row", "0", "--nice", "5"]


def test_a_child_gets_only_its_own_secrets(group: ProcessGroup) -> None:
    snapshot = Snapshot(None, {"PATH": "/bin", **{variable: field for field, variable in ENVIRONMENT.items()}})
    processes = {
        "control": group.new_control(snapshot),
        "worker": group.new_worker(0, snapshot, group.plan, low_priority=False),
    }
    for role, process in processes.items():
        assert process._environ == {"PATH": "/bin", **{ENVIRONMENT[field]: field for field in SECRETS_OF[role]}}
    assert "SUBMILLI_DB_PASSWORD" not in processes["worker"]._environ
    assert "OPENAI_API_KEY" not in processes["control"]._environ


def test_a_child_gets_only_its_own_secrets_of_an_account(group: ProcessGroup) -> None:
    snapshot = Snapshot(None, dict.fromkeys(variables_of("support").values(), "value"))
    control, worker = group.new_control(snapshot), group.new_worker(0, snapshot, group.plan, low_priority=False)
    assert list(control._environ) == ["TWILIO_AUTH_TOKEN_SUPPORT"]
    assert set(worker._environ) == set(variables_of("support").values())


def test_a_full_scoreboard_refuses_a_worker(group: ProcessGroup) -> None:
    for index in range(ROWS - 1):
        group.scoreboard.take_row(index)
    with pytest.raises(ReloadError, match="wait for former workers to end"):
        group.new_worker(0, Snapshot(None, os.environ), group.plan, low_priority=True)


def test_a_worker_that_outlives_its_bounds_is_killed(group: ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "HURRY_S", 0.1)
    monkeypatch.setattr(process_group, "HURRY", signal.SIGCONT)  # this child ends by the default action of HURRY
    worker = group.new_worker(0, Snapshot(None, os.environ), group.plan, low_priority=False)
    group.workers = [worker]
    worker.start()
    worker.accept()
    assert worker.ready.wait(scaled(15.0))
    assert worker.child is not None
    child = worker.child
    assert group.pids() == {"worker 0": child.pid}
    assert group.snapshots() == [worker.snapshot]
    with gevent.Timeout(scaled(15.0)):
        group.end([worker], 0.1, may_hurry=True)
    assert child.wait() == -signal.SIGKILL
    assert worker.has_ended
    assert worker.row.state == ProcessState.EMPTY


def test_former_workers_are_counted_until_they_end(group: ProcessGroup) -> None:
    worker = group.new_worker(0, Snapshot(None, os.environ), group.plan, low_priority=False)
    worker.start()
    assert worker.ready.wait(scaled(15.0))
    assert group.former() == 1
    worker.begin_stop(signal.SIGKILL)
    assert worker.greenlet is not None
    worker.greenlet.join(scaled(15.0))
    assert group.former() == 0
