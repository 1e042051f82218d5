"""Blocks of `LANES` short rows, with the classes outside and the rows inside: every loop runs across rows.

It becomes vector code whatever the number of classes. A row that does not count is computed as a row of zeros.
Positions of classes that do not lie together, as in images (N, C, H, W), are taken in the same way: those of a plane do
lie together, so that nothing is transposed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import as_number, as_stored
from .compile import COMPILED, helper, wide_vectors
from .exp import below_one, exp_difference, larger, multiply_add, overload
from .statistics import (
    AGAINST,
    ALONG,
    FACTOR,
    MOST_FLOAT,
    ONES,
    TAIL,
    TAIL_LOW,
    element,
    simple_slopes,
    slopes_at,
)
from .sums import add_to
from .terms import LANES, LOSS

__all__ = [
    "block_exponentials",
    "block_gradient",
    "block_maxima",
    "end_of_block",
    "full_block_gradient",
    "load",
    "store",
    "store_loss",
]


def _end_of_rows(array: Any, first: Any, stop: Any) -> Any:
    end = first + LANES
    return end if end < stop else stop


def _end_of_positions(array: Any, first: Any, stop: Any) -> Any:
    positions = array.shape[2]
    return min(first + LANES, stop, (first // positions + 1) * positions)


def end_of_block(array: Any, first: Any, stop: Any) -> Any:
    """Where a block ends that begins with row `first`: rows of one sample, if there are samples."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(end_of_block, jit_options=COMPILED)
def _typed_end(array: Any, first: Any, stop: Any) -> Any:
    return _end_of_rows if array.ndim == 2 else _end_of_positions


@helper
def _load_rows(array: Any, first: Any, last: Any, counts: Any, x: Any) -> Any:
    rows = array[first:last]
    lanes, classes = rows.shape
    for i in range(LANES):
        if i < lanes and counts[i] != 0.0:
            z = rows[i]
            for k in range(classes):
                x[k * LANES + i] = as_number(z[k])
        else:
            for k in range(classes):
                x[k * LANES + i] = 0


@helper
def _load_planes(array: Any, first: Any, last: Any, counts: Any, x: Any) -> Any:
    wide_vectors()
    zero = x.dtype.type(0)
    sample, start = divmod(first, array.shape[2])
    planes, lanes = array[sample], last - first
    stop = start + lanes
    for k in range(len(planes)):
        z = planes[k, start:stop]
        out = x[k * LANES : (k + 1) * LANES]
        for i in range(len(z)):
            out[i] = as_number(z[i])
        for i in range(lanes, LANES):
            out[i] = zero
    silent = 0
    for i in range(lanes):
        silent += counts[i] == 0.0
    if silent > 0:
        for k in range(len(planes)):
            out = x[k * LANES : (k + 1) * LANES]
            for i in range(LANES):
                value = out[i]
                out[i] = value if counts[i] != 0.0 else zero


def load(array: Any, first: Any, last: Any, counts: Any, x: Any) -> Any:
    """Copy rows into a block; those that do not count, or do not exist, become zeros."""
    raise NotImplementedError("runs only inside compiled code")


@overload(load, jit_options=COMPILED)
def _typed_load(array: Any, first: Any, last: Any, counts: Any, x: Any) -> Any:
    return _load_rows if array.ndim == 2 else _load_planes


@helper
def _store_rows(x: Any, array: Any, first: Any, last: Any) -> Any:
    rows = array[first:last]
    lanes, classes = rows.shape
    for i in range(lanes):
        g = rows[i]
        for k in range(classes):
            g[k] = as_stored(x[k * LANES + i], g[k])


@helper
def _store_planes(x: Any, array: Any, first: Any, last: Any) -> Any:
    wide_vectors()
    sample, start = divmod(first, array.shape[2])
    planes, stop = array[sample], start + last - first
    for k in range(len(planes)):
        g = planes[k, start:stop]
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(len(g)):
            g[i] = as_stored(e[i], g[i])


def store(x: Any, array: Any, first: Any, last: Any) -> Any:
    """Copy rows out of a block."""
    raise NotImplementedError("runs only inside compiled code")


@overload(store, jit_options=COMPILED)
def _typed_store(x: Any, array: Any, first: Any, last: Any) -> Any:
    return _store_rows if array.ndim == 2 else _store_planes


