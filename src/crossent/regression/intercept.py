"""The best intercept for weights that stay as they are: Newton's method on logits that are held.

With W fixed the logits are ``z_i + δ``, and F as a function of δ (K,) costs exponentials only, a D-th of a pass. That
matters for many classes: the dual bound counts every mismatch of class masses against the whole data set, and the
Kronecker model then holds the diagonal of ``A = Σ S_i`` alone. With that a pass over the data gains one digit of δ.
Here A is whole. It is formed anew only where δ has moved it too much.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .blocks import BlockedRows, Workspace
from .interface import Evaluation
from .rows import between_outputs, losses_and_gradient, probabilities

MAX_STEPS = 30
STALLED = 0.25
"""A step that leaves more than this part of the squared distance calls for a new A; with a new one, it is the last."""
ROUNDING = 8.0
"""Mismatches of class masses below so many roundings of all mass are not worth a new A."""


def minimize(objective: BlockedRows, at: Evaluation) -> Array:
    """Return θ (K, D + 1) of the same W and of the b that minimises F, as far as working precision tells."""
    logits = _HeldLogits(objective, at.theta)
    negligible = ROUNDING * float(np.finfo(objective.dtype).eps) * objective.total_mass()[1]
    home = best = delta = np.zeros(objective.num_outputs)
    inverse, least = logits.inverse_curvature(home), np.inf
    for _ in range(MAX_STEPS):
        gradient = logits.gradient(delta)
        gradient -= gradient.mean()
        decrement = float(gradient @ inverse @ gradient)
        if decrement < STALLED * least:
            best, least = delta, decrement
        elif best is home or np.abs(gradient).max() <= negligible:
            break
        else:
            home = delta = best
            inverse, least = logits.inverse_curvature(home), np.inf
            continue
        delta = delta - inverse @ gradient
    theta = at.theta.copy()
    theta[:, -1] += best
    return theta


class _HeldLogits:
    """``W x_i + b`` of all rows."""

    def __init__(self, objective: BlockedRows, theta: Array) -> None:
        self._objective = objective
        self._held = np.empty((objective.num_rows, objective.num_outputs), objective.dtype)
        working = objective.working(theta)

        def hold(workspace: Workspace, rows: slice, total: None) -> float:
            self._held[rows] = objective.logits(workspace, working, objective.columns(workspace, rows))
            return 0.0

        objective.sum_rows(hold, lambda: None)

    def _shifted(self, workspace: Workspace, rows: slice, shift: NDArray[Any]) -> NDArray[Any]:
        out = workspace.outputs((rows.stop - rows.start, self._objective.num_outputs))
        return np.add(self._held[rows], shift, out=out)

    def gradient(self, delta: Array) -> Array:
        """Return the gradient of F in δ (K,)."""
        objective, shift = self._objective, delta.astype(self._objective.dtype)

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            logits, weight = self._shifted(workspace, rows, shift), objective.row_weight[rows]
            losses_and_gradient(objective.target.take(rows), logits, objective.loss, weight)
            total += logits.sum(axis=0, dtype=np.float64)
            return 0.0

        return objective.sum_arrays(work, delta.shape)[0]

    def inverse_curvature(self, delta: Array) -> Array:
        """Return A⁻¹ (K, K) at δ. Where F does not change (all of δ shifts, or a class that no row thinks of) A is
        given a curvature."""
        objective, shift, k = self._objective, delta.astype(self._objective.dtype), len(delta)

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            p = probabilities(self._shifted(workspace, rows, shift))[0]
            total += between_outputs(p, objective.mass(rows))
            return 0.0

        between = objective.sum_arrays(work, (k, k))[0]
        mean = float(np.trace(between)) / k
        between += mean / k
        between[np.diag_indices(k)] += 1e-12 * mean
        return np.asarray(np.linalg.inv(between), dtype=np.float64)
