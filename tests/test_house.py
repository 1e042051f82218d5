"""The rules of the house that a machine can check: how long a file is, how many parameters a function has, and that no
modules import each other in a circle."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_imports import FILES, SOURCE, imported

LONGEST_FILE = 450
MOST_PARAMETERS = 10
MOST_PARAMETERS_OF_A_KERNEL = 12
PUBLIC = (
    "crossent",
    "crossent.information",
    "crossent.keras",
    "crossent.metrics",
    "crossent.report",
    "crossent.sklearn",
    "crossent.torch",
)


def name_of(path: Path) -> str:
    """`src/crossent/core/jet.py` -> `crossent.core.jet`."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def public_names() -> set[tuple[str, str]]:
    """The functions and classes that users call, as (module, name)."""
    found = {(f"crossent.cli.{name}", name) for name in ("fit", "predict", "report")}
    for module in PUBLIC:
        for value in vars(importlib.import_module(module)).values():
            if inspect.isfunction(value) or inspect.isclass(value):
                found.add((value.__module__, value.__qualname__))
    return found


def functions(tree: ast.AST, scope: str = "") -> Iterator[tuple[str, ast.FunctionDef, bool]]:
    """Every function with its qualified name, and whether it is a compiled kernel's entry point."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = f"{scope}.{node.name}" if scope else node.name
            if isinstance(node, ast.FunctionDef):
                decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
                yield name, node, "kernel" in decorators
            yield from functions(node, name)
        else:
            yield from functions(node, scope)


def parameters(function: ast.FunctionDef) -> int:
    """How many arguments a caller may give."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def crowded(path: Path, public: set[tuple[str, str]]) -> list[str]:
    """The functions of a file that take too much."""
    module, found = name_of(path), []
    for name, function, is_kernel in functions(ast.parse(path.read_text())):
        outermost = name.partition(".")[0]
        is_method = (module, outermost) in public and name.count(".") == 1
        is_public = (module, name) in public or (is_method and (function.name == "__init__" or function.name[0] != "_"))
        most = MOST_PARAMETERS_OF_A_KERNEL if is_kernel else MOST_PARAMETERS
        if not is_public and parameters(function) > most:
            found.append(f"{module}:{function.lineno}: {name} has {parameters(function)} parameters")
    return found


def imports_of(module: str) -> set[str]:
    """The modules of crossent that a module imports, for types alone or inside a function included."""
    path = MODULES[module]
    names = {name for _, name in imported(ast.parse(path.read_text()), module, path.stem == "__init__")}
    found = set()
    for name in names:
        while name and name not in MODULES:  # `from a import b` may name something in a
            name = name.rpartition(".")[0]
        if name and name != module:
            found.add(name)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of a graph that have more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def test_no_function_takes_too_much() -> None:
    pytest.importorskip("torch")
    public = public_names()
    assert [line for path in FILES for line in crowded(path, public)] == []


def test_no_modules_import_each_other() -> None:
    assert circles({module: imports_of(module) for module in MODULES}) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"]]


def test_too_many_parameters_are_found() -> None:
    names = ", ".join(f"x{i}" for i in range(MOST_PARAMETERS + 1))
    tree = ast.parse(f"class A:\n    def f(self, {names}): ...\n@kernel\ndef g({names}): ...")
    counts = [(name, parameters(function), is_kernel) for name, function, is_kernel in functions(tree)]
    assert counts == [("A.f", MOST_PARAMETERS + 1, False), ("g", MOST_PARAMETERS + 1, True)]
