"""gw.control.jobs.service on a real spool: each job is run as often as it may be, whatever dies, and each gets a result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event

from gw import bus
from gw.bounded import within
from gw.call.leave import Leave, encode_leave
from gw.control.calls.left_calls import LeftCalls
from gw.control.calls.registry import Call
from gw.control.jobs import lifecycle, service, table
from gw.control.jobs.lifecycle import Again, Ended, Job, Outcome
from gw.control.jobs.service import Jobs
from gw.control.spool import Spool, SpoolError
from gw.protocol.hooks.tool_call import CallFacts, ToolCall, encode_call
from metrics import declare
from metrics.page import Page
from tests.program import ROOT
from tests.timing import scaled

CALL = "CA1"
FACTS = CallFacts(sid=CALL, agent="a", direction="inbound", from_="", to="", started_at="")


def until(condition: Callable[[], object]) -> None:
    with within(scaled(20.0)):
        while not condition():
            gevent.sleep(0.005)


class Runner:
    """A handler that waits until it may end."""

    kind = "tool"
    limit_s = 30.0

    def __init__(self, *, runners: int = 2, capacity: int = 100, repeats: float | None = None) -> None:
        self.runners = runners
        self.capacity = capacity
        self.begun: list[tuple[str, int]] = []
        self.gate = Event()
        self.outcomes: list[Outcome | Exception] = []
        self._repeats = repeats

    def repeats(self, job: Job) -> float | None:
        return self._repeats

    def run(self, job: Job, attempt: int) -> Outcome:
        self.begun.append((job.id, attempt))
        self.gate.wait()
        outcome = self.outcomes.pop(0) if self.outcomes else Ended("done", "ok", f"{job.body} {attempt}")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool.db")
        self.page = Page.create(folder / "control.page")
        self.settled: list[bus.JobSettled] = []
        self.runner = Runner()
        self.jobs: Jobs | None = None
        self._n = 0

    def start(self, runner: Runner | None = None) -> Runner:
        self.runner = runner or self.runner
        self.jobs = Jobs(self.spool, self.page, [self.runner], settle=self.settled.append)
        self.jobs.start()
        return self.runner

    def stop(self) -> None:
        if self.jobs is not None:
            self.jobs.stop()
        self.jobs = None

    def want(self, *ids: str, kind: str = "tool", within_s: float = 60.0) -> None:
        """Accept jobs as the bus server does, in one commit."""
        assert self.jobs is not None
        deadline_ms = round(1000 * (time.time() + within_s))
        wanted = {
            n: self.jobs.of_event(bus.JobWanted(job_id, kind, CALL, deadline_ms, "{}"))
            for n, job_id in enumerate(ids, self._n + 1)
        }
        self._n += len(ids)
        self.jobs.on_accepted(self.spool.append("w", [], jobs=wanted))

    def rows(self, *ids: str) -> list[tuple[str, int]]:
        return [(job.state, job.attempts) for job in self.spool.transact(partial(table.find, ids=ids))]

    def results(self) -> dict[str, str]:
        return {settled.id: settled.outcome for settled in self.settled}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.runner.gate.set()
    made.stop()
    made.spool.close()
    made.page.close()


def test_a_job_is_claimed_on_disk_before_it_is_run_and_its_result_is_sent_and_kept(rig: Rig) -> None:
    runner = rig.start()
    rig.want("j1")
    until(lambda: runner.begun)
    assert rig.rows("j1") == [("claimed", 1)]
    assert rig.settled == []
    runner.gate.set()
    until(lambda: rig.rows("j1") == [("done", 1)])
    assert rig.settled == [bus.JobSettled("j1", CALL, "ok", "{} 1")]
    assert rig.jobs is not None
    assert rig.jobs.results(bus.JobsOpen(CALL, ["j1"])) == rig.settled


def test_no_more_runners_than_allowed_and_the_rest_in_sequence(rig: Rig) -> None:
    runner = rig.start()
    rig.want(*[f"j{n}" for n in range(5)])
    until(lambda: len(runner.begun) == 2)
    gevent.sleep(0.05)
    assert runner.begun == [("j0", 1), ("j1", 1)]
    runner.gate.set()
    until(lambda: len(rig.settled) == 5)
    assert [job_id for job_id, _ in runner.begun] == [f"j{n}" for n in range(5)]


def test_a_waiting_job_begins_when_all_runners_end_in_one_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "IDLE_S", 600.0)  # nothing else wakes the jobs
    runner = rig.start(Runner(runners=2))
    rig.want("j1", "j2", "j3", "j4", "j5")
    until(lambda: len(runner.begun) == 2)
    runner.gate.set()
    until(lambda: len(rig.settled) == 5)
    assert len(runner.begun) == 5


def test_a_job_sent_twice_is_run_once_and_its_result_is_sent_again(rig: Rig) -> None:
    runner = rig.start()
    rig.want("j1")
    rig.want("j1")
    until(lambda: runner.begun)
    runner.gate.set()
    until(lambda: rig.rows("j1") == [("done", 1)])
    rig.want("j1")
    assert rig.settled == [bus.JobSettled("j1", CALL, "ok", "{} 1")] * 2
    assert runner.begun == [("j1", 1)]


def test_a_cancelled_job_is_ended_or_not_run(rig: Rig) -> None:
    runner = rig.start(Runner(runners=1))
    jobs = rig.jobs
    assert jobs is not None
    rig.want("j1", "j2", "j3")
    until(lambda: runner.begun)
    jobs.cancel("j2")
    jobs.cancel("j1")
    until(lambda: rig.rows("j1", "j2") == [("failed", 1)] * 2)
    assert rig.results() == {"j1": "cancelled", "j2": "cancelled"}
    until(lambda: len(runner.begun) == 2)
    runner.gate.set()
    until(lambda: rig.results().get("j3") == "ok")
    assert runner.begun == [("j1", 1), ("j3", 1)]
    jobs.cancel("j3")
    for number in range(service.MAX_CANCELLED + 5):
        jobs.cancel(f"unknown {number}")
    assert len(jobs._cancelled) == service.MAX_CANCELLED
    assert jobs._requests == {}


def test_beyond_its_bounds_a_job_is_settled_immediately(rig: Rig) -> None:
    rig.start(Runner(runners=1, capacity=1))
    rig.want("a")
    until(lambda: rig.runner.begun)
    rig.want("b", "c")
    rig.want("d", kind="unknown")
    rig.want("e", within_s=-1.0)
    until(lambda: "e" in rig.results() or "d" in rig.results())
    assert rig.results() == {"c": "busy", "d": "refused", "e": "busy"}


def test_a_waiting_job_expires_while_every_runner_is_busy(rig: Rig) -> None:
    rig.start(Runner(runners=1))
    rig.want("a")
    until(lambda: rig.runner.begun)
    rig.want("b", within_s=0.1)
    until(lambda: rig.results() == {"b": "timeout"})
    assert rig.rows("b") == [("expired", 0)]


def test_a_handler_that_asks_for_another_attempt_gets_it(rig: Rig) -> None:
    runner = rig.start()
    runner.outcomes.append(Again(0.05))
    runner.gate.set()
    rig.want("j1")
    until(lambda: rig.settled)
    assert runner.begun == [("j1", 1), ("j1", 2)]
    assert rig.settled == [bus.JobSettled("j1", CALL, "ok", "{} 2")]


def _failing(failure: str) -> Runner:
    """A handler whose first attempt raises, or hangs."""
    runner = Runner()
    if failure == "raises":
        runner.outcomes.append(RuntimeError("on purpose"))
        runner.gate.set()
    else:
        runner.limit_s = 0.05
    return runner


@pytest.mark.parametrize("failure", ["raises", "hangs"])
def test_a_handler_that_fails_leaves_an_unclear_outcome(rig: Rig, failure: str, caplog: pytest.LogCaptureFixture) -> None:
    rig.start(_failing(failure))
    rig.want("j1")
    until(lambda: rig.rows("j1") == [("unknown", 1)])
    assert rig.results() == {"j1": "unknown_outcome"}
    assert "a job" in caplog.text


@pytest.mark.parametrize("failure", ["raises", "hangs"])
def test_an_event_whose_attempt_fails_here_is_sent_again(rig: Rig, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNCLEAR_S", 0.01)
    runner = _failing(failure)
    runner.kind = "event a"
    rig.start(runner)
    assert rig.jobs is not None
    rig.jobs.add(lifecycle.want("e1", "event a", CALL, "body", deadline_at=time.time() + 60, now=time.time()))
    until(lambda: len(runner.begun) >= 2)
    runner.gate.set()
    until(lambda: [state for state, _ in rig.rows("e1")] == ["done"])


def test_a_stop_leaves_unfinished_jobs_to_the_next_start(rig: Rig) -> None:
    rig.start(Runner(runners=1))
    rig.want("a", "b")
    until(lambda: rig.runner.begun)
    rig.stop()
    assert rig.rows("a", "b") == [("claimed", 1), ("wanted", 0)]
    runner = rig.start(Runner(repeats=5.0))
    runner.gate.set()
    until(lambda: len(rig.settled) == 2)
    assert sorted(runner.begun) == [("a", 2), ("b", 1)]


def test_an_interrupted_job_that_must_not_be_repeated_is_unknown(rig: Rig) -> None:
    rig.start()
    rig.want("a")
    until(lambda: rig.runner.begun)
    rig.stop()
    runner = rig.start(Runner())
    until(lambda: rig.results() == {"a": "unknown_outcome"})
    assert runner.begun == []
    assert rig.jobs is not None
    assert rig.jobs.results(bus.JobsOpen(CALL, ["a"])) == rig.settled


def test_an_end_that_was_not_written_before_a_stop_is_written_by_it(rig: Rig) -> None:
    runner = rig.start()
    rig.want("j1")
    until(lambda: runner.begun)
    assert rig.jobs is not None
    assert rig.jobs._greenlet is not None
    rig.jobs._greenlet.kill()
    runner.gate.set()
    until(lambda: rig.settled)
    rig.stop()
    assert rig.rows("j1") == [("done", 1)]


class Failing:
    """Work on the spool that fails before or after its commit, while switched on."""

    def __init__(self, spool: Spool, *, after: bool) -> None:
        self._transact = spool.transact
        self._after = after
        self.on = False
        self.failed = 0

    def __call__(self, work: Callable[[Any], Any]) -> Any:
        if not self.on:
            return self._transact(work)
        self.failed += 1
        if self._after:
            self._transact(work)
        raise SpoolError("on purpose")


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_a_failing_spool_costs_no_job_and_none_is_run_twice(rig: Rig, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(service, "RETRY_S", 0.01)
    failing = Failing(rig.spool, after=after)
    monkeypatch.setattr(rig.spool, "transact", failing)
    runner = rig.start()
    rig.want("a")
    jobs = rig.jobs
    assert jobs is not None
    until(lambda: runner.begun and not (jobs._offered or jobs._waiting or jobs._wake.is_set()))  # no turn is under way
    failing.on = True
    rig.want("b", "c")
    until(lambda: failing.failed > 2)
    assert runner.begun == [("a", 1), ("b", 1)], "b was claimed with its event, whose commit did not fail"
    runner.gate.set()
    until(lambda: rig.results() == {"a": "ok", "b": "ok"})
    failing.on = False
    until(lambda: rig.results().keys() == {"a", "b", "c"})
    assert len(rig.settled) == 3 or after, "results that a commit of unknown outcome had are sent again"
    assert sorted(runner.begun) == [("a", 1), ("b", 1), ("c", 1)]
    until(lambda: rig.rows("a", "b", "c") == [("done", 1)] * 3)


@pytest.mark.parametrize("after", [False, True], ids=["before the commit", "after the commit"])
def test_an_event_whose_commit_failed_costs_no_runner_and_its_job_is_run_once(rig: Rig, after: bool) -> None:
    runner = rig.start()
    rig.want("first")
    runner.gate.set()
    until(lambda: rig.rows("first") == [("done", 1)])
    assert rig.jobs is not None
    append = partial(rig.jobs.of_event, bus.JobWanted("unclear", "tool", CALL, round(1000 * (time.time() + 60)), "{}"))
    for n in range(2, 8):  # the worker sends the event again and again
        wanted = {n: append()}
        if after and n == 2:
            rig.spool.append("unclear", [], jobs=wanted)
        rig.jobs.on_doubt(["unclear"])
        if after:
            until(lambda: rig.rows("unclear") == [("done", 1)])
    if not after:
        rig.want("unclear")
    until(lambda: rig.results() == {"first": "ok", "unclear": "ok"})
    assert runner.begun == [("first", 1), ("unclear", 1)]
    runner.gate.clear()
    rig.want("x", "y", "z")
    until(lambda: len(runner.begun) == 4)
    until(lambda: rig.rows("x", "y", "z") == [("claimed", 1), ("claimed", 1), ("wanted", 0)])
    runner.gate.set()


def test_jobs_that_come_during_a_turn_and_with_it_use_no_runner_twice(rig: Rig) -> None:
    runner = rig.start()
    most = 0

    def want(name: str) -> None:
        for n in range(20):
            rig.want(f"{name}{n}")
            gevent.sleep(0.001 * (n % 3))

    runner.gate.set()
    greenlets = [gevent.spawn(want, name) for name in "abc"]
    while not all(one.ready() for one in greenlets):
        assert rig.jobs is not None
        most = max(most, len(rig.jobs._requests))
        gevent.sleep(0.001)  # `sleep(0)` in a loop keeps libev from looking at the threads
    gevent.joinall(greenlets, raise_error=True)
    until(lambda: len(rig.settled) == 60)
    assert most <= runner.runners
    assert sorted(runner.begun) == sorted((f"{name}{n}", 1) for name in "abc" for n in range(20))


def test_open_jobs_are_answered_if_settled_or_unknown(rig: Rig) -> None:
    runner = rig.start()
    rig.want("open", "too")
    until(lambda: len(runner.begun) == 2)
    assert rig.jobs is not None
    [unknown] = rig.jobs.results(bus.JobsOpen(CALL, ["open", "none"]))
    assert (unknown.id, unknown.outcome, json.loads(unknown.output)["error"]) == ("none", "unknown_outcome", "unknown_outcome")


def test_the_backlog_and_its_age_are_shown(rig: Rig) -> None:
    runner = rig.start()
    gauges = [rig.page.gauge(family) for family in (declare.HOOK_BACKLOG, declare.HOOK_OLDEST)]
    rig.want("a", "b", "c")
    until(lambda: gauges[0].value == 3)
    assert rig.jobs is not None
    until(lambda: rig.jobs is not None and rig.jobs.backlog().oldest_s > 0.0)
    runner.gate.set()
    until(lambda: rig.jobs is not None and rig.jobs.backlog() == (0, 0.0))
    until(lambda: [gauge.value for gauge in gauges] == [0.0, 0.0])
    cell = rig.page.histogram(declare.TOOL_SECONDS, outcome="ok")
    assert sum(cell.buckets) == 3


def test_results_are_removed_after_their_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "KEEP_S", 0.0)
    monkeypatch.setattr(service, "PRUNE_S", 0.0)
    runner = rig.start()
    runner.gate.set()
    rig.want("a")
    until(lambda: rig.settled)
    rig.want("b")
    until(lambda: rig.rows("a") == [])


def _keep(rig: Rig, settled_s: float, *jobs: tuple[str, str, lifecycle.State], result: str = "") -> None:
    """Write jobs that were settled some seconds ago."""
    at = time.time() - settled_s
    rows = [Job(job_id, kind, CALL, state, 1, at, at, "", "ok", result, at) for job_id, kind, state in jobs]
    rig.spool.transact(lambda db: table.insert(db, [table.Wanted(row, 9) for row in rows], at))


def test_the_end_of_a_long_transfer_names_its_target(rig: Rig) -> None:
    wish = Leave(key="ab" * 16, tool="transfer", call_id="c", target="sales", to="+15550001")
    _keep(rig, 600.0, ("left", "leave", "done"), result=encode_leave(wish))
    _keep(rig, 600.0, ("tool", "tool", "done"))
    _keep(rig, service.KEEP_LEFT_S + 1, ("old", "leave", "done"), result=encode_leave(wish))
    rig.start()
    until(lambda: rig.rows("tool", "old") == [])
    assert rig.jobs is not None
    answer = LeftCalls(rig.jobs.of_call).answer(bus.Ask(1, CALL, "left", key=wish.key, outcome="completed"), Call())
    assert (answer.step, answer.outcome, answer.text) == ("hang_up", "completed", "sales")


def test_undelivered_events_are_kept_for_a_week_and_their_early_removal_is_logged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "MAX_KEPT", 1)  # of other jobs
    _keep(rig, 6 * 86_400.0, *[(f"e{n}", "event a", "failed") for n in range(4)])
    _keep(rig, 8 * 86_400.0, ("old", "event a", "failed"))
    _keep(rig, 1.0, ("t1", "tool", "done"), ("t2", "tool", "done"))
    rig.start()
    until(lambda: len(rig.rows("t1", "t2", "old")) == 1)
    assert (len(rig.rows("e0", "e1", "e2", "e3")), "are removed" in caplog.text) == (4, False)
    rig.stop()
    monkeypatch.setattr(service, "MAX_DEAD", 3)
    rig.start()
    until(lambda: len(rig.rows("e0", "e1", "e2", "e3")) == 3)
    until(lambda: "1 events that were not delivered are removed: at most 3 are kept" in caplog.text)


def test_many_undelivered_events_are_removed_in_short_steps_and_reported_together(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(table, "_DEAD_REMOVED", 1)
    monkeypatch.setattr(service, "PRUNE_AGAIN_S", 0.01)
    monkeypatch.setattr(service, "MAX_DEAD", 1)
    monkeypatch.setattr(service, "IDLE_S", 600.0)  # without another cause for a turn
    _keep(rig, 9.0, *[(f"e{n}", "event a", "failed") for n in range(5)])
    began_s = time.monotonic()
    rig.start()
    until(lambda: len(rig.rows("e0", "e1", "e2", "e3", "e4")) == 1)
    assert rig.jobs is not None
    assert caplog.text.count("are removed") == 1
    until(lambda: rig.jobs is not None and rig.jobs._next_prune_s > began_s + service.PRUNE_S)
    rig.jobs._next_prune_s = rig.jobs._next_report_s = 0.0
    rig.jobs._wake.set()
    until(lambda: "3 events that were not delivered are removed" in caplog.text)


CONTROL = """
from gevent import monkey; monkey.patch_all()
import os, sys, time
from pathlib import Path
from gevent.event import Event
from gw import bus
from gw.control.jobs.lifecycle import Ended
from gw.control.jobs.service import Jobs
from gw.control.spool import Spool
from metrics.page import Page

