"""What starting costs: importing crossent, compiling at the first call, and the first call once the cache is warm."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_IMPORT = "import time; s=time.perf_counter(); import {module}; print(time.perf_counter()-s)"
_CALL = """
import time, numpy as np
import crossent as ce
z = np.random.default_rng(0).standard_normal(({rows}, {classes})).astype({dtype!r})
y = np.zeros({rows}, dtype=np.int64)
soft = np.full(({rows}, {classes}), 1 / {classes}, {dtype!r})
features, heads = z[:, :8].copy(), np.ones(({classes}, 8), {dtype!r})
import numba
s = time.perf_counter(); {call}; print(time.perf_counter() - s)
"""
CALLS = {
    "labels": "ce.value_and_grad(z, y)",
    "distributions": "ce.value_and_grad(z, soft)",
    "sigmoid link": 'ce.value_and_grad(z, soft, link="sigmoid")',
    "statistics": "ce.statistics(z, y)",
    "linear head": "ce.linear_value_and_grad(features, heads, y)",
}
"""What is called first: each compiles kernels of its own, but for the linear head, which has those of its logits."""


EMPTY = """
import sys, time
import numpy as np, numba
sys.path.insert(0, {folder!r})
from empty_kernel import empty
z = np.zeros((64, 10), np.float32)
s = time.perf_counter(); empty(z); print(time.perf_counter() - s)
"""
EMPTY_KERNEL = "import numba\n\n\n@numba.njit(cache=True)\ndef empty(z):\n    return None\n"
"""What Numba needs for its own first call: the floor of the others."""


def _seconds(code: str, **environment: str) -> float:
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return float(result.stdout)


def run(repeats: int) -> dict[str, Any]:
    """Return median seconds of imports and of first calls."""
    both = [_seconds(_IMPORT.format(module="numpy, crossent")) for _ in range(repeats)]
    numpy_alone = [_seconds(_IMPORT.format(module="numpy")) for _ in range(repeats)]
    first: dict[str, dict[str, float]] = {}
    for classes in (10, 1000):
        for dtype in ("float32", "float64"):
            for what, call in CALLS.items():
                code = _CALL.format(rows=64, classes=classes, dtype=dtype, call=call)
                with tempfile.TemporaryDirectory() as cache:
                    compiling = _seconds(code, NUMBA_CACHE_DIR=cache)
                    cached = [_seconds(code, NUMBA_CACHE_DIR=cache) for _ in range(repeats)]
                name = f"{what}, {classes} classes, {dtype}"
                first[name] = {"compiling": compiling, "cached": statistics.median(cached)}
                print("first call", name, first[name], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty_kernel.py").write_text(EMPTY_KERNEL)
        code = EMPTY.format(folder=folder)
        compiling = _seconds(code, NUMBA_CACHE_DIR=folder)
        cached = [_seconds(code, NUMBA_CACHE_DIR=folder) for _ in range(repeats)]
    empty = {"compiling": compiling, "cached": statistics.median(cached)}
    result = {
        "import beyond numpy": statistics.median(both) - statistics.median(numpy_alone),
        "first call": first,
        "empty kernel": empty,
    }
    print(result, flush=True)
    return result
