"""What is declared and locked: every library that is imported, and every package that is installed, by its hash."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_imports import FILES, LIBRARIES, imported, layer_of

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

DISTRIBUTIONS = {"sklearn": "scikit-learn", "array_api_compat": "array-api-compat"}
"""Libraries whose packages have other names."""

WITH_TORCH = {"triton"}
"""What PyTorch brings along, in the version that it needs."""

# Layers that work after a plain `pip install crossent`, and what they import only where an extra is asked for.
BASE = {"_version", "text", "files", "errors", "masked", "core", "kernels", "metrics", "numpy", "information", ""}
OPTIONAL = WITH_TORCH | {"matplotlib"}


def declared(requirements: list[str]) -> set[str]:
    return {Requirement(text).name for text in requirements}


def libraries(layers: set[str]) -> set[str]:
    """The packages of third-party libraries that these layers import."""
    known = set().union(*LIBRARIES.values())
    return {
        DISTRIBUTIONS.get(name, name)
        for path in FILES
        if layer_of(".".join(("crossent", *path.relative_to(ROOT / "src" / "crossent").with_suffix("").parts)))
        in layers | ({"__init__"} if "" in layers else set())
        for _, module in imported(ast.parse(path.read_text()), f"crossent.{path.stem}", path.stem == "__init__")
        if (name := module.split(".")[0]) in known
    }


def test_what_is_imported_is_declared() -> None:
    base = declared(PROJECT["dependencies"])
    assert libraries(BASE) - OPTIONAL <= base
    extras = set().union(*(declared(extra) for extra in PROJECT["optional-dependencies"].values()))
    assert libraries(set(LIBRARIES)) - WITH_TORCH <= base | extras


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package in a lock file."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        parsed = Requirement(requirement)
        found[parsed.name] = (str(parsed.specifier), hashes)
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize("name", ["run.txt", "test.txt"])
def test_every_locked_package_has_a_version_and_hashes(name: str) -> None:
    packages = locked(name)
    assert len(packages) > 40
    for package, (version, hashes) in packages.items():
        assert re.fullmatch(r"==[\w.]+", version), package
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), package


def test_both_locks_agree_and_leave_torch_out() -> None:
    """torch may come as a build of its own, for which no hash can be known."""
    run, test = locked("run.txt"), locked("test.txt")
    assert run.items() <= test.items()
    assert "torch" not in test


def test_locked_files_are_installed_by_their_hashes() -> None:
    commands = re.findall(r"PIP\) install (.*)", (ROOT / "Makefile").read_text())
    for name in ("run", "test"):
        assert f"--require-hashes -r requirements/{name}.txt" in commands
