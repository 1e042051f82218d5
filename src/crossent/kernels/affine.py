"""The sums that calibrators minimise by, through the compiled kernels (see `affine_reference`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import affine_rows as rows
from .threads import run_rows

__all__ = ["affine_moments", "sigmoid_affine_moments", "temperature_moments"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_PIECES = 64
_MOST_SUMS = 1 << 21
_SHORT = 64
_NONE = np.empty(0)
_NO_EVENTS = np.empty((0, 0), np.bool_)


def _pieces(rows: int, sums: int) -> tuple[int, int]:
    """Return number and length of the pieces that a pass is cut into, whatever the number of threads."""
    pieces = max(1, min(_PIECES, _MOST_SUMS // sums, rows // 256))
    step = -(-rows // pieces)
    return -(-rows // step), step


def temperature_moments(logits: Array, codes: NDArray[np.intp], weights: Float64 | None, beta: float) -> Float64:
    """Return Σwℓ, Σw ∂ℓ/∂β and Σw ∂²ℓ/∂β² of the cross-entropy of ``softmax(β z)``."""
    n, classes = logits.shape
    pieces, step = _pieces(n, 3)
    out = np.zeros((pieces, 3))
    function = rows.temperature_blocks if classes <= _SHORT else rows.temperature_rows
    arguments = (logits, codes, _NONE if weights is None else weights, float(beta), out, step)
    run_rows(function, pieces, step * classes, arguments)
    return np.asarray(out.sum(axis=0))


def affine_moments(
    logits: Array, codes: NDArray[np.intp], weights: Float64 | None, scale: Float64, bias: Float64
) -> tuple[float, Float64]:
    """Return Σwℓ of ``softmax(scale ∘ z + bias)``, and (5, K): gradients by bias and scale, Hessian bb, ab and aa."""
    n, classes = logits.shape
    pieces, step = _pieces(n, classes * rows.MOMENTS)
    out = np.zeros((pieces, rows.MOMENTS, classes))
    typed = [np.ascontiguousarray(v, dtype=logits.dtype) for v in (scale, bias)]
    arguments = (logits, codes, _NONE if weights is None else weights, *typed, out, step)
    run_rows(rows.affine_rows, pieces, step * classes, arguments)
    total = out.sum(axis=0)
    return float(total[0, 0]), total[1:]


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
    n, columns = scores.shape
    pieces, step = _pieces(n, columns * rows.MOMENTS)
    out = np.zeros((pieces, rows.MOMENTS, columns))
    arguments = (
        scores,
        codes,
        _NO_EVENTS if events is None else events,
        *targets,
        _NONE if weights is None else weights,
        np.ascontiguousarray(scale, dtype=np.float64),
        np.ascontiguousarray(bias, dtype=np.float64),
        out,
        step,
    )
    run_rows(rows.sigmoid_affine_rows, pieces, step * columns, arguments)
    return np.asarray(out.sum(axis=0))
