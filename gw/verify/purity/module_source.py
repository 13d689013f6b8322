"""Names bound by one source file, for the purity check.

A name is bound at module or class level by a definition, import or assignment, also inside `if` and `try`, and by a `global`
statement of a function. Nothing is executed and no import is followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(eq=False)
class FunctionInfo:
    """A function or method. `parent` is the enclosing function, if any."""

    module: ModuleInfo
    qualname: str
    node: FunctionNode
    cls: ClassInfo | None = None
    parent: FunctionInfo | None = None

    @property
    def name(self) -> str:
        """Qualified name with its module, as in an allow-list entry."""
        return f"{self.module.name}.{self.qualname}"


@dataclass(eq=False)
class ClassInfo:
    """A class with its methods and the names its body binds."""

    module: ModuleInfo
    node: ast.ClassDef
    methods: dict[str, list[FunctionInfo]] = field(default_factory=dict)
    bindings: dict[str, int] = field(default_factory=dict)  # name: number of bindings in the body

    @property
    def name(self) -> str:
        return f"{self.module.name}.{self.node.name}"


@dataclass(eq=False)
class ModuleInfo:
    """One file. `bindings` counts module-level bindings and `global` statements by name."""

    name: str
    path: str  # relative to the project
    tree: ast.Module
    bindings: dict[str, list[ast.stmt | ast.alias]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # name here: dotted origin
    classes: dict[str, ClassInfo] = field(default_factory=dict)
    foreign_stores: dict[str, int] = field(default_factory=dict)  # attribute assigned on anything but `self`: line


@cache
def module_on_disk(path: Path, relative: str, stamp: int) -> ModuleInfo:
    """Read and cache a file in its version of `stamp`."""
    return module_of(path.read_text(), relative)


def module_of(text: str, relative: str) -> ModuleInfo:
    """Parse one file. The result is never changed, so projects can share it."""
    name = relative.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    module = ModuleInfo(name, relative, ast.parse(text, relative))
    _bind(module)
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef):
            module.classes[f"{name}.{node.name}"] = _class(module, node)
    return module


def _class(module: ModuleInfo, node: ast.ClassDef) -> ClassInfo:
    cls = ClassInfo(module, node)
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            info = FunctionInfo(module, f"{node.name}.{item.name}", item, cls)
            cls.methods.setdefault(item.name, []).append(info)
    for inner in _level(node.body):
        for name, _ in _bound(inner):
            cls.bindings[name] = cls.bindings.get(name, 0) + 1
    return cls


def _bind(module: ModuleInfo) -> None:
    """Record every module-level binding, also inside `if` and `try`, and every `global` of a function."""
    for node in _level(module.tree.body):
        for name, binding in _bound(node):
            module.bindings.setdefault(name, []).append(binding)
            if isinstance(node, ast.ImportFrom):
                assert isinstance(binding, ast.alias)
                module.imports[name] = f"{node.module}.{binding.name}"
            elif isinstance(binding, ast.alias):
                module.imports[name] = binding.name if binding.asname else name
    for inner in ast.walk(module.tree):
        if isinstance(inner, ast.Global):
            for name in inner.names:
                module.bindings.setdefault(name, []).append(inner)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store | ast.Del):
            if not (isinstance(inner.value, ast.Name) and inner.value.id == "self"):
                module.foreign_stores.setdefault(inner.attr, inner.lineno)
        elif isinstance(inner, ast.Call) and ast.unparse(inner.func).endswith(
            ("setattr", "delattr", "__setattr__", "__delattr__")
        ):
            for argument in inner.args:
                if isinstance(argument, ast.Constant):
                    module.foreign_stores.setdefault(str(argument.value), inner.lineno)


def _level(body: list[ast.stmt]) -> Iterator[ast.stmt | ast.ExceptHandler | ast.match_case]:
    """Statements of a module or class, including nested compound statements but not functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _level(getattr(node, part, []))
            for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                yield inner
                yield from _level(inner.body)


def _bound(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> Iterator[tuple[str, ast.stmt | ast.alias]]:
    """Names bound by a statement itself, not by statements nested in it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, node
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else alias.name.partition(".")[0]), alias
    else:
        name = getattr(node, "name", None)
        if isinstance(name, str):
            yield name, ast.Pass()
        holder = node if isinstance(node, ast.stmt) else ast.Pass()
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                for inner in ast.walk(child):
                    if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store | ast.Del):
                        yield inner.id, holder
                    elif isinstance(inner, ast.MatchAs | ast.MatchStar) and inner.name:
                        yield inner.name, holder
