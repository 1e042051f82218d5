"""Truncated Taylor series on mpmath numbers: derivatives of a formula from the formula itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mpmath import mp, mpf


class Series:
    """``a + b t + c t²``, arithmetic modulo t³."""

    __slots__ = ("a", "b", "c")

    def __init__(self, a: Any, b: Any = 0, c: Any = 0):
        self.a, self.b, self.c = mpf(a), mpf(b), mpf(c)

    @staticmethod
    def of(x: Any) -> Series:
        return x if isinstance(x, Series) else Series(x)

    def __add__(self, other: Any) -> Series:
        o = Series.of(other)
        return Series(self.a + o.a, self.b + o.b, self.c + o.c)

    def __mul__(self, other: Any) -> Series:
        o = Series.of(other)
        return Series(self.a * o.a, self.a * o.b + self.b * o.a, self.a * o.c + self.b * o.b + self.c * o.a)

    def __neg__(self) -> Series:
        return Series(-self.a, -self.b, -self.c)

    def __sub__(self, other: Any) -> Series:
        return self + (-Series.of(other))

    def __rsub__(self, other: Any) -> Series:
        return Series.of(other) - self

    def __truediv__(self, other: Any) -> Series:
        return self * power(Series.of(other), -1)

    def __rtruediv__(self, other: Any) -> Series:
        return Series.of(other) * power(self, -1)

    __radd__ = __add__
    __rmul__ = __mul__


def _lift(x: Any, f: Any, df: Any, ddf: Any) -> Any:
    """f(x) for a number, and the chain rule to second order for a series; df and ddf map (a, f(a)) to f', f''."""
    if not isinstance(x, Series):
        return f(mpf(x))
    value = f(x.a)
    first = df(x.a, value)
    return Series(value, first * x.b, first * x.c + ddf(x.a, value) * x.b**2 / 2)


def exp(x: Any) -> Any:
    return _lift(x, mp.exp, lambda a, v: v, lambda a, v: v)


def log(x: Any) -> Any:
    return _lift(x, mp.log, lambda a, v: 1 / a, lambda a, v: -1 / a**2)


def log1p(x: Any) -> Any:
    return _lift(x, mp.log1p, lambda a, v: 1 / (1 + a), lambda a, v: -1 / (1 + a) ** 2)


def tanh(x: Any) -> Any:
    return _lift(x, mp.tanh, lambda a, v: 1 - v**2, lambda a, v: -2 * v * (1 - v**2))


def power(x: Any, exponent: Any) -> Any:
    g = mpf(exponent)
    if g == 0:
        return mpf(1)
    if g == 1:
        return x
    if g == 2:
        return x * x
    return _lift(x, lambda a: a**g, lambda a, v: g * a ** (g - 1), lambda a, v: g * (g - 1) * a ** (g - 2))


def total(terms: Iterable[Any]) -> Any:
    return sum(terms, mpf(0))
