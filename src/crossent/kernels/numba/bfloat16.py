"""bfloat16 as the upper half of a float32's bits: widened where a kernel computes, rounded once after it.

Hard labels, the case that training loops live in, are computed from the bits. A long row's exponentials stay in a
thread's own cache, in float32, until they are multiplied and rounded; short rows are widened a few at a time. Of other
targets the kernels of float32 get blocks that are widened first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .closed_forms import LANES, LOSS, row_terms
from .compile import helper, intrinsic, kernel, wide_vectors
from .exp import INLINED, exp_difference, multiply_add, overload
from .narrow import narrow_hard_rows
from .rows import (
    CHUNK,
    MOST_FLOAT,
    add_two_sum,
    count_ones,
    fill_row,
    scale_row_in_double,
    tail_of,
    weighted_gap,
)
from .wide import ROW_FIELDS, hard_slopes, hard_statistics

__all__ = [
    "as_number",
    "as_stored",
    "exp_tail_into",
    "maximum_of_bits",
    "narrow_rows",
    "short_hard_rows_of_bits",
    "wide_hard_rows_of_bits",
    "widen_rows",
]

STAGE = 1 << 14  # numbers that are widened at a time: 64 KiB

_I16, _I32 = ir.IntType(16), ir.IntType(32)


@intrinsic
def widened(typingctx: Any, bits: Any) -> Any:
    """The float32 of a bfloat16's bits."""
    if bits != types.uint16:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        upper = builder.shl(builder.zext(arguments[0], _I32), ir.Constant(_I32, 16))
        return builder.bitcast(upper, ir.FloatType())

    return types.float32(bits), generate


def _round(builder: Any, value: Any) -> tuple[Any, Any]:
    """The bits of a float32, and those of the nearest bfloat16, ties to even, if it is not NaN."""
    x = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(x, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
    up = builder.add(builder.add(x, ir.Constant(_I32, 0x7FFF)), odd)
    return x, builder.lshr(up, ir.Constant(_I32, 16))


@intrinsic
def rounded_number(typingctx: Any, value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32 that is not NaN."""
    if value != types.float32:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.trunc(_round(builder, arguments[0])[1], _I16)

    return types.uint16(value), generate


@intrinsic
def rounded(typingctx: Any, value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32; a NaN keeps its sign and stays one."""
    if value != types.float32:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, nearest = _round(builder, arguments[0])
        quiet = builder.or_(builder.lshr(x, ir.Constant(_I32, 16)), ir.Constant(_I32, 0x40))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, quiet, nearest), _I16)

    return types.uint16(value), generate


def as_number(x: Any) -> Any:
    """A number, or the float32 that bfloat16's bits stand for."""
    raise NotImplementedError("runs only inside compiled code")


def as_stored(x: Any, like: Any) -> Any:
    """A number of the kind of `like`, or as bfloat16's bits of the float32 that it rounds to."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(as_number, jit_options=INLINED)
def _typed_number(x):
    return (lambda x: widened(x)) if x == types.uint16 else (lambda x: x)


@overload(as_stored, jit_options=INLINED)
def _typed_store(x, like):
    if like == types.uint16:
        return lambda x, like: rounded(np.float32(x))
    if like == types.float32:
        return lambda x, like: np.float32(x)
    return lambda x, like: x


def _turn(builder: Any, value: Any) -> Any:
    """All bits but the sign turned where that is set: it exchanges bits and the order of the numbers they stand for."""
    sign = builder.ashr(value, ir.Constant(_I16, 15))
    return builder.xor(value, builder.and_(sign, ir.Constant(_I16, 0x7FFF)))


@intrinsic
def _larger(typingctx: Any, place: Any, bits: Any) -> Any:
    """The larger of a place in the order of all numbers and that of a number by its bits."""
    if place != types.int16 or bits != types.uint16:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, other = arguments[0], _turn(builder, arguments[1])
        return builder.select(builder.icmp_signed(">", place, other), place, other)

    return place(place, bits), generate


@intrinsic
def _number_at(typingctx: Any, place: Any) -> Any:
    """The bits of the number at a place in the order."""
    if place != types.int16:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _turn(builder, arguments[0])

    return types.uint16(place), generate


_LOWEST = np.int16(-(2**15))
_NAN = np.uint16(0x7FC0)


@helper
def maximum_of_bits(bits: Any) -> Any:
    """The maximum; NaN where the row holds a positive one, whose place is above infinity's."""
    wide_vectors()
    place = _LOWEST
    for i in range(len(bits)):
        place = _larger(place, bits[i])
    return widened(_number_at(place))


