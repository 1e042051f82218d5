"""Kernel for classes that do not lie together, as in images (N, C, H, W): one plane of positions for each class.

Positions of a plane do lie together, and are taken as `narrow` takes rows: a block of `LANES` at a time, with the
classes outside. Loading a block is then a copy, and nothing is transposed; some blocks are loaded together, as a plane
is read the faster the more of it is read at once. Any number of classes will do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bfloat16 import as_number, as_stored
from .blocks import BLOCK_FIELDS, FACTOR, load_labels, store_loss
from .closed_forms import LANES
from .compile import helper, kernel, wide_vectors
from .hard_blocks import hard_block

__all__ = ["planes_hard_rows"]


STAGE = 1 << 15  # numbers that are loaded at a time, where that makes more than one block: 128 KiB
MOST_BLOCKS = 8


@helper
def _load(planes: Any, first: Any, last: Any, x: Any) -> None:
    """Copy positions into blocks; what is left of the last becomes zeros."""
    wide_vectors()
    zero = x.dtype.type(0)
    for k in range(len(planes)):
        plane = planes[k, first:last]
        for j in range(-(-len(plane) // LANES)):
            z = plane[j * LANES : (j + 1) * LANES]
            out = x[j, k * LANES : (k + 1) * LANES]
            for i in range(len(z)):
                out[i] = as_number(z[i])
            for i in range(len(z), LANES):
                out[i] = zero


@helper
def _store(x: Any, first: Any, last: Any, planes: Any) -> None:
    wide_vectors()
    for k in range(len(planes)):
        plane = planes[k, first:last]
        for j in range(-(-len(plane) // LANES)):
            g = plane[j * LANES : (j + 1) * LANES]
            e = x[j, k * LANES : (k + 1) * LANES]
            for i in range(len(g)):
                g[i] = as_stored(e[i], g[i])


@helper
def _silence(x: Any, f: Any) -> None:
    """Positions that do not count become zeros."""
    wide_vectors()
    counts = f[FACTOR * LANES : (FACTOR + 1) * LANES]
    count = 0
    for i in range(LANES):
        count += counts[i] != 0.0
    if count == LANES:
        return
    zero = x.dtype.type(0)
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            value = z[i]
            z[i] = value if counts[i] != 0.0 else zero


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
    with_grad = grad.shape[0] > 0
    blocks = min(max(STAGE // (classes * LANES), 1), MOST_BLOCKS)
    x = np.empty((blocks, classes * LANES), typed_weight.dtype)
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
        last = min(first + blocks * LANES, stop, origin + positions)
        _load(logits[sample], first - origin, last - origin, x)
        for j in range(-(-(last - first) // LANES)):
            here = first + j * LANES
            end = min(here + LANES, last)
            factors = row_weight[here:end] if len(row_weight) > 0 else row_weight
            load_labels(labels[here:end], weight, weight_sum, smoothing, share, factors, y, f)
            _silence(x[j], f)
            hard_block(
                x[j], m, a, b, y, weight, typed_weight, weight_unit, weight_sum, smoothing, terms, scale, with_grad, f
            )
            store_loss(f, loss[here:end])
        if with_grad:
            _store(x, first - origin, last - origin, grad[sample])
        first = last
