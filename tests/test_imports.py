"""Imports go one way, and each layer knows only the libraries it needs. The syntax trees say so: an import inside a
function counts like one at the top of a file."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "crossent"
# A layer may import itself and every layer of a lower rank. `crossent` alone is the NumPy front end's names.
RANK = {
    "_version": 0,
    "text": 0,
    "files": 0,
    "errors": 1,
    "shown": 1,
    "sealed": 1,
    "masked": 2,
    "core": 2,
    "losses": 2,
    "kernels": 3,
    "metrics": 4,
    "numpy": 4,
    "": 4,
    "information": 5,
    "estimator": 5,
    "imbalance": 4.5,  # reads the checks of metrics; regression reads its class weights
    "regression": 5,
    "calibration": 6,
    "sklearn": 7,
    "boosting": 7,
    "jax": 5,
    "keras": 9,
    "torch": 8,  # its calibrators are fitted by those of sklearn
    "tabular": 8,
    "report": 9,
    "doctor": 9,
    "about": 9,
    "build_kernels": 9,
    "cli": 10,
    "__main__": 11,
}
# Third-party libraries by layer; the mathematics is written in the array-API standard and names no array library.
LIBRARIES = {
    "_version": set(),
    "errors": set(),
    "shown": {"pandas"},
    "text": set(),
    "files": set(),
    "masked": {"numpy"},
    "sealed": {"numpy", "safetensors"},
    "core": {"array_api_compat"},
    "losses": set(),
    "kernels": {"numpy", "numba", "llvmlite", "triton"},
    "metrics": {"numpy", "matplotlib"},
    "information": {"numpy"},
    "imbalance": {"numpy"},
    "numpy": {"numpy"},
    "": {"numpy"},
    "jax": {"numpy", "jax"},
    "keras": {"numpy", "keras"},
    "torch": {"numpy", "torch"},
    "estimator": {"sklearn"},
    "regression": {"numpy", "sklearn", "scipy", "threadpoolctl", "dask", "narwhals", "polars"},
    "calibration": {"numpy", "sklearn", "scipy"},
    "boosting": {"numpy", "sklearn", "xgboost", "lightgbm", "catboost"},
    "sklearn": {"numpy", "sklearn", "scipy", "onnx", "narwhals", "safetensors"},
    "tabular": {"numpy", "sklearn", "scipy", "polars", "narwhals", "pyarrow", "safetensors", "openpyxl"},
    "report": {"numpy", "polars", "matplotlib", "jinja2", "rich", "narwhals", "scipy", "sklearn"},
    "doctor": {"typer", "rich", "numpy", "scipy", "torch", "keras"},
    "about": {"typer"},
    "build_kernels": {"numpy"},
    "cli": {"numpy", "typer", "rich"},
    "__main__": set(),
}


MODULE = re.compile(r"crossent(\.\w+)+")


def layer_of(module: str) -> str:
    """`crossent.core.jet` -> `core`; `crossent` -> ``""``."""
    return module.partition(".")[2].partition(".")[0]


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, absolute, with its line; `from a import b` names a.b if that is a module.

    What `crossent.__getattr__` imports is left out: it runs where a name is asked for, and is no part of `crossent`.
    """
    package = module if is_package else module.rpartition(".")[0]
    getters = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    late = {node for getter in getters if module == "crossent" for node in ast.walk(getter)}
    for node in ast.walk(tree):
        if node in late:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base.split(".")[0] == "crossent" else base
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)
            else:  # a computed name: every string of the file that could be one
                names = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
                modules = [name for name in names if MODULE.fullmatch(name)]
                yield from ((node.lineno, name) for name in modules or ["<computed>"])


def offences(path: Path, text: str) -> list[str]:
    """What the file must not import, in words."""
    relative = path.relative_to(SOURCE.parent).with_suffix("")
    is_package = relative.name == "__init__"
    module = ".".join(relative.parent.parts if is_package else relative.parts)
    layer = layer_of(module)
    found = []
    for line, name in imported(ast.parse(text), module, is_package):
        top = name.split(".")[0]
        where = f"{path.name}:{line}: {layer or 'crossent'} imports {name}"
        if top == "crossent":
            other = layer_of(name)
            other = other if other in RANK else ""  # a name such as crossent.Focal, not a layer
            if (
                other != layer
                and not RANK[other] < RANK[layer]
                and not (layer == "" and other in ("numpy", "information"))
                and {layer, other} != {"core", "losses"}  # one layer: losses are written in core's numbers
            ):
                found.append(where)
        elif top not in sys.stdlib_module_names and top not in LIBRARIES[layer]:
            found.append(where)
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    assert offences(path, path.read_text()) == []


def test_the_mathematics_meets_array_libraries_in_one_file() -> None:
    """Every other file of core gets its namespace from there, and so names no array library at all."""
    importers = {
        path.name
        for path in (SOURCE / "core").glob("*.py")
        for _, name in imported(ast.parse(path.read_text()), f"crossent.core.{path.stem}", path.stem == "__init__")
        if name.split(".")[0] not in sys.stdlib_module_names | {"crossent"}
    }
    assert importers <= {"arrays.py"}


def test_every_layer_has_a_rank() -> None:
    layers = {layer_of(".".join(("crossent", *path.relative_to(SOURCE).with_suffix("").parts))) for path in FILES}
    assert layers - {"__init__"} <= RANK.keys()
    assert RANK.keys() == LIBRARIES.keys()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("core/jet.py", "import numpy"),
        ("core/jet.py", "def f():\n    import numpy as np"),
        ("core/jet.py", "from crossent.kernels import registry"),
        ("core/jet.py", "from crossent import kernels"),
        ("core/jet.py", "from ..numpy import arrays"),
        ("errors.py", "from crossent.core import jet"),
        ("kernels/cpu.py", "import crossent as ce"),
        ("kernels/cpu.py", "from crossent.metrics.scoring import log_loss"),
        ("metrics/scoring.py", "from crossent.numpy import arrays"),
        ("numpy/api.py", "def f():\n    from crossent.sklearn import SoftmaxRegression"),
        ("numpy/api.py", "import importlib\nimportlib.import_module('torch')"),
        ("numpy/api.py", "import importlib\nimportlib.import_module(name)"),
        ("kernels/registry.py", "import importlib\nTWIN = 'crossent.numpy.dense'\nimportlib.import_module(TWIN)"),
        ("report/summarize.py", "from crossent import cli"),
        ("__init__.py", "import torch"),
        ("__init__.py", "def __getattr__(name):\n    import math\nimport torch"),
        ("numpy/api.py", "def __getattr__(name):\n    import torch"),
        ("__init__.py", "from crossent.sklearn import SoftmaxRegression"),
    ],
)
def test_an_import_the_other_way_is_found(file: str, text: str) -> None:
    assert len(offences(SOURCE / file, text)) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("core/jet.py", "from crossent.errors import refuse\nfrom .arrays import Array\nimport math"),
        ("numpy/api.py", "from crossent.losses import Loss\nfrom crossent.kernels import registry"),
        ("__init__.py", "from crossent.numpy.api import cross_entropy"),
        ("sklearn/softmax.py", "import crossent as ce\nfrom crossent import Focal"),
        ("cli/fit.py", "from crossent.report.render import html"),
    ],
)
def test_an_import_the_right_way_is_not(file: str, text: str) -> None:
    assert offences(SOURCE / file, text) == []
