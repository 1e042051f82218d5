"""Newton's method for few parameters: the whole Hessian, and one linear system instead of conjugate gradients.

What conjugate gradients cost on small data is not arithmetic but calls. With ``x̃ = (x, 1)`` the softmax link's blocks
for two classes are ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ``; a block on the diagonal is minus the sum of the others in its row,
because shifting all classes together changes nothing. So the system is solved for all classes but one. The sigmoid
link has blocks on the diagonal alone, and a system for each label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .interface import Array
from .objective import LinearObjective, Workspace, drop_negligible

SOFTMAX_WORK = 1 << 29
"""N P² for P = K (D + 1) parameters: with more, conjugate gradients are faster."""
SOFTMAX_PARAMETERS = 256
SIGMOID_WORK = 1 << 32
"""N K (D + 1)², likewise."""
SIGMOID_ELEMENTS = 1 << 18
"""Of all blocks, K (D + 1)²."""
PIECE_ELEMENTS = 1 << 17
"""Rows times parameters of a piece: its products with all classes but one stay in the second-level cache."""


@dataclass(frozen=True)
class DirectHessian:
    """∇²F at one point, as blocks of d = D parameters of an output, or D + 1 with intercepts."""

    blocks: Array  # softmax: (K, d, K, d); sigmoid: (K, d, d)
    penalty: float

    @staticmethod
    def suits(objective: LinearObjective) -> bool:
        """Whether the Hessian is cheap enough to be formed in every step."""
        k, d, rows = objective.num_outputs, objective.num_features + objective.fit_intercept, objective.num_rows
        if objective.link == "softmax":
            return k * d <= SOFTMAX_PARAMETERS and rows * (k * d) ** 2 <= SOFTMAX_WORK
        return k * d * d <= SIGMOID_ELEMENTS and rows * k * d * d <= SIGMOID_WORK

    @classmethod
    def at(cls, objective: LinearObjective, theta: Array) -> DirectHessian:
        """Sum the Hessian over all rows."""
        k, d = objective.num_outputs, objective.num_features + objective.fit_intercept
        softmax = objective.link == "softmax"
        working = objective.working(theta)
        step = max(1, PIECE_ELEMENTS // (k * d))

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            columns = objective.columns(workspace, rows)
            logits = objective.logits(workspace, working, columns)
            mass = objective.mass(rows)
            values = _softmax(logits) if softmax else _variances(logits)
            weights = (drop_negligible(values) * mass.T).astype(values.dtype, copy=False)
            if objective.fit_intercept:
                columns, features = np.empty((len(columns), d), columns.dtype), columns
                columns[:, :-1], columns[:, -1] = features, 1.0
            if not softmax:
                for i in range(k):
                    total[i] += _weighted_square(columns, weights[i])
            else:
                for start in range(0, len(columns), step):
                    part = slice(start, start + step)
                    others = (values[1:, part].T[:, :, None] * columns[part, None, :]).reshape(-1, (k - 1) * d)
                    for i in range(k - 1):
                        own = columns[part] * weights[i, part, None]
                        total[i, :, i + 1 :] -= (own.T @ others[:, i * d :]).reshape(d, -1, d)
            return 0.0

        shape = (k, d, k, d) if softmax else (k, d, d)
        blocks = np.zeros(shape)
        for total, _ in objective.sum_rows(work, lambda: np.zeros(shape)):
            blocks += total
        if softmax:
            blocks += blocks.transpose(2, 3, 0, 1)
            np.einsum("kdke->kde", blocks)[...] = -blocks.sum(axis=2)  # a view of the blocks on the diagonal
        curvatures = np.einsum("kdkd->kd" if softmax else "kdd->kd", blocks)
        curvatures[:, : objective.num_features] += objective.penalty
        return cls(blocks, objective.penalty)

    def solve(self, gradient: Array) -> Array | None:
        """Return the inverse Hessian times a gradient (K, D + 1), or None if rounding leaves no inverse."""
        size = self.blocks.shape[1]
        solution = _solve(self.blocks, gradient[:, :size])
        if solution is None:
            return None
        out = np.zeros_like(gradient)
        out[:, :size] = solution
        if self.blocks.ndim == 4 and self.penalty > 0:
            # Of a shift of all classes along a feature the penalty is all the curvature; along b there is none.
            out[:, :-1] += gradient[:, :-1].mean(axis=0) / self.penalty
        return out

    def solve_intercept(self, gradient: Array) -> Array:
        """Return the inverse of the intercepts' own block times a gradient (K,)."""
        blocks = self.blocks[:, -1:, :, -1:] if self.blocks.ndim == 4 else self.blocks[:, -1:, -1:]
        solution = _solve(blocks, gradient[:, None])
        return np.zeros_like(gradient) if solution is None else solution[:, 0]


def _solve(blocks: Array, gradient: Array) -> Array | None:
    """Solve ``blocks x = gradient`` (K, d); softmax's for ``Σ_k x_k = 0``. None if rounding leaves no solution."""
    solution: Any
    try:
        if blocks.ndim == 4:  # the last class is minus the sum of the others
            blocks = blocks[:-1] - blocks[-1:]
            blocks = blocks[:, :, :-1] - blocks[:, :, -1:]
            gradient = gradient[:-1] - gradient[-1]
            size = gradient.size
            solution = np.linalg.solve(blocks.reshape(size, size), gradient.reshape(size, 1)).reshape(gradient.shape)
            solution = np.concatenate([solution, -solution.sum(axis=0, keepdims=True)])
        else:
            solution = np.linalg.solve(blocks, gradient[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        return None
    return solution if np.isfinite(solution).all() else None


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
