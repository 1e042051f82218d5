"""The optimum that is found is the optimum: against scikit-learn, SciPy, and itself said in another way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from regression_oracle import Problem, blobs, one_hot
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression

import crossent as ce
from crossent.sklearn import SoftmaxRegression

X, LABELS = blobs(200, 4, 3, seed=2)
WEIGHT = np.random.default_rng(3).uniform(0.0, 3.0, size=200)


def problem_value(problem: Problem, model: Any) -> float:
    return problem.value(np.asarray(model.coef_, dtype=float), np.asarray(model.intercept_, dtype=float))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
def test_agrees_with_scikit_learn(C: float, weighted: bool, intercept: bool) -> None:
    weight = WEIGHT if weighted else None
    class_weight = "balanced" if weighted else None
    peer = LogisticRegression(
        C=C, tol=1e-10, max_iter=100000, solver="newton-cg", fit_intercept=intercept, class_weight=class_weight
    ).fit(X, LABELS, weight)
    model = SoftmaxRegression(C, tol=1e-12, fit_intercept=intercept, class_weight=class_weight)
    model.fit(X, LABELS, weight)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-4, atol=1e-5 * np.abs(peer.coef_).max())
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), rtol=1e-4, atol=1e-7)
    if not weighted:
        problem = Problem(X, one_hot(LABELS, 3), C, intercept=intercept)
        ours, theirs = problem_value(problem, model), problem_value(problem, peer)
        assert ours <= theirs * (1 + 1e-11)
        assert ours == pytest.approx(theirs, rel=1e-8)
        assert model.objective_ == pytest.approx(ours, rel=1e-11)


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
def test_agrees_with_scikit_learn_on_real_data(load: Any) -> None:
    data, y = (array[:600] for array in load(return_X_y=True))
    data = (data - data.mean(axis=0)) / (data.std(axis=0) + 1e-9)
    k = int(y.max()) + 1
    model = SoftmaxRegression(0.1, tol=1e-9).fit(data, y)
    factor = 2.0 if k == 2 else 1.0  # scikit-learn has one row for two classes
    peer = LogisticRegression(C=0.1 * factor, tol=1e-9, max_iter=10000, solver="newton-cg").fit(data, y)
    np.testing.assert_allclose(model.predict_proba(data), peer.predict_proba(data), atol=1e-4)
    assert model.duality_gap_ <= 1e-9
    if k > 2:
        problem = Problem(data, one_hot(y, k), 0.1)
        assert problem_value(problem, model) == pytest.approx(problem_value(problem, peer), rel=3e-9)


CASES: dict[str, tuple[Problem, dict[str, Any], Any]] = {
    "smoothed, class weights": (
        Problem(X, one_hot(LABELS, 3), 0.7, WEIGHT, np.array([1.0, 2.0, 0.5]), 0.2),
        {"label_smoothing": 0.2, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
        LABELS,
    ),
    "distributions": (
        Problem(X, np.random.default_rng(0).dirichlet(np.ones(3), size=200), 2.0, WEIGHT),
        {},
        np.random.default_rng(0).dirichlet(np.ones(3), size=200),
    ),
    "label sets": (
        Problem(X, np.stack([LABELS == 0, X[:, 0] > 0], axis=1).astype(float), 0.5, WEIGHT, link="sigmoid"),
        {"link": "sigmoid"},
        np.stack([LABELS == 0, X[:, 0] > 0], axis=1).astype(int),
    ),
    "label sets, class weights, no intercept": (
        Problem(
            X,
            np.stack([LABELS == 0, X[:, 0] > 0], axis=1).astype(float),
            0.5,
            WEIGHT,
            np.array([[1.0, 1.0], [3.0, 3.0]]),
            0.1,
            False,
            "sigmoid",
        ),
        {"link": "sigmoid", "class_weight": {1: 3.0}, "label_smoothing": 0.1, "fit_intercept": False},
        np.stack([LABELS == 0, X[:, 0] > 0], axis=1).astype(int),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_scipy(name: str) -> None:
    problem, arguments, y = CASES[name]
    model = SoftmaxRegression(problem.C, tol=1e-10, **arguments).fit(X, y, WEIGHT)
    optimum, W, b = problem.optimum()
    assert problem_value(problem, model) == pytest.approx(optimum, rel=1e-9)
    assert model.objective_ == pytest.approx(optimum, rel=1e-9)
    assert model.duality_gap_ <= 1e-10
    np.testing.assert_allclose(model.coef_, W, atol=1e-4)
    logits = model.logits(X)
    expected = X @ W.T + b
    if problem.link == "softmax":
        logits, expected = logits - logits[:, :1], expected - expected[:, :1]
    np.testing.assert_allclose(logits, expected, atol=2e-3)


@pytest.mark.parametrize("intercept", [True, False])
def test_two_classes_at_C_are_a_sigmoid_at_2C(intercept: bool) -> None:
    y = LABELS > 0
    softmax = SoftmaxRegression(0.3, tol=1e-12, fit_intercept=intercept).fit(X, y, WEIGHT)
    sigmoid = SoftmaxRegression(0.6, link="sigmoid", tol=1e-12, fit_intercept=intercept).fit(X, y, WEIGHT)
    np.testing.assert_allclose(softmax.decision_function(X), sigmoid.decision_function(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(softmax.predict_proba(X), sigmoid.predict_proba(X), rtol=1e-5)
    np.testing.assert_allclose(softmax.coef_[1] - softmax.coef_[0], sigmoid.coef_[0], rtol=1e-5, atol=1e-7)
    peer = LogisticRegression(C=0.6, tol=1e-10, fit_intercept=intercept, max_iter=10000).fit(X, y, WEIGHT)
    np.testing.assert_allclose(sigmoid.coef_, peer.coef_, rtol=1e-4, atol=1e-6)


def test_a_weight_of_k_counts_a_row_k_times() -> None:
    times = np.random.default_rng(0).integers(0, 4, size=200)
    weighted = SoftmaxRegression(0.3, tol=1e-12).fit(X, LABELS, times)
    repeated = SoftmaxRegression(0.3, tol=1e-12).fit(np.repeat(X, times, axis=0), np.repeat(LABELS, times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-9)
    assert weighted.objective_ == pytest.approx(repeated.objective_, rel=1e-12)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_balanced_is_what_it_says(link: str) -> None:
    y = LABELS if link == "softmax" else LABELS > 1
    classes = np.unique(y)
    mass = np.array([WEIGHT[y == k].sum() for k in classes])
    explicit = {k: WEIGHT.sum() / (len(classes) * m) for k, m in zip(classes.tolist(), mass, strict=True)}
    balanced = SoftmaxRegression(link=link, class_weight="balanced", tol=1e-10).fit(X, y, WEIGHT)
    by_hand = SoftmaxRegression(link=link, class_weight=explicit, tol=1e-10).fit(X, y, WEIGHT)
    plain = SoftmaxRegression(link=link, tol=1e-10).fit(X, y, WEIGHT)
    np.testing.assert_allclose(balanced.coef_, by_hand.coef_, rtol=1e-9)
    assert np.abs(balanced.coef_ - plain.coef_).max() > 1e-3


def test_one_hot_rows_are_labels() -> None:
    labels = SoftmaxRegression(tol=1e-10).fit(X, LABELS)
    rows = SoftmaxRegression(tol=1e-10).fit(X, one_hot(LABELS, 3))
    np.testing.assert_allclose(rows.coef_, labels.coef_, rtol=1e-7)
    balanced = SoftmaxRegression(tol=1e-10, class_weight="balanced")
    np.testing.assert_allclose(
        balanced.fit(X, one_hot(LABELS, 3), WEIGHT).coef_, balanced.fit(X, LABELS, WEIGHT).coef_, rtol=1e-6
    )


def test_label_sets_are_one_regression_per_label() -> None:
    sets = np.stack([LABELS == 0, X[:, 1] > 0, X[:, 2] > 1], axis=1).astype(int)
    together = SoftmaxRegression(0.5, link="sigmoid", tol=1e-11).fit(X, sets)
    for k in range(3):
        alone = SoftmaxRegression(0.5, link="sigmoid", tol=1e-11).fit(X, sets[:, k])
        np.testing.assert_allclose(together.coef_[k], alone.coef_[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0])
def test_float32_is_close_to_float64_and_certified_in_float64(C: float) -> None:
    double = SoftmaxRegression(C, tol=1e-8).fit(X, LABELS)
    single = SoftmaxRegression(C, tol=1e-5).fit(X.astype(np.float32), LABELS)
    assert single.coef_.dtype == single.intercept_.dtype == np.float32
    problem = Problem(X.astype(np.float32).astype(float), one_hot(LABELS, 3), C)
    assert single.objective_ == pytest.approx(problem_value(problem, single), rel=1e-10)
    assert single.objective_ == pytest.approx(double.objective_, rel=2e-5)
    assert single.duality_gap_ <= 1e-5
    asked = SoftmaxRegression(C, dtype="float32").fit(X, LABELS)
    assert asked.coef_.dtype == np.float32
    asked = SoftmaxRegression(C, dtype="float64").fit(X.astype(np.float32), LABELS)
    assert asked.coef_.dtype == np.float64


@pytest.mark.parametrize(
    "loss",
    [
        ce.Focal(2.0),
        ce.Focal(0.5),
        ce.Poly1(1.0),
        ce.GeneralizedCrossEntropy(0.7),
        ce.Brier(),
        ce.CrossEntropy() + ce.ZPenalty(0.1),
        ce.CrossEntropy() + ce.EntropyPenalty(-0.2),
    ],
    ids=repr,
)
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_other_losses_reach_a_stationary_point(loss: ce.Loss, link: str) -> None:
    y = LABELS if link == "softmax" else (LABELS > 0).astype(int)
    model = SoftmaxRegression(0.5, link=link, loss=loss, tol=1e-7).fit(X, y, WEIGHT)
    assert math.isnan(model.duality_gap_)
    assert model.certificate_.startswith("none")
    assert all(entry["duality_gap"] is None for entry in model.history_)
    logits = model.logits(X)
    target = y if link == "softmax" else y[:, None]
    kind = {"link": link, "loss": loss, "reduction": "none"}
    losses, grad = ce.value_and_grad(logits, target, **kind)
    weight = 0.5 * WEIGHT
    if link == "sigmoid":
        losses = losses[:, 0]
    value = weight @ losses + 0.5 * np.sum(model.coef_**2)
    assert model.objective_ == pytest.approx(value, rel=1e-9)
    at_zero = (weight[:, None] * ce.value_and_grad(np.zeros_like(logits), target, **kind)[1]).T @ X
    residual = (weight[:, None] * grad).T @ X + model.coef_
    assert np.linalg.norm(residual) <= 1e-5 * np.linalg.norm(at_zero)
    assert np.linalg.norm((weight[:, None] * grad).sum(axis=0)) <= 1e-5 * np.linalg.norm(at_zero)


@pytest.mark.parametrize(
    ("loss", "convex"),
    [
        (ce.Focal(2.0), False),
        (ce.Brier(), False),
        (ce.CrossEntropy() + ce.ZPenalty(0.1), False),
        (ce.Poly1(2.0), False),
        (ce.Poly1(1.0), True),
        (ce.CrossEntropy() + ce.Poly1(0.5), True),
    ],
    ids=repr,
)
def test_a_loss_that_is_not_convex_says_so(loss: ce.Loss, convex: bool) -> None:
    model = SoftmaxRegression(loss=loss).fit(X, LABELS)
    assert ("is not cross-entropy" in model.certificate_) == convex
    assert ("is not convex and may have other minima" in model.certificate_) != convex


GLMNET_X = np.array([[-4, -3, -2, -1, 0, 1, 2, 3, 4], [0, 0, 1, 0, 1, 1, 1, 0, 0]], dtype=float).T
"""The data and R's glmnet's coefficients (alpha=0, lambda=1, standardize=F) that scikit-learn's tests quote."""


