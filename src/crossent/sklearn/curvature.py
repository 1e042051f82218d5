"""Second derivatives of cross-entropy on a linear model: products, and a Kronecker model to precondition them.

With ``S_i = a_i (diag p_i - p_i p_iᵀ)`` (softmax) or ``a_i diag(p_i (1 - p_i))`` (sigmoid), a the mass of the rows, the
Hessian of the data's part is ``Σ_i S_i ⊗ x̃_i x̃_iᵀ``, x̃ = (x, 1). A product with V needs one pass: ``u_i = V x̃_i``,
``v_i = S_i u_i``, ``Σ_i v_i x̃_iᵀ``.

**Not every row is needed.** A row that the model is sure of has next to no curvature, and where there are many rows
per parameter, a part of them stands for all. Row i is kept with probability

    π_i = min(1, κ d s_i / Σ_j tr S_j),    s_i = min(tr S_i, 2 max_k (S_i)_kk) ≥ ‖S_i‖,

and its S_i divided by π_i, which leaves the sum as expected. ``d = Σ αβ/(αβ + λ)``, the effective number of parameters
at the model's eigenvalues, bounds how much curvature a row can hold: after preconditioning no kept row exceeds about
1/κ of the whole. Gradients always see every row, so κ decides how fast Newton's method converges, never to what.

**The model** replaces the sum of Kronecker products by one, ``A ⊗ B / Σ_i ω_i`` with ``A = Σ_i S_i``, ``ω_i = tr S_i``
and ``B = Σ_i ω_i (x_i - x̂)(x_i - x̂)ᵀ``, centred at ``x̂ = Σ ω_i x_i / Σ ω_i``. In the coordinates (W, b + W x̂) the
intercept then parts from W: its block is A, exactly, and the block of W is ``A ⊗ B / Σω + λ``, which two
eigendecompositions invert. B's eigenvectors change little as ω does: they are found once, at the start, and only their
eigenvalues ``Σ ω_i <v_j, x_i - x̂>² / Σ ω`` are brought up to date (on MNIST at C = 10 with as many products as fresh
eigenvectors need, and a hundredth of their time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent.kernels.threads import run_rows

from .objective import CACHE_BYTES, CHUNKS, PARALLEL_WORK, Array, LinearObjective, Workspace, drop_negligible

DENSE_FEATURES = 2048
DENSE_OUTPUTS = 256
"""Larger matrices than these are replaced by their diagonals instead of being diagonalised."""
DOUBLE_FEATURES = 256
"""Up to as many features their basis is found in float64: it is cheap, and columns may differ in scale."""
LONG_ROWS = 64
SEED = 20230


class _Rows(NamedTuple):
    """A block of rows as a Hessian product reads them, class-major: probabilities, likeliest class and mass; or, for
    the sigmoid link, a σ (1 - σ) alone."""

    columns: NDArray[Any]  # (n, D)
    values: NDArray[Any]  # (K, n)
    top: NDArray[np.intp] | None
    mass: NDArray[Any] | None


def _join(blocks: list[_Rows], size: int) -> list[_Rows]:
    """Return the same rows in blocks of about `size`."""
    joined: list[_Rows] = []
    start = 0
    while start < len(blocks):
        stop, count = start, 0
        while stop < len(blocks) and (stop == start or count + len(blocks[stop].columns) <= size):
            count += len(blocks[stop].columns)
            stop += 1
        part = blocks[start:stop]
        if len(part) == 1:
            joined += part
        elif part[0].top is None:
            columns, values = np.concatenate([b.columns for b in part]), np.concatenate([b.values for b in part], 1)
            joined.append(_Rows(columns, values, None, None))
        else:
            axes = (0, 1, 0, 0)
            joined.append(_Rows(*(np.concatenate(list(f), a) for f, a in zip(zip(*part, strict=True), axes, strict=True))))
        start = stop
    return joined


class Hessian:
    """Hessian products at one point.

    Parameters
    ----------
    objective : LinearObjective
    theta : ndarray (K, D + 1)
    sampling : float
        ``κ d / Σ tr S`` of the module's docstring; infinite keeps every row, and products are exact.
    step : int
        Which rows are drawn depends on it, and on nothing else.
    """

    def __init__(self, objective: LinearObjective, theta: Array, sampling: float = np.inf, step: int = 0) -> None:
        self._objective = objective
        self._theta = objective.working(theta)
        self._sampling = sampling
        self._step = step
        self._kept: list[_Rows] | None = None
        self._buffers: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.rows_kept = objective.num_rows
        row_bytes = (objective.num_outputs + (0 if np.isinf(sampling) else objective.num_features)) * (
            objective.dtype.itemsize
        )
        if objective.num_rows * row_bytes > CACHE_BYTES and np.isinf(sampling):
            return

        def keep(workspace: Workspace, rows: slice, total: list[_Rows]) -> float:
            block = self._block(workspace, rows)
            if len(block.columns):
                total.append(block)
            return 0.0

        blocks = [block for total, _ in objective.sum_rows(keep, list) for block in total]
        self.rows_kept = sum(len(block.columns) for block in blocks)
        if self.rows_kept < objective.num_rows:
            parts = max(1, min(CHUNKS, self.rows_kept * objective.num_outputs * objective.num_features // PARALLEL_WORK))
            blocks = _join(blocks, min(objective.cache_rows, -(-self.rows_kept // parts)))
        self._kept = blocks

    @property
    def share(self) -> float:
        """The part of all rows that takes part in a product."""
        return self.rows_kept / self._objective.num_rows

    def _block(self, workspace: Workspace, rows: slice) -> _Rows:
        objective = self._objective
        columns = objective.columns(workspace, rows)
        logits = objective.logits(workspace, self._theta, columns)
        mass = objective.mass(rows)
        if objective.target.link == "sigmoid":
            values = objective.variances(logits)
            weighted = values * (mass if mass.ndim == 2 else mass[:, None])
            chosen, boost = self._draw(weighted.sum(axis=1), weighted.max(axis=1), rows)
            kept = np.ascontiguousarray(drop_negligible(weighted[chosen].astype(objective.dtype)).T)
            if boost is not None:
                kept *= boost.astype(objective.dtype)
            return _Rows(self._take(columns, chosen), kept, None, None)
        p, top, rest = objective.probabilities(logits)
        if np.isinf(self._sampling):
            chosen, boost = slice(None), None
        else:
            trace, largest = _row_curvature(p, top, rest)
            chosen, boost = self._draw(mass * trace, 2 * mass * largest, rows)
        mass = mass[chosen] if boost is None else mass[chosen] * boost
        values = np.array(drop_negligible(p[chosen]).T, order="C")  # a copy, because the workspace is reused
        return _Rows(self._take(columns, chosen), values, top[chosen], mass.astype(objective.dtype))

    def _take(self, columns: NDArray[Any], chosen: Any) -> NDArray[Any]:
        if isinstance(chosen, slice):
            return columns if self._objective.holds_columns else columns.copy()
        return columns[chosen]

    def _draw(self, trace: Array, largest: Array, rows: slice) -> tuple[Any, Array | None]:
        """Return which rows to keep and 1/π of these: systematic sampling, from a start that the rows' place decides."""
        if np.isinf(self._sampling):
            return slice(None), None
        share = np.minimum(1.0, self._sampling * np.minimum(trace, largest))
        if share.min(initial=1.0) == 1.0:
            return slice(None), None
        start = np.random.default_rng((SEED, self._step, rows.start)).random()
        reached = np.floor(np.cumsum(share) + start)
        chosen = np.flatnonzero(np.diff(reached, prepend=0.0) > 0)
        return chosen, 1.0 / share[chosen]

    def _source(self) -> tuple[int, Any]:
        """Return the number of blocks, and a function of a workspace and a block's number that returns the block."""
        if self._kept is not None:
            kept = self._kept
            return len(kept), lambda _, i: kept[i]
        objective = self._objective
        return len(objective.blocks), lambda workspace, i: self._block(workspace, objective.blocks[i])

    def __matmul__(self, vector: Array) -> Array:
        """Return (∇²F) V for V of the parameters' shape (K, D + 1)."""
        objective = self._objective
        objective.hessian_products += 1
        v = objective.working(vector)
        product = np.zeros(vector.shape)
        if self._kept is None:

            def recompute(workspace: Workspace, rows: slice, total: Array) -> float:
                self._add(self._block(workspace, rows), v, total)
                return 0.0

            for total, _ in objective.sum_rows(recompute, lambda: np.zeros(vector.shape)):
                product += total
        else:
            for total in self._sum_kept(v, vector.shape):
                product += total
        product[:, :-1] += objective.penalty * vector[:, :-1]
        return product

    def _sum_kept(self, v: Any, shape: tuple[int, ...]) -> list[Array]:
        kept = self._kept or []
        count = min(self._objective.num_chunks, len(kept))
        bounds = [len(kept) * i // max(1, count) for i in range(count + 1)]
        out: list[Any] = [None] * count

        def run(start: int, stop: int) -> None:
            for chunk in range(start, stop):
                total = np.zeros(shape)
                for block in kept[bounds[chunk] : bounds[chunk + 1]]:
                    self._add(block, v, total)
                out[chunk] = total

        run_rows(run, count, PARALLEL_WORK, ())
        return out

    def _add(self, block: _Rows, v: Any, total: Array) -> None:
        objective = self._objective
        try:
            buffer, product = self._buffers.pop()
        except IndexError:  # all in use by other threads
            buffer, product = np.empty(0, objective.dtype), np.empty((objective.num_outputs, objective.num_features))
            product = product.astype(objective.dtype)
        if buffer.size < block.values.size:
            buffer = np.empty(block.values.size, objective.dtype)
        u = buffer[: block.values.size].reshape(block.values.shape)
        if objective.num_features >= LONG_ROWS:
            u[...] = (block.columns @ v.weight.T).T  # half the time of W Xᵀ for few classes
        else:
            np.matmul(v.weight, block.columns.T, out=u)
        if objective.fit_intercept:
            u += v.bias[:, None]
        if block.top is not None:
            objective.curvature_in_place(block.values, block.top, block.mass, u)
        else:
            u *= block.values
        np.matmul(u, block.columns, out=product)
        total[:, :-1] += product
        if objective.fit_intercept:
            total[:, -1] += u.sum(axis=1, dtype=np.float64)
        self._buffers.append((buffer, product))


def _row_curvature(p: NDArray[Any], top: NDArray[np.intp], rest: NDArray[Any]) -> tuple[Array, Array]:
    """Return ``tr (diag p - p pᵀ)`` and a bound of its diagonal, row by row, without cancellation."""
    rows = np.arange(len(p))
    at_top = p[rows, top].astype(np.float64) * rest
    squares = np.einsum("nk,nk->n", p, p, dtype=np.float64) - p[rows, top].astype(np.float64) ** 2
    # Σ p(1-p) = p_m (1-p_m) + Σ_others p - Σ_others p²; another class has p (1-p) ≤ p ≤ min(p_m, 1-p_m), and ≤ ¼.
    bound = np.minimum(np.minimum(rest, p[rows, top]), 0.25)
    return at_top + np.maximum(rest - squares, 0.0), np.maximum(at_top, bound)


@dataclass
class FeatureBasis:
    """Sampled rows in the eigenvectors of their second moment: what stays the same from one metric to the next."""

    rows: slice
    columns: NDArray[Any]  # (n, D), centred
    stride: int
    vectors: NDArray[Any] | None  # (D, r), or None for a diagonal
    rotated: NDArray[Any]  # columns in the basis (n, r), or the columns themselves
    squared: NDArray[Any]
    spans: bool  # every row lies in the span of the vectors

    @classmethod
    def of(cls, objective: LinearObjective, sample: int | None) -> FeatureBasis:
        """Take about `sample` evenly spaced rows (None: all)."""
        stride = 1 if sample is None else -(-objective.num_rows // max(1, sample))
        rows = slice(0, objective.num_rows, stride)
        columns = np.empty((len(range(*rows.indices(objective.num_rows))), objective.num_features), objective.dtype)
        if objective.num_features <= DOUBLE_FEATURES:
            columns = columns.astype(np.float64)
        np.subtract(objective.X[rows], objective.center, out=columns, casting="same_kind")
        weight = objective.row_weight[rows]
        share = (weight / weight.sum()).astype(columns.dtype)
        vectors = _eigenvectors((columns - share @ columns) * np.sqrt(share)[:, None])
        rotated = columns if vectors is None else columns @ vectors
        spans = vectors is None or vectors.shape[1] == np.count_nonzero(vectors.any(axis=1))
        return cls(rows, columns, stride, vectors, rotated, np.square(rotated), spans)


@dataclass
class KroneckerMetric:
    """The Kronecker model of ∇²F at one point, ready to be inverted; see the module's docstring."""

    outputs: tuple[Array | None, Array]  # eigenvectors (K, K) or None for a diagonal, eigenvalues of A
    features: tuple[NDArray[Any] | None, Array]  # eigenvectors (D, r) or None, eigenvalues of B / Σω
    shift: Array  # x̂
    penalty: float
    fit_intercept: bool
    floor: float
    curvature: float  # Σ ω
    spans: bool

    @classmethod
    def at(
        cls, objective: LinearObjective, theta: Array, sample: int | None = None, basis: FeatureBasis | None = None
    ) -> KroneckerMetric:
        """Build the model from a basis, by default one of about `sample` evenly spaced rows (None: all)."""
        if basis is None:
            basis = FeatureBasis.of(objective, sample)
        working = objective.working(theta)
        logits = basis.columns.astype(objective.dtype, copy=False) @ working.weight.T
        logits += working.bias
        mass = basis.stride * objective.mass(basis.rows)
        if objective.target.link == "sigmoid":
            weighted = objective.variances(logits) * (mass if mass.ndim == 2 else mass[:, None])
            omega = weighted.sum(axis=1)
            outputs: tuple[Array | None, Array] = (None, weighted.sum(axis=0))
        else:
            p, top, rest = objective.probabilities(logits)
            omega = mass * _row_curvature(p, top, rest)[0]
            outputs = _output_spectrum(p, top, rest, mass)
        omega_sum = max(float(omega.sum()), float(np.finfo(np.float64).tiny))
        rotated, vectors = basis.rotated, basis.vectors
        weight = (omega / omega_sum).astype(rotated.dtype)
        center = shift = np.zeros(objective.num_features if vectors is None else vectors.shape[1])
        if objective.fit_intercept:
            center = weight @ rotated
        shift = center.astype(np.float64) if vectors is None else vectors @ center
        # The rows are centred already: little cancels here.
        features = (vectors, np.maximum((weight @ basis.squared).astype(np.float64) - np.square(center), 0.0))
        curvature = float(outputs[1].max(initial=0.0) * features[1].max(initial=0.0))
        floor = max(np.finfo(np.float64).eps * curvature, np.finfo(np.float64).tiny)
        return cls(outputs, features, shift, objective.penalty, objective.fit_intercept, floor, omega_sum, basis.spans)

    @property
    def effective_parameters(self) -> float:
        """``Σ αβ / (αβ + λ)``: how many parameters the data decide, rather than the penalty."""
        curvature = np.outer(self.outputs[1], self.features[1])
        return float(np.sum(curvature / np.maximum(curvature + self.penalty, self.floor)))

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
        scale = np.maximum(np.outer(alpha, beta) + self.penalty, self.floor)
        if by_feature is None:
            solution = rhs / scale
        else:
            inside = _in_dtype(rhs, by_feature)
            outside = None if self.spans else rhs - _in_dtype(inside, by_feature.T)
            solution = _in_dtype(inside / scale, by_feature.T)
            if outside is not None:
                solution += outside / max(self.penalty, self.floor)
        if by_output is not None:
            solution = by_output @ solution
        out = np.empty_like(gradient)
        out[:, :-1] = solution
        out[:, -1] = self.solve_intercept(bias_gradient) - solution @ self.shift if self.fit_intercept else 0.0
        return out


def _in_dtype(array: Array, matrix: NDArray[Any]) -> Array:
    """Return a float64 product computed in the matrix's dtype, scaled so that nothing leaves float32's range."""
    if matrix.dtype == np.float64:
        return array @ matrix
    largest = float(np.abs(array).max(initial=0.0))
    if not 0 < largest < np.inf:
        return array @ matrix
    return ((array / largest).astype(matrix.dtype) @ matrix).astype(np.float64) * largest


def _output_spectrum(
    p: NDArray[Any], top: NDArray[np.intp], rest: NDArray[Any], mass: Array
) -> tuple[Array | None, Array]:
    """Return eigenvectors and eigenvalues of ``A = Σ a (diag p - p pᵀ)``."""
    p = p.astype(np.float64)
    weighted = p * mass[:, None]
    spread = weighted * (1 - p)
    rows = np.arange(len(p))
    spread[rows, top] = weighted[rows, top] * rest
    diagonal = spread.sum(axis=0)
    if p.shape[1] > DENSE_OUTPUTS:
        return None, diagonal
    between = -(weighted.T @ p)
    np.fill_diagonal(between, diagonal)
    values, vectors = np.linalg.eigh(between)
    return vectors, np.maximum(values, 0.0)


def _eigenvectors(rooted: NDArray[Any]) -> NDArray[Any] | None:
    """Return the eigenvectors of ``Σ r rᵀ`` over rows r, by the smaller of D × D and n × n; None if that is large.

    Columns of zeros (pixels that are never set) are left out first, and have no part in any eigenvector.
    """
    num_rows, num_features = rooted.shape
    if min(num_rows, num_features) > DENSE_FEATURES:
        return None
    used = np.flatnonzero(rooted.any(axis=0))
    if len(used) < num_features:
        rooted = np.ascontiguousarray(rooted[:, used])
    if len(used) <= num_rows:
        found = np.linalg.eigh(rooted.T @ rooted)[1]
    else:
        values, vectors = np.linalg.eigh(rooted @ rooted.T)
        present = values > 1e2 * np.finfo(rooted.dtype).eps * values.max(initial=0.0)
        found = rooted.T @ (vectors[:, present] / np.sqrt(values[present]))
    if len(used) == num_features:
        return found
    out = np.zeros((num_features, found.shape[1]), found.dtype)
    out[used] = found
    return out
