"""The first steps of a fit from ``W = 0``: L-BFGS, for as long as it gains more in a pass than Newton's method.

Newton's method is unbeaten near the optimum. Far from it each of its steps is short of what its model costs, and on
features that are alike already it is never needed.
"""

from __future__ import annotations

import math

import numpy as np

from .certificate import Gap
from .data.streaming import RowSource
from .interface import Array, Evaluation
from .lbfgs import PairMemory, num_pairs
from .objective import LinearObjective, Workspace

__all__ = ["Beginning"]

EVALUATIONS = 10
"""Passes that are spent in any case."""
MOST_OUTPUTS = 64
"""With so many classes and more, Newton's method draws single entries of the Hessian, and gains more from the first,"""
ROWS_A_FEATURE = 64
"""unless there are so few rows a feature that it could leave out none."""
LEAST_FEATURES = 64
"""With fewer a model of the Hessian costs little more than a gradient."""
LEAST_PAIRS = 10
"""Of steps that memory must hold."""
RECENT = 4
"""Passes over which the pace is measured,"""
PATIENCE = 16
"""and how many more of them, at this pace, are worth less than Newton's first step."""
RECENT_SLOW, PATIENCE_SLOW = 12, 40
"""The same where a product with the Hessian takes as long as a gradient."""


class Beginning:
    """L-BFGS scaled by the second moments of the features.

    Parameters
    ----------
    objective : LinearObjective
    """

    def __init__(self, objective: LinearObjective) -> None:
        self._objective = objective
        self._is_slow = objective.num_outputs >= MOST_OUTPUTS
        self._recent, self._patience = (RECENT_SLOW, PATIENCE_SLOW) if self._is_slow else (RECENT, PATIENCE)
        self._pairs = PairMemory(num_pairs(objective))
        self._first = objective.evaluations
        self._gaps: list[tuple[int, float]] = []
        mass, total = objective.total_mass()
        share = mass / np.maximum(total, np.finfo(np.float64).tiny)
        variance = float(np.mean(total * share * (1 - share)))
        self._diagonal = np.full(objective.num_features + 1, max(variance, np.finfo(np.float64).eps))
        self._diagonal[:-1] *= _second_moments(objective) / objective.row_weight.sum()
        self._diagonal[:-1] += objective.penalty

    @staticmethod
    def suits(objective: LinearObjective, at: Evaluation) -> bool:
        """Whether a fit from here begins this way: rows in memory, and no model that is better and nearly free."""
        if not objective.is_cross_entropy or isinstance(objective.X, RowSource):
            return False
        if not objective.is_sizeable or objective.penalty == 0 or num_pairs(objective) < LEAST_PAIRS:
            return False
        if objective.num_outputs >= MOST_OUTPUTS and objective.num_rows >= ROWS_A_FEATURE * objective.num_features:
            return False
        return objective.num_features >= LEAST_FEATURES and not at.theta[:, :-1].any()

    def direction(self, at: Evaluation) -> Array:
        """Return where to go."""
        direction = self._pairs.direction(at.gradient, lambda vector: vector / self._diagonal)
        if self._objective.is_shift_invariant:  # what all classes share changes nothing, and is kept at 0
            direction -= direction.mean(axis=0)
        return direction

    def is_over(self, at: Evaluation, following: Evaluation, gap: Gap, allowed: float) -> bool:
        """Learn from a step, at whose end there is this gap, and return whether it was the last.

        Judged by what W leaves of the gap: the intercept's part can be closed at any time, and would hide it.
        """
        self._pairs.add(following.theta - at.theta, following.gradient - at.gradient)
        passes = self._objective.evaluations - self._first
        self._gaps.append((passes, gap.weights))
        if self._is_slow and gap.weights <= allowed and gap.intercept > gap.weights:
            return True
        earlier = [(then, before) for then, before in self._gaps if then <= passes - self._recent]
        if passes < EVALUATIONS or not earlier:
            return False
        then, before = earlier[-1]
        if not 0 < gap.weights < before:
            return gap.weights > 0
        pace = math.log(before / gap.weights) / (passes - then)
        return math.log(gap.weights / allowed) > self._patience * pace


def _second_moments(objective: LinearObjective) -> Array:
    """Return ``Σ_i c_i x_ij²`` (D,)."""

    def work(workspace: Workspace, rows: slice, total: Array) -> float:
        total += objective.row_weight[rows] @ np.square(objective.columns(workspace, rows))
        return 0.0

    return objective.sum_arrays(work, (objective.num_features,))[0]
