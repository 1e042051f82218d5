"""What the linter knows of an expression: one immutable `Value`, and how two of them meet where branches join."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["UNKNOWN", "Place", "Value", "bare", "constant", "join", "join_all"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a run a value was made: a file and a line, which a message can name."""

    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of one expression.

    Parameters
    ----------
    kind
        Of arrays: ``softmax``, ``log_softmax``, ``sigmoid``, ``log_sigmoid``, ``linear`` (the output of a linear layer
        with no activation), ``entry`` (one class of a softmax), ``labels``, ``one_hot``, ``smoothed``, ``sentinel``
        (labels that hold a negative number), ``margin``, ``loss``, ``exp``, ``sum_exp``, ``max``, ``bounded`` and some
        more that only one rule reads. Of what can be called: ``name`` (of a library), ``function``, ``class``,
        ``instance``, ``layer``, ``criterion``, ``method``. Of containers: ``tuple``, ``dict``. Else ``constant`` or
        ``unknown``.
    node
        The expression that made it, in the file under analysis; None if it was made elsewhere.
    place
        The file and line of that expression.
    operand
        What went in: the argument of the softmax.
    payload
        What else belongs to the kind.
    marks
        Facts that survive from one kind to another: ``eps`` (a small number was added), ``complement`` (one minus it),
        ``detached``, ``float``, ``one_class``.
    """

    kind: str
    node: ast.expr | None = None
    place: Place | None = None
    operand: ast.expr | None = None
    payload: Any = None
    marks: frozenset[str] = frozenset()

    def marked(self, *marks: str) -> Value:
        """Return the value with more marks."""
        return replace(self, marks=self.marks | set(marks))


UNKNOWN = Value("unknown")
_COMPARED_BY_PAYLOAD = frozenset(
    {
        "name",
        "function",
        "class",
        "instance",
        "layer",
        "criterion",
        "method",
        "tuple",
        "dict",
        "constant",
        "keras_model",
        "loss",
        "focal",
        "one_minus_focal",
        "network",
    }
)


def constant(value: object) -> Value:
    """Return the value of a literal."""
    return Value("constant", payload=value)


_WORTH = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "linear"})


def bare(value: Value) -> Value | None:
    """Return a value without what belongs to its file, None if no other file wants to know it."""
    if value.kind == "tuple":
        parts = [bare(part) for part in value.payload]
        if not any(parts):
            return None
        return Value("tuple", payload=tuple(part or UNKNOWN for part in parts))
    return replace(value, node=None, operand=None, payload=None) if value.kind in _WORTH else None


def join(a: Value, b: Value) -> Value:
    """Return what holds on both of two paths; ``unknown`` where they differ, for the linter does not guess."""
    if a is b:
        return a
    if a.kind != b.kind:
        return UNKNOWN
    if a.kind == "tuple":
        if len(a.payload) != len(b.payload):
            return UNKNOWN
        return replace(a, payload=tuple(join(x, y) for x, y in zip(a.payload, b.payload, strict=True)))
    if a.kind in _COMPARED_BY_PAYLOAD and not _same(a.payload, b.payload):
        return UNKNOWN
    return a if a.marks == b.marks else replace(a, marks=a.marks & b.marks)


def join_all(values: Iterable[Value]) -> Value:
    """Return what holds of all the values; ``unknown`` of none."""
    joined: Value | None = None
    for value in values:
        joined = value if joined is None else join(joined, value)
    return UNKNOWN if joined is None else joined


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and a == b)
