"""Standard errors: those of statsmodels where it is installed, the inverse of a differenced gradient everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from regression_oracle import Problem, blobs, one_hot

from crossent.sklearn import SoftmaxRegression


def noisy(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    X, y = blobs(400, 3, num_classes, seed=3, spread=0.5)
    return X, y


def test_two_classes_as_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    X, y = noisy(2)
    expected = api.Logit(y, np.column_stack([X, np.ones(len(X))])).fit(disp=0, tol=1e-12)
    for link in ("sigmoid", "softmax"):
        model = SoftmaxRegression(math.inf, link=link, tol=1e-10).fit(X, y)
        found = model.summary(X, y)
        np.testing.assert_allclose(found.coefficients[0], expected.params, rtol=1e-6)
        np.testing.assert_allclose(found.standard_errors[0], expected.bse, rtol=1e-6)
        np.testing.assert_allclose(found.z[0], expected.tvalues, rtol=1e-6)
        np.testing.assert_allclose(found.p[0], expected.pvalues, rtol=1e-5, atol=1e-300)
        np.testing.assert_allclose(np.column_stack([found.lower[0], found.upper[0]]), expected.conf_int(), rtol=1e-6)


def test_four_classes_as_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    X, y = noisy(4)
    expected = api.MNLogit(y, np.column_stack([X, np.ones(len(X))])).fit(disp=0, method="newton", maxiter=100)
    found = SoftmaxRegression(math.inf, tol=1e-10).fit(X, y).summary(X, y)
    np.testing.assert_allclose(found.coefficients, np.asarray(expected.params).T, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.standard_errors, np.asarray(expected.bse).T, rtol=1e-6)


@pytest.mark.parametrize("intercept", [True, False])
def test_covariance_is_the_inverse_of_a_differenced_gradient(intercept: bool) -> None:
    """Along the contrast (W_1 - W_0) the penalised objective's curvature, all else free, is 1 / variance."""
    X, y = noisy(2)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(y))
    model = SoftmaxRegression(0.7, fit_intercept=intercept, tol=1e-9).fit(X, y, weight)
    found = model.summary(X, y, weight)
    problem = Problem(X, one_hot(y, 2), 0.7, sample_weight=weight, intercept=intercept)
    size = 3 + intercept

    def value(contrast: np.ndarray) -> float:
        b = np.array([-0.5, 0.5]) * (contrast[3] if intercept else 0.0)
        return problem.value(np.outer([-0.5, 0.5], contrast[:3]), b)

    at, h = found.coefficients[0], 1e-3
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            e, g = h * np.eye(size)[i], h * np.eye(size)[j]
            corners = value(at + e + g) - value(at + e - g) - value(at - e + g) + value(at - e - g)
            hessian[i, j] = corners / (4 * h * h)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(hessian), rtol=1e-4, atol=1e-7)


def test_what_has_no_standard_errors_says_so() -> None:
    X, y = noisy(3)
    twice = np.column_stack([X, X[:, 0]])
    model = SoftmaxRegression(math.inf).fit(X, y)
    with pytest.raises(ValueError, match="confidence must lie"):
        model.summary(X, y, confidence=95)
    flat = SoftmaxRegression(1.0).fit(twice, y).set_params(C=math.inf)
    with pytest.raises(ValueError, match="Hessian that can be inverted"):
        flat.summary(twice, y)


def test_it_prints() -> None:
    X, y = noisy(3)
    text = str(SoftmaxRegression().fit(X, y).summary(X, y))
    assert text.count("intercept") == 2
    assert "95% interval" in text


def test_a_summary_is_a_table_too() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.array(["a", "b", "<c>"])[np.arange(60) % 3]
    summary = SoftmaxRegression().fit(X, y).summary(X, y)
    frame = summary.to_frame()
    assert frame.columns.tolist() == ["contrast", "name", "coefficient", "standard_error", "z", "p", "lower", "upper"]
    assert frame["name"].tolist() == ["x0", "x1", "intercept"] * 2
    np.testing.assert_array_equal(frame["upper"].to_numpy().reshape(2, 3), summary.upper)
    shown = summary._repr_html_()
    assert shown.count("<tr>") == 7
    assert "b against &lt;c&gt;" in shown
