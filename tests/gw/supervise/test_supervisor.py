"""gw.supervise.supervisor, with real child processes: start, restart, reload and stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import gevent
import pytest

from gw.config import Config, Ops, Server, Twilio
from gw.scoreboard import ProcessState
from gw.supervise import cpu_affinity
from gw.supervise.child import STARTING_NICE, can_restore_nice
from gw.supervise.supervisor import StartError, Supervisor
from tests.gw.supervise import running as supervised
from tests.gw.supervise.running import config_in
from tests.timing import scaled

SCRIPT = [sys.executable, supervised.__file__]


class Running:
    """A supervisor in a greenlet, and the journal of its children."""

    def __init__(self, folder: Path, workers: int | Literal["auto"] = 1, stop_timeout_s: float = 5.0) -> None:
        self.journal = folder / "journal"
        self.ready = gevent.event.Event()
        self.checks: list[list[str]] = []  # the stalled processes, by each check of the heartbeats
        self.supervisor = Supervisor(
            config_in(folder, workers=workers, stop_timeout_s=stop_timeout_s),
            [*SCRIPT, str(self.journal)],
            on_ready=lambda _: self.ready.set(),
            on_check=self.checks.append,
        )
        self.greenlet = gevent.spawn(self.supervisor.run)

    def lines(self) -> list[tuple[str, int, str]]:
        """Return (child, pid, event), oldest first."""
        if not self.journal.exists():
            return []
        return [(name, int(pid), what) for name, pid, what in map(str.split, self.journal.read_text().splitlines())]

    def stop(self) -> None:
        self.supervisor.stop()
        self.greenlet.get(timeout=scaled(30))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(**options: float | str) -> Running:
        running.append(Running(tmp_path, **options))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for one in running:
        one.supervisor.stop()
        one.supervisor.stop()
        one.greenlet.join(timeout=scaled(30))


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + scaled(within_s)
    while not condition():
        assert time.monotonic() < deadline_s, "timed out"
        gevent.sleep(0.02)


def exists(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_process_starts_and_workers_stop_before_control(start: Callable[..., Running]) -> None:
    running = start(workers=2)
    assert running.ready.wait(scaled(30))
    pids = running.supervisor.pids()
    assert set(pids) == {"control", "worker 0", "worker 1"}
    running.stop()
    terms = [name for name, _, what in running.lines() if what == "term"]
    assert sorted(terms[:2]) == ["worker0", "worker1"], "workers stop first"
    assert terms[2:] == ["control"], "each is signalled once"
    assert not any(exists(pid) for pid in pids.values())


def test_children_are_in_separate_process_groups(start: Callable[..., Running]) -> None:
    running = start()
    assert running.ready.wait(scaled(30))
    assert all(os.getpgid(pid) == pid for pid in running.supervisor.pids().values())


@pytest.mark.parametrize("name", ["worker 0", "control"])
def test_a_process_that_dies_is_restarted(start: Callable[..., Running], name: str) -> None:
    running = start()
    assert running.ready.wait(scaled(30))
    first = running.supervisor.pids()
    os.kill(first[name], signal.SIGKILL)
    until(lambda: running.supervisor.pids().get(name) not in (None, first[name]))
    second = running.supervisor.pids()
    until(lambda: any(pid == second[name] and what == "ready" for _, pid, what in running.lines()))
    assert all(second[other] == first[other] for other in first if other != name), "the other processes are the same"


def test_a_child_that_fails_ends_the_start(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "refuse").write_text("worker0")
    running = start()
    with pytest.raises(StartError, match=r"worker 0 process did not start \(exit code 1\)"):
        running.greenlet.get(timeout=scaled(30))
    assert not running.ready.is_set()
    assert not any(exists(pid) for _, pid, _ in running.lines())


def test_stop_during_the_start(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "silent").write_text("control")
    running = start()
    until(lambda: "control" in running.supervisor.pids())
    pid = running.supervisor.pids()["control"]
    running.stop()
    assert not running.ready.is_set()
    assert not exists(pid)


def test_a_second_stop_hurries_and_then_kills_a_deaf_worker(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "deaf").write_text("worker0")
    running = start(stop_timeout_s=60.0)
    assert running.ready.wait(scaled(30))
    pid = running.supervisor.pids()["worker 0"]
    running.supervisor.stop()
    until(lambda: ("worker0", pid, "term") in running.lines())
    running.stop()
    assert ("worker0", pid, "hurry") in running.lines()
    assert not exists(pid)


def test_killing_the_supervisor_leaves_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    supervisor = subprocess.Popen([*SCRIPT, str(journal), "serve"])
    try:
        until(lambda: journal.exists() and journal.read_text().count("ready") == 2)
        pids = [int(line.split()[1]) for line in journal.read_text().splitlines()]
        assert all(exists(pid) for pid in pids)
    finally:
        supervisor.kill()
        supervisor.wait(10)
    until(lambda: not any(exists(pid) for pid in pids))


def test_an_orphan_exits_immediately(tmp_path: Path) -> None:
    """The supervisor may be killed between starting a child and the child's first instruction."""
    environ = {**os.environ, "SUBMILLI_PARENT_PID": "1"}
    orphan = subprocess.run([*SCRIPT, str(tmp_path / "journal"), "control", "--ready-fd", "1"], env=environ, timeout=scaled(30))
    assert orphan.returncode == 1
    assert not (tmp_path / "journal").exists()


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"cannot listen on {listen}: Address already in use; stop what uses"):
            Supervisor(config_in(tmp_path, listen=listen), ["never run"])
        Supervisor(config_in(tmp_path), ["never run"])  # the lock was released


