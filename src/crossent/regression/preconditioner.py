"""The Kronecker model of the Hessian of cross-entropy on a linear model: what products are preconditioned by.

In the notation of the hessian module, it replaces the sum of Kronecker products by one, ``A ⊗ B / Σ_i ω_i`` with ``A
= Σ_i S_i``, ``ω_i = tr S_i`` and ``B = Σ_i ω_i (x_i - x̂)(x_i - x̂)ᵀ``, centred at ``x̂ = Σ ω_i x_i / Σ ω_i``. In the
coordinates (W, b + W x̂) the intercept then parts from W: its block is A, exactly, and the block of W is ``A ⊗ B / Σω +
λ``, which two eigendecompositions invert. B's eigenvectors change little as ω does: they are found once, at the start,
and only their eigenvalues ``Σ ω_i <v_j, x_i - x̂>² / Σ ω`` are brought up to date (on MNIST at C = 10 with as many
products as fresh eigenvectors need, and a hundredth of their time).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, row_blocks
from .blocks import WorkingParameters
from .hessian import SEED
from .interface import Objective
from .plan import Plan
from .rows import between_outputs, probabilities, row_curvature, variances

__all__ = ["FeatureBasis", "KroneckerMetric"]


@dataclass(frozen=True)
class FeatureBasis:
    """Sampled rows in the eigenvectors of their second moment: what stays the same from one metric to the next."""

    sample: Any  # BlockedRows, of which `take` returns some
    stride: int
    columns: NDArray[Any]  # the sample's (n, D), centred
    vectors: NDArray[Any]  # (D, r)
    rotated: NDArray[Any]  # columns in the basis (n, r)
    squared: NDArray[Any]
    left: NDArray[Any]  # squares of each row outside that span, per dimension
    dimensions: int  # of the rest that the rows reach

    @classmethod
    def shared(cls, objective: Objective) -> FeatureBasis:
        """Return the objective's basis, found once for all fits of a sweep."""
        return objective.once("basis", lambda: cls.of(objective, objective.plan.num_sampled))

    @classmethod
    def of(cls, objective: Objective, count: int | None) -> FeatureBasis:
        """Take about `count` evenly spaced rows (None: all)."""
        sample, stride = objective.sample(count)
        plan = objective.plan
        dtype = np.float64 if objective.num_features <= plan.double_features else objective.dtype
        columns = np.empty((sample.num_rows, objective.num_features), dtype)
        np.subtract(sample.X, objective.center, out=columns, casting="same_kind")
        weight = _some_weight(sample.row_weight, stride)
        if weight is not sample.row_weight:
            sample = sample.take(slice(None), weight, sample.target)
        share = (weight / weight.sum()).astype(columns.dtype)
        part = slice(0, None, max(1, len(columns) // max(plan.basis_rows, 2 * plan.rank)))
        center = share @ columns if objective.fit_intercept else 0.0
        vectors = _eigenvectors((columns[part] - center) * np.sqrt(share[part])[:, None], plan)
        rotated = columns @ vectors
        squared = np.square(rotated)
        left = np.maximum(np.einsum("nd,nd->n", columns, columns) - squared.sum(axis=1), 0.0)
        reached = np.count_nonzero(columns.any(axis=0))
        dimensions = max(0, min(reached, len(columns)) - vectors.shape[1])
        return cls(sample, stride, columns, vectors, rotated, squared, left / max(1, dimensions), dimensions)


def _some_weight(row_weight: Array, stride: int) -> Array:
    """Return the weights of sampled rows; equal ones if the sample met only rows of weight 0, as it may by its stride.

    Weights of all rows sum to about 1, and each sampled row stands for `stride` of them.
    """
    return row_weight if row_weight.any() else np.full(len(row_weight), 1.0 / (stride * max(1, len(row_weight))))


@dataclass(frozen=True)
class KroneckerMetric:
    """The Kronecker model of ∇²F at one point, ready to be inverted; see the module's docstring."""

    outputs: tuple[Array | None, Array]  # eigenvectors (K, K) or None for a diagonal, eigenvalues of A
    features: tuple[NDArray[Any], Array]  # eigenvectors (D, r), eigenvalues of B / Σω
    shift: Array  # x̂
    penalty: float
    fit_intercept: bool
    shift_invariant: bool
    floor: float
    curvature: float  # Σ ω
    outside: float  # the mean eigenvalue of B / Σω outside the span of the eigenvectors
    outside_dimensions: int

    @classmethod
    def at(cls, objective: Objective, theta: Array, basis: FeatureBasis) -> KroneckerMetric:
        """Build the model from a basis."""
        omega, between = _sample_curvature(objective, theta, basis)
        outputs = (None, between) if between.ndim == 1 else _spectrum(between)
        omega_sum = max(float(omega.sum()), float(np.finfo(np.float64).tiny))
        rotated = basis.rotated
        weight = (omega / omega_sum).astype(rotated.dtype)
        center = weight @ rotated if objective.fit_intercept else np.zeros(rotated.shape[1], rotated.dtype)
        shift = (basis.vectors @ center).astype(np.float64)
        vectors = basis.vectors
        if objective.num_outputs <= 2 and rotated.shape[1] <= objective.plan.full_rank:  # the model is exact then
            turn, eigenvalues = _spectrum(((rotated - center) * weight[:, None]).T @ (rotated - center))
            vectors = vectors @ turn
        else:  # the rows are centred already: little cancels here
            eigenvalues = np.maximum((weight @ basis.squared).astype(np.float64) - np.square(center), 0.0)
        features = (vectors, eigenvalues)
        curvature = float(outputs[1].max(initial=0.0) * features[1].max(initial=0.0))
        floor = max(np.finfo(np.float64).eps * curvature, np.finfo(np.float64).tiny)
        return cls(
            outputs,
            features,
            shift,
            objective.penalty.curvature,
            objective.fit_intercept,
            objective.is_shift_invariant,
            floor,
            omega_sum,
            float(weight @ basis.left),
            basis.dimensions,
        )

    @property
    def effective_parameters(self) -> float:
        """``Σ αβ / (αβ + λ)``: how many parameters the data decide, rather than the penalty."""
        alpha, beta = self.outputs[1], self.features[1]
        found = 0.0
        for rows in row_blocks(np.broadcast_to(beta, (len(alpha), len(beta)))):
            found += self._share(np.outer(alpha[rows], beta))
        return found + self.outside_dimensions * self._share(alpha * self.outside)

    def _share(self, curvature: Array) -> float:
        """Return ``Σ h / (h + λ)``."""
        return float(np.sum(curvature / np.maximum(curvature + self.penalty, self.floor)))

    def with_outputs(self, between: Array | None) -> KroneckerMetric:
        """Return the metric with A from other rows."""
        return self if between is None else replace(self, outputs=_spectrum(between))

    def solve_intercept(self, gradient: Array) -> Array:
        """Return A⁺ g for g of shape (K,)."""
        vectors, values = self.outputs
        limit = 1e-12 * values.max(initial=0.0)
        inverse = np.where(values > limit, 1.0 / np.maximum(values, limit or 1.0), 0.0)
        gradient = self._contrasts(gradient)
        solution = inverse * gradient if vectors is None else vectors @ (inverse * (vectors.T @ gradient))
        return self._contrasts(solution)

    def _contrasts(self, array: Array) -> Array:
        """Take off what all outputs share, where F does not see it: no cutoff tells rounding from a rare class."""
        return array - array.mean(axis=0) if self.shift_invariant else array

    def solve(self, gradient: Array) -> Array:
        """Return the model's inverse times a gradient (K, D + 1)."""
        by_output, alpha = self.outputs
        bias_gradient = self._contrasts(gradient[:, -1])
        out = np.empty_like(gradient)
        # Without A's eigenvectors the classes are apart, and many: some of them at a time.
        for rows in [slice(None)] if by_output is not None or self.penalty == 0 else row_blocks(gradient):
            rhs = gradient[rows, :-1]
            if self.fit_intercept:
                rhs = rhs - np.outer(bias_gradient[rows], self.shift)
            out[rows, :-1] = self._solve_weights(rhs, alpha[rows])
        out[:, -1] = 0.0
        if self.fit_intercept:
            out[:, -1] = self._contrasts(self.solve_intercept(bias_gradient) - out[:, :-1] @ self.shift)
        return out

    def _solve_weights(self, rhs: Array, alpha: Array) -> Array:
        """Return the inverse of W's block times a gradient of some classes, or of all."""
        by_output = self.outputs[0]
        by_feature, beta = self.features
        if self.penalty == 0:  # where F is flat a step would only amplify rounding
            rhs = self._contrasts(rhs)
            flat = alpha <= 1e-12 * alpha.max(initial=0.0)
        else:
            flat = np.zeros(len(alpha), dtype=bool)
        if by_output is not None:
            rhs = by_output.T @ rhs
        scale = np.maximum(np.outer(alpha, beta) + self.penalty, self.floor)
        scale[flat] = np.inf
        inside = _in_dtype(rhs, by_feature)
        if by_feature.shape[0] == by_feature.shape[1]:
            solution = _in_dtype(inside / scale, by_feature.T)
        else:  # R/σ off the basis, and what differs from it inside
            rest = np.maximum(alpha * self.outside + self.penalty, self.floor)[:, None]
            rest[flat] = np.inf
            solution = rhs / rest + _in_dtype(inside / scale - inside / rest, by_feature.T)
        if by_output is not None:
            solution = by_output @ solution
        return self._contrasts(solution) if self.penalty == 0 else solution


def _sample_curvature(objective: Objective, theta: Array, basis: FeatureBasis) -> tuple[Array, Array]:
    """Return ω (n,) of the basis's rows and A, (K, K) or its diagonal, some rows at a time."""
    working = WorkingParameters.of(theta, objective.dtype)
    sample = basis.sample
    all_mass = basis.stride * sample.mass(slice(None))
    dense = objective.plan.forms_between
    omega, between = np.empty(len(basis.columns)), np.zeros((objective.num_outputs,) * (2 if dense else 1))
    for start in range(0, len(omega), sample.plan.cache_rows):
        rows = slice(start, start + sample.plan.cache_rows)
        logits = basis.columns[rows].astype(objective.dtype, copy=False) @ working.weight.T
        logits += working.bias
        mass = all_mass[rows]
        if objective.link == "sigmoid":
            weighted = variances(logits) * (mass if mass.ndim == 2 else mass[:, None])
            omega[rows] = weighted.sum(axis=1)
            between += weighted.sum(axis=0)
            continue
        p, top, rest = probabilities(logits)
        omega[rows] = mass * row_curvature(p, top, rest)[0]
        between += between_outputs(p, mass) if dense else _output_diagonal(p, top, rest, mass)
    if dense and not objective.is_shift_invariant:  # cross-entropy has no curvature there, but the loss at hand has
        between += between.trace() / between.shape[0] ** 2
    return omega, between


def _in_dtype(array: Array, matrix: NDArray[Any]) -> Array:
    """Return a float64 product computed in the matrix's dtype, scaled so that nothing leaves float32's range."""
    if matrix.dtype == np.float64:
        return array @ matrix
    largest = float(np.abs(array).max(initial=0.0))
    if not 0 < largest < np.inf:
        return array @ matrix
    return ((array / largest).astype(matrix.dtype) @ matrix).astype(np.float64) * largest


def _output_diagonal(p: NDArray[Any], top: NDArray[np.intp], rest: NDArray[Any], mass: Array) -> Array:
    spread = p * (1 - p)
    rows = np.arange(len(p))
    spread[rows, top] = p[rows, top] * rest
    return mass @ spread


def _spectrum(between: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(between)
    return vectors, np.maximum(values, 0.0)


def _eigenvectors(rooted: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Return the eigenvectors (D, r) of ``Σ r rᵀ`` over rows r: all for few features, else the leading `rank`.

    The leading ones by two rounds of subspace iteration on random directions (Halko, Martinsson and Tropp 2011): what
    they cost is a few products with the rows, not the cube of D, and exactness would buy nothing here.
    """
    num_rows, num_features = rooted.shape
    if min(num_rows, num_features) <= plan.full_rank:
        if num_features <= num_rows:
            return np.linalg.eigh(rooted.T @ rooted)[1]
        values, vectors = np.linalg.eigh(rooted @ rooted.T)
        present = values > 1e2 * np.finfo(rooted.dtype).eps * values.max(initial=0.0)
        return rooted.T @ (vectors[:, present] / np.sqrt(values[present]))
    directions = np.random.default_rng(SEED).standard_normal((num_features, plan.rank), dtype=np.float32)
    vectors = directions.astype(rooted.dtype)
    for _ in range(2):
        vectors = np.linalg.qr(rooted.T @ (rooted @ vectors))[0]
    image = rooted @ vectors
    return vectors @ np.linalg.eigh(image.T @ image)[1]