folder, idempotent, die = Path(sys.argv[1]), sys.argv[2] == "idempotent", sys.argv[3]

class Endpoint:
    kind, runners, capacity, limit_s = "tool", 4, 100, 30.0

    def repeats(self, job):
        return 5.0 if idempotent else None

    def run(self, job, attempt):
        with open(folder / "requests", "a") as requests:
            requests.write(f"{job.id} {attempt}\\n")
        if die == "under way":
            os.kill(os.getpid(), 9)
        return Ended("done", "ok", "text")

def settle(settled):
    if die == "answered":
        os.kill(os.getpid(), 9)
    print(settled.id, settled.outcome, flush=True)
    is_settled.set()

is_settled = Event()
spool = Spool(folder / "spool.db")
jobs = Jobs(spool, Page.create(folder / "control.page"), [Endpoint()], settle=settle)
jobs.start()
wanted = bus.JobWanted("j1", "tool", "CA1", round(1000 * time.time()) + 60_000, "{}")
jobs.on_accepted(spool.append("w", [], jobs={1: jobs.of_event(wanted)}))
is_settled.wait(20)
jobs.stop()
for settled in jobs.results(bus.JobsOpen("CA1", ["j1"])):
    print("kept", settled.outcome)
"""


def control(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CONTROL, str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)


@pytest.mark.parametrize(
    ("moment", "idempotent", "requests", "outcome"),
    [("answered", True, ["j1 1", "j1 2"], "ok"), ("under way", False, ["j1 1"], "unknown_outcome")],
)
def test_after_a_kill_between_claim_and_end_a_job_is_repeated_or_unknown(
    tmp_path: Path, moment: str, idempotent: bool, requests: Sequence[str], outcome: str
) -> None:
    word = "idempotent" if idempotent else "once"
    assert control(tmp_path, word, moment).returncode == -signal.SIGKILL
    later = control(tmp_path, word, "never")
    assert later.returncode == 0, later.stderr
    assert (tmp_path / "requests").read_text().split("\n")[:-1] == requests
    assert later.stdout.split("\n")[-2] == f"kept {outcome}"
    assert f"j1 {outcome}" in later.stdout


def test_a_lost_file_costs_no_result_of_a_job_under_way(rig: Rig) -> None:
    runner = rig.start()
    rig.want("a")
    until(lambda: runner.begun)
    rig.spool.transact(partial(table.erase, call_sid=CALL))
    runner.gate.set()
    until(lambda: rig.results() == {"a": "ok"})
    until(lambda: rig.jobs is not None and rig.jobs.backlog() == (0, 0.0))
    assert rig.rows("a") == []


def test_the_tools_of_a_call_are_named_until_the_ai_has_their_results(rig: Rig) -> None:
    body = encode_call(ToolCall(id="j1", tool="lookup", arguments='{"n":1}', call=FACTS))
    runner = rig.start()
    rig.want("other")
    n = rig._n = rig._n + 1
    wanted = bus.JobWanted("j1", "tool", CALL, 2_000_000_000_000, body)
    assert rig.jobs is not None
    rig.jobs.on_accepted(rig.spool.append("w", [], jobs={n: rig.jobs.of_event(wanted)}))
    found = [bus.OpenTool("j1", "lookup", '{"n":1}', 2_000_000_000_000)]
    assert rig.jobs.tools_of(CALL, ()) == found, "a body that cannot be read is left out"
    runner.gate.set()
    until(lambda: any(one.id == "j1" for one in rig.settled))
    assert rig.jobs.tools_of(CALL, ()) == found, "the stream may have ended before it gave the result to the AI"
    assert rig.jobs.tools_of(CALL, {"j1"}) == rig.jobs.tools_of("CA2", ()) == []
    before = len(rig.settled)
    rig.jobs.on_accepted(rig.spool.append("w", [], jobs={n + 1: rig.jobs.of_event(wanted)}))
    assert rig.settled[before:] == [one for one in rig.settled[:before] if one.id == "j1"], (
        "wanted again: the result is sent again"
    )


def test_a_result_that_is_sent_again_frees_the_runner_that_its_job_would_have_had(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "IDLE_S", 600.0)  # nothing else wakes the jobs
    runner = rig.start(Runner(runners=1))
    runner.gate.set()
    rig.want("done")
    until(lambda: rig.rows("done") == [("done", 1)])
    jobs = rig.jobs
    assert jobs is not None
    again = jobs.of_event(bus.JobWanted("done", "tool", CALL, round(1000 * (time.time() + 60)), "{}"))
    rig.want("waits")
    until(lambda: jobs.backlog().open == 1)
    assert runner.begun == [("done", 1)]
    jobs.on_accepted(rig.spool.append("other", [], jobs={1: again}))
    until(lambda: rig.results() == {"done": "ok", "waits": "ok"})


def test_a_waiting_job_begins_when_a_runner_ends_during_the_turn_that_takes_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("IDLE_S", "ENDED_S"):
        monkeypatch.setattr(service, pause, 600.0)  # nothing else wakes the jobs
    transact, may_commit = rig.spool.transact, Event()

    def slow(work: Callable[[Any], Any]) -> Any:
        may_commit.wait()
        return transact(work)

    may_commit.set()
    monkeypatch.setattr(rig.spool, "transact", slow)
    runner = rig.start(Runner(runners=2))
    rig.want("a", "b", "c", "d")
    until(lambda: rig.jobs is not None and rig.jobs.backlog().open == 4)
    may_commit.clear()
    assert rig.jobs is not None
    rig.jobs.cancel("a")
    until(lambda: rig.jobs is not None and rig.jobs._offered)
    rig.jobs.cancel("b")
    until(lambda: len(rig.settled) == 2)
    may_commit.set()
    until(lambda: [job_id for job_id, _ in runner.begun] == ["a", "b", "c", "d"])


def test_a_new_job_does_not_pass_those_that_wait(rig: Rig) -> None:
    runner = rig.start(Runner(runners=1))
    runner.gate.set()
    newcomers = []

    def settle(settled: bus.JobSettled) -> None:
        rig.settled.append(settled)
        if len(newcomers) < 3:
            newcomers.append(gevent.spawn(rig.want, f"new{len(newcomers)}"))  # while the runner is free, before the turn

    assert rig.jobs is not None
    rig.jobs._settle = settle
    until(lambda: rig.jobs is not None and not rig.jobs._waiting)
    rig.want("a", "b", "c")
    until(lambda: len(rig.settled) == 6)
    assert [job_id for job_id, _ in runner.begun] == ["a", "b", "c", "new0", "new1", "new2"]
