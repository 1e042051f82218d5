"""A whole pass of a softmax regression, and its Hessian, in one call: loss and derivatives are those of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossent.core.target import Target
from crossent.kernels import reference, registry
from crossent.losses import DEFAULT_LOSS

ROWS, FEATURES, CLASSES = 60, 5, 4
WEIGHTS = {"plain": None, "weighted": np.array([0.5, 3.0, 1.0, 0.0])}


def problem(dtype: Any, class_weight: Any = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    row_weight = rng.uniform(0.0, 2.0, ROWS)
    row_weight[::7] = 0.0
    return {
        "columns": rng.standard_normal((ROWS, FEATURES)).astype(dtype),
        "theta": rng.standard_normal((CLASSES, FEATURES + 1)),
        "labels": rng.integers(0, CLASSES, ROWS),
        "class_weight": class_weight,
        "row_weight": row_weight,
    }


def with_ones(columns: np.ndarray) -> np.ndarray:
    return np.column_stack([columns.astype(np.float64), np.ones(len(columns))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("class_weight", WEIGHTS.values(), ids=WEIGHTS)
def test_the_pass_is_that_of_the_logits(dtype: Any, class_weight: Any) -> None:
    given = problem(dtype, class_weight)
    total = np.ones((CLASSES, FEATURES + 1))  # which is added to
    value = registry.find(dtype).multinomial_value_grad(**given, total=total)

    x = with_ones(given["columns"])
    logits = x @ given["theta"].T
    gradient = np.empty_like(logits)
    target = Target(len(given["theta"]), given["labels"], class_weight=class_weight)
    losses = reference.row_losses(logits, target, DEFAULT_LOSS, 1.0, given["row_weight"], gradient)
    assert value == pytest.approx(float(given["row_weight"] @ losses), rel=1e-13)
    np.testing.assert_allclose(total - 1, gradient.T @ x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_a_sure_row_the_small_gradient_keeps_its_digits(dtype: Any) -> None:
    """p - 1 in doubles would be 0: e^-40 is 4e-18."""
    theta = np.array([[0.0, 40.0], [0.0, 0.0]])
    total = np.zeros((2, 2))
    value = registry.find(dtype).multinomial_value_grad(
        np.ones((1, 1), dtype), theta, np.zeros(1, np.int64), None, np.ones(1), total
    )
    assert value == pytest.approx(np.exp(-40.0), rel=1e-14)
    np.testing.assert_allclose(total, np.exp(-40.0) * np.array([[-1.0, -1.0], [1.0, 1.0]]), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_intercept", [True, False])
def test_the_hessian_is_the_slope_of_the_gradient(dtype: Any, with_intercept: bool) -> None:
    given = problem(dtype)
    twin = registry.find(dtype)
    size = FEATURES + with_intercept
    total = np.full((CLASSES, size, CLASSES, size), 0.5)
    twin.multinomial_hessian(given["columns"], given["theta"], given["row_weight"], total)

    step = 1e-5
    for k in range(CLASSES):
        for j in range(size):
            ends = []
            for sign in (1.0, -1.0):
                moved = given["theta"].copy()
                moved[k, j] += sign * step
                gradient = np.zeros((CLASSES, FEATURES + 1))
                twin.multinomial_value_grad(**{**given, "theta": moved}, total=gradient)
                ends.append(gradient[:, :size])
            expected = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(total[k, j, k + 1 :] - 0.5, expected[k + 1 :], rtol=1e-6, atol=1e-8)
            assert (total[k, j, : k + 1] == 0.5).all()  # the blocks on the diagonal and below are not touched


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_a_number_stays_so(dtype: Any) -> None:
    given = problem(dtype)
    given["theta"][1, 3] = np.nan
    total = np.zeros((CLASSES, FEATURES + 1))
    twin = registry.find(dtype)
    assert np.isnan(twin.multinomial_value_grad(**given, total=total))
    assert np.isnan(total).all()
    hessian = np.zeros((CLASSES, FEATURES, CLASSES, FEATURES))
    twin.multinomial_hessian(given["columns"], given["theta"], given["row_weight"], hessian)
    assert np.isnan(hessian[0, :, 1]).all()
