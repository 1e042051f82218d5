"""Of very many classes the optimiser's own arrays are what fills memory: they are counted."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from libraries import HAS_NUMBA
from sklearn.exceptions import ConvergenceWarning

from crossent import Focal
from crossent.sklearn import SoftmaxRegression
from crossent.sklearn import objective as objectives

CONTENDERS = {"newton": (None, 14.5), "l-bfgs": (Focal(2.0), 15.5)}
"""The centred rows, the kept probabilities and the buffers are allowed one array each here. Of the parameters' size
Newton's method holds ten: the start, the point and its gradient, four of conjugate gradients, a product, M of the
certificate, and W in float32 twice. L-BFGS holds two pairs besides; of fewer classes 20."""


@pytest.mark.skipif(not HAS_NUMBA, reason="the reference makes copies: not measured without the kernels")
@pytest.mark.parametrize(("loss", "most"), CONTENDERS.values(), ids=CONTENDERS)
def test_few_arrays_of_the_parameters_size_are_held(
    loss: Focal | None, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K = 1500 in the proportions of K = 100,000: one partial sum over rows, two pairs for L-BFGS, little held."""
    num_classes, num_features = 1500, 127
    parameters = 8 * num_classes * (num_features + 1)
    monkeypatch.setattr(objectives, "TOTALS_BYTES", parameters)
    monkeypatch.setattr(objectives, "CACHE_BYTES", parameters)
    monkeypatch.setattr(objectives, "BLOCK_ROWS", objectives.BLOCK_ROWS // 6)
    monkeypatch.setattr(objectives, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr("crossent.sklearn.steps.CACHE_BYTES", parameters // 4)
    monkeypatch.setattr("crossent.sklearn.interface.BLOCK_ELEMENTS", 1 << 14)
    monkeypatch.setattr("crossent.sklearn.lbfgs.MEMORY_BYTES", 4 * parameters)
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(num_classes), 2)
    X = rng.standard_normal((len(y), num_features), dtype=np.float32)
    model = SoftmaxRegression(1.0, loss=loss, max_iter=3)
    with warnings.catch_warnings():  # what is imported, or compiled, is not the fit's
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:300], y[:300] // 10)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.n_iter_ == 3
    assert peak / parameters <= most
