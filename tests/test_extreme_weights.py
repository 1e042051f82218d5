"""Weights and denominators of any size: what float32 holds at the end must not be lost on the way."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import oracle
import pytest
from accuracy.judge import DTYPES, judge, scaled, slack_of
from oracle import Options, Row, mpf

import crossent as ce
from crossent.metrics import log_loss
from crossent.sklearn import SoftmaxRegression, TemperatureScaling

CE = oracle.CROSS_ENTROPY
BOTH_DTYPES = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def rows_of(num_classes: int, dtype: Any, n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    z = rng.normal(scale=3.0, size=(n, num_classes)).astype(dtype)
    z[0, 0] += 20
    return z, np.array([0, 1, 2])[:n] % num_classes


@cache
def smoothed_rows(num_classes: int, dtype: Any) -> list[Row]:
    z, y = rows_of(num_classes, dtype, 2)
    return [oracle.softmax_row(row, int(k), Options(CE, label_smoothing=0.1)) for row, k in zip(z, y, strict=True)]


@BOTH_DTYPES
@pytest.mark.parametrize("num_classes", [5, 70])
@pytest.mark.parametrize("size", [1e-50, 1e-42, 1e39, 1e45, 1e50])
def test_a_mean_does_not_depend_on_a_common_factor_of_the_weights(
    twin: str, size: float, num_classes: int, dtype: Any
) -> None:
    z, y = rows_of(num_classes, dtype, 2)
    grad = ce.value_and_grad(z, y, weight=np.full(num_classes, size), label_smoothing=0.1).grad
    rows = [scaled(row, mpf(1) / 2) for row in smoothed_rows(num_classes, dtype)]
    values = [float(row.value) for row in rows]
    judge((values, grad), rows, CE, dtype, slack_of(num_classes, dtype))


SAMPLE_WEIGHT = np.array([1e15, 1e-15, 1.0])


@cache
def weighted_rows(num_classes: int, smoothing: float, dtype: Any) -> tuple[np.ndarray, list[Row]]:
    """Class weights over thirty orders of magnitude, and the rows they give; few of those with series in 66 logits."""
    z, y = rows_of(num_classes, dtype, 3 if num_classes < 10 else 2)
    weight = 10.0 ** np.linspace(-15, 15, num_classes)[np.random.default_rng(0).permutation(num_classes)]
    exact = oracle.softmax_row if smoothing else oracle.tail_row
    given = Options(CE, weight=weight, label_smoothing=smoothing)
    return weight, [exact(row, int(k), given) for row, k in zip(z, y, strict=True)]


@BOTH_DTYPES
@pytest.mark.parametrize(("num_classes", "smoothing"), [(5, 0.0), (5, 1e-3), (5, 0.1), (66, 0.0), (66, 0.1)])
def test_class_and_sample_weights_over_thirty_orders(twin: str, num_classes: int, smoothing: float, dtype: Any) -> None:
    weight, rows = weighted_rows(num_classes, smoothing, dtype)
    z, y = rows_of(num_classes, dtype, len(rows))
    sample_weight = SAMPLE_WEIGHT[: len(rows)]
    options = {"weight": weight, "label_smoothing": smoothing}
    for normalizer in (None, 1e-6):
        given = {"reduction": "sum"} if normalizer is None else {"reduction": "mean", "normalizer": normalizer}
        factors = [mpf(float(s)) / mpf(normalizer or 1) for s in sample_weight]
        expected = [scaled(row, factor) for row, factor in zip(rows, factors, strict=True)]
        slack = [slack_of(num_classes, dtype, max(1.0, float(f) * weight.max())) for f in factors]
        grad = ce.value_and_grad(z, y, sample_weight=sample_weight, **options, **given).grad
        values = [dtype(float(row.value)) for row in expected]
        judge((values, grad), expected, CE, dtype, slack)


@pytest.mark.parametrize("num_classes", [3, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_factors_beyond_float32_of_gradients_within(twin: str, num_classes: int, smoothing: float) -> None:
    """A weight over a denominator of 1e40, probabilities of 1e-20."""
    z = np.zeros((1, num_classes), np.float32)
    z[0, 0] = 46
    row = oracle.tail_row(z[0], 0) if not smoothing else oracle.softmax_row(z[0], 0, Options(CE, label_smoothing=0.1))
    calls: list[tuple[dict[str, Any], float]] = [
        ({"weight": np.full(num_classes, 1e30), "normalizer": 1e-10}, 1e40),
        ({"sample_weight": [1e39], "reduction": "sum"}, 1e39),
    ]
    for options, factor in calls:
        if smoothing:  # then the gradient itself is as large as its factor
            options["normalizer"], options["reduction"], factor = 1e3, "mean", {1e40: 1e27, 1e39: 1e36}[factor]
        result = ce.value_and_grad(z, [0], label_smoothing=smoothing, **options)
        judge(
            (result.value, result.grad), [scaled(row, mpf(factor))], CE, np.float32, slack_of(num_classes, np.float32)
        )


@BOTH_DTYPES
@pytest.mark.parametrize("size", [1e-45, 1e-42, 1e39, 1e42, 1e45])
@pytest.mark.parametrize("sampled", [False, True])
def test_elementwise_weights_and_a_denominator_of_any_size(twin: str, size: float, sampled: bool, dtype: Any) -> None:
    z, y = np.array([[-3.0, 0.5, 20.0]], dtype), np.array([[0, 1, 1]])
    weight = size * np.array([1.0, 2.0, 0.0])
    options = {"sample_weight": [1e-3]} if sampled else {}
    result = ce.value_and_grad(z, y, link="sigmoid", weight=weight, normalizer=size, **options)
    entries = [oracle.sigmoid_row(x, t, Options(CE)) for x, t in zip(z[0], y[0].tolist(), strict=True)]
    factors = [mpf(w) / mpf(size) * mpf(1e-3 if sampled else 1) for w in weight]
    parts = [scaled(entry, factor) for entry, factor in zip(entries, factors, strict=True)]
    value = sum(part.value for part in parts)
    gradient, scale = ([x for part in parts for x in getattr(part, name)] for name in ("gradient", "gradient_scale"))
    judge((result.value, result.grad), [Row(value, gradient, [], value, scale)], CE, dtype, slack_of(2, dtype))
    assert result.grad[0, 2] == 0


TOO_SMALL = [(1e-300, 1e-300), (1e-160, 1e-160), (1.0, 5e-324), (5e-324, 1.0), (1e-200, 1e-150)]
"""A class's weight and a row's whose product is no normal number."""
TOO_LARGE = [(1e200, 1e200), (1.0, 1e308)]
UNFIT = "must be finite and at least the smallest normal number; got .*; scale the weights"
X = np.random.default_rng(0).normal(size=(30, 2))
LABELS = np.arange(30) % 3


@pytest.mark.parametrize(("of_class", "of_row"), TOO_SMALL)
def test_products_of_weights_that_underflow_are_refused_like_weights_that_are_too_small(
    twin: str, of_class: float, of_row: float
) -> None:
    """Not taken for an empty mean, whose value is NaN."""
    z, y = rows_of(3, np.float64)
    weights = {"weight": np.full(3, of_class), "sample_weight": np.full(3, of_row)}
    for call in (
        lambda: ce.cross_entropy(z, y, **weights),
        lambda: ce.value_and_grad(z, y, loss=ce.Focal(2.0), **weights),
        lambda: ce.nll_loss(ce.log_softmax(z), y, **weights),
        lambda: ce.linear_value_and_grad(z, np.eye(3), y, **weights),
    ):
        with pytest.raises(ValueError, match=f"a mean's denominator {UNFIT}"):
            call()


def test_a_mean_of_rows_of_which_each_has_a_weight_of_0_is_empty(twin: str) -> None:
    """The class's or the row's own."""
    z, y = rows_of(3, np.float64)
    weight, sample_weight = np.array([0.0, 1e-300, 1e-300]), np.array([1e-300, 0.0, 0.0])
    assert np.isnan(ce.cross_entropy(z, y, weight=weight, sample_weight=sample_weight))


@pytest.mark.parametrize(("of_class", "of_row"), TOO_SMALL + TOO_LARGE)
def test_a_regression_refuses_weights_whose_sum_is_no_normal_number(of_class: float, of_row: float) -> None:
    model = SoftmaxRegression(class_weight=dict.fromkeys(range(3), of_class))
    with pytest.raises(ValueError, match=f"the sample weights times the largest class weight {UNFIT}"):
        model.fit(X, LABELS, np.full(30, of_row))


def test_a_regression_depends_on_products_of_weights_only() -> None:
    plain = SoftmaxRegression().fit(X, LABELS)
    for of_class, of_row in [(1e300, 1e-300), (1e-300, 1e300), (2.0, 0.5)]:
        model = SoftmaxRegression(class_weight=dict.fromkeys(range(3), of_class)).fit(X, LABELS, np.full(30, of_row))
        assert 0 <= model.duality_gap_ <= 1e-4
        assert abs(model.objective_ / plain.objective_ - 1) <= 1e-4


def test_c_times_the_weights_is_a_normal_number() -> None:
    with pytest.raises(ValueError, match=f"C times the sum of the weights {UNFIT}"):
        SoftmaxRegression(C=1e-300).fit(X, LABELS, np.full(30, 1e-20))


@pytest.mark.parametrize("size", [5e-324, 1e308])
def test_metrics_and_calibrators_refuse_weights_whose_sum_is_no_normal_number(size: float) -> None:
    weight = np.full(30, size)
    with pytest.raises(ValueError, match=f"the sum of sample_weight {UNFIT}"):
        log_loss(LABELS, np.full((30, 3), 1 / 3), sample_weight=weight)
    with pytest.raises(ValueError, match=f"the sum of sample_weight {UNFIT}"):
        TemperatureScaling().fit(np.eye(3)[LABELS] + X[:, :1], LABELS, weight)
