"""Follows one file: its top level, then each function, once more for each kind of arguments that it is called with.

A parameter is not known unless a call of this file gives it. An object of a class of the file has the attributes that
its constructor sets; calling it runs ``forward``, ``call`` or ``__call__``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from .calls import Network
from .names import FUNCTIONS, LAYERS, LOSSES, canonical
from .records import (
    Argument,
    Arguments,
    Class,
    Criterion,
    Function,
    FunctionNode,
    Instance,
    Layer,
    LossCall,
    Method,
    Operation,
    Scope,
)
from .statements import Statements, assigned_in
from .values import UNKNOWN, Value, constant, join_all

__all__ = ["Analysis", "Listener"]

_DEEPEST = 6
_MOST_RUNS = 4000
_FORWARD = ("forward", "call", "__call__")
_MODELS = ("keras.Model", "keras.models.Model")
_EARLY = ("__init__", "setup", "build", "__post_init__")
_KNOWN = FUNCTIONS.keys() | LOSSES.keys() | LAYERS.keys()


class Listener:
    """What the rules are to the analysis: it tells them what it meets."""

    within: FunctionNode | None = None  # the function that is followed

    def loss(self, loss: LossCall) -> None:
        """Take a loss that gets its arrays."""

    def operation(self, operation: Operation) -> None:
        """Take a call of a known function."""

    def binary(self, node: ast.BinOp, left: Value, right: Value) -> None:
        """Take an arithmetic expression."""

    def criterion(self, criterion: Criterion) -> None:
        """Take a loss object at its creation."""

    def call(self, node: ast.Call, name: str, arguments: Arguments) -> None:
        """Take a call of a library function that has no table."""

    def function(self, function: Function, returned: Value) -> None:
        """Take a function that was followed by itself."""


class Analysis(Statements):
    """The analysis of one file.

    Parameters
    ----------
    path
        Of the file, for messages.
    listener
        What is told of calls and expressions.
    resolve
        Finds what another file of the run defines under a qualified name.
    package
        Qualified name of the folder that the file is in, for relative imports.
    is_worth
        Whether to follow the function between two lines by itself.
    """

    def __init__(
        self,
        path: str,
        listener: Listener,
        resolve: Callable[[str], Value] | None = None,
        package: str = "",
        is_worth: Callable[[int, int], bool] = lambda first, last: True,
    ) -> None:
        self.path = path
        self.listener = listener
        self.stars: list[str] = []
        self.handed_over: list[tuple[str, Arguments]] = []
        self.num_yields = 0
        self.module = Scope()
        self.imported: set[str] = set()
        self._resolve = resolve
        self._package = package
        self._is_worth = is_worth
        self._returned: list[list[Value]] = []
        self._results: dict[Any, Value] = {}
        self._running: set[Any] = set()
        self._functions: list[Function] = []
        self._runs = 0

    def run(self, tree: ast.Module, assigned_elsewhere: frozenset[str] = frozenset()) -> None:
        """Follow the whole file: its top level, and then each function by itself.

        `assigned_elsewhere` are the names that a function assigns by ``global`` or ``nonlocal``.
        """
        self.module.elsewhere |= assigned_elsewhere
        self.block(tree.body, self.module)
        while self._functions:
            function = self._functions.pop()
            if not self._is_worth(function.node.lineno, function.node.end_lineno or function.node.lineno):
                continue
            owner = None if function.owner is None else Value("class", payload=function.owner)
            itself = None if owner is None else self.instantiate(owner, _UNKNOWN)
            returned = self.run_function(function, _UNKNOWN, itself)
            self.listener.function(function, returned)
            constructor = None if owner is None else self._find_method(owner.payload, "__init__")
            made, given = _default_reduction(constructor), _default_reduction(function)
            if made is not _UNKNOWN or given is not _UNKNOWN:
                self.run_function(function, given, None if owner is None else self.instantiate(owner, made))

    def run_handed(self, name: str, arguments: Arguments) -> None:
        """Follow a function of the file with the arguments that another file gives it."""
        value = self.module.names.get(name)
        if value is not None and value.kind == "function":
            self.run_function(value.payload, arguments, None)

    def tell_loss(self, loss: LossCall) -> None:
        self.listener.loss(loss)

    def tell_operation(self, operation: Operation) -> None:
        self.listener.operation(operation)

    def tell_binary(self, node: ast.BinOp, left: Value, right: Value) -> None:
        self.listener.binary(node, left, right)

    def tell_criterion(self, criterion: Criterion) -> None:
        self.listener.criterion(criterion)

    def tell_call(self, node: ast.Call, name: str, arguments: Arguments) -> None:
        self.listener.call(node, name, arguments)

    def is_known(self, name: str) -> bool:
        return canonical(name) in _KNOWN or self.resolve(name).kind != "unknown"

    def resolve(self, name: str) -> Value:
        return UNKNOWN if self._resolve is None else self._resolve(name)

    def define(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> bool:
        for expression in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.evaluate(expression, scope)
        function = Function(node.name, node, scope)
        scope.bind(node.name, Value("function", payload=function))
        self._functions.append(function)
        return False

    def define_class(self, node: ast.ClassDef, scope: Scope) -> bool:
        bases = tuple(self.evaluate(base, scope) for base in node.bases)
        made = Class(node.name, scope, bases)
        inner = Scope(scope)
        late = set()
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in statement.decorator_list:
                    self.evaluate(decorator, inner)
                function = Function(statement.name, statement, scope, made)
                made.methods[statement.name] = function
                self._functions.append(function)
                if statement.name not in _EARLY:
                    late |= _assigned_attributes(statement)
            else:
                self.block([statement], inner)
        made.attributes = dict(inner.names)
        made.assigned_late = frozenset(late)
        scope.bind(node.name, Value("class", payload=made))
        return False

    def run_function(self, function: Function, arguments: Arguments, itself: Value | None) -> Value:
        """Return what a function returns for these arguments; each kind of arguments is followed once."""
        names, given = self._parameters(function, arguments, itself)
        key = (function, tuple((name, _key(value)) for name, value in given.items()))
        if key in self._results:
            return self._results[key]
        if key in self._running or len(self._running) > _DEEPEST or self._runs > _MOST_RUNS:
            return UNKNOWN
        self._running.add(key)
        self._runs += 1
        scope = Scope(function.scope)
        for name in names:
            scope.bind(name, given.get(name, UNKNOWN))
        self._returned.append([])
        node = function.node
        outer, self.listener.within = self.listener.within, node
        num_yields = self.num_yields
        if isinstance(node, ast.Lambda):
            self._returned[-1].append(self.evaluate(node.body, scope))
        elif not self.block(node.body, scope):
            self._returned[-1].append(constant(None))
        returned = self._returned.pop()
        self.listener.within = outer
        if self.num_yields > num_yields:
            returned = []  # a generator
            self.num_yields = num_yields
        result = join_all(value for value in returned if len(returned) == 1 or value != constant(None))
        self._running.discard(key)
        self._results[key] = result
        return result

    def _parameters(
        self, function: Function, arguments: Arguments, itself: Value | None
    ) -> tuple[list[str], dict[str, Value]]:
        """Return the names of all parameters, and the values of those that are known."""
        spec = function.node.args
        ordered = [parameter.arg for parameter in (*spec.posonlyargs, *spec.args)]
        names = [*ordered, *(parameter.arg for parameter in spec.kwonlyargs)]
        names += [parameter.arg for parameter in (spec.vararg, spec.kwarg) if parameter is not None]
        values: list[Value] = [argument.value for argument in arguments.positional]
        if function.owner is not None and not _is_static(function.node):
            values = [UNKNOWN if itself is None else itself, *values]
        given = dict(zip(ordered, values, strict=False))
        given |= {name: argument.value for name, argument in arguments.keywords.items() if name in names}
        if arguments.is_complete:
            for name, default in _defaults(spec):
                if name not in given and isinstance(default, ast.Constant):
                    given[name] = constant(default.value)
        return names, {name: value for name, value in given.items() if _key(value) is not None}

    def instantiate(self, value: Value, arguments: Arguments) -> Value:
        made: Class = value.payload
        functional = self._functional(made, arguments)
        if functional is not None:
            return functional
        given = [("", argument.value) for argument in arguments.positional]
        given += [(name, argument.value) for name, argument in arguments.keywords.items()]
        key = (arguments.is_complete, tuple((name, _key(value)) for name, value in given))
        if key not in made.instances:
            instance = made.instances[key] = Instance(made, {})
            for early in _EARLY:
                constructor = self._find_method(made, early)
                if constructor is not None:
                    chosen = arguments if early == "__init__" else Arguments((), {}, early == "setup")
                    instance.attributes |= self._construct(constructor, chosen, Value("instance", payload=instance))
        return Value("instance", payload=made.instances[key])

    def _functional(self, made: Class, arguments: Arguments) -> Value | None:
        """Return a Keras model that a subclass makes of its inputs and outputs; None if this is none."""
        outputs = arguments.get("outputs", 1)
        is_model = any(base.kind == "name" and base.payload in _MODELS for base in made.bases)
        if outputs is None or not is_model or any(name in made.methods for name in ("__init__", *_FORWARD)):
            return None
        return Value("network", payload=Network(outputs.value))

    def _construct(self, function: Function, arguments: Arguments, itself: Value) -> dict[str, Value]:
        """Follow a constructor and return the attributes that it sets."""
        if len(self._running) > _DEEPEST or isinstance(function.node, ast.Lambda):
            return {}
        self._running.add((function, id(itself.payload)))
        scope = Scope(function.scope)
        names, given = self._parameters(function, arguments, itself)
        for name in names:
            scope.bind(name, given.get(name, UNKNOWN))
        own = names[0] if names else "self"
        self._returned.append([])
        self.block(function.node.body, scope)
        self._returned.pop()
        self._running.discard((function, id(itself.payload)))
        return {key[len(own) + 1 :]: value for key, value in scope.names.items() if key.startswith(f"{own}.")}

    def _find_method(self, made: Class, name: str, depth: int = 0) -> Function | None:
        if name in made.methods:
            return made.methods[name]
        for base in made.bases:
            if base.kind == "class" and depth < _DEEPEST:
                found = self._find_method(base.payload, name, depth + 1)
                if found is not None:
                    return found
        return None

    def attribute_of(self, instance: Instance, name: str, value: Value) -> Value:
        made = instance.of
        if name in instance.attributes:
            return UNKNOWN if name in made.assigned_late else instance.attributes[name]
        function = self._find_method(made, name)
        if function is not None:
            decorators = {ast.unparse(d) for d in getattr(function.node, "decorator_list", [])}
            if "property" in decorators:
                return UNKNOWN
            return Value("method", payload=Method(name, value, function))
        if name in made.attributes:
            return UNKNOWN if name in made.assigned_late else made.attributes[name]
        return Value("method", payload=Method(name, value))

    def class_attribute(self, value: Value, name: str) -> Value:
        made: Class = value.payload
        if name in made.methods and _is_static(made.methods[name].node):
            return Value("function", payload=made.methods[name])
        return made.attributes.get(name, UNKNOWN)

    def forward(self, instance: Instance, value: Value, arguments: Arguments) -> Value:
        made = instance.of
        if made.output is not None:
            return made.output
        for name in _FORWARD:
            function = self._find_method(made, name)
            if function is not None:
                return self.run_function(function, arguments, value)
        return UNKNOWN


_UNKNOWN = Arguments((), {}, False)


def _default_reduction(function: Function | None) -> Arguments:
    """Return the arguments of a call that leaves the reduction at its default; nothing is known of the others."""
    for name, default in () if function is None else _defaults(function.node.args):
        if name == "reduction" and isinstance(default, ast.Constant):
            return Arguments((), {name: Argument(default, constant(default.value))}, False)
    return _UNKNOWN


def _key(value: Value) -> Any:
    """Return what makes two arguments the same to a function, None for one that is not known."""
    if value.kind == "unknown":
        return None
    payload = value.payload
    if isinstance(payload, str | int | float | bool | None):
        return value.kind, payload, value.marks
    if value.kind == "tuple":
        return value.kind, tuple(_key(part) for part in payload)
    if isinstance(payload, Method):
        return value.kind, payload.name, _key(payload.of)
    if isinstance(payload, Function | Class | Instance | Layer | Criterion | Network):
        return value.kind, payload
    return value.kind, str(type(payload)), value.marks


def _assigned_attributes(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the attributes of the object itself that a method assigns."""
    itself = function.args.args[0].arg if function.args.args else "self"
    return {name.partition(".")[2] for name in assigned_in(function.body) if name.startswith(f"{itself}.")}


def _defaults(spec: ast.arguments) -> list[tuple[str, ast.expr]]:
    ordered = [*spec.posonlyargs, *spec.args]
    pairs = list(zip((p.arg for p in ordered[len(ordered) - len(spec.defaults) :]), spec.defaults, strict=True))
    return pairs + [
        (parameter.arg, default)
        for parameter, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
        if default is not None
    ]


def _is_static(node: ast.AST) -> bool:
    return any(ast.unparse(decorator) == "staticmethod" for decorator in getattr(node, "decorator_list", []))
