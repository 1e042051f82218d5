"""Newton's method with a whole Hessian that serves several steps, where forming it takes longer than several passes.

L-BFGS corrects the Hessian by what the gradient has changed since it was formed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .arrays import Array
from .interface import Evaluation, WholeHessian
from .lbfgs import Pairs
from .line_search import line_search
from .method import Goal, Pace
from .newton import Newton

__all__ = ["KeptHessian", "KeptHessianState"]


@dataclass(frozen=True)
class KeptHessianState:
    """The Hessian that is kept, if one is, the pairs since, and the state of Newton's method without it."""

    then: Pace
    pairs: Pairs
    hessian: WholeHessian | None = None


@dataclass(frozen=True)
class KeptHessian:
    """Steps with the Hessian of an earlier point while they gain enough, else with a new one."""

    goal: Goal
    then: Newton

    def init(self) -> KeptHessianState:
        """Return the state of a fit that has formed no Hessian."""
        return KeptHessianState(self.then.init(), Pairs(self.goal.objective.plan.num_pairs))

    def after_promotion(self, state: KeptHessianState) -> KeptHessianState:
        """Tell Newton's method; the Hessian stays good enough."""
        return replace(state, then=self.then.after_promotion(state.then))

    def step(self, at: Evaluation, state: KeptHessianState) -> tuple[Evaluation | None, KeptHessianState]:
        """Take a step with the Hessian that is kept, or form another one."""
        objective = self.goal.objective
        if state.hessian is not None:
            passes = objective.evaluations
            following = line_search(objective, at, self._direction(at, state.pairs, state.hessian))
            factor = objective.plan.fast ** (objective.evaluations - passes)
            if following is None or self._gap(following) * factor > self._gap(at):
                state = replace(state, hessian=None)
            if following is not None:
                return following, replace(state, pairs=state.pairs.with_step(at, following))
        whole, pairs = objective.whole_hessian(at.theta), Pairs(state.pairs.capacity)
        direction = whole.solve(-at.gradient)
        following = None if direction is None else line_search(objective, at, direction)
        if following is None:
            following, then = self.then.step(at, state.then)
            return following, replace(state, then=then)
        return following, replace(state, pairs=pairs.with_step(at, following), hessian=whole)

    def _direction(self, at: Evaluation, pairs: Pairs, hessian: WholeHessian) -> Array:
        def solve(gradient: Array) -> Array:
            solution = hessian.solve(gradient, again=True)
            return gradient if solution is None else solution

        return pairs.direction(at.gradient, solve)

    def _gap(self, at: Evaluation) -> float:
        assert self.goal.certificate is not None
        return self.goal.certificate.gap(at).total
