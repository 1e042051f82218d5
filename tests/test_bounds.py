"""The compiled kernels read and write inside their arrays: run once with Numba's bounds checks on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from libraries import HAS_NUMBA

CODE = """
import numpy as np, crossent as ce
from crossent.core.target import Target
from crossent.kernels import registry
dtype = np.float32  # the kernels are one source for both dtypes
for n, k in ((1, 1), (7, 3), (17, 10), (33, 16), (5, 17), (3, 40), (2, 300)):
    z = np.linspace(-3, 3, n * k).astype(dtype).reshape(n, k)
    y = np.arange(n) % k
    y[n // 2] = -100
    soft = np.full((n, k), 1 / k, dtype=dtype)
    for loss in (None, ce.Focal(1.5) + ce.ZPenalty(0.1), ce.Brier() + ce.EntropyPenalty(0.1)):
        for target in (y, soft):
            for options in ({}, {"weight": np.ones(k), "label_smoothing": 0.1, "sample_weight": np.ones(n)}):
                ce.cross_entropy(z, target, loss=loss, **options)
                ce.value_and_grad(z, target, loss=loss, reduction="none", **options)
        bits = (z > 0).astype(int)
        ce.value_and_grad(z, bits, loss=loss, link="sigmoid", pos_weight=2.0, reduction="none")
        ce.value_and_grad(z, abs(z) / 3, loss=loss, link="sigmoid", label_smoothing=0.1)
    ce.statistics(z, y)
    w, sums = np.ones(k, dtype), np.zeros(k + 1)
    one_logit = registry.find(z.dtype).logistic_value_grad
    for given in ({"labels": np.ones((n, 1), np.int8)}, {"soft": np.ones((n, 1), dtype)}):
        for class_weight in (None, np.ones((2, 1))):
            target = Target(1, **given, class_weight=class_weight, label_smoothing=0.1, link="sigmoid")
            one_logit(z, w, dtype(0), target, np.ones(n), 0.0, sums)
print("inside")
"""


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed or disabled")
def test_kernels_stay_inside_their_arrays(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == "inside\n", result.stderr[-2000:]