@helper
def _widen(bits: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = widened(bits[i])


@helper
def _narrow(values: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = rounded(values[i])


@helper
def _exp(z: Any, out: Any, m: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = exp_difference(as_number(z[i]), m)


@helper
def exp_tail_into(z: Any, x: Any, m: Any, work: Any) -> Any:
    """`rows.exp_tail` of float32 numbers or of bits, which are kept: the exponentials go to ``x``."""
    one = np.float32(1)
    ones = 0.0
    tail, lost = 0.0, 0.0
    for start in range(0, len(x), CHUNK):
        stop = min(start + CHUNK, len(x))
        piece = x[start:stop]
        _exp(z[start:stop], piece, m)
        tail, lost = add_two_sum(tail, lost, tail_of(piece, one, work))
        ones += count_ones(piece, one)
    return (ones - 1.0) + (tail + lost)


@helper
def _round_scaled(x: Any, a: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = rounded_number(x[i] * a)


@helper
def _round_scaled_minus(x: Any, a: Any, b: Any, w: Any, out: Any) -> None:
    wide_vectors()
    for i in range(len(out)):
        out[i] = rounded_number(multiply_add(x[i], a, -(b * w[i])))


@kernel
def widen_rows(bits: Any, out: Any, start: Any, stop: Any) -> None:
    """float32 numbers from the bits of bfloat16 numbers in uint16."""
    _widen(bits[start:stop].reshape(-1), out[start:stop].reshape(-1))


@kernel
def narrow_rows(values: Any, out: Any, start: Any, stop: Any) -> None:
    """The bits of bfloat16 numbers from those of float32 numbers."""
    _narrow(values[start:stop].reshape(-1), out[start:stop].reshape(-1))


@kernel
def wide_hard_rows_of_bits(
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
    """What `wide.hard_rows` computes."""
    classes = bits.shape[1]
    with_grad = grad.shape[0] > 0
    f = np.empty(ROW_FIELDS)
    work = np.empty(CHUNK)
    x = np.empty(classes, np.float32)
    share = smoothing / classes
    kept = 1.0 - smoothing
    for i in range(start, stop):
        z = bits[i]
        y = labels[i]
        factor = scale * (row_weight[i] if len(row_weight) > 0 else 1.0)
        wy = weight[y] if y >= 0 else 0.0
        mass = kept * wy + share * weight_sum
        if y < 0 or mass == 0.0 or (len(row_weight) > 0 and row_weight[i] == 0.0):
            loss[i] = 0.0
            if with_grad:
                fill_row(grad[i], np.uint16(0))
            continue

        m = maximum_of_bits(z)
        gap = 0.0
        if smoothing > 0.0:
            _widen(z, x)
            gap = weighted_gap(x, m, weight, work)
        zy = widened(z[y])
        ey = np.float64(exp_difference(zy, m))
        tail = exp_tail_into(z, x, m, work)
        hard_statistics(
            np.float64(m), np.float64(zy), ey, zy == m, tail, gap, wy, mass, weight_sum, smoothing, share, f
        )
        row_terms(f, terms)
        loss[i] = f[LOSS]

        if with_grad:
            g = grad[i]
            a, b, own = hard_slopes(factor, ey, 1.0 + tail, wy, weight_sum, kept, share, f)
            if a != a:
                fill_row(g, _NAN)
            elif abs(a) > MOST_FLOAT or abs(b * weight_unit) > MOST_FLOAT:
                scale_row_in_double(x, a, b, weight)
                _narrow(x, g)
            elif smoothing > 0.0:
                _round_scaled_minus(x, np.float32(a), np.float32(b * weight_unit), typed_weight, g)
            else:
                _round_scaled(x, np.float32(a), g)
            g[y] = rounded(np.float32(own))


@kernel
def short_hard_rows_of_bits(
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
    """What `narrow.narrow_hard_rows` computes, some blocks of rows at a time."""
    classes = bits.shape[1]
    step = max(STAGE // (LANES * classes), 1) * LANES
    values = np.empty((step, classes), np.float32)
    with_grad = grad.shape[0] > 0
    out = values if with_grad else np.empty((0, 0), np.float32)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        factors = row_weight[first:last] if len(row_weight) > 0 else row_weight
        _widen(bits[first:last].reshape(-1), values[: last - first].reshape(-1))
        narrow_hard_rows(
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
            _narrow(values[: last - first].reshape(-1), grad[first:last].reshape(-1))
