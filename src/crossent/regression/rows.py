"""The mathematics of a block of rows: losses with their gradients, probabilities, and curvature without cancellation.

All kernels that a fit calls are called here, but for those of whole passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.kernels import registry
from crossent.losses import DEFAULT_LOSS, Loss

from .arrays import Array
from .targets import EncodedTarget

__all__ = [
    "NEGLIGIBLE",
    "between_outputs",
    "drop_negligible",
    "losses_and_gradient",
    "probabilities",
    "row_curvature",
    "variances",
]

NEGLIGIBLE: dict[np.dtype[Any], float] = {np.dtype(np.float32): 1e-26, np.dtype(np.float64): 1e-200}
"""Gradients and probabilities below this are set to 0. A product of matrices that hold subnormal numbers takes ten
times as long, and a confident model in float32 is full of them."""
PIECE_ELEMENTS = 1 << 16
"""They are rounded so many at a time."""
_SHIFTS = {dtype: least / float(np.finfo(dtype).eps) for dtype, least in NEGLIGIBLE.items()}


def drop_negligible(array: NDArray[Any]) -> NDArray[Any]:
    """Round in place to multiples of about `NEGLIGIBLE`, by adding and subtracting a number with no finer bits."""
    shift = _SHIFTS[array.dtype]
    flat = array.reshape(-1, copy=False)
    for start in range(0, flat.size, PIECE_ELEMENTS):  # the second operation finds a piece where the first left it
        piece = flat[start : start + PIECE_ELEMENTS]
        piece += shift
        piece -= shift
    return array


def losses_and_gradient(target: EncodedTarget, logits: NDArray[Any], loss: Loss, weight: Array | None) -> Array:
    """Replace the logits of some rows by the gradient of their losses, times their weights; return the losses."""
    asked = target.for_kernels(logits.dtype)
    losses: Array = registry.find(logits.dtype).row_losses(logits, asked, loss, 1.0, weight, logits)
    return losses


def probabilities(logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[Any]]:
    """Replace softmax logits (n, K) by probabilities; return them, the likeliest class m and 1 - p_m, accurately.

    The gradient of cross-entropy for the target m is p - e_m, whose entry at m is not 1 - p_m rounded but the sum
    of the others: curvature is p (1 - p), and where a model is sure that is all there is.
    """
    top = logits.argmax(axis=1)
    losses_and_gradient(_labels("softmax", top.astype(np.int64), logits), logits, DEFAULT_LOSS, None)
    rows = np.arange(len(logits))
    rest = -logits[rows, top]
    logits[rows, top] = 1 - rest
    return logits, top, rest


def variances(logits: NDArray[Any]) -> NDArray[Any]:
    """Replace sigmoid logits (n, K) by σ(z) σ(-z), accurately on both sides."""
    likelier = _labels("sigmoid", (logits > 0).astype(np.int8), logits)
    losses_and_gradient(likelier, logits, DEFAULT_LOSS, None)  # ±σ(-|z|)
    np.abs(logits, out=logits)
    logits *= 1 - logits
    return logits


def _labels(link: str, labels: NDArray[Any], logits: NDArray[Any]) -> EncodedTarget:
    outputs = logits.shape[1]
    return EncodedTarget(link, np.arange(outputs), outputs, labels, None)


def row_curvature(p: NDArray[Any], top: NDArray[np.intp], rest: NDArray[Any]) -> tuple[Array, Array]:
    """Return ``tr (diag p - p pᵀ)`` and a bound of its diagonal, row by row, without cancellation."""
    rows = np.arange(len(p))
    at_top = p[rows, top].astype(np.float64) * rest
    squares = np.einsum("nk,nk->n", p, p, dtype=np.float64) - p[rows, top].astype(np.float64) ** 2
    # Σ p(1-p) = p_m (1-p_m) + Σ_others p - Σ_others p²; another class has p (1-p) ≤ p ≤ min(p_m, 1-p_m), and ≤ ¼.
    bound = np.minimum(np.minimum(rest, p[rows, top]), 0.25)
    return at_top + np.maximum(rest - squares, 0.0), np.maximum(at_top, bound)


def between_outputs(p: NDArray[Any], mass: Array) -> Array:
    """Return ``Σ a (diag p - p pᵀ)`` (K, K), in float64: rare classes have small eigenvalues, and (1, …, 1) has 0.

    Rows sum to 0, so the diagonal is what the rest of a row adds up to. Summed as ``p (1 - p)`` it would miss that by
    the rounding of p, and shifting all classes together would seem to have a curvature.
    """
    double = p.astype(np.float64)
    between = -((double * mass[:, None]).T @ double)
    np.fill_diagonal(between, 0.0)
    np.fill_diagonal(between, -between.sum(axis=1))
    return between
