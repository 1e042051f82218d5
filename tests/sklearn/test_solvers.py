"""The tolerance is reached on hard problems, and where it is not, the fit says so."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import tune
from regression_oracle import Problem, blobs, one_hot
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning

import crossent as ce
from crossent.losses import DEFAULT_LOSS
from crossent.regression.direct import DirectHessian
from crossent.regression.hessian import Hessian
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.preconditioner import FeatureBasis, KroneckerMetric
from crossent.regression.targets import EncodedTarget
from crossent.sklearn import SoftmaxRegression

RNG = np.random.default_rng(11)


def unscaled() -> tuple[np.ndarray, np.ndarray]:
    X, y = blobs(150, 5, 3, seed=4)
    return X * 10.0 ** np.arange(-3, 2) + 1e4, y


def separable() -> tuple[np.ndarray, np.ndarray]:
    X, y = blobs(120, 6, 3, seed=5, spread=20.0)
    return X, y


def duplicated() -> tuple[np.ndarray, np.ndarray]:
    X, y = blobs(150, 3, 4, seed=6)
    return np.concatenate([X, X, X[:, :1], np.zeros((150, 2))], axis=1), y


HARD = {
    "unscaled": unscaled(),
    "separable": separable(),
    "duplicated and constant columns": duplicated(),
    "two classes": blobs(100, 4, 2, seed=7),
    "many classes": blobs(600, 10, 150, seed=8),
    "more columns than rows": blobs(40, 300, 5, seed=9),
    "breast cancer": load_breast_cancer(return_X_y=True),
    "wine": load_wine(return_X_y=True),
}


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("name", HARD)
def test_the_tolerance_is_reached(name: str, C: float) -> None:
    """Any warning is an error here."""
    X, y = HARD[name]
    model = SoftmaxRegression(C).fit(X, y)
    assert model.duality_gap_ <= 1e-4
    problem = Problem(X, one_hot(y, int(y.max()) + 1), C)
    value = problem.value(model.coef_, model.intercept_)
    assert model.objective_ == pytest.approx(value, rel=1e-6)
    if name in ("unscaled", "more columns than rows"):
        return  # the naive dual needs an intercept that is exact in coordinates that are not centred
    assert problem.dual(model.coef_, model.intercept_) <= value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", HARD)
def test_the_tolerance_is_reached_with_unequal_weights(name: str, dtype: Any) -> None:
    X, y = HARD[name]
    weight = 10.0 ** np.random.default_rng(0).uniform(-4, 2, size=len(y))
    classes = np.unique(y)
    class_weight = dict(zip(classes.tolist(), np.geomspace(1e-3, 1e3, len(classes)), strict=True))
    # Columns of 1e4 beside some of 1e-3: coefficients rounded to float32 are within about 1e-4, not always below.
    tol = 1e-3 if name == "unscaled" and dtype == np.float32 else 1e-4
    for arguments in ({"class_weight": class_weight}, {"label_smoothing": 0.1}, {"fit_intercept": False}):
        model = SoftmaxRegression(10.0, tol=tol, **arguments).fit(X.astype(dtype), y, weight)
        assert model.duality_gap_ <= tol, arguments


@pytest.mark.parametrize("C", [1e-2, 1.0, 1e3])
def test_label_sets_reach_the_tolerance(C: float) -> None:
    X, y = HARD["breast cancer"]
    sets = np.stack([y, 1 - y, X[:, 0] > np.median(X[:, 0])], axis=1).astype(int)
    assert SoftmaxRegression(C, link="sigmoid").fit(X, sets).duality_gap_ <= 1e-4


def test_a_stricter_tolerance_is_reached_too() -> None:
    X, y = load_digits(return_X_y=True)
    loose = SoftmaxRegression(0.01).fit(X, y)
    strict = SoftmaxRegression(0.01, tol=1e-9).fit(X, y)
    assert strict.duality_gap_ <= 1e-9
    assert 0 <= loose.objective_ / strict.objective_ - 1 <= loose.duality_gap_


@pytest.mark.parametrize("C", [1.0, math.inf])
def test_what_all_classes_share_does_not_drift(C: float) -> None:
    """A softmax does not see it; float32's rounding once moved it by 1e5 where the intercepts differ by 20."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(C, tol=1e-6 if C == 1.0 else 1e-3)
    problem = model._prepare(X, y, None)
    result, _ = model._solve(problem, model._start(problem))
    theta = result.at.theta
    assert np.abs(theta[:, :-1].mean(axis=0)).max() <= 1e-6 * np.ptp(theta[:, :-1])
    assert abs(theta[:, -1].mean()) <= 1e-6 * np.ptp(theta[:, -1])
    assert abs(model.intercept_.mean()) <= 1e-12 * np.ptp(model.intercept_)


