"""Plain cross-entropy with distributions in single precision: held to the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossent.core.target import Target
from crossent.kernels import reference
from crossent.losses import DEFAULT_LOSS

cpu = pytest.importorskip("crossent.kernels.cpu", reason="numba is not installed")

ROWS = 70
CLASSES = [1, 2, 10, 64, 65, 300, 3001]


def problem(num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, distributions and row weights; some rows have no mass or weight, are masked, NaN or certain."""
    rng = np.random.default_rng(num_classes)
    logits = (rng.normal(size=(ROWS, num_classes)) * np.exp(rng.normal(size=(ROWS, 1)))).astype(np.float32)
    soft = rng.dirichlet(np.ones(num_classes), ROWS).astype(np.float32)
    soft[0] = 0.0
    soft[1] *= 37.0
    soft[2] = 0.0
    soft[2, -1] = 1.0
    logits[3, 0] = np.nan
    logits[4, 0] = -np.inf
    logits[5, 0] = -np.inf
    soft[5, 0] = 0.0
    logits[6, 0] += 60.0
    logits[7] = -np.inf
    row_weight = rng.random(ROWS)
    row_weight[8] = 0.0
    logits[8, 0] = np.nan
    return logits, soft, row_weight


def evaluate(twin: Any, logits: np.ndarray, soft: np.ndarray, scale: float, row_weight: Any) -> Any:
    grad = np.empty_like(logits)
    target = Target(logits.shape[1], soft=soft)
    losses = twin.row_losses(logits, target, DEFAULT_LOSS, scale, row_weight, grad)
    return np.where(row_weight == 0, 0.0, losses) if row_weight is not None else losses, grad


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1 / 70, 1e38])
@pytest.mark.parametrize("num_classes", CLASSES)
def test_single_precision_is_the_reference_rounded(num_classes: int, scale: float, weighted: bool) -> None:
    logits, soft, row_weight = problem(num_classes)
    weights = row_weight if weighted else None
    losses, grad = evaluate(cpu, logits, soft, scale, weights)
    with np.errstate(all="ignore"):
        exact, exact_grad = evaluate(reference, logits.astype(np.float64), soft.astype(np.float64), scale, weights)
        ones = np.ones(ROWS) if weights is None else weights
        double = logits.astype(np.float64)
        e = np.exp(double - double.max(axis=1, keepdims=True))
        mass = soft.sum(axis=1, keepdims=True, dtype=np.float64)
        terms = scale * ones[:, None] * (mass * e / e.sum(axis=1, keepdims=True) + soft)
        rounded = exact_grad.astype(np.float32)
    np.testing.assert_allclose(losses, exact, rtol=1e-6)
    np.testing.assert_array_equal(np.isfinite(grad), np.isfinite(rounded))
    counts = np.isfinite(grad) & np.isfinite(terms)
    error = np.abs(grad.astype(np.float64) - exact_grad)[counts]
    assert (error <= 4 * 2.0**-23 * terms[counts] + np.finfo(np.float32).tiny).all()
    assert (grad[0] == 0).all()
    assert (grad[8] == 0).all() or not weighted


@pytest.mark.parametrize("num_classes", [k for k in CLASSES if k > 64])
def test_bfloat16_is_float32_rounded_once(num_classes: int) -> None:
    logits, soft, row_weight = problem(num_classes)
    bits, wide = np.empty(logits.shape, np.uint16), np.empty_like(logits)
    reference.narrow_bfloat16(logits, bits)
    reference.widen_bfloat16(bits, wide)
    assert "bfloat16" in cpu.forms(Target(num_classes, soft=soft), DEFAULT_LOSS)
    losses, grad = evaluate(cpu, bits, soft, 0.3, row_weight)
    expected, expected_grad = evaluate(cpu, wide, soft, 0.3, row_weight)
    rounded = np.empty_like(bits)
    reference.narrow_bfloat16(expected_grad, rounded)
    np.testing.assert_array_equal(losses, expected)
    found, wanted = np.empty_like(logits), np.empty_like(logits)
    reference.widen_bfloat16(grad, found)
    reference.widen_bfloat16(rounded, wanted)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_the_gradient_may_take_the_logits_place(num_classes: int) -> None:
    logits, soft, _ = problem(num_classes)
    expected = evaluate(cpu, logits, soft, 0.3, None)
    losses = cpu.row_losses(logits, Target(num_classes, soft=soft), DEFAULT_LOSS, 0.3, None, logits)
    np.testing.assert_array_equal(losses, expected[0])
    np.testing.assert_array_equal(logits, expected[1])
