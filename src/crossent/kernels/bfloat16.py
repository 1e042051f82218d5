"""bfloat16 as the upper half of a float32's bits: widened before a kernel computes, rounded once after it.

Hard labels, the case that training loops live in, are computed a few rows at a time between the two, in a thread's own
cache; other targets have their blocks widened first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import helper, kernel, wide_vectors
from .closed_forms import LANES
from .narrow import narrow_hard_rows
from .wide import hard_rows

__all__ = ["narrow_rows", "short_hard_rows", "wide_hard_rows", "widen_rows"]

STAGE = 1 << 15  # numbers that are widened at a time: 128 KiB


@helper
def _widen(bits: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


@helper
def _narrow(bits: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        x = bits[i]
        # To nearest, ties to even; a NaN keeps its sign and stays one.
        rounded = (x + np.uint32(0x7FFF) + ((x >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        is_nan = (x & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        out[i] = np.uint16(((x >> np.uint32(16)) | np.uint32(0x40)) if is_nan else rounded)


@kernel
def widen_rows(bits: Any, out: Any, start: Any, stop: Any) -> None:
    """float32 numbers, as their bits in uint32, from those of bfloat16 numbers in uint16."""
    for i in range(start, stop):
        _widen(bits[i], out[i])


@kernel
def narrow_rows(bits: Any, out: Any, start: Any, stop: Any) -> None:
    """The bits of bfloat16 numbers from those of float32 numbers."""
    for i in range(start, stop):
        _narrow(bits[i], out[i])


def _staged(compute: Any, multiple: int, name: str) -> Any:
    """The kernel `compute` on bits: rows are taken `multiple` at a time."""

    def rows(
        bits: Any,
        labels: Any,
        weight: Any,
        typed_weight: Any,
        weight_unit: Any,
        weight_sum: Any,
        smoothing: Any,
        terms: Any,
        scale: Any,
        row_weight: Any,
        grad: Any,
        loss: Any,
        start: Any,
        stop: Any,
    ) -> None:
        classes = bits.shape[1]
        step = max(STAGE // (multiple * classes), 1) * multiple
        values = np.empty((step, classes), np.float32)
        value_bits = values.view(np.uint32)
        with_grad = grad.shape[0] > 0
        out = values if with_grad else np.empty((0, 0), np.float32)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            factors = row_weight[first:last] if len(row_weight) > 0 else row_weight
            for i in range(last - first):
                _widen(bits[first + i], value_bits[i])
            compute(
                values,
                labels[first:last],
                weight,
                typed_weight,
                weight_unit,
                weight_sum,
                smoothing,
                terms,
                scale,
                factors,
                out,
                loss[first:last],
                0,
                last - first,
            )
            if with_grad:
                for i in range(last - first):
                    _narrow(value_bits[i], grad[first + i])

    rows.__name__ = rows.__qualname__ = name  # machine code is kept under it
    return kernel(rows)


wide_hard_rows = _staged(hard_rows, 1, "wide_hard_rows_of_bits")
short_hard_rows = _staged(narrow_hard_rows, LANES, "short_hard_rows_of_bits")
