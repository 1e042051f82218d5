"""Derivatives where no autodiff exists: a number that carries its first and second derivatives.

A jet is a value together with its partial derivatives with respect to a few named variables (the row statistics).
Arithmetic on jets applies the chain rule, so the one line that defines a loss also yields its gradient and Hessian
in those variables. `power_product` below accepts plain arrays and jets alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from crossent.core.arrays import Array, array_namespace

First = dict[str, Any]
Second = dict[tuple[str, str], Any]


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
        return _chain_of_two(self, other, self.value * other.value, other.value, self.value, lambda: {"xy": 1.0})

    __rmul__ = __mul__

    def __neg__(self) -> Jet:
        return self * -1.0


def _chain_of_two(
    x: Jet, y: Jet, value: Array, slope_x: Array, slope_y: Array, curvature: Callable[[], dict[str, Array]]
) -> Jet:
    """Return f(x, y) from f, ∂f/∂x, ∂f/∂y and (called to second order only) those second derivatives that are not 0."""
    first: First = {name: derivative * slope_x for name, derivative in x.first.items()}
    for name, derivative in y.first.items():
        _accumulate(first, name, derivative * slope_y)
    if x.second is None or y.second is None:
        return Jet(value, first, None)
    second: Second = {pair: derivative * slope_x for pair, derivative in x.second.items()}
    for pair, derivative in y.second.items():
        _accumulate(second, pair, derivative * slope_y)
    curves = curvature()
    for which, (left, right) in {"xx": (x, x), "xy": (x, y), "yx": (y, x), "yy": (y, y)}.items():
        curve = curves.get("xy" if which == "yx" else which)
        if curve is None:
            continue
        for a, d_left in left.first.items():
            for b, d_right in right.first.items():
                if a <= b:  # the matrix is symmetric: its upper half is kept
                    _accumulate(second, (a, b), curve * d_left * d_right)
    return Jet(value, first, second)


def power_product(x: Array | Jet, exponent: float, y: Array | Jet) -> Array | Jet:
    """Return ``x^exponent · y`` for x ≥ 0 and a y that vanishes with x at least as fast (y/x stays bounded).

    The derivatives are written with y/x, as ``x^(exponent-1) · y = x^exponent · (y/x)``: for exponents below 1 and x
    near 0 the separate factors would be infinite. Where x underflows, the derivatives in x are given as their limit
    in every use, 0: they multiply gradient rows that vanish as x does.
    """
    if not (isinstance(x, Jet) and isinstance(y, Jet)):
        values: Any = x
        return values**exponent * y
    xp = array_namespace(x.value)
    is_normal = x.value >= xp.finfo(x.value.dtype).smallest_normal
    base = xp.where(is_normal, x.value, xp.ones_like(x.value))
    ratio = xp.where(is_normal, y.value / base, xp.zeros_like(base))
    powered = x.value**exponent

    def lower() -> Array:
        """exponent · x^(exponent-1)"""
        if exponent == 0:
            return xp.zeros_like(base)
        return xp.where(is_normal, exponent * base ** (exponent - 1), xp.zeros_like(base))

    return _chain_of_two(
        x,
        y,
        powered * y.value,
        exponent * powered * ratio,
        powered,
        lambda: {"xx": (exponent - 1) * lower() * ratio, "xy": lower()},
    )
