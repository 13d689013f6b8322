"""Abstract evaluation of the TX loop: every operation it can reach, resolved or reported.

Strategy: functions are evaluated with types in place of values. Parameters have the types of their annotations, attributes those
of their assignments in the class, results those of the callee. Calls of project functions are followed; a call that leaves the
project is a leaf. The evaluator never guesses: a construct, decorator or base class it does not model, a name bound twice, or a
method assigned from outside is a finding. Each operation is recorded with its place; `gw.verify.purity.check` compares it with
the allow-list.

Not recorded, because they run no Python code: arithmetic and comparison of numbers and strings, truth of builtin values, loading
a plain attribute of a project object, indexing a list, tuple or memoryview.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Mapping
from typing import Final, NamedTuple

from gw.verify.purity.kinds import (
    Callback,
    Class,
    Function,
    Method,
    Of,
    Ours,
    Outside,
    Tuple,
    Type,
    UnknownType,
    Value,
    builtin,
    one,
)
from gw.verify.purity.module_source import ClassInfo, FunctionInfo, ModuleInfo
from gw.verify.purity.project_source import Project

#: Passes over a function until the types of its variables are stable; more indicate an error in the evaluator.
_PASSES: Final = 6
#: Hooks on attribute access. The evaluator does not model a class that has one.
HOOKS: Final = frozenset({"__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__set_name__", "__get__"})
_PLAIN_BASES: Final = frozenset({"builtins.object", "typing.NamedTuple", "typing.Protocol", "typing.Generic"})
_PLAIN_DECORATORS: Final = frozenset({"typing.final"})
_NUMBERS: Final = frozenset({"builtins.int", "builtins.float", "builtins.bool"})
_PLAIN: Final = _NUMBERS | {"builtins.str", "builtins.bytes", "builtins.None"}
#: Builtin types whose truth test runs no Python code.
_TRUTHS: Final = _PLAIN | {"builtins.bytearray", "builtins.list", "builtins.tuple", "collections.deque"}
_INDEXED: Final = frozenset({"builtins.list", "builtins.tuple", "builtins.memoryview"})
#: Kinds of forbidden constructs whose name differs from that of their `ast` node in lower case.
_KINDS: Final[dict[type[ast.AST], str]] = {
    ast.FunctionDef: "def",
    ast.AsyncFunctionDef: "async",
    ast.ClassDef: "class",
    ast.ImportFrom: "import",
    ast.Delete: "del",
    ast.JoinedStr: "f-string",
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp), "comprehension"),
    ast.GeneratorExp: "generator",
    ast.YieldFrom: "yield",
    **dict.fromkeys((ast.Dict, ast.List, ast.Set), "build"),
    ast.Starred: "star-args",
    ast.NamedExpr: "walrus",
}

Kind = str


class Place(NamedTuple):
    """A source line in a function."""

    path: str
    line: int
    function: str  # its qualified name within the module

    def __str__(self) -> str:
        return f"{self.path}:{self.line} in {self.function}"


class Operation(NamedTuple):
    """An operation TX can execute. `kind` is one of the allow-list's KINDS or a forbidden construct."""

    kind: Kind
    name: str
    place: Place


class PurityFinding(NamedTuple):
    """A place that the evaluator cannot follow."""

    what: str
    place: Place


