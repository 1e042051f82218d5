"""bfloat16 as the upper half of a float32's bits: widened where a kernel loads a number, rounded where it stores one.

Every kernel computes from bits through `as_number` and `as_stored`, which leave other numbers as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .compile import helper, intrinsic, kernel, wide_vectors

__all__ = ["as_number", "as_stored", "copy_row", "copy_rows", "maximum_of_bits"]

_I16, _I32 = ir.IntType(16), ir.IntType(32)


@intrinsic
def as_number(typingctx: Any, x: Any) -> Any:
    """A number, or the float32 that bfloat16's bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if x != types.uint16:
            return arguments[0]
        upper = builder.shl(builder.zext(arguments[0], _I32), ir.Constant(_I32, 16))
        return builder.bitcast(upper, ir.FloatType())

    return (types.float32 if x == types.uint16 else x)(x), generate


@intrinsic
def as_stored(typingctx: Any, value: Any, like: Any) -> Any:
    """A float of the kind of `like`, or the bits of the bfloat16 nearest to it; a NaN keeps its sign and stays one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = types.float32 if like == types.uint16 else like
        number = context.cast(builder, arguments[0], value, kind)
        if like != types.uint16:
            return number
        x = builder.bitcast(number, _I32)
        odd = builder.and_(builder.lshr(x, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        up = builder.add(builder.add(x, ir.Constant(_I32, 0x7FFF)), odd)
        nearest = builder.lshr(up, ir.Constant(_I32, 16))  # ties go to even
        quiet = builder.or_(builder.lshr(x, ir.Constant(_I32, 16)), ir.Constant(_I32, 0x40))
        is_nan = builder.fcmp_unordered("uno", number, number)
        return builder.trunc(builder.select(is_nan, quiet, nearest), _I16)

    return like(value, like), generate


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


@helper
def maximum_of_bits(z: Any) -> Any:
    """The maximum; NaN where the row holds a positive one, whose place is above infinity's."""
    wide_vectors()
    place = _LOWEST
    for i in range(len(z)):
        place = _larger(place, z[i])
    return as_number(_number_at(place))


@helper
def copy_row(x: Any, out: Any) -> None:
    """Copy numbers, each as one of the other array's kind."""
    wide_vectors()
    for i in range(len(out)):
        out[i] = as_stored(as_number(x[i]), out[i])


@kernel
def copy_rows(x: Any, out: Any, start: Any, stop: Any) -> None:
    """The same of whole rows."""
    copy_row(x[start:stop].reshape(-1), out[start:stop].reshape(-1))
