"""Hessian products of some rows: right on average, and exact where every row counts."""

from __future__ import annotations

import math
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from libraries import HAS_NUMBA
from plans import tune
from regression_oracle import blobs
from sklearn.datasets import load_digits
from threadpoolctl import ThreadpoolController

from crossent.kernels import reference, registry
from crossent.kernels.threads import run_rows, set_num_threads
from crossent.losses import DEFAULT_LOSS
from crossent.regression.hessian import Hessian
from crossent.regression.line_search import _between, _Point
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.plan import tuned
from crossent.regression.preconditioner import FeatureBasis, KroneckerMetric
from crossent.regression.targets import EncodedTarget, encode_target
from crossent.sklearn import SoftmaxRegression

STEPS = 400


def problem(link: str, dtype: Any = np.float64) -> tuple[LinearObjective, np.ndarray]:
    X, y = blobs(500, 4, 3, seed=1)
    if link == "sigmoid":
        labels = np.stack([y == 0, y == 1, X[:, 0] > 0], axis=1).astype(np.int8)
        target = EncodedTarget("sigmoid", np.arange(3), 3, labels, None)
    else:
        target = encode_target(y, "softmax")
    weight = np.random.default_rng(0).uniform(0.1, 2, 500)
    objective = LinearObjective(X, target, weight / weight.sum(), Ridge(1e-3), DEFAULT_LOSS, True, dtype)
    return objective, np.random.default_rng(1).normal(size=(3, 5))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_the_mean_over_draws_is_the_hessian(link: str) -> None:
    objective, theta = problem(link)
    vector = np.random.default_rng(2).normal(size=theta.shape)
    exact = Hessian(objective, theta) @ vector
    sampling = 60 / KroneckerMetric.at(objective, theta, FeatureBasis.of(objective, None)).curvature
    draws, shares = [], []
    for step in range(STEPS):
        hessian = Hessian(objective, theta, sampling, step)
        draws.append(hessian @ vector)
        shares.append(hessian.share)
    assert 0.02 < np.mean(shares) < 0.5
    spread = np.std(draws, axis=0) / math.sqrt(STEPS)
    assert (np.abs(np.mean(draws, axis=0) - exact) <= 5 * spread).all()
    # Teeth: rows that are kept without being counted the heavier would be found out.
    assert (np.abs(np.mean(shares) * exact - exact) > 5 * spread).any()


@pytest.fixture
def entries_of_few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws single entries of p for fewer classes than is worth it, so that tests are small."""
    tune(monkeypatch, entry_outputs=32)


def test_the_mean_over_draws_of_entries_is_nearly_the_hessian(entries_of_few_classes: None) -> None:
    """Products of two drawn entries bias it by about their size, the threshold."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2000, 8)), rng.integers(60, size=2000)
    target = encode_target(y, "softmax")
    objective = LinearObjective(X, target, np.full(2000, 1 / 2000), Ridge(1e-3), DEFAULT_LOSS, True)
    theta, vector = rng.normal(size=(2, 60, 9)) * [[[2.0]], [[1.0]]]
    exact = Hessian(objective, theta) @ vector
    sampling = 4000 / KroneckerMetric.at(objective, theta, FeatureBasis.of(objective, None)).curvature
    draws = []
    for step in range(60):
        hessian = Hessian(objective, theta, sampling, step)
        assert hessian.share < 0.1
        draws.append(hessian @ vector)
    scale = np.linalg.norm(exact)
    single = np.linalg.norm(draws[0] - exact) / scale
    assert np.linalg.norm(np.mean(draws, axis=0) - exact) / scale < 0.4 * single < 0.2
    assert hessian.outputs is not None
    np.testing.assert_allclose(hessian.outputs.sum(axis=0), 0.0, atol=1e-12)
    full = KroneckerMetric.at(objective, theta, FeatureBasis.of(objective, None)).outputs
    eigenvalues = full[1]
    assert np.trace(hessian.outputs) == pytest.approx(eigenvalues.sum(), rel=0.05)


@pytest.mark.skipif(not HAS_NUMBA, reason="takes half a minute without the kernels")
def test_many_classes_are_fitted_with_entries_whatever_the_threads(entries_of_few_classes: None) -> None:
    X, y = blobs(3000, 16, 50, seed=3)
    models = []
    for threads in (1, 2):
        set_num_threads(threads)
        models.append(SoftmaxRegression(1.0).fit(X, y))
    set_num_threads(None)
    assert models[0].duality_gap_ <= 1e-4
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)


