"""What the purity check notes while it reads: operations, findings, and where they stand; the base of its evaluator.

`quiet` evaluation is for types alone: nothing is noted, and what could not be followed is said where it is used.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from gw.verify.purity.kinds import Unknown, Value, one
from gw.verify.purity.module_source import FunctionInfo, ModuleInfo
from gw.verify.purity.project_source import Project

if TYPE_CHECKING:
    from gw.verify.purity.evaluator import Reach

Kind = str


class Place(NamedTuple):
    """A line in a function."""

    path: str
    line: int
    function: str  # its qualified name within the module

    def __str__(self) -> str:
        return f"{self.path}:{self.line} in {self.function}"


class Operation(NamedTuple):
    """Something TX can do. `kind`: call, write, item, try, while, slice, build, hand, operator, load or a forbidden construct."""

    kind: Kind
    name: str
    place: Place


class Finding(NamedTuple):
    """Something the check cannot follow."""

    what: str
    place: Place


class Notes(ABC):
    """One function under evaluation, and the pen."""

    def __init__(self, reach: Reach, info: FunctionInfo, *, quiet: bool) -> None:
        self.reach = reach
        self.project: Project = reach.project
        self.info = info
        self.module: ModuleInfo = info.module
        self.quiet = quiet
        self.names: dict[str, Value] = {}
        self.parent: Notes | None = None

    @abstractmethod
    def value(self, node: ast.expr, *, unpacked: bool = False) -> Value:
        """The types an expression can have."""

    def place(self, node: ast.AST) -> Place:
        return Place(self.module.path, getattr(node, "lineno", self.info.node.lineno), self.info.qualname)

    def note(self, node: ast.AST, kind: Kind, name: str) -> None:
        if not self.quiet:
            self.reach.operations[Operation(kind, name, self.place(node))] = None

    def finding(self, node: ast.AST, what: str) -> Value:
        if not self.quiet:
            self.reach.findings[Finding(what, self.place(node))] = None
        return self.lost(what)

    def lost(self, why: str) -> Value:
        """What follows from a finding: nothing is said of it again. Where nothing is noted, it was not said yet."""
        return one(Unknown(why, told=not self.quiet))

    def unknown(self, node: ast.AST, value: Value, doing: str) -> bool:
        """Whether the value holds something nobody knows; says so once."""
        for kind in value:
            if isinstance(kind, Unknown):
                if not kind.told:
                    self.finding(node, f"{doing}: {kind.why}")
                return True
        return False
