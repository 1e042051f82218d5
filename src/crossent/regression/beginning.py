"""The first steps of a fit from ``W = 0``: L-BFGS, for as long as it gains more in a pass than Newton's method.

Newton's method is unbeaten near the optimum. Far from it each of its steps is short of what its model costs, and on
features that are alike already it is never needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arrays import Array
from .certificate import Gap
from .interface import Evaluation
from .lbfgs import Pairs
from .line_search import LOOSE, line_search
from .method import Goal, Method

__all__ = ["Beginning", "BeginningState"]

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class BeginningState:
    """What L-BFGS has learned so far, the gaps that W left after how many passes, and the state of what follows."""

    then: Any
    pairs: Pairs
    diagonal: Array  # of the Hessian at W = 0, about
    gaps: tuple[tuple[int, float], ...] = ()
    is_over: bool = False


@dataclass(frozen=True)
class Beginning:
    """L-BFGS scaled by the second moments of the features, then another method."""

    goal: Goal
    then: Method

    @staticmethod
    def suits(goal: Goal, at: Evaluation) -> bool:
        """Whether a fit from here begins this way: W = 0, a certificate to judge by, and a plan that says so."""
        return goal.objective.plan.begins_with_lbfgs and goal.certificate is not None and not at.theta[:, :-1].any()

    def init(self) -> BeginningState:
        """Scale the features, in one pass."""
        objective = self.goal.objective
        mass, total = objective.total_mass()
        share = mass / np.maximum(total, TINY)
        variance = float(np.mean(total * share * (1 - share)))
        diagonal = np.full(objective.num_features + 1, max(variance, np.finfo(np.float64).eps))
        diagonal[:-1] *= objective.second_moments()
        diagonal[:-1] += objective.penalty.curvature
        return BeginningState(self.then.init(), Pairs(objective.plan.num_pairs), diagonal)

    def after_promotion(self, state: BeginningState) -> BeginningState:
        """Tell the other method."""
        return replace(state, then=self.then.after_promotion(state.then))

    def step(self, at: Evaluation, state: BeginningState) -> tuple[Evaluation | None, BeginningState]:
        """Take a step of L-BFGS, or of the other method once the beginning is over."""
        following = None if state.is_over else line_search(self.goal.objective, at, self._direction(at, state), *LOOSE)
        if following is None:
            following, then = self.then.step(at, state.then)
            return following, replace(state, then=then, is_over=True)
        assert self.goal.certificate is not None
        gap = self.goal.certificate.gap(following)
        gaps = (*state.gaps, (self.goal.objective.evaluations, gap.weights))
        state = replace(state, pairs=state.pairs.with_step(at, following), gaps=gaps)
        return following, replace(state, is_over=self._is_over(state, gap, max(self.goal.allowed(following), TINY)))

    def _direction(self, at: Evaluation, state: BeginningState) -> Array:
        direction = state.pairs.direction(at.gradient, lambda vector: vector / state.diagonal)
        if self.goal.objective.is_shift_invariant:  # what all classes share changes nothing, and is kept at 0
            direction -= direction.mean(axis=0)
        return direction

    def _is_over(self, state: BeginningState, gap: Gap, allowed: float) -> bool:
        """Whether the step that left this gap was the last.

        Judged by what W leaves of the gap: the intercept's part can be closed at any time, and would hide it.
        """
        plan = self.goal.objective.plan
        recent, patience = plan.recent[plan.has_slow_products], plan.patience[plan.has_slow_products]
        if plan.has_slow_products and gap.weights <= allowed and gap.intercept > gap.weights:
            return True
        passes = state.gaps[-1][0]
        earlier = [(then, before) for then, before in state.gaps if then <= passes - recent]
        if passes <= plan.first_passes or not earlier:
            return False
        then, before = earlier[-1]
        if not 0 < gap.weights < before:
            return gap.weights > 0
        pace = math.log(before / gap.weights) / (passes - then)
        return math.log(gap.weights / allowed) > patience * pace
