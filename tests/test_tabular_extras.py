"""What pyproject.toml's extras promise: everything their module imports, nothing more, and a clear word without it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "crossent"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTION = {"sklearn": "scikit-learn"}
# Each extra's packages of crossent, with the packages of crossent that those import.
ESTIMATORS = ["calibration", "regression", "sklearn"]
PACKAGES = {
    "torch": ["torch"],
    "sklearn": ESTIMATORS,
    "onnx": ESTIMATORS,
    "distributed": ESTIMATORS,
    "tabular": [*ESTIMATORS, "tabular"],
    "report": [*ESTIMATORS, "tabular", "report"],
    "cli": [*ESTIMATORS, "tabular", "report", "cli"],
}
# Files that need an extra of their own, and say so when they are used without it.
OWN_EXTRA = {
    "export.py": "onnx",
    "parquet.py": "tabular",
    "workbooks.py": "cli",
    **dict.fromkeys(("distributed.py", "partitions.py", "dask_graphs.py", "dask_collections.py"), "distributed"),
}


def promised(extra: str) -> set[str]:
    """The distributions of an extra and of the extras it names."""
    names: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        own = re.fullmatch(r"crossent\[(.*)\]", requirement)
        if own:
            names.update(*(promised(name) for name in own[1].split(",")))
        else:
            names.add(re.match(r"[\w-]+", requirement)[0])  # type: ignore[index]
    return names


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("extra", PACKAGES)
def test_an_extra_is_what_its_module_imports(extra: str) -> None:
    folders = [SOURCE / name for name in PACKAGES[extra]]
    paths = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*.py"))]
    paths = [path for path in paths if OWN_EXTRA.get(path.name, extra) == extra]
    names = {name for path in paths for name in imported(path)} - sys.stdlib_module_names - {"crossent", "numpy"}
    assert promised(extra) == {DISTRIBUTION.get(name, name) for name in names}


def run_without(missing: str, code: str) -> subprocess.CompletedProcess[str]:
    script = f"import sys\nsys.modules[{missing!r}] = None\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        *(("tabular", name) for name in ("polars", "safetensors", "sklearn", "threadpoolctl")),
        ("torch", "torch"),
        *(("report", name) for name in ("matplotlib", "jinja2", "rich", "polars", "safetensors", "sklearn")),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(module: str, missing: str) -> None:
    result = run_without(missing, f"import crossent\nimport crossent.{module}")
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith(f"ModuleNotFoundError: crossent.{module} needs ")
    assert last.endswith(f": pip install 'crossent[{module}]'")


@pytest.mark.parametrize("missing", ["typer", "polars", "safetensors", "sklearn", "matplotlib", "jinja2"])
def test_the_command_line_without_a_package_says_what_to_install(missing: str) -> None:
    code = "sys.argv = ['crossent', 'fit', 'wine']\nfrom crossent.cli import main\nmain()"
    result = run_without(missing, code)
    assert result.returncode in (1, 2)
    assert result.stderr.count("\n") == 1
    assert "pip install 'crossent[cli]'" in result.stderr
