"""A defect of the dialogue machine, and the short form of a part's table."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from gw.verify.changes import Change
from gw.verify.conversation.state import Scenario


class Mutant(NamedTuple):
    """A defect of the machine. `scenario`: exposes it."""

    name: str
    change: Change
    scenario: Scenario


class Row(NamedTuple):
    """A mutant of one function. Its source has `old` once and gets `new` there; by default a statement is dropped."""

    name: str
    scenario: Scenario
    old: str
    new: str = "pass"


def mutants(part: ModuleType | type, **functions: tuple[Row, ...]) -> tuple[Mutant, ...]:
    """Return the mutants of a part of the machine, by the names of its functions. `part`: a module, or a class."""
    place = f"{part.__name__}:" if isinstance(part, ModuleType) else f"{part.__module__}:{part.__name__}."
    return tuple(
        Mutant(row.name, Change(place + function, row.old, row.new), row.scenario)
        for function, rows in functions.items()
        for row in rows
    )