def test_two_classes_are_glmnets() -> None:
    y = [0, 0, 0, 1, 1, 1, 1, 1, 1]
    model = SoftmaxRegression(1 / 9, link="sigmoid", tol=1e-13).fit(GLMNET_X, y)
    np.testing.assert_allclose(model.intercept_, [0.89230405539], atol=1e-6)
    np.testing.assert_allclose(model.coef_, [[0.44464569182, 0.01457563448]], atol=1e-6)
    softmax = SoftmaxRegression(1 / 18, tol=1e-13).fit(GLMNET_X, y)
    np.testing.assert_allclose(softmax.coef_[1] - softmax.coef_[0], model.coef_[0], atol=1e-6)
    np.testing.assert_allclose(np.diff(softmax.intercept_), model.intercept_, atol=1e-6)


def test_three_classes_are_glmnets() -> None:
    model = SoftmaxRegression(1 / 9, tol=1e-13).fit(GLMNET_X, np.repeat([0, 1, 2], 3))
    np.testing.assert_allclose(model.intercept_, [-0.12004759652, 0.2251747383, -0.1051271418], atol=1e-6)
    expected = [[-0.38023389305, -0.01226499932], [-8.164030176e-05, 0.04734548012], [0.3803155334, -0.0350804808]]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-6)


