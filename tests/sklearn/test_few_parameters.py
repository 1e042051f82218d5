"""Whole Hessians of few parameters: how they are summed, and kept for several steps."""

from __future__ import annotations

import numpy as np
import pytest
from plans import tune
from regression_oracle import blobs

from crossent.losses import DEFAULT_LOSS
from crossent.regression import direct
from crossent.regression.hessian import Hessian
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.targets import EncodedTarget
from crossent.sklearn import SoftmaxRegression


def _objective(link: str, intercept: bool, rows: int = 60, dtype: str = "float64") -> LinearObjective:
    """Rows and classes of unequal weight."""
    rng = np.random.default_rng(2)
    k = 4 if link == "softmax" else 1
    X, y = blobs(rows, 5, 4, seed=12)
    labels = y if link == "softmax" else (y > 1)[:, None].astype(np.int8)
    class_weight = np.linspace(0.5, 2, 4) if link == "softmax" else np.array([[0.5], [2.0]])
    target = EncodedTarget(link, np.arange(k), k, labels, None, class_weight)
    return LinearObjective(X, target, rng.uniform(0.1, 2.0, rows) / rows, Ridge(0.1), DEFAULT_LOSS, intercept, dtype)


def _theta(objective: LinearObjective) -> np.ndarray:
    theta = np.random.default_rng(3).normal(size=(objective.num_outputs, objective.num_features + 1))
    if not objective.fit_intercept:
        theta[:, -1] = 0.0
    return theta


@pytest.mark.parametrize("intercept", [True, False])
def test_the_hessian_where_all_rows_are_alike_is_that_of_the_products(intercept: bool) -> None:
    objective = _objective("softmax", intercept)
    theta = np.zeros((4, 6))
    vector = _theta(objective)
    if intercept:
        theta[:, -1] = [0.3, -1.0, 0.5, 2.0]
    product = Hessian(objective, theta) @ vector
    size = 6 if intercept else 5
    found = np.einsum("kdle,le->kd", objective.whole_hessian(theta).blocks, vector[:, :size])
    np.testing.assert_allclose(found, product[:, :size], rtol=1e-12, atol=1e-14)


def test_partial_sums_make_one_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _objective("softmax", True, rows=101)
    theta = _theta(whole)
    tune(monkeypatch, parallel_work=1)
    monkeypatch.setattr(direct, "PIECE_ELEMENTS", 60)
    pieces = _objective("softmax", True, rows=101)
    expected = whole.whole_hessian(theta).blocks
    np.testing.assert_allclose(pieces.whole_hessian(theta).blocks, expected, rtol=1e-12, atol=1e-16)


def test_a_costly_hessian_serves_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(6000, 30, 5, seed=3)
    formed = []
    whole = LinearObjective.whole_hessian
    monkeypatch.setattr(LinearObjective, "whole_hessian", lambda self, at: formed.append(at) or whole(self, at))
    kept = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    times = len(formed)
    tune(monkeypatch, kept_work=1 << 62)
    fresh = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    assert times < len(formed) - times == fresh.n_iter_
    assert kept.n_iter_ > times
    assert kept.duality_gap_ <= 1e-8
    assert kept.objective_ == pytest.approx(fresh.objective_, rel=2e-8)
