"""Second derivatives of cross-entropy on a linear model: exact products, and a Kronecker model to precondition them.

With ``S_i = a_i (diag p_i - p_i p_iᵀ)`` (softmax) or ``a_i diag(p_i (1 - p_i))`` (sigmoid), a the mass of the rows, the
Hessian of the data's part is ``Σ_i S_i ⊗ x̃_i x̃_iᵀ``, x̃ = (x, 1). A product with V needs one pass: ``u_i = V x̃_i``,
``v_i = S_i u_i``, ``Σ_i v_i x̃_iᵀ``.

The model replaces the sum of Kronecker products by one, ``A ⊗ B / Σ_i ω_i`` with ``A = Σ_i S_i``, ``ω_i = tr S_i`` and
``B = Σ_i ω_i (x_i - x̂)(x_i - x̂)ᵀ``, centred at ``x̂ = Σ ω_i x_i / Σ ω_i``. In the coordinates (W, b + W x̂) the
intercept then parts from W: its block is A, exactly, and the block of W is ``A ⊗ B / Σω + λ``, which two
eigendecompositions invert.
For two classes, or one sigmoid label, the model *is* the Hessian, and Newton's method needs one product per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .objective import CACHE_BYTES, Array, LinearObjective, Workspace, drop_negligible

DENSE_LIMIT = 2048
"""Larger matrices than this are replaced by their diagonals instead of being diagonalised."""


class _Curvature(NamedTuple):
    """What a block's S_i are made of, class-major: probabilities, likeliest class and mass; or a σ (1 - σ) alone."""

    values: NDArray[Any]  # (K, n)
    top: NDArray[np.intp] | None
    mass: NDArray[Any] | None


class Hessian:
    """Exact Hessian products at one point. The probabilities are kept if they fit in `CACHE_BYTES`."""

    def __init__(self, objective: LinearObjective, theta: Array) -> None:
        self._objective = objective
        self._theta = objective.working(theta)
        self._kept: dict[int, _Curvature] = {}
        if objective.num_rows * objective.num_outputs * objective.dtype.itemsize > CACHE_BYTES:
            return

        def keep(workspace: Workspace, rows: slice, total: dict[int, Any]) -> float:
            total[rows.start] = self._block(workspace, rows, objective.columns(workspace, rows))
            return 0.0

        for blocks, _ in objective.sum_rows(keep, dict):
            self._kept.update(blocks)

    def _block(self, workspace: Workspace, rows: slice, columns: NDArray[Any]) -> _Curvature:
        objective = self._objective
        logits = objective.logits(workspace, self._theta, columns)
        mass = objective.mass(rows).T.astype(objective.dtype)
        # Copies, because the workspace is reused.
        if objective.target.link == "sigmoid":
            return _Curvature(np.array(drop_negligible(objective.variances(logits)).T, order="C") * mass, None, None)
        p, top, _ = objective.probabilities(logits)
        return _Curvature(np.array(drop_negligible(p).T, order="C"), top, mass)

    def __matmul__(self, vector: Array) -> Array:
        """Return (∇²F) V for V of the parameters' shape (K, D + 1)."""
        objective = self._objective
        objective.hessian_products += 1
        v = objective.working(vector)

        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            columns = objective.columns(workspace, rows)
            at = self._kept.get(rows.start) or self._block(workspace, rows, columns)
            u = np.matmul(v.weight, columns.T, out=workspace.outputs(at.values.shape))
            if objective.fit_intercept:
                u += v.bias[:, None]
            if at.top is not None:
                # S u does not change when u is shifted; relative to the likeliest class nothing cancels.
                u -= u[at.top, np.arange(len(columns))]
                u -= np.einsum("kn,kn->n", at.values, u)
                u *= at.mass
            u *= at.values
            objective.accumulate(workspace, total, u.T, columns)
            return 0.0

        product = np.zeros(vector.shape)
        for total, _ in objective.sum_rows(work, lambda: np.zeros(vector.shape)):
            product += total
        product[:, :-1] += objective.penalty * vector[:, :-1]
        return product


