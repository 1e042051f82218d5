"""The linear head ``z = X Wᵀ + b``: the dense loss on blocks of rows, without ever holding N·K logits.

For each block: one product for its logits, the dense loss and its gradient G in their place, and two products,
``∂L/∂X = G W`` and ``∂L/∂W += Gᵀ X`` (and ``∂L/∂b = Σ_rows G``). The factor of each row, its weight over the
denominator, is known before the first block, so three products are all there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from crossent.core.arrays import Array, array_namespace

BLOCK_BYTES = 80 << 20
"""The size of a block of logits. Products of larger blocks are faster; all extra memory is to stay under 128 MiB, of
which BLAS takes up to 32 for itself."""
TILE_BYTES = 8 << 20
"""The size of a part of the weight's gradient that is added while it is in cache."""


class LinearGradients(NamedTuple):
    """Gradients of the loss in the linear head's three arguments; bias is None where there is none."""

    input: Any
    weight: Any
    bias: Any


EvaluateBlock = Callable[[Array, slice], tuple[Array, Array]]


def rows_per_block(num_rows: int, num_classes: int, itemsize: int, block_bytes: int) -> int:
    """Return how many rows a block of logits holds: about `block_bytes`, in blocks of nearly equal size."""
    most = max(1, block_bytes // max(1, num_classes * itemsize))
    count = -(-num_rows // most) if num_rows else 1
    return max(1, -(-num_rows // count))


class Products:
    """How a linear head multiplies: one product is written, the other added. Array libraries may have faster ways."""

    def block_bytes(self, bytes_of_a_row: int, bytes_later: int = 0) -> int:
        """Return about how large a block of logits may be; `bytes_later` are taken when it is gone."""
        return BLOCK_BYTES

    def write(self, a: Array, b: Array, out: Array) -> Array:
        """Return ``a @ b``, in the memory of `out`."""
        xp = array_namespace(a)
        if xp.__name__ == "numpy":
            return xp.matmul(a, b, out=out)
        out[...] = xp.matmul(a, b)
        return out

    def add(self, a: Array, b: Array, total: Array, tile: int) -> None:
        """Add ``a @ b`` to `total`, `tile` of its rows at a time, while each product is in cache."""
        xp = array_namespace(a)
        scratch = xp.empty((min(tile, total.shape[0]), total.shape[1]), dtype=b.dtype, device=b.device)
        for first in range(0, total.shape[0], tile):
            rows = slice(first, min(first + tile, total.shape[0]))
            total[rows] += self.write(a[rows], b, scratch[: rows.stop - first])

    def without(self, rows: Array, is_silent: Array) -> Array:
        """Return rows with zeros in the place of silent ones."""
        xp = array_namespace(rows)
        if not bool(xp.any(is_silent)):
            return rows
        return xp.where(is_silent[:, None], xp.zeros_like(rows), rows)

    def widest(self, a: Array) -> Any:
        """Return the dtype of losses and of sums over rows: the most that the array's device has."""
        return array_namespace(a).float64

    def column_sums(self, a: Array) -> Array:
        """Return the sums over the rows, in float64."""
        xp = array_namespace(a)
        return xp.sum(a, axis=0, dtype=xp.float64)


_PRODUCTS = Products()


def evaluate(
    input: Array,
    weight: Array,
    bias: Array | None,
    evaluate_block: EvaluateBlock,
    *,
    with_gradients: bool,
    is_silent: Array | None = None,
    wanted: tuple[bool, bool] = (True, True),
    accumulate_in: Any = None,
    products: Products = _PRODUCTS,
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
    wanted : (bool, bool)
        Whether the gradients in input and in weight are asked for; None stands for one that is not.
    accumulate_in : dtype, optional
        Of the weight's gradient, if it is not to be the weight's own.
    products : Products
    """
    xp = array_namespace(input, weight)
    num_rows, width = input.shape
    num_classes = weight.shape[0]
    itemsize = input.dtype.itemsize
    wants_input, wants_weight = wanted
    converts = with_gradients and wants_weight and accumulate_in not in (None, weight.dtype)
    later = num_classes * width * itemsize if converts else 0  # the weight's gradient in the weight's own dtype
    most = products.block_bytes(num_classes * itemsize, later)
    step = rows_per_block(num_rows, num_classes, itemsize, most)
    tile = max(1, TILE_BYTES // max(1, width * itemsize))
    losses = xp.zeros(num_rows, dtype=products.widest(input), device=input.device)
    buffer = xp.empty((min(step, num_rows), num_classes), dtype=input.dtype, device=input.device)
    gradients = None
    if with_gradients:
        gradients = LinearGradients(
            xp.empty_like(input) if wants_input else None,
            # Not `zeros_like`, which writes the zeros: fresh pages are zero already.
            xp.zeros(weight.shape, dtype=accumulate_in or weight.dtype, device=weight.device) if wants_weight else None,
            None if bias is None else xp.zeros(num_classes, dtype=products.widest(weight), device=weight.device),
        )
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        block = input[rows]
        logits = products.write(block, weight.T, buffer[: rows.stop - start])
        if bias is not None:
            logits += bias
        losses[rows], slope = evaluate_block(logits, rows)
        if gradients is None:
            continue
        if wants_input:
            products.write(slope, weight, gradients.input[rows])
        if wants_weight:
            if is_silent is not None:
                block = products.without(block, is_silent[rows])
            if start == 0 and gradients.weight.dtype == block.dtype:
                products.write(slope.T, block, gradients.weight)
            else:
                products.add(slope.T, block, gradients.weight, tile)
        if bias is not None:
            gradients.bias[...] += products.column_sums(slope)
    if gradients is not None and bias is not None:
        gradients = gradients._replace(bias=xp.astype(gradients.bias, bias.dtype))
    return losses, gradients