def test_one_var_dir_serves_one_gateway(tmp_path: Path) -> None:
    first = Supervisor(config_in(tmp_path), ["never run"])
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    with pytest.raises(StartError, match=rf"a gateway \(pid {os.getpid()}\) runs in"):
        Supervisor(config_in(tmp_path), ["never run"])
    assert first.address[1] > 0


def test_a_var_dir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(StartError, match=r"ops\.var_dir"):
        Supervisor(config_in(tmp_path), ["never run"])


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1"):
        Supervisor(config_in(tmp_path, listen="192.0.2.1:0"), ["never run"])
    with pytest.raises(StartError, match="cannot be used"):
        Supervisor(config_in(tmp_path, listen="no-such-host.invalid:1"), ["never run"])


def test_all_generations_share_a_token_key(tmp_path: Path) -> None:
    made = Supervisor(config_in(tmp_path / "a"), ["x"], environ={"LISTEN_FDS": "0", "NOTIFY_SOCKET": "x"}).environ
    assert len(made["SUBMILLI_TOKEN_KEY"]) == 64
    assert "LISTEN_FDS" not in made and "NOTIFY_SOCKET" not in made
    kept = Config(ops=Ops(var_dir=str(tmp_path / "b")), server=Server(listen="127.0.0.1:0"))
    kept = type(kept)(ops=kept.ops, server=kept.server, secrets=type(kept.secrets)(twilio_auth_token="t"))
    assert Supervisor(kept, ["x"], environ={}).environ["SUBMILLI_TOKEN_KEY"] == "t", "also after a restart of the gateway"


def test_the_talk_page_has_a_new_key_at_each_start_and_none_with_credentials(tmp_path: Path) -> None:
    first, second = (Supervisor(config_in(tmp_path / name), ["x"], environ={}) for name in "ab")
    keys = [one.environ["SUBMILLI_TALK_KEY"] for one in (first, second)]
    assert len(keys[0]) == 32 and keys[0] != keys[1]
    assert first.talk_url == f"http://127.0.0.1:{first.address[1]}/talk?key={keys[0]}"
    config = config_in(tmp_path / "c")
    secrets = type(config.secrets)(twilio_auth_token="t")
    signed = Config(ops=config.ops, server=config.server, twilio=Twilio(account_sid="AC1"), secrets=secrets)
    assert Supervisor(signed, ["x"], environ={"SUBMILLI_TALK_KEY": "k"}).talk_url == ""


def test_a_socket_from_systemd_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        monkeypatch.setattr("gw.supervise.sockets.SYSTEMD_FIRST_FD", os.dup(passed.fileno()))
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    supervisor = Supervisor(config_in(tmp_path, listen="127.0.0.1:1"), ["x"], environ=environ)
    assert supervisor.address[1] == port