def test_memory_bounds_entries_and_pairs(entries_of_few_classes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(1000, 4, 40, seed=3)

    def objective_of_40_classes() -> LinearObjective:
        target, weight = encode_target(y, "softmax"), np.full(1000, 1e-3)
        return LinearObjective(X, target, weight, Ridge(1e-3), DEFAULT_LOSS, True)

    objective = objective_of_40_classes()
    monkeypatch.setattr(objective, "cache_bytes", 16_000)
    assert Hessian(objective, np.zeros((40, 5)), 1e9, 1, 1e9)._kept is None  # of few classes products are made anew
    tune(monkeypatch, dense_outputs=30)
    objective = objective_of_40_classes()
    monkeypatch.setattr(objective, "cache_bytes", 16_000)
    hessian = Hessian(objective, np.zeros((40, 5)), 1e9, 1, 1e9)
    kept = sum(len(block.values) for block in hessian._kept or [])
    assert 0 < kept <= 2 * 16_000 / 16
    assert objective.plan.num_pairs == tuned().pairs
    tune(monkeypatch, pairs_bytes=5 * 2 * 8 * 40 * 5)
    assert objective_of_40_classes().plan.num_pairs == 5
    tune(monkeypatch, pairs_bytes=1)
    assert objective_of_40_classes().plan.num_pairs == 2


def test_every_row_counts_where_sampling_is_high() -> None:
    objective, theta = problem("softmax")
    vector = np.random.default_rng(2).normal(size=theta.shape)
    found = Hessian(objective, theta, 1e30, 1)
    assert found.share == 1.0
    np.testing.assert_allclose(found @ vector, Hessian(objective, theta) @ vector, rtol=1e-12)


def test_where_memory_is_short_products_draw_the_same_rows_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, theta = problem("softmax")
    vector = np.random.default_rng(2).normal(size=theta.shape)
    sampling = 60 / KroneckerMetric.at(objective, theta, FeatureBasis.of(objective, None)).curvature
    kept = Hessian(objective, theta, sampling, 3) @ vector
    monkeypatch.setattr(objective, "cache_bytes", 500)
    short = Hessian(objective, theta, sampling, 3, most_rows=60)
    assert short._kept is None
    np.testing.assert_allclose(short @ vector, kept, rtol=1e-12)


def test_a_draw_depends_on_the_step_and_not_on_threads() -> None:
    X, y = load_digits(return_X_y=True)
    models = []
    for threads in (1, 2):
        set_num_threads(threads)
        models.append(SoftmaxRegression(1.0).fit(X, y))
    set_num_threads(None)
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
    np.testing.assert_array_equal(models[0].intercept_, models[1].intercept_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 1), (3, 700), (70, 513)])
def test_the_compiled_product_is_the_references(shape: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(shape[0]), shape[1]).T.astype(dtype, order="C")
    u = rng.normal(size=shape).astype(dtype)
    mass = rng.random(shape[1]).astype(dtype)
    expected, found = u.astype(np.float64), u.copy()
    reference.softmax_curvature(p.astype(np.float64), p.argmax(axis=0), mass.astype(np.float64), expected)
    registry.find(dtype).softmax_curvature(p, p.argmax(axis=0), mass, found)
    np.testing.assert_allclose(found, expected, atol=64 * np.finfo(dtype).eps)


def test_the_basis_of_many_features_leads_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(0)
    scales = np.geomspace(10, 0.1, 400)
    X = rng.normal(size=(3000, 400)) * scales
    y = rng.integers(3, size=3000)
    objective = LinearObjective(
        X, encode_target(y, "softmax"), np.full(3000, 1 / 3000), Ridge(1e-2), DEFAULT_LOSS, True
    )
    basis = FeatureBasis.of(objective, None)
    np.testing.assert_allclose(basis.vectors.T @ basis.vectors, np.eye(basis.vectors.shape[1]), atol=1e-5)
    total = np.square(X - X.mean(axis=0)).sum()
    captured = float(basis.squared.sum())
    assert captured > 0.95 * np.sort(np.square(X - X.mean(axis=0)).sum(axis=0))[::-1][:128].sum()
    assert captured + basis.left.sum() * basis.dimensions == pytest.approx(total, rel=1e-5)


def test_a_job_inside_a_job_runs_where_it_is() -> None:
    seen = []

    def inner(start: int, stop: int) -> None:
        seen.append((start, stop))

    def outer(start: int, stop: int) -> None:
        run_rows(inner, 1000, 1000, ())

    set_num_threads(2)
    run_rows(outer, 2, 1 << 20, ())
    set_num_threads(None)
    assert seen == [(0, 1000)] * 2


def test_fits_that_overlap_give_the_threads_of_blas_back() -> None:
    """Whichever ends first, and though the thread that began goes on; limits of one each would restore each other's."""
    objective, _ = problem("softmax")
    blas = ThreadpoolController().select(user_api="blas")
    shared = [library for library in blas.lib_controllers if library.threading_layer != "openmp"]
    before = [library.num_threads for library in shared]
    if not shared or max(before) == 1:
        pytest.skip("BLAS has no threads here that could be lost")
    entered, other_entered, left, ended = Event(), Event(), Event(), Event()

    def first() -> None:
        with objective.single_threaded_blas():
            entered.set()
            other_entered.wait(10)
        left.set()
        ended.wait(10)

    thread = Thread(target=first)
    thread.start()
    entered.wait(10)
    with objective.single_threaded_blas():
        other_entered.set()
        left.wait(10)
        assert {library.num_threads for library in shared} == {1}
    assert [library.num_threads for library in shared] == before
    ended.set()
    thread.join()


def test_the_bracket_of_a_line_search_shrinks_towards_the_minimum() -> None:
    def point(t: float) -> _Point:  # f(t) = (t - 0.3)², minimum at 0.3
        return _Point(t, (t - 0.3) ** 2, 2 * (t - 0.3))

    assert _between(point(0.0), point(1.0)) == pytest.approx(0.3)
    assert _between(point(0.0), point(100.0)) == pytest.approx(10.0)  # not nearer to an end than a tenth
