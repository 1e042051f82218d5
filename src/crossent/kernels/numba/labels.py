"""Cheap passes over targets: which labels count, what they weigh together and the first that is wrong; or whether
floating ones lie in their range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import as_number
from .compile import helper, kernel, wide_vectors
from .exp import pairwise_sum
from .sums import add_two_sum

__all__ = ["PART", "find_outside", "scan", "weigh"]

_BLOCK = 256

PART = 4096
"""Numbers that `find_outside` looks at together."""


@kernel
def scan(labels: Any, num_classes: Any, ignore_index: Any, out: Any) -> tuple[int, int]:
    """``(first bad row or -1, rows that count)``; `out` is filled with the labels, -1 where they are ignored."""
    count = 0
    for i in range(len(labels)):
        y = labels[i]
        if y == ignore_index:
            out[i] = -1
        elif y < 0 or y >= num_classes:
            return i, count
        else:
            out[i] = y
            count += 1
    return -1, count


@kernel
def weigh(labels: Any, weight: Any, row_weight: Any) -> Any:
    """The summed weight of the rows whose label is not negative; empty weights stand for none."""
    work = np.empty(_BLOCK)
    high, low = 0.0, 0.0
    for start in range(0, len(labels), _BLOCK):
        part = labels[start : start + _BLOCK]
        for i in range(len(part)):
            y = part[i]
            w = (weight[y] if len(weight) > 0 else 1.0) if y >= 0 else 0.0
            if len(row_weight) > 0 and y >= 0:
                w *= row_weight[start + i]
            work[i] = w
        high, low = add_two_sum(high, low, pairwise_sum(work[: len(part)]))
    return high + low


@helper
def _count_outside(values: Any, greatest: Any) -> Any:
    wide_vectors()
    outside = 0
    for i in range(len(values)):
        v = as_number(values[i])
        outside += 0 if (v >= 0.0) & (v <= greatest) else 1
    return outside


@kernel
def find_outside(values: Any, greatest: Any, outside: Any, start: Any, stop: Any) -> None:
    """Whether each of the parts ``start:stop`` holds a number that is not in ``0..greatest``, NaN included."""
    for part in range(start, stop):
        outside[part] = _count_outside(values[part * PART : min((part + 1) * PART, len(values))], greatest) > 0
