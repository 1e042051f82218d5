"""What an expression holds, as far as the text says: names, attributes, arithmetic, containers.

`Evaluator` is the lowest of three classes that together follow a file: `calls.Caller` adds what calls return, and
`flow.Analysis` adds statements, functions and classes.
"""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .names import canonical
from .records import Argument, Function, Instance, LossCall, Method, Operation, Scope
from .values import UNKNOWN, Place, Value, constant, join, join_all

__all__ = ["Evaluator", "is_small"]

_BUILT_IN = frozenset({"sum", "max", "abs", "pow", "super", "float", "list", "tuple", "dict", "getattr"})
_NEVER_NONE = frozenset({"instance", "layer", "criterion", "function", "class", "network"})
_SAME_ATTRIBUTES = frozenset({"T", "mT", "data", "values"})
_POSITIVES = re.compile(r"(^|_)(n_?|num_?)?pos(itives?)?($|_)", re.IGNORECASE)
_NEGATIVES = re.compile(r"(^|_)(n_?|num_?)?neg(atives?)?($|_)", re.IGNORECASE)
_MAXIMA = re.compile(r"(^|_)max(imum|ima|es|_?val(ue)?s?)?($|_)", re.IGNORECASE)
_EPSILON = re.compile(r"(^|_|\.)eps(ilon)?$|^(SMALL|TINY|EPS)", re.IGNORECASE)


def is_small(node: ast.expr, value: Value) -> bool:
    """Return whether an addend is there only to keep a logarithm finite."""
    number = value.payload if value.kind == "constant" else None
    if isinstance(number, int | float) and not isinstance(number, bool):
        return 0 < number <= 1e-3
    if isinstance(node, ast.Name | ast.Attribute):
        return _EPSILON.search(ast.unparse(node)) is not None
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "epsilon"


