"""Elementary functions for the Numba kernels: ``exp`` of a difference, ``log1p``, ``max``, integer powers.

All of them are written without branches, so that LLVM turns a loop over them into vector code, and in the operand's own
precision.

``exp(z - m)``. Rounding ``d = z - m`` once costs ``|d|/2`` ulp in ``e^d``. So the rounding error of the subtraction is
computed exactly (Knuth's two-sum) and added to the reduced argument::

    d + err = z - m          exactly
    n = round(d / ln 2)      by adding and subtracting 1.5 * 2^(mantissa bits - 1)
    r = (d - n ln 2) + err   ln 2 in two parts, the first with enough trailing zeros for n * part to be exact
    e^(d + err) = 2^n e^r    e^r = 1 + r + r^2 q(r), q the minimax polynomial (relative error) on |r| <= ln(2)/2

The largest error is below 1 ulp. Results below the smallest normal number become 0, and so do differences of -inf;
a NaN, or inf - inf, gives NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

from .compile import INLINED, helper, inlined

__all__ = [
    "add_in_any_order",
    "below_one",
    "difference",
    "exp_difference",
    "exp_for_float",
    "exp_sum",
    "fused_multiply_add",
    "integer_power",
    "larger",
    "log1p",
    "log1p_pair",
    "logistic_for_float",
    "maximum",
    "multiply_add",
    "overload",
    "pairwise_sum",
]

# Numba's own annotations do not know that an intrinsic is called without its typing context.
intrinsic: Any = extending.intrinsic
overload: Any = extending.overload


def _llvm_function(builder: Any, name: str, type_: Any, arguments: int) -> Any:
    return builder.module.declare_intrinsic(name, [type_], ir.FunctionType(type_, [type_] * arguments))


@intrinsic
def multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once where the processor can (``llvm.fmuladd``), twice elsewhere."""
    if not (isinstance(a, types.Float) and a == b == c):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_llvm_function(builder, "llvm.fmuladd", arguments[0].type, 3), arguments)

    return a(a, b, c), generate


@intrinsic
def fused_multiply_add(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, rounded once on every processor (slow where it must be emulated)."""
    if not (isinstance(a, types.Float) and a == b == c):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_llvm_function(builder, "llvm.fma", arguments[0].type, 3), arguments)

    return a(a, b, c), generate


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers, NaN if one of them is (``llvm.maximum``: a reduction that LLVM vectorises).

    The sign of a zero is left open.
    """
    if not (isinstance(a, types.Float) and a == b):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = _llvm_function(builder, "llvm.maximum", arguments[0].type, 2)
        return builder.call(function, arguments, fastmath=("nsz",))

    return a(a, b), generate


@intrinsic
def larger(typingctx: Any, a: Any, b: Any) -> Any:
    """``a if a > b else b``, one instruction where `maximum` takes four; if one is NaN, b."""
    if not (isinstance(a, types.Float) and a == b):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def add_in_any_order(typingctx: Any, a: Any, b: Any) -> Any:
    """``a + b`` as one step of a sum whose order LLVM may choose (``reassoc`` on this one operation)."""
    if not (isinstance(a, types.Float) and a == b):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=("reassoc", "nsz"))

    return a(a, b), generate


@intrinsic
def _power_of_two(typingctx: Any, t: Any) -> Any:
    """``2^n`` from ``t = n + 1.5 * 2^(p-1) + bias``: the low bits of t are the exponent field."""
    if not isinstance(t, types.Float):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        bits, shift = (32, 23) if t.bitwidth == 32 else (64, 52)
        integer = ir.IntType(bits)
        field = builder.shl(builder.bitcast(value, integer), ir.Constant(integer, shift))
        return builder.bitcast(field, value.type)

    return t(t), generate


@intrinsic
def _split_exponent(typingctx: Any, u: Any) -> Any:
    """For a positive normal double u = 2^k f with f in [sqrt(1/2), sqrt(2)): (k as a double, f)."""
    if u != types.float64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(64)
        bits = builder.bitcast(arguments[0], integer)
        # fdlibm's trick: adding (1 - sqrt(1/2)) in the high word carries into the exponent when f >= sqrt(2).
        carried = builder.add(bits, ir.Constant(integer, (0x3FF00000 - 0x3FE6A09E) << 32))
        k = builder.sub(builder.lshr(carried, ir.Constant(integer, 52)), ir.Constant(integer, 0x3FF))
        mantissa = builder.and_(carried, ir.Constant(integer, (1 << 52) - 1))
        f = builder.bitcast(builder.add(mantissa, ir.Constant(integer, 0x3FE6A09E << 32)), arguments[0].type)
        # k as a double without a 64-bit conversion, which AVX2 lacks: |k| is far below 2^51.
        magic = ir.Constant(arguments[0].type, 6755399441055744.0)
        shifted = builder.bitcast(builder.add(k, builder.bitcast(magic, integer)), arguments[0].type)
        return context.make_tuple(builder, signature.return_type, (builder.fsub(shifted, magic), f))

    return types.UniTuple(types.float64, 2)(u), generate


