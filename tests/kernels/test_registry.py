"""Finding the compiled kernels, doing without them, and keeping their machine code on disk; each in a fresh process."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossent import kernels

pytest.importorskip("numba")


def run(code, **environment):
    """Standard output and error of a process that may not fail."""
    clean = {k: v for k, v in os.environ.items() if k not in ("CROSSENT_DISABLE_NUMBA", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout, done.stderr


def test_numba_is_imported_only_when_a_kernel_is_asked_for():
    out, _ = run("""
import sys, crossent
from crossent.kernels import registry
print("numba" in sys.modules)
print(registry.find("float32").__name__, registry.find("float64") is registry.find("float32"), "numba" in sys.modules)
print(registry.find("float16").__name__, registry.why_refused())
""")
    assert out.split("\n")[:3] == [
        "False",
        "crossent.kernels.cpu True True",
        "crossent.kernels.reference {}",
    ]


def test_without_numba_there_is_one_notice_and_the_reference():
    out, error = run(
        """
import sys
from crossent.kernels import registry
print({registry.find(d).__name__ for d in ("float32", "float64", "float32")}, "numba" in sys.modules)
print(registry.why_refused())
""",
        CROSSENT_DISABLE_NUMBA="1",
    )
    assert out.split("\n")[0] == "{'crossent.kernels.reference'} False"
    assert out.split("\n")[1] == "{'crossent.kernels.cpu': 'CROSSENT_DISABLE_NUMBA is set'}"
    assert error.count("computes with plain NumPy") == 1


def test_a_broken_numba_is_survived():
    out, error = run("""
import sys
sys.modules["numba"] = None
from crossent.kernels import registry
print(registry.find("float64").__name__)
""")
    assert out.strip() == "crossent.kernels.reference"
    assert "ModuleNotFoundError" in error or "ImportError" in error


SCAN = """
import logging, sys
logging.basicConfig(level=logging.INFO)
logging.getLogger("numba").setLevel(logging.WARNING)
import numpy as np
from crossent.kernels import cpu
out = np.empty(4, np.int64)
print(cpu.scan_labels(np.array([2, 0, -100, 1]), 3, -100, out), out)
"""
EXPECTED = "(-1, 3) [ 2  0 -1  1]"


def test_a_place_that_cannot_be_written_to_is_survived():
    # A file where a folder would have to be made cannot be written to, not even by root.
    blocked = str(Path(__file__) / "cache")
    out, error = run(
        """
from numba.core import caching
for locator in caching.CacheImpl._locator_classes:
    locator.ensure_cache_path = lambda self: (_ for _ in ()).throw(PermissionError("read-only"))
"""
        + SCAN,
        NUMBA_CACHE_DIR=blocked,
    )
    assert out.strip() == EXPECTED
    assert error.count("not kept on disk") == 1


def test_compiled_functions_have_names_of_their_own():
    """Kernels that different processes put on disk find each other's functions by name."""
    named = {}
    folder = Path(kernels.__file__).parent
    modules = {".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")}
    for name in sorted(modules - {"triton"}):
        for value in vars(importlib.import_module(f"crossent.kernels.{name}")).values():
            function = getattr(value, "py_func", value)
            if inspect.isfunction(function) and function.__module__.startswith("crossent.kernels."):
                assert named.setdefault((function.__module__, function.__qualname__), function) is function
    assert len(named) > 50
