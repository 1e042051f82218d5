"""Newton's method for few parameters: the whole Hessian, and one linear system instead of conjugate gradients.

What conjugate gradients cost on small data is not arithmetic but calls. With ``x̃ = (x, 1)`` the softmax link's blocks
for two classes are ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ``; a block on the diagonal is minus the sum of the others in its row,
because shifting all classes together changes nothing. So the system is solved for all classes but one. The sigmoid
link has blocks on the diagonal alone, and a system for each label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.kernels import registry

from .interface import Array
from .objective import LinearObjective, WorkingParameters, Workspace, drop_negligible

SOFTMAX_WORK = 1 << 29
"""N P² for P = K (D + 1) parameters: with more, conjugate gradients are faster."""
SOFTMAX_PARAMETERS = 256
SIGMOID_WORK = 1 << 32
"""N K (D + 1)², likewise."""
SIGMOID_ELEMENTS = 1 << 18
"""Of all blocks, K (D + 1)²."""
SMALL_WORK = 1 << 20
"""N P² up to which softmax's Hessian is one call of a kernel: with more, BLAS makes up for its calls."""
KEPT_WORK = 1 << 25
"""N P² (N K (D + 1)²) from which a Hessian takes much longer than an evaluation, and is kept for several steps."""
PIECE_ELEMENTS = 1 << 17
"""Rows times parameters of a piece: they stay in the second-level cache."""
CHUNKS = 4
"""Partial sums over rows,"""
CHUNK_WORK = 1 << 22
"""of so many multiplications at least."""


def suits(objective: LinearObjective) -> bool:
    """Whether the Hessian is cheap enough to be formed in every step."""
    k, d = objective.num_outputs, objective.num_features + objective.fit_intercept
    if objective.link == "softmax":
        return k * d <= SOFTMAX_PARAMETERS and work(objective) <= SOFTMAX_WORK
    return k * d * d <= SIGMOID_ELEMENTS and work(objective) <= SIGMOID_WORK


def work(objective: LinearObjective) -> int:
    """Return about how many multiplications a Hessian takes."""
    k, d = objective.num_outputs, objective.num_features + objective.fit_intercept
    return objective.num_rows * (k * d * k * d if objective.link == "softmax" else k * d * d)


