"""`verify guard`: explores one call's recording in every order and with every fault.

Each scenario has its hosts, its faults and a number of faults in one run. `SCENARIOS` end in seconds, `DEEP` adds longer ones. A
scenario that reaches the bound on states proves nothing and is reported as incomplete.
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

#: Assumptions of the model, as much part of the proof as the states.
GRANTED: Final = (
    "a request takes effect at Twilio before its sender gives up, or never",
    "a row is read and written in one step; a claim is the store's own SQL",
    "killed processes restart; a lost host does not, and the calls it had claimed need not be recorded",
    "a delay lasts as long as gw/verify/guard/fault_steps.py states",
    "no party that could act waits for more than a minute; random waits take their nominal length",
    "a fault that takes time (a death, an outage, a failure of Twilio) suspends the promise of 2 s",
    "a call that Twilio refuses permanently (20404) need not be recorded",
    "the store is away for every host or for none; claims in a spool reach it before any other claim",
    "a host has the list of calls alive at its workers",
)


class Judged(NamedTuple):
    """One explored scenario."""

    scenario: Scenario
    explored: Explored


class GuardReport(NamedTuple):
    """Results of all scenarios. `operations`: operations the store ran for them."""

    judged: tuple[Judged, ...]
    operations: int

    @property
    def holds(self) -> bool:
        return all(one.explored.complete and not one.explored.violations for one in self.judged)

    def violations(self, invariant: str) -> list[tuple[Scenario, Violation]]:
        """Violations of an invariant, the shortest way first."""
        found = [
            (one.scenario, violation)
            for one in self.judged
            for violation in one.explored.violations
            if violation.invariant == invariant
        ]
        return sorted(found, key=lambda pair: len(pair[1].steps))

    def document(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
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


def check(scenarios: Sequence[Scenario] = SCENARIOS, on_judged: Callable[[Judged], None] = lambda judged: None) -> GuardReport:
    """Explore these scenarios, one after the other; `on_judged` receives each result."""
    rows = RowStore()
    try:
        judged = []
        for scenario in scenarios:
            judged.append(Judged(scenario, Explorer(GuardModel(scenario, rows), max_states=MAX_STATES).run()))
            on_judged(judged[-1])
        return GuardReport(tuple(judged), rows.tried)
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