@dataclass
class KroneckerMetric:
    """The Kronecker model of ∇²F at one point, ready to be inverted; see the module's docstring."""

    outputs: tuple[Array | None, Array]  # eigenvectors (K, K) or None for a diagonal, eigenvalues of A
    features: tuple[Array | None, Array]  # eigenvectors (D, r) or None, eigenvalues of B / Σω
    shift: Array  # x̂
    penalty: float
    fit_intercept: bool
    floor: float

    @classmethod
    def at(cls, objective: LinearObjective, theta: Array, sample: int | None = None) -> KroneckerMetric:
        """Build the model from about `sample` evenly spaced rows (None: all)."""
        columns, logits, mass = _sampled(objective, theta, sample)
        if objective.target.link == "sigmoid":
            weighted = objective.variances(logits) * (mass if mass.ndim == 2 else mass[:, None])
            omega = weighted.sum(axis=1)
            outputs: tuple[Array | None, Array] = (None, weighted.sum(axis=0))
        else:
            p, top, rest = objective.probabilities(logits)
            weighted = p * mass[:, None]
            spread = weighted * (1 - p)
            rows = np.arange(len(p))
            spread[rows, top] = weighted[rows, top] * rest
            omega = spread.sum(axis=1)
            outputs = _output_spectrum(weighted, p, spread.sum(axis=0))
        omega_sum = max(float(omega.sum()), float(np.finfo(np.float64).tiny))
        shift = omega @ columns / omega_sum if objective.fit_intercept else np.zeros(objective.num_features)
        columns -= shift
        features = _spectrum(columns, omega / omega_sum)
        curvature = float(outputs[1].max(initial=0.0) * features[1].max(initial=0.0))
        floor = max(np.finfo(np.float64).eps * curvature, np.finfo(np.float64).tiny)
        return cls(outputs, features, shift, objective.penalty, objective.fit_intercept, floor)

    def solve_intercept(self, gradient: Array) -> Array:
        """Return A⁺ g for g of shape (K,)."""
        vectors, values = self.outputs
        limit = 1e-12 * values.max(initial=0.0)
        inverse = np.where(values > limit, 1.0 / np.maximum(values, limit or 1.0), 0.0)
        if vectors is None:
            return inverse * gradient
        return vectors @ (inverse * (vectors.T @ gradient))

    def solve(self, gradient: Array) -> Array:
        """Return the model's inverse times a gradient (K, D + 1)."""
        by_output, alpha = self.outputs
        by_feature, beta = self.features
        bias_gradient = gradient[:, -1]
        rhs = gradient[:, :-1]
        if self.fit_intercept:
            rhs = rhs - np.outer(bias_gradient, self.shift)
        if by_output is not None:
            rhs = by_output.T @ rhs
        if by_feature is None:
            solution = rhs / np.maximum(np.outer(alpha, beta) + self.penalty, self.floor)
        else:
            inside = rhs @ by_feature
            outside = rhs - inside @ by_feature.T if by_feature.shape[0] > by_feature.shape[1] else None
            inside /= np.maximum(np.outer(alpha, beta) + self.penalty, self.floor)
            solution = inside @ by_feature.T
            if outside is not None:
                solution += outside / max(self.penalty, self.floor)
        if by_output is not None:
            solution = by_output @ solution
        out = np.empty_like(gradient)
        out[:, :-1] = solution
        out[:, -1] = self.solve_intercept(bias_gradient) - solution @ self.shift if self.fit_intercept else 0.0
        return out


def _sampled(objective: LinearObjective, theta: Array, sample: int | None) -> tuple[Array, Array, Array]:
    """Return centred rows (n, D), their logits (n, K) and masses, scaled to stand for all rows; float64."""
    stride = 1 if sample is None else max(1, objective.num_rows // max(1, sample))
    rows = slice(0, objective.num_rows, stride)
    columns = objective.X[rows].astype(np.float64)
    if objective.mean is not None:
        columns -= objective.mean
    logits = columns @ theta[:, :-1].T
    logits += theta[:, -1]
    return columns, logits, stride * objective.mass(rows)


def _output_spectrum(weighted: Array, p: Array, diagonal: Array) -> tuple[Array | None, Array]:
    """Return eigenvectors and eigenvalues of ``A = Σ a (diag p - p pᵀ)`` from a p, p and A's diagonal."""
    if p.shape[1] > DENSE_LIMIT:
        return None, diagonal
    between = -(weighted.T @ p)
    np.fill_diagonal(between, diagonal)
    values, vectors = np.linalg.eigh(between)
    return vectors, np.maximum(values, 0.0)


def _spectrum(columns: Array, weight: Array) -> tuple[Array | None, Array]:
    """Return eigenvectors and eigenvalues of ``Σ w x xᵀ``, by the smaller of D × D and n × n."""
    num_rows, num_features = columns.shape
    if min(num_rows, num_features) > DENSE_LIMIT:
        return None, weight @ np.square(columns)
    rooted = columns * np.sqrt(weight)[:, None]
    if num_features <= num_rows:
        values, vectors = np.linalg.eigh(rooted.T @ rooted)
        return vectors, np.maximum(values, 0.0)
    values, vectors = np.linalg.eigh(rooted @ rooted.T)
    present = values > 1e-12 * values.max(initial=0.0)
    return rooted.T @ (vectors[:, present] / np.sqrt(values[present])), values[present]
