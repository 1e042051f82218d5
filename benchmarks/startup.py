"""What starting costs: importing crossent, compiling at the first call, and the first call once the cache is warm."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

_IMPORT = "import time; s=time.perf_counter(); import {module}; print(time.perf_counter()-s)"
_CALL = """
import time, numpy as np
import crossent as ce
z = np.random.default_rng(0).standard_normal(({rows}, {classes})).astype({dtype!r})
y = np.zeros({rows}, dtype=np.int64)
import numba
s = time.perf_counter(); ce.value_and_grad(z, y); print(time.perf_counter() - s)
"""


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
    for rows, classes, dtype in (
        (64, 10, "float32"),
        (64, 1000, "float32"),
        (64, 10, "float64"),
        (64, 1000, "float64"),
    ):
        code = _CALL.format(rows=rows, classes=classes, dtype=dtype)
        with tempfile.TemporaryDirectory() as cache:
            compiling = _seconds(code, NUMBA_CACHE_DIR=cache)
            cached = [_seconds(code, NUMBA_CACHE_DIR=cache) for _ in range(repeats)]
        first[f"{classes} classes, {dtype}"] = {"compiling": compiling, "cached": statistics.median(cached)}
        print("first call", classes, dtype, first[f"{classes} classes, {dtype}"], flush=True)
    result = {"import beyond numpy": statistics.median(both) - statistics.median(numpy_alone), "first call": first}
    print(result, flush=True)
    return result
