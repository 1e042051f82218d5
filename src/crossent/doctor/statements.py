"""What statements do to the names of a scope, and how branches meet.

Values are known where the text says so and nowhere else. Two branches that disagree leave nothing known, and a name
that a loop assigns is not known at its start.
"""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .calls import Caller
from .names import canonical
from .records import Scope
from .values import UNKNOWN, Value, join, join_all

__all__ = ["Statements", "assigned_in"]


class Statements(Caller):
    """Follows statements. What a function or a class is, `flow.Analysis` knows."""

    imported: set[str]
    _package: str
    _returned: list[list[Value]]

    @abstractmethod
    def define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> bool:
        """Take the definition of a function."""

    @abstractmethod
    def define_class(self, node: ast.ClassDef, scope: Scope) -> bool:
        """Take the definition of a class."""

    def block(self, statements: Iterable[ast.stmt], scope: Scope) -> bool:
        """Follow statements; return whether what comes after them is never reached."""
        for statement in statements:
            method = _STATEMENTS.get(type(statement))
            if method is not None:
                if method(self, statement, scope):
                    return True
            else:
                for child in ast.iter_child_nodes(statement):
                    if isinstance(child, ast.expr):
                        self.evaluate(child, scope)
        return False

    def _branches(self, scope: Scope, branches: Sequence[Callable[[], bool]]) -> bool:
        """Follow each of several ways from here, and keep what holds on all that come to an end."""
        before = scope.names
        ends: list[dict[str, Value]] = []
        for branch in branches:
            scope.names = dict(before)
            if not branch():
                ends.append(scope.names)
        scope.names = _met(ends) if ends else before
        return not ends

    def _if(self, node: ast.If, scope: Scope) -> bool:
        test = self.truth(node.test, scope)
        if test is not None:
            return self.block(node.body if test else node.orelse, scope)
        return self._branches(scope, [lambda: self.block(node.body, scope), lambda: self.block(node.orelse, scope)])

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> bool:
        if isinstance(node, ast.While):
            self.evaluate(node.test, scope)
        else:
            self._bind(node.target, self._element(self.evaluate(node.iter, scope)), scope)
        for name in assigned_in(node.body):
            if name in scope.names:
                scope.names[name] = UNKNOWN
        self._branches(scope, [lambda: bool(self.block(node.body, scope)) and False, lambda: False])
        self.block(node.orelse, scope)
        return False

    def _element(self, value: Value) -> Value:
        return join_all(value.payload) if value.kind == "tuple" else UNKNOWN

    def _with(self, node: ast.With | ast.AsyncWith, scope: Scope) -> bool:
        for item in node.items:
            value = self.evaluate(item.context_expr, scope)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, value, scope)
        return self.block(node.body, scope)

    def _try(self, node: ast.Try, scope: Scope) -> bool:
        before = dict(scope.names)
        is_over = self.block([*node.body, *node.orelse], scope)
        for name in assigned_in(node.body):
            before[name] = UNKNOWN
        ends = [] if is_over else [scope.names]
        for handler in node.handlers:
            scope.names = dict(before)
            if not self.block(handler.body, scope):
                ends.append(scope.names)
        scope.names = _met(ends) if ends else before
        return self.block(node.finalbody, scope) or not ends

    def _match(self, node: ast.Match, scope: Scope) -> bool:
        self.evaluate(node.subject, scope)
        bodies = [case.body for case in node.cases]
        for case in node.cases:
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                    scope.bind(part.name, UNKNOWN)
        ways = [lambda body=body: self.block(body, scope) for body in bodies]
        return self._branches(scope, [*ways, lambda: False])

    def _assign(self, node: ast.Assign, scope: Scope) -> bool:
        value = self.evaluate(node.value, scope)
        for target in node.targets:
            self._bind(target, value, scope)
        return False

    def _annotated(self, node: ast.AnnAssign, scope: Scope) -> bool:
        if node.value is not None:
            self._bind(node.target, self.evaluate(node.value, scope), scope)
        return False

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> bool:
        whole = ast.copy_location(ast.BinOp(_loaded(node.target), node.op, node.value), node)
        left, right = self.evaluate(whole.left, scope), self.evaluate(node.value, scope)
        self.tell_binary(whole, left, right)
        self._bind(node.target, self.arithmetic(whole, left, right), scope)
        return False

    def _bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            if target.id in scope.owners:
                for key in [key for key in scope.names if key.startswith(f"{target.id}.")]:
                    del scope.names[key]
            scope.bind(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value, scope)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, UNKNOWN, scope)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            name = target.value.id
            headed = self.with_head(scope.lookup(name) or UNKNOWN, target.attr, value)
            if headed is not None:
                scope.bind(name, headed)
            scope.names[f"{name}.{target.attr}"] = value
            scope.owners.add(name)
        elif isinstance(target, ast.Subscript):
            of = target.value
            if isinstance(of, ast.Name) and of.id in scope.names:
                self._change(of.id, scope.names[of.id], target, value, scope)

    def _change(self, name: str, of: Value, target: ast.Subscript, value: Value, scope: Scope) -> None:
        """Follow ``name[...] = value``, which leaves little known but what marks the ignored labels."""
        number = value.payload if value.kind == "constant" else None
        if isinstance(number, int) and not isinstance(number, bool) and number in (-1, -100):
            scope.bind(name, Value("sentinel", target, self.place(target), payload=number))
        elif of.kind == "dict" and isinstance(target.slice, ast.Constant):
            scope.bind(name, Value("dict", payload=(*of.payload, (target.slice.value, value))))
        else:
            scope.bind(name, UNKNOWN)

    def _unpack(self, target: ast.Tuple | ast.List, value: Value, scope: Scope) -> None:
        parts: Sequence[Value] = [UNKNOWN] * len(target.elts)
        if value.kind == "tuple" and len(value.payload) == len(target.elts):
            parts = value.payload
        elif value.kind == "max" and len(target.elts) == 2:
            parts = (value, Value("labels"))
        for element, part in zip(target.elts, parts, strict=True):
            self._bind(element, part, scope)

    def _return(self, node: ast.Return, scope: Scope) -> bool:
        value = self.evaluate(node.value, scope)
        if self._returned:
            self._returned[-1].append(value)
        return True

    def _raise(self, node: ast.Raise, scope: Scope) -> bool:
        self.evaluate(node.exc, scope)
        return True

    def _leave(self, node: ast.stmt, scope: Scope) -> bool:
        return True

    def _delete(self, node: ast.Delete, scope: Scope) -> bool:
        for target in node.targets:
            if isinstance(target, ast.Name):
                scope.names.pop(target.id, None)
        return False

    def _import(self, node: ast.Import, scope: Scope) -> bool:
        for alias in node.names:
            self.imported.add(alias.name)
            name = alias.asname or alias.name.partition(".")[0]
            scope.bind(name, Value("name", payload=canonical(alias.name if alias.asname else name)))
        return False

    def _import_from(self, node: ast.ImportFrom, scope: Scope) -> bool:
        base = node.module or ""
        if node.level:
            parts = self._package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        self.imported.add(base)
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(base)
            else:
                scope.bind(alias.asname or alias.name, Value("name", payload=canonical(f"{base}.{alias.name}")))
        return False


