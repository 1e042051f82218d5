"""The optimisers: truncated Newton for cross-entropy, preconditioned L-BFGS for every other loss.

Both take their steps in the metric of :class:`~crossent.sklearn.kronecker.KroneckerMetric`. Only NumPy's matrix
products are called: SciPy brings a BLAS of its own, whose threads would fight with NumPy's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from . import intercept
from .beginning import Beginning
from .certificate import Certificate
from .direct import DirectHessian
from .interface import Array, Evaluation, HessianProducts, Objective, row_blocks
from .kronecker import FeatureBasis, KroneckerMetric
from .lbfgs import PairMemory, num_pairs
from .objective import CACHE_BYTES, LinearObjective

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

ARMIJO = 1e-4
STEEP = 0.5
"""A line search goes on while the slope is more than this part of what it was,"""
UPHILL = 0.3
"""or has turned to more than this part of it uphill."""
FIRST_UPHILL = 0.02
"""So of a first step: where classes are far apart it can be several times too long, and leave no curvature behind."""
EPS = float(np.finfo(np.float64).eps)
NEGLIGIBLE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-9}
FURTHEST = 2.0
"""The farthest that a sweep looks ahead, in steps from the last optimum but one to the last."""
MAX_BACKTRACKS = 30
MAX_REFINEMENTS = 4
MAX_INNER = 1000
MAX_INNER_FLOAT32 = 100
MAX_POLISH = 8
METRIC_AGE = 10
ROUNDING = 1e-5
"""A relative decrease below this is within reach of float32's rounding: time for float64."""
OVERSAMPLING = 8.0
OVERSAMPLING_GROWTH = 4.0
SLOW = 0.6
"""A Newton step that leaves more than this part of the gradient saw too few rows."""
INNER_ROUNDING = 3e-3
"""Conjugate gradients on float32 products are not asked to shrink a residual further than this in one step."""


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
        self.dual = -math.inf
        self.reference = math.nan
        if certificate is None:
            zero = np.zeros((objective.num_outputs, objective.num_features + 1))
            self.reference = objective.evaluate(zero).gradient_norm

    def relative_gap(self, at: Evaluation) -> float:
        """Return (f - D)/f with the best dual bound seen so far, no less than float64 resolves; NaN without one."""
        if self.certificate is None:
            return math.nan
        gap = self.certificate.gap(at).total
        if math.isfinite(gap):
            self.dual = max(self.dual, at.value - gap)
        if at.value <= 0:
            return 0.0
        return max((at.value - self.dual) / at.value, EPS)

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

    def promote(self, at: Evaluation) -> Evaluation:
        """Change to float64 and return the point evaluated anew; what float32 proved counts no longer."""
        self.objective.promote()
        self.best, self.dual = None, -math.inf
        return self.objective.evaluate(at.theta)

    def continue_from(self, history: list[dict[str, Any]], best: Evaluation, dual: float) -> None:
        """Take over what an earlier run of the same fit recorded."""
        self.history, self.best, self.dual = list(history), best, dual
        self._started -= history[-1]["seconds"]

    def finish(self, at: Evaluation, status: str) -> Result:
        """Return the result at the last point, or at the best one if the run was cut short."""
        if status != "converged" and self.best is not None and self.best.value < at.value:
            at = self.best
        if self.objective.can_promote:
            at = self.promote(at)
        return Result(at, self.relative_gap(at), status, max(1, len(self.history) - 1), self.history)


def minimize(monitor: Monitor, theta: Array, checkpoint: Checkpoint | None = None) -> Result:
    """Minimise the monitored objective from `theta`, or from where a checkpoint left it; KeyboardInterrupt ends it at
    the best point so far.

    Products of float32 data change to float64 when a step gains no more than rounding could, and before the end: what
    is reported is always evaluated in float64.
    """
    objective = monitor.objective
    step: Step = _NewtonStep(monitor) if objective.is_cross_entropy else _QuasiNewtonStep(monitor)
    resumed = None if checkpoint is None else checkpoint.resume(monitor, step)
    at = objective.evaluate(theta) if resumed is None else resumed
    if not math.isfinite(at.value) and objective.can_promote:
        at = monitor.promote(at)
    if not math.isfinite(at.value):
        return monitor.finish(at, "not_finite")
    # What L-BFGS remembers is no part of a checkpoint.
    if checkpoint is None and isinstance(objective, LinearObjective) and Beginning.suits(objective, at):
        step = _FirstSteps(monitor, Beginning(objective), step)
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
            following = step(at)
            if following is None and not objective.can_promote:
                status = "rounding"
                break
            gained = 0.0 if following is None else at.value - following.value
            at = following or at
            if gained <= ROUNDING * abs(at.value) and objective.can_promote:
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


