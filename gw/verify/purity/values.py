"""The types of expressions: names, operators, truths, items. What may run anybody's code is noted or refused."""

from __future__ import annotations

import ast
from typing import Final

from gw.verify.purity.attributes import Attributes
from gw.verify.purity.kinds import NONE, Class, Function, Of, Ours, Tuple, Type, Unknown, Value, builtin, one
from gw.verify.purity.module_source import FunctionInfo, ModuleInfo
from gw.verify.purity.notes import Notes

_NUMBERS: Final = frozenset({"builtins.int", "builtins.float", "builtins.bool"})
_PLAIN: Final = _NUMBERS | {"builtins.str", "builtins.bytes", "builtins.None"}
#: Builtin values whose truth is their length or themselves.
_TRUTHS: Final = _PLAIN | {"builtins.bytearray", "builtins.list", "builtins.tuple", "collections.deque"}
_INDEXED: Final = frozenset({"builtins.list", "builtins.tuple", "builtins.memoryview"})


class Values(Attributes):
    """Expressions."""

    def value(self, node: ast.expr, *, unpacked: bool = False) -> Value:
        """The types an expression can have."""
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
        names = {
            ast.JoinedStr: "f-string",
            ast.Lambda: "lambda",
            ast.ListComp: "comprehension",
            ast.SetComp: "comprehension",
            ast.DictComp: "comprehension",
            ast.GeneratorExp: "generator",
            ast.Yield: "yield",
            ast.YieldFrom: "yield",
            ast.Await: "await",
            ast.Dict: "build",
            ast.List: "build",
            ast.Set: "build",
            ast.Starred: "star-args",
            ast.NamedExpr: "walrus",
        }
        text = ast.unparse(node)[:80]
        self.note(node, names.get(type(node), type(node).__name__.lower()), text)
        if isinstance(node, ast.List) and self.quiet:
            return builtin("list", frozenset[Type]().union(*(self.value(part) for part in node.elts)))
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and not isinstance(node, ast.Lambda):
                self.note(inner, "call", ast.unparse(inner.func))
        return one(Unknown(f"{text} is not followed"))

    def name(self, node: ast.Name) -> Value:
        scope: Notes | None = self
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
        """A value of a module: by its annotation, or by the literal or the call that makes it."""
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) != "Final":
            return self.project.annotation(module, node.annotation)
        if isinstance(node.value, ast.Constant):
            return builtin(type(node.value.value).__name__)
        if isinstance(node.value, ast.BinOp | ast.UnaryOp) and not any(
            isinstance(part, ast.Call) for part in ast.walk(node.value)
        ):
            holder = FunctionInfo(module, "<module>", ast.parse("def _(): pass").body[0])  # type: ignore[arg-type]
            return Values(self.reach, holder, quiet=True).value(node.value)
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            maker = self.project.lookup(module, node.value.func.id)
            if isinstance(maker, Function):
                return self.project.annotation(module, maker.info.node.returns)
            if isinstance(maker, Class):
                return one(Ours(maker.cls))
        return one(Unknown(f"{ast.unparse(node)[:60]} of {module.path} has no type that can be read"))

    def truth(self, node: ast.expr) -> Value:
        """The value of something asked whether it is true: asking must run nobody's code."""
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
        """What stands in brackets: a number, or it runs code."""
        value = self.value(node)
        if not self.unknown(node, value, "an index") and not value <= builtin("int") | NONE:
            self.finding(node, f"the index {ast.unparse(node)} is no number")

    def part(self, value: Value, n: int) -> Value:
        """The n-th part of something unpacked."""
        found: Value = frozenset()
        for kind in value:
            if isinstance(kind, Tuple) and n < len(kind.parts):
                found |= kind.parts[n]
            elif isinstance(kind, Ours) and "typing.NamedTuple" in self.project.lineage(kind.cls):
                fields = [item for item in kind.cls.node.body if isinstance(item, ast.AnnAssign)]
                if n < len(fields):
                    found |= self.project.annotation(kind.cls.module, fields[n].annotation)
            elif isinstance(kind, Unknown):
                found |= one(kind)
        return found or self.finding(self.info.node, "what is unpacked has no such part that can be read")
