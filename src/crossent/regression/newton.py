"""Newton's method for cross-entropy: conjugate gradients on products, or a linear system where parameters are few."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .arrays import Array, row_blocks
from .interface import Evaluation, HessianProducts
from .line_search import EXACT, FIRST_UPHILL, UPHILL, line_search
from .method import Goal, Pace
from .preconditioner import FeatureBasis, KroneckerMetric

__all__ = ["Newton"]


@dataclass(frozen=True)
class Newton:
    """Truncated Newton: conjugate gradients on the Hessian of some rows, preconditioned by the Kronecker model.

    The oversampling (κ of the hessian module) decides how many rows, or entries of p, are drawn. It starts low and
    grows when a step did less than it should have. At W = 0 all rows have the same curvature, the model is the Hessian
    (of some rows), and no product is needed.
    """

    goal: Goal

    def init(self) -> Pace:
        """Return the state of a fit that has taken no step."""
        return Pace(oversampling=self.goal.objective.plan.oversampling)

    def after_promotion(self, state: Pace) -> Pace:
        """What float64 improves is worth every row."""
        return self._drawing_more(state)

    def _drawing_more(self, pace: Pace) -> Pace:
        return pace._replace(oversampling=self.goal.objective.plan.oversampling_growth * pace.oversampling)

    def step(self, at: Evaluation, pace: Pace) -> tuple[Evaluation | None, Pace]:
        """Take a step of W and b, or of b alone where that is what is missing."""
        objective, plan = self.goal.objective, self.goal.objective.plan
        if plan.forms_hessian and (following := self._linear_system(at)) is not None:
            return following, pace
        metric = KroneckerMetric.at(objective, at.theta, FeatureBasis.shared(objective))
        if (polished := self._polish(at, metric)) is not at:
            return polished, pace  # what L-BFGS or float32 left of b's mismatch, and needs no step of W
        if at.gradient_norm > plan.slow * pace.last_norm:
            pace = self._drawing_more(pace)
        pace = pace._replace(last_norm=at.gradient_norm, steps=pace.steps + 1)
        if not at.theta[:, :-1].any():  # all rows have the same curvature: the model lacks nothing but some rows
            following = line_search(objective, at, -metric.solve(at.gradient), FIRST_UPHILL)
            if following is not None:
                return following, pace
        samples, share = plan.leaves_out, 0.0
        while True:
            most_rows = pace.oversampling * metric.effective_parameters if samples else math.inf
            hessian = objective.hessian(at.theta, most_rows / metric.curvature, pace.steps, most_rows)
            metric = metric.with_outputs(hessian.outputs)
            limit, pace = self._target_norm(at, pace)
            uphill = FIRST_UPHILL if pace.steps == 1 else UPHILL
            following = line_search(objective, at, self._direction(at, hessian, metric, limit), uphill)
            if following is not None or hessian.share == 1.0:
                break
            samples = samples and hessian.share > share  # else memory allows no more, and products are made anew
            share = hessian.share
            pace = self._drawing_more(pace)
        return None if following is None else self._polish(following, metric), pace

    def _linear_system(self, at: Evaluation) -> Evaluation | None:
        """Return where the step with the whole Hessian leads, or None if it leads nowhere."""
        direction = self.goal.objective.whole_hessian(at.theta).solve(-at.gradient)
        return None if direction is None else line_search(self.goal.objective, at, direction, steep=EXACT)

    def _target_norm(self, at: Evaluation, pace: Pace) -> tuple[float, Pace]:
        """Return how small the residual of the Newton equation should be: loose early, never beyond what tol needs."""
        objective, norm = self.goal.objective, at.gradient_norm
        first = norm if math.isinf(pace.first_norm) else pace.first_norm
        forcing = min(0.25, (norm / first) ** 0.2) if first > 0 else 0.25
        needed = 0.0
        if self.goal.certificate is not None:
            # ‖ρ‖²/(2λ) is what a residual ρ leaves of the gap after the step; aim at a tenth of what is allowed.
            needed = math.sqrt(0.2 * objective.penalty.curvature * self.goal.allowed(at))
        attainable = objective.plan.attainable if objective.can_promote else 0.0
        return max(forcing * norm, min(needed, 0.5 * norm), attainable * norm), pace._replace(first_norm=first)

    def _direction(self, at: Evaluation, hessian: HessianProducts, metric: KroneckerMetric, limit: float) -> Array:
        """Solve ∇²F d = -∇F by conjugate gradients until the residual's norm is at most `limit`."""
        objective, plan = self.goal.objective, self.goal.objective.plan
        residual = at.gradient
        np.negative(residual, out=residual)
        solution = np.zeros_like(residual)
        search = preconditioned = metric.solve(residual)
        product = float(np.vdot(residual, preconditioned))
        most = plan.most_products_float32 if objective.can_promote else plan.most_products
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

    def _polish(self, at: Evaluation, metric: KroneckerMetric) -> Evaluation:
        """Move b alone while it is b that stands between W and a proof."""
        objective, certificate = self.goal.objective, self.goal.certificate
        if certificate is None or not objective.fit_intercept:
            return at
        allowed = self.goal.allowed(at)
        for _ in range(objective.plan.most_polish):
            gap = certificate.gap(at)
            if gap.total <= allowed or gap.weights > allowed:
                break
            trial = objective.evaluate(self._with_other_intercept(at, metric))
            if not certificate.gap(trial).total < gap.total:
                break
            at = trial
        return at

    def _with_other_intercept(self, at: Evaluation, metric: KroneckerMetric) -> Array:
        if self.goal.objective.plan.moves_intercept_alone:
            return self.goal.objective.best_intercept(at)
        theta = at.theta.copy()
        theta[:, -1] -= metric.solve_intercept(at.bias_gradient)
        return theta
