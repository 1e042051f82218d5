"""Kernels that a wheel brings: which processors they serve, who may own them, what damage and other versions cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba")

import llvmlite.binding as llvm  # noqa: E402 (it comes with Numba)

import crossent  # noqa: E402
from crossent.kernels.numba import compile as compiling  # noqa: E402
from crossent.kernels.numba.levels import LEVELS, best_level, features_of  # noqa: E402
from crossent.kernels.numba.store import Store  # noqa: E402

HOST = {name for name, is_there in llvm.get_host_cpu_features().items() if is_there}

# Prints what a kernel computes and whose it is.
SCAN = """
import numpy as np
from crossent.kernels import cpu, why_chosen
out = np.empty(4, np.int64)
print(cpu.scan_labels(np.array([2, 0, -100, 1]), 3, -100, out), out, sum(cpu._labels.scan.stats.cache_hits.values()))
print(why_chosen())
"""
RIGHT = "(-1, 3) [ 2  0 -1  1]"


def test_the_best_level_is_the_one_whose_features_are_all_there():
    if "x86-64-v4" not in LEVELS:
        pytest.skip("levels of x86-64")
    v3, v4 = set(LEVELS["x86-64-v3"]), set(LEVELS["x86-64-v4"])
    assert best_level(v4 | {"amx-tile"}) == "x86-64-v4"
    assert best_level(v4 - {"avx512bw"}) == best_level(v3) == "x86-64-v3"
    assert best_level(v3 - {"fma"}) is best_level(set()) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")
def test_the_packages_own_folder_is_as_trusted_as_its_sources(tmp_path):
    (tmp_path / "source.py").touch()
    folder = tmp_path / "machine_code"
    writer = Store(folder, tmp_path)
    name = writer.name("kernel", "float64")
    writer.save(name, b"code")
    folder.chmod(0o777)
    assert Store(folder, tmp_path).load(name) is None
    store = Store(folder, tmp_path, is_package=True)
    assert store.has_any()
    assert store.load(name) == b"code"
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"f")
    assert store.load(name) is None


def run(package: Path, cache: Path, **environment: str) -> list[str]:
    """What a fresh process prints that imports crossent from a folder."""
    unset = ("CROSSENT_DISABLE_NUMBA", "CROSSENT_DISABLE_COMPILE", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    where = {"PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCAN], env=clean | where | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_wheels_kernels_serve_and_damage_costs_a_compilation(tmp_path):
    level = best_level(HOST)
    if level is None:
        pytest.skip("no wheel has kernels for this processor")
    package, empty = tmp_path / "package", iter(range(100))
    shutil.copytree(Path(crossent.__file__).parent, package / "crossent", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "compiled"
    run(package, cache, NUMBA_CPU_NAME=level, NUMBA_CPU_FEATURES=features_of(level))
    (kernel,) = cache.rglob("*.kernel")
    folder = package / "crossent" / "kernels" / "machine_code" / level
    folder.mkdir(parents=True)
    shutil.copy(kernel, folder)
    versions = folder.parent / "versions.txt"

    def result(**environment: str) -> tuple[bool, str]:
        """Whether the machine code was found, and why; the number is right in any case."""
        scanned, why = run(package, tmp_path / f"empty{next(empty)}", **environment)
        assert scanned[:-2] == RIGHT
        return scanned[-1] == "1", why

    versions.write_text(compiling.VERSIONS)
    found, why = result(CROSSENT_DISABLE_COMPILE="1")
    assert found
    assert why.startswith(f"the package's own, for {level}")

    content = bytearray((folder / kernel.name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / kernel.name).write_bytes(content)
    found, why = result()
    assert not found

    versions.write_bytes(b"\xff" + compiling.VERSIONS.encode())
    found, why = result()
    assert not found
    assert "compiled on this machine, since the package's were compiled with" in why

    versions.unlink()
    found, why = result()
    assert not found
    assert "cannot be read" in why


def test_without_machine_code_a_forbidden_compilation_is_an_error(tmp_path):
    source = Path(crossent.__file__).parents[1]
    with pytest.raises(AssertionError, match=r"CROSSENT_DISABLE_COMPILE is set, and labels.scan was never compiled"):
        run(source, tmp_path, CROSSENT_DISABLE_COMPILE="1")
