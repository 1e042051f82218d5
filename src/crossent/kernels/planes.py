"""Kernel for classes that do not lie together, as in images (N, C, H, W): one plane of positions for each class.

Positions of a plane do lie together, and are taken as `narrow` takes rows: a block of `LANES` at a time, with the
classes outside. Loading a block is then a copy, and nothing is transposed. Any number of classes will do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import helper, kernel, wide_vectors
from .bfloat16 import as_number, as_stored
from .blocks import BLOCK_FIELDS, FACTOR, load_labels, store_loss
from .closed_forms import LANES
from .narrow import hard_block

__all__ = ["planes_hard_rows"]


@helper
def _load(planes: Any, first: Any, last: Any, f: Any, x: Any) -> None:
    """Copy positions into the block; those that do not count, or do not exist, become zeros."""
    wide_vectors()
    zero = x.dtype.type(0)
    counts = f[FACTOR * LANES : (FACTOR + 1) * LANES]
    for k in range(len(planes)):
        z = planes[k, first:last]
        out = x[k * LANES : k * LANES + len(z)]
        for i in range(len(z)):
            value = as_number(z[i])
            out[i] = value if counts[i] != 0.0 else zero
        for i in range(k * LANES + len(z), (k + 1) * LANES):
            x[i] = zero


@helper
def _store(x: Any, first: Any, last: Any, planes: Any) -> None:
    wide_vectors()
    for k in range(len(planes)):
        g = planes[k, first:last]
        e = x[k * LANES : k * LANES + len(g)]
        for i in range(len(g)):
            g[i] = as_stored(e[i], g[i])


@kernel
def planes_hard_rows(
    logits: Any,
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
    """What `wide.hard_rows` computes, for logits and gradient (N, C, P): row n P + p is position p of sample n.

    Logits and gradient may be bits of bfloat16 numbers.
    """
    classes, positions = logits.shape[1], logits.shape[2]
    x = np.empty(classes * LANES, typed_weight.dtype)
    m = np.empty(LANES, x.dtype)
    a = np.empty(LANES, x.dtype)
    b = np.empty(LANES, x.dtype)
    y = np.empty(LANES, np.int64)
    f = np.zeros(BLOCK_FIELDS * LANES)
    share = smoothing / classes
    first = start
    while first < stop:
        sample = first // positions
        origin = sample * positions
        last = min(first + LANES, stop, origin + positions)
        factors = row_weight[first:last] if len(row_weight) > 0 else row_weight
        load_labels(labels[first:last], weight, weight_sum, smoothing, share, factors, y, f)
        _load(logits[sample], first - origin, last - origin, f, x)
        hard_block(
            x, m, a, b, y, weight, typed_weight, weight_unit, weight_sum, smoothing, terms, scale, len(grad) > 0, f
        )
        store_loss(f, loss[first:last])
        if len(grad) > 0:
            _store(x, first - origin, last - origin, grad[sample])
        first = last
