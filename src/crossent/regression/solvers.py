"""The optimisers' loop: certify, record, step; Newton's method for cross-entropy, L-BFGS for every other loss.

Only NumPy's matrix products are called: SciPy brings a BLAS of its own, whose threads would fight with NumPy's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from .arrays import Array
from .beginning import Beginning
from .interface import Evaluation, Objective
from .kept import KeptHessian
from .lbfgs import QuasiNewton
from .method import Goal, Method, Pace
from .newton import Newton

__all__ = ["Bound", "Keeper", "Result", "Solver", "State", "predicted_start"]

EPS = float(np.finfo(np.float64).eps)
FURTHEST = 2.0
"""The farthest that a sweep looks ahead, in steps from the last optimum but one to the last."""
ROUNDING = 1e-5
"""A relative decrease or gap below this is within reach of float32's rounding: time for float64,"""
HINDERED = 0.25
"""unless the decrease alone is, and the gap, which the gradient decides, falls to less than this part."""


@dataclass(frozen=True)
class Bound:
    """The best lower bound D of the optimum so far, and the parameters where it was computed."""

    value: float = -math.inf
    theta: Array | None = None

    def better(self, at: Evaluation, gap: float) -> Bound:
        """Return this bound or that of a point, whose gap f - D is given.

        A bound above f, by more than rounding, bounds nothing: that of this point takes its place.
        """
        if math.isfinite(gap) and not at.value - gap <= self.value <= at.value * (1 + 16 * EPS):
            return Bound(at.value - gap, at.theta)
        return self

    def relative_gap(self, at: Evaluation) -> float:
        """Return (f - D)/f at a point, no less than float64 resolves."""
        return 0.0 if at.value <= 0 else max((at.value - self.value) / at.value, EPS)


@dataclass(frozen=True)
class State:
    """A fit between two iterations: what a checkpoint keeps, but for what L-BFGS has learned."""

    at: Evaluation
    method: Any
    bound: Bound
    best: Evaluation | None = None
    """Where F was least, in the precision of now."""
    history: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Result:
    """Where an optimiser stopped, and why.

    `status` is "converged", "max_iter", "rounding" (no step reduces the objective any more), "callback",
    "interrupted" or "not_finite".
    """

    at: Evaluation
    bound: Bound
    gap: float  # relative: (f - D)/f; NaN without a certificate
    status: str
    iterations: int
    history: list[dict[str, Any]] = field(default_factory=list)


class Keeper(Protocol):
    """Where states are kept; a checkpoint is one."""

    def note(self, state: State, objective: Objective) -> None:
        """Take notice of the state between two iterations."""

    def close(self, finished: bool) -> None:
        """The fit has ended."""