class Reach:
    """Everything reachable from the entry points, as `operations`, `functions` and `findings`."""

    def __init__(self, project: Project, returns: Mapping[str, str]) -> None:
        """`returns`: result types of allowed leaves, joined by `|`; `item` is the element type of a container."""
        self.project = project
        self.returns = returns
        self.operations: dict[Operation, None] = {}
        self.findings: dict[PurityFinding, None] = {}
        self.functions: dict[str, FunctionInfo] = {}
        self._pending: list[tuple[FunctionInfo, dict[str, Value]]] = []
        self._seen: set[tuple[str, tuple[tuple[str, Value], ...]]] = set()
        self._attributes: dict[tuple[str, str], Value | None] = {}
        self.edges: dict[str, set[str]] = {}  # a function: those it calls

    def follow(self, entry: FunctionInfo) -> None:
        """Evaluate the entry point and every function it reaches."""
        self.enqueue(entry, {})
        while self._pending:
            info, given = self._pending.pop()
            self.functions[info.name] = info
            Evaluator(self, info, given).run()
        self._find_recursion(entry)

    def enqueue(self, info: FunctionInfo, given: dict[str, Value]) -> None:
        """Queue a function for evaluation. `given`: arguments for its callable parameters."""
        key = (f"{info.name}:{info.node.lineno}", tuple(sorted(given.items())))
        if key not in self._seen:
            self._seen.add(key)
            self._pending.append((info, given))

    def _find_recursion(self, entry: FunctionInfo) -> None:
        done: set[str] = set()

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                info = self.functions[name]
                place = Place(info.module.path, info.node.lineno, info.qualname)
                self.findings[PurityFinding(f"{name} can call itself, so its time has no bound", place)] = None
            elif name not in done:
                for callee in sorted(self.edges.get(name, ())):
                    visit(callee, (*above, name))
                done.add(name)

        visit(entry.name, ())

    # -- attributes ---------------------------------------------------------------------------------------------------

    def instance_attribute(self, cls: ClassInfo, attribute: str) -> Value | None:
        """Types that the methods of a class assign to `self.attribute`; None without an assignment."""
        key = (cls.name, attribute)
        if key not in self._attributes:
            self._attributes[key] = (
                frozenset()
            )  # ends the recursion of an attribute computed from itself; its other assignments give the type
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
                        return one(UnknownType(f"self.{attribute} is bound by a loop or an expression"))
        if declared is not None:
            return declared
        if not values:
            return None
        found: Value = frozenset()
        for method, expression, index in values:
            evaluator = Evaluator(self, method, {}, quiet=True)
            evaluator.run()
            found |= evaluator.value(expression) if index is None else evaluator.part(evaluator.value(expression), index)
        return found or one(UnknownType(f"{cls.node.name}.{attribute} is only computed from itself"))


def _is_self(node: ast.expr, attribute: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )


