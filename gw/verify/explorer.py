"""Explores every reachable state of a model, breadth first, and finds violations of its invariants.

A model gives its first state, the steps out of a state, and the invariants that a state violates. States are hashed: each is
visited once, by the shortest way. There are two kinds of invariants: a state that must not occur (`wrong`), and a region that
must be left again (`owing`) by steps that no party can prevent. In a region, a state without such a step, or a cycle of them,
is a violation. Reports the first violation of each invariant, and whether the bound on states cut the search short. Independent
of the states' meaning.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

#: A step that is taken if no other happens first.
SURE: Final = "sure"
#: A step that may never be taken.
FREE: Final = "free"


class Step(NamedTuple, Generic[S]):
    """One step out of a state."""

    label: str
    state: S
    kind: str


class Model(Protocol[S]):
    """A model that can be explored."""

    def first(self) -> S:
        """The state in which every run begins."""
        ...

    def steps(self, state: S) -> Sequence[Step[S]]:
        """All steps out of a state."""
        ...

    def wrong(self, state: S) -> Iterable[str]:
        """The invariants that this state violates, by name."""
        ...

    def owing(self, state: S) -> Iterable[str]:
        """The invariants that require this state to be left, by name."""
        ...


class Violation(NamedTuple):
    """An invariant that does not hold, and the shortest way to its violation."""

    invariant: str
    steps: tuple[str, ...]
    end: str  # how a region is never left; empty for a wrong state


class Explored(NamedTuple):
    """Result of an exploration. `complete`: no bound cut the search short."""

    states: int
    transitions: int
    depth: int
    took_s: float
    complete: bool
    violations: tuple[Violation, ...]


class Explorer(Generic[S]):
    """One exploration of a model. `max_states` bounds memory: beyond it no new state is visited.

    `stop_at_first`: the search ends with the level of the first wrong state; regions are then not judged.
    """

    def __init__(self, model: Model[S], *, max_states: int, stop_at_first: bool = False) -> None:
        self._model = model
        self._max_states = max_states
        self._stop_at_first = stop_at_first
        self._index: dict[S, int] = {}
        self._parents: list[int] = []
        self._labels: list[str] = []
        self._owing: dict[str, set[int]] = {}
        self._sure: dict[int, list[tuple[int, str]]] = {}  # the sure steps out of the states of regions
        self._violations: dict[str, Violation] = {}

    def run(self) -> Explored:
        """Explore until every state was visited."""
        collects = gc.isenabled()
        gc.disable()  # states are tuples of values, without cycles: a search for some costs a third of the time
        try:
            return self._run()
        finally:
            if collects:
                gc.enable()

    def _run(self) -> Explored:
        begun_s = time.monotonic()
        model, index = self._model, self._index
        level = [model.first()]
        self._enter(level[0], -1, "")
        transitions = depth = 0
        complete = True
        while level and not (self._stop_at_first and self._violations):
            following: list[S] = []
            for state in level:
                here = index[state]
                owing = list(model.owing(state))
                sure: list[tuple[int, str]] = []
                for label, after, kind in model.steps(state):
                    transitions += 1
                    there = index.get(after)
                    if there is None:
                        if len(index) >= self._max_states:
                            complete = False
                            continue
                        there = self._enter(after, here, label)
                        following.append(after)
                    if owing and kind == SURE:
                        sure.append((there, label))
                for name in owing:
                    self._owing.setdefault(name, set()).add(here)
                if owing:
                    self._sure[here] = sure
            if following:
                depth += 1
            level = following
        if complete and not (self._stop_at_first and self._violations):
            for name, region in self._owing.items():
                if name not in self._violations:
                    self._judge(name, region)
        found = tuple(self._violations.values())
        return Explored(len(index), transitions, depth, time.monotonic() - begun_s, complete, found)

    def _enter(self, state: S, parent: int, label: str) -> int:
        number = self._index[state] = len(self._parents)
        self._parents.append(parent)
        self._labels.append(label)
        for name in self._model.wrong(state):
            if name not in self._violations:
                self._violations[name] = Violation(name, self._way_to(number), "")
        return number

    def _way_to(self, number: int) -> tuple[str, ...]:
        way: list[str] = []
        while number > 0:
            way.append(self._labels[number])
            number = self._parents[number]
        return tuple(reversed(way))

    def _judge(self, name: str, region: set[int]) -> None:
        """Every walk of sure steps must leave the region: look for one that stops in the region, or circles in it."""
        ends = [number for number in region if not self._sure[number]]
        found: list[tuple[int, int, tuple[str, ...]]] = [(len(self._way_to(number)), number, ()) for number in ends]
        done: set[int] = set()
        for start in sorted(region):  # in the order of their visits: the first cycle is one of the nearest
            if start not in done and (cycle := self._cycle_from(start, region, done)) is not None:
                found.append((len(self._way_to(cycle[0])), *cycle))
                break
        if not found:
            return
        _, number, cycle_steps = min(found, key=lambda entry: entry[:2])
        end = f"and then forever: {'; '.join(cycle_steps)}" if cycle_steps else "and nothing more happens"
        self._violations[name] = Violation(name, self._way_to(number), end)

    def _cycle_from(self, start: int, region: set[int], done: set[int]) -> tuple[int, tuple[str, ...]] | None:
        """A new cycle of sure steps within the region, reachable from `start`, or None."""
        path: dict[int, str] = {}  # the current walk: each state with the step taken out of it
        stack = [(start, iter(self._sure[start]))]
        path[start] = ""
        while stack:
            here, steps = stack[-1]
            for there, label in steps:
                if there not in region or there in done:
                    continue
                path[here] = label
                if there in path:
                    states = list(path)
                    return there, tuple(path[number] for number in states[states.index(there) :])
                path[there] = ""
                stack.append((there, iter(self._sure[there])))
                break
            else:
                done.add(here)
                del path[here]
                stack.pop()
        return None
