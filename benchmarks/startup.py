"""What starting costs: importing crossent, and the first call of a fresh process, with and without compiled kernels.

Processor seconds of the thread that calls, so that what else the machine does counts little. Without a wheel a first
call compiles; with kernels kept on disk, or in a wheel, it loads them. Each time is beyond ``import numba`` and beyond
the libraries that the call needs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_IMPORT = "import time; s=time.process_time(); import {module}; print(time.process_time()-s)"
_CALL = """
import time, numpy as np, numba
import crossent as ce
{imports}
rng = np.random.default_rng(0)
z = rng.standard_normal((64, {classes})).astype({dtype!r})
y = np.arange(64) % {classes}
soft = np.full((64, {classes}), 1 / {classes}, {dtype!r})
features, heads = z[:, :8].copy(), np.ones(({classes}, 8), {dtype!r})
s = time.process_time(); {call}; print(time.process_time() - s)
"""
CALLS = {
    "`ce.cross_entropy`": ("", "ce.cross_entropy(z, y)"),
    "`ce.value_and_grad`": ("", "ce.value_and_grad(z, y)"),
    "`ce.value_and_grad`, distributions": ("", "ce.value_and_grad(z, soft)"),
    "`ce.value_and_grad`, sigmoid link": ("", 'ce.value_and_grad(z, soft, link="sigmoid")'),
    "`ce.statistics`": ("", "ce.statistics(z, y)"),
    "`ce.linear_value_and_grad`": ("", "ce.linear_value_and_grad(features, heads, y)"),
    "`cet.cross_entropy(...).backward()`": (
        "import torch, crossent.torch as cet\nt = torch.zeros(64, {classes}, requires_grad=True)\n"
        "(t * 1.0).sum().backward()",
        "cet.cross_entropy(t, torch.zeros(64, dtype=torch.int64)).backward()",
    ),
    "`log_loss`": ("from crossent.metrics import log_loss", "log_loss(y, soft, labels=np.arange({classes}))"),
    "`TemperatureScaling().fit`": (
        "from crossent.calibration import TemperatureScaling\ny = np.arange(64) % min(64, {classes})",
        'TemperatureScaling(input="any-logits").fit(z[:, :64].copy(), y)',
    ),
    "`SoftmaxRegression().fit`": (
        "from crossent.sklearn import SoftmaxRegression\nx = np.random.default_rng(1).standard_normal((150, 4))",
        "SoftmaxRegression().fit(x, np.arange(150) % 3)",
    ),
}
"""What is called first: what it imports, and the call."""


WHEELS_PYTHON = Path(__file__).resolve().parents[1] / "build" / "smoke" / "bin" / "python"
"""The environment in which `make smoke` installs the wheel of `make wheel`."""


def _seconds(code: str, python: str = sys.executable, **environment: str) -> float:
    result = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **environment}
    )
    return float(result.stdout)


def _first(code: str, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        compiling = _seconds(code, NUMBA_CACHE_DIR=cache)
        found = {
            "compiling": compiling,
            "cached": statistics.median(_seconds(code, NUMBA_CACHE_DIR=cache) for _ in range(repeats)),
        }
    if WHEELS_PYTHON.exists():
        with tempfile.TemporaryDirectory() as empty:
            alone = {"NUMBA_CACHE_DIR": empty, "PYTHONPATH": "", "CROSSENT_DISABLE_COMPILE": "1"}
            found["wheel"] = statistics.median(_seconds(code, str(WHEELS_PYTHON), **alone) for _ in range(repeats))
    return found


def run(repeats: int) -> dict[str, Any]:
    """Return median seconds of imports and of first calls."""
    both = [_seconds(_IMPORT.format(module="numpy, crossent")) for _ in range(repeats)]
    numpy_alone = [_seconds(_IMPORT.format(module="numpy")) for _ in range(repeats)]
    first: dict[str, dict[str, float]] = {}
    for what, (imports, call) in CALLS.items():
        for classes in (10, 1000) if what in ("`ce.cross_entropy`", "`ce.value_and_grad`") else (10,):
            shape = {"classes": classes, "dtype": "float32"}
            code = _CALL.format(imports=imports.format(**shape), call=call.format(**shape), **shape)
            name = f"{what}, {classes} classes" if classes > 10 else what
            first[name] = _first(code, repeats)
            print("first call", name, first[name], flush=True)
    result = {"import beyond numpy": statistics.median(both) - statistics.median(numpy_alone), "first call": first}
    print(result, flush=True)
    return result
