"""What TX can possibly do, read from the source: every operation reachable from an entry point, each resolved or refused.

Strategy: functions are evaluated with types in place of values. Parameters have the types of their annotations, attributes those
of their assignments in the class, results those of the callee; every call of ours is followed, every call that leaves the
project is a leaf. Whatever the evaluator does not know is a finding, not a guess: a construct, a decorator, a base class, a name
bound twice, a method somebody else assigns. An operation is noted with its place; whether it is allowed, `gw.verify.purity.check` says.

Not noted, since no code of anyone runs in them: arithmetic and comparison of numbers and strings, truth of builtin values,
loading a plain attribute of an object of ours, an index into a list, tuple or memoryview.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

from gw.verify.purity.attributes import HOOKS
from gw.verify.purity.kinds import Callback, Function, Of, Ours, Outside, Type, Unknown, Value, one
from gw.verify.purity.module_source import ClassInfo, FunctionInfo
from gw.verify.purity.notes import Finding, Operation, Place
from gw.verify.purity.project_source import Project
from gw.verify.purity.values import Values

#: Passes over a function until the types of its variables stand; more would be a mistake here.
_PASSES: Final = 6


class Reach:
    """Everything reachable from the entry points, as `operations`, `functions` and `findings`."""

    def __init__(self, project: Project, returns: Mapping[str, str]) -> None:
        """`returns`: what the allowed leaves give back, types joined by `|`; `item` is the element of a container."""
        self.project = project
        self.returns = returns
        self.operations: dict[Operation, None] = {}
        self.findings: dict[Finding, None] = {}
        self.functions: dict[str, FunctionInfo] = {}
        self._pending: list[tuple[FunctionInfo, dict[str, Value]]] = []
        self._seen: set[tuple[str, tuple[tuple[str, Value], ...]]] = set()
        self._attributes: dict[tuple[str, str], Value | None] = {}
        self._edges: dict[str, set[str]] = {}

    def follow(self, entry: FunctionInfo) -> None:
        """Evaluate the entry point and all it reaches."""
        self.enqueue(entry, {})
        while self._pending:
            info, given = self._pending.pop()
            self.functions[info.name] = info
            _Evaluator(self, info, given).run()
        self._find_recursion(entry)

    def enqueue(self, info: FunctionInfo, given: dict[str, Value]) -> None:
        """Let a function be evaluated; `given`: what the call passes for its parameters that are callables."""
        key = (f"{info.name}:{info.node.lineno}", tuple(sorted(given.items())))
        if key not in self._seen:
            self._seen.add(key)
            self._pending.append((info, given))

    def call(self, caller: FunctionInfo, callee: FunctionInfo) -> None:
        self._edges.setdefault(caller.name, set()).add(callee.name)

    def _find_recursion(self, entry: FunctionInfo) -> None:
        done: set[str] = set()

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                info = self.functions[name]
                place = Place(info.module.path, info.node.lineno, info.qualname)
                self.findings[Finding(f"{name} can call itself: no bound on its time", place)] = None
            elif name not in done:
                for callee in sorted(self._edges.get(name, ())):
                    visit(callee, (*above, name))
                done.add(name)

        visit(entry.name, ())

    # -- attributes ---------------------------------------------------------------------------------------------------

    def instance_attribute(self, cls: ClassInfo, attribute: str) -> Value | None:
        """What the methods of a class assign to `self.attribute`; None when none does."""
        key = (cls.name, attribute)
        if key not in self._attributes:
            self._attributes[key] = frozenset()  # where its value is made of itself, the other assignments say its type
            self._attributes[key] = self._assigned(cls, attribute)
        return self._attributes[key]

    def _assigned(self, cls: ClassInfo, attribute: str) -> Value | None:
        declared: Value | None = None
        values: list[tuple[FunctionInfo, ast.expr, int | None]] = []
        for methods in cls.methods.values():
            for method in methods:
                for node in ast.walk(method.node):
                    if isinstance(node, ast.AnnAssign) and _is_self(node.target, attribute):
                        value = self.project.annotation(cls.module, node.annotation)
                        if Callback() not in value:
                            declared = (declared or frozenset()) | value
                        elif node.value is not None:
                            values.append((method, node.value, None))
                    elif isinstance(node, ast.Assign):
                        for target in node.targets:
                            if _is_self(target, attribute):
                                values.append((method, node.value, None))
                            elif isinstance(target, ast.Tuple):
                                for n, part in enumerate(target.elts):
                                    if _is_self(part, attribute):
                                        values.append((method, node.value, n))
                    elif isinstance(node, ast.NamedExpr | ast.For) and _is_self(node.target, attribute):
                        return one(Unknown(f"self.{attribute} is bound by a loop or an expression"))
        if declared is not None:
            return declared
        if not values:
            return None
        found: Value = frozenset()
        for method, expression, index in values:
            evaluator = _Evaluator(self, method, {}, quiet=True)
            evaluator.run()
            found |= evaluator.value(expression) if index is None else evaluator.part(evaluator.value(expression), index)
        return found or one(Unknown(f"{cls.node.name}.{attribute} is defined by nothing but itself"))


def _is_self(node: ast.expr, attribute: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


class _Evaluator(Values):
    """One function with types for values. `quiet`: for its types only, nothing is noted."""

    def __init__(self, reach: Reach, info: FunctionInfo, given: Mapping[str, Value], *, quiet: bool = False) -> None:
        super().__init__(reach, info, quiet=quiet)
        if info.parent is not None:
            self.parent = parent = _Evaluator(reach, info.parent, {}, quiet=True)
            parent.run()
        self._bind_parameters(given)

    def _bind_parameters(self, given: Mapping[str, Value]) -> None:
        arguments = self.info.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: dict[str, ast.expr] = {}
        for parameter, default in zip(reversed(positional), reversed(arguments.defaults), strict=False):
            defaults[parameter.arg] = default
        for parameter, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if keyword_default is not None:
                defaults[parameter.arg] = keyword_default
        for n, parameter in enumerate([*positional, *arguments.kwonlyargs]):
            if n == 0 and self.info.cls is not None and self.info.parent is None:
                self.names[parameter.arg] = one(Ours(self.info.cls))
                continue
            value = self.project.annotation(self.module, parameter.annotation)
            if Callback() in value:
                value = given.get(parameter.arg) or (
                    self.module_value(defaults[parameter.arg])
                    if parameter.arg in defaults
                    else one(Unknown(f"the parameter {parameter.arg} is a callable nobody names"))
                )
            self.names[parameter.arg] = value
        for star in (arguments.vararg, arguments.kwarg):
            if star is not None:
                self.names[star.arg] = one(Unknown(f"the parameter *{star.arg} can be anything"))

    def module_value(self, node: ast.expr) -> Value:
        """A default: evaluated where the function is defined, so by the names of the module."""
        if isinstance(node, ast.Name | ast.Attribute):
            return one(self.project.resolve(self.module, node))
        return one(Unknown(f"the default {ast.unparse(node)} is no plain name"))

    def run(self) -> None:
        """Evaluate the body until the types of its variables stand."""
        decorators = [ast.unparse(decorator) for decorator in self.info.node.decorator_list]
        if decorators and decorators != ["property"]:
            self.finding(
                self.info.node, f"{self.info.qualname} is decorated by {', '.join(decorators)}: what runs is not what stands"
            )
        if isinstance(self.info.node, ast.AsyncFunctionDef):
            self.note(self.info.node, "async", self.info.qualname)
        loud, self.quiet = self.quiet, True
        for _ in range(_PASSES):
            before = dict(self.names)
            self.block(self.info.node.body)
            if self.names == before:
                break
        self.quiet = loud
        if not self.quiet:
            self.block(self.info.node.body)

    # -- statements ---------------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr):
            if not isinstance(node.value, ast.Constant):
                self.value(node.value)
        elif isinstance(node, ast.Assign):
            value = self.value(node.value, unpacked=isinstance(node.targets[0], ast.Tuple))
            for target in node.targets:
                self.store(target, value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                value = self.value(node.value)
                declared = self.project.annotation(self.module, node.annotation)
                self.store(node.target, value if Callback() in declared else declared)
        elif isinstance(node, ast.AugAssign):
            self.augment(node)
        elif isinstance(node, ast.If):
            self.truth(node.test)
            self.block(node.body)
            self.block(node.orelse)
        elif isinstance(node, ast.While):
            self.note(node, "while", self.info.name)
            self.truth(node.test)
            self.block(node.body)
            self.block(node.orelse)
        elif isinstance(node, ast.Try):
            self.attempt(node)
        elif isinstance(node, ast.Return):
            if node.value is not None:
                self.value(node.value)
        elif not isinstance(node, ast.Pass | ast.Break | ast.Continue):
            self.forbidden_statement(node)

    def forbidden_statement(self, node: ast.stmt) -> None:
        """A construct no entry can allow without the evaluator learning it first."""
        names = {
            ast.FunctionDef: "def",
            ast.AsyncFunctionDef: "async",
            ast.ClassDef: "class",
            ast.Import: "import",
            ast.ImportFrom: "import",
            ast.With: "with",
            ast.For: "for",
            ast.Global: "global",
            ast.Nonlocal: "nonlocal",
            ast.Raise: "raise",
            ast.Assert: "assert",
            ast.Delete: "del",
        }
        kind = names.get(type(node), type(node).__name__.lower())
        text = ast.unparse(node).splitlines()[0]
        if isinstance(node, ast.FunctionDef):
            info = FunctionInfo(self.module, f"{self.info.qualname}.<locals>.{node.name}", node, self.info.cls, self.info)
            self.bind(node.name, one(Function(info, bound=False)))
        self.note(node, kind, text)
        if not self.quiet:
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.expr):
                    self.value(inner)
        if isinstance(node, ast.With | ast.For):
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    self.bind(name.id, one(Unknown(f"{name.id} comes out of a {kind}")))
            self.block(node.body)
        for alias in getattr(node, "names", []) if isinstance(node, ast.Import | ast.ImportFrom) else []:
            dotted = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            self.bind(alias.asname or alias.name.partition(".")[0], one(Outside(dotted)))

    def attempt(self, node: ast.Try) -> None:
        self.note(node, "try", self.info.name)
        self.block(node.body)
        for handler in node.handlers:
            kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
            caught = [self.project.resolve(self.module, kind) for kind in kinds]
            if not caught or not all(isinstance(kind, Outside) and kind.name.startswith("builtins.") for kind in caught):
                self.finding(handler, "the handler does not name a builtin exception")
            self.note(handler, "except", f"{self.info.name} {ast.unparse(handler.type) if handler.type else ''}".strip())
            if handler.name:
                self.bind(handler.name, frozenset(Of(kind.name) for kind in caught if isinstance(kind, Outside)))
            self.block(handler.body)
        self.block(node.orelse)
        self.block(node.finalbody)

    def augment(self, node: ast.AugAssign) -> None:
        target = node.target
        load = ast.copy_location(
            ast.Attribute(target.value, target.attr, ast.Load())
            if isinstance(target, ast.Attribute)
            else ast.Subscript(target.value, target.slice, ast.Load())
            if isinstance(target, ast.Subscript)
            else ast.Name(target.id, ast.Load()),
            target,
        )
        before = self.value(load)
        self.store(target, self.operate(node, before, node.op, self.value(node.value), in_place=True), stored=before)

    def store(self, target: ast.expr, value: Value, stored: Value | None = None) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, ast.Tuple):
            for n, part in enumerate(target.elts):
                self.store(part, self.part(value, n))
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value)
            if not self.unknown(target, owner, f"writing .{target.attr}"):
                for kind in owner:
                    self.store_attribute(target, kind)
        elif isinstance(target, ast.Subscript):
            owner = self.value(target.value)
            self.index(target.slice)
            if not self.unknown(target, owner, "writing an item"):
                for kind in owner:
                    self.note(target, "item", kind.name if isinstance(kind, Of) else repr(kind))
        else:
            self.finding(target, f"stores to {ast.unparse(target)}")

    def store_attribute(self, node: ast.Attribute, owner: Type) -> None:
        if not isinstance(owner, Ours):
            self.note(node, "write", f"{owner.name if isinstance(owner, Of | Outside) else owner}.{node.attr}")
            return
        for cls in self.project.lineage(owner.cls):
            if isinstance(cls, ClassInfo) and (node.attr in cls.methods or not HOOKS.isdisjoint(cls.methods)):
                self.finding(node, f"writing {owner.cls.node.name}.{node.attr} runs code: it is a method, a property or hooked")
        self.note(node, "write", f"{owner.cls.name}.{node.attr}")

    def bind(self, name: str, value: Value) -> None:
        self.names[name] = self.names.get(name, frozenset()) | value