@pytest.mark.parametrize(
    ("host", "listens", "count", "error"),
    [
        ("127.0.0.1", True, "2", "systemd passed 2 sockets"),
        ("127.0.0.1", False, "1", "takes no TCP connections"),
        ("0.0.0.0", True, "1", "callers are not authenticated"),
        ("", True, "1", "not a socket"),
    ],
)
def test_a_socket_from_systemd_that_cannot_serve_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, listens: bool, count: str, error: str
) -> None:
    with socket.socket() as passed, (tmp_path / "file").open("w") as file:
        if host:
            passed.bind((host, 0))
        if listens:
            passed.listen()
        monkeypatch.setattr("gw.supervise.sockets.SYSTEMD_FIRST_FD", os.dup((passed if host else file).fileno()))
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(StartError, match=error):
        Supervisor(config_in(tmp_path), ["x"], environ=environ)


def test_a_new_worker_has_low_priority_until_it_is_ready(start: Callable[..., Running], tmp_path: Path) -> None:
    """Without the right to restore the niceness, the supervisor never raises it."""
    running = start()
    assert running.ready.wait(scaled(30))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in running.supervisor.pids().values()} == {own}
    (tmp_path / "silent").write_text("worker0")
    running.supervisor.reload()
    until(lambda: [row.pid for row in running.supervisor.scoreboard.workers() if row.state == ProcessState.STARTING and row.pid])
    (pid,) = [row.pid for row in running.supervisor.scoreboard.workers() if row.state == ProcessState.STARTING]
    raised = min(own + STARTING_NICE, 19) if can_restore_nice() else own  # Linux's highest niceness
    until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == raised)


def test_a_worker_without_a_heartbeat_is_reported_and_killed(
    start: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("HEARTBEAT_CHECK_S", 0.05), ("STALLED_S", 1.0), ("HANG_S", 2.0)):
        monkeypatch.setattr(f"gw.supervise.process_group.{name}", seconds)
    (tmp_path / "ticks").write_text("worker0")
    running = start()
    assert running.ready.wait(scaled(30))
    first = running.supervisor.pids()
    until(lambda: running.checks)
    assert all(stalled == [] for stalled in running.checks), "its heartbeat is fresh"
    os.kill(first["worker 0"], signal.SIGSTOP)
    until(lambda: running.supervisor.pids().get("worker 0") not in (None, first["worker 0"]))
    assert ["worker 0"] in running.checks
    assert running.supervisor.pids()["control"] == first["control"], "a process that never sent a heartbeat is not judged"


