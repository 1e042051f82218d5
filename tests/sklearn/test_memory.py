"""Of very many classes the optimiser's own arrays are what fills memory: they are counted."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from libraries import HAS_NUMBA
from plans import tune
from sklearn.exceptions import ConvergenceWarning

from crossent import Focal
from crossent.losses import DEFAULT_LOSS
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.plan import tuned
from crossent.regression.rows import NEGLIGIBLE, drop_negligible
from crossent.regression.targets import EncodedTarget
from crossent.sklearn import SoftmaxRegression

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
    small = {"totals_bytes": parameters, "cache_bytes": parameters, "pairs_bytes": 4 * parameters}
    tune(monkeypatch, **small, block_rows=tuned().block_rows // 6, block_elements=1, sample_rows=0)
    monkeypatch.setattr("crossent.regression.arrays.BLOCK_ELEMENTS", 1 << 14)
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


@pytest.mark.parametrize(("num_features", "most"), [(8, 13), (16, 26), (768, 103)])
def test_blocks_of_many_classes_are_as_large_as_their_features_need(num_features: int, most: int) -> None:
    """Megabytes of logits of a block of 100,000 classes, of which each thread holds one: every block reads W, which
    is nothing to few features, and the fewer rows, the nearer to the processor the logits stay."""
    num_classes = 100_000
    y = np.arange(2) * (num_classes - 1)
    target = EncodedTarget("softmax", np.arange(num_classes), num_classes, y.astype(np.uint32), None)
    X = np.zeros((2, num_features), np.float32)
    weight, loss = np.full(2, 0.5), DEFAULT_LOSS
    objective = LinearObjective(X, target, weight, Ridge(1.0), loss, True)
    assert objective.plan.cache_rows * num_classes * 4 <= most * 1e6


def test_sums_over_the_rows_of_a_block_keep_the_digits_of_class_masses() -> None:
    """A proof charges what is missing of a class's mass, and blocks are added up in float32 where classes are many."""
    num_classes, num_rows = 300, 3000
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, num_rows)
    X = rng.standard_normal((num_rows, 4), dtype=np.float32)
    target = EncodedTarget("softmax", np.arange(num_classes), num_classes, y.astype(np.uint16), None)
    weight, loss = np.full(num_rows, 1 / num_rows), DEFAULT_LOSS
    objective = LinearObjective(X, target, weight, Ridge(1.0), loss, True)
    theta = rng.standard_normal((num_classes, 5))
    rounded = objective.evaluate(theta).bias_gradient
    objective.promote()
    mass = np.maximum(objective.total_mass()[0], 1 / num_rows)
    assert (np.abs(rounded - objective.evaluate(theta).bias_gradient) / mass).max() <= 5e-6


def test_numbers_are_rounded_alike_in_pieces_and_at_once() -> None:
    rng = np.random.default_rng(0)
    for dtype, least in NEGLIGIBLE.items():
        values = (10.0 ** rng.uniform(1.5 * np.log10(least), 0, 150_001)).astype(dtype)
        shift = np.asarray(least / np.finfo(dtype).eps, dtype)
        expected = (values + shift) - shift
        np.testing.assert_array_equal(drop_negligible(values), expected)
        assert (expected == 0).any()
