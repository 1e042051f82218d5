"""What rounding makes of a fit's parameters when they become an estimator's coefficients.

The parameters' intercept refers to centred columns, ``b' = b + W μ``; an estimator's b refers to columns as they are.
Where columns lie far from 0, b cannot hold the digits of b', and F at the stored coefficients is another number.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array
from .interface import Evaluation, Objective

__all__ = ["add_products", "is_as_good"]

SPLITTER = float((1 << 27) + 1)
EPS = float(np.finfo(np.float64).eps)


def add_products(start: Array, matrix: Array, vector: Array, *, from_first: bool = False) -> Array:
    """Return ``start + matrix @ vector`` (K,), rounded once: products of halves of 26 bits are exact (Dekker 1971).

    With `from_first` the first is subtracted from each before that: softmax stays the same, and a large common number
    takes no digits.

    Examples
    --------
    >>> add_products(np.array([-1e17]), np.array([[1e8, 1.0]]), np.array([1e9, 3.0])).tolist()
    [3.0]
    """
    if not vector.any():
        return start.copy()
    high, low = _halves(vector)
    out = np.empty(len(matrix))
    first: list[float] = []
    for row, weights in enumerate(matrix):
        upper, lower = _halves(weights)
        terms = np.concatenate([start[row : row + 1], upper * high, upper * low, lower * high, lower * low])
        if from_first and row == 0:
            first = (-terms).tolist()
        out[row] = math.fsum(terms.tolist() + first)
    return out


def _halves(array: Array) -> tuple[Array, Array]:
    """Return two arrays of numbers of 26 bits whose sum is `array`."""
    spread = SPLITTER * array
    high = spread - (spread - array)
    return high, array - high


def is_as_good(objective: Objective, at: Evaluation, theta: Array) -> bool:
    """Whether F at `theta` is that at an evaluated point but for its last digit.

    Only for cross-entropy at another b: along δ its second derivative is a variance of logits, at most
    ``A (max δ - min δ)² / 4``, so F rises by at most ``<∇_b F, δ>`` and half of that.
    """
    if not objective.is_cross_entropy or not np.array_equal(theta[:, :-1], at.theta[:, :-1]):
        return np.array_equal(theta, at.theta)
    delta = theta[:, -1] - at.theta[:, -1]
    if objective.is_shift_invariant:
        delta -= delta.mean()
    else:
        delta = np.append(delta, 0.0)  # a label's other logit
    gradient = at.bias_gradient
    rise = (
        abs(float(gradient @ delta[: len(gradient)]))
        + float(np.sum(objective.total_mass()[1])) * np.ptp(delta) ** 2 / 8
    )
    return bool(rise <= 0.5 * EPS * at.value)
