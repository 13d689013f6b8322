"""What an attribute of something is, and what a call of it runs: the purity check's knowledge of classes, methods and leaves."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from typing import Final

from gw.verify.purity.kinds import Callback, Class, Function, Method, Of, Ours, Outside, Type, Unknown, Value, builtin, one
from gw.verify.purity.module_source import ClassInfo, FunctionInfo
from gw.verify.purity.notes import Notes

#: What makes an attribute more than a place: a class that has one of these is not followed.
HOOKS: Final = frozenset({"__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__set_name__", "__get__"})
_PLAIN_BASES: Final = frozenset({"builtins.object", "typing.NamedTuple", "typing.Protocol", "typing.Generic"})
_PLAIN_DECORATORS: Final = frozenset({"typing.final"})


class Attributes(Notes):
    """Attributes and calls."""

    def lineage(self, node: ast.AST, cls: ClassInfo) -> list[ClassInfo]:
        """The classes of ours an attribute is looked up in; the rest must be plain."""
        found = []
        for base in self.project.lineage(cls):
            if isinstance(base, ClassInfo):
                found.append(base)
                decorators = [self.project.resolve(base.module, decorator) for decorator in base.node.decorator_list]
                if not all(isinstance(one_, Outside) and one_.name in _PLAIN_DECORATORS for one_ in decorators):
                    self.finding(node, f"{base.name} is decorated: what stands there is not what runs")
                if base.node.keywords:
                    self.finding(node, f"{base.name} is made by a metaclass or with options")
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
                return self.finding(node, f"{base.name}.{node.attr} is bound by the class in a way that is not followed")
            value = self.reach.instance_attribute(base, node.attr)
            if value is not None:
                if any(isinstance(kind, Function) for kind in value):
                    self.not_replaced(node, node.attr)
                return value
        return self.finding(node, f"{cls.name} has no attribute {node.attr} that can be followed")

    def own_method(self, node: ast.Attribute, cls: ClassInfo, info: FunctionInfo) -> Value:
        for base in self.project.lineage(cls):
            if isinstance(base, ClassInfo) and self.reach.instance_attribute(base, node.attr) is not None:
                return self.finding(node, f"{base.name} assigns self.{node.attr}, which is a method")
        self.not_replaced(node, node.attr)
        if any(ast.unparse(decorator) == "property" for decorator in info.node.decorator_list):
            return self.call_ours(node, info, {})
        return one(Function(info, bound=True))

    def not_replaced(self, node: ast.AST, attribute: str) -> None:
        """Nobody may put something else in the place of what is called."""
        place = self.project.foreign_stores.get(attribute)
        if place is not None:
            self.finding(node, f"something is assigned to .{attribute} from outside, at {place}")

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Value:
        callee = self.attribute(node.func, called=True) if isinstance(node.func, ast.Attribute) else self.value(node.func)
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self.note(node, "star-args", ast.unparse(node)[:80])
        if any(keyword.arg is None for keyword in node.keywords):
            self.note(node, "star-args", ast.unparse(node)[:80])
        given = [self.value(argument) for argument in node.args if not isinstance(argument, ast.Starred)]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        for passed, value in zip((*node.args, *node.keywords), (*given, *named.values()), strict=False):
            self.unknown(node, value, f"the argument {ast.unparse(passed)[:60]}")
        if self.unknown(node, callee, f"the call {ast.unparse(node)[:80]}"):
            return self.lost("what an unknown call returns")
        found: Value = frozenset()
        for kind in callee:
            if isinstance(kind, Function):
                found |= self.call_ours(node, kind.info, self.pass_callables(kind, given, named))
            elif isinstance(kind, Class):
                found |= self.make(node, kind.cls)
            elif isinstance(kind, Outside | Method):
                found |= self.call_leaf(node, kind, [*given, *named.values()])
            else:
                found |= self.finding(node, f"the call {ast.unparse(node)[:80]}: {kind} is no function")
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
            self.reach.call(self.info, info)
            self.reach.enqueue(info, given)
        if info.node.returns is None:
            return one(Unknown(f"{info.qualname} does not say what it returns"))
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
                if isinstance(kind, Function):
                    self.note(node, "hand", f"{kind.info.name} to {leaf.name}")
                elif isinstance(kind, Method | Outside):
                    self.note(node, "hand", f"{kind.name} to {leaf.name}")
                elif isinstance(kind, Ours | Class):
                    self.finding(node, f"{leaf.name} is given {kind.cls.name}, whose code it may run")
        if self.quiet and isinstance(leaf, Outside):
            if leaf.name in ("builtins.max", "builtins.min"):
                return frozenset[Type]().union(*given)
            if _is_class(leaf.name):
                return one(Of(leaf.name))
        returns = self.reach.returns.get(leaf.name)
        if returns is None:
            return one(Unknown(f"nothing says what {leaf.name} returns"))
        if returns == "item" and isinstance(leaf, Method) and leaf.owner.args:
            return leaf.owner.args[0]
        return self.typed(returns)

    def typed(self, returns: str) -> Value:
        """Types as the allow-list writes them."""
        return frozenset(Of(part.strip()) for part in returns.split("|"))


def _is_class(dotted: str) -> bool:
    """Whether a library's name is a class's, by how it is written; a wrong guess is a type that may do nothing."""
    owner, _, name = dotted.rpartition(".")
    return name[:1].isupper() or (owner == "builtins" and isinstance(getattr(builtins, name, None), type))