class HessianSums:
    """Forms whole Hessians of an objective, in memory that it keeps: fresh pages take longer to touch than a Hessian
    of some hundred parameters to compute."""

    def __init__(self, objective: LinearObjective) -> None:
        k, d = objective.num_outputs, objective.num_features + objective.fit_intercept
        self._objective = objective
        self._softmax = objective.link == "softmax"
        self._shape = (k, d, k, d) if self._softmax else (k, d, d)
        self._size = k * d if self._softmax else d
        self._work = work(objective)
        self._scaled: list[NDArray[Any]] = []
        self._piece_rows = max(1, PIECE_ELEMENTS // self._size)

    @property
    def is_costly(self) -> bool:
        """Whether a Hessian takes much longer than an evaluation."""
        return self._work >= KEPT_WORK

    def at(self, theta: Array) -> DirectHessian:
        """Sum the Hessian over all rows."""
        objective = self._objective
        if self._softmax and not theta[:, :-1].any():
            between = _between_equal_rows(theta[:, -1])
            blocks = between[:, None, :, None] * self._second_moment()[None, :, None]
        else:
            is_small = self._softmax and self._work <= SMALL_WORK
            add = partial(self._add_small, theta) if is_small else partial(self._add, objective.working(theta))
            chunks = max(1, min(CHUNKS, self._work // CHUNK_WORK))
            blocks, _ = objective.sum_arrays(add, self._shape, chunks)
            if is_small:
                blocks += blocks.transpose(2, 1, 0, 3)
            if self._softmax:
                diagonal = np.einsum("kdke->kde", blocks)  # a view
                diagonal[...] = 0.0
                diagonal[...] = -blocks.sum(axis=2)
        curvatures = np.einsum("kdkd->kd" if self._softmax else "kdd->kd", blocks)  # a view
        curvatures[:, : objective.num_features] += objective.penalty
        return DirectHessian(blocks, objective.penalty)

    def _add(self, working: WorkingParameters, workspace: Workspace, rows: slice, total: Array) -> float:
        """Add a block of rows; softmax's blocks on the diagonal are not right yet."""
        objective = self._objective
        columns = objective.columns(workspace, rows)
        logits = objective.logits(workspace, working, columns)
        mass = objective.mass(rows).T.astype(logits.dtype, copy=False)
        if self._softmax:
            roots = drop_negligible(_softmax(logits)) * np.sqrt(mass)
        else:
            roots = np.sqrt(drop_negligible(_variances(logits) * mass))
        roots = np.ascontiguousarray(roots.T)
        columns = self._with_ones(columns)
        try:
            scaled = self._scaled.pop()
        except IndexError:
            scaled = np.empty((self._piece_rows, self._size), columns.dtype)
        if scaled.dtype != columns.dtype:  # one from before the change to float64
            scaled = np.empty(scaled.shape, columns.dtype)
        count = -(-len(columns) // self._piece_rows)
        for number in range(count):
            piece = slice(len(columns) * number // count, len(columns) * (number + 1) // count)
            out = scaled[: piece.stop - piece.start]
            if self._softmax:
                by_class = out.reshape(-1, *self._shape[:2])
                np.multiply(roots[piece, :, None], columns[piece, None, :], out=by_class)
                total -= _square(out).reshape(self._shape)
            else:
                for k in range(len(total)):
                    total[k] += _square(np.multiply(columns[piece], roots[piece, k, None], out=out))
        self._scaled.append(scaled)
        return 0.0

    def _add_small(self, theta: Array, workspace: Workspace, rows: slice, total: Array) -> float:
        """Add a block of rows to softmax's blocks above the diagonal."""
        objective = self._objective
        columns = objective.columns(workspace, rows)
        registry.find(objective.dtype).multinomial_hessian(columns, theta, objective.mass(rows), total)
        return 0.0

    def _second_moment(self) -> Array:
        """Return ``Σ_i a_i x̃_i x̃_iᵀ``."""

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            columns = self._with_ones(self._objective.columns(workspace, rows))
            roots = np.sqrt(self._objective.mass(rows)).astype(columns.dtype, copy=False)
            total += _square(columns * roots[:, None])
            return 0.0

        return self._objective.sum_arrays(work, (self._shape[1],) * 2)[0]

    def _with_ones(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Return ``(x, 1)`` of rows, or x without an intercept."""
        if not self._objective.fit_intercept:
            return columns
        wider = np.empty((len(columns), columns.shape[1] + 1), columns.dtype)
        wider[:, :-1], wider[:, -1] = columns, 1.0
        return wider


@dataclass(frozen=True)
class DirectHessian:
    """∇²F at one point, as blocks of d = D parameters of an output, or D + 1 with intercepts."""

    blocks: Array  # softmax: (K, d, K, d); sigmoid: (K, d, d)
    penalty: float

    def solve(self, gradient: Array) -> Array | None:
        """Return the inverse Hessian times a gradient (K, D + 1), or None if rounding leaves no inverse."""
        return self._solve(gradient, np.linalg.solve, _system(self.blocks))

    def inverse(self) -> Callable[[Array], Array] | None:
        """Return the same as a function for many gradients, or None if rounding leaves no inverse."""
        try:
            inverse = np.linalg.inv(_system(self.blocks))
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(inverse).all():
            return None

        def solve(gradient: Array) -> Array:
            solution = self._solve(gradient, np.matmul, inverse)
            return np.zeros_like(gradient) if solution is None else solution

        return solve

    def _solve(self, gradient: Array, by: Callable[..., Any], matrix: NDArray[Any]) -> Array | None:
        size = self.blocks.shape[1]
        solution = _solution(self.blocks.ndim == 4, gradient[:, :size], by, matrix)
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
        softmax = self.blocks.ndim == 4
        blocks = self.blocks[:, -1:, :, -1:] if softmax else self.blocks[:, -1:, -1:]
        solution = _solution(softmax, gradient[:, None], np.linalg.solve, _system(blocks))
        return np.zeros_like(gradient) if solution is None else solution[:, 0]


def _system(blocks: Array) -> Array:
    """Return the matrix of the linear system; softmax's for all classes but one, which is minus the sum of these."""
    if blocks.ndim == 3:
        return blocks
    blocks = blocks[:-1] - blocks[-1:]
    blocks = blocks[:, :, :-1] - blocks[:, :, -1:]
    size = blocks.shape[0] * blocks.shape[1]
    return blocks.reshape(size, size)


def _solution(softmax: bool, gradient: Array, by: Callable[..., Any], matrix: NDArray[Any]) -> Array | None:
    """Return ``by(matrix, gradient)`` (K, d); softmax's with ``Σ_k x_k = 0``. None if rounding leaves no solution."""
    try:
        if softmax:
            gradient = gradient[:-1] - gradient[-1]
            solution = by(matrix, gradient.ravel()).reshape(gradient.shape)
            solution = np.concatenate([solution, -solution.sum(axis=0, keepdims=True)])
        else:
            solution = by(matrix, gradient[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        return None
    return solution if np.isfinite(solution).all() else None


def _between_equal_rows(bias: Array) -> Array:
    """Return ``diag p - p pᵀ`` of the probabilities that all rows have at W = 0."""
    p = np.exp(bias - bias.max())
    p /= p.sum()
    return np.diag(p) - np.outer(p, p)


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


def _square(rows: NDArray[Any]) -> NDArray[Any]:
    """Return ``Σ_i x_i x_iᵀ``: of a matrix and its own transpose BLAS computes one half."""
    return rows.T @ rows
