"""Newton's method for few parameters: the whole Hessian, and one linear system instead of conjugate gradients.

What conjugate gradients cost on small data is not arithmetic but calls. With ``x̃ = (x, 1)`` the Hessian's blocks for
two classes are ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ``; a block on the diagonal is minus the sum of the others in its row,
because shifting all classes together changes nothing. The direction of that shift is given a curvature, so that the
system can be solved.
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

    matrix: Array  # (P, P)
    num_outputs: int
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
            values = objective.probabilities(logits)[0] if softmax else objective.variances(logits)
            values = drop_negligible(values)
            if objective.fit_intercept:
                columns = np.column_stack([columns, np.ones(len(columns), columns.dtype)])
            for start in range(0, len(columns), step):
                part = slice(start, start + step)
                if softmax:
                    others = (values[part, 1:, None] * columns[part, None, :]).reshape(-1, (k - 1) * d)
                    for i in range(k - 1):
                        own = columns[part] * (mass[part] * values[part, i])[:, None]
                        total[i * d : (i + 1) * d, (i + 1) * d :] -= own.T @ others[:, i * d :]
                else:
                    weighted = values[part] * (mass[part] if mass.ndim == 2 else mass[part, None])
                    blocks = np.einsum("nk,nd,ne->kde", weighted, columns[part], columns[part], optimize=True)
                    total.reshape(k, d, k, d)[np.arange(k), :, np.arange(k)] += blocks
            return 0.0

        matrix = np.zeros((k * d, k * d))
        for total, _ in objective.sum_rows(work, lambda: np.zeros((k * d, k * d))):
            matrix += total
        blocks = matrix.reshape(k, d, k, d)
        if softmax:
            matrix += matrix.T
            diagonal = np.arange(k)
            blocks[diagonal, :, diagonal] = -blocks.sum(axis=2)
        features = np.arange(objective.num_features)
        for output in range(k):
            blocks[output, features, output, features] += objective.penalty
        return cls(matrix, k, objective.penalty, objective.is_shift_invariant)

    def solve(self, gradient: Array) -> Array | None:
        """Return the inverse Hessian times a gradient (K, D + 1), or None if rounding leaves no inverse."""
        k, size = self.num_outputs, self.matrix.shape[0] // self.num_outputs
        unseen = slice(0 if self.penalty == 0 else gradient.shape[1] - 1, size)
        solution = self._solve(self.matrix.reshape(k, size, k, size), gradient[:, :size], unseen)
        if solution is None:
            return None
        out = np.zeros_like(gradient)
        out[:, :size] = solution
        return out

    def solve_intercept(self, gradient: Array) -> Array:
        """Return the inverse of the intercepts' own block times a gradient (K,)."""
        k, size = self.num_outputs, self.matrix.shape[0] // self.num_outputs
        blocks = self.matrix.reshape(k, size, k, size)[:, -1:, :, -1:]
        solution = self._solve(blocks, gradient[:, None], slice(0, 1))
        return np.zeros_like(gradient) if solution is None else solution[:, 0]

    def _solve(self, blocks: Array, gradient: Array, unseen: slice) -> Array | None:
        """Solve ``blocks x = gradient`` (K, d). A shift of all classes along the columns `unseen` is left alone."""
        k, d = gradient.shape
        columns = np.arange(d)[unseen]
        if self.shift_invariant and len(columns):
            scale = np.einsum("kdkd->d", blocks)[columns] / k**2
            blocks = blocks.copy()
            blocks[:, columns, :, columns] += scale[:, None, None]
            gradient = gradient.copy()
            gradient[:, columns] -= gradient[:, columns].mean(axis=0)
        try:
            solution = np.asarray(np.linalg.solve(blocks.reshape(k * d, k * d), gradient.ravel()), np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(solution).all():
            return None
        solution = solution.reshape(k, d)
        if self.shift_invariant and len(columns):
            solution[:, columns] -= solution[:, columns].mean(axis=0)
        return solution
