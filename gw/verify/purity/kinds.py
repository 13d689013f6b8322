"""Abstract values of the purity check.

A value is a set of types, one for each way an expression can be computed. `project_source` resolves names to these, `evaluator`
computes them for expressions. An expression that cannot be followed is an UnknownType with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gw.verify.purity.module_source import ClassInfo, FunctionInfo


@dataclass(frozen=True)
class UnknownType:
    """A value the check cannot follow. `reported`: the reason is already a finding."""

    why: str
    reported: bool = False


@dataclass(frozen=True)
class Outside:
    """A dotted name of a library or a builtin: function, class or module."""

    name: str


@dataclass(frozen=True)
class Of:
    """An instance of a library type or a builtin type."""

    name: str
    args: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Ours:
    """An instance of a project class."""

    cls: ClassInfo


@dataclass(frozen=True)
class Function:
    """A project function, plain or bound to an instance."""

    info: FunctionInfo
    bound: bool


@dataclass(frozen=True)
class Method:
    """A bound method of a library type or a builtin type."""

    name: str
    owner: Of


@dataclass(frozen=True)
class Tuple:
    """A tuple display, by its elements."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Class:
    """A project class itself."""

    cls: ClassInfo


@dataclass(frozen=True)
class Callback:
    """A parameter annotated as Callable; each call gives its value."""


Type = UnknownType | Outside | Of | Ours | Function | Method | Tuple | Class | Callback
Value = frozenset[Type]


def one(kind: Type) -> Value:
    return frozenset((kind,))


def builtin(name: str, *args: Value) -> Value:
    return one(Of(f"builtins.{name}", args))


NONE: Final = builtin("None")
