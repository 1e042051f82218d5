"""Kernels for softmax regression on small tables: a whole pass in one call, and a Hessian in another, because of some
hundred rows the calls of products and kernels take longer than their arithmetic.

Row by row, in double precision whatever that of the columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numba.compile import helper, kernel, wide_vectors
from .numba.exp import add_in_any_order, exp_difference, log1p

__all__ = ["hessian_rows", "value_grad_rows"]


@helper
def _logits(row: Any, theta: Any, z: Any) -> Any:
    """Fill `z` with the logits of a row, and return which is the largest."""
    wide_vectors()
    features = len(row)
    top = 0
    for k in range(len(z)):
        weight = theta[k]
        logit = 0.0
        for j in range(features):
            logit = add_in_any_order(logit, np.float64(row[j]) * weight[j])
        z[k] = logit + weight[features]
        if not z[k] <= z[top]:
            top = k
    return top


@helper
def _exponentials(z: Any, top: Any) -> Any:
    """Replace logits by ``e^(z_k - z_top)``, and return the sum of all but the first class that is the likeliest."""
    m = z[top]
    tail = 0.0
    for k in range(len(z)):
        z[k] = exp_difference(z[k], m)
        tail += z[k] if k != top else 0.0
    return tail


@kernel
def value_grad_rows(columns: Any, theta: Any, labels: Any, class_weight: Any, row_weight: Any, total: Any) -> Any:
    """Add ``Σ_i g_i (x_i, 1)ᵀ`` to `total` (K, D + 1) and return ``Σ_i c_i ℓ_i``."""
    wide_vectors()
    classes, features = len(theta), columns.shape[1]
    z = np.empty(classes)
    value = 0.0
    for i in range(len(columns)):
        row, label = columns[i], labels[i]
        factor = row_weight[i] * (class_weight[label] if len(class_weight) > 0 else 1.0)
        if factor == 0.0:
            continue
        top = _logits(row, theta, z)
        below = z[top] - z[label]
        tail = _exponentials(z, top)
        value += factor * (below + log1p(tail))
        share = factor / (1.0 + tail)
        others = 0.0
        for k in range(classes):
            z[k] *= share
            others += z[k] if k != label else 0.0
        z[label] = -others  # not p - 1, which cancels where a model is sure
        for k in range(classes):
            slope, out = z[k], total[k]
            for j in range(features):
                out[j] += slope * np.float64(row[j])
            out[features] += slope
    return value


@kernel
def hessian_rows(columns: Any, theta: Any, mass: Any, total: Any) -> None:
    """Add ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ`` for all classes k < l to `total` (K, d, K, d); x̃ is x, or (x, 1)."""
    wide_vectors()
    classes, size, features = len(theta), total.shape[1], columns.shape[1]
    z = np.empty(classes)
    x = np.ones(features + 1)
    for i in range(len(columns)):
        tail = _exponentials(z, _logits(columns[i], theta, z))
        for j in range(features):
            x[j] = columns[i, j]
        for k in range(classes):
            share = mass[i] * z[k] / (1.0 + tail) / (1.0 + tail)
            for other in range(k + 1, classes):
                both = share * z[other]
                for j in range(size):
                    out = total[k, j, other]
                    factor = -both * x[j]
                    for e in range(size):
                        out[e] += factor * x[e]
