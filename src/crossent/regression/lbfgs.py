"""L-BFGS: what pairs of steps and gradient changes tell of the Hessian, around any model of its inverse."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from .interface import Array, Objective

__all__ = ["PairMemory", "num_pairs"]

MEMORY = 20
MEMORY_BYTES = 1 << 30
"""At most `MEMORY` pairs are kept, in at most so many bytes, and two at least."""


def num_pairs(objective: Objective) -> int:
    """Return how many pairs of parameter-sized float64 arrays may be kept."""
    pair = 2 * 8 * objective.num_outputs * (objective.num_features + 1)
    return max(2, min(MEMORY, MEMORY_BYTES // pair))


class PairMemory:
    """The last steps and what the gradient changed by along each (Nocedal 1980).

    Parameters
    ----------
    capacity : int
        How many are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._pairs: deque[tuple[Array, Array, float]] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._pairs)

    def clear(self) -> None:
        self._pairs.clear()

    def add(self, step: Array, change: Array) -> None:
        """Keep a pair, unless the function did not curve upwards along the step."""
        curvature = float(np.vdot(step, change))
        if curvature > 1e-10 * float(np.sqrt(np.vdot(step, step) * np.vdot(change, change))):
            self._pairs.append((step, change, curvature))

    def direction(self, gradient: Array, solve: Callable[[Array], Array]) -> Array:
        """Return minus the inverse Hessian times a gradient; `solve` is a model's, which the last pair scales."""
        direction = -gradient
        factors = []
        for step, change, curvature in reversed(self._pairs):
            factor = float(np.vdot(step, direction)) / curvature
            factors.append(factor)
            direction = direction - factor * change
        direction = solve(direction)
        if self._pairs:
            _, change, curvature = self._pairs[-1]
            direction *= curvature / float(np.vdot(change, solve(change)))
        for (step, change, curvature), factor in zip(self._pairs, reversed(factors), strict=True):
            direction = direction + (factor - float(np.vdot(change, direction)) / curvature) * step
        return direction
