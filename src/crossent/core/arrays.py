"""The few array operations that the mathematics needs and the array-API standard lacks."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

Array = Any  # an array of any library that follows the array-API standard

__all__ = [
    "Array",
    "array_namespace",
    "divergence_terms",
    "guarded_product",
    "log_ratio",
    "one_hot",
    "register_namespace",
    "square_over_square",
    "sum_pair",
    "two_product",
    "two_sum",
]


_registered: list[tuple[Callable[[Any], bool], Any]] = []


def register_namespace(owns: Callable[[Any], bool], namespace: Any) -> None:
    """Let arrays of a library that has no array-API namespace have this one: those for which `owns` is true."""
    _registered.append((owns, namespace))


def array_namespace(*arrays: Any) -> Any:
    """Return the arrays' array-API namespace: their own, a registered one or (torch) array-api-compat's."""
    for array in arrays:
        own = getattr(array, "__array_namespace__", None)
        if own is not None:
            return own()
        for owns, namespace in _registered:
            if owns(array):
                return namespace
    from array_api_compat import array_namespace as wrapped_namespace  # 60 ms that NumPy users need not wait for

    return wrapped_namespace(*arrays)


def one_hot(labels: Array, num_classes: int) -> Array:
    """Return the boolean array (…, K) that is true where k equals the label."""
    xp = array_namespace(labels)
    classes = xp.arange(num_classes, dtype=labels.dtype)
    if hasattr(labels, "device"):
        classes = xp.asarray(classes, device=labels.device)
    return labels[..., None] == classes


def guarded_product(factor: Array, other: Array) -> Array:
    """Return ``factor * other``, and 0 where factor is 0, even if other is infinite or NaN there (0 · log 0 = 0).

    A finite `other` stays, so that a library that differentiates this finds the derivative in `factor` there too.
    """
    xp = array_namespace(factor, other)
    zero = xp.zeros_like(other)
    return factor * xp.where((factor == 0) & ~xp.isfinite(other), zero, other)


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return ``a + b`` rounded and its rounding error (Knuth): the two add up to a + b exactly.

    The error is 0 where the sum is not finite.
    """
    xp = array_namespace(a, b)
    total = a + b
    virtual = total - a
    error = (a - (total - virtual)) + (b - virtual)
    return total, xp.where(xp.isfinite(total), error, xp.zeros_like(error))


def sum_pair(values: Array, axis: int = -1) -> tuple[Array, Array]:
    """Return ``Σ_k values_k ≥ 0`` over an axis, rounded, and what rounding lost.

    Numbers are cut at a multiple of ``ulp(K max)`` (Rump, Ogita and Oishi 2008): the upper parts add up exactly.
    """
    xp = array_namespace(values)
    cut = values.shape[axis] * xp.max(values, axis=axis, keepdims=True)
    upper = (cut + values) - cut
    return two_sum(xp.sum(upper, axis=axis), xp.sum(values - upper, axis=axis))


def square_over_square(squares: Array, base: Array, low: Array, total: Array, total_low: Array) -> Array:
    """Return ``(squares + (base + low)²) / (total + total_low)²``, rounded once."""
    square, square_low = two_product(base, base)
    above, above_low = two_sum(squares, square)
    below, below_low = two_product(total, total)
    above_low, below_low = above_low + square_low + 2 * base * low, below_low + 2 * total * total_low
    ratio = above / below
    product, product_low = two_product(ratio, below)
    return ratio + ((above - product) - product_low + above_low - ratio * below_low) / below


def two_product(a: Array, b: Array | float) -> tuple[Array, Array]:
    """Return ``a · b`` rounded and its rounding error (Dekker); 0 where that is not finite.

    Of a number b the error holds what the dtype of a cannot.
    """
    xp = array_namespace(a)
    splitter = 4097.0 if a.dtype == xp.float32 else 134217729.0
    beyond = 0.0
    if isinstance(b, float) and a.dtype == xp.float32:
        beyond = b - struct.unpack("f", struct.pack("f", b))[0]
    b = b if getattr(b, "shape", ()) else xp.full_like(a, b)

    def split(x: Array) -> tuple[Array, Array]:
        scaled = splitter * x
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (a_high, a_low), (b_high, b_low) = split(a), split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    if beyond:
        error = error + a * beyond
    return product, xp.where(xp.isfinite(error), error, xp.zeros_like(error))


NEAR = 1.5
"""Up to this log-ratio a divergence's terms come from a series; beyond, what cancels in them costs a bit or two."""
EXCESS = tuple(1 / math.factorial(n + 2) for n in range(21))
"""``(e^d - 1 - d) / d²`` for ``|d| ≤ NEAR``: Taylor's series, cut off below 1e-17 of its sum."""


def divergence_terms(xp: Any, p: Array, q: Array, log_ratio: Array, unit: float = 1.0) -> Array:
    """Return ``unit² · p (e^d - 1 - d)``, d = log(q/p) being ``log_ratio / unit``; none is negative.

    Where p or q is 0, or the ratio beyond `NEAR`, it is ``unit² (q - p - p d)``: q where p = 0, and inf where only q
    is. A term has the relative error of d, twice, and of p or q; nothing cancels. `unit` keeps ``unit² d²`` in range.
    """
    d = log_ratio / unit
    is_near = (p > 0) & (q > 0) & (xp.abs(d) <= NEAR)
    zero = xp.zeros_like(d)
    wide = xp.where(is_near, log_ratio, zero)
    narrow = wide / unit
    series = zero + EXCESS[-1]
    for coefficient in EXCESS[-2::-1]:
        series = series * narrow + coefficient
    counted = xp.where(is_near | (p == 0), zero, d)
    return xp.where(is_near, p * (wide * wide) * series, unit * (unit * (q - p * (1 + counted))))


def log_ratio(xp: Any, q: Array, p: Array, difference: Array) -> Array:
    """Return ``log(q/p)`` of positive numbers: near 1 by log1p, where no digits cancel.

    `difference` is ``log q - log p``, which takes over where the quotient is beyond the dtype's range.
    """
    is_near = (q > 0.5 * p) & (q < 2 * p)
    apart = xp.where(is_near, q - p, xp.zeros_like(p)) / p
    quotient, limits = q / p, xp.finfo(p.dtype)
    is_normal = (q >= limits.smallest_normal) & (quotient >= limits.smallest_normal) & (quotient <= limits.max)
    far = xp.where(is_normal, xp.log(xp.where(is_normal, quotient, xp.ones_like(p))), difference)
    return xp.where(is_near, xp.log1p(apart), far)
