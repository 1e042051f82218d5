"""Newton's method for tables of a few hundred rows, whose calls cost more than their arithmetic.

What a step needs comes from one pass of plain NumPy over all rows, in float64. Its value loses digits where a model is
sure of its rows, so it only leads somewhere: where it ends is evaluated and certified like any other point.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import direct
from .interface import Array, Evaluation
from .objective import LinearObjective
from .steps import DirectStep

if TYPE_CHECKING:
    from .solvers import Monitor

__all__ = ["SmallStep", "suits"]

MOST_WORK = 1 << 23
"""Multiplications in a Hessian."""
MAX_HALVINGS = 20
ARMIJO = 1e-4
ENOUGH = 0.5
"""Of the gap that is allowed: what rounding may add to it is left over."""


def suits(monitor: Monitor, objective: LinearObjective) -> bool:
    """Whether a table is so small."""
    return (
        monitor.certificate is not None
        and not objective.is_sizeable
        and objective.holds_columns
        and (objective.link == "softmax" or objective.num_outputs == 1)
        and direct.suits(objective)
        and direct.work(objective) <= MOST_WORK
    )


class _Point(NamedTuple):
    at: Evaluation
    gradient: Array  # ∇F
    p: Array  # softmax: (N, K); sigmoid: (N, 1)


class SmallStep(DirectStep):
    """All of Newton's steps as one, and then `DirectStep`'s if anything is left to do."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__(monitor, may_keep=False)
        self._is_new = True

    def __call__(self, at: Evaluation) -> Evaluation | None:
        if not self._is_new:
            return super().__call__(at)
        self._is_new = False
        table = _Table(self._monitor, self._objective, at.theta)
        try:
            table.descend()
        except KeyboardInterrupt:
            self._monitor.remember(self._objective.evaluate(table.theta))
            raise
        following = self._objective.evaluate(table.theta)
        return following if following.value < at.value else super().__call__(at)


class _Table:
    """All rows of an objective, with what does not change from point to point; and `theta`, the best point so far."""

    def __init__(self, monitor: Monitor, objective: LinearObjective, theta: Array) -> None:
        self._monitor, self._objective, self.theta = monitor, objective, theta
        self._softmax = objective.link == "softmax"
        everything = slice(0, objective.num_rows)
        self._columns = np.ones((objective.num_rows, objective.num_features + objective.fit_intercept))
        self._columns[:, : objective.num_features] = objective.held_columns
        weight = objective.row_weight[:, None]
        target, tau = objective.target.dense(everything)
        self._target = weight * target
        self._mass = weight * tau.reshape(len(tau), -1)
        self._moments = self._target.T @ self._columns

    def evaluate(self, theta: Array) -> _Point:
        """Return F, its gradient and the probabilities."""
        k, d = len(theta), self._columns.shape[1]
        logits = self._columns @ theta[:, :d].T
        if self._softmax:
            top = logits.max(axis=1, keepdims=True)
            p = np.exp(logits - top)
            total = p.sum(axis=1, keepdims=True)
            p /= total
            log_normalizers = np.log(total) + top
        else:
            log_normalizers = np.logaddexp(0.0, logits)
            p = np.exp(logits - log_normalizers)
        loss = float(np.vdot(self._mass, log_normalizers)) - float(np.vdot(self._moments, theta[:, :d]))
        data_gradient = np.zeros((k, self._objective.num_features + 1))
        data_gradient[:, :d] = (self._mass * p - self._target).T @ self._columns
        at = Evaluation.penalised(theta, loss, data_gradient, self._objective.penalty)
        self._objective.evaluations += 1
        return _Point(at, at.gradient, p)

    def hessian(self, p: Array) -> direct.DirectHessian:
        """Return ∇²F."""
        rows, k = p.shape
        d = self._columns.shape[1]
        if self._softmax:
            roots = p * np.sqrt(self._mass)
            scaled = (roots[:, :, None] * self._columns[:, None, :]).reshape(rows, k * d)
            blocks = direct.with_diagonal(-(scaled.T @ scaled).reshape(k, d, k, d))
        else:
            scaled = np.sqrt(self._mass * p * (1 - p)) * self._columns
            blocks = (scaled.T @ scaled)[None]
        return direct.DirectHessian.penalised(blocks, self._objective.penalty, self._objective.num_features)

    def descend(self) -> None:
        """Take Newton's steps until the gap is small enough, as many as the fit may take, or as anybody watching lets
        it."""
        monitor, certificate = self._monitor, self._monitor.certificate
        assert certificate is not None
        point, is_first = self.evaluate(self.theta), True
        while (gap := certificate.gap(point.at).total) > ENOUGH * monitor.tol * abs(point.at.value):
            if not is_first:
                relative = gap / point.at.value if point.at.value > 0 else 0.0
                monitor.note(point.at.value, math.sqrt(np.vdot(point.gradient, point.gradient)), relative)
            if monitor.is_stopped or len(monitor.history) >= monitor.max_iter:
                break
            direction = self.hessian(point.p).solve(-point.gradient)
            following = None if direction is None else self._search(point, direction)
            if following is None:
                break
            point, is_first = following, False
            self.theta = point.at.theta

    def _search(self, point: _Point, direction: Array) -> _Point | None:
        slope, length = float(np.vdot(point.gradient, direction)), 1.0
        if not slope < 0:
            return None
        for _ in range(MAX_HALVINGS):
            trial = self.evaluate(point.at.theta + length * direction)
            if trial.at.value - point.at.value <= ARMIJO * length * slope:
                return trial
            length *= 0.5
        return None
