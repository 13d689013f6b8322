"""Name resolution in the gateway's own source, for the purity check.

Resolves names, base classes and annotations to imports, project classes, project functions or typed values. A name that is bound
twice, or bound from another module, resolves to UnknownType. File contents can be replaced in memory, so a mutant is read like
a file on disk. Nothing is executed and no installed package is read.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gw import ROOT
from gw.verify.purity.kinds import NONE, Callback, Class, Function, Of, Ours, Outside, Type, UnknownType, Value, one
from gw.verify.purity.module_source import ClassInfo, FunctionInfo, ModuleInfo, module_of, module_on_disk

PACKAGES: Final = ("gw", "metrics")


class Project:
    """All source files. `replaced`: file contents by path, instead of those on disk."""

    def __init__(self, replaced: Mapping[str, str] | None = None, root: Path = ROOT) -> None:
        self.modules: dict[str, ModuleInfo] = {}
        self.classes: dict[str, ClassInfo] = {}
        #: Attributes assigned on an object other than `self`, with the place.
        self.foreign_stores: dict[str, str] = {}
        replaced = replaced or {}
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                relative = str(path.relative_to(root))
                text = replaced.get(relative)
                module = (
                    module_of(text, relative) if text is not None else module_on_disk(path, relative, path.stat().st_mtime_ns)
                )
                self.modules[module.name] = module
                self.classes.update(module.classes)
                for attribute, line in module.foreign_stores.items():
                    self.foreign_stores.setdefault(attribute, f"{relative}:{line}")
        self._subclasses = self._find_subclasses()

    def function(self, dotted: str) -> FunctionInfo:
        """Find a function by its dotted name, `package.module.Class.method`. Raises KeyError."""
        owner, name = dotted.rsplit(".", 1)
        return self.classes[owner].methods[name][0]

    # -- classes ------------------------------------------------------------------------------------------------------

    def lineage(self, cls: ClassInfo) -> list[ClassInfo | str]:
        """The class and its bases, depth first. A base outside the project is a dotted name."""
        found: list[ClassInfo | str] = [cls]
        for base in cls.node.bases:
            target = self.resolve(cls.module, base.value if isinstance(base, ast.Subscript) else base)
            if isinstance(target, Class):
                found += self.lineage(target.cls)
            else:
                found.append(target.name if isinstance(target, Outside) else ast.unparse(base))
        return found

    def family(self, cls: ClassInfo) -> list[ClassInfo]:
        """The class and its subclasses: all types that an annotation allows."""
        return [cls, *(heir for child in self._subclasses.get(cls.name, ()) for heir in self.family(child))]

    def _find_subclasses(self) -> dict[str, list[ClassInfo]]:
        found: dict[str, list[ClassInfo]] = {}
        for cls in self.classes.values():
            for base in cls.node.bases:
                target = self.resolve(cls.module, base.value if isinstance(base, ast.Subscript) else base)
                if isinstance(target, Class):
                    found.setdefault(target.cls.name, []).append(cls)
        return found

    # -- names --------------------------------------------------------------------------------------------------------

    def resolve(self, module: ModuleInfo, node: ast.expr) -> Type:
        """Resolve `Name` or `module.Name` at module level."""
        if isinstance(node, ast.Name):
            return self.lookup(module, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(module, node.value)
            if isinstance(owner, Outside):
                return self.dotted(f"{owner.name}.{node.attr}")
        return UnknownType(f"{ast.unparse(node)} is not a name of a module")

    def lookup(self, module: ModuleInfo, name: str) -> Type:
        """Resolve a name of a module or a builtin. The evaluator finds the type of a value."""
        bound = module.bindings.get(name, [])
        if "*" in module.bindings:
            return UnknownType(f"{module.path} imports every name of another module")
        if not bound:
            if hasattr(builtins, name):
                return Outside(f"builtins.{name}")
            return UnknownType(f"{name} is bound nowhere in {module.path}")
        if len(bound) > 1:
            return UnknownType(f"{name} is bound more than once in {module.path}")
        if name in module.imports:
            return self.dotted(module.imports[name])
        node = bound[0]
        if isinstance(node, ast.ClassDef):
            return Class(self.classes[f"{module.name}.{name}"])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return Function(FunctionInfo(module, name, node), bound=False)
        return UnknownType(f"{name} of {module.path} is a value")

    def dotted(self, dotted: str) -> Type:
        """Resolve an imported name: a project definition, or a name outside."""
        if dotted in self.modules:
            return Outside(dotted)
        owner, _, name = dotted.rpartition(".")
        if owner in self.modules:
            return self.lookup(self.modules[owner], name)
        return Outside(dotted)

    def constant(self, module: ModuleInfo, name: str) -> tuple[ModuleInfo, ast.Assign | ast.AnnAssign] | None:
        """Find the single assignment of a module-level value, following imports."""
        if name in module.imports:
            owner, _, name = module.imports[name].rpartition(".")
            if owner not in self.modules:
                return None
            module = self.modules[owner]
        bound = module.bindings.get(name, [])
        if len(bound) == 1 and isinstance(bound[0], ast.Assign | ast.AnnAssign):
            return module, bound[0]
        return None

    # -- annotations --------------------------------------------------------------------------------------------------

    def annotation(self, module: ModuleInfo, node: ast.expr | None) -> Value:
        """Values that an annotation allows."""
        if node is None:
            return one(UnknownType("the annotation is missing"))
        if isinstance(node, ast.Constant):
            if node.value is None:
                return NONE
            if isinstance(node.value, str):
                return self.annotation(module, ast.parse(node.value, mode="eval").body)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self.annotation(module, node.left) | self.annotation(module, node.right)
        if isinstance(node, ast.Subscript):
            target = self.resolve(module, node.value)
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if isinstance(target, Outside):
                if target.name in ("typing.Final", "typing.ClassVar", "typing.Annotated"):
                    return self.annotation(module, inner[0])
                if target.name == "typing.Optional":
                    return self.annotation(module, inner[0]) | NONE
                if target.name.endswith(".Callable"):
                    return one(Callback())
                parts = [self.annotation(module, part) for part in inner if not _is_ellipsis(part)]
                return one(Of(target.name, tuple(parts)))
            return self.annotation(module, node.value)
        target = self.resolve(module, node)
        if isinstance(target, Class):
            return one(Ours(target.cls))
        if isinstance(target, Outside):
            if target.name.endswith((".Any", ".object")):
                return one(UnknownType(f"the annotation {ast.unparse(node)} allows any type"))
            return one(Callback()) if target.name.endswith(".Callable") else one(Of(target.name))
        return one(
            target if isinstance(target, UnknownType) else UnknownType(f"the annotation {ast.unparse(node)} is not a type")
        )


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis
