"""bfloat16 as the upper half of a float32's bits: widened where a kernel loads a number, rounded where it stores one.

Every kernel computes from bits through `as_number` and `as_stored`, which leave other numbers as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from .compile import INLINED, helper, intrinsic, kernel, wide_vectors
from .exp import overload

__all__ = ["as_number", "as_stored", "maximum_of_bits", "narrow_rows", "widen_rows"]

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


@intrinsic
def rounded(typingctx: Any, value: Any) -> Any:
    """The bits of the bfloat16 nearest to a float32; a NaN keeps its sign and stays one."""
    if value != types.float32:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x = builder.bitcast(arguments[0], _I32)
        odd = builder.and_(builder.lshr(x, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        up = builder.add(builder.add(x, ir.Constant(_I32, 0x7FFF)), odd)
        nearest = builder.lshr(up, ir.Constant(_I32, 16))  # ties go to even
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


@helper
def maximum_of_bits(z: Any) -> Any:
    """The maximum; NaN where the row holds a positive one, whose place is above infinity's."""
    wide_vectors()
    place = _LOWEST
    for i in range(len(z)):
        place = _larger(place, z[i])
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


@kernel
def widen_rows(bits: Any, out: Any, start: Any, stop: Any) -> None:
    """float32 numbers from the bits of bfloat16 numbers in uint16."""
    _widen(bits[start:stop].reshape(-1), out[start:stop].reshape(-1))


@kernel
def narrow_rows(values: Any, out: Any, start: Any, stop: Any) -> None:
    """The bits of bfloat16 numbers from those of float32 numbers."""
    _narrow(values[start:stop].reshape(-1), out[start:stop].reshape(-1))
