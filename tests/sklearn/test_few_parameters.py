"""Whole Hessians of few parameters: how they are summed, and kept for several steps."""

from __future__ import annotations

import numpy as np
import pytest
from regression_oracle import blobs

from crossent.regression.direct import HessianSums
from crossent.regression.hessian import Hessian
from crossent.regression.objective import CROSS_ENTROPY_TERMS, LinearObjective
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
    return LinearObjective(X, target, rng.uniform(0.1, 2.0, rows) / rows, 0.1, CROSS_ENTROPY_TERMS, intercept, dtype)


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
    found = np.einsum("kdle,le->kd", HessianSums(objective).at(theta).blocks, vector[:, :size])
    np.testing.assert_allclose(found, product[:, :size], rtol=1e-12, atol=1e-14)


def test_memory_that_is_kept_changes_no_hessian() -> None:
    objective = _objective("softmax", True)
    theta, other = _theta(objective), 2 * _theta(objective)
    sums = HessianSums(objective)
    first = sums.at(theta).blocks
    sums.at(other)
    np.testing.assert_array_equal(sums.at(theta).blocks, first)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_memory_from_before_the_change_to_float64_rounds_nothing(link: str) -> None:
    """Threads that took kept memory rounded to float32, those that found none did not: a fit had no bits of its own."""
    rows = 2000  # more than a kernel takes in one call
    objective = _objective(link, True, rows, "float32")
    theta = _theta(objective)
    sums = HessianSums(objective)
    sums.at(theta)
    objective.promote()
    np.testing.assert_array_equal(sums.at(theta).blocks, HessianSums(objective).at(theta).blocks)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_partial_sums_make_one_hessian(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = _objective(link, True, rows=101)
    theta = _theta(objective)
    whole = HessianSums(objective).at(theta).blocks
    monkeypatch.setattr("crossent.regression.direct.CHUNK_WORK", 1)
    monkeypatch.setattr("crossent.regression.direct.PIECE_ELEMENTS", 60)
    np.testing.assert_allclose(HessianSums(objective).at(theta).blocks, whole, rtol=1e-12, atol=1e-16)


def test_a_costly_hessian_serves_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(6000, 30, 5, seed=3)
    formed = []
    at = HessianSums.at
    monkeypatch.setattr(HessianSums, "at", lambda sums, theta: formed.append(theta) or at(sums, theta))
    kept = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    times = len(formed)
    monkeypatch.setattr("crossent.regression.direct.KEPT_WORK", 1 << 62)
    fresh = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    assert times < len(formed) - times == fresh.n_iter_
    assert kept.n_iter_ > times
    assert kept.duality_gap_ <= 1e-8
    assert kept.objective_ == pytest.approx(fresh.objective_, rel=2e-8)
