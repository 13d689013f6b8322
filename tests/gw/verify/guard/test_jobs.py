"""The model of a job: its laws hold, and each mutant of the production code is caught by the expected law."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from gw.control.bus import server
from gw.control.jobs import leave, lifecycle, service, table, tool
from gw.verify.changes import Change, changed
from gw.verify.explorer import Explored, Explorer
from gw.verify.guard.jobs import (
    CANCELLED,
    CLAIMED,
    DONE_ONCE,
    JOB_FAULTS,
    JOB_INVARIANTS,
    JOB_SETTLES,
    KEPT,
    TOLD,
    TOLD_TRULY,
    JobModel,
    JobScenario,
)
from metrics.page import Page

JOBS, TABLE, LIFECYCLE, TOOL = (module.__name__ for module in (service, table, lifecycle, tool))


class Mutant(NamedTuple):
    """A change of production code, its law, and the faults that expose it."""

    name: str
    change: Change
    caught_by: str
    faults: str = ""
    budget: int = 1


MUTANTS = (
    Mutant("a claim is not written", Change(f"{TABLE}:turn", "change(db, Change(job, claimed[-1]))", "pass"), CLAIMED),
    Mutant(
        "an interrupted job is repeated whatever its tool",
        Change(f"{TOOL}:ToolHandler.repeats", " and tool.idempotent", ""),
        DONE_ONCE,
        "control killed",
    ),
    Mutant(
        "an interrupted job is always repeated",
        Change(f"{LIFECYCLE}:on_found", "if not idempotent:", "if False:"),
        DONE_ONCE,
        "control killed",
    ),
    Mutant(
        "an interrupted job is forgotten", Change(f"{JOBS}:Jobs._run", "self._recover()", "pass"), JOB_SETTLES, "control killed"
    ),
    Mutant(
        "the worker is not told of an interrupted job",
        Change(f"{JOBS}:Jobs._recover", "self._send(job)", "pass"),
        TOLD,
        "control killed",
    ),
    Mutant(
        "a stop returns the claims of an earlier process",
        Change(f"{JOBS}:Jobs.stop", "if not self._recovered:", "if False:"),
        DONE_ONCE,
        "control killed,control replaced",
        2,
    ),
    Mutant(
        "a stop returns the claim of an attempt under way",
        Change(f"{JOBS}:Jobs.stop", "running=self._attempts()", "running={}"),
        DONE_ONCE,
        "control replaced",
    ),
    Mutant(
        "a known id gets a new row",
        Change(
            f"{TABLE}:insert",
            "if known := find(db, (job.id,)):",
            "db.execute('DELETE FROM jobs WHERE id = ?', (job.id,))\n        if known := find(db, (job.id,)):",
        ),
        DONE_ONCE,
        "wanted twice",
    ),
    Mutant(
        "a new event is taken for an old one",
        Change(f"{server.__name__}:sort_messages", "message.n <= last", "message.n <= last + 1"),
        KEPT,
    ),
    Mutant(
        "an event makes no job",
        Change(f"{JOBS}:Jobs.of_event", "return (table.Wanted(job, handler.capacity),)", "return ()"),
        KEPT,
    ),
    Mutant("a reserved job is not begun", Change(f"{JOBS}:Jobs.on_accepted", "self._begin(job)", "pass"), TOLD),
    Mutant(
        "a job is begun whose row another process has claimed",
        Change(f"{JOBS}:Jobs.on_accepted", "elif job == reserved:", 'elif job.state == "claimed":'),
        DONE_ONCE,
        "wanted twice",
    ),
    Mutant(
        "a job that runs is reserved once more",
        Change(f"{JOBS}:Jobs._begins_with", " or job.id in self._running", ""),
        DONE_ONCE,
        "wanted twice,commit unclear",
        2,
    ),
    Mutant(
        "a job is reserved before the claims of an earlier process are decided on",
        Change(f"{JOBS}:Jobs._begins_with", " or not self._recovered", ""),
        CLAIMED,
    ),
    Mutant(
        "an unclear commit returns the claim of a reserved job",
        Change(f"{JOBS}:Jobs._commit", "self._attempts(self._reserved)", "self._attempts()"),
        DONE_ONCE,
        "commit unclear",
    ),
    Mutant(
        "a turn takes the claim of an unclear commit for a reserved job's",
        Change(f"{JOBS}:Jobs.on_accepted", "self.on_doubt(())", "pass"),
        JOB_SETTLES,
        "wanted twice,commit unclear",
        2,
    ),
    Mutant(
        "the claim of an unclear event stays",
        Change(f"{JOBS}:Jobs.on_doubt", "self._doubt_from = min(self._doubt_from, time.time())", "pass"),
        JOB_SETTLES,
        "commit unclear",
    ),
    Mutant("a result is not sent", Change(f"{JOBS}:Jobs._attempt", "self._send(after)", "pass"), TOLD),
    Mutant(
        "an end is not written",
        Change(f"{JOBS}:Jobs._attempt", "self._ended.append(table.Change(job, after))", "pass"),
        JOB_SETTLES,
    ),
    Mutant(
        "an end is lost with its commit",
        Change(f"{JOBS}:Jobs._turn", "ended = self._ended[:]", "ended = self._ended[:]\n    self._ended.clear()"),
        JOB_SETTLES,
        "commit unclear",
    ),
    Mutant(
        "the worker is not told of a late job",
        Change(f"{JOBS}:Jobs._commit", "(*result.unsent, *result.expired)", "result.unsent"),
        TOLD,
    ),
    Mutant(
        "a result whose commit was unclear is not sent",
        Change(f"{JOBS}:Jobs._commit", "(*result.unsent, *result.expired)", "result.expired"),
        TOLD,
        "commit unclear",
    ),
    Mutant(
        "an unclear claim stays",
        Change(f"{TABLE}:turn", "if running.get(job.id) != job.attempts:", "if False:"),
        JOB_SETTLES,
        "commit unclear",
    ),
    Mutant(
        "an unclear commit returns the claims of attempts under way",
        Change(f"{TABLE}:turn", "if running.get(job.id) != job.attempts:", "if True:"),
        DONE_ONCE,
        "commit unclear",
    ),
    Mutant(
        "an unknown job is not answered",
        Change(f"{JOBS}:Jobs.results", "results.append(bus.JobSettled(job_id,", "(lambda settled: None)(bus.JobSettled(job_id,"),
        TOLD,
        "stream moves",
    ),
    Mutant(
        "a question passes over ends that are not on disk",
        Change(f"{JOBS}:Jobs.results", " | ended", ""),
        TOLD,
        "link breaks",
    ),
    Mutant(
        "a cancellation is forgotten",
        Change(f"{JOBS}:Jobs.cancel", "self._cancelled[job_id] = None", "pass"),
        CANCELLED,
        "cancelled",
    ),
    Mutant(
        "a cancelled job is begun",
        Change(f"{JOBS}:Jobs._attempt", "if job.id in self._cancelled:", "if False:"),
        CANCELLED,
        "cancelled",
    ),
    Mutant(
        "a cancelled request continues",
        Change(f"{JOBS}:Jobs.cancel", "request.kill(_Cancelled, block=False)", "pass"),
        CANCELLED,
        "cancelled",
    ),
    Mutant(
        "a cancelled request has no end",
        Change(
            f"{JOBS}:Jobs._attempt",
            'outcome = Ended("failed", "cancelled", failed("cancelled", "The request was given up.").output)',
            "return",
        ),
        JOB_SETTLES,
        "cancelled",
    ),
    Mutant(
        "a failure is reported as a result",
        Change(f"{TOOL}:ToolHandler.run", 'if answer.status == "ok":', "if True:\n        answer = answer._replace(status='ok')"),
        TOLD_TRULY,
        "no connection",
    ),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    made = Page.create(tmp_path_factory.mktemp("jobs") / "verify.page")
    yield made
    made.close()


def explore(page: Page, faults: frozenset[str], budget: int, *, idempotent: bool = False, at_first: bool = False) -> Explored:
    model = JobModel(JobScenario("mutant", faults, budget, idempotent=idempotent), page)
    try:
        return Explorer(model, max_states=100_000, stop_at_first=at_first).run()
    finally:
        model.parts.close()


@pytest.mark.parametrize("idempotent", [False, True])
def test_every_law_holds_with_any_fault(page: Page, idempotent: bool) -> None:
    explored = explore(page, JOB_FAULTS, 1, idempotent=idempotent)
    assert explored.complete
    assert explored.violations == ()
    assert explored.states > 3000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_is_caught(page: Page, mutant: Mutant) -> None:
    with changed(mutant.change):
        faults = frozenset(filter(None, mutant.faults.split(",")))
        found = explore(page, faults, mutant.budget, at_first=mutant.caught_by == CLAIMED).violations
    assert mutant.caught_by in {violation.invariant for violation in found}, found


def test_every_law_catches_a_mutant() -> None:
    assert {mutant.caught_by for mutant in MUTANTS} == set(JOB_INVARIANTS)


RUN = f"{leave.__name__}:LeaveHandler.run"
#: Defects of transfers, and the faults that expose them: each would dial twice, or report a transfer that did not begin.
LEAVE_MUTANTS = (
    (Change(RUN, "not self._still_has_stream(job)", "False"), DONE_ONCE, "control killed"),
    (Change(RUN, "not self._still_has_stream(job)", "True"), TOLD_TRULY, "control killed"),
    (Change(f"{leave.__name__}:LeaveHandler._still_has_stream", "began_at <= job.at", "True"), DONE_ONCE, "control killed"),
    (Change(RUN, 'Ended("unclear", "unknown_outcome", kept)', 'Ended("done", "ok", kept)'), TOLD_TRULY, "no answer"),
)


def explore_transfer(page: Page, faults: frozenset[str]) -> Explored:
    model = JobModel(JobScenario("a transfer", faults, 1, leaves=True), page)
    try:
        return Explorer(model, max_states=100_000).run()
    finally:
        model.parts.close()


def test_a_transfer_keeps_every_law(page: Page) -> None:
    explored = explore_transfer(page, JOB_FAULTS - {"cancelled"})
    assert explored.complete
    assert explored.violations == ()


@pytest.mark.parametrize(("change", "caught_by", "faults"), LEAVE_MUTANTS)
def test_each_mutant_of_transfers_is_caught(page: Page, change: Change, caught_by: str, faults: str) -> None:
    with changed(change):
        explored = explore_transfer(page, frozenset({faults}))
    assert caught_by in {one.invariant for one in explored.violations}