# float32: ln 2 in 15 + 24 bits, degree 6, relative error of the polynomial 3.1e-9 (0.05 ulp).
_F_CUT = np.float32(-87.33654)
_F_LOG2E = np.float32(1.4426950408889634)
_F_MAGIC = np.float32(12582912.0 + 127.0)
_F_LN2_HI = np.float32(0.693145751953125)
_F_LN2_LO = np.float32(1.4286068203094172e-06)
_F_1 = np.float32(1.0)
_F_0 = np.float32(0.0)
_FLOAT_DEGREES = (
    0.49999993432169987,
    0.16666520399104545,
    0.041668390769680735,
    0.008368745104607068,
    0.00138145410565457,
)
_F2, _F3, _F4, _F5, _F6 = (np.float32(c) for c in _FLOAT_DEGREES)

# float64: ln 2 in 33 + 53 bits, degree 11, relative error of the polynomial 3.6e-18 (0.03 ulp).
_D_CUT = -708.3964185322641
_D_LOG2E = 1.4426950408889634
_D_MAGIC = 6755399441055744.0 + 1023.0
_D_LN2_HI = 6.93147180369123816490e-01
_D_LN2_LO = 1.90821492927058770002e-10
_D2, _D3, _D4, _D5, _D6 = (
    0.5000000000000011,
    0.1666666666666641,
    0.041666666666529725,
    0.008333333333494983,
    0.0013888888943759845,
)
_D7, _D8, _D9, _D10, _D11 = (
    0.0001984126950575929,
    2.480149294975501e-05,
    2.7557586818266117e-06,
    2.7630306208172274e-07,
    2.5000013913453016e-08,
)


def _exp_sum_float(d: Any, err: Any) -> Any:
    t = multiply_add(d, _F_LOG2E, _F_MAGIC)
    n = t - _F_MAGIC
    r = multiply_add(n, -_F_LN2_HI, d) + multiply_add(n, -_F_LN2_LO, err)
    q = multiply_add(r, _F6, _F5)
    q = multiply_add(q, r, _F4)
    q = multiply_add(q, r, _F3)
    q = multiply_add(q, r, _F2)
    q = multiply_add(q, r, _F_1)
    e = multiply_add(q, r, _F_1) * _power_of_two(t)
    return _F_0 if d < _F_CUT else e


def _exp_sum_double(d: Any, err: Any) -> Any:
    t = multiply_add(d, _D_LOG2E, _D_MAGIC)
    n = t - _D_MAGIC
    high = multiply_add(n, -_D_LN2_HI, d)
    low = multiply_add(n, -_D_LN2_LO, err)
    r = high + low
    r_low = (high - r) + low
    q = multiply_add(r, _D11, _D10)
    q = multiply_add(q, r, _D9)
    q = multiply_add(q, r, _D8)
    q = multiply_add(q, r, _D7)
    q = multiply_add(q, r, _D6)
    q = multiply_add(q, r, _D5)
    q = multiply_add(q, r, _D4)
    q = multiply_add(q, r, _D3)
    q = multiply_add(q, r, _D2)
    # 1 + r and what its rounding lost: only the last addition costs half an ulp.
    one = 1.0 + r
    one_low = (1.0 - one) + r
    e = (one + (multiply_add(r * r, q, r_low) + one_low)) * _power_of_two(t)
    return 0.0 if d < _D_CUT else e


