"""The mean of plain cross-entropy over labels in one compiled call, from addresses.

What the arithmetic of a small batch is lost in otherwise: views of memory as arrays, one call to check the labels, one
to compute and one to add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from .bfloat16 import short_hard_rows_of_bits, wide_hard_rows_of_bits
from .compile import helper, intrinsic, kernel, recursive_helper
from .narrow import narrow_hard_rows
from .wide import hard_rows

__all__ = ["KERNELS", "sum_as_numpy"]


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


@helper
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


# Four kernels and no factory of them: Numba keeps no machine code of a function that has another one in its closure.


@kernel
def mean_of_short_rows(
    logits_at: Any, labels_at: Any, grad_at: Any, rows: Any, classes: Any, ignore_index: Any, terms: Any, like: Any
) -> float:
    """The mean over labels at addresses, its gradient to another (0: none); in the calling thread.

    It is negative, which no mean is, and nothing is computed where a label is out of range or no row counts.
    """
    logits, labels, grad, count = _views(logits_at, labels_at, grad_at, rows, classes, ignore_index, like)
    if count == 0:
        return -1.0
    scale = 1.0 / count
    loss, weight, typed = np.empty(rows), np.ones(classes), np.ones(classes, like.dtype)
    narrow_hard_rows(
        logits, labels, weight, typed, 1.0, float(classes), 0.0, terms, scale, weight[:0], grad, loss, 0, rows
    )
    return sum_as_numpy(loss) * scale


@kernel
def mean_of_short_rows_of_bits(
    logits_at: Any, labels_at: Any, grad_at: Any, rows: Any, classes: Any, ignore_index: Any, terms: Any, like: Any
) -> float:
    """`short_rows` of short rows, of bfloat16 by their bits."""
    logits, labels, grad, count = _views(logits_at, labels_at, grad_at, rows, classes, ignore_index, like)
    if count == 0:
        return -1.0
    scale = 1.0 / count
    loss, weight, typed = np.empty(rows), np.ones(classes), np.ones(classes, np.float32)
    short_hard_rows_of_bits(
        logits, labels, weight, typed, 1.0, float(classes), 0.0, terms, scale, weight[:0], grad, loss, 0, rows
    )
    return sum_as_numpy(loss) * scale


@kernel
def mean_of_long_rows(
    logits_at: Any, labels_at: Any, grad_at: Any, rows: Any, classes: Any, ignore_index: Any, terms: Any, like: Any
) -> float:
    """`short_rows` of long rows."""
    logits, labels, grad, count = _views(logits_at, labels_at, grad_at, rows, classes, ignore_index, like)
    if count == 0:
        return -1.0
    scale = 1.0 / count
    loss, weight, typed = np.empty(rows), np.ones(classes), np.ones(classes, like.dtype)
    hard_rows(logits, labels, weight, typed, 1.0, float(classes), 0.0, terms, scale, weight[:0], grad, loss, 0, rows)
    return sum_as_numpy(loss) * scale


@kernel
def mean_of_long_rows_of_bits(
    logits_at: Any, labels_at: Any, grad_at: Any, rows: Any, classes: Any, ignore_index: Any, terms: Any, like: Any
) -> float:
    """`short_rows` of long rows, of bfloat16 by their bits."""
    logits, labels, grad, count = _views(logits_at, labels_at, grad_at, rows, classes, ignore_index, like)
    if count == 0:
        return -1.0
    scale = 1.0 / count
    loss, weight, typed = np.empty(rows), np.ones(classes), np.ones(classes, np.float32)
    wide_hard_rows_of_bits(
        logits, labels, weight, typed, 1.0, float(classes), 0.0, terms, scale, weight[:0], grad, loss, 0, rows
    )
    return sum_as_numpy(loss) * scale


_LIKE = {"float32": np.empty(0, np.float32), "float64": np.empty(0), "bfloat16": np.empty(0, np.uint16)}

KERNELS = {
    (dtype, is_short): (kernel_of_bits if dtype == "bfloat16" else kernel_of_numbers, like)
    for dtype, like in _LIKE.items()
    for is_short, kernel_of_numbers, kernel_of_bits in (
        (True, mean_of_short_rows, mean_of_short_rows_of_bits),
        (False, mean_of_long_rows, mean_of_long_rows_of_bits),
    )
}
"""The kernel and its last argument, by the logits' dtype and whether rows are as short as `narrow` takes them."""
