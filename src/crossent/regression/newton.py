"""Ways to get from one point of a fit to the next: truncated Newton, a whole Hessian, L-BFGS for every other loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from . import intercept
from .beginning import Beginning
from .direct import DirectHessian, HessianSums
from .interface import Array, Evaluation, HessianProducts, Objective, row_blocks
from .lbfgs import PairMemory, num_pairs
from .line_search import EXACT, FIRST_UPHILL, LOOSE, STEEP, UPHILL, line_search
from .objective import CACHE_BYTES, LinearObjective
from .preconditioner import FeatureBasis, KroneckerMetric

if TYPE_CHECKING:
    from .solvers import Monitor

__all__ = ["DirectStep", "FirstSteps", "NewtonStep", "Pace", "QuasiNewtonStep", "Step"]

MAX_INNER = 1000
MAX_INNER_FLOAT32 = 100
MAX_POLISH = 8
METRIC_AGE = 10
TINY = float(np.finfo(np.float64).tiny)
OVERSAMPLING = 8.0
OVERSAMPLING_GROWTH = 4.0
SLOW = 0.6
"""A Newton step that leaves more than this part of the gradient saw too few rows."""
INNER_ROUNDING = 3e-3
"""Conjugate gradients on float32 products are not asked to shrink a residual further than this in one step."""
FAST = 2.0
"""A Hessian is kept while each pass since divides the gap by this."""


def _metric_sample(objective: Objective) -> int:
    """How many rows the Kronecker model is estimated from: dense, with their probabilities, within `CACHE_BYTES`."""
    wanted = max(4096, 8 * max(objective.num_outputs, objective.num_features))
    return max(1, min(wanted, CACHE_BYTES // (8 * (objective.num_outputs + objective.num_features))))


class Pace(NamedTuple):
    """What one step of Newton's method hands to the next, and a checkpoint keeps."""

    first_norm: float = math.inf  # of the gradient at the first step that solved an equation
    last_norm: float = math.inf  # of the gradient at the last step
    steps: int = 0
    oversampling: float = OVERSAMPLING


class Step(Protocol):
    """A way to get from one point to the next."""

    pace: Pace
    """L-BFGS, which begins anew after a checkpoint, leaves it as it is."""

    def forget(self) -> None:
        """The products' precision has changed."""

    def __call__(self, at: Evaluation) -> Evaluation | None:
        """Return where to go on, or None if no step reduces the objective."""