def line_search(objective: Objective, at: Evaluation, direction: Array, uphill: float = UPHILL) -> Evaluation | None:
    """Return a point that decreases F enough along a descent direction, or None if rounding lets none be found.

    Armijo's rule, from step length 1. Losses that saturate are flat, then steep: a full step can be far too short or
    far too long, and a second-order model says neither. So the search goes on, within `MAX_REFINEMENTS`, while the
    slope is still steep: by doubling beyond 1, by geometric means inside a bracket. Near the optimum differences of F
    drown in the logits' rounding, and the slope decides: of a convex F that falls by a share of at most `NEGLIGIBLE`,
    no step that halves the slope can rise by more (after Hager and Zhang 2005).
    """
    slope = at.slope(direction)
    if not slope < 0:
        return None
    negligible = NEGLIGIBLE[objective.dtype]
    best: Evaluation | None = None
    low, high = _Point(0.0, at.value, slope), _Point(math.inf, math.inf, math.nan)
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
            low = _Point(length, trial.value, trial_slope)
            if trial_slope >= STEEP * slope:
                break
        else:
            high = _Point(length, trial.value, trial_slope)
        if best is not None:
            if refinements == MAX_REFINEMENTS:
                break
            refinements += 1
            length = 2 * low.length if math.isinf(high.length) else _between(low, high)
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
    bend = low.slope + high.slope - 3 * (high.value - low.value) / width
    part = 0.5
    if high.slope > 0 and math.isfinite(bend):
        root = math.sqrt(bend * bend - low.slope * high.slope)
        part = 1 - (high.slope + root - bend) / (high.slope - low.slope + 2 * root)
    elif low.length > 0:
        part = (math.sqrt(low.length * high.length) - low.length) / width
    return low.length + width * min(0.9, max(0.1, part))


