"""What calibrators ask of kernels, in NumPy and float64: sums over rows of a loss and of its derivatives.

`crossent.kernels.numba.calibration` computes the same, compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["affine_moments", "sigmoid_affine_moments", "temperature_moments"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_BLOCK_ELEMENTS = 1 << 18


def _blocks(logits: Array, weights: Float64 | None) -> Iterator[tuple[slice, Float64, Float64]]:
    """Yield slices of rows, their logits in float64 (0 in rows that do not count) and their weights."""
    step = max(1, _BLOCK_ELEMENTS // logits.shape[1])
    for start in range(0, len(logits), step):
        part = slice(start, min(start + step, len(logits)))
        z = logits[part].astype(np.float64)
        w = np.ones(len(z)) if weights is None else weights[part]
        z[w == 0] = 0.0
        yield part, z, w


def temperature_moments(logits: Array, codes: NDArray[np.intp], weights: Float64 | None, beta: float) -> Float64:
    """Return Σwℓ, Σw ∂ℓ/∂β and Σw ∂²ℓ/∂β² of the cross-entropy of ``softmax(β z)``."""
    total = np.zeros(3)
    for part, z, w in _blocks(logits, weights):
        with np.errstate(invalid="ignore"):  # inf - inf: the NaN tells the caller to look for the row
            u = z - z.max(axis=1, keepdims=True)
        own = u[np.arange(len(u)), codes[part]]
        e = np.exp(beta * u)
        u[e == 0] = 0.0
        s = e.sum(axis=1)
        mean = (e * u).sum(axis=1) / s
        square = (e * u * u).sum(axis=1) / s
        total += [w @ (np.log(s) - beta * own), w @ (mean - own), w @ (square - mean**2)]
    return total


def affine_moments(
    logits: Array, codes: NDArray[np.intp], weights: Float64 | None, scale: Float64, bias: Float64
) -> tuple[float, Float64]:
    """Return Σwℓ of ``softmax(scale ∘ z + bias)``, and (5, K): gradients by bias and scale, Hessian bb, ab and aa."""
    loss = 0.0
    out = np.zeros((5, logits.shape[1]))
    for part, z, w in _blocks(logits, weights):
        rows, y = np.arange(len(z)), codes[part]
        with np.errstate(invalid="ignore"):  # inf - inf: the NaN tells the caller to look for the row
            x = scale * z + bias
            x -= x.max(axis=1, keepdims=True)
        p = np.exp(x)
        s = p.sum(axis=1, keepdims=True)
        p /= s
        loss += float(w @ (np.log(s[:, 0]) - x[rows, y]))
        z[p == 0] = 0.0
        gap, spread = w[:, None] * p, w[:, None] * p * (1 - p)
        gap[rows, y] -= w
        for field, term in enumerate((gap, gap * z, spread, spread * z, spread * z * z)):
            out[field] += term.sum(axis=0)
    return loss, out


@np.errstate(invalid="ignore")  # of infinite scores: the NaN tells the caller to look for the row
def sigmoid_affine_moments(
    scores: Array,
    codes: NDArray[np.intp],
    events: NDArray[np.bool_] | None,
    targets: tuple[Float64, Float64],
    weights: Float64 | None,
    scale: Float64,
    bias: Float64,
) -> Float64:
    """Return (6, K): loss, gradients by bias and scale and Hessian bb, ab, aa of a binary problem per column."""
    out = np.zeros((6, scores.shape[1]))
    low, high = targets
    for part, v, w in _blocks(scores, weights):
        happened = codes[part, None] == np.arange(scores.shape[1]) if events is None else events[part]
        t = np.where(happened, high, low)
        x = scale * v + bias
        e = np.exp(-np.abs(x))
        p = np.where(x >= 0, 1.0, e) / (1 + e)
        gap, spread = w[:, None] * (p - t), w[:, None] * e / (1 + e) ** 2
        loss = w[:, None] * (np.maximum(x, 0.0) - t * x + np.log1p(e))
        for field, term in enumerate((loss, gap, gap * v, spread, spread * v, spread * v * v)):
            out[field] += term.sum(axis=0)
    return out
