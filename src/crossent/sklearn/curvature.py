"""Second derivatives of cross-entropy on a linear model: exact products, and a Kronecker model to precondition them.

With ``S_i = a_i (diag p_i - p_i p_iᵀ)`` (softmax) or ``a_i diag(p_i (1 - p_i))`` (sigmoid), a the mass of the rows, the
Hessian of the data's part is ``Σ_i S_i ⊗ x̃_i x̃_iᵀ``, x̃ = (x, 1). A product with V needs one pass: ``u_i = V x̃_i``,
``v_i = S_i u_i``, ``Σ_i v_i x̃_iᵀ``.

The model replaces the sum of Kronecker products by one, ``A ⊗ B / Σ_i ω_i`` with ``A = Σ_i S_i``, ``ω_i = tr S_i`` and
``B = Σ_i ω_i (x_i - x̂)(x_i - x̂)ᵀ``, centred at ``x̂ = Σ ω_i x_i / Σ ω_i``. In the coordinates (W, b + W x̂) the intercept
then parts from W: its block is A, exactly, and the block of W is ``A ⊗ B / Σω + λ``, which two eigendecompositions invert.
For two classes, or one sigmoid label, the model *is* the Hessian, and Newton's method needs one product per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .objective import CACHE_BYTES, Array, LinearObjective

DENSE_LIMIT = 2048
"""Larger matrices than this are replaced by their diagonals instead of being diagonalised."""


class Hessian:
    """Exact Hessian products at one point. The probabilities are kept if they fit in `CACHE_BYTES`."""

    def __init__(self, objective: LinearObjective, theta: Array) -> None:
        self._objective = objective
        self._theta = theta
        self._kept: list[tuple[NDArray[Any], NDArray[Any]]] | None = None
        size = objective.num_rows * objective.num_outputs * objective.dtype.itemsize
        if size <= CACHE_BYTES:
            self._kept = [self._block(rows, logits) for rows, _, logits in objective.logits(theta)]

    def _block(self, rows: slice, logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return class-major probabilities (K, n) and masses, (n,) or (K, n)."""
        probabilities = np.ascontiguousarray(self._objective.probabilities(logits).T)
        mass = self._objective.mass(rows).T.astype(probabilities.dtype)
        return probabilities, mass

    def __matmul__(self, vector: Array) -> Array:
        """Return (∇²F) V for V of the parameters' shape (K, D + 1)."""
        objective = self._objective
        objective.hessian_products += 1
        weight = np.ascontiguousarray(vector[:, :-1], dtype=objective.dtype)
        bias = vector[:, -1:].astype(objective.dtype)
        total = np.zeros(vector.shape)
        if self._kept is None:
            blocks = ((rows, columns, self._block(rows, logits)) for rows, columns, logits in objective.logits(self._theta))
        else:
            kept = self._kept
            blocks = ((rows, objective.columns(rows), kept[i]) for i, rows in enumerate(objective.blocks))
        for _, columns, (p, mass) in blocks:
            u = weight @ columns.T
            if objective.fit_intercept:
                u += bias
            if objective.target.link == "softmax":
                u -= np.einsum("kn,kn->n", p, u)
                u *= p
            else:
                u *= p
                u *= 1 - p
            u *= mass
            objective.accumulate(total, u.T, columns)
        total[:, :-1] += objective.penalty * vector[:, :-1]
        return total


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
        k, d = objective.num_outputs, objective.num_features
        stride = 1 if sample is None else max(1, objective.num_rows // max(1, sample))
        dense_outputs = k <= DENSE_LIMIT and objective.target.link == "softmax"
        between = np.zeros((k, k)) if dense_outputs else np.zeros(k)
        diagonal, omega_sum, shift = np.zeros(k), 0.0, np.zeros(d)
        picked: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for rows, columns, logits in objective.logits(theta):
            first = -rows.start % stride
            columns, logits = columns[first::stride], logits[first::stride]
            if len(columns) == 0:
                continue
            p = objective.probabilities(np.ascontiguousarray(logits)).astype(np.float64)
            mass = stride * objective.mass(slice(rows.start + first, rows.stop, stride))
            weighted = p * (mass[:, None] if mass.ndim == 1 else mass)
            if objective.target.link == "sigmoid":
                weighted *= 1 - p
                omega = weighted.sum(axis=1)
                diagonal += weighted.sum(axis=0)
            else:
                diagonal += weighted.sum(axis=0)
                omega = np.maximum(mass - np.einsum("nk,nk->n", weighted, p), 0.0)
                between += weighted.T @ p if dense_outputs else np.einsum("nk,nk->k", weighted, p)
            omega_sum += float(omega.sum())
            shift += omega @ columns
            picked.append((columns if stride > 1 else columns.copy(), omega))
        omega_sum = max(omega_sum, np.finfo(np.float64).tiny)
        shift = shift / omega_sum if objective.fit_intercept else np.zeros(d)
        if dense_outputs:
            values, vectors = np.linalg.eigh(np.diag(diagonal) - between)
            outputs = (vectors, np.maximum(values, 0.0))
        else:
            outputs = (None, np.maximum(diagonal - between, 0.0))
        features = _spectrum(picked, shift, omega_sum, d)
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


def _spectrum(
    picked: list[tuple[NDArray[Any], Array]], shift: Array, omega_sum: float, num_features: int
) -> tuple[Array | None, Array]:
    """Return eigenvectors and eigenvalues of ``Σ ω (x - x̂)(x - x̂)ᵀ / Σω``, by the smaller of D × D and n × n."""
    num_rows = sum(len(columns) for columns, _ in picked)
    if min(num_rows, num_features) > DENSE_LIMIT:
        diagonal = np.zeros(num_features)
        for columns, omega in picked:
            diagonal += omega @ np.square(columns - shift, dtype=np.float64)
        return None, diagonal / omega_sum
    if num_features <= num_rows:
        second = np.zeros((num_features, num_features))
        for columns, omega in picked:
            rooted = (columns - shift) * np.sqrt(omega / omega_sum)[:, None]
            second += rooted.T @ rooted
        values, vectors = np.linalg.eigh(second)
        return vectors, np.maximum(values, 0.0)
    rooted = np.concatenate([(columns - shift) * np.sqrt(omega / omega_sum)[:, None] for columns, omega in picked])
    values, vectors = np.linalg.eigh(rooted @ rooted.T)
    present = values > 1e-12 * values.max(initial=0.0)
    return rooted.T @ (vectors[:, present] / np.sqrt(values[present])), values[present]
