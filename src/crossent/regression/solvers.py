"""The optimisers' loop: certify, record, step; Newton's method for cross-entropy, L-BFGS for every other loss.

Only NumPy's matrix products are called: SciPy brings a BLAS of its own, whose threads would fight with NumPy's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import direct
from .beginning import Beginning
from .certificate import Certificate
from .interface import Array, Evaluation, Objective
from .newton import DirectStep, FirstSteps, NewtonStep, QuasiNewtonStep, Step
from .objective import LinearObjective

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

EPS = float(np.finfo(np.float64).eps)
FURTHEST = 2.0
"""The farthest that a sweep looks ahead, in steps from the last optimum but one to the last."""
ROUNDING = 1e-5
"""A relative decrease or gap below this is within reach of float32's rounding: time for float64,"""
HINDERED = 0.25
"""unless the decrease alone is, and the gap, which the gradient decides, falls to less than this part."""


@dataclass
class Result:
    """Where an optimiser stopped, and why.

    `status` is "converged", "max_iter", "rounding" (no step reduces the objective any more), "callback",
    "interrupted" or "not_finite".
    """

    at: Evaluation
    gap: float  # relative: (f - D)/f; NaN without a certificate
    status: str
    iterations: int
    history: list[dict[str, Any]] = field(default_factory=list)


