"""Explores every state a model can reach, breadth first, and says which invariants hold.

A model gives its first states, the steps out of a state, and what is wrong with one. States are hashed: each is looked at once,
by the shortest way there. Two kinds of invariants are judged: a state that must not be (`wrong`), and a region that must be left
again (`owing`): there, steps that nobody can prevent must lead out, so a state without such a step, or a circle of them, is a
violation. Stops at the first violation of each invariant, and at a bound on the states, which it says. Knows nothing of what the
states mean.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

#: A step that will be taken, by somebody, if nothing else happens first.
SURE: Final = "sure"
#: A step that may be taken and may never be.
FREE: Final = "free"


class Step(NamedTuple, Generic[S]):
    """One step out of a state."""

    label: str
    state: S
    kind: str


class Model(Protocol[S]):
    """What is explored."""

    def first(self) -> S: ...

    def steps(self, state: S) -> Sequence[Step[S]]: ...

    def wrong(self, state: S) -> Iterable[str]:
        """The invariants this state violates, by name."""
        ...

    def owing(self, state: S) -> Iterable[str]:
        """The invariants that want this state left."""
        ...


class Violation(NamedTuple):
    """An invariant that does not hold, and the shortest way to where it breaks."""

    invariant: str
    steps: tuple[str, ...]
    end: str  # in words, what is wrong there


class Explored(NamedTuple):
    """What an exploration saw. `complete`: no bound cut it short."""

    states: int
    transitions: int
    depth: int
    took_s: float
    complete: bool
    violations: tuple[Violation, ...]


class Explorer(Generic[S]):
    """One exploration of a model. `max_states` bounds memory; beyond it nothing new is entered.

    `stop_at_first`: a wrong state ends it with its level; what is owed is then not judged.
    """

    def __init__(self, model: Model[S], *, max_states: int, stop_at_first: bool = False) -> None:
        self._model = model
        self._max_states = max_states
        self._stop_at_first = stop_at_first
        self._index: dict[S, int] = {}
        self._parents: list[int] = []
        self._labels: list[str] = []
        self._owing: dict[str, set[int]] = {}
        self._sure: dict[int, list[tuple[int, str]]] = {}  # the sure steps out of states that owe something
        self._violations: dict[str, Violation] = {}

    def run(self) -> Explored:
        """Explore until everything was seen."""
        collects = gc.isenabled()
        gc.disable()  # states are tuples of values, without circles: looking for some costs a third of the time
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
        """Every walk of sure steps must leave the region: look for one that stops in it or goes round in it."""
        ends = [number for number in region if not self._sure[number]]
        found: list[tuple[int, int, tuple[str, ...]]] = [(len(self._way_to(number)), number, ()) for number in ends]
        done: set[int] = set()
        for start in sorted(region):  # as they were reached: the first circle is one of the nearest
            if start not in done and (circle := self._circle_from(start, region, done)) is not None:
                found.append((len(self._way_to(circle[0])), *circle))
                break
        if not found:
            return
        _, number, circle_steps = min(found, key=lambda entry: entry[:2])
        end = f"and then for ever: {'; '.join(circle_steps)}" if circle_steps else "and nothing more happens"
        self._violations[name] = Violation(name, self._way_to(number), end)

    def _circle_from(self, start: int, region: set[int], done: set[int]) -> tuple[int, tuple[str, ...]] | None:
        """A circle of sure steps within the region, met from `start`; None when there is none not seen before."""
        path: dict[int, str] = {}  # the walk under way: each state with the step taken out of it
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