class Evaluator(ABC):
    """Evaluates expressions to values, and tells the rules of operations, losses and arithmetic on the way."""

    path: str
    stars: list[str]
    num_yields: int  # how many `yield` were met in the function that is followed

    @abstractmethod
    def call(self, node: ast.Call, scope: Scope) -> Value:
        """Return what a call returns."""

    @abstractmethod
    def attribute_of(self, instance: Instance, name: str, value: Value) -> Value:
        """Return an attribute or a method of an object of a class of the run."""

    @abstractmethod
    def class_attribute(self, value: Value, name: str) -> Value:
        """Return an attribute or a method of a class of the run."""

    @abstractmethod
    def tell_loss(self, loss: LossCall) -> None:
        """Show the rules a loss that gets its arrays."""

    @abstractmethod
    def tell_operation(self, operation: Operation) -> None:
        """Show the rules a call of a known function."""

    @abstractmethod
    def tell_binary(self, node: ast.BinOp, left: Value, right: Value) -> None:
        """Show the rules an arithmetic expression."""

    def place(self, node: ast.AST) -> Place:
        """Return where an expression stands."""
        return Place(self.path, getattr(node, "lineno", 1))

    def evaluate(self, node: ast.expr | None, scope: Scope) -> Value:
        """Return what is known of an expression; every call inside is seen once."""
        if node is None:
            return UNKNOWN
        method = _METHODS.get(type(node))
        if method is not None:
            return method(self, node, scope)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.evaluate(child, scope)
        return UNKNOWN

    def _constant(self, node: ast.Constant, scope: Scope) -> Value:
        return constant(node.value)

    def _name(self, node: ast.Name, scope: Scope) -> Value:
        found = scope.lookup(node.id)
        if found is not None:
            return found
        for module in self.stars:
            if self.is_known(f"{module}.{node.id}"):
                return Value("name", payload=f"{module}.{node.id}")
        return Value("name", payload=node.id) if node.id in _BUILT_IN else UNKNOWN

    def is_known(self, name: str) -> bool:
        """Return whether a qualified name is one that the tables or the other files of the run know."""
        raise NotImplementedError

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        if isinstance(node.value, ast.Name):
            kept = scope.names.get(f"{node.value.id}.{node.attr}")
            if kept is not None:
                return kept
        of = self.evaluate(node.value, scope)
        if of.kind == "name":
            return Value("name", payload=canonical(f"{of.payload}.{node.attr}"))
        if of.kind == "instance":
            return self.attribute_of(of.payload, node.attr, of)
        if of.kind == "class":
            return self.class_attribute(of, node.attr)
        if node.attr in _SAME_ATTRIBUTES:
            return of
        return Value("method", node, payload=Method(node.attr, of))

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        of, index = self.evaluate(node.value, scope), self.evaluate(node.slice, scope)
        key = index.payload if index.kind == "constant" else None
        if of.kind == "tuple" and isinstance(key, int):
            return of.payload[key] if -len(of.payload) <= key < len(of.payload) else UNKNOWN
        if of.kind == "dict":
            return dict(of.payload).get(key, UNKNOWN)
        if of.kind == "max":
            return of if key == 0 else Value("labels") if key == 1 else UNKNOWN
        if of.kind in ("softmax", "log_softmax", "linear", "sigmoid", "bounded", "shifted", "labels", "sentinel"):
            if of.kind in ("softmax", "log_softmax") and _selects_a_class(node.slice):
                return replace(of, kind="entry" if of.kind == "softmax" else "log_entry")
            return of
        return UNKNOWN

    def _sequence(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Value:
        items: list[Value] = []
        is_known = True
        for element in node.elts:
            value = self.evaluate(element.value if isinstance(element, ast.Starred) else element, scope)
            if isinstance(element, ast.Starred):
                is_known = is_known and value.kind == "tuple"
                items += value.payload if value.kind == "tuple" else ()
            else:
                items.append(value)
        return Value("tuple", node, payload=tuple(items)) if is_known else UNKNOWN

    def _dict(self, node: ast.Dict, scope: Scope) -> Value:
        pairs, is_known = [], True
        for key, entry in zip(node.keys, node.values, strict=True):
            value = self.evaluate(entry, scope)
            name = self.evaluate(key, scope)
            is_known = is_known and name.kind == "constant"
            pairs.append((name.payload, value))
        return Value("dict", node, payload=tuple(pairs)) if is_known else UNKNOWN

    def _conditional(self, node: ast.IfExp, scope: Scope) -> Value:
        test = self.truth(node.test, scope)
        then, otherwise = self.evaluate(node.body, scope), self.evaluate(node.orelse, scope)
        return join(then, otherwise) if test is None else then if test else otherwise

    def truth(self, node: ast.expr, scope: Scope) -> bool | None:
        """Return whether a condition holds, None if that is not known."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(node.operand, scope)
            return None if inner is None else not inner
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = self.evaluate(node.left, scope), self.evaluate(node.comparators[0], scope)
            if left.kind == right.kind == "constant":
                if isinstance(node.ops[0], ast.Is | ast.Eq):
                    return bool(left.payload == right.payload)
                if isinstance(node.ops[0], ast.IsNot | ast.NotEq):
                    return bool(left.payload != right.payload)
            is_none = right.kind == "constant" and right.payload is None
            if isinstance(node.ops[0], ast.Is | ast.IsNot) and is_none and left.kind in _NEVER_NONE:
                return isinstance(node.ops[0], ast.IsNot)
            return None
        value = self.evaluate(node, scope)
        return bool(value.payload) if value.kind == "constant" else None

    def _either(self, node: ast.BoolOp, scope: Scope) -> Value:
        return join_all([self.evaluate(value, scope) for value in node.values])

    def _assigned(self, node: ast.NamedExpr, scope: Scope) -> Value:
        value = self.evaluate(node.value, scope)
        scope.bind(node.target.id, value)
        return value

    def _inner(self, node: ast.Await | ast.Starred, scope: Scope) -> Value:
        return self.evaluate(node.value, scope)

    def _yield(self, node: ast.Yield | ast.YieldFrom, scope: Scope) -> Value:
        self.num_yields += 1
        self.evaluate(node.value, scope)
        return UNKNOWN

    def _lambda(self, node: ast.Lambda, scope: Scope) -> Value:
        return Value("function", node, payload=Function("<lambda>", node, scope))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope) -> Value:
        inner = Scope(scope)
        scope.all_assigned |= scope.names  # as they are at this moment
        for generator in node.generators:
            self.evaluate(generator.iter, inner)
            for name in ast.walk(generator.target):
                if isinstance(name, ast.Name):
                    inner.bind(name.id, UNKNOWN)
            for test in generator.ifs:
                self.evaluate(test, inner)
        if isinstance(node, ast.DictComp):
            self.evaluate(node.key, inner)
            self.evaluate(node.value, inner)
        else:
            self.evaluate(node.elt, inner)
        return UNKNOWN

    def _unary(self, node: ast.UnaryOp, scope: Scope) -> Value:
        value = self.evaluate(node.operand, scope)
        if not isinstance(node.op, ast.USub):
            return UNKNOWN
        if value.kind == "constant" and isinstance(value.payload, int | float):
            return constant(-value.payload)
        if value.kind == "negative":
            return value.payload if isinstance(value.payload, Value) else UNKNOWN
        if value.kind in ("absolute", "bounded"):
            return Value("bounded")
        return Value("negative", node, operand=node.operand, payload=value)

    def _binary(self, node: ast.BinOp, scope: Scope) -> Value:
        left, right = self.evaluate(node.left, scope), self.evaluate(node.right, scope)
        self.tell_binary(node, left, right)
        return self.arithmetic(node, left, right)

    def arithmetic(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        """Return what is known of a sum, difference, product or quotient."""
        if left.kind == right.kind == "constant":
            return _folded(node.op, left.payload, right.payload)
        if isinstance(node.op, ast.Add):
            for (value, _), (other, at) in _both(node, left, right):
                if value.kind in ("softmax", "sigmoid", "entry") and is_small(at, other):
                    return value.marked("eps")
                if (
                    value.kind in ("exp", "exp_difference", "exp_gap")
                    and other.kind == "constant"
                    and other.payload == 1
                ):
                    return replace(value, kind="one_plus_exp")
                if value.kind == "sum_exp" and is_small(at, other):
                    return value
                if value.kind == "scaled_one_hot" and other.kind != "scaled_one_hot":
                    return Value("smoothed", node, self.place(node))
        elif isinstance(node.op, ast.Sub):
            return self._difference(node, left, right)
        elif isinstance(node.op, ast.Mult):
            for (value, _), (other, _at) in _both(node, left, right):
                if value.kind == "one_hot" and other.kind != "one_hot":
                    return replace(value, kind="scaled_one_hot")
                if value.kind == "constant" and value.payload in (-1, -1.0):
                    return Value("negative", node, operand=node.right, payload=other)
        if isinstance(node.op, ast.Pow):
            return Value("absolute") if right.kind == "constant" and right.payload == 2 else UNKNOWN
        if isinstance(node.op, ast.Div):
            divided = self._quotient(node, left, right)
            if divided is not None:
                return divided
        if "bounded" in (left.kind, right.kind):
            return Value("bounded")
        if {left.kind, right.kind} & {"difference", "gap", "negative", "shifted", "absolute"}:
            return Value("difference")
        return UNKNOWN

    def _quotient(self, node: ast.BinOp, left: Value, right: Value) -> Value | None:
        if (left.kind, right.kind) in (("exp", "sum_exp"), ("exp_shifted", "sum_exp_shifted")):
            return Value("softmax", node, self.place(node))
        if left.kind == "constant" and left.payload in (1, 1.0) and right.kind == "one_plus_exp":
            return Value("sigmoid", node, self.place(node)) if "negative" in right.marks else UNKNOWN
        if left.kind == "negative":
            return Value("difference")
        if _POSITIVES.search(_last_name(node.left)) and _NEGATIVES.search(_last_name(node.right)):
            return Value("positives_per_negative", node, self.place(node))
        return None

    def _difference(self, node: ast.BinOp, left: Value, right: Value) -> Value:
        if left.kind == "constant" and left.payload in (1, 1.0):
            if right.kind in ("softmax", "sigmoid", "entry"):
                return replace(right, marks=right.marks ^ {"complement"})
            if right.kind == "focal":
                return replace(right, kind="one_minus_focal")
            if right.kind == "one_hot":
                return UNKNOWN
        if right.kind == "max" or _MAXIMA.search(_last_name(node.right)):
            return Value("shifted")
        return Value("gap")

    def argument(self, node: ast.expr, scope: Scope) -> Argument:
        """Return an argument with what is known of it."""
        return Argument(node, self.evaluate(node, scope))


def _both(
    node: ast.BinOp, left: Value, right: Value
) -> tuple[tuple[tuple[Value, ast.expr], tuple[Value, ast.expr]], ...]:
    return ((left, node.left), (right, node.right)), ((right, node.right), (left, node.left))


def _last_name(node: ast.expr) -> str:
    """Return the name that an expression reads, without the calls of its methods."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _selects_a_class(index: ast.expr) -> bool:
    """Return whether an index such as ``[:, 1]`` or ``[range(n), y]`` leaves one number of each row."""
    if not isinstance(index, ast.Tuple) or len(index.elts) < 2:
        return False
    return not isinstance(index.elts[-1], ast.Slice) and not (
        isinstance(index.elts[-1], ast.Constant) and index.elts[-1].value in (None, ...)
    )


def _folded(op: ast.operator, a: object, b: object) -> Value:
    """Return the result of arithmetic on two small numbers."""
    if not (isinstance(a, int | float) and isinstance(b, int | float)):
        return UNKNOWN
    try:
        if isinstance(op, ast.Add):
            return constant(a + b)
        if isinstance(op, ast.Sub):
            return constant(a - b)
        if isinstance(op, ast.Mult):
            return constant(a * b)
        if isinstance(op, ast.Div):
            return constant(a / b)
        if isinstance(op, ast.Pow) and abs(a) <= 1e3 and abs(b) <= 20:
            return constant(a**b)
    except (ArithmeticError, ValueError):
        pass
    return UNKNOWN


_METHODS: dict[type[ast.expr], Callable[[Any, Any, Scope], Value]] = {
    ast.Constant: Evaluator._constant,
    ast.Name: Evaluator._name,
    ast.Attribute: Evaluator._attribute,
    ast.Subscript: Evaluator._subscript,
    ast.List: Evaluator._sequence,
    ast.Tuple: Evaluator._sequence,
    ast.Set: Evaluator._sequence,
    ast.Dict: Evaluator._dict,
    ast.IfExp: Evaluator._conditional,
    ast.BoolOp: Evaluator._either,
    ast.NamedExpr: Evaluator._assigned,
    ast.Await: Evaluator._inner,
    ast.Starred: Evaluator._inner,
    ast.Lambda: Evaluator._lambda,
    ast.Yield: Evaluator._yield,
    ast.YieldFrom: Evaluator._yield,
    ast.ListComp: Evaluator._comprehension,
    ast.SetComp: Evaluator._comprehension,
    ast.GeneratorExp: Evaluator._comprehension,
    ast.DictComp: Evaluator._comprehension,
    ast.UnaryOp: Evaluator._unary,
    ast.BinOp: Evaluator._binary,
    ast.Call: lambda self, node, scope: self.call(node, scope),
}