class Solver:
    """Minimises an objective: `init` makes a state of a point, `step` a state of a state, `run` a result.

    Products in float32 change to float64 when rounding may be what stands in the way, and before the end: what is
    reported is always evaluated in float64.

    Parameters
    ----------
    goal : Goal
        Without a certificate the gradient's norm decides, relative to that at ``W = 0, b = 0``.
    max_iter : int
    scale : float
        What turns the solver's normalised objective into the user's.
    report : callable or None
        Called with every history entry; a true result stops the run.
    learns : bool
        Whether a fit may depend on what no checkpoint keeps.
    """

    def __init__(
        self,
        goal: Goal,
        max_iter: int,
        scale: float = 1.0,
        report: Callable[[dict[str, Any]], Any] | None = None,
        *,
        learns: bool = True,
    ) -> None:
        self.goal, self.objective = goal, goal.objective
        self._max_iter, self._scale, self._report, self._learns = max_iter, scale, report, learns
        self._started = time.perf_counter()
        self._method: Method = Newton(goal) if self.objective.is_cross_entropy else QuasiNewton(goal)
        if learns and goal.certificate is not None and self.objective.plan.keeps_hessian:
            self._method = KeptHessian(goal, Newton(goal))
        self.reference = math.nan
        if goal.certificate is None:
            zero = np.zeros((self.objective.num_outputs, self.objective.num_features + 1))
            self.reference = self.objective.evaluate(zero).gradient_norm

    # -- states ----------------------------------------------------------------------------------------------------

    def init(self, theta: Array) -> State:
        """Return the state at some parameters."""
        state = self._moved(State(self.objective.evaluate(theta), None, Bound()))
        if not math.isfinite(state.at.value) and self.objective.can_promote:
            state = self._promoted(state)
        if self._learns and math.isfinite(state.at.value) and Beginning.suits(self.goal, state.at):
            self._method = Beginning(self.goal, self._method)
        return replace(state, method=self._method.init())

    def resume(
        self, at: Evaluation, best: Evaluation | None, proof: Evaluation | None, history: list[Any], pace: Pace
    ) -> State:
        """Return the state of an earlier run of the same fit; what it had proved is proved anew from `proof`."""
        method = pace if isinstance(self._method, Newton) else self._method.init()
        state = State(at, method, Bound(), best or at, tuple(history))
        for point in (proof, at):
            if point is not None:
                state = replace(state, bound=self._bound(state.bound, point))
        self._started -= history[-1]["seconds"]
        return state

    def _bound(self, bound: Bound, at: Evaluation) -> Bound:
        return bound if self.goal.certificate is None else bound.better(at, self.goal.certificate.gap(at).total)

    def _moved(self, state: State, at: Evaluation | None = None) -> State:
        at = at or state.at
        return replace(state, at=at, bound=self._bound(state.bound, at))

    def _promoted(self, state: State) -> State:
        """Change to float64 and evaluate the point anew; what float32 proved counts no longer."""
        self.objective.promote()
        return self._moved(replace(state, best=None, bound=Bound()), self.objective.evaluate(state.at.theta))

    def relative_gap(self, bound: Bound, at: Evaluation) -> float:
        """Return (f - D)/f with the better of a bound and the point's own; NaN without a certificate."""
        return math.nan if self.goal.certificate is None else self._bound(bound, at).relative_gap(at)

    def _is_done(self, state: State) -> bool:
        """Whether the point meets the tolerance."""
        if self.goal.certificate is None:
            return state.at.gradient_norm <= self.goal.tol * self.reference
        return state.bound.relative_gap(state.at) <= self.goal.tol

    def _recorded(self, state: State) -> State:
        """Add the point to the history."""
        at = state.at
        gap = self.relative_gap(state.bound, at)
        entry = {
            "iteration": len(state.history),
            "objective": at.value * self._scale,
            "gradient_norm": at.gradient_norm * self._scale,
            "duality_gap": None if math.isnan(gap) else gap,
            "evaluations": self.objective.evaluations,
            "hessian_products": self.objective.hessian_products,
            "seconds": time.perf_counter() - self._started,
        }
        best = at if state.best is None or at.value <= state.best.value else state.best
        return replace(state, best=best, history=(*state.history, entry))

    def step(self, state: State) -> tuple[State, bool]:
        """Return the state after an iteration, and whether the objective fell."""
        with np.errstate(over="ignore", invalid="ignore"):  # the line search takes no direction that overflows
            following, method = self._method.step(state.at, state.method)
        is_hindered = self.objective.can_promote and self._is_hindered(state.at, following)
        state = replace(state, method=method)
        if following is not None:
            state = self._moved(state, following)
        if is_hindered:
            state = self._promoted(state)
            state = replace(state, method=self._method.after_promotion(state.method))
        return (state, False) if following is None else (self._recorded(state), True)

    def _is_hindered(self, at: Evaluation, following: Evaluation | None) -> bool:
        """Whether float32's rounding may be why a step gained so little."""
        if following is None:
            return True
        resolved = ROUNDING * abs(at.value)
        if at.value - following.value > resolved:
            return False
        if self.goal.certificate is None:
            return True
        gap = self.goal.certificate.gap(following).weights
        return not resolved < gap < HINDERED * self.goal.certificate.gap(at).weights

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, state: State, keeper: Keeper | None = None) -> Result:
        """Go on from a state to the end; KeyboardInterrupt ends it at the best point so far."""
        if not math.isfinite(state.at.value):
            return self._finish(state, "not_finite")
        status = ""
        try:
            if not state.history:
                state = self._recorded(state)
                status = self._ask(state)
            while not status:
                if keeper is not None:
                    keeper.note(state, self.objective)
                if self._is_done(state):
                    if not self.objective.can_promote:
                        status = "converged"
                    else:
                        state = self._promoted(state)
                elif len(state.history) > self._max_iter:
                    status = "max_iter"
                else:
                    could_promote = self.objective.can_promote
                    state, has_moved = self.step(state)
                    status = self._ask(state) if has_moved else "" if could_promote else "rounding"
        except KeyboardInterrupt:
            status = "interrupted"
        if keeper is not None:
            keeper.close(finished=status == "converged")
        return self._finish(state, status)

    def _ask(self, state: State) -> str:
        """Report the last line of the history; return whether the callback asks to stop."""
        return "callback" if self._report is not None and self._report(dict(state.history[-1])) else ""

    def _finish(self, state: State, status: str) -> Result:
        """Return the result at the last point, or at the best one if the run was cut short."""
        if status != "converged" and state.best is not None and state.best.value < state.at.value:
            state = self._moved(state, state.best)
        if self.objective.can_promote or status == "interrupted":  # perhaps within the change to float64
            state = self._promoted(state)
        gap = self.relative_gap(state.bound, state.at)
        return Result(state.at, state.bound, gap, status, max(1, len(state.history) - 1), list(state.history))


def predicted_start(objective: Objective, earlier: Evaluation, latest: Evaluation, step: float) -> Array:
    """Return where to begin after two optima: `step` further along the line through them, if F, with the penalty that
    it has now, is less there than at the last optimum; else there."""
    here = latest.data_loss + objective.penalty.value(latest.theta[:, :-1])
    ahead = objective.evaluate(latest.theta + min(step, FURTHEST) * (latest.theta - earlier.theta))
    return ahead.theta if ahead.value < here else latest.theta