@helper
def store_loss(f: Any, loss: Any) -> None:
    for i in range(len(loss)):
        loss[i] = f[LOSS * LANES + i] if f[FACTOR * LANES + i] != 0.0 else 0.0


@helper
def block_maxima(x: Any, m: Any) -> None:
    """The maxima; of a row that holds a NaN any number will do, as its exponentials hold one too."""
    wide_vectors()
    for i in range(LANES):
        m[i] = x[i]
    for start in range(LANES, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            m[i] = larger(z[i], m[i])


@helper
def _exp(x: Any, m: Any) -> None:
    wide_vectors()
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            z[i] = exp_difference(z[i], m[i])


@helper
def block_exponentials(x: Any, m: Any, f: Any) -> None:
    """``e^(z - m)`` in place of the logits in `x`, and their sums without the maximum's own 1."""
    wide_vectors()
    _exp(x, m)
    for i in range(LANES):
        f[ONES * LANES + i] = -1.0
        f[TAIL * LANES + i] = 0.0
        f[TAIL_LOW * LANES + i] = 0.0
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        for i in range(LANES):
            v = np.float64(e[i])
            add_to(f, TAIL, i, below_one(v), x)
            f[ONES * LANES + i] += 1.0 if v == 1.0 else 0.0
    for i in range(LANES):
        f[TAIL * LANES + i] = f[ONES * LANES + i] + (f[TAIL * LANES + i] + f[TAIL_LOW * LANES + i])


@helper
def _scale(x: Any, a: Any) -> None:
    wide_vectors()
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        for i in range(LANES):
            e[i] *= a[i]


@helper
def _scale_minus_weights(x: Any, a: Any, b: Any, w: Any) -> None:
    wide_vectors()
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            e[i] = multiply_add(e[i], a[i], -(b[i] * w[k]))


@helper
def _scale_minus_targets(x: Any, a: Any, b: Any, t: Any) -> None:
    wide_vectors()
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            e[i] = multiply_add(e[i], a[i], -(b[i] * target[i]))


@helper
def full_block_gradient(
    z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any
) -> Any:
    """The gradient of any loss in place of the exponentials, in double precision."""
    number = e.dtype.type
    for k in range(len(weight)):
        here, end = k * LANES, (k + 1) * LANES
        logits, powers, w = z[here:end], e[here:end], weight[k]
        target = powers if t is None else t[here:end]
        for i in range(LANES):
            d = slopes_at(i, LANES, s, f)
            goal = 0.0 if t is None else np.float64(target[i])
            powers[i] = number(element(np.float64(logits[i]), np.float64(powers[i]), goal, w, s, d))


@helper
def _scale_minus_in_double(x: Any, t: Any, weight: Any, s: Any, f: Any) -> None:
    """``x <- A x - B w t'`` for factors that float32 does not hold, or a target that it would round."""
    number = x.dtype.type
    for k in range(len(weight)):
        here, end = k * LANES, (k + 1) * LANES
        e, w = x[here:end], weight[k]
        target = e if t is None else t[here:end]
        for i in range(LANES):
            goal = 0.0 if t is None else np.float64(target[i])
            against = f[AGAINST * LANES + i] * (w * (s.kept * goal + s.share))
            e[i] = number(f[ALONG * LANES + i] * np.float64(e[i]) - against)


@helper
def block_gradient(
    z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any
) -> Any:
    """``A e - B w t'`` in place of the exponentials; the labels' own elements are written later."""
    is_held = simple_slopes(s, MOST_FLOAT if e.itemsize == 4 else np.inf, work, f)
    a, b = m[LANES : 2 * LANES], m[2 * LANES : 3 * LANES]
    unit = s.share * s.unit if t is None else 1.0
    for i in range(LANES):
        a[i] = f[ALONG * LANES + i]
        b[i] = f[AGAINST * LANES + i] * unit
    if not is_held:
        _scale_minus_in_double(e, t, weight, s, f)
    elif t is not None:
        if s.is_plain:
            _scale_minus_targets(e, a, b, t)
        else:
            _scale_minus_in_double(e, t, weight, s, f)
    elif s.smoothing > 0.0:
        _scale_minus_weights(e, a, b, typed)
    else:
        _scale(e, a)
