"""Newton's method for few parameters: the whole Hessian, and one linear system instead of conjugate gradients.

With ``x̃ = (x, 1)`` the softmax link's blocks for two classes are ``-Σ_i a_i p_ik p_il x̃_i x̃_iᵀ``; a block on the
diagonal is minus the sum of the others in its row, because shifting all classes together changes nothing. So the system
is solved for all classes but one. A single logit has one block, ``Σ_i a_i σ(z_i) σ(-z_i) x̃_i x̃_iᵀ``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array
from .blocks import BlockedRows, Workspace
from .rows import drop_negligible, variances

__all__ = ["DirectHessian"]

PIECE_ELEMENTS = 1 << 17
"""Rows times parameters of a piece: they stay in the second-level cache."""


@dataclass(frozen=True)
class DirectHessian:
    """∇²F of the softmax link or of one logit, as blocks of d = D parameters of an output, or D + 1 with intercepts."""

    blocks: Array  # (K, d, K, d)
    penalty: float  # its curvature

    @classmethod
    def at(cls, model: BlockedRows, theta: Array) -> DirectHessian:
        """Sum the Hessian over all rows."""
        working, k = model.working(theta), model.num_outputs

        def roots(workspace: Workspace, rows: slice, columns: NDArray[Any]) -> NDArray[np.floating]:
            logits = model.logits(workspace, working, columns)
            if k == 1:
                return np.sqrt(drop_negligible(variances(logits) * model.mass(rows).reshape(-1, 1)))
            return (drop_negligible(_softmax(logits)) * np.sqrt(model.mass(rows))).T

        if k > 1 and not theta[:, :-1].any():  # all rows have the same probabilities
            p = _softmax(theta[None, :, -1])[:, 0]
            moments = _products(model, 1, lambda _, rows, __: np.sqrt(model.mass(rows))[:, None])[0, :, 0]
            blocks = -np.outer(p, p)[:, None, :, None] * moments[:, None]
        else:
            blocks = _products(model, k, roots) * (1 if k == 1 else -1)
        if k > 1:
            diagonal = np.einsum("kdke->kde", blocks)  # a view
            diagonal[...] = 0.0
            diagonal[...] = -blocks.sum(axis=2)
        np.einsum("kdkd->kd", blocks)[:, : model.num_features] += model.penalty.curvature
        return cls(blocks, model.penalty.curvature)

    @cached_property
    def _system(self) -> Array:
        """The matrix of the linear system: the softmax link's for all classes but one."""
        matrix = self.blocks
        if len(matrix) > 1:
            matrix = matrix[:-1] - matrix[-1:]
            matrix = matrix[:, :, :-1] - matrix[:, :, -1:]
        size = matrix.shape[0] * matrix.shape[1]
        return matrix.reshape(size, size)

    @cached_property
    def _inverse(self) -> Array:
        inverse: Array = np.linalg.inv(self._system).astype(np.float64, copy=False)
        return inverse

    def solve(self, gradient: Array, *, again: bool = False) -> Array | None:
        """Return the inverse Hessian times a gradient (K, D + 1), or None if rounding leaves no inverse.

        With `again` the inverse is formed, which pays for several gradients.
        """
        size, is_softmax = self.blocks.shape[1], len(gradient) > 1
        right = gradient[:, :size]
        if is_softmax:
            right = right[:-1] - right[-1]
        try:
            found = self._inverse @ right.ravel() if again else np.linalg.solve(self._system, right.ravel())
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(found).all():
            return None
        found = found.reshape(right.shape)
        out = np.zeros_like(gradient)
        out[: len(found), :size] = found
        if is_softmax:
            out[-1] = -out.sum(axis=0)
        if is_softmax and self.penalty > 0:
            # Of a shift of all classes along a feature the penalty is all the curvature; along b there is none.
            out[:, :-1] += gradient[:, :-1].mean(axis=0) / self.penalty
        return out


def _products(
    model: BlockedRows, outputs: int, roots: Callable[[Workspace, slice, NDArray[Any]], NDArray[np.floating]]
) -> Array:
    """Return ``Σ_i (r_i ⊗ x̃_i) (r_i ⊗ x̃_i)ᵀ`` (K, d, K, d) of what `roots` gives for a block of rows, (n, K)."""
    d = model.num_features + model.fit_intercept
    size = outputs * d

    def work(workspace: Workspace, rows: slice, total: Array) -> float:
        columns = model.columns(workspace, rows)
        factors = np.ascontiguousarray(roots(workspace, rows, columns), columns.dtype)
        x = np.ones((len(columns), d), columns.dtype)
        x[:, : model.num_features] = columns
        step = max(1, PIECE_ELEMENTS // size)
        buffer = np.empty((min(step, len(x)), outputs, d), columns.dtype)
        for start in range(0, len(x), step):
            piece = slice(start, min(start + step, len(x)))
            scaled = buffer[: piece.stop - start]
            np.multiply(factors[piece, :, None], x[piece, None, :], out=scaled)
            scaled = scaled.reshape(-1, size)
            total += scaled.T @ scaled  # BLAS computes one half of a matrix times its own transpose
        return 0.0

    is_parallel = model.num_rows * size**2 >= 4 * model.plan.parallel_work
    return model.sum_arrays(work, (size, size), chunks=4 if is_parallel else 1)[0].reshape(outputs, d, outputs, d)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return probabilities (K, n) of logits (n, K): their products with one another, all that the Hessian needs, keep
    every digit."""
    p = np.ascontiguousarray(logits.T)
    p -= p.max(axis=0)
    np.exp(p, out=p)
    p /= p.sum(axis=0)
    return p
