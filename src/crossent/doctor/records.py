"""The records that the analysis of one file passes around: scopes, callables, calls, and what a rule finds."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import Loss
from .values import UNKNOWN, Place, Value, bare, join

__all__ = [
    "Argument",
    "Arguments",
    "Class",
    "Criterion",
    "Edit",
    "Finding",
    "Function",
    "FunctionNode",
    "Instance",
    "Layer",
    "LossCall",
    "Method",
    "Operation",
    "Scope",
]

_NOTHING = ast.Constant(None)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
"""What a function is in the syntax tree."""


class Scope:
    """The names of a module or a function. A scope inside another reads its names as all assignments left them."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.names: dict[str, Value] = {}
        self.parent = parent
        self.all_assigned: dict[str, Value] = {}
        self.owners: set[str] = set()  # names whose attributes were assigned
        self.elsewhere: set[str] = set()  # names that another function assigns by `global` or `nonlocal`

    def bind(self, name: str, value: Value) -> None:
        """Assign a name."""
        self.names[name] = value
        known = self.all_assigned.get(name)
        self.all_assigned[name] = value if known is None else join(known, value)

    def lookup(self, name: str) -> Value | None:
        """Return what a name holds here, or None if no scope binds it."""
        if name in self.names:
            return UNKNOWN if name in self.elsewhere else self.names[name]
        scope = self.parent
        while scope is not None:
            if name in scope.all_assigned:
                return UNKNOWN if name in scope.elsewhere else scope.all_assigned[name]
            scope = scope.parent
        return None


@dataclass(eq=False, slots=True)
class Function:
    """A function of the file, or a method of a class of it."""

    name: str
    node: FunctionNode
    scope: Scope  # in which it was defined
    owner: Class | None = None


@dataclass(eq=False, slots=True)
class Class:
    """A class of the file, or of another file of the run (then only `output` is known)."""

    name: str
    scope: Scope
    bases: tuple[Value, ...] = ()
    methods: dict[str, Function] = field(default_factory=dict)
    attributes: dict[str, Value] = field(default_factory=dict)
    instances: dict[Any, Instance] = field(default_factory=dict)
    assigned_late: frozenset[str] = frozenset()  # attributes that methods other than the constructor assign
    output: Value | None = None


@dataclass(eq=False, slots=True)
class Instance:
    """An object of a class, with what its constructor gave it."""

    of: Class
    attributes: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Method:
    """A method of an object, not yet called."""

    name: str
    of: Value
    function: Function | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call: the expression and what is known of it."""

    node: ast.expr
    value: Value


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a call. `is_complete` is False after a ``*args`` or ``**options`` of unknown length."""

    positional: tuple[Argument, ...]
    keywords: Mapping[str, Argument]
    is_complete: bool

    def bind(self, names: tuple[str, ...]) -> dict[str, Argument]:
        """Return the arguments by the names of the parameters; what does not fit is left out."""
        return {**dict(zip(names, self.positional, strict=False)), **self.keywords}

    def bare(self) -> Arguments | None:
        """Return the arguments as another file may know them, None if it would learn nothing."""
        positional = [bare(argument.value) for argument in self.positional]
        keywords = {key: bare(argument.value) for key, argument in self.keywords.items()}
        if not any(positional) and not any(keywords.values()):
            return None
        return Arguments(
            tuple(Argument(_NOTHING, value or UNKNOWN) for value in positional),
            {key: Argument(_NOTHING, value or UNKNOWN) for key, value in keywords.items()},
            self.is_complete,
        )

    def get(self, name: str, index: int | None = None) -> Argument | None:
        """Return the argument of a parameter, None if it was left out."""
        if name in self.keywords:
            return self.keywords[name]
        if index is not None and index < len(self.positional):
            return self.positional[index]
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """A layer: what it puts out, and of a sequence its parts."""

    output: str
    node: ast.expr
    parts: tuple[Value, ...] | None = None
    arguments: Arguments | None = None
    value: Value | None = None  # what it puts out, where that is known already


@dataclass(frozen=True, eq=False, slots=True)
class Criterion:
    """A loss object with its options."""

    loss: Loss
    options: Mapping[str, Argument]
    is_complete: bool
    node: ast.expr


@dataclass(frozen=True, eq=False, slots=True)
class LossCall:
    """A loss that gets its arrays, as a function or as an object."""

    node: ast.expr
    loss: Loss
    reads: str  # as `Loss.reads`, or "unknown" where from_logits is not known
    prediction: Argument | None
    target: Argument | None
    options: Mapping[str, Argument]
    is_complete: bool
    is_swapped_call: bool = False
    reduction: str | None = None  # None: not known

    def option(self, name: str) -> Value | None:
        """Return the value of an option, None where it was left out."""
        given = self.options.get(name)
        return None if given is None else given.value


@dataclass(frozen=True, eq=False, slots=True)
class Operation:
    """A call of a known function (``op`` as in `names.FUNCTIONS`, or the qualified name) with its first argument."""

    node: ast.Call
    op: str
    name: str
    first: Argument | None
    arguments: Arguments
    result: Value


@dataclass(frozen=True, slots=True)
class Edit:
    """A text to put in the place of an expression. A safe one keeps what the program means."""

    start: tuple[int, int]  # line from 1, column in UTF-8 bytes
    end: tuple[int, int]
    text: str
    is_safe: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found in one place of a file."""

    code: str
    severity: str
    message: str
    path: str
    line: int
    column: int  # from 1, in characters
    end_line: int
    end_column: int
    cell: int | None = None  # of a notebook, from 1; lines count within it
    edits: tuple[Edit, ...] = ()
    related: Place | None = None
