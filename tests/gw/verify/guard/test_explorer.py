"""The explorer finds what is wrong by the shortest way, and what is owed for ever."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gw.verify.guard.explorer import FREE, SURE, Explored, Explorer, Step


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


def test_the_shortest_way_to_a_wrong_state_is_told() -> None:
    seen = explore(Graph({"a": [("x", "b", SURE)], "b": [("x", "c", SURE), ("oops", "E", FREE)], "c": [("x", "D", SURE)]}))
    (violation,) = seen.violations
    assert violation.steps == ("x", "oops")


def test_a_debt_that_sure_steps_pay_is_fine() -> None:
    assert explore(Graph({"a": [("x", "b", SURE), ("y", "c", SURE)], "b": [("pay", "c", SURE)]}, debts="ab")).violations == ()


def test_a_debt_that_nobody_must_pay_is_owed_for_ever() -> None:
    (violation,) = explore(Graph({"a": [("x", "b", SURE)], "b": [("pay", "c", FREE)]}, debts="ab")).violations
    assert (violation.invariant, violation.steps, violation.end) == ("paid", ("x",), "and nothing more happens")


def test_a_debt_carried_round_in_a_circle_is_never_paid() -> None:
    edges = {
        "a": [("x", "b", SURE)],
        "b": [("y", "c", SURE), ("pay", "d", SURE)],
        "c": [("z", "b", SURE)],
    }
    (violation,) = explore(Graph(edges, debts="abc")).violations
    assert violation.invariant == "paid"
    assert violation.end in ("and then for ever: y; z", "and then for ever: z; y")
    assert violation.steps[0] == "x"


def test_a_circle_outside_of_the_debt_is_no_matter() -> None:
    assert explore(Graph({"a": [("x", "b", SURE)], "b": [("y", "c", SURE)], "c": [("z", "b", SURE)]}, debts="a")).violations == ()


def test_what_the_bound_cuts_off_is_said() -> None:
    seen = explore(Graph({"a": [("x", "b", SURE)], "b": [("x", "c", SURE)], "c": [("x", "D", SURE)]}), max_states=2)
    assert (seen.states, seen.complete) == (2, False)
