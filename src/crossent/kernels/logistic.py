"""Kernel for the logistic loss of a linear model with one logit: both products of a pass, while the rows are near.

Two matrix products read a block of rows twice, from memory or the outer cache. Here `LANES` rows are multiplied by the
weights, their losses taken (the arithmetic of `binary`), and the rows added up before they have left the inner caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numba.binary import (
    BLOCK_FIELDS,
    FACTOR,
    GRADIENT,
    LOGIT,
    TARGET,
    W0,
    W1,
    cross_entropy_of_doubles,
    cross_entropy_of_floats,
    load_entries,
)
from .numba.compile import kernel, wide_vectors
from .numba.exp import add_in_any_order
from .numba.terms import LANES, LOSS

__all__ = ["logistic_rows"]

RUN = 16 * LANES
"""So many rows are added up in the columns' precision, and these sums in double."""


@kernel
def logistic_rows(
    columns: Any,
    weight: Any,
    bias: Any,
    given: Any,
    class_weight: Any,
    smoothing: Any,
    row_weight: Any,
    negligible: Any,
    total: Any,
) -> Any:
    """Add ``Σ_i g_i (x_i, 1)`` to `total`, D + 1 doubles, and return ``Σ_i c_i ℓ_i``; ``|g_i| < negligible`` is 0."""
    wide_vectors()
    features = columns.shape[1]
    number = columns.dtype.type
    f = np.zeros(BLOCK_FIELDS * LANES)
    f[W0 * LANES : (W0 + 1) * LANES] = class_weight[0]
    f[W1 * LANES : (W1 + 1) * LANES] = class_weight[1]
    part = np.zeros(features, columns.dtype)
    value = 0.0
    for first in range(0, len(columns), LANES):
        last = min(first + LANES, len(columns))
        for i in range(last - first):
            row = columns[first + i]
            logit = number(0.0)
            for j in range(features):
                logit = add_in_any_order(logit, row[j] * weight[j])
            f[LOGIT * LANES + i] = logit + bias
        load_entries(given[first:last], f, TARGET)
        load_entries(row_weight[first:last], f, FACTOR)
        if columns.itemsize < 8:
            cross_entropy_of_floats(f, 1.0 - smoothing, 0.5 * smoothing, 1.0, 1.0)
        else:
            cross_entropy_of_doubles(f, 1.0 - smoothing, 0.5 * smoothing, 1.0, 1.0)
        for i in range(last - first):
            value += row_weight[first + i] * f[LOSS * LANES + i]
            slope = f[GRADIENT * LANES + i]
            if abs(slope) < negligible:
                continue
            total[features] += slope
            row = columns[first + i]
            factor = number(slope)
            for j in range(features):
                part[j] += factor * row[j]
        if last % RUN == 0 or last == len(columns):
            for j in range(features):
                total[j] += np.float64(part[j])
                part[j] = 0
    return value
