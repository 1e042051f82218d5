"""The mean of plain cross-entropy over labels in one compiled call, from addresses.

What the arithmetic of a small batch is lost in otherwise: views of memory as arrays, one call to check the labels, one
to compute and one to add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from .compile import helper, intrinsic, kernel, owning_helper, part_of_kernels
from .softmax import blocks_value_grad, rows_value_grad

__all__ = ["mean_at", "sum_as_numpy"]

_blocks = part_of_kernels(blocks_value_grad)
_rows = part_of_kernels(rows_value_grad)


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    if not isinstance(address, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@helper
def _sum_of_few(values: Any, side: Any) -> float:
    n = len(values)
    if n < 8:
        total = -0.0
        for i in range(n):
            total += values[i]
        return total
    for j in range(8):
        side[j] = values[j]
    end = n - (n & 7)
    for i in range(8, end, 8):
        for j in range(8):
            side[j] += values[i + j]
    total = ((side[0] + side[1]) + (side[2] + side[3])) + ((side[4] + side[5]) + (side[6] + side[7]))
    for i in range(end, n):
        total += values[i]
    return total


@owning_helper
def sum_as_numpy(values: Any) -> float:
    """The sum with the bits of ``np.add.reduce``: eight sums side by side, halves above 128 numbers.

    A loop, since Numba takes three times as long to compile a function that calls itself. At each depth stand the end
    of a part and the sum of its first half.
    """
    ends, sums, side = np.empty(64, np.int64), np.empty(64), np.empty(8)
    ends[0] = len(values)
    start = depth = 0
    while True:
        while ends[depth] - start > 128:
            half = (ends[depth] - start) >> 1
            ends[depth + 1] = start + half - (half & 7)
            depth += 1
        total = _sum_of_few(values[start : ends[depth]], side)
        while depth > 0 and ends[depth] == ends[depth - 1]:  # a second half
            depth -= 1
            total += sums[depth]
        if depth == 0:
            return total
        sums[depth - 1] = total
        start = ends[depth]
        ends[depth] = ends[depth - 1]


@owning_helper
def _views(logits_at: Any, labels_at: Any, grad_at: Any, rows: Any, classes: Any, ignore_index: Any, like: Any) -> Any:
    """Memory as arrays, labels with -1 where ignored, and how many count: 0 if one is out of range."""
    logits = carray(_pointer(logits_at), (rows, classes), like.dtype)
    labels = carray(_pointer(labels_at), (rows,), np.int64)
    grad = carray(_pointer(grad_at), (rows if grad_at != 0 else 0, classes), like.dtype)
    counted = np.empty(rows, np.int64)
    count = 0
    for i in range(rows):
        y = labels[i]
        if y == ignore_index:
            counted[i] = -1
        elif y < 0 or y >= classes:
            return logits, counted, grad, 0
        else:
            counted[i] = y
            count += 1
    return logits, counted, grad, count


@kernel
def mean_at(
    logits_at: Any,
    labels_at: Any,
    grad_at: Any,
    rows: Any,
    classes: Any,
    ignore_index: Any,
    weights: Any,
    like: Any,
    short: Any,
    long: Any,
) -> float:
    """The mean over labels at addresses, its gradient to another (0: none); in the calling thread.

    It is negative, which no mean is, and nothing is computed where a label is out of range or no row counts. `like` is
    an array of the logits' dtype. One of `short` and `long` is None: only None leaves a branch out of what is compiled.
    """
    logits, labels, grad, count = _views(logits_at, labels_at, grad_at, rows, classes, ignore_index, like)
    if count == 0:
        return -1.0
    scale = 1.0 / count
    loss = np.empty(rows)
    if short is not None:
        _blocks(logits, labels, None, weights, None, scale, loss[:0], None, grad, loss, 0, rows)
    if long is not None:
        _rows(logits, labels, None, weights, None, scale, loss[:0], None, grad, loss, 0, rows)
    return sum_as_numpy(loss) * scale