def test_a_scaled_cross_entropy_is_cross_entropy_with_another_C() -> None:
    scaled = SoftmaxRegression(0.5, loss=3.0 * ce.CrossEntropy(), tol=1e-10).fit(X, LABELS)
    plain = SoftmaxRegression(1.5, tol=1e-10).fit(X, LABELS)
    np.testing.assert_allclose(scaled.coef_, plain.coef_, rtol=1e-6)
    assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-10)
    assert scaled.duality_gap_ <= 1e-10


def test_no_penalty() -> None:
    model = SoftmaxRegression(math.inf, tol=1e-9).fit(X, LABELS)
    peer = LogisticRegression(C=math.inf, tol=1e-10, max_iter=10000, solver="newton-cg").fit(X, LABELS)
    np.testing.assert_allclose(model.predict_proba(X), peer.predict_proba(X), atol=1e-6)
    assert math.isnan(model.duality_gap_)
    assert "C=inf" in model.certificate_


def test_a_class_without_weight_has_probability_zero() -> None:
    """That is where the infimum is; the others are as if the class were not there."""
    weight = np.where(LABELS == 1, 0.0, WEIGHT)
    model = SoftmaxRegression(tol=1e-10).fit(X, LABELS, weight)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.intercept_[1] == -math.inf
    assert not model.predict_proba(X)[:, 1].any()
    assert 1 not in model.predict(X)
    without = SoftmaxRegression(tol=1e-10).fit(X[LABELS != 1], LABELS[LABELS != 1], WEIGHT[LABELS != 1])
    np.testing.assert_allclose(model.coef_[[0, 2]], without.coef_, rtol=1e-7)
    assert model.duality_gap_ <= 1e-10
    sets = np.stack([LABELS == 0, np.zeros(200), np.ones(200)], axis=1).astype(int)
    model = SoftmaxRegression(link="sigmoid").fit(X, sets)
    assert model.predict(X)[:, 1:].tolist() == [[0, 1]] * 200
    assert model.duality_gap_ <= 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit_intercept": False},
        {"class_weight": {"a": 1.0, "c": 3.0}},
        {"label_smoothing": 0.1},
        {"loss": 2.0 * ce.CrossEntropy()},
        {"C": math.inf, "label_smoothing": 0.2},
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_classes_are_fitted_as_one_logit(
    options: dict[str, Any], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the coefficients that the two logits have. A third class without weight is none, with weights of classes."""
    rng = np.random.default_rng(8)
    data = rng.normal(size=(300, 4)).astype(dtype)
    labels = np.where(data[:, 0] + rng.normal(size=300) > 0.5, "a", "c")
    weight = rng.uniform(0.5, 2.0, 300)
    if "class_weight" in options:
        labels[:9], weight[:9] = "b", 0.0
        options = {"class_weight": {"b": 1.0, **options["class_weight"]}}
    options = {"tol": 1e-5 if dtype == np.float32 else 1e-10, **options}
    fast = SoftmaxRegression(**options).fit(data, labels, weight)
    monkeypatch.setattr("crossent.sklearn.fitting.has_one_logit", lambda *_: False)
    slow = SoftmaxRegression(**options).fit(data, labels, weight)
    tolerance = 2e-3 if dtype == np.float32 else 1e-5
    np.testing.assert_allclose(fast.coef_, slow.coef_, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(fast.intercept_, slow.intercept_, rtol=tolerance, atol=tolerance)
    assert fast.objective_ == pytest.approx(slow.objective_, rel=1e-5)
    assert fast.history_[0]["objective"] == pytest.approx(slow.history_[0]["objective"], rel=1e-6)
    if not math.isinf(fast.C):
        assert 0 <= fast.duality_gap_ <= options["tol"]
        np.testing.assert_array_equal(fast.coef_.sum(axis=0), 0.0)


def test_a_warm_start_of_two_classes_need_not_be_balanced() -> None:
    model = SoftmaxRegression(warm_start=True, tol=1e-10).fit(X, LABELS == 1)
    exact = model.coef_.copy()
    model.coef_ += 3.0
    model.fit(X, LABELS == 1)
    assert model.n_iter_ == 1
    np.testing.assert_allclose(model.coef_, exact, rtol=1e-6, atol=1e-9)