def _met(ends: Sequence[dict[str, Value]]) -> dict[str, Value]:
    """Return what holds at the end of several ways. A name that one of them lacks was not assigned there."""
    if len(ends) == 1:
        return ends[0]
    met = dict(ends[0])
    for other in ends[1:]:
        for name in met.keys() | other.keys():
            a, b = met.get(name), other.get(name)
            if a is not None and b is not None:
                met[name] = join(a, b)
            else:
                met[name] = UNKNOWN if "." in name else (a or b or UNKNOWN)
    return met


def assigned_in(statements: Sequence[ast.stmt]) -> frozenset[str]:
    """Return the names, and the attributes of names, that statements assign."""
    if not statements:
        return frozenset()
    first: Any = statements[0]  # which remembers the answer
    known: frozenset[str] | None = getattr(first, "assigned_from_here", None)
    if known is None:
        known = first.assigned_from_here = frozenset(_find_assigned(statements))
    return known


def _find_assigned(statements: Sequence[ast.stmt]) -> set[str]:
    found = set()
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        kind = type(node)
        if kind is ast.Name:
            if type(node.ctx) is ast.Store:  # type: ignore[attr-defined]
                found.add(node.id)  # type: ignore[attr-defined]
            continue
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.value, ast.Name):
            is_stored = isinstance(node.ctx, ast.Store)
            if is_stored and isinstance(node, ast.Attribute):
                found.add(f"{node.value.id}.{node.attr}")
            elif is_stored or (isinstance(node, ast.Attribute) and node.attr in ("append", "add", "extend")):
                found.add(node.value.id)
        if kind is not ast.Constant:
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _loaded(target: ast.expr) -> ast.expr:
    """Return the target of an assignment as an expression that reads it."""
    if isinstance(target, ast.Name):
        return ast.copy_location(ast.Name(target.id, ast.Load()), target)
    if isinstance(target, ast.Attribute):
        return ast.copy_location(ast.Attribute(target.value, target.attr, ast.Load()), target)
    if isinstance(target, ast.Subscript):
        return ast.copy_location(ast.Subscript(target.value, target.slice, ast.Load()), target)
    return target


_STATEMENTS: dict[type[ast.stmt], Callable[[Any, Any, Scope], bool]] = {
    ast.If: Statements._if,
    ast.For: Statements._loop,
    ast.AsyncFor: Statements._loop,
    ast.While: Statements._loop,
    ast.With: Statements._with,
    ast.AsyncWith: Statements._with,
    ast.Try: Statements._try,
    ast.TryStar: Statements._try,
    ast.Match: Statements._match,
    ast.Assign: Statements._assign,
    ast.AnnAssign: Statements._annotated,
    ast.AugAssign: Statements._augmented,
    ast.Return: Statements._return,
    ast.Raise: Statements._raise,
    ast.Break: Statements._leave,
    ast.Continue: Statements._leave,
    ast.Delete: Statements._delete,
    ast.Import: Statements._import,
    ast.ImportFrom: Statements._import_from,
    ast.FunctionDef: lambda self, node, scope: self.define(node, scope),
    ast.AsyncFunctionDef: lambda self, node, scope: self.define(node, scope),
    ast.ClassDef: lambda self, node, scope: self.define_class(node, scope),
}
