"""How far to go along a descent direction."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .arrays import Array
from .interface import Evaluation, Objective

__all__ = ["EXACT", "FIRST_UPHILL", "LOOSE", "STEEP", "UPHILL", "line_search"]

ARMIJO = 1e-4
STEEP = 0.5
"""A line search goes on while the slope is more than this part of what it was,"""
UPHILL = 0.3
"""or has turned to more than this part of it uphill."""
FIRST_UPHILL = 0.02
"""So of a first step: where classes are far apart it can be several times too long, and leave no curvature behind."""
LOOSE = (0.9, 0.9)
"""Both, of L-BFGS at first, whose directions cost nothing: another pass is better spent on the next one."""
EXACT = 0.1
"""Steep, where a direction costs more than a pass. From W = 0 a full Newton step is too short by half where classes
are far apart, and so are the next ones."""
NEGLIGIBLE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-9}
MAX_BACKTRACKS = 30
MAX_REFINEMENTS = 4


def line_search(
    objective: Objective, at: Evaluation, direction: Array, uphill: float = UPHILL, steep: float = STEEP
) -> Evaluation | None:
    """Return a point that decreases F enough along a descent direction, or None if rounding lets none be found.

    Armijo's rule, from step length 1. Losses that saturate are flat, then steep: a full step can be far too short or
    far too long, and a second-order model says neither. So the search goes on, within `MAX_REFINEMENTS`, while the
    slope is still steep: to where a cubic has its minimum, within bounds. Near the optimum differences of F
    drown in the logits' rounding, and the slope decides: of a convex F that falls by a share of at most `NEGLIGIBLE`,
    no step that halves the slope can rise by more (after Hager and Zhang 2005).
    """
    slope = at.slope(direction)
    if not slope < 0:
        return None
    negligible = NEGLIGIBLE[objective.dtype]
    best: Evaluation | None = None
    behind = low = _Point(0.0, at.value, slope)
    high = _Point(math.inf, math.inf, math.nan)
    length, refinements = 1.0, 0
    for _ in range(MAX_BACKTRACKS):
        trial = objective.evaluate(at.theta + length * direction)
        change = trial.value - at.value
        trial_slope = trial.slope(direction)
        enough = change <= ARMIJO * length * slope
        if -length * slope <= negligible * abs(at.value):
            enough = enough or abs(trial_slope) <= 0.5 * abs(slope)
        better = enough and (best is None or trial.value < best.value)
        if better:
            best = trial
        if better and trial_slope <= uphill * abs(slope):
            behind, low = low, _Point(length, trial.value, trial_slope)
            if trial_slope >= steep * slope:
                break
        else:
            high = _Point(length, trial.value, trial_slope)
        if best is not None:
            if refinements == MAX_REFINEMENTS:
                break
            refinements += 1
            length = _beyond(behind, low) if math.isinf(high.length) else _between(low, high)
        else:
            shrink = -slope * length / (2 * (change - slope * length)) if math.isfinite(change) else 0.0
            length *= min(0.5, max(0.1, shrink))
    return best


class _Point(NamedTuple):
    """A step length, the objective there and its slope along the direction."""

    length: float
    value: float
    slope: float


def _between(low: _Point, high: _Point) -> float:
    """Return the minimum of the cubic through two points and their slopes, kept off the ends of the bracket."""
    width = high.length - low.length
    part = 0.5
    if high.slope > 0 and math.isfinite(length := _minimum(low, high)):
        part = (length - low.length) / width
    elif low.length > 0:
        part = (math.sqrt(low.length * high.length) - low.length) / width
    return low.length + width * min(0.9, max(0.1, part))


def _beyond(behind: _Point, low: _Point) -> float:
    """Return the minimum of the cubic through two points and their slopes, both downhill, past the second: at most
    twice as far as that, and a little further at least."""
    return min(2.0 * low.length, max(1.2 * low.length, _minimum(behind, low)))


def _minimum(a: _Point, b: _Point) -> float:
    """Return where the cubic through two points and their slopes, downhill at the first, has its minimum; or inf."""
    width = b.length - a.length
    bend = a.slope + b.slope - 3 * (b.value - a.value) / width
    inside = bend * bend - a.slope * b.slope
    if not (math.isfinite(bend) and inside >= 0):
        return math.inf
    rise = math.sqrt(inside) - bend - a.slope
    return a.length - width * a.slope / rise if rise > 0 else math.inf
