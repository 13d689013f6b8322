"""Changes of production code during a test: functions with other source, constants with other values."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Change:
    """`place`: `module:function` or `module:Class.method`, whose source has `old` once and gets `new` there."""

    def __init__(self, place: str, old: str, new: str) -> None:
        self.place = place
        self._old = old
        self._new = new

    def make(self) -> tuple[Any, str, Any]:
        """The owner of the attribute, its name, its new value."""
        module_name, _, path = self.place.partition(":")
        module = sys.modules[module_name]
        owner: Any = module
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        assert source.count(self._old) == 1, f"{self.place} has {self._old!r} {source.count(self._old)} times"
        changed = source.replace(self._old, self._new)
        made: dict[str, Any] = {}
        code = compile(changed, f"<changed {self.place}>", "exec", flags=__future__.annotations.compiler_flag)
        exec(code, module.__dict__, made)
        return owner, name, made[name]


class Value(Change):
    """A constant of a module with another value."""

    def __init__(self, place: str, value: object) -> None:
        super().__init__(place, "", "")
        self._value = value

    def make(self) -> tuple[Any, str, Any]:
        module_name, _, name = self.place.partition(":")
        assert getattr(sys.modules[module_name], name) != self._value
        return sys.modules[module_name], name, self._value


class Cell(Value):
    """One cell of a constant that is a table in a table."""

    def __init__(self, place: str, row: object, column: object, value: object) -> None:
        module_name, _, name = place.partition(":")
        table = getattr(sys.modules[module_name], name)
        assert column in table[row]
        super().__init__(place, {**table, row: {**table[row], column: value}})


@contextmanager
def changed(change: Change) -> Iterator[None]:
    """Production code with this change, wherever it was imported by name too."""
    owner, name, value = change.make()
    before = inspect.getattr_static(owner, name)
    modules = [sys.modules[change.place.partition(":")[0]]]
    if not isinstance(change, Value):  # small numbers are shared by chance
        modules = [module for module_name, module in list(sys.modules.items()) if module_name.startswith("gw.")]
    tables = [
        (table, key)
        for module in modules
        for table in list(vars(module).values())
        if isinstance(table, dict)
        for key, entry in list(table.items())
        if entry is before
    ]
    holders = [owner]
    if inspect.ismodule(owner):
        holders += [module for module in modules if module is not owner and getattr(module, name, None) is before]
    for holder in holders:
        setattr(holder, name, value)
    for table, key in tables:
        table[key] = value
    try:
        yield
    finally:
        for holder in holders:
            setattr(holder, name, before)
        for table, key in tables:
            table[key] = before