def exp_sum(d: Any, err: Any) -> Any:
    """``e^(d + err)`` for ``d <= 0`` and ``|err| <= ulp(d)``, in the operands' precision."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(exp_sum, jit_options=INLINED)
def _typed_exp_sum(d: Any, err: Any) -> Any:
    return _exp_sum_float if d == types.float32 else _exp_sum_double


_E2, _E3, _E4, _E5, _E6 = _FLOAT_DEGREES


@inlined
def exp_for_float(d: Any) -> Any:
    """``e^d`` for a double ``d <= 0``, to a twentieth of an ulp of float32."""
    t = multiply_add(d, _D_LOG2E, _D_MAGIC)
    n = t - _D_MAGIC
    r = multiply_add(n, -_D_LN2_LO, multiply_add(n, -_D_LN2_HI, d))
    q = multiply_add(r, _E6, _E5)
    q = multiply_add(q, r, _E4)
    q = multiply_add(q, r, _E3)
    q = multiply_add(q, r, _E2)
    q = multiply_add(q, r, 1.0)
    e = multiply_add(q, r, 1.0) * _power_of_two(t)
    return 0.0 if d < _D_CUT else e


@inlined
def exp_difference(z: Any, m: Any) -> Any:
    """``e^(z - m)`` for ``z <= m``: the rounding error of the subtraction is carried into the exponential."""
    d = z - m
    shifted = d - z
    return exp_sum(d, (z - (d - shifted)) - (m + shifted))


@inlined
def below_one(v: Any) -> Any:
    """An exponential's part of a tail: 0 for a one, which is counted apart."""
    return 0.0 if v == 1.0 else v


@inlined
def difference(a: Any, b: Any) -> Any:
    """``(d, err)`` with ``d + err = a - b`` exactly (two-sum)."""
    d = a - b
    shifted = d - a
    return d, (a - (d - shifted)) - (b + shifted)


# log(1 + e) = 2 artanh(s), s = e / (2 + e): 2 s (1 + s^2 q(s^2)), relative error 3.9e-10 (0.006 ulp of float32).
_A1, _A2, _A3, _A4, _A5 = (
    0.3333333366026371,
    0.1999985316596486,
    0.14296178997151418,
    0.10853287900440187,
    0.11612164612011674,
)


@inlined
def logistic_for_float(e: Any) -> Any:
    """``(log(1 + e), 1 / (1 + e))`` for a double e in 0..1, to less than a hundredth of an ulp of float32."""
    one = 1.0 + e
    two = 1.0 + one
    reciprocal = 1.0 / (one * two)  # both quotients from one division, which takes as long as the rest
    s = e * one * reciprocal
    u = s * s
    q = multiply_add(u, _A5, _A4)
    q = multiply_add(q, u, _A3)
    q = multiply_add(q, u, _A2)
    q = multiply_add(q, u, _A1)
    return 2.0 * multiply_add(q * u, s, s), two * reciprocal


_LG1 = 6.666666666666735130e-01
_LG2 = 3.999999999940941908e-01
_LG3 = 2.857142874366239149e-01
_LG4 = 2.222219843214978396e-01
_LG5 = 1.818357216161805012e-01
_LG6 = 1.531383769920937332e-01
_LG7 = 1.479819860511658591e-01


@inlined
def log1p_pair(x: Any) -> Any:
    """``log(1 + x)`` for finite ``x >= 0`` as a double, below 1 ulp, and what its last rounding lost.

    fdlibm's formula without its branches.
    """
    u = 1.0 + x
    c = (x - (u - 1.0)) if x < 1.0 else (1.0 - (u - x))
    k, f = _split_exponent(u)
    small = x < 0.41421356237309503
    k = 0.0 if small else k
    c = 0.0 if small else c / u
    f = x if small else f - 1.0
    half = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    w = multiply_add(z, _LG7, _LG6)
    w = multiply_add(z, w, _LG5)
    w = multiply_add(z, w, _LG4)
    w = multiply_add(z, w, _LG3)
    w = multiply_add(z, w, _LG2)
    w = multiply_add(z, w, _LG1)
    tail = s * (half + z * w) + (k * _D_LN2_LO + c)
    whole = k * _D_LN2_HI
    part = (half - tail) - f
    result = whole - part
    return result, (whole - result) - part


@inlined
def log1p(x: Any) -> Any:
    """``log(1 + x)`` for finite ``x >= 0`` in double precision, below 1 ulp."""
    return log1p_pair(x)[0]


@inlined
def integer_power(x: Any, n: Any) -> Any:
    """``x^n`` for ``x >= 0`` and an integer n in 0..15, by squaring and without branches."""
    result = x if n & 1 else 1.0
    square = x * x
    result = result * square if n & 2 else result
    square = square * square
    result = result * square if n & 4 else result
    square = square * square
    return result * square if n & 8 else result


@helper
def pairwise_sum(values: Any) -> Any:
    """Sum of an array by halves, which destroys the array: the error grows with log n, not with n."""
    n = len(values)
    while n > 4:
        half = (n + 1) >> 1
        upper = values[half:n]
        lower = values[:half]
        for i in range(len(upper)):
            lower[i] += upper[i]
        n = half
    total = 0.0
    for i in range(n):
        total += values[i]
    return total
