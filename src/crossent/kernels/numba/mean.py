"""The mean of plain cross-entropy over labels in one compiled call, from addresses.

What the arithmetic of a small batch is lost in otherwise: views of memory as arrays, one call to check the labels, one
to compute and one to add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from .compile import intrinsic, kernel, owning_helper, recursive_helper
from .softmax import blocks_value_grad, rows_value_grad

__all__ = ["mean_at", "sum_as_numpy"]


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    if not isinstance(address, types.Integer):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@recursive_helper
def sum_as_numpy(values: Any) -> float:
    """The sum with the bits of ``np.add.reduce``: eight sums side by side, halves above 128 numbers."""
    n = len(values)
    if n > 128:
        half = n // 2
        half -= half % 8
        return sum_as_numpy(values[:half]) + sum_as_numpy(values[half:])
    if n < 8:
        total = -0.0
        for i in range(n):
            total += values[i]
        return total
    r0, r1, r2, r3 = values[0], values[1], values[2], values[3]
    r4, r5, r6, r7 = values[4], values[5], values[6], values[7]
    end = n - n % 8
    for i in range(8, end, 8):
        r0 += values[i]
        r1 += values[i + 1]
        r2 += values[i + 2]
        r3 += values[i + 3]
        r4 += values[i + 4]
        r5 += values[i + 5]
        r6 += values[i + 6]
        r7 += values[i + 7]
    total = ((r0 + r1) + (r2 + r3)) + ((r4 + r5) + (r6 + r7))
    for i in range(end, n):
        total += values[i]
    return total


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
        blocks_value_grad(logits, labels, None, weights, None, scale, loss[:0], None, grad, loss, 0, rows)
    if long is not None:
        rows_value_grad(logits, labels, None, weights, None, scale, loss[:0], None, grad, loss, 0, rows)
    return sum_as_numpy(loss) * scale
