"""The first steps of a fit from ``W = 0``: L-BFGS, for as long as it gains more in a pass than Newton's method.

Newton's method is unbeaten near the optimum. Far from it each of its steps is short of what its model costs, and on
features that are alike already it is never needed.
"""

from __future__ import annotations

import numpy as np

from .interface import Array, Evaluation
from .lbfgs import PairMemory, num_pairs
from .objective import LinearObjective, Workspace
from .streaming import RowSource

__all__ = ["Beginning"]

EVALUATIONS = 10
"""Passes that are spent in any case."""
FAST = 2.0
"""L-BFGS goes on while each pass divides the gap by this, on average since `RECENT` passes."""
RECENT = 4
MOST_OUTPUTS = 64
"""With so many classes and more, Newton's method draws single entries of the Hessian, and gains more from the first."""
LEAST_FEATURES = 64
"""With fewer a model of the Hessian costs little more than a gradient."""


class Beginning:
    """L-BFGS scaled by the diagonal of the Hessian at ``W = 0``.

    Parameters
    ----------
    objective : LinearObjective
    """

    def __init__(self, objective: LinearObjective) -> None:
        self._objective = objective
        self._pairs = PairMemory(num_pairs(objective))
        self._first = objective.evaluations
        self._gaps: list[tuple[int, float]] = []
        mass, total = objective.total_mass()
        share = mass / np.maximum(total, np.finfo(np.float64).tiny)
        variance = np.maximum(total * share * (1 - share), np.finfo(np.float64).eps)  # of a class that nobody has
        self._diagonal = np.empty((objective.num_outputs, objective.num_features + 1))
        moments = _second_moments(objective)
        self._diagonal[:, :-1] = variance[:, None] * (moments / objective.row_weight.sum()) + objective.penalty
        self._diagonal[:, -1] = variance

    @staticmethod
    def suits(objective: LinearObjective, at: Evaluation) -> bool:
        """Whether a fit from here begins this way: rows in memory, and no model that is better and nearly free."""
        if not objective.is_cross_entropy or isinstance(objective.X, RowSource):
            return False
        if not objective.is_sizeable or objective.num_outputs >= MOST_OUTPUTS or objective.penalty == 0:
            return False
        return objective.num_features >= LEAST_FEATURES and not at.theta[:, :-1].any()

    def direction(self, at: Evaluation) -> Array:
        """Return where to go."""
        direction = self._pairs.direction(at.gradient, lambda vector: vector / self._diagonal)
        if self._objective.is_shift_invariant:  # what all classes share changes nothing, and is kept at 0
            direction -= direction.mean(axis=0)
        return direction

    def is_over(self, at: Evaluation, following: Evaluation | None, gap: float) -> bool:
        """Learn from a step, whose end has this gap, and return whether it was the last."""
        if following is None:
            return True
        self._pairs.add(following.theta - at.theta, following.gradient - at.gradient)
        passes = self._objective.evaluations - self._first
        self._gaps.append((passes, gap))
        earlier = [(then, before) for then, before in self._gaps if then <= passes - RECENT]
        if passes < EVALUATIONS or not earlier:
            return False
        then, before = earlier[-1]
        return not before > gap * FAST ** (passes - then)


def _second_moments(objective: LinearObjective) -> Array:
    """Return ``Σ_i c_i x_ij²`` (D,)."""

    def work(workspace: Workspace, rows: slice, total: Array) -> float:
        total += objective.row_weight[rows] @ np.square(objective.columns(workspace, rows))
        return 0.0

    moments = np.zeros(objective.num_features)
    for total, _ in objective.sum_rows(work, lambda: np.zeros(objective.num_features)):
        moments += total
    return moments
