"""Fits of few parameters: whole Hessians, those that are kept for several steps, and tables of a few hundred rows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from regression_oracle import Problem, blobs, one_hot
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import ConvergenceWarning

from crossent.sklearn import SoftmaxRegression
from crossent.sklearn.certificate import Certificate
from crossent.sklearn.curvature import Hessian
from crossent.sklearn.direct import HessianSums
from crossent.sklearn.objective import CROSS_ENTROPY_TERMS, LinearObjective
from crossent.sklearn.small import SmallStep, _Table
from crossent.sklearn.solvers import Monitor
from crossent.sklearn.targets import EncodedTarget

SETTINGS = list(itertools.product(["softmax", "sigmoid"], [True, False], ["labels", "smoothed", "soft"]))


def _objective(link: str, intercept: bool, target: str, rows: int = 60) -> LinearObjective:
    """Rows and classes of unequal weight."""
    rng = np.random.default_rng(2)
    k = 4 if link == "softmax" else 1
    X, y = blobs(rows, 5, 4, seed=12)
    soft = rng.dirichlet(np.ones(4), rows) if link == "softmax" else rng.uniform(size=(rows, 1))
    labels = y if link == "softmax" else (y > 1)[:, None].astype(np.int8)
    class_weight = np.linspace(0.5, 2, 4) if link == "softmax" else np.array([[0.5], [2.0]])
    encoded = EncodedTarget(
        link,
        np.arange(k),
        k,
        None if target == "soft" else labels,
        soft if target == "soft" else None,
        class_weight,
        0.2 if target == "smoothed" else 0.0,
    )
    return LinearObjective(X, encoded, rng.uniform(0.1, 2.0, rows) / rows, 0.1, CROSS_ENTROPY_TERMS, intercept)


def _theta(objective: LinearObjective) -> np.ndarray:
    theta = np.random.default_rng(3).normal(size=(objective.num_outputs, objective.num_features + 1))
    if not objective.fit_intercept:
        theta[:, -1] = 0.0
    return theta


@pytest.mark.parametrize(("link", "intercept", "target"), SETTINGS)
def test_a_small_table_evaluates_what_the_kernels_do(link: str, intercept: bool, target: str) -> None:
    objective = _objective(link, intercept, target)
    theta = _theta(objective)
    table = _Table(Monitor(objective, Certificate(objective), 1e-4, 10), objective, theta)
    expected, found = objective.evaluate(theta), table.evaluate(theta)
    assert found.at.value == pytest.approx(expected.value, rel=1e-13)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-12, atol=1e-15)
    whole, few = HessianSums(objective).at(theta), table.hessian(found.p)
    np.testing.assert_allclose(few.blocks, whole.blocks, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_hessian_where_all_rows_are_alike_is_that_of_the_products(intercept: bool) -> None:
    objective = _objective("softmax", intercept, "labels")
    theta = np.zeros((4, 6))
    if intercept:
        theta[:, -1] = [0.3, -1.0, 0.5, 2.0]
    vector = _theta(objective)
    vector[:, -1] -= vector[:, -1].mean()
    product = Hessian(objective, theta) @ vector
    size = 6 if intercept else 5
    found = np.einsum("kdle,le->kd", HessianSums(objective).at(theta).blocks, vector[:, :size])
    np.testing.assert_allclose(found, product[:, :size], rtol=1e-12, atol=1e-14)


def test_memory_that_is_kept_changes_no_hessian() -> None:
    objective = _objective("softmax", True, "labels")
    theta, other = _theta(objective), 2 * _theta(objective)
    sums = HessianSums(objective)
    first = sums.at(theta).blocks
    sums.at(other)
    np.testing.assert_array_equal(sums.at(theta).blocks, first)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_partial_sums_make_one_hessian(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = _objective(link, True, "labels", rows=101)
    theta = _theta(objective)
    whole = HessianSums(objective).at(theta).blocks
    monkeypatch.setattr("crossent.sklearn.direct.CHUNK_WORK", 1)
    monkeypatch.setattr("crossent.sklearn.direct.PIECE_ELEMENTS", 60)
    np.testing.assert_allclose(HessianSums(objective).at(theta).blocks, whole, rtol=1e-12, atol=1e-16)


def test_a_costly_hessian_serves_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(6000, 30, 5, seed=3)
    formed = []
    at = HessianSums.at
    monkeypatch.setattr(HessianSums, "at", lambda sums, theta: formed.append(theta) or at(sums, theta))
    kept = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    times = len(formed)
    monkeypatch.setattr("crossent.sklearn.direct.KEPT_WORK", 1 << 62)
    fresh = SoftmaxRegression(10.0, tol=1e-8).fit(X, y)
    assert times < len(formed) - times == fresh.n_iter_
    assert kept.n_iter_ > times
    assert kept.duality_gap_ <= 1e-8
    assert kept.objective_ == pytest.approx(fresh.objective_, rel=2e-8)


WINE = load_wine(return_X_y=True)
SMALL = {
    "wine": ((WINE[0] - WINE[0].mean(axis=0)) / WINE[0].std(axis=0), WINE[1]),
    "two classes": load_breast_cancer(return_X_y=True),
    "separable": blobs(120, 6, 3, seed=5, spread=20.0),
}


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("name", SMALL)
def test_a_small_table_is_fitted_as_a_large_one(name: str, C: float, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = SMALL[name]
    small = SoftmaxRegression(C, tol=1e-9).fit(X, y)
    monkeypatch.setattr(SmallStep, "__call__", lambda *_: pytest.fail("a small step was taken"))
    monkeypatch.setattr("crossent.sklearn.small.MOST_WORK", 0)
    large = SoftmaxRegression(C, tol=1e-9).fit(X, y)
    optimum = Problem(X, one_hot(y, len(np.unique(y))), C)
    assert small.objective_ == pytest.approx(large.objective_, rel=2e-9)
    assert small.objective_ == pytest.approx(optimum.value(small.coef_, small.intercept_), rel=1e-9)
    assert small.duality_gap_ <= 1e-9
    assert [entry["iteration"] for entry in small.history_] == list(range(small.n_iter_ + 1))
    assert all(entry["hessian_products"] == 0 for entry in small.history_)


def test_who_watches_a_small_fit_changes_nothing_but_may_stop_it() -> None:
    X, y = SMALL["wine"]
    seen: list[dict[str, Any]] = []
    watched = SoftmaxRegression(tol=1e-9, callback=seen.append).fit(X, y)
    np.testing.assert_array_equal(watched.coef_, SoftmaxRegression(tol=1e-9).fit(X, y).coef_)
    assert [entry["objective"] for entry in seen] == [entry["objective"] for entry in watched.history_]
    stopped = SoftmaxRegression(tol=1e-9, callback=lambda entry: entry["iteration"] == 2).fit(X, y)
    assert stopped.n_iter_ <= 3 < watched.n_iter_
    assert stopped.objective_ == pytest.approx(seen[2]["objective"], rel=1e-12)


def test_an_interrupted_small_fit_keeps_what_it_has() -> None:
    X, y = SMALL["wine"]

    def interrupt(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 3:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted after 3 iterations"):
        model = SoftmaxRegression(tol=1e-9, callback=interrupt).fit(X, y)
    assert model.objective_ == pytest.approx(model.history_[3]["objective"], rel=1e-12)


def test_a_small_fit_ends_at_max_iter() -> None:
    X, y = SMALL["wine"]
    with pytest.warns(ConvergenceWarning, match="max_iter=3 was reached"):
        model = SoftmaxRegression(max_iter=3, tol=1e-9).fit(X, y)
    assert model.n_iter_ == 3
    assert math.isfinite(model.duality_gap_)
