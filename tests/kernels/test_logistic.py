"""The pass of a linear model with one logit: loss and gradient are those of the logits, by products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossent.core.target import Target
from crossent.kernels import reference, registry
from crossent.losses import DEFAULT_LOSS

ROWS, FEATURES = 150, 13  # no multiples of what a kernel takes at a time
TARGETS: dict[str, dict[str, Any]] = {
    "labels": {},
    "smoothed": {"label_smoothing": 0.2},
    "weighted": {"class_weight": np.array([[0.5], [3.0]])},
    "soft": {"labels": None, "soft": np.random.default_rng(1).random((ROWS, 1))},
}


def problem(dtype: Any, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    row_weight = rng.uniform(0.0, 2.0, ROWS)
    row_weight[::7] = 0.0
    target = Target(1, rng.integers(0, 2, (ROWS, 1)).astype(np.int8), link="sigmoid")
    target = target._replace(**options)
    soft = None if target.soft is None else target.soft.astype(dtype)
    return {
        "columns": rng.standard_normal((ROWS, FEATURES)).astype(dtype),
        "weight": rng.standard_normal(FEATURES).astype(dtype),
        "bias": dtype(0.3),
        "target": target._replace(soft=soft),
        "row_weight": row_weight,
        "negligible": 0.0,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", TARGETS.values(), ids=TARGETS)
def test_the_pass_is_that_of_the_logits(dtype: Any, options: dict[str, Any]) -> None:
    given = problem(dtype, **options)
    total = np.ones(FEATURES + 1)  # which is added to
    value = registry.find(dtype).logistic_value_grad(**given, total=total)

    columns = given["columns"].astype(np.float64)
    logits = (columns @ given["weight"].astype(np.float64) + float(given["bias"]))[:, None]
    target, gradient = given["target"], np.empty((ROWS, 1))
    target = target._replace(soft=None if target.soft is None else target.soft.astype(np.float64))
    losses = reference.row_losses(logits, target, DEFAULT_LOSS, 1.0, given["row_weight"], gradient)
    rounding = 64 * float(np.finfo(dtype).eps)
    assert value == pytest.approx(float(given["row_weight"] @ losses), rel=rounding)
    expected = np.append(gradient[:, 0] @ columns, gradient.sum())
    np.testing.assert_allclose(total - 1, expected, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_negligible_gradients_count_as_zero_and_sure_rows_keep_their_loss(dtype: Any) -> None:
    given = problem(dtype, labels=np.ones((ROWS, 1), np.int8))
    given |= {"weight": np.zeros(FEATURES, dtype), "bias": dtype(30.0)}
    total = np.zeros(FEATURES + 1)
    find = registry.find(dtype).logistic_value_grad
    value = find(**given, total=total)
    assert value == pytest.approx(given["row_weight"].sum() * np.exp(-30.0), rel=1e-5)
    assert -total[-1] == pytest.approx(value, rel=1e-5)
    none = np.zeros_like(total)
    find(**{**given, "negligible": 1e-10}, total=none)
    assert not none.any()
    some = np.zeros_like(total)
    find(**{**given, "negligible": 1e-20}, total=some)
    np.testing.assert_array_equal(some, total)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_stays_so(dtype: Any) -> None:
    given = problem(dtype)
    given["weight"][3] = np.nan
    total = np.zeros(FEATURES + 1)
    assert np.isnan(registry.find(dtype).logistic_value_grad(**given, total=total))
    assert np.isnan(total).all()


def test_single_precision_adds_up_many_rows_in_double() -> None:
    """A million rows of one sign: in float32 alone a sum loses the fifth digit, and the intercept's all that count."""
    rows = 1_000_000
    columns = np.random.default_rng(0).uniform(0.0, 1.0, (rows, 1)).astype(np.float32)
    labels, weight = np.zeros((rows, 1), np.int8), np.full(rows, 0.3)
    total, slope, bias = np.zeros(2), np.zeros(1, np.float32), np.float32(0)
    find = registry.find(np.float32).logistic_value_grad
    for first in range(0, rows, 1 << 19):
        block = slice(first, first + (1 << 19))
        find(columns[block], slope, bias, Target(1, labels[block], link="sigmoid"), weight[block], 0.0, total)
    assert total[1] == pytest.approx(0.15 * rows, rel=1e-7)
    assert total[0] == pytest.approx(0.15 * columns.sum(dtype=np.float64), rel=1e-6)
