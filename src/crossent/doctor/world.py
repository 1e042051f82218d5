"""What the files of one run know of each other: models whose output is known, and helpers that return one."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .flow import Analysis
from .records import Argument, Arguments, Class, Scope
from .values import UNKNOWN, Value

__all__ = ["Export", "World", "exports_of", "module_name"]

_WORTH = frozenset({"softmax", "log_softmax", "sigmoid", "log_sigmoid", "linear"})
_MOST_STEPS = 8
_NOTHING = ast.Constant(None)


@dataclass(frozen=True, slots=True)
class Export:
    """A name at the top of a file: a class whose objects return `value`, a function that does, or another's name."""

    kind: str  # "class", "function" or "name"
    value: Value


def module_name(path: str) -> str:
    """Return the dotted name of a file, as long as its path.

    Examples
    --------
    >>> module_name("src/models/__init__.py")
    'src.models'
    """
    parts = os.path.splitext(path)[0].replace(os.sep, "/").split("/")
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(part for part in parts if part not in ("", ".", ".."))


def exports_of(analysis: Analysis) -> dict[str, Export]:
    """Return what other files may want to know of this one."""
    found = {}
    for name, value in analysis.module.names.items():
        if value.kind == "class":
            made = analysis.instantiate(value, Arguments((), {}, False))
            unknown = Argument(_NOTHING, UNKNOWN)
            output = _bare(analysis.forward(made.payload, made, Arguments((unknown,), {}, True)))
            if output is not None:
                found[name] = Export("class", output)
        elif value.kind == "function":
            output = _bare(analysis.run_function(value.payload, Arguments((), {}, False), None))
            if output is not None:
                found[name] = Export("function", output)
        elif value.kind == "name" and analysis.path.endswith("__init__.py"):
            found[name] = Export("name", Value("name", payload=value.payload))
    return found


def _bare(value: Value) -> Value | None:
    """Return a value without what belongs to its file, None if nobody wants to know it."""
    if value.kind == "tuple":
        parts = [_bare(part) for part in value.payload]
        if not any(parts):
            return None
        return Value("tuple", payload=tuple(part or UNKNOWN for part in parts))
    return replace(value, node=None, operand=None, payload=None) if value.kind in _WORTH else None


class World:
    """The exports of all files of a run, found by the name that an import uses."""

    def __init__(self, exports: Mapping[str, Mapping[str, Export]]) -> None:
        self._modules = {module_name(path): found for path, found in exports.items()}
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for module in self._modules:
            self._by_last[module.rpartition(".")[2]].append(module)

    def resolve(self, name: str, importer: str, steps: int = 0) -> Value:
        """Return what a qualified name means in a file, ``unknown`` if no file, or two, could be meant."""
        module, _, symbol = name.rpartition(".")
        chosen = self._module(module, importer) if module else None
        export = None if chosen is None else self._modules[chosen].get(symbol)
        if export is None or chosen is None or steps > _MOST_STEPS:
            return UNKNOWN
        if export.kind == "name":
            return self.resolve(export.value.payload, chosen, steps + 1)
        if export.kind == "class":
            return Value("class", payload=Class(symbol, Scope(), output=export.value))
        return Value("function", payload=export.value)

    def _module(self, name: str, importer: str) -> str | None:
        candidates = [
            module
            for module in self._by_last.get(name.rpartition(".")[2], ())
            if module == name or module.endswith(f".{name}")
        ]
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        shared = sorted((-_shared(module, importer), module) for module in candidates)
        return None if shared[0][0] == shared[1][0] else shared[0][1]


def _shared(a: str, b: str) -> int:
    """Return how many of their first parts two dotted names share."""
    pairs = list(zip(a.split("."), b.split("."), strict=False))
    return next((number for number, (x, y) in enumerate(pairs) if x != y), len(pairs))
