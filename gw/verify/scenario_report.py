"""Report on explored scenarios, for the proofs that explore a model: what was visited, and which invariants hold."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from gw.verify.explorer import Explored, Violation


class Scenario(Protocol):
    """One exploration. `budget`: faults in one run."""

    @property
    def name(self) -> str: ...

    @property
    def faults(self) -> frozenset[str]: ...

    @property
    def budget(self) -> int: ...


S = TypeVar("S", bound=Scenario)


class Judged(NamedTuple, Generic[S]):
    """One explored scenario."""

    scenario: S
    explored: Explored


class ScenarioReport(Generic[S]):
    """Results of all scenarios. A proof's report names its invariants and assumptions, and may add fields to the document."""

    invariants: ClassVar[tuple[str, ...]]
    granted: ClassVar[tuple[str, ...]]
    #: Key of the invariants in the document.
    key: ClassVar[str] = "invariants"

    def __init__(self, judged: tuple[Judged[S], ...]) -> None:
        self.judged = judged

    @property
    def holds(self) -> bool:
        return all(one.explored.complete and not one.explored.violations for one in self.judged)

    def violations(self, invariant: str) -> list[tuple[S, Violation]]:
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
            **self.figures(),
            "scenarios": [self._scenario(one) for one in self.judged],
            self.key: {invariant: self._verdict(invariant) for invariant in self.invariants},
            "taken_for_granted": list(self.granted),
        }

    def figures(self) -> dict[str, Any]:
        """Further fields of the document."""
        return {}

    def fields_of(self, scenario: S) -> dict[str, Any]:
        """Further fields of a scenario in the document."""
        return {}

    def _scenario(self, one: Judged[S]) -> dict[str, Any]:
        return {
            "name": one.scenario.name,
            **self.fields_of(one.scenario),
            "faults": sorted(one.scenario.faults),
            "faults_in_one_run": one.scenario.budget,
            "states": one.explored.states,
            "transitions": one.explored.transitions,
            "depth": one.explored.depth,
            "took_s": round(one.explored.took_s, 3),
            "complete": one.explored.complete,
        }

    def _verdict(self, invariant: str) -> dict[str, Any]:
        found = self.violations(invariant)
        if not found:
            return {"holds": all(one.explored.complete for one in self.judged)}
        scenario, violation = found[0]
        return {"holds": False, "scenario": scenario.name, "trace": list(violation.steps), "end": violation.end}