class Monitor:
    """Watches a run: certifies, records, reports, and remembers the best point.

    Parameters
    ----------
    objective : Objective
    certificate : Certificate or None
        None stops by the gradient norm, relative to that at ``W = 0, b = 0``.
    tol : float
    max_iter : int
    scale : float
        What turns the solver's normalised objective into the user's.
    report : callable or None
        Called with every history entry; a true result stops the run.
    """

    def __init__(
        self,
        objective: Objective,
        certificate: Certificate | None,
        tol: float,
        max_iter: int,
        scale: float = 1.0,
        report: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.objective = objective
        self.certificate = certificate
        self.tol = tol
        self.max_iter = max_iter
        self._scale = scale
        self._report = report
        self._started = time.perf_counter()
        self.history: list[dict[str, Any]] = []
        self.best: Evaluation | None = None
        self._dual = -math.inf
        self.bound: Array | None = None
        """Where the best dual bound so far was computed."""
        self.reference = math.nan
        if certificate is None:
            zero = np.zeros((objective.num_outputs, objective.num_features + 1))
            self.reference = objective.evaluate(zero).gradient_norm

    def relative_gap(self, at: Evaluation) -> float:
        """Return (f - D)/f with the best dual bound seen so far, no less than float64 resolves; NaN without one.

        A bound above f, by more than rounding, bounds nothing: that of this point takes its place.
        """
        if self.certificate is None:
            return math.nan
        gap = self.certificate.gap(at).total
        if math.isfinite(gap) and not at.value - gap <= self._dual <= at.value * (1 + 16 * EPS):
            self._dual, self.bound = at.value - gap, at.theta
        if at.value <= 0:
            return 0.0
        return max((at.value - self._dual) / at.value, EPS)

    def is_done(self, at: Evaluation) -> bool:
        """Whether `at` meets the tolerance."""
        if self.certificate is None:
            return at.gradient_norm <= self.tol * self.reference
        return self.relative_gap(at) <= self.tol

    def record(self, at: Evaluation) -> bool:
        """Add a point to the history; return whether the callback asks to stop."""
        if self.best is None or at.value <= self.best.value:
            self.best = at
        gap = self.relative_gap(at)
        entry = {
            "iteration": len(self.history),
            "objective": at.value * self._scale,
            "gradient_norm": at.gradient_norm * self._scale,
            "duality_gap": None if math.isnan(gap) else gap,
            "evaluations": self.objective.evaluations,
            "hessian_products": self.objective.hessian_products,
            "seconds": time.perf_counter() - self._started,
        }
        self.history.append(entry)
        return self._report is not None and bool(self._report(dict(entry)))

    def is_hindered(self, at: Evaluation, following: Evaluation | None) -> bool:
        """Whether float32's rounding may be why a step gained so little."""
        if following is None:
            return True
        resolved = ROUNDING * abs(at.value)
        if at.value - following.value > resolved:
            return False
        if self.certificate is None:
            return True
        gap = self.certificate.gap(following).weights
        return not resolved < gap < HINDERED * self.certificate.gap(at).weights

    def promote(self, at: Evaluation) -> Evaluation:
        """Change to float64 and return the point evaluated anew; what float32 proved counts no longer."""
        self.best, self._dual, self.bound = None, -math.inf, None
        self.objective.promote()
        return self.objective.evaluate(at.theta)

    def continue_from(self, history: list[dict[str, Any]], best: Evaluation, bound: Evaluation | None) -> None:
        """Take over what an earlier run of the same fit recorded, and prove anew what it had proved."""
        self.history, self.best = list(history), best
        if bound is not None:
            self.relative_gap(bound)
        self._started -= history[-1]["seconds"]

    def finish(self, at: Evaluation, status: str) -> Result:
        """Return the result at the last point, or at the best one if the run was cut short."""
        if status != "converged" and self.best is not None and self.best.value < at.value:
            at = self.best
        if self.objective.can_promote or status == "interrupted":  # perhaps within the change to float64
            at = self.promote(at)
        return Result(at, self.relative_gap(at), status, max(1, len(self.history) - 1), self.history)


def minimize(monitor: Monitor, theta: Array, checkpoint: Checkpoint | None = None) -> Result:
    """Minimise the monitored objective from `theta`, or from where a checkpoint left it; KeyboardInterrupt ends it at
    the best point so far.

    Products in float32 change to float64 when rounding may be what stands in the way, and before the end: what is
    reported is always evaluated in float64.
    """
    objective = monitor.objective
    in_memory = objective if isinstance(objective, LinearObjective) else None
    step: Step
    if not objective.is_cross_entropy:
        step = QuasiNewtonStep(monitor)
    elif in_memory is not None and direct.suits(in_memory):
        step = DirectStep(monitor, may_keep=checkpoint is None)
    else:
        step = NewtonStep(monitor)
    resumed = None if checkpoint is None else checkpoint.resume(monitor, step)
    at = objective.evaluate(theta) if resumed is None else resumed
    if not math.isfinite(at.value) and objective.can_promote:
        at = monitor.promote(at)
    if not math.isfinite(at.value):
        return monitor.finish(at, "not_finite")
    # What L-BFGS remembers is no part of a checkpoint.
    if checkpoint is None and in_memory is not None and Beginning.suits(in_memory, at):
        step = FirstSteps(monitor, Beginning(in_memory), step)
    status = ""
    try:
        if resumed is None:
            status = "callback" if monitor.record(at) else ""
        while not status:
            if checkpoint is not None:
                checkpoint.note(monitor, step, at)
            if monitor.is_done(at):
                if not objective.can_promote:
                    status = "converged"
                else:
                    at = monitor.promote(at)
                continue
            if len(monitor.history) > monitor.max_iter:
                status = "max_iter"
                break
            with np.errstate(over="ignore", invalid="ignore"):  # the line search takes no direction that overflows
                following = step(at)
            if following is None and not objective.can_promote:
                status = "rounding"
                break
            is_hindered = objective.can_promote and monitor.is_hindered(at, following)
            at = following or at
            if is_hindered:
                at = monitor.promote(at)
                step.forget()
            if following is not None and monitor.record(at):
                status = "callback"
    except KeyboardInterrupt:
        status = "interrupted"
    if checkpoint is not None:
        checkpoint.close(finished=status == "converged")
    return monitor.finish(at, status)


def predicted_start(objective: Objective, earlier: Evaluation, latest: Evaluation, step: float) -> Array:
    """Return where to begin after two optima: `step` further along the line through them, if F, with the penalty that
    it has now, is less there than at the last optimum; else there."""
    weight = latest.theta[:, :-1]
    here = latest.data_loss + 0.5 * objective.penalty * float(np.vdot(weight, weight))
    ahead = objective.evaluate(latest.theta + min(step, FURTHEST) * (latest.theta - earlier.theta))
    return ahead.theta if ahead.value < here else latest.theta
