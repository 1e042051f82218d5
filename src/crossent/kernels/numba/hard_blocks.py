"""A block of short rows with hard labels: losses, and the gradient in the logits' place (the formulas of `wide`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .blocks import (
    AGAINST,
    ALONG,
    FACTOR,
    OWN,
    OWN_WEIGHT,
    TAIL,
    TRUE_E,
    TRUE_LOGIT,
    TRUE_MISS,
    block_exp,
    block_gap,
    block_maximum,
    block_tail,
    gather,
    hard_statistics,
    true_class,
)
from .closed_forms import D_LSE, D_MISS, D_NLL, LANES, MASS, block_terms
from .compile import helper
from .exp import multiply_add
from .rows import MOST_FLOAT

__all__ = ["hard_block"]


@helper
def _hard_coefficients(f: Any, weight_sum: Any, smoothing: Any, share: Any, scale: Any) -> None:
    """``g_k = ALONG e_k - AGAINST w_k`` and the true class's own gradient (the formulas of `wide`)."""
    kept = 1.0 - smoothing
    for i in range(LANES):
        factor = scale * f[FACTOR * LANES + i]
        total = 1.0 + f[TAIL * LANES + i]
        py = f[TRUE_E * LANES + i] / total
        d_nll = factor * f[D_NLL * LANES + i]
        d_miss = factor * f[D_MISS * LANES + i] * kept * py
        d_lse = factor * f[D_LSE * LANES + i]
        wy = f[OWN_WEIGHT * LANES + i]
        f[ALONG * LANES + i] = (d_nll * f[MASS * LANES + i] + d_miss + d_lse) / total
        f[AGAINST * LANES + i] = d_nll * share
        along = d_nll * (share * (weight_sum - wy)) + d_lse
        f[OWN * LANES + i] = along * py - (d_nll * (wy * (kept + share)) + d_miss) * f[TRUE_MISS * LANES + i]


@helper
def _are_held(f: Any, weight_unit: Any, most: Any) -> Any:
    """Whether the gradient's factors can be rounded to the logits' precision."""
    beyond = 0
    for i in range(LANES):
        beyond += (abs(f[ALONG * LANES + i]) > most) | (abs(f[AGAINST * LANES + i] * weight_unit) > most)
    return beyond == 0


@helper
def _hard_gradient_in_double(x: Any, f: Any, w: Any) -> None:
    """For factors that float32 does not hold, though it may hold what they amount to."""
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            e[i] = f[ALONG * LANES + i] * np.float64(e[i]) - f[AGAINST * LANES + i] * w[k]


@helper
def _hard_gradient(x: Any, a: Any, b: Any, w: Any, smoothed: Any) -> None:
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        if smoothed:
            for i in range(LANES):
                e[i] = multiply_add(e[i], a[i], -(b[i] * w[k]))
        else:
            for i in range(LANES):
                e[i] *= a[i]


@helper
def hard_block(
    x: Any,
    m: Any,
    a: Any,
    b: Any,
    y: Any,
    weight: Any,
    typed_weight: Any,
    weight_unit: Any,
    weight_sum: Any,
    smoothing: Any,
    terms: Any,
    scale: Any,
    with_grad: Any,
    f: Any,
) -> None:
    """Losses of a block whose labels and weights are loaded, and the gradient in the logits' place."""
    share = smoothing / len(weight)
    most = MOST_FLOAT if x.itemsize == 4 else np.inf
    block_maximum(x, m)
    gather(x, y, f, TRUE_LOGIT)
    if smoothing > 0.0:
        block_gap(x, m, weight, f)
    block_exp(x, m)
    block_tail(x, f)
    gather(x, y, f, TRUE_E)
    true_class(f, m)
    hard_statistics(f, weight_sum, smoothing, share)
    block_terms(f, terms)
    if with_grad:
        _hard_coefficients(f, weight_sum, smoothing, share, scale)
        if _are_held(f, weight_unit, most):
            for i in range(LANES):
                a[i] = f[ALONG * LANES + i]
                b[i] = f[AGAINST * LANES + i] * weight_unit
            _hard_gradient(x, a, b, typed_weight, smoothing > 0.0)
        else:
            _hard_gradient_in_double(x, f, weight)
        for i in range(LANES):
            x[y[i] * LANES + i] = f[OWN * LANES + i]
