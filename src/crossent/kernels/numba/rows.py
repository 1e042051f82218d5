"""One long row at a time: maximum, exponentials, sums and gradient, in pieces that stay in the first-level cache.

Every function takes contiguous slices and loops over ``range(len(...))``: an index with an unknown lower bound costs
Numba's check for negative indices in every step and with it the vector code. Functions work in place on one array where
they can, because LLVM cannot vectorise a loop whose input and output may overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import extending, types

from .compile import helper, inlined, wide_vectors
from .exp import add_in_any_order, below_one, exp_difference, maximum, multiply_add, pairwise_sum

__all__ = [
    "CHUNK",
    "MOST_FLOAT",
    "add_two_sum",
    "copy_row",
    "count_ones",
    "exp_tail",
    "fill_row",
    "row_maximum",
    "scale_row",
    "scale_row_in_double",
    "scale_row_minus",
    "tail_of",
    "weighted_gap",
]

CHUNK = 1024

MOST_FLOAT = 2.0**126
"""Up to this size float32 holds a gradient's factors, their products with numbers below 2, and differences of those."""

overload: Any = extending.overload


@helper
def row_maximum(z: Any) -> Any:
    """The maximum; NaN where the row holds one."""
    wide_vectors()
    m = z[0]
    for i in range(len(z)):
        m = maximum(m, z[i])
    return m


@helper
def copy_row(z: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(z)):
        out[i] = z[i]


@helper
def fill_row(x: Any, value: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] = value


@helper
def exp_in_place(x: Any, m: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] = exp_difference(x[i], m)


@helper
def add_two_sum(high: Any, low: Any, x: Any) -> Any:
    """``(high, low) + x`` where ``low`` gathers the rounding errors (compensated); an infinite sum has none."""
    total = high + x
    shifted = total - high
    error = (high - (total - shifted)) + (x - shifted)
    return total, low + (error if abs(total) < np.inf else 0.0)


@helper
def count_ones(e: Any, one: Any) -> Any:
    wide_vectors()
    # In the operands' own precision (exact below 2^24), so that the vectors stay as wide as they can be.
    count = one - one
    for i in range(len(e)):
        count = add_in_any_order(count, one if e[i] == one else one - one)
    return count


@helper
def _tail_of_floats(e: Any, one: Any, work: Any) -> Any:
    wide_vectors()
    # Doubles have 29 bits to spare here: the order of the sum does not matter.
    total = 0.0
    for i in range(len(e)):
        total = add_in_any_order(total, np.float64(one - one if e[i] == one else e[i]))
    return total


@helper
def _tail_of_doubles(e: Any, one: Any, work: Any) -> Any:
    wide_vectors()
    quarter = len(e) >> 2
    out = work[:quarter]
    e0, e1 = e[:quarter], e[quarter : 2 * quarter]
    e2, e3 = e[2 * quarter : 3 * quarter], e[3 * quarter : 4 * quarter]
    for i in range(len(out)):
        out[i] = (below_one(e0[i]) + below_one(e1[i])) + (below_one(e2[i]) + below_one(e3[i]))
    total = pairwise_sum(out)
    for i in range(4 * quarter, len(e)):
        total += below_one(e[i])
    return total


def tail_of(e: Any, one: Any, work: Any) -> Any:
    """Sum in double precision of the ``e`` below 1 (or NaN)."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(tail_of, jit_options={"error_model": "numpy", "nogil": True})
def _typed_tail(e, one, work):
    if e.dtype == types.float32:
        return lambda e, one, work: _tail_of_floats(e, one, work)
    return lambda e, one, work: _tail_of_doubles(e, one, work)


@helper
def exp_tail(z: Any, x: Any, m: Any, work: Any) -> Any:
    """Write ``e^(z - m)`` into ``x``, which may be ``z`` itself; return their sum without the maximum's own 1.

    Summing the tail apart keeps ``log1p(tail)`` and ``1 - p`` exact for a confident row: ones (the maximum and its
    ties) are counted, the rest is added up, and one is taken off the count.
    """
    one = x.dtype.type(1)
    ones = 0.0
    tail, lost = 0.0, 0.0
    for start in range(0, len(x), CHUNK):
        stop = min(start + CHUNK, len(x))
        piece = x[start:stop]
        copy_row(z[start:stop], piece)
        exp_in_place(piece, m)
        tail, lost = add_two_sum(tail, lost, tail_of(piece, one, work))
        ones += count_ones(piece, one)
    return (ones - 1.0) + (tail + lost)


@helper
def scale_row(x: Any, a: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] *= a


@helper
def scale_row_minus(x: Any, a: Any, b: Any, w: Any) -> None:
    """``x <- a x - b w``."""
    wide_vectors()
    for i in range(len(x)):
        x[i] = multiply_add(x[i], a, -(b * w[i]))


@helper
def scale_row_in_double(x: Any, a: Any, b: Any, w: Any) -> None:
    """``x <- a x - b w`` for factors that float32 does not hold, though it may hold what they amount to."""
    number = x.dtype.type
    for i in range(len(x)):
        x[i] = number(a * np.float64(x[i]) - b * w[i])


@helper
def _gap_of_floats(z: Any, top: Any, w: Any, work: Any) -> Any:
    wide_vectors()
    total = 0.0
    for i in range(len(z)):
        v = w[i] * (top - np.float64(z[i]))
        total = add_in_any_order(total, 0.0 if w[i] == 0.0 else v)
    return total


@inlined
def _weighed(w: Any, gap: Any) -> Any:
    return 0.0 if w == 0.0 else w * gap


@helper
def _gap_of_doubles(z: Any, top: Any, w: Any, work: Any) -> Any:
    wide_vectors()
    quarter = len(z) >> 2
    out = work[:quarter]
    z0, z1 = z[:quarter], z[quarter : 2 * quarter]
    z2, z3 = z[2 * quarter : 3 * quarter], z[3 * quarter : 4 * quarter]
    w0, w1 = w[:quarter], w[quarter : 2 * quarter]
    w2, w3 = w[2 * quarter : 3 * quarter], w[3 * quarter : 4 * quarter]
    for i in range(len(out)):
        first = _weighed(w0[i], top - z0[i]) + _weighed(w1[i], top - z1[i])
        out[i] = first + (_weighed(w2[i], top - z2[i]) + _weighed(w3[i], top - z3[i]))
    total = pairwise_sum(out)
    for i in range(4 * quarter, len(z)):
        total += _weighed(w[i], top - z[i])
    return total


def _gap(z: Any, top: Any, w: Any, work: Any) -> Any:
    """`weighted_gap` of a piece of a row."""
    raise NotImplementedError("runs only inside compiled code")


@overload(_gap, jit_options={"error_model": "numpy", "nogil": True})
def _typed_gap(z, top, w, work):
    if z.dtype == types.float32:
        return lambda z, top, w, work: _gap_of_floats(z, top, w, work)
    return lambda z, top, w, work: _gap_of_doubles(z, top, w, work)


@helper
def weighted_gap(z: Any, m: Any, w: Any, work: Any) -> Any:
    """``sum w_k (m - z_k)``, where a class of weight 0 adds 0 even if it is masked."""
    top = np.float64(m)
    high, low = 0.0, 0.0
    for start in range(0, len(z), CHUNK):
        stop = min(start + CHUNK, len(z))
        high, low = add_two_sum(high, low, _gap(z[start:stop], top, w[start:stop], work))
    return high + low