class Evaluator:
    """One function, evaluated with types for values. A quiet evaluation computes types and records nothing."""

    def __init__(
        self, reach: Reach, info: FunctionInfo, given: Mapping[str, Value] | None = None, *, quiet: bool = False
    ) -> None:
        """`given`: the callables passed for the parameters. None leaves the parameters unbound."""
        self.reach = reach
        self.project: Project = reach.project
        self.info = info
        self.module: ModuleInfo = info.module
        self.quiet = quiet
        self.names: dict[str, Value] = {}
        self.parent: Evaluator | None = None
        if given is None:
            return
        if info.parent is not None:
            self.parent = Evaluator(reach, info.parent, {}, quiet=True)
            self.parent.run()
        self._bind_parameters(given)

    # -- results ------------------------------------------------------------------------------------------------------

    def place(self, node: ast.AST) -> Place:
        return Place(self.module.path, getattr(node, "lineno", self.info.node.lineno), self.info.qualname)

    def note(self, node: ast.AST, kind: Kind, name: str) -> None:
        if not self.quiet:
            self.reach.operations[Operation(kind, name, self.place(node))] = None

    def finding(self, node: ast.AST, what: str) -> Value:
        if not self.quiet:
            self.reach.findings[PurityFinding(what, self.place(node))] = None
        return self.lost(what)

    def lost(self, why: str) -> Value:
        """The value after a finding. A loud evaluation has reported the reason, a quiet one has not."""
        return one(UnknownType(why, reported=not self.quiet))

    def unknown(self, node: ast.AST, value: Value, doing: str) -> bool:
        """True if the value has an unknown type; reports the reason once."""
        kind = next((kind for kind in value if isinstance(kind, UnknownType)), None)
        if kind is not None and not kind.reported:
            self.finding(node, f"{doing}: {kind.why}")
        return kind is not None

    # -- the function -------------------------------------------------------------------------------------------------

    def _bind_parameters(self, given: Mapping[str, Value]) -> None:
        arguments = self.info.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        last = positional[len(positional) - len(arguments.defaults) :]
        with_default = zip((*last, *arguments.kwonlyargs), (*arguments.defaults, *arguments.kw_defaults), strict=True)
        defaults = {parameter.arg: default for parameter, default in with_default if default is not None}
        for n, parameter in enumerate([*positional, *arguments.kwonlyargs]):
            if n == 0 and self.info.cls is not None and self.info.parent is None:
                self.names[parameter.arg] = one(Ours(self.info.cls))
                continue
            value = self.project.annotation(self.module, parameter.annotation)
            if Callback() in value:
                value = given.get(parameter.arg) or (
                    self.module_value(defaults[parameter.arg])
                    if parameter.arg in defaults
                    else one(UnknownType(f"the parameter {parameter.arg} is a callable without a known value"))
                )
            self.names[parameter.arg] = value
        for star in (arguments.vararg, arguments.kwarg):
            if star is not None:
                self.names[star.arg] = one(UnknownType(f"the parameter *{star.arg} accepts any values"))

    def module_value(self, node: ast.expr) -> Value:
        """Evaluate a default in the scope of the module that defines the function."""
        if isinstance(node, ast.Name | ast.Attribute):
            return one(self.project.resolve(self.module, node))
        return one(UnknownType(f"the default {ast.unparse(node)} is not a plain name"))

    def run(self) -> None:
        """Evaluate the body until the types of its variables are stable."""
        decorators = [ast.unparse(decorator) for decorator in self.info.node.decorator_list]
        if decorators and decorators != ["property"]:
            self.finding(
                self.info.node,
                f"{self.info.qualname} is decorated by {', '.join(decorators)}: the running code differs from the source",
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
        elif isinstance(node, ast.If | ast.While):
            if isinstance(node, ast.While):
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
        """Record a construct that the evaluator does not model; no entry can allow it."""
        kind = _kind_of(node)
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
                    self.bind(name.id, one(UnknownType(f"{name.id} is bound by a {kind}")))
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
        load = copy.copy(node.target)
        load.ctx = ast.Load()
        before = self.value(load)
        self.store(node.target, self.operate(node, before, node.op, self.value(node.value), in_place=True), stored=before)

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

    # -- expressions --------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, *, unpacked: bool = False) -> Value:
        """Types an expression can have."""
        if isinstance(node, ast.Constant):
            return builtin("None") if node.value is None else builtin(type(node.value).__name__)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Subscript):
            return self.subscript(node)
        if isinstance(node, ast.BinOp):
            return self.operate(node, self.value(node.left), node.op, self.value(node.right))
        if isinstance(node, ast.Compare):
            return self.compare(node)
        if isinstance(node, ast.BoolOp):
            return frozenset[Type]().union(*(self.truth(part) for part in node.values))
        if isinstance(node, ast.UnaryOp):
            inner = self.truth(node.operand) if isinstance(node.op, ast.Not) else self.value(node.operand)
            return builtin("bool") if isinstance(node.op, ast.Not) else self.operate(node, inner, ast.Add(), inner)
        if isinstance(node, ast.IfExp):
            self.truth(node.test)
            return self.value(node.body) | self.value(node.orelse)
        if isinstance(node, ast.Tuple):
            if not unpacked:
                self.note(node, "build", f"tuple in {self.info.name}")
            return one(Tuple(tuple(self.value(part) for part in node.elts)))
        return self.forbidden_expression(node)

    def forbidden_expression(self, node: ast.expr) -> Value:
        text = ast.unparse(node)[:80]
        self.note(node, _kind_of(node), text)
        if isinstance(node, ast.List) and self.quiet:
            return builtin("list", frozenset[Type]().union(*(self.value(part) for part in node.elts)))
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and not isinstance(node, ast.Lambda):
                self.note(inner, "call", ast.unparse(inner.func))
        return one(UnknownType(f"{text} is not followed"))

    def name(self, node: ast.Name) -> Value:
        scope: Evaluator | None = self
        while scope is not None:
            if node.id in scope.names:
                return scope.names[node.id]
            scope = scope.parent
        self.not_replaced(node, node.id)
        found = self.project.constant(self.module, node.id)
        if found is not None:
            return self.constant(*found)
        return one(self.project.lookup(self.module, node.id))

    def constant(self, module: ModuleInfo, node: ast.Assign | ast.AnnAssign) -> Value:
        """Type of a module-level value: from its annotation, its literal, or the call that creates it."""
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "Final":
            return self.project.annotation(module, node.annotation)
        if isinstance(node.value, ast.Constant):
            return builtin(type(node.value.value).__name__)
        if isinstance(node.value, ast.BinOp | ast.UnaryOp) and not any(
            isinstance(part, ast.Call) for part in ast.walk(node.value)
        ):
            holder = FunctionInfo(module, "<module>", ast.parse("def _(): pass").body[0])  # type: ignore[arg-type]
            return Evaluator(self.reach, holder, quiet=True).value(node.value)
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            maker = self.project.lookup(module, node.value.func.id)
            if isinstance(maker, Function):
                return self.project.annotation(module, maker.info.node.returns)
            if isinstance(maker, Class):
                return one(Ours(maker.cls))
        return one(UnknownType(f"{ast.unparse(node)[:60]} of {module.path} has no readable type"))

    def truth(self, node: ast.expr) -> Value:
        """Evaluate a truth test, which must not run Python code."""
        value = self.value(node)
        if not self.unknown(node, value, f"the truth of {ast.unparse(node)}"):
            for kind in value:
                if isinstance(kind, Ours):
                    for cls in self.lineage(node, kind.cls):
                        if not {"__bool__", "__len__"}.isdisjoint(cls.methods):
                            self.finding(node, f"the truth of {ast.unparse(node)} runs code of {cls.name}")
                elif isinstance(kind, Of) and kind.name not in _TRUTHS:
                    self.finding(node, f"the truth of {ast.unparse(node)}, a {kind.name}, may run code")
        return value

    def compare(self, node: ast.Compare) -> Value:
        values = [self.value(part) for part in (node.left, *node.comparators)]
        if not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            for value in values:
                if not self.unknown(node, value, f"comparing in {ast.unparse(node)}"):
                    for kind in value:
                        if not isinstance(kind, Of) or kind.name not in _PLAIN:
                            self.finding(node, f"comparing in {ast.unparse(node)} may run code")
            if any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
                self.note(node, "operator", f"in of {self.info.name}")
        return builtin("bool")

    def operate(self, node: ast.AST, left: Value, op: ast.operator, right: Value, *, in_place: bool = False) -> Value:
        if self.unknown(node, left | right, "an operator"):
            return self.lost("an operator of something unknown")
        if not left or not right:
            return left | right
        names = {kind.name if isinstance(kind, Of) else str(kind) for kind in left | right}
        if names <= _NUMBERS:
            if "builtins.float" in names or isinstance(op, ast.Div):
                return builtin("float")
            return builtin("int")
        sign = type(op).__name__.lower()
        for kind in left:
            self.note(node, "operator", f"{kind.name if isinstance(kind, Of) else kind} {sign}{' in place' if in_place else ''}")
        return left

    def subscript(self, node: ast.Subscript) -> Value:
        owner = self.value(node.value)
        if self.unknown(node, owner, "an item"):
            return self.lost("an item of something unknown")
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper, node.slice.step):
                if bound is not None:
                    self.index(bound)
            for kind in owner:
                self.note(node, "slice", f"{kind.name if isinstance(kind, Of) else kind} in {self.info.name}")
            return owner
        self.index(node.slice)
        found: Value = frozenset()
        for kind in owner:
            if isinstance(kind, Of) and kind.name in _INDEXED and kind.args:
                found |= kind.args[0]
            else:
                found |= self.finding(node, f"an item of {ast.unparse(node.value)} may run code")
        return found

    def index(self, node: ast.expr) -> None:
        """Check an index: any type but a number may run code."""
        value = self.value(node)
        if not self.unknown(node, value, "an index") and not value <= builtin("int") | builtin("None"):
            self.finding(node, f"the index {ast.unparse(node)} is not a number")

    def part(self, value: Value, n: int) -> Value:
        """Types of the n-th element of an unpacked value."""
        found: Value = frozenset()
        for kind in value:
            if isinstance(kind, Tuple) and n < len(kind.parts):
                found |= kind.parts[n]
            elif isinstance(kind, Ours) and "typing.NamedTuple" in self.project.lineage(kind.cls):
                fields = [item for item in kind.cls.node.body if isinstance(item, ast.AnnAssign)]
                if n < len(fields):
                    found |= self.project.annotation(kind.cls.module, fields[n].annotation)
            elif isinstance(kind, UnknownType):
                found |= one(kind)
        return found or self.finding(self.info.node, "the unpacked value has no readable element at this position")

    # -- attributes ---------------------------------------------------------------------------------------------------

    def lineage(self, node: ast.AST, cls: ClassInfo) -> list[ClassInfo]:
        """Project classes searched for an attribute. Other bases must be plain."""
        found = []
        for base in self.project.lineage(cls):
            if isinstance(base, ClassInfo):
                found.append(base)
                decorators = [self.project.resolve(base.module, decorator) for decorator in base.node.decorator_list]
                if not all(isinstance(one_, Outside) and one_.name in _PLAIN_DECORATORS for one_ in decorators):
                    self.finding(node, f"{base.name} is decorated: the running class differs from the source")
                if base.node.keywords:
                    self.finding(node, f"{base.name} has a metaclass or class options")
                if hooks := HOOKS.intersection(base.methods):
                    self.finding(node, f"{base.name} has {', '.join(sorted(hooks))}")
            elif base not in _PLAIN_BASES:
                self.finding(node, f"{cls.name} inherits from {base}")
        return found

    def attribute(self, node: ast.Attribute, *, called: bool = False) -> Value:
        owner = self.value(node.value)
        if self.unknown(node, owner, f"{ast.unparse(node)}"):
            return self.lost(f"{ast.unparse(node)} of something unknown")
        found: Value = frozenset()
        for kind in owner:
            if isinstance(kind, Ours):
                for cls in self.project.family(kind.cls):
                    found |= self.own_attribute(node, cls)
            elif isinstance(kind, Outside):
                self.not_replaced(node, node.attr)
                found |= one(self.project.dotted(f"{kind.name}.{node.attr}"))
            elif isinstance(kind, Of) and kind.name != "builtins.None":
                method = f"{kind.name}.{node.attr}"
                self.not_replaced(node, node.attr)
                if not called:
                    self.note(node, "load", method)
                known = self.reach.returns.get(method) if not called else None
                found |= self.typed(known) if known is not None else one(Method(method, kind))
            elif not isinstance(kind, Of):
                found |= self.finding(node, f"{ast.unparse(node)}: an attribute of {kind}")
        return found or self.finding(node, f"{ast.unparse(node)}: an attribute of None")

    def own_attribute(self, node: ast.Attribute, cls: ClassInfo) -> Value:
        for base in self.lineage(node, cls):
            if base.bindings.get(node.attr, 0) > 1:
                return self.finding(node, f"{base.name}.{node.attr} is defined {base.bindings[node.attr]} times")
            if node.attr in base.methods:
                return self.own_method(node, cls, base.methods[node.attr][0])
            for item in base.node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == node.attr:
                    return self.project.annotation(base.module, item.annotation)
                if isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == node.attr for t in item.targets):
                    if isinstance(item.value, ast.Constant):
                        return builtin(type(item.value.value).__name__)
                    return self.finding(node, f"{base.name}.{node.attr} is a value of the class: it may be a descriptor")
            if node.attr in base.bindings:
                return self.finding(node, f"{base.name}.{node.attr} is bound by the class in a way the evaluator does not follow")
            value = self.reach.instance_attribute(base, node.attr)
            if value is not None:
                if any(isinstance(kind, Function) for kind in value):
                    self.not_replaced(node, node.attr)
                return value
        return self.finding(node, f"{cls.name} has no attribute {node.attr} the evaluator can follow")

    def own_method(self, node: ast.Attribute, cls: ClassInfo, info: FunctionInfo) -> Value:
        for base in self.project.lineage(cls):
            if isinstance(base, ClassInfo) and self.reach.instance_attribute(base, node.attr) is not None:
                return self.finding(node, f"{base.name} assigns self.{node.attr}, which is a method")
        self.not_replaced(node, node.attr)
        if any(ast.unparse(decorator) == "property" for decorator in info.node.decorator_list):
            return self.call_ours(node, info, {})
        return one(Function(info, bound=True))

    def not_replaced(self, node: ast.AST, attribute: str) -> None:
        """Report a called attribute that other code assigns."""
        place = self.project.foreign_stores.get(attribute)
        if place is not None:
            self.finding(node, f"something is assigned to .{attribute} from outside, at {place}")

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Value:
        callee = self.attribute(node.func, called=True) if isinstance(node.func, ast.Attribute) else self.value(node.func)
        stars = (isinstance(argument, ast.Starred) for argument in node.args)
        if any(stars) or any(keyword.arg is None for keyword in node.keywords):
            self.note(node, "star-args", ast.unparse(node)[:80])
        given = [self.value(argument) for argument in node.args if not isinstance(argument, ast.Starred)]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        for passed, value in zip((*node.args, *node.keywords), (*given, *named.values()), strict=False):
            self.unknown(node, value, f"the argument {ast.unparse(passed)[:60]}")
        if self.unknown(node, callee, f"the call {ast.unparse(node)[:80]}"):
            return self.lost("the result of an unknown call")
        found: Value = frozenset()
        for kind in callee:
            if isinstance(kind, Function):
                found |= self.call_ours(node, kind.info, self.pass_callables(kind, given, named))
            elif isinstance(kind, Class):
                found |= self.make(node, kind.cls)
            elif isinstance(kind, Outside | Method):
                found |= self.call_leaf(node, kind, [*given, *named.values()])
            else:
                found |= self.finding(node, f"the call {ast.unparse(node)[:80]}: {kind} is not a function")
        return found

    def pass_callables(self, function: Function, given: list[Value], named: Mapping[str, Value]) -> dict[str, Value]:
        arguments = function.info.node.args
        parameters = [parameter.arg for parameter in (*arguments.posonlyargs, *arguments.args)]
        if function.bound:
            parameters = parameters[1:]
        passed = {**dict(zip(parameters, given, strict=False)), **named}
        return {name: value for name, value in passed.items() if self.takes_callable(function.info, name)}

    def takes_callable(self, info: FunctionInfo, name: str) -> bool:
        arguments = info.node.args
        for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if parameter.arg == name:
                return Callback() in self.project.annotation(info.module, parameter.annotation)
        return False

    def call_ours(self, node: ast.AST, info: FunctionInfo, given: dict[str, Value]) -> Value:
        self.note(node, "call", info.name)
        if not self.quiet:
            self.reach.edges.setdefault(self.info.name, set()).add(info.name)
            self.reach.enqueue(info, given)
        if info.node.returns is None:
            return one(UnknownType(f"{info.qualname} has no return annotation"))
        return self.project.annotation(info.module, info.node.returns)

    def make(self, node: ast.Call, cls: ClassInfo) -> Value:
        self.note(node, "call", cls.name)
        for base in self.lineage(node, cls):
            for name in ("__new__", "__init__"):
                for method in base.methods.get(name, ()):
                    self.call_ours(node, method, {})
        return one(Ours(cls))

    def call_leaf(self, node: ast.Call, leaf: Outside | Method, given: list[Value]) -> Value:
        self.note(node, "call", leaf.name)
        for value in given:
            for kind in value:
                if isinstance(kind, Function | Method | Outside):
                    passed = kind.info.name if isinstance(kind, Function) else kind.name
                    self.note(node, "hand", f"{passed} to {leaf.name}")
                elif isinstance(kind, Ours | Class):
                    self.finding(node, f"{leaf.name} receives {kind.cls.name} and may run its code")
        if self.quiet and isinstance(leaf, Outside):
            if leaf.name in ("builtins.max", "builtins.min"):
                return frozenset[Type]().union(*given)
            if _is_class(leaf.name):
                return one(Of(leaf.name))
        returns = self.reach.returns.get(leaf.name)
        if returns is None:
            return one(UnknownType(f"the result type of {leaf.name} is not listed"))
        if returns == "item" and isinstance(leaf, Method) and leaf.owner.args:
            return leaf.owner.args[0]
        return self.typed(returns)

    def typed(self, returns: str) -> Value:
        """Parse result types in the notation of the allow-list."""
        return frozenset(Of(part.strip()) for part in returns.split("|"))


def _kind_of(node: ast.AST) -> Kind:
    return _KINDS.get(type(node), type(node).__name__.lower())


def _is_class(dotted: str) -> bool:
    """Guess from its spelling whether a library name is a class; a wrong guess yields a type without operations."""
    owner, _, name = dotted.rpartition(".")
    return name[:1].isupper() or (owner == "builtins" and isinstance(getattr(builtins, name, None), type))