def _metric_sample(objective: Objective) -> int:
    """How many rows the Kronecker model is estimated from: dense, with their probabilities, within `CACHE_BYTES`."""
    wanted = max(4096, 8 * max(objective.num_outputs, objective.num_features))
    return max(1, min(wanted, CACHE_BYTES // (8 * (objective.num_outputs + objective.num_features))))


class Step(Protocol):
    """A way to get from one point to the next."""

    def forget(self) -> None:
        """The products' precision has changed."""

    def __call__(self, at: Evaluation) -> Evaluation | None:
        """Return where to go on, or None if no step reduces the objective."""


class _NewtonStep:
    """Truncated Newton: conjugate gradients on the Hessian of some rows, preconditioned by the Kronecker model.

    How many rows, or entries of p, `oversampling` decides (κ of the curvature module). It starts low and grows when a
    step did less than it should have. At W = 0 all rows have the same curvature, the model is the Hessian (of some
    rows), and no product is needed.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._objective = monitor.objective
        self._first_norm: float | None = None
        self._last_norm = math.inf
        self._steps = 0
        self.oversampling = OVERSAMPLING
        self._sample = _metric_sample(self._objective)

    def forget(self) -> None:
        """What float64 improves is worth every row."""
        self.oversampling *= OVERSAMPLING_GROWTH

    def __call__(self, at: Evaluation) -> Evaluation | None:
        objective = self._objective
        if isinstance(objective, LinearObjective) and DirectHessian.suits(objective):
            whole = DirectHessian.at(objective, at.theta)
            direction = whole.solve(-at.gradient)
            following = None if direction is None else line_search(objective, at, direction)
            if following is not None:
                return self._polish(following, whole)
        metric = KroneckerMetric.at(objective, at.theta, basis=FeatureBasis.shared(objective, self._sample))
        if self._steps and (polished := self._polish(at, metric)) is not at:
            return polished  # what float32 left of b's mismatch shows in float64, and needs no step of W
        if at.gradient_norm > SLOW * self._last_norm:
            self.oversampling *= OVERSAMPLING_GROWTH
        self._last_norm = at.gradient_norm
        self._steps += 1
        if not at.theta[:, :-1].any():  # all rows have the same curvature: the model lacks nothing but some rows
            following = line_search(objective, at, -metric.solve(at.gradient), FIRST_UPHILL)
            if following is not None:
                return following
        samples, share = objective.is_sizeable, 0.0
        while True:
            most_rows = self.oversampling * metric.effective_parameters if samples else math.inf
            hessian = objective.hessian(at.theta, most_rows / metric.curvature, self._steps, most_rows)
            metric = metric.with_outputs(hessian.outputs)
            uphill = FIRST_UPHILL if self._steps == 1 else UPHILL
            following = line_search(objective, at, self._direction(at, hessian, metric), uphill)
            if following is not None or hessian.share == 1.0:
                break
            samples = samples and hessian.share > share  # else memory allows no more, and products are made anew
            share = hessian.share
            self.oversampling *= OVERSAMPLING_GROWTH
        if following is None:
            return None
        return self._polish(following, metric)

    def _target_norm(self, at: Evaluation) -> float:
        """How small the residual of the Newton equation should be: loose early, and never beyond what tol needs."""
        norm = at.gradient_norm
        if self._first_norm is None:
            self._first_norm = norm
        forcing = min(0.25, (norm / self._first_norm) ** 0.2) if self._first_norm > 0 else 0.25
        needed = 0.0
        if self._monitor.certificate is not None:
            # ‖ρ‖²/(2λ) is what a residual ρ leaves of the gap after the step; aim at a tenth of what is allowed.
            needed = math.sqrt(0.2 * self._objective.penalty * self._monitor.tol * abs(at.value))
        attainable = INNER_ROUNDING if self._objective.can_promote else 0.0
        return max(forcing * norm, min(needed, 0.5 * norm), attainable * norm)

    def _direction(self, at: Evaluation, hessian: HessianProducts, metric: KroneckerMetric) -> Array:
        """Solve ∇²F d = -∇F approximately."""
        limit = self._target_norm(at)
        residual = at.gradient
        np.negative(residual, out=residual)
        solution = np.zeros_like(residual)
        search = preconditioned = metric.solve(residual)
        product = float(np.vdot(residual, preconditioned))
        most = MAX_INNER_FLOAT32 if self._objective.can_promote else MAX_INNER
        for iteration in range(min(most, 10 + 2 * residual.size)):
            applied = hessian @ search
            curvature = float(np.vdot(search, applied))
            if not curvature > 0:
                return solution if iteration else preconditioned
            length = product / curvature
            for rows in row_blocks(solution):
                solution[rows] += length * search[rows]
                residual[rows] -= length * applied[rows]
            if np.sqrt(np.vdot(residual, residual)) <= limit:
                break
            del applied
            preconditioned = metric.solve(residual)
            previous, product = product, float(np.vdot(residual, preconditioned))
            if not product > 0:
                break
            search *= product / previous
            search += preconditioned
        return solution

    def _polish(self, at: Evaluation, metric: KroneckerMetric | DirectHessian) -> Evaluation:
        """Move b alone while it is b that stands between W and a proof."""
        certificate = self._monitor.certificate
        if certificate is None or not self._objective.fit_intercept:
            return at
        allowed = self._monitor.tol * abs(at.value)
        for _ in range(MAX_POLISH):
            gap = certificate.gap(at)
            if gap.total <= allowed or gap.weights > allowed:
                break
            if intercept.suits(self._objective):
                theta = intercept.minimize(self._objective, at)
            else:
                theta = at.theta.copy()
                theta[:, -1] -= metric.solve_intercept(at.bias_gradient)
            trial = self._objective.evaluate(theta)
            if not certificate.gap(trial).total < gap.total:
                break
            at = trial
        return at


class _FirstSteps:
    """The steps of a :class:`~crossent.sklearn.beginning.Beginning`, then others."""

    def __init__(self, monitor: Monitor, beginning: Beginning, then: Step) -> None:
        self._monitor, self._then = monitor, then
        self._beginning: Beginning | None = beginning

    def forget(self) -> None:
        self._then.forget()

    def __call__(self, at: Evaluation) -> Evaluation | None:
        if self._beginning is None:
            return self._then(at)
        following = line_search(self._monitor.objective, at, self._beginning.direction(at))
        gap = math.nan if following is None else self._monitor.relative_gap(following)
        if self._beginning.is_over(at, following, gap):
            self._beginning = None
        return self._then(at) if following is None else following


class _QuasiNewtonStep:
    """L-BFGS whose initial matrix is the inverse of the Kronecker model of cross-entropy, scaled to the loss."""

    def __init__(self, monitor: Monitor) -> None:
        self._objective = monitor.objective
        self._sample = _metric_sample(self._objective)
        self.forget()

    def forget(self) -> None:
        """Drop the history of steps and the metric."""
        self._pairs = PairMemory(num_pairs(self._objective))
        self._metric: KroneckerMetric | None = None
        self._age = 0

    def __call__(self, at: Evaluation) -> Evaluation | None:
        if self._metric is None or self._age >= METRIC_AGE:
            basis = FeatureBasis.shared(self._objective, self._sample)
            self._metric = KroneckerMetric.at(self._objective, at.theta, basis=basis)
            self._age = 0
        self._age += 1
        following = line_search(self._objective, at, self._pairs.direction(at.gradient, self._metric.solve))
        if following is None and self._pairs:
            self._pairs.clear()
            following = line_search(self._objective, at, self._pairs.direction(at.gradient, self._metric.solve))
        if following is not None:
            self._pairs.add(following.theta - at.theta, following.gradient - at.gradient)
        return following
