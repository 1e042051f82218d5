"""Newton's method for few parameters: the whole Hessian, and one linear system instead of conjugate gradients.

What conjugate gradients cost on small data is not arithmetic but calls. With ``x̃ = (x, 1)`` the Hessian's blocks for
two classes are ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ``; a block on the diagonal is minus the sum of the others in its row,
because shifting all classes together changes nothing. So the system is solved for all classes but one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .interface import Array
from .objective import BLOCK_ELEMENTS, LinearObjective, Workspace, drop_negligible

DIRECT_WORK = 1 << 24
"""N P² for P parameters: with more, conjugate gradients are faster."""
DIRECT_PARAMETERS = 256


@dataclass(frozen=True)
class DirectHessian:
    """∇²F at one point; of P = K D parameters, or K (D + 1) with intercepts."""

    blocks: Array  # (K, d, K, d), d = D or D + 1
    penalty: float
    shift_invariant: bool

    @staticmethod
    def suits(objective: LinearObjective) -> bool:
        """Whether the Hessian is cheap enough to be formed in every step."""
        size = objective.num_outputs * (objective.num_features + objective.fit_intercept)
        return size <= DIRECT_PARAMETERS and objective.num_rows * size * size <= DIRECT_WORK

    @classmethod
    def at(cls, objective: LinearObjective, theta: Array) -> DirectHessian:
        """Sum the Hessian over all rows."""
        k, d = objective.num_outputs, objective.num_features + objective.fit_intercept
        softmax = objective.link == "softmax"
        working = objective.working(theta)
        step = max(1, BLOCK_ELEMENTS // (k * d))

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            columns = objective.columns(workspace, rows)
            logits = objective.logits(workspace, working, columns)
            mass = objective.mass(rows)
            values = _softmax(logits) if softmax else _variances(logits)
            weights = drop_negligible(values) * mass.T
            if objective.fit_intercept:
                columns, features = np.empty((len(columns), d), columns.dtype), columns
                columns[:, :-1], columns[:, -1] = features, 1.0
            if not softmax:
                for i in range(k):
                    total[i, :, i] += _weighted_square(columns, weights[i])
            elif k == 2:
                total[0, :, 1] -= _weighted_square(columns, weights[0] * values[1])
            else:
                for start in range(0, len(columns), step):
                    part = slice(start, start + step)
                    others = (values[1:, part].T[:, :, None] * columns[part, None, :]).reshape(-1, (k - 1) * d)
                    for i in range(k - 1):
                        own = columns[part] * weights[i, part, None]
                        total[i, :, i + 1 :] -= (own.T @ others[:, i * d :]).reshape(d, -1, d)
            return 0.0

        blocks = np.zeros((k, d, k, d))
        for total, _ in objective.sum_rows(work, lambda: np.zeros((k, d, k, d))):
            blocks += total
        if softmax:
            blocks += blocks.transpose(2, 3, 0, 1)
            np.einsum("kdke->kde", blocks)[...] = -blocks.sum(axis=2)  # a view of the blocks on the diagonal
        np.einsum("kdkd->kd", blocks)[:, : objective.num_features] += objective.penalty
        return cls(blocks, objective.penalty, objective.is_shift_invariant)

    def solve(self, gradient: Array) -> Array | None:
        """Return the inverse Hessian times a gradient (K, D + 1), or None if rounding leaves no inverse."""
        size = self.blocks.shape[1]
        solution = self._solve(self.blocks, gradient[:, :size])
        if solution is None:
            return None
        out = np.zeros_like(gradient)
        out[:, :size] = solution
        if self.shift_invariant and self.penalty > 0:
            # Of a shift of all classes along a feature the penalty is all the curvature; along b there is none.
            out[:, :-1] += gradient[:, :-1].mean(axis=0) / self.penalty
        return out

    def solve_intercept(self, gradient: Array) -> Array:
        """Return the inverse of the intercepts' own block times a gradient (K,)."""
        solution = self._solve(self.blocks[:, -1:, :, -1:], gradient[:, None])
        return np.zeros_like(gradient) if solution is None else solution[:, 0]

    def _solve(self, blocks: Array, gradient: Array) -> Array | None:
        """Solve ``blocks x = gradient`` (K, d); if shifts of all classes change nothing, for ``Σ_k x_k = 0``."""
        if self.shift_invariant:  # the last class is minus the sum of the others
            blocks = blocks[:-1] - blocks[-1:]
            blocks = blocks[:, :, :-1] - blocks[:, :, -1:]
            gradient = gradient[:-1] - gradient[-1]
        size = gradient.size
        try:
            flat = np.asarray(np.linalg.solve(blocks.reshape(size, size), gradient.ravel()), np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(flat).all():
            return None
        solution = flat.reshape(gradient.shape)
        return np.concatenate([solution, -solution.sum(axis=0, keepdims=True)]) if self.shift_invariant else solution


def _softmax(logits: Array) -> Array:
    """Return probabilities (K, n) of logits (n, K): their products with one another, all that the Hessian needs, keep
    every digit."""
    p = np.ascontiguousarray(logits.T)
    p -= p.max(axis=0)
    np.exp(p, out=p)
    p /= p.sum(axis=0)
    return p


def _variances(logits: Array) -> Array:
    """Return σ(z) σ(-z) of logits (n, K), as (K, n)."""
    e = np.exp(-np.abs(np.ascontiguousarray(logits.T)))
    return e / np.square(1.0 + e)


def _weighted_square(columns: Array, weight: Array) -> Array:
    """Return ``Σ_i w_i x_i x_iᵀ``, w ≥ 0; of a matrix and its own transpose BLAS computes one half."""
    root = columns * np.sqrt(weight)[:, None]
    return root.T @ root
