"""What an expression of the gateway's source may be, as far as the purity check can tell: its kinds of value.

A value is a set of kinds, one for each way it may have come about. Decides nothing: `purity_source` says what a name means,
`purity_values` what an expression is. What cannot be followed is an Unknown that says why, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gw.verify.purity.module_source import ClassInfo, FunctionInfo


@dataclass(frozen=True)
class Unknown:
    """Something the check cannot follow. `told`: the reason is a finding already."""

    why: str
    told: bool = False


@dataclass(frozen=True)
class Outside:
    """A name of a library or a builtin, dotted: a function, a class or a module, whatever it is there."""

    name: str


@dataclass(frozen=True)
class Of:
    """An instance of a type of a library, or of a builtin one."""

    name: str
    args: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Ours:
    """An instance of a class of ours."""

    cls: ClassInfo


@dataclass(frozen=True)
class Function:
    """A function of ours, plain or bound to an instance."""

    info: FunctionInfo
    bound: bool


@dataclass(frozen=True)
class Method:
    """A method of a library's or builtin type, bound."""

    name: str
    owner: Of


@dataclass(frozen=True)
class Tuple:
    """A tuple just built, by its parts."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Class:
    """A class of ours itself."""

    cls: ClassInfo


@dataclass(frozen=True)
class Callback:
    """A parameter annotated as Callable: what it is, each call says."""


Type = Unknown | Outside | Of | Ours | Function | Method | Tuple | Class | Callback
Value = frozenset[Type]


def one(kind: Type) -> Value:
    return frozenset((kind,))


def builtin(name: str, *args: Value) -> Value:
    return one(Of(f"builtins.{name}", args))


NONE: Final = builtin("None")
