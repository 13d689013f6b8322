"""The model of a recording's pauses: its laws hold, and each mutant of the production code is caught by the expected law."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from gw.control.recording import pauses
from gw.media.conversation import digits
from gw.verify.changes import Change, changed
from gw.verify.explorer import Explored, Explorer
from gw.verify.guard.pauses import (
    ANSWERED,
    CONTINUES,
    PAUSE_FAULTS,
    PAUSE_INVARIANTS,
    STAYS,
    UNHEARD,
    PauseModel,
    PauseScenario,
)
from metrics.page import Page

PLAIN = PauseScenario("one", frozenset(), 0)
TWICE = PLAIN._replace(collections=2)
HELD = PLAIN._replace(operator=(True,))
RELEASED = PLAIN._replace(operator=(True, False))
LATE = PLAIN._replace(late=True)


class Mutant(NamedTuple):
    """A change of production code, its law, and the scenario and faults that expose it."""

    name: str
    change: Change
    caught_by: str
    scenario: PauseScenario = PLAIN
    faults: str = ""
    budget: int = 1


def _in(method: str, old: str, new: str) -> Change:
    return Change(f"{pauses.__name__}:Pauses.{method}", old, new)


def _in_worker(method: str, old: str, new: str) -> Change:
    return Change(f"{digits.__name__}:CallDigits.{method}", old, new)


MUTANTS = (
    Mutant(
        "a late pause outlives its end",
        _in("pause", "if self._disk.transact(partial(table.find, ids=[_id(job.call_sid, pause.pause)])):", "if False:"),
        CONTINUES,
    ),
    Mutant(
        "the end of a stream adds no resume",
        _in("of_event", "return (self._resume_of(event.call_sid, pause, time.time()),)", "return ()"),
        CONTINUES,
        faults="worker killed",
    ),
    Mutant(
        "another process does not have the open pauses",
        _in("__init__", "disk.transact(table.list_pauses)", "()"),
        CONTINUES,
        faults="worker killed,control killed",
        budget=2,
    ),
    Mutant(
        "a resume ends the next pause",
        _in("_continue", "if known is not None and known.pause != pause.pause:", "if False:"),
        UNHEARD,
        TWICE,
    ),
    Mutant(
        "a resume ends an operator's pause",
        _in("_continue", "if self.is_held(job.call_sid):", "if False:"),
        STAYS,
        HELD,
    ),
    Mutant(
        "an operator's pause relies on one that did not happen",
        _in("_continue", 'self._set(account, job.call_sid, "paused", REQUEST_S)', "pass"),
        STAYS,
        HELD,
    ),
    Mutant("an operator's pause is forgotten", _in("hold", "self._held[call_sid] = on", "pass"), STAYS, HELD),
    Mutant(
        "an operator's pause is forgotten with its process",
        _in("__init__", "for event in waiting", "for event in ()"),
        STAYS,
        HELD,
        faults="control killed",
    ),
    Mutant(
        "an operator's act does not wait for the digits' pause",
        _in("hold", "with self._lock(call_sid):", "if True:"),
        STAYS,
        RELEASED,
    ),
    Mutant(
        "a resume is tried once",
        _in("resume", "return Again(RESUME_AGAIN_S)", 'return Ended("failed", "unavailable", "")'),
        CONTINUES,
        faults="503",
    ),
    Mutant("a resume does not wait for its pause", _in("resume", "with self._lock(job.call_sid):", "if True:"), CONTINUES),
    Mutant(
        "a resume leaves the pause in effect",
        _in("resume", "del self._open[job.call_sid]", "pass"),
        CONTINUES,
        RELEASED,
    ),
    Mutant("a pause that failed is done", _in("_failed", '"failed", "unavailable"', '"done", "ok"'), UNHEARD, faults="503"),
    Mutant(
        "a pause does not wait for a create",
        _in("pause", "if self.is_asking(job.call_sid):", "if False:"),
        UNHEARD,
        LATE,
    ),
    Mutant("a create does not wait for a pause", _in("forbids_create", "self.is_concealed(call_sid) or ", ""), UNHEARD, LATE),
    Mutant(
        "a create does not wait for an operator",
        _in("forbids_create", " or self._held.get(call_sid, False)", ""),
        STAYS,
        LATE._replace(operator=(True,)),
    ),
    Mutant(
        "an interrupted resume is not repeated",
        Change(f"{pauses.__name__}:PauseHandler.repeats", "else LIMIT_S", "else None"),
        CONTINUES,
        faults="control killed",
    ),
    Mutant(
        "the answer to another pause counts",
        _in_worker("on_settled", "or settled.id != self._awaited", ""),
        UNHEARD,
        TWICE,
        faults="answer doubled",
    ),
    Mutant("a refusal counts", _in_worker("on_settled", 'settled.outcome == "ok"', "True"), UNHEARD, faults="503"),
    Mutant(
        "the worker does not end a pause",
        _in_worker("_resume", 'self._want("resume", time.time() + self._context.config.media.max_call_s)', "pass"),
        CONTINUES,
    ),
    Mutant("the worker does not await the pause", _in_worker("conceal", "self._awaited = self._want", "self._want"), ANSWERED),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    made = Page.create(tmp_path_factory.mktemp("pauses") / "verify.page")
    logging.disable(logging.CRITICAL)  # failures are injected
    yield made
    logging.disable(logging.NOTSET)
    made.close()


def explore(page: Page, scenario: PauseScenario) -> Explored:
    model = PauseModel(scenario, page)
    try:
        return Explorer(model, max_states=100_000).run()
    finally:
        model.parts.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant, page: Page) -> None:
    faults = frozenset(filter(None, mutant.faults.split(",")))
    assert faults <= PAUSE_FAULTS
    with changed(mutant.change):
        seen = explore(page, mutant.scenario._replace(faults=faults, budget=mutant.budget if faults else 0))
    caught = {violation.invariant for violation in seen.violations}
    assert mutant.caught_by in caught, f"caught by {sorted(caught)}, {seen.states} states"


def test_each_law_catches_a_mutant() -> None:
    assert {mutant.caught_by for mutant in MUTANTS} == set(PAUSE_INVARIANTS)


@pytest.mark.parametrize("scenario", [PLAIN, LATE, PLAIN._replace(faults=PAUSE_FAULTS, budget=1)], ids=str)
def test_without_a_mutant_nothing_is_found(scenario: PauseScenario, page: Page) -> None:
    seen = explore(page, scenario)
    assert seen.complete
    assert seen.violations == ()