class NewtonStep:
    """Truncated Newton: conjugate gradients on the Hessian of some rows, preconditioned by the Kronecker model.

    The oversampling (κ of the hessian module) decides how many rows, or entries of p, are drawn. It starts low and
    grows when a step did less than it should have. At W = 0 all rows have the same curvature, the model is the Hessian
    (of some rows), and no product is needed.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._objective = monitor.objective
        self.pace = Pace()
        self._sample = _metric_sample(self._objective)

    def forget(self) -> None:
        """What float64 improves is worth every row."""
        self._draw_more()

    def _draw_more(self) -> None:
        self.pace = self.pace._replace(oversampling=OVERSAMPLING_GROWTH * self.pace.oversampling)

    def __call__(self, at: Evaluation) -> Evaluation | None:
        objective = self._objective
        metric = KroneckerMetric.at(objective, at.theta, basis=FeatureBasis.shared(objective, self._sample))
        if (polished := self._polish(at, metric)) is not at:
            return polished  # what L-BFGS or float32 left of b's mismatch, and needs no step of W
        if at.gradient_norm > SLOW * self.pace.last_norm:
            self._draw_more()
        self.pace = self.pace._replace(last_norm=at.gradient_norm, steps=self.pace.steps + 1)
        if not at.theta[:, :-1].any():  # all rows have the same curvature: the model lacks nothing but some rows
            following = line_search(objective, at, -metric.solve(at.gradient), FIRST_UPHILL)
            if following is not None:
                return following
        samples, share = objective.is_sizeable, 0.0
        while True:
            most_rows = self.pace.oversampling * metric.effective_parameters if samples else math.inf
            hessian = objective.hessian(at.theta, most_rows / metric.curvature, self.pace.steps, most_rows)
            metric = metric.with_outputs(hessian.outputs)
            uphill = FIRST_UPHILL if self.pace.steps == 1 else UPHILL
            following = line_search(objective, at, self._direction(at, hessian, metric), uphill)
            if following is not None or hessian.share == 1.0:
                break
            samples = samples and hessian.share > share  # else memory allows no more, and products are made anew
            share = hessian.share
            self._draw_more()
        if following is None:
            return None
        return self._polish(following, metric)

    def _target_norm(self, at: Evaluation) -> float:
        """How small the residual of the Newton equation should be: loose early, and never beyond what tol needs."""
        norm = at.gradient_norm
        if math.isinf(self.pace.first_norm):
            self.pace = self.pace._replace(first_norm=norm)
        first = self.pace.first_norm
        forcing = min(0.25, (norm / first) ** 0.2) if first > 0 else 0.25
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


class DirectStep(NewtonStep):
    """Newton's method with the whole Hessian, which is kept for some steps where forming it takes most of the time:
    L-BFGS corrects it by what the gradient has changed since.

    Parameters
    ----------
    monitor : Monitor
    may_keep : bool
        Whether a Hessian may be kept at all; a checkpoint does not hold it.
    """

    def __init__(self, monitor: Monitor, may_keep: bool) -> None:
        super().__init__(monitor)
        assert isinstance(self._objective, LinearObjective)
        self._hessians = HessianSums(self._objective)
        self._may_keep = may_keep and monitor.certificate is not None and self._hessians.is_costly
        self._kept: tuple[DirectHessian, Callable[[Array], Array]] | None = None
        self._pairs = PairMemory(num_pairs(self._objective))

    def __call__(self, at: Evaluation) -> Evaluation | None:
        if self._kept is not None and (following := self._with_pairs(at, *self._kept)) is not None:
            return following
        whole = self._hessians.at(at.theta)
        direction = whole.solve(-at.gradient)
        steep = STEEP if self._may_keep else EXACT
        following = None if direction is None else line_search(self._objective, at, direction, steep=steep)
        if following is None:
            return super().__call__(at)
        if self._may_keep and (solve := whole.inverse()) is not None:
            self._kept = whole, solve
            self._pairs.clear()
            self._pairs.add(following.theta - at.theta, following.gradient - at.gradient)
        return self._polish(following, whole) if self._hessians.is_costly else following  # else a step costs as little

    def _with_pairs(self, at: Evaluation, whole: DirectHessian, solve: Callable[[Array], Array]) -> Evaluation | None:
        """Take a step with the Hessian of an earlier point and its inverse, and forget them if that gains little."""
        passes = self._objective.evaluations
        following = line_search(self._objective, at, self._pairs.direction(at.gradient, solve))
        passes = self._objective.evaluations - passes
        if following is None or self._gap(following) * FAST**passes > self._gap(at):
            self._kept = None
        if following is None:
            return None
        self._pairs.add(following.theta - at.theta, following.gradient - at.gradient)
        return self._polish(following, whole)

    def _gap(self, at: Evaluation) -> float:
        certificate = self._monitor.certificate
        assert certificate is not None
        return certificate.gap(at).total


class FirstSteps:
    """The steps of a :class:`~crossent.regression.beginning.Beginning`, then others."""

    def __init__(self, monitor: Monitor, beginning: Beginning, then: Step) -> None:
        self._monitor, self._then = monitor, then
        self.pace = then.pace
        self._beginning: Beginning | None = beginning

    def forget(self) -> None:
        self._then.forget()

    def __call__(self, at: Evaluation) -> Evaluation | None:
        if self._beginning is None:
            return self._then(at)
        following = line_search(self._monitor.objective, at, self._beginning.direction(at), LOOSE, LOOSE)
        if following is None:
            self._beginning = None
            return self._then(at)
        certificate = self._monitor.certificate
        assert certificate is not None
        allowed = self._monitor.tol * max(abs(following.value), TINY)
        if self._beginning.is_over(at, following, certificate.gap(following), allowed):
            self._beginning = None
        return following


class QuasiNewtonStep:
    """L-BFGS whose initial matrix is the inverse of the Kronecker model of cross-entropy, scaled to the loss."""

    def __init__(self, monitor: Monitor) -> None:
        self._objective = monitor.objective
        self.pace = Pace()
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