def test_no_iterate_is_reported_below_the_optimum() -> None:
    X, y = load_digits(return_X_y=True)
    optimum = SoftmaxRegression(tol=1e-10).fit(X, y).objective_
    history = SoftmaxRegression(tol=1e-6).fit(X, y).history_
    assert min(entry["objective"] for entry in history) >= (1 - 2e-6) * optimum  # of float32 products


@pytest.mark.parametrize("coefficient", [0.01, 10.0])
def test_a_penalty_on_the_normaliser_decides_what_all_classes_share(coefficient: float) -> None:
    """Centred columns: nothing but the intercepts can move LSE(z) towards 0."""
    X, y = blobs(200, 3, 3, seed=3, spread=0.0)
    loss = ce.CrossEntropy() + ce.ZPenalty(coefficient)
    model = SoftmaxRegression(loss=loss, tol=1e-8).fit(np.concatenate([X, -X]), np.tile(y, 2))
    assert model.intercept_.mean() == pytest.approx(-math.log(3), abs=0.1)
    assert model.n_iter_ <= 30


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("intercept", [True, False])
def test_hessian_is_the_derivative_of_the_gradient(link: str, intercept: bool) -> None:
    objective = _objective(link, intercept)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(4, 6))
    vector = rng.normal(size=(4, 6))
    if not intercept:
        theta[:, -1] = vector[:, -1] = 0
    h = 1e-6
    difference = objective.evaluate(theta + h * vector).gradient - objective.evaluate(theta - h * vector).gradient
    np.testing.assert_allclose(Hessian(objective, theta) @ vector, difference / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_whole_hessian_is_that_of_the_products(intercept: bool, k: int) -> None:
    objective = _objective("softmax" if k > 1 else "sigmoid", intercept, k)
    rng = np.random.default_rng(0)
    theta, vector = rng.normal(size=(2, k, 6))
    if not intercept:
        theta[:, -1] = vector[:, -1] = 0
    elif k > 1:
        vector[:, -1] -= vector[:, -1].mean()
    whole = objective.whole_hessian(theta)
    product = Hessian(objective, theta) @ vector
    size = 6 if intercept else 5
    found = np.einsum("kdle,le->kd", whole.blocks, vector[:, :size])
    np.testing.assert_allclose(found, product[:, :size], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole.solve(product), vector, rtol=1e-10, atol=1e-12)


def test_a_solution_of_the_whole_hessian_need_not_sum_to_zero_over_classes() -> None:
    objective = _objective("softmax", True, 3)
    rng = np.random.default_rng(1)
    theta, vector = rng.normal(size=(2, 3, 6))
    vector[:, -1] -= vector[:, -1].mean()
    assert abs(vector[:, :-1].sum(axis=0)).min() > 0.1
    whole = objective.whole_hessian(theta)
    np.testing.assert_allclose(whole.solve(Hessian(objective, theta) @ vector), vector, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("C", [1.0, math.inf])
def test_few_parameters_need_no_conjugate_gradients(C: float, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(150, 4, 3, seed=4)
    direct = SoftmaxRegression(C, tol=1e-9).fit(X, y)
    assert direct.history_[-1]["hessian_products"] == 0
    tune(monkeypatch, whole_work=0)
    iterative = SoftmaxRegression(C, tol=1e-9).fit(X, y)
    assert iterative.history_[-1]["hessian_products"] > 0
    np.testing.assert_allclose(direct.coef_, iterative.coef_, rtol=1e-3, atol=1e-4)
    assert direct.objective_ == pytest.approx(iterative.objective_, rel=1e-8)


@pytest.mark.parametrize("top", [0, 2])
def test_curvature_of_a_confident_row_does_not_cancel(top: int) -> None:
    """p = (1 - 3e-30, e-30, 2e-30): 1 - p rounds to 0, and the curvature is there all the same."""
    tail = np.array([1e-30, 2e-30])
    logits = np.insert(np.log(tail), top, 0.0)
    target = EncodedTarget("softmax", np.arange(3), 3, np.array([0]), None)
    objective = LinearObjective(np.ones((1, 1)), target, np.ones(1), Ridge(0.0), DEFAULT_LOSS, False)
    theta = np.column_stack([logits, np.zeros(3)])
    vector = np.column_stack([[3.0, -1.0, 6.0], np.zeros(3)])
    u = np.delete(vector[:, 0], top) - vector[top, 0]
    expected = np.insert(tail * u, top, -np.sum(tail * u))
    product = (Hessian(objective, theta) @ vector)[:, 0]
    np.testing.assert_allclose(product, expected, rtol=1e-10)
    sets = EncodedTarget("sigmoid", np.arange(2), 2, np.array([[0, 1]], dtype=np.int8), None)
    objective = LinearObjective(np.ones((1, 1)), sets, np.ones(1), Ridge(0.0), DEFAULT_LOSS, False)
    theta = np.array([[60.0, 0.0], [-60.0, 0.0]])
    product = (Hessian(objective, theta) @ np.array([[1.0, 0.0], [1.0, 0.0]]))[:, 0]
    np.testing.assert_allclose(product, np.exp(-60.0), rtol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_for_two_classes_the_model_is_the_hessian(intercept: bool) -> None:
    for link, k in (("sigmoid", 1), ("softmax", 2)):
        objective = _objective(link, intercept, k)
        rng = np.random.default_rng(0)
        theta, vector = rng.normal(size=(2, k, 6))
        if k == 2:
            vector -= vector.mean(axis=0)  # the softmax does not see what all classes share
        if not intercept:
            theta[:, -1] = vector[:, -1] = 0
        product = Hessian(objective, theta) @ vector
        np.testing.assert_allclose(
            KroneckerMetric.at(objective, theta, FeatureBasis.of(objective, None)).solve(product),
            vector,
            rtol=1e-8,
            atol=1e-9,
        )


def test_metric_is_symmetric_and_positive() -> None:
    objective = _objective("softmax", True)
    metric = KroneckerMetric.at(
        objective, np.random.default_rng(0).normal(size=(4, 6)), FeatureBasis.of(objective, None)
    )
    basis = np.eye(24).reshape(24, 4, 6)
    inverse = np.array([metric.solve(e).ravel() for e in basis])
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(inverse)
    assert eigenvalues[0] > -1e-12
    assert np.sum(eigenvalues > 1e-9) == 23  # all but a common shift of the intercepts


def test_a_sample_of_weightless_rows_gives_a_basis_all_the_same() -> None:
    """Every second row has no weight, and the sample takes every second one."""
    X, y = blobs(64, 5, 3, seed=12)
    target = EncodedTarget("softmax", np.arange(3), 3, y.astype(np.int64), None)
    objective = LinearObjective(X, target, np.tile([0.0, 1 / 32], 32), Ridge(0.1), DEFAULT_LOSS, True)
    basis = FeatureBasis.of(objective, 32)
    assert not objective.row_weight[:: basis.stride].any()
    theta = np.zeros((3, 6))
    step = KroneckerMetric.at(objective, theta, basis).solve(objective.evaluate(theta).gradient)
    assert np.isfinite(step).all()
    assert objective.evaluate(theta - step).value < objective.evaluate(theta).value


def _objective(link: str, intercept: bool, k: int = 4) -> LinearObjective:
    X, y = blobs(50, 5, max(k, 2), seed=12)
    weight = np.random.default_rng(1).uniform(0.1, 2.0, size=50) / 50
    labels = y if link == "softmax" else one_hot(y, max(k, 2))[:, :k].astype(np.int8)
    class_weight = np.linspace(0.5, 2, k) if link == "softmax" else np.linspace(0.5, 2, 2 * k).reshape(2, k)
    if k <= 2 and link == "softmax":
        class_weight = None
    target = EncodedTarget(link, np.arange(k), k, labels, None, class_weight)
    return LinearObjective(X, target, weight, Ridge(0.1), DEFAULT_LOSS, intercept)


def test_blocks_and_threads_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(500, 6, 7, seed=13)
    whole = SoftmaxRegression(tol=1e-10).fit(X, y)
    tune(monkeypatch, block_elements=128, parallel_work=1, cache_bytes=0)
    fits = []
    try:
        for threads in (1, 2, 3):
            ce.set_num_threads(threads)
            fits.append(SoftmaxRegression(tol=1e-10).fit(X, y))
    finally:
        ce.set_num_threads(None)
    np.testing.assert_allclose(fits[0].coef_, whole.coef_, rtol=1e-5, atol=1e-7)
    assert fits[0].objective_ == pytest.approx(whole.objective_, rel=1e-9)
    for other in fits[1:]:
        np.testing.assert_array_equal(fits[0].coef_, other.coef_)
        np.testing.assert_array_equal(fits[0].intercept_, other.intercept_)


def test_float32_columns_that_are_not_held_are_centred_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(300, 4, 3, seed=14)
    X = (X + 3000).astype(np.float32)
    held = SoftmaxRegression(tol=1e-6).fit(X, y)
    tune(monkeypatch, cache_bytes=0)
    streamed = SoftmaxRegression(tol=1e-6).fit(X, y)
    assert streamed.duality_gap_ <= 1e-6
    assert streamed.objective_ == pytest.approx(held.objective_, rel=2e-6)


def test_not_reaching_tol_warns_and_names_the_argument() -> None:
    X, y = load_digits(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 was reached .*gap \d.*asked for 1.00e-04.*raise max_iter"):
        model = SoftmaxRegression(max_iter=2).fit(X, y)
    assert model.n_iter_ == 2
    assert model.duality_gap_ > 1e-4
    assert len(model.history_) == 3
    with pytest.warns(ConvergenceWarning, match="relative gradient norm"):
        SoftmaxRegression(max_iter=2, loss=ce.Focal(2.0)).fit(X, y)


def test_a_tolerance_beyond_rounding_warns_and_ends() -> None:
    X, y = blobs(100, 3, 3, seed=15)
    with pytest.warns(ConvergenceWarning, match=r"rounding.*raise tol"):
        model = SoftmaxRegression(1e3, tol=1e-30).fit(X, y)
    assert model.duality_gap_ < 1e-12


def test_coefficients_that_float32_cannot_hold_warn() -> None:
    """Far from 0, where the products of rounded coefficients with X leave the tolerance."""
    X, y = blobs(150, 5, 3, seed=4)
    X = (X + 1e4).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match=r"coefficients as float32 .*dtype='float64'"):
        model = SoftmaxRegression(1e3, tol=1e-9).fit(X, y)
    assert model.duality_gap_ > 1e-9
    assert SoftmaxRegression(1e3, tol=1e-9, dtype="float64").fit(X, y).duality_gap_ <= 1e-9


def test_interrupt_keeps_the_best_iterate() -> None:
    X, y = load_digits(return_X_y=True)

    def interrupt(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 6:
            raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted after 6 iterations.*best coefficients"):
        model = SoftmaxRegression(callback=interrupt).fit(X, y)
    objectives = [entry["objective"] for entry in model.history_]
    assert model.objective_ == pytest.approx(min(objectives), rel=1e-6)  # the history's are of float32 products
    assert model.objective_ < objectives[0] / 10
    problem = Problem(X, one_hot(y, 10))
    assert problem.value(model.coef_, model.intercept_) == pytest.approx(model.objective_, rel=1e-9)
    assert model.score(X, y) > 0.9
    model.set_params(callback=None, warm_start=True)
    assert model.fit(X, y).duality_gap_ <= 1e-4


def test_callback_sees_the_history_and_can_stop() -> None:
    X, y = load_digits(return_X_y=True)
    seen: list[dict[str, Any]] = []

    def stop(entry: dict[str, Any]) -> bool:
        seen.append(entry)
        return entry["duality_gap"] < 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SoftmaxRegression(callback=stop).fit(X, y)
    assert seen == model.history_
    assert [entry["iteration"] for entry in seen] == list(range(len(seen)))
    assert seen[-1]["duality_gap"] < 1.0 <= seen[-2]["duality_gap"]
    assert model.n_iter_ == seen[-1]["iteration"]
    for before, after in pairwise(seen):
        assert after["objective"] < before["objective"]
        assert after["evaluations"] > before["evaluations"]
        assert after["hessian_products"] >= before["hessian_products"]
    assert seen[-1]["hessian_products"] > seen[0]["hessian_products"] == 0
    assert set(seen[0]) >= {"iteration", "objective", "gradient_norm", "duality_gap", "evaluations"}


def test_warm_start_goes_on_from_where_it_was() -> None:
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(1.0, warm_start=True).fit(X, y)
    cold = model.history_[-1]["hessian_products"]
    again = model.fit(X, y)
    assert again.history_[-1]["hessian_products"] <= cold // 5
    warm = model.set_params(C=1.2).fit(X, y).history_[-1]["hessian_products"]
    assert model.duality_gap_ <= 1e-4
    assert warm < cold
    model.fit(X, (y > 4).astype(int))  # another shape: starts anew
    assert model.coef_.shape == (2, 64)


def test_separable_data_without_penalty_says_that_it_does_not_end() -> None:
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    with pytest.warns(ConvergenceWarning, match="max_iter=5"):
        model = SoftmaxRegression(math.inf, max_iter=5, tol=1e-12).fit(X, [0, 0, 1, 1])
    assert np.isfinite(model.coef_).all()


def _easy(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that are alike: any method is fast on them, and the cheapest the fastest."""
    rng = np.random.default_rng(5)
    data = rng.normal(size=(3000, 70))
    return data, (data @ rng.normal(size=(70, k)) * 0.2 + rng.gumbel(size=(3000, k))).argmax(axis=1)


def test_many_classes_of_few_rows_need_no_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 rows a class: no product could leave any of them out."""
    X, y = blobs(1400, 80, 70, seed=2, spread=0.3)
    slow = SoftmaxRegression(0.1, tol=1e-3).fit(X, y)
    assert slow.history_[-1]["hessian_products"] == 0
    tune(monkeypatch, rows_a_feature_first=0)
    newton = SoftmaxRegression(0.1, tol=1e-3).fit(X, y)
    assert newton.history_[-1]["hessian_products"] > 0
    assert slow.duality_gap_ <= 1e-3
    assert slow.objective_ == pytest.approx(newton.objective_, rel=1e-3)


@pytest.mark.parametrize("k", [2, 5])
def test_easy_features_need_no_hessian(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, y = _easy(k)
    models = []
    monkeypatch.setattr(DirectHessian, "at", lambda *_: pytest.fail("a Hessian was formed"))
    monkeypatch.setattr(
        "crossent.regression.preconditioner.KroneckerMetric.at", lambda *_, **__: pytest.fail("a model was")
    )
    models.append(SoftmaxRegression(tol=1e-2).fit(data, y))
    monkeypatch.undo()
    tune(monkeypatch, first_features=1 << 40)
    models.append(SoftmaxRegression(tol=1e-2).fit(data, y))
    easy, newton = models
    assert easy.duality_gap_ <= 1e-2
    assert easy.history_[-1]["hessian_products"] == 0
    assert easy.objective_ == pytest.approx(newton.objective_, rel=1e-2)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_label_that_nobody_has_is_begun_with_in_silence(link: str) -> None:
    data, y = _easy(5)
    sets = np.column_stack([y == 0, y == 1, np.zeros(len(y))]).astype(int)
    weight = (y < 4).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if link == "softmax":
            model = SoftmaxRegression(tol=1e-2, fit_intercept=False).fit(data, y, weight)
        else:
            model = SoftmaxRegression(tol=1e-2, fit_intercept=False, link=link).fit(data, sets)
    assert model.duality_gap_ <= 1e-2
    assert np.isfinite(model.coef_).all()


def test_hard_features_are_left_to_newtons_method() -> None:
    """L-BFGS is given up where it is slow: features of variances over six orders of magnitude that are correlated."""
    data, y = _easy(5)
    data = data @ np.linalg.qr(np.random.default_rng(6).normal(size=(70, 70)))[0] * np.logspace(-3, 0, 70)
    data = data @ np.linalg.qr(np.random.default_rng(7).normal(size=(70, 70)))[0]
    model = SoftmaxRegression(1e4, tol=1e-6).fit(data, y)
    assert model.duality_gap_ <= 1e-6
    assert model.history_[-1]["hessian_products"] > 0


def test_a_fit_with_a_checkpoint_or_from_other_coefficients_begins_with_newtons_method(tmp_path: Path) -> None:
    data, y = _easy(5)
    kept = SoftmaxRegression(tol=1e-2, checkpoint=tmp_path / "fit.checkpoint").fit(data, y)
    assert kept.history_[-1]["hessian_products"] > 0
    warm = SoftmaxRegression(1.0, tol=1e-2, warm_start=True).fit(data, y)
    warm.set_params(C=3.0, tol=1e-5).fit(data, y)
    assert warm.history_[-1]["hessian_products"] > 0
