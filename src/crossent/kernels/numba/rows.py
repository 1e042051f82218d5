"""Long rows, one at a time: maximum, exponentials, sums and gradient, in pieces that stay in the first-level cache.

Every function takes contiguous slices and loops over ``range(len(...))``: an index with an unknown lower bound costs
Numba's check for negative indices in every step and with it the vector code. Functions work in place on one array where
they can, because LLVM cannot vectorise a loop whose input and output may overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .bits import as_number, copy_row, maximum_of_bits
from .compile import COMPILED, OWNING, helper, inlined, wide_vectors
from .exp import add_in_any_order, below_one, exp_difference, maximum, multiply_add, overload, pairwise_sum
from .statistics import AGAINST, ALONG, MOST_FLOAT, TAIL, element, simple_slopes, slopes_at
from .sums import CHUNK, add_two_sum

__all__ = [
    "count_ones",
    "fill_row",
    "full_row_gradient",
    "place_of",
    "row_exponentials",
    "row_gradient",
    "row_maxima",
    "row_maximum",
    "tail_of",
]


@helper
def _maximum_of_numbers(z: Any) -> Any:
    wide_vectors()
    m = z[0]
    for i in range(len(z)):
        m = maximum(m, z[i])
    return m


def row_maximum(z: Any) -> Any:
    """The maximum of numbers or of bfloat16's bits; NaN where the row holds one."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(row_maximum, jit_options=COMPILED)
def _typed_maximum(z: Any) -> Any:
    return maximum_of_bits if z.dtype == types.uint16 else _maximum_of_numbers


@helper
def fill_row(x: Any, value: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] = value


@helper
def _exp_in_place(x: Any, m: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] = exp_difference(x[i], m)


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


@overload(tail_of, jit_options=COMPILED)
def _typed_tail(e: Any, one: Any, work: Any) -> Any:
    return _tail_of_floats if e.dtype == types.float32 else _tail_of_doubles


def row_exponentials(z: Any, x: Any, m: Any, work: Any, f: Any) -> Any:
    """Write ``e^(z - m)`` into ``x``, which may be ``z`` itself, and keep their sum without the maximum's own 1.

    Summing the tail apart keeps ``log1p(tail)`` and ``1 - p`` exact for a confident row: ones are counted, the rest is
    added up, and one is taken off the count.
    """
    one = x.dtype.type(1)
    ones, tail, lost = 0.0, 0.0, 0.0
    for start in range(0, len(x), CHUNK):
        piece = x[start : start + CHUNK]
        copy_row(z[start : start + CHUNK], piece)
        _exp_in_place(piece, m[0])
        tail, lost = add_two_sum(tail, lost, tail_of(piece, one, work))
        ones += count_ones(piece, one)
    f[TAIL] = (ones - 1.0) + (tail + lost)


def row_maxima(x: Any, m: Any, work: Any) -> Any:
    m[0] = row_maximum(x)


def place_of(grad: Any, i: Any, buffer: Any, full: Any) -> Any:
    """Where the exponentials of row i go: into the gradient's row, or a buffer where these would be read or rounded."""
    raise NotImplementedError("runs only inside compiled code")


@overload(place_of, jit_options=OWNING)
def _typed_place(grad, i, buffer, full):
    if grad.dtype == types.uint16 or not isinstance(full, types.NoneType):
        return lambda grad, i, buffer, full: buffer
    return lambda grad, i, buffer, full: grad[i] if len(grad) > 0 else buffer


@helper
def _scale(x: Any, a: Any) -> None:
    wide_vectors()
    for i in range(len(x)):
        x[i] *= a


@helper
def _scale_minus(x: Any, a: Any, b: Any, w: Any) -> None:
    """``x <- a x - b w``."""
    wide_vectors()
    for i in range(len(x)):
        x[i] = multiply_add(x[i], a, -(b * w[i]))


@helper
def full_row_gradient(
    z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any
) -> Any:
    """The gradient of any loss in place of the exponentials, in double precision."""
    number = e.dtype.type
    d = slopes_at(0, 1, s, f)
    for i in range(len(e)):
        goal = 0.0 if t is None else np.float64(t[i])
        e[i] = number(element(np.float64(as_number(z[i])), np.float64(e[i]), goal, weight[i], s, d))


@helper
def _scale_minus_in_double(x: Any, t: Any, weight: Any, s: Any, f: Any) -> None:
    """``x <- A x - B w t'`` for factors that float32 does not hold, or a target that it would round."""
    number = x.dtype.type
    a, b = f[ALONG], f[AGAINST]
    for i in range(len(x)):
        goal = 0.0 if t is None else np.float64(t[i])
        x[i] = number(a * np.float64(x[i]) - b * (weight[i] * (s.kept * goal + s.share)))


@inlined
def row_gradient(z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any) -> Any:
    """``A e - B w t'`` in place of the exponentials; the label's own element is written later."""
    number = e.dtype.type
    is_held = simple_slopes(s, MOST_FLOAT if e.itemsize == 4 else np.inf, work, f)
    a, b = f[ALONG], f[AGAINST]
    if not is_held:
        _scale_minus_in_double(e, t, weight, s, f)
    elif t is not None:
        if s.is_plain:
            _scale_minus(e, number(a), number(b), t)
        else:
            _scale_minus_in_double(e, t, weight, s, f)
    elif s.smoothing > 0.0:
        _scale_minus(e, number(a), number(b * s.share * s.unit), typed)
    else:
        _scale(e, number(a))
