"""What the files of one run know of each other: models whose output is known, and helpers that return one."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .flow import Analysis
from .records import Argument, Arguments, Class, Scope
from .values import UNKNOWN, Value, bare

__all__ = ["Export", "World", "exports_of", "module_name"]

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
            output = bare(analysis.forward(made.payload, made, Arguments((unknown,), {}, True)))
            if output is not None:
                found[name] = Export("class", output)
        elif value.kind == "function":
            output = bare(analysis.run_function(value.payload, Arguments((), {}, False), None))
            if output is not None:
                found[name] = Export("function", output)
        elif value.kind == "name" and analysis.path.endswith("__init__.py"):
            found[name] = Export("name", Value("name", payload=value.payload))
    return found


class World:
    """The exports of all files of a run, found by the name that an import uses."""

    def __init__(self, exports: Mapping[str, Mapping[str, Export]], paths: Iterable[str] = ()) -> None:
        self._modules = {module_name(path): found for path, found in exports.items()}
        self._paths = {module_name(path): path for path in paths}
        self._exporting, self._all = _by_last(self._modules), _by_last(self._paths)
        self.handed: dict[str, list[tuple[str, Arguments]]] = {}  # by path: functions, and what another file calls with

    def locate(self, name: str, importer: str, steps: int = 0) -> tuple[str, str] | None:
        """Return the path of the file that defines a qualified name, and the name there; None if that is not known."""
        module, _, symbol = name.rpartition(".")
        chosen = _chosen(self._all, module, importer) if module else None
        if chosen is None or steps > _MOST_STEPS:
            return None
        export = self._modules.get(chosen, {}).get(symbol)
        if export is not None and export.kind == "name":
            return self.locate(export.value.payload, chosen, steps + 1)
        return self._paths[chosen], symbol

    def resolve(self, name: str, importer: str, steps: int = 0) -> Value:
        """Return what a qualified name means in a file, ``unknown`` if no file, or two, could be meant."""
        module, _, symbol = name.rpartition(".")
        chosen = _chosen(self._exporting, module, importer) if module else None
        export = None if chosen is None else self._modules[chosen].get(symbol)
        if export is None or chosen is None or steps > _MOST_STEPS:
            return UNKNOWN
        if export.kind == "name":
            return self.resolve(export.value.payload, chosen, steps + 1)
        if export.kind == "class":
            return Value("class", payload=Class(symbol, Scope(), output=export.value))
        return Value("function", payload=export.value)


def _by_last(modules: Iterable[str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for module in modules:
        found[module.rpartition(".")[2]].append(module)
    return dict(found)


def _chosen(by_last: Mapping[str, list[str]], name: str, importer: str) -> str | None:
    """Return the module that a name means in a file, None if no module, or two, could be meant."""
    candidates = [
        module for module in by_last.get(name.rpartition(".")[2], ()) if module == name or module.endswith(f".{name}")
    ]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    shared = sorted((-_shared(module, importer), module) for module in candidates)
    return None if shared[0][0] == shared[1][0] else shared[0][1]


def _shared(a: str, b: str) -> int:
    """Return how many of their first parts two dotted names share."""
    pairs = list(zip(a.split("."), b.split("."), strict=False))
    return next((number for number, (x, y) in enumerate(pairs) if x != y), len(pairs))
