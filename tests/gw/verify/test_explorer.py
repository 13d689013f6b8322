"""The explorer finds wrong states by the shortest way, and regions that are never left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gw.verify.explorer import FREE, SURE, Explored, Explorer, Step


class Graph:
    """A model given as its edges: `name: [(label, to, kind)]`. Names in capitals are wrong, in `debts` they owe."""

    def __init__(self, edges: Mapping[str, Sequence[tuple[str, str, str]]], debts: str = "") -> None:
        self._edges = edges
        self._debts = debts

    def first(self) -> str:
        return "a"

    def steps(self, state: str) -> Sequence[Step[str]]:
        return [Step(*edge) for edge in self._edges.get(state, ())]

    def wrong(self, state: str) -> Iterable[str]:
        return ["lower case"] if state.isupper() else []

    def owing(self, state: str) -> Iterable[str]:
        return ["paid"] if state in self._debts else []


def explore(graph: Graph, max_states: int = 100) -> Explored:
    return Explorer(graph, max_states=max_states).run()


def test_every_state_is_seen_once() -> None:
    seen = explore(Graph({"a": [("x", "b", SURE), ("y", "c", SURE)], "b": [("z", "d", SURE)], "c": [("z", "d", SURE)]}))
    assert (seen.states, seen.transitions, seen.depth) == (4, 4, 2)
    assert seen.complete
    assert seen.violations == ()


def test_the_shortest_way_to_a_wrong_state_is_reported() -> None:
    seen = explore(Graph({"a": [("x", "b", SURE)], "b": [("x", "c", SURE), ("oops", "E", FREE)], "c": [("x", "D", SURE)]}))
    (violation,) = seen.violations
    assert violation.steps == ("x", "oops")


def test_a_debt_that_sure_steps_pay_is_fine() -> None:
    assert explore(Graph({"a": [("x", "b", SURE), ("y", "c", SURE)], "b": [("pay", "c", SURE)]}, debts="ab")).violations == ()


def test_a_debt_without_a_sure_step_is_never_paid() -> None:
    (violation,) = explore(Graph({"a": [("x", "b", SURE)], "b": [("pay", "c", FREE)]}, debts="ab")).violations
    assert (violation.invariant, violation.steps, violation.end) == ("paid", ("x",), "and nothing more happens")


def test_a_debt_in_a_cycle_is_never_paid() -> None:
    edges = {
        "a": [("x", "b", SURE)],
        "b": [("y", "c", SURE), ("pay", "d", SURE)],
        "c": [("z", "b", SURE)],
    }
    (violation,) = explore(Graph(edges, debts="abc")).violations
    assert violation.invariant == "paid"
    assert violation.end in ("and then forever: y; z", "and then forever: z; y")
    assert violation.steps[0] == "x"


def test_a_cycle_outside_of_the_debt_is_allowed() -> None:
    assert explore(Graph({"a": [("x", "b", SURE)], "b": [("y", "c", SURE)], "c": [("z", "b", SURE)]}, debts="a")).violations == ()


def test_a_search_cut_short_is_reported() -> None:
    seen = explore(Graph({"a": [("x", "b", SURE)], "b": [("x", "c", SURE)], "c": [("x", "D", SURE)]}), max_states=2)
    assert (seen.states, seen.complete) == (2, False)
