"""Derivatives where no autodiff exists: a number that carries its first and second derivatives.

A jet is a value together with its partial derivatives with respect to a few named variables (the row statistics).
Arithmetic on jets applies the chain rule, so the one line that defines a loss also yields its gradient and Hessian
in those variables. `power` and `expm1` below accept plain arrays and jets alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crossent.core.arrays import Array, array_namespace

First = dict[str, Any]
Second = dict[tuple[str, str], Any]


def _ordered(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a <= b else (b, a)


def _accumulate(into: dict, key: Any, amount: Any) -> None:
    into[key] = into[key] + amount if key in into else amount


class Jet:
    """A value with its first derivatives and, to second order, its symmetric second derivatives.

    Parameters
    ----------
    value : array
    first : dict name -> array
        ``∂value/∂name``; absent names are 0.
    second : dict (name, name) -> array, or None
        ``∂²value/∂a∂b`` with a ≤ b, absent pairs are 0. None: this jet carries first derivatives only.
    """

    __slots__ = ("first", "second", "value")
    __array_ufunc__ = None  # let NumPy hand arithmetic over to the reflected methods below

    def __init__(self, value: Array, first: First, second: Second | None):
        self.value, self.first, self.second = value, first, second

    @classmethod
    def variable(cls, name: str, value: Array, *, order: int) -> Jet:
        return cls(value, {name: 1.0}, {} if order == 2 else None)

    def chain(self, value: Array, slope: Array, curvature: Callable[[], Array]) -> Jet:
        """Return f(self) from ``f``, ``f'`` and (called to second order only) ``f''``."""
        first = {name: slope * derivative for name, derivative in self.first.items()}
        if self.second is None:
            return Jet(value, first, None)
        second = {pair: slope * derivative for pair, derivative in self.second.items()}
        curve = curvature()
        names = sorted(self.first)
        for i, a in enumerate(names):
            for b in names[i:]:
                _accumulate(second, (a, b), curve * self.first[a] * self.first[b])
        return Jet(value, first, second)

    def __add__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.value + other, self.first, self.second)
        first = dict(self.first)
        for name, derivative in other.first.items():
            _accumulate(first, name, derivative)
        if self.second is None or other.second is None:
            return Jet(self.value + other.value, first, None)
        second = dict(self.second)
        for pair, derivative in other.second.items():
            _accumulate(second, pair, derivative)
        return Jet(self.value + other.value, first, second)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return self.chain(self.value * other, other, lambda: 0.0)
        first: First = {name: derivative * other.value for name, derivative in self.first.items()}
        for name, derivative in other.first.items():
            _accumulate(first, name, derivative * self.value)
        if self.second is None or other.second is None:
            return Jet(self.value * other.value, first, None)
        second: Second = {pair: derivative * other.value for pair, derivative in self.second.items()}
        for pair, derivative in other.second.items():
            _accumulate(second, pair, derivative * self.value)
        for a, left in self.first.items():
            for b, right in other.first.items():
                # The mixed term (a_i b_j + a_j b_i): the diagonal pair meets this loop once, the others twice.
                _accumulate(second, _ordered(a, b), left * right * (2 if a == b else 1))
        return Jet(self.value * other.value, first, second)

    __rmul__ = __mul__

    def __neg__(self) -> Jet:
        return self * -1.0


def power(base: Array | Jet, exponent: float) -> Array | Jet:
    """Return ``base**exponent`` for base ≥ 0.

    At base = 0 the derivatives are given as 0. A fractional power's true slope is infinite there, but it only ever
    multiplies gradient rows that vanish faster (∂miss = p_y·miss): 0 is the limit of the product.
    """
    if not isinstance(base, Jet):
        return base**exponent
    x = base.value
    xp = array_namespace(x)
    positive = xp.where(x > 0, x, xp.ones_like(x))

    def scaled(factor: float, shifted: float) -> Array:
        return xp.where(x > 0, factor * positive**shifted, xp.zeros_like(x))

    return base.chain(
        x**exponent,
        scaled(exponent, exponent - 1),
        lambda: scaled(exponent * (exponent - 1), exponent - 2),
    )


def expm1(x: Array | Jet) -> Array | Jet:
    """Return ``e^x - 1``."""
    if not isinstance(x, Jet):
        return array_namespace(x).expm1(x)
    xp = array_namespace(x.value)
    slope = xp.exp(x.value)
    return x.chain(xp.expm1(x.value), slope, lambda: slope)
