"""L-BFGS: what pairs of steps and gradient changes tell of the Hessian, around any model of its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .arrays import Array
from .interface import Evaluation
from .line_search import line_search
from .method import Goal
from .preconditioner import FeatureBasis, KroneckerMetric

__all__ = ["Pairs", "QuasiNewton", "QuasiNewtonState"]


@dataclass(frozen=True)
class Pairs:
    """The last steps and what the gradient changed by along each (Nocedal 1980); at most `capacity` of them."""

    capacity: int
    kept: tuple[tuple[Array, Array, float], ...] = ()

    def with_step(self, before: Evaluation, after: Evaluation) -> Pairs:
        """Return the pairs with that of a step, unless the function did not curve upwards along it."""
        return self.with_pair(after.theta - before.theta, after.gradient - before.gradient)

    def with_pair(self, step: Array, change: Array) -> Pairs:
        """Return the pairs with another one, unless the function did not curve upwards along the step."""
        curvature = float(np.vdot(step, change))
        if not curvature > 1e-10 * float(np.sqrt(np.vdot(step, step) * np.vdot(change, change))):
            return self
        return Pairs(self.capacity, (*self.kept[-self.capacity + 1 :], (step, change, curvature)))

    def direction(self, gradient: Array, solve: Callable[[Array], Array], *, to_scale: bool = True) -> Array:
        """Return minus the inverse Hessian times a gradient; `solve` is a model's, which the last pair may scale."""
        direction = -gradient
        factors = []
        for step, change, curvature in reversed(self.kept):
            factor = float(np.vdot(step, direction)) / curvature
            factors.append(factor)
            direction = direction - factor * change
        direction = solve(direction)
        if self.kept and to_scale:
            _, change, curvature = self.kept[-1]
            direction *= curvature / float(np.vdot(change, solve(change)))
        for (step, change, curvature), factor in zip(self.kept, reversed(factors), strict=True):
            direction = direction + (factor - float(np.vdot(change, direction)) / curvature) * step
        return direction


@dataclass(frozen=True)
class QuasiNewtonState:
    """What L-BFGS has learned, and the model around which; None until the first step."""

    pairs: Pairs
    metric: KroneckerMetric | None = None
    age: int = 0  # steps since the model was made


@dataclass(frozen=True)
class QuasiNewton:
    """L-BFGS whose initial matrix is the inverse of the Kronecker model of cross-entropy, scaled to the loss."""

    goal: Goal

    def init(self) -> QuasiNewtonState:
        """Return the state of one who has learned nothing."""
        return QuasiNewtonState(Pairs(self.goal.objective.plan.num_pairs))

    def after_promotion(self, state: QuasiNewtonState) -> QuasiNewtonState:
        """Forget pairs and model: they are of other products."""
        return self.init()

    def step(self, at: Evaluation, state: QuasiNewtonState) -> tuple[Evaluation | None, QuasiNewtonState]:
        """Search along the direction; without a gain along it once more, without the pairs."""
        objective = self.goal.objective
        metric, age, pairs = state.metric, state.age + 1, state.pairs
        if metric is None or age > objective.plan.metric_age:
            metric, age = KroneckerMetric.at(objective, at.theta, FeatureBasis.shared(objective)), 1
        state = replace(state, metric=metric, age=age)
        following = line_search(objective, at, pairs.direction(at.gradient, metric.solve))
        if following is None and pairs.kept:
            pairs = Pairs(pairs.capacity)
            following = line_search(objective, at, pairs.direction(at.gradient, metric.solve))
        if following is not None:
            pairs = pairs.with_step(at, following)
        return following, replace(state, pairs=pairs)
