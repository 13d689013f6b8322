"""`verify guard`: explores the recording of one call in every order and with every fault, and judges the invariants.

What is explored is a list of scenarios, each with its hosts, its faults and how many of them one run may meet; the list is chosen
so that all of it ends in seconds, `DEEP` goes on from there. A scenario that meets its bound on states before its end proves
nothing and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from gw.verify.guard.claim_row import RowStore
from gw.verify.guard.explorer import Explored, Explorer, Violation
from gw.verify.guard.model import ALL_FAULTS, INVARIANTS, GuardModel, Scenario

#: About 1 KB a state.
MAX_STATES: Final = 4_000_000

TWILIO: Final = frozenset({"21220", "20404", "20429", "503", "time-out", "unreachable"})
WEBHOOKS: Final = frozenset({"webhook never", "webhook twice", "webhook late", "recording absent", "time-out", "control killed"})

SCENARIOS: Final = (
    Scenario("one host, every fault", ALL_FAULTS, 2),
    Scenario("two hosts, every fault", ALL_FAULTS, 1, hosts=2),
    Scenario("Twilio fails in every way", TWILIO, 3),
    Scenario("webhooks and restarts", WEBHOOKS, 3),
)
#: Minutes and 3 GB instead of seconds.
DEEP: Final = (
    *SCENARIOS,
    Scenario("two hosts, the stream moves, a claim is unclear", frozenset({"commit unclear"}), 1, hosts=2, chunks=0, moves=True),
    Scenario("two hosts, the stream moves, the store is away", frozenset({"store down"}), 1, hosts=2, chunks=0, moves=True),
    Scenario("one host, every fault, thrice", ALL_FAULTS, 3),
    Scenario("two hosts, every fault, twice", ALL_FAULTS, 2, hosts=2),
)

#: What the model takes for granted: as much part of the proof as the states.
GRANTED: Final = (
    "a request takes effect at Twilio before its sender gives it up, or never",
    "a row is read and written in one step; a claim is the store's own SQL",
    "killed processes come back, a lost host does not, and what it had claimed need not be recorded",
    "what is late comes after the time stated in gw/verify/guard/fault_steps.py",
    "nobody who could act stands still for more than a minute; waits spread by chance take their nominal length",
    "a recording that is due within 2 s is excused by a fault that takes time: a death, an outage, a Twilio that fails",
    "a call that Twilio refuses for good (20404) need not be recorded",
    "the store is away for every host or for none; what was claimed in a spool reaches it before anything else is claimed",
    "a host knows which calls live at its workers",
)


class Judged(NamedTuple):
    """One scenario explored."""

    scenario: Scenario
    explored: Explored


class Report(NamedTuple):
    """All of it. `operations`: what the store was asked for, over all scenarios."""

    judged: tuple[Judged, ...]
    operations: int

    @property
    def holds(self) -> bool:
        return all(one.explored.complete and not one.explored.violations for one in self.judged)

    def violations(self, invariant: str) -> list[tuple[Scenario, Violation]]:
        """Where an invariant breaks; the shortest way first."""
        found = [
            (one.scenario, violation)
            for one in self.judged
            for violation in one.explored.violations
            if violation.invariant == invariant
        ]
        return sorted(found, key=lambda pair: len(pair[1].steps))

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "holds": self.holds,
            "states": sum(one.explored.states for one in self.judged),
            "transitions": sum(one.explored.transitions for one in self.judged),
            "took_s": round(sum(one.explored.took_s for one in self.judged), 3),
            "store_operations": self.operations,
            "scenarios": [_scenario(one) for one in self.judged],
            "invariants": {invariant: self._invariant(invariant) for invariant in INVARIANTS},
            "taken_for_granted": list(GRANTED),
        }

    def _invariant(self, invariant: str) -> dict[str, Any]:
        found = self.violations(invariant)
        if not found:
            return {"holds": all(one.explored.complete for one in self.judged)}
        scenario, violation = found[0]
        return {"holds": False, "scenario": scenario.name, "trace": list(violation.steps), "end": violation.end}


def check(scenarios: Sequence[Scenario] = SCENARIOS, on_judged: Callable[[Judged], None] = lambda judged: None) -> Report:
    """Explore these scenarios, one after the other."""
    rows = RowStore()
    try:
        judged = []
        for scenario in scenarios:
            judged.append(Judged(scenario, Explorer(GuardModel(scenario, rows), max_states=MAX_STATES).run()))
            on_judged(judged[-1])
        return Report(tuple(judged), rows.tried)
    finally:
        rows.close()


def _scenario(one: Judged) -> dict[str, Any]:
    return {
        "name": one.scenario.name,
        "hosts": one.scenario.hosts,
        "faults": sorted(one.scenario.faults),
        "faults_in_one_run": one.scenario.budget,
        "states": one.explored.states,
        "transitions": one.explored.transitions,
        "depth": one.explored.depth,
        "took_s": round(one.explored.took_s, 3),
        "complete": one.explored.complete,
    }
