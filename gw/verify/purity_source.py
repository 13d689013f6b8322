"""The gateway's own source as the purity check reads it: modules, names, classes, functions and annotations, never imported.

Decides what a name means: an import, a class or a function of ours, a value with a type. A name that is bound twice, or from
elsewhere, has no meaning here, and whoever asks for it gets an Unknown. Text can be replaced in memory, so that a mutant is read
as if it stood on disk. Never executes anything, never looks at an installed package.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("gw", "metrics")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


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


@dataclass(eq=False)
class FunctionInfo:
    """A function or method. `parent`: the function it is defined in, if any."""

    module: ModuleInfo
    qualname: str
    node: FunctionNode
    cls: ClassInfo | None = None
    parent: FunctionInfo | None = None

    @property
    def name(self) -> str:
        """With its module, as an allow-list entry names it."""
        return f"{self.module.name}.{self.qualname}"


@dataclass(eq=False)
class ClassInfo:
    """A class: its bases as written, its methods, and what its body declares."""

    module: ModuleInfo
    node: ast.ClassDef
    methods: dict[str, list[FunctionInfo]] = field(default_factory=dict)
    bindings: dict[str, int] = field(default_factory=dict)  # how often its body binds a name

    @property
    def name(self) -> str:
        return f"{self.module.name}.{self.node.name}"


@dataclass(eq=False)
class ModuleInfo:
    """One file. `bindings`: every statement that binds a name at module level, or that declares it global."""

    name: str
    path: str  # relative to the project
    tree: ast.Module
    bindings: dict[str, list[ast.stmt | ast.alias]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # name here: dotted origin
    classes: dict[str, ClassInfo] = field(default_factory=dict)
    foreign_stores: dict[str, int] = field(default_factory=dict)  # attribute assigned on anything but `self`: line


class Project:
    """All sources. `replaced`: text by path, in place of what stands on disk."""

    def __init__(self, replaced: Mapping[str, str] | None = None, root: Path = ROOT) -> None:
        self.modules: dict[str, ModuleInfo] = {}
        self.classes: dict[str, ClassInfo] = {}
        #: Attributes that somebody assigns on an object other than his own `self`, with the place.
        self.foreign_stores: dict[str, str] = {}
        replaced = replaced or {}
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                relative = str(path.relative_to(root))
                text = replaced.get(relative)
                module = _module(text, relative) if text is not None else _module_of(path, relative, path.stat().st_mtime_ns)
                self.modules[module.name] = module
                self.classes.update(module.classes)
                for attribute, line in module.foreign_stores.items():
                    self.foreign_stores.setdefault(attribute, f"{relative}:{line}")
        self._subclasses = self._find_subclasses()

    def function(self, dotted: str) -> FunctionInfo:
        """`package.module.Class.method`. Raises KeyError."""
        owner, name = dotted.rsplit(".", 1)
        return self.classes[owner].methods[name][0]

    # -- classes ------------------------------------------------------------------------------------------------------

    def lineage(self, cls: ClassInfo) -> list[ClassInfo | str]:
        """The class and its bases, depth first; a base that is not ours by its dotted name."""
        found: list[ClassInfo | str] = [cls]
        for base in cls.node.bases:
            target = self.resolve(cls.module, base.value if isinstance(base, ast.Subscript) else base)
            if isinstance(target, Class):
                found += self.lineage(target.cls)
            else:
                found.append(target.name if isinstance(target, Outside) else ast.unparse(base))
        return found

    def family(self, cls: ClassInfo) -> list[ClassInfo]:
        """The class and all that inherit from it: what stands behind an annotation."""
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
        """What an expression of names means at module level: `Name`, `module.Name`."""
        if isinstance(node, ast.Name):
            return self.lookup(module, node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(module, node.value)
            if isinstance(owner, Outside):
                return self.dotted(f"{owner.name}.{node.attr}")
        return Unknown(f"{ast.unparse(node)} is no name of a module")

    def lookup(self, module: ModuleInfo, name: str) -> Type:
        """A name of a module, or a builtin one; a value's type is the evaluator's to say."""
        bound = module.bindings.get(name, [])
        if "*" in module.bindings:
            return Unknown(f"{module.path} imports every name of another module")
        if not bound:
            if hasattr(builtins, name):
                return Outside(f"builtins.{name}")
            return Unknown(f"{name} is bound nowhere in {module.path}")
        if len(bound) > 1:
            return Unknown(f"{name} is bound more than once in {module.path}")
        if name in module.imports:
            return self.dotted(module.imports[name])
        node = bound[0]
        if isinstance(node, ast.ClassDef):
            return Class(self.classes[f"{module.name}.{name}"])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return Function(FunctionInfo(module, name, node), bound=False)
        return Unknown(f"{name} of {module.path} is a value")

    def dotted(self, dotted: str) -> Type:
        """An imported name: ours if one of our modules holds it."""
        if dotted in self.modules:
            return Outside(dotted)
        owner, _, name = dotted.rpartition(".")
        if owner in self.modules:
            return self.lookup(self.modules[owner], name)
        return Outside(dotted)

    def constant(self, module: ModuleInfo, name: str) -> tuple[ModuleInfo, ast.Assign | ast.AnnAssign] | None:
        """The one assignment behind a module's value, wherever it was imported from."""
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
        """The values an annotation allows."""
        if node is None:
            return one(Unknown("there is no annotation"))
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
                return one(Unknown(f"the annotation {ast.unparse(node)} says nothing"))
            return one(Callback()) if target.name.endswith(".Callable") else one(Of(target.name))
        return one(target if isinstance(target, Unknown) else Unknown(f"the annotation {ast.unparse(node)} is no type"))


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


@cache
def _module_of(path: Path, relative: str, stamp: int) -> ModuleInfo:
    return _module(path.read_text(), relative)


def _module(text: str, relative: str) -> ModuleInfo:
    """Read one file. What is made of it is never changed, so that many projects can share it."""
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
    """Enter every binding of a name at module level, those inside `if` and `try` too, and every `global` of a function."""
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
    """The statements of a module or class, those inside compound statements too, but not those of functions and classes."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _level(getattr(node, part, []))
            for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                yield inner
                yield from _level(inner.body)


def _bound(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> Iterator[tuple[str, ast.stmt | ast.alias]]:
    """The names a statement binds itself, not by what stands inside it."""
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
