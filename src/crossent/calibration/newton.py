"""Minimises a smooth convex function by Newton steps, or by L-BFGS steps that start from a part of the Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from crossent.regression.lbfgs import Pairs

from .sample import Float64

__all__ = ["Point", "minimize"]

_ARMIJO = 1e-4
_MEMORY = 20
_ROUNDING = 1e-6
_SHORTEST_STEP = 1e-10


class Point(NamedTuple):
    """Value and gradient, and what multiplies by (about) the inverse of the Hessian there."""

    value: float
    gradient: Float64
    solve: Callable[[Float64], Float64]
    exact: bool


def minimize(evaluate: Callable[[Float64], Point], start: Float64, tol: float, max_iter: int) -> tuple[Float64, int]:
    """Return the minimiser and the number of evaluations.

    Stops when half the Newton decrement ``gᵀ H⁻¹ g``, which estimates the distance of the value from its minimum, is
    below `tol`. Where `Point.solve` is not exact, L-BFGS corrects it by the last steps.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` steps do not get there, or a step cannot reduce the value that has far to go.
    """
    theta, point, calls = start, evaluate(start), 1
    pairs = Pairs(_MEMORY)
    for _ in range(max_iter):
        direction = pairs.direction(point.gradient, point.solve, to_scale=False)
        slope = float(point.gradient @ direction)
        if not slope < 0 and pairs.kept:
            pairs = Pairs(_MEMORY)
            direction = -point.solve(point.gradient)
            slope = float(point.gradient @ direction)
        if -0.5 * slope <= tol:
            # The last step is free: at a decrement so small it can only help.
            return (theta + direction if point.exact else theta), calls
        step = 1.0
        while True:
            trial = evaluate(theta + step * direction)
            calls += 1
            if trial.value <= point.value + _ARMIJO * step * slope:
                break
            step *= 0.5 if not np.isfinite(trial.value) else 0.3
            if step < _SHORTEST_STEP:  # rounding decides now
                if not -0.5 * slope <= _ROUNDING * max(1.0, abs(point.value)):
                    warnings.warn(
                        f"no step of the calibrator reduces the loss, with about {-0.5 * slope:.1e} nats per row to "
                        f"go (tol {tol:.0e}): divide the logits by a constant",
                        ConvergenceWarning,
                        stacklevel=3,
                    )
                return theta, calls
        if not point.exact:
            pairs = pairs.with_pair(step * direction, trial.gradient - point.gradient)
        theta, point = theta + step * direction, trial
    warnings.warn(
        f"the calibrator stopped after {max_iter} iterations with about {-0.5 * slope:.1e} nats per row to go "
        f"(tol {tol:.0e}): raise max_iter",
        ConvergenceWarning,
        stacklevel=3,
    )
    return theta, calls
