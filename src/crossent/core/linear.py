"""The linear head ``z = X Wᵀ + b``: the dense loss on blocks of rows, without ever holding N·K logits.

For each block: one product for its logits, the dense loss and its gradient G in their place, and two products,
``∂L/∂X = G W`` and ``∂L/∂W += Gᵀ X`` (and ``∂L/∂b = Σ_rows G``). The factor of each row, its weight over the
denominator, is known before the first block, so three products are all there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from crossent.core.arrays import Array, array_namespace

# Of logits, and of the weight's gradient, which is added tile by tile while it is in cache. Larger is faster (the
# products come closer to their full speed: 80 and 4 MiB took 5 to 7 % longer), but the two are nearly all of the extra
# memory, which is to stay under 128 MiB.
BLOCK_BYTES = 104 << 20
TILE_BYTES = 8 << 20


class LinearGradients(NamedTuple):
    """Gradients of the loss in the linear head's three arguments; bias is None where there is none."""

    input: Any
    weight: Any
    bias: Any


EvaluateBlock = Callable[[Array, slice], tuple[Array, Array]]


def rows_per_block(num_rows: int, num_classes: int, itemsize: int) -> int:
    """Return how many rows a block of logits holds: about BLOCK_BYTES, in blocks of nearly equal size."""
    most = max(1, BLOCK_BYTES // max(1, num_classes * itemsize))
    count = -(-num_rows // most) if num_rows else 1
    return max(1, -(-num_rows // count))


def _product(xp: Any, a: Array, b: Array, out: Array) -> Array:
    """Return ``a @ b``, written into `out`: directly by NumPy, whose matmul can, else by a copy."""
    if xp.__name__ == "numpy":
        return xp.matmul(a, b, out=out)
    out[...] = xp.matmul(a, b)
    return out


def evaluate(
    input: Array,
    weight: Array,
    bias: Array | None,
    evaluate_block: EvaluateBlock,
    *,
    with_gradients: bool,
    is_silent: Array | None = None,
) -> tuple[Array, LinearGradients | None]:
    """Return the per-row losses (N,), float64, and the gradients.

    Parameters
    ----------
    input : (N, D) array
    weight : (K, D) array
    bias : (K,) array or None
    evaluate_block : callable
        Takes a block of logits, which it may overwrite, and its slice of rows; returns the rows' losses and, where
        gradients are asked for, ∂(reduced loss)/∂(block).
    with_gradients : bool
    is_silent : (N,) boolean array, optional
        Rows without a part in the loss: whatever they hold, NaN included, does not reach the weight's gradient.
    """
    xp = array_namespace(input, weight)
    num_rows, width = input.shape
    num_classes = weight.shape[0]
    step = rows_per_block(num_rows, num_classes, input.dtype.itemsize)
    tile = max(1, TILE_BYTES // max(1, width * input.dtype.itemsize))
    losses = xp.zeros(num_rows, dtype=xp.float64)
    buffer = xp.empty((min(step, num_rows), num_classes), dtype=input.dtype)
    gradients = None
    if with_gradients:
        gradients = LinearGradients(
            xp.empty_like(input),
            # Not `zeros_like`, which writes the zeros: fresh pages are zero already.
            xp.zeros(weight.shape, dtype=weight.dtype, device=weight.device),
            None if bias is None else xp.zeros(num_classes, dtype=xp.float64),
        )
    scratch = xp.empty((min(tile, num_classes), width), dtype=input.dtype) if with_gradients else None
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        block = input[rows]
        logits = _product(xp, block, weight.T, buffer[: rows.stop - start])
        if bias is not None:
            logits += bias
        losses[rows], slope = evaluate_block(logits, rows)
        if gradients is None:
            continue
        _product(xp, slope, weight, gradients.input[rows])
        if is_silent is not None and bool(xp.any(is_silent[rows])):
            block = xp.where(is_silent[rows][:, None], xp.zeros_like(block), block)
        for first in range(0, num_classes, tile):
            classes = slice(first, min(first + tile, num_classes))
            part = slope[:, classes].T
            if start == 0:
                _product(xp, part, block, gradients.weight[classes])
            else:
                gradients.weight[classes] += _product(xp, part, block, scratch[: classes.stop - first])  # type: ignore[index]
        if bias is not None:
            gradients.bias[...] += xp.sum(slope, axis=0, dtype=xp.float64)
    if gradients is not None and bias is not None:
        gradients = gradients._replace(bias=xp.astype(gradients.bias, bias.dtype))
    return losses, gradients
