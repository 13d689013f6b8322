"""Defects put into the dialogue on purpose: `verify conversation` must find each.

A mutant is a change of one part of the machine, and the scenario that exposes it. So the tables show which rule guards which
line. Each table has the name of the part in `gw/call/dialogue` that it changes; `defects` has the form of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from gw.verify.changes import changed
from gw.verify.conversation import check
from gw.verify.conversation.mutants import (
    answers,
    ending,
    facts,
    keys,
    machine,
    playback,
    responses,
    rules,
    sessions,
    silence,
    speech,
    tools,
)
from gw.verify.conversation.mutants.defects import Mutant

_PARTS: Final = (machine, rules, facts, speech, responses, answers, playback, silence, keys, tools, sessions, ending)
MUTANTS: Final = tuple(mutant for part in _PARTS for mutant in part.MUTANTS)


class Caught(NamedTuple):
    """One mutant's fate. `rules`: those it breaks; empty: no scenario noticed."""

    mutant: Mutant
    rules: tuple[str, ...]
    transcript: tuple[str, ...]


def hunt(mutants: Sequence[Mutant], on_caught: Callable[[Caught], None] = lambda caught: None) -> list[Caught]:
    """Put in each mutant, one after the other, and explore its scenario."""
    found = []
    for mutant in mutants:
        with changed(mutant.change):
            explored = check.explore(mutant.scenario, stop_at_first=True)
            if not explored.violations:  # a region that is never left shows at the end of the search only
                explored = check.explore(mutant.scenario)
        violations = explored.violations
        broken = tuple(sorted(one.invariant for one in violations))
        found.append(Caught(mutant, broken, violations[0].steps if violations else ()))
        on_caught(found[-1])
    return found
