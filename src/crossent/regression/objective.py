"""The objective of a linear model: ``F(W, b) = Σ_i c_i ℓ(W x_i + b, t_i) + R(W)`` with row weights c, penalty R.

An evaluation is one pass over `BlockedRows`: the logits of a block are written into a buffer, a kernel replaces them by
their gradient, and two matrix products take it from there. A single logit of cross-entropy has a kernel for both
products, which reads each row once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.kernels import registry

from . import intercept
from .arrays import Array
from .blocks import BlockedRows, WorkingParameters, Workspace
from .certificate import dual_sums
from .direct import DirectHessian
from .hessian import Hessian
from .interface import DualSums, Evaluation, Objective
from .rows import NEGLIGIBLE, drop_negligible, losses_and_gradient
from .targets import EncodedTarget

__all__ = ["LinearObjective", "rows_like"]


class LinearObjective(BlockedRows):
    """F of rows that this process holds or reads; parameters are those of `BlockedRows`."""

    def reweigh(self, row_weight: Array, target: EncodedTarget) -> None:
        """Give the rows other weights, some of them 0, and their targets other class weights.

        The centred columns are kept, which need no exact mean.
        """
        self.row_weight, self.target = row_weight, target
        self.num_counted = int(np.count_nonzero(row_weight))
        self._made.clear()

    def evaluate(self, theta: Array) -> Evaluation:
        """Return F and its gradient at `theta`, in one pass."""
        self.evaluations += 1
        self._note_pass()
        one_logit = self.is_cross_entropy and self.link == "sigmoid" and self.num_outputs == 1
        add = self._add_logistic if one_logit else self._add_products
        gradient, data_loss = self.sum_arrays(partial(add, self.working(theta)), theta.shape)
        return Evaluation.penalised(theta, data_loss, gradient, self.penalty)

    def _add_products(self, working: WorkingParameters, workspace: Workspace, rows: slice, total: Array) -> float:
        columns = self.columns(workspace, rows)
        logits = self.logits(workspace, working, columns)
        weight = self.row_weight[rows]
        losses = losses_and_gradient(self.target.take(rows), logits, self.loss, weight)
        np.matmul(drop_negligible(logits).T, columns, out=workspace.product)
        total[:, :-1] += workspace.product
        if self.fit_intercept:
            # A product with ones is the quickest sum over rows. Few outputs are added up in float64; to convert many
            # takes as long as their exponentials.
            dtype = np.float64 if self.num_outputs <= self.plan.double_outputs else logits.dtype
            total[:, -1] += np.ones(len(logits), dtype) @ logits
        return float(weight @ losses)

    def _add_logistic(self, working: WorkingParameters, workspace: Workspace, rows: slice, total: Array) -> float:
        value: float = registry.find(self.dtype).logistic_value_grad(
            self.columns(workspace, rows),
            working.weight[0],
            working.bias[0],
            self.target.for_kernels(self.dtype, rows),
            self.row_weight[rows],
            NEGLIGIBLE[self.dtype],
            total[0],
        )
        if not self.fit_intercept:
            total[0, -1] = 0.0
        return value

    def hessian(self, theta: Array, sampling: float = np.inf, step: int = 0, most_rows: float = np.inf) -> Hessian:
        """Return what multiplies by ∇²F at `theta`; `Hessian` says what the arguments mean."""
        return Hessian(self, theta, sampling, step, most_rows)

    def whole_hessian(self, theta: Array) -> DirectHessian:
        """Return ∇²F of the softmax link, or of one logit, at `theta` as a matrix."""
        return DirectHessian.at(self, theta)

    def best_intercept(self, at: Evaluation) -> Array:
        """Return θ (K, D + 1) of the same W and of the b that minimises F, as far as working precision tells."""
        return intercept.minimize(self, at)

    def second_moments(self) -> Array:
        """Return ``Σ_i c_i x_ij² / Σ_i c_i`` (D,)."""

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            total += self.row_weight[rows] @ np.square(self.columns(workspace, rows))
            return 0.0

        return self.sum_arrays(work, (self.num_features,))[0] / self.row_weight.sum()

    def dual_sums(self) -> DualSums:
        """Return the constants of the dual, in one pass."""
        return dual_sums(self)

    def sample(self, count: int | None) -> tuple[LinearObjective, int]:
        """Return about `count` evenly spaced rows (None: all), centred as these are, and how many each stands for."""
        stride = 1 if count is None else max(1, self.num_rows // max(1, count))
        return self.every(stride), stride

    def every(self, stride: int) -> LinearObjective:
        """Return the rows whose place among all is a multiple of `stride`."""
        rows = slice(-self.first_row % stride, self.num_rows, stride)
        return self.take(rows, self.row_weight[rows], self.target.take(rows))

    def take(self, rows: slice | NDArray[np.intp], row_weight: Array, target: EncodedTarget) -> LinearObjective:
        """Return some rows, in memory and centred as these are, with other weights and targets."""
        return rows_like(self, self.rows(rows), target, row_weight)


def rows_like(objective: Objective, X: NDArray[Any], target: EncodedTarget, row_weight: Array) -> LinearObjective:
    """Return the objective of some rows in memory, centred as another's."""
    return LinearObjective(
        X,
        target,
        row_weight,
        objective.penalty,
        objective.loss,
        objective.fit_intercept,
        objective.dtype,
        mean=objective.center if objective.fit_intercept else None,
        cache_bytes=0,
    )