def test_the_scoreboard_counts_a_crash_loop(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start()
    assert running.ready.wait(scaled(30))
    (tmp_path / "refuse").write_text("worker0")
    os.kill(running.supervisor.pids()["worker 0"], signal.SIGKILL)
    row = next(running.supervisor.scoreboard.workers())
    until(lambda: row.failures >= 2)
    (tmp_path / "refuse").unlink()
    until(lambda: row.state == ProcessState.UP)
    assert row.failures >= 2, "reset only after a while of service"


def test_a_reload_replaces_every_process(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(workers=2)
    assert running.ready.wait(scaled(30))
    before = running.supervisor.pids()
    running.supervisor.reload()
    until(lambda: running.supervisor.scoreboard.report.state == "done")
    assert 0.0 < running.supervisor.scoreboard.report.reloaded_at <= time.time()
    after = running.supervisor.pids()
    assert set(after) == set(before)
    assert set(after.values()).isdisjoint(before.values())
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in after.values()} == {os.getpriority(os.PRIO_PROCESS, 0)}
    until(lambda: not any(exists(pid) for pid in before.values()))
    said = [(name, what) for name, pid, what in running.lines() if pid in before.values() and what != "ready"]
    assert sorted(said) == [("control", "leave"), ("worker0", "leave"), ("worker1", "leave")]


def test_a_reload_to_unbound_workers_gives_them_all_cores(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Children inherit the supervisor's cores, which the former plan may have reduced to one."""
    here = cpu_affinity.allowed_cores()
    machine = [here[0], 1021, 1022]  # at least three
    monkeypatch.setattr(cpu_affinity, "allowed_cores", lambda: machine)
    try:
        running = start(workers="auto")
        assert running.ready.wait(scaled(30))
        assert os.sched_getaffinity(0) == {here[0]}
        assert _placed(running) == {"worker 0": ("1021", False), "worker 1": ("1022", False)}
        steps: list[str] = []
        running.supervisor._reloader._on_report = lambda report: steps.append(report.step)
        running.supervisor.reload()  # to a configuration with two workers
        until(lambda: running.supervisor.scoreboard.report.state == "done")
        every = ",".join(map(str, machine))
        assert _placed(running) == {"worker 0": (every, True), "worker 1": (every, True)}
        assert steps[1:3] == ["starting new worker 1 of 2", "starting new worker 2 of 2"], "each start is a step"
    finally:
        cpu_affinity.bind(here)


def _placed(running: Running) -> dict[str, tuple[str, bool]]:
    """Return the --core and --low-priority options of each worker."""
    told = {}
    for name, pid in running.supervisor.pids().items():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if name != "control":
            told[name] = words[words.index("--core") + 1], "--low-priority" in words
    return told


@pytest.mark.parametrize(
    ("order", "name", "why", "replaced"),
    [
        ("refuse", "worker1", "worker 1 process did not start", set()),
        ("refuse", "control", "control runs with the former configuration", {"worker 0", "worker 1"}),
        ("bad", "config", "media.lead is unknown", set()),
        ("mute", "config", "the new code cannot check", set()),
        ("moved", "config", "server.listen has changed", set()),
        ("taken", "control", "the port is in use", set()),
    ],
)
def test_a_failed_reload_changes_as_little_as_possible(
    start: Callable[..., Running], tmp_path: Path, order: str, name: str, why: str, replaced: set[str]
) -> None:
    running = start(workers=2)
    assert running.ready.wait(scaled(30))
    before = running.supervisor.pids()
    (tmp_path / order).write_text(name)
    running.supervisor.reload()
    until(lambda: running.supervisor.scoreboard.report.state == "failed")
    (tmp_path / order).unlink()
    assert why in running.supervisor.scoreboard.report.problem
    until(lambda: len(running.supervisor.pids()) == 3)
    after = running.supervisor.pids()
    assert {one for one in after if one.startswith("worker") and after[one] != before[one]} == replaced
    assert all(exists(pid) for pid in after.values())


@pytest.mark.parametrize(("order", "state", "problem"), [("", "done", ""), ("taken", "failed", "the port is in use")])
def test_a_check_replaces_nothing_and_counts_as_no_reload(
    start: Callable[..., Running], tmp_path: Path, order: str, state: str, problem: str
) -> None:
    reported: list[str] = []
    running = start(workers=2)
    running.supervisor._reloader._on_report = lambda report: reported.append(report.state)
    assert running.ready.wait(scaled(30))
    before = running.supervisor.pids()
    if order:
        (tmp_path / order).write_text("control")
    running.supervisor.reload(is_check=True)
    board = running.supervisor.scoreboard
    until(lambda: board.report.state in ("done", "failed"))
    assert (board.report.state, board.report.problem, board.report.has_failed) == (state, problem, False)
    assert running.supervisor.pids() == before
    assert reported == [], "the service manager sees no reload"
    (tmp_path / "bad").write_text("config")
    running.supervisor.reload()
    until(lambda: board.report.has_failed)
    (tmp_path / "bad").unlink()
    running.supervisor.reload(is_check=True)
    until(lambda: board.report.n == 3 and board.report.state in ("done", "failed"))
    assert board.report.has_failed, "the last reload failed all the same"
    assert board.report.reloaded_at == 0.0, "neither took effect"


def test_after_a_failed_reload_new_workers_drain_their_calls(start: Callable[..., Running], tmp_path: Path) -> None:
    """A new worker that was ready may have calls: it gets LEAVE, not SIGTERM."""
    running = start(workers=2)
    assert running.ready.wait(scaled(30))
    before = set(running.supervisor.pids().values())
    (tmp_path / "refuse").write_text("worker1")
    running.supervisor.reload()
    until(lambda: running.supervisor.scoreboard.report.state == "failed")
    until(lambda: ("worker0", "leave") in [(name, what) for name, pid, what in running.lines() if pid not in before])
    said = [(name, what) for name, pid, what in running.lines() if pid not in before]
    assert said == [("worker0", "ready"), ("worker0", "leave")], "the second started after the first was ready, and failed"
    until(lambda: [row.worker for row in running.supervisor.scoreboard.workers()] == [0, 1])


def test_a_reload_during_the_start_is_refused(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "silent").write_text("control")
    running = start()
    until(running.supervisor.pids)
    running.supervisor.reload()
    assert running.supervisor.scoreboard.report.problem.startswith("the gateway is not up yet")
