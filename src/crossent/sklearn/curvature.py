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

**Nor every class of a row.** A softmax that has learned something puts nearly all of a row on a few classes. So single
entries are drawn: ``a_i p_ik`` is kept where it exceeds ``θ = Σ_j tr S_j / (κ d)``; a smaller one is kept with
probability ``a_i p_ik / θ``, as θ; and ``S_i = a_i (diag p̃_i - p̃_i p̃_iᵀ / Σ_k p̃_ik)``. The bound is that of rows, 1/κ,
and holds for each entry instead of each row's K of them: among 100 classes a few percent are left. The likeliest
class of a row is always kept; a row without another one has no curvature. An entry costs more than its part of a
matrix product (`ENTRY_COST`), so blocks whose entries are many draw rows instead.

**The model** replaces the sum of Kronecker products by one, ``A ⊗ B / Σ_i ω_i`` with ``A = Σ_i S_i``, ``ω_i = tr S_i``
and ``B = Σ_i ω_i (x_i - x̂)(x_i - x̂)ᵀ``, centred at ``x̂ = Σ ω_i x_i / Σ ω_i``. In the coordinates (W, b + W x̂) the
intercept then parts from W: its block is A, exactly, and the block of W is ``A ⊗ B / Σω + λ``, which two
eigendecompositions invert. B's eigenvectors change little as ω does: they are found once, at the start, and only their
eigenvalues ``Σ ω_i <v_j, x_i - x̂>² / Σ ω`` are brought up to date (on MNIST at C = 10 with as many products as fresh
eigenvectors need, and a hundredth of their time).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from crossent.kernels.threads import run_rows

from .interface import Array, Objective
from .objective import CHUNKS, PARALLEL_WORK, LinearObjective, WorkingParameters, Workspace, drop_negligible
from .targets import EncodedTarget

DENSE_OUTPUTS = 256
"""A of more classes than these is replaced by its diagonal instead of being diagonalised."""
FULL_RANK = 256
RANK = 128
"""B of more features than the first keeps this many eigenvectors; the others share their mean eigenvalue."""
FRESH_RANK = 32
"""Up to this many the eigenvectors are brought up to date too. For two classes always: the model is exact then."""
BASIS_ROWS = 2048
DOUBLE_FEATURES = 256
"""Up to as many features their basis is found in float64: it is cheap, and columns may differ in scale."""
LONG_ROWS = 64
ENTRY_OUTPUTS = 64
"""Of fewer classes rows are drawn: they have little to leave out, and a row as a whole says more."""
ENTRIES_PER_ROW = 4
"""Where entries are drawn, as many are for each row that would be: they cost little, and too few cost Newton steps."""
ENTRY_COST = 3
"""What a multiplication for a single entry of p costs, in multiplications of a matrix product,"""
ENTRY_BYTES = 16
"""and about what it keeps in memory."""
ENTRIES_PER_TOTAL = 4
"""A partial sum is worth its zeros where as many entries per class are added to it."""
SEED = 20230


class _Rows(NamedTuple):
    """A block of rows as a Hessian product reads them, class-major: probabilities, likeliest class and mass; or, for
    the sigmoid link, a σ (1 - σ) alone."""

    columns: NDArray[Any]  # (n, D)
    values: NDArray[Any]  # (K, n)
    top: NDArray[np.intp] | None
    mass: NDArray[Any] | None


class _Entries(NamedTuple):
    """A block of rows of which single entries of p are kept, as `crossent.kernels.entries` lays them out."""

    columns: NDArray[Any]  # (n, D)
    rows: NDArray[np.int64]  # which of these
    starts: NDArray[np.int64]
    classes: NDArray[np.int32]
    values: NDArray[Any]
    mass: NDArray[Any]

    def between_outputs(self, num_outputs: int) -> Array:
        """Return ``Σ S_i`` (K, K), whose rows sum to 0 exactly."""
        p = csr_array((self.values.astype(np.float64), self.classes, self.starts), shape=(len(self.rows), num_outputs))
        factors = np.repeat(self.mass / p.sum(axis=1), np.diff(self.starts))
        between = -(csr_array((p.data * factors, p.indices, p.indptr), p.shape).T @ p).toarray()
        np.fill_diagonal(between, 0.0)
        np.fill_diagonal(between, -between.sum(axis=1))
        return between


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
            joined.append(
                _Rows(*(np.concatenate(list(f), a) for f, a in zip(zip(*part, strict=True), axes, strict=True)))
            )
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
    most_rows : float
        κ d: on average no more rows than this are kept, or `ENTRIES_PER_ROW` times as many entries.
    """

    def __init__(
        self,
        objective: LinearObjective,
        theta: Array,
        sampling: float = np.inf,
        step: int = 0,
        most_rows: float = np.inf,
    ) -> None:
        self._objective = objective
        self._theta = objective.working(theta)
        self._sampling = sampling
        self._step = step
        self._kept: list[_Rows | _Entries] | None = None
        self._buffers: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.rows_kept: float = objective.num_rows
        """An entry of p counts as 1/K of a row."""
        self.outputs: Array | None = None
        """A (K, K) over all rows, where it was cheap; it is what Newton's method for b alone needs."""
        num_rows, num_outputs, size = objective.num_rows, objective.num_outputs, objective.dtype.itemsize
        many = objective.target.link == "softmax" and num_outputs >= ENTRY_OUTPUTS
        self._draws_entries = many and bool(np.isfinite(sampling))
        wanted = ENTRIES_PER_ROW * most_rows
        copied = 0 if objective.holds_columns else objective.num_features
        most_entries = objective.cache_bytes // (ENTRY_BYTES + copied * size)
        if self._draws_entries and most_entries < wanted < np.inf:
            if most_entries < num_outputs:
                self._draws_entries = False  # less than one for each class
            elif num_outputs > DENSE_OUTPUTS:
                self._sampling *= most_entries / wanted
            else:  # matrix products are not so much dearer that what memory allows would have to do
                self._draws_entries = False
        if most_rows < num_rows:
            copied = objective.num_features
        self._keeps_rows = min(most_rows, num_rows) * (num_outputs + copied) * size <= objective.cache_bytes
        if not (self._keeps_rows or self._draws_entries):
            return  # every product makes its blocks anew
        with_outputs = objective.target.link == "softmax" and num_outputs <= DENSE_OUTPUTS

        def keep(workspace: Workspace, rows: slice, total: list[Any]) -> float:
            block = self._block(workspace, rows, total[0])
            if len(block.columns):
                total.append(block)
            return 0.0

        square = (num_outputs, num_outputs)
        parts = [total for total, _ in objective.sum_rows(keep, lambda: [np.zeros(square) if with_outputs else None])]
        rows = [block for part in parts for block in part[1:] if isinstance(block, _Rows)]
        entries = [block for part in parts for block in part[1:] if isinstance(block, _Entries)]
        if with_outputs:
            self.outputs = np.sum([part[0] for part in parts], axis=0)
        kept = sum(len(block.columns) for block in rows)
        if kept < num_rows:
            work = kept * num_outputs * objective.num_features
            size = -(-kept // max(1, min(CHUNKS, work // PARALLEL_WORK)))
            rows = _join(rows, min(objective.cache_rows, size))
        self.rows_kept = kept + sum(len(block.values) for block in entries) / num_outputs
        self._kept = [*rows, *entries]

    @property
    def share(self) -> float:
        """The part of all rows with weight that takes part in a product."""
        return min(1.0, self.rows_kept / self._objective.num_counted)

    def moved_to(self, objective: Any) -> Hessian:
        """Return the same draw of the same rows, held by another objective (None: by none as yet)."""
        moved = copy(self)
        moved._objective = objective
        return moved

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept for products, beyond the objective's own."""
        arrays = [array for block in self._kept or [] for array in block if array is not None]
        return sum(array.nbytes for array in arrays if array.base is None)

    def _block(self, workspace: Workspace, rows: slice, outputs: Array | None = None) -> _Rows | _Entries:
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
        if self._draws_entries:
            entries = self._draw_entries(columns, (p, top, rest, mass), rows)
            if entries is not None:
                if outputs is not None:
                    outputs += entries.between_outputs(p.shape[1])
                return entries
        if outputs is not None:
            outputs += _between_outputs(p, mass)
        if np.isinf(self._sampling):
            chosen, boost = slice(None), None
        else:
            trace, largest = _row_curvature(p, top, rest)
            chosen, boost = self._draw(mass * trace, 2 * mass * largest, rows)
        mass = mass[chosen] if boost is None else mass[chosen] * boost
        values = np.array(drop_negligible(p[chosen]).T, order="C")  # a copy, because the workspace is reused
        return _Rows(self._take(columns, chosen), values, top[chosen], mass.astype(objective.dtype))

    def _draw_entries(self, columns: NDArray[Any], model: tuple[Any, Any, Any, Any], rows: slice) -> _Entries | None:
        """Return the entries of a block that count; None where matrix products with whole rows cost less."""
        p, top, rest, mass = model
        kept, starts = np.empty(len(p), np.int64), np.zeros(len(p) + 1, np.int64)
        classes, values = np.empty(p.size, np.int32), np.empty(p.size, p.dtype)
        phase = np.random.default_rng((SEED, self._step, rows.start)).random()
        least = 1.0 / (ENTRIES_PER_ROW * self._sampling)
        draw = self._objective.draw_entries
        num_rows, num_entries = draw(p, top, rest, mass, least, phase, kept, starts[1:], classes, values)
        if self._keeps_rows and ENTRY_COST * num_entries > num_rows * p.shape[1]:
            return None
        kept = kept[:num_rows].copy()
        mass = mass[kept].astype(p.dtype)
        if not self._objective.holds_columns:
            columns, kept = columns[kept], np.arange(num_rows)
        return _Entries(
            columns, kept, starts[: num_rows + 1], classes[:num_entries].copy(), values[:num_entries].copy(), mass
        )

    def _take(self, columns: NDArray[Any], chosen: Any) -> NDArray[Any]:
        if isinstance(chosen, slice):
            return columns if self._objective.holds_columns else columns.copy()
        return columns[chosen]

    def _draw(self, trace: Array, largest: Array, rows: slice) -> tuple[Any, Array | None]:
        """Return which rows to keep and their 1/π: systematic sampling, from a start that the block's place decides."""
        if np.isinf(self._sampling):
            return slice(None), None
        share = np.minimum(1.0, self._sampling * np.minimum(trace, largest))
        if share.min(initial=1.0) == 1.0:
            return slice(None), None
        start = np.random.default_rng((SEED, self._step, self._objective.first_row + rows.start)).random()
        reached = np.floor(np.cumsum(share) + start)
        chosen = np.flatnonzero(np.diff(reached, prepend=0.0) > 0)
        return chosen, 1.0 / share[chosen]

    def __matmul__(self, vector: Array) -> Array:
        """Return (∇²F) V for V of the parameters' shape (K, D + 1)."""
        objective = self._objective
        objective.hessian_products += 1
        v = objective.working(vector)
        product = np.zeros(vector.shape)
        if self._kept is None:

            def recompute(workspace: Workspace, rows: slice, total: Array) -> float:
                block = self._block(workspace, rows)
                assert isinstance(block, _Rows)  # entries are always kept
                self._add(block, v, total)
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
        if all(isinstance(block, _Entries) for block in kept):
            entries = sum(len(block.values) for block in kept)
            count = min(count, max(1, entries // (ENTRIES_PER_TOTAL * self._objective.num_outputs)))
        bounds = [len(kept) * i // max(1, count) for i in range(count + 1)]
        out: list[Any] = [None] * count

        def run(start: int, stop: int) -> None:
            for chunk in range(start, stop):
                total = np.zeros(shape)
                single: Any = None  # entries are added in working precision
                for block in kept[bounds[chunk] : bounds[chunk + 1]]:
                    if isinstance(block, _Rows):
                        self._add(block, v, total)
                    else:
                        single = np.zeros(shape, self._objective.dtype) if single is None else single
                        self._objective.multiply_entries(block, v, single)
                out[chunk] = total if single is None else total + single

        run_rows(run, count, PARALLEL_WORK, ())
        return out

    def _add(self, block: _Rows, v: Any, total: Array) -> None:
        objective = self._objective
        try:
            buffer, product = self._buffers.pop()
        except IndexError:  # all in use by other threads
            buffer = np.empty(0, objective.dtype)
            product = np.empty((objective.num_outputs, objective.num_features), objective.dtype)
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

    sample: LinearObjective
    stride: int
    columns: NDArray[Any]  # the sample's (n, D), centred
    vectors: NDArray[Any]  # (D, r)
    rotated: NDArray[Any]  # columns in the basis (n, r)
    squared: NDArray[Any]
    left: NDArray[Any]  # squares of each row outside that span, per dimension
    dimensions: int  # of the rest that the rows reach
    whole: FeatureBasis | None = None  # with the rows of weight 0, where they are left out here

    @classmethod
    def shared(cls, objective: Objective, sample: int | None) -> FeatureBasis:
        """Return the objective's basis, found once for all fits of a sweep."""
        if objective.basis is None:
            basis = cls.of(objective, sample)
            objective.basis = basis.reweigh(basis.sample.row_weight, basis.sample.target)
        return objective.basis

    def reweigh(self, row_weight: Array, target: EncodedTarget) -> FeatureBasis:
        """Return the basis with other weights and targets of the sampled rows, and without those of weight 0."""
        whole = self.whole or self
        row_weight = _some_weight(row_weight, self.stride)
        counted = np.flatnonzero(row_weight)
        if len(counted) == len(row_weight):
            return replace(whole, sample=whole.sample.take(slice(None), row_weight, target))
        sample = whole.sample.take(counted, row_weight[counted], target.take(counted))
        parts = {name: getattr(whole, name)[counted] for name in ("columns", "rotated", "squared", "left")}
        return replace(whole, sample=sample, whole=whole, **parts)

    @classmethod
    def of(cls, objective: Objective, count: int | None) -> FeatureBasis:
        """Take about `count` evenly spaced rows (None: all)."""
        sample, stride = objective.sample(count)
        dtype = np.float64 if objective.num_features <= DOUBLE_FEATURES else objective.dtype
        columns = np.empty((sample.num_rows, objective.num_features), dtype)
        np.subtract(sample.X, objective.center, out=columns, casting="same_kind")
        weight = _some_weight(sample.row_weight, stride)
        if weight is not sample.row_weight:
            sample = sample.take(slice(None), weight, sample.target)
        share = (weight / weight.sum()).astype(columns.dtype)
        part = slice(0, None, max(1, len(columns) // max(BASIS_ROWS, 2 * RANK)))
        center = share @ columns if objective.fit_intercept else 0.0
        vectors = _eigenvectors((columns[part] - center) * np.sqrt(share[part])[:, None])
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


@dataclass
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
    def at(
        cls, objective: Objective, theta: Array, sample: int | None = None, basis: FeatureBasis | None = None
    ) -> KroneckerMetric:
        """Build the model from a basis, by default one of about `sample` evenly spaced rows (None: all)."""
        if basis is None:
            basis = FeatureBasis.of(objective, sample)
        omega, between = _sample_curvature(objective, theta, basis)
        outputs = (None, between) if between.ndim == 1 else _spectrum(between)
        omega_sum = max(float(omega.sum()), float(np.finfo(np.float64).tiny))
        rotated = basis.rotated
        weight = (omega / omega_sum).astype(rotated.dtype)
        center = weight @ rotated if objective.fit_intercept else np.zeros(rotated.shape[1], rotated.dtype)
        shift = (basis.vectors @ center).astype(np.float64)
        # The rows are centred already: little cancels here.
        vectors = basis.vectors
        if rotated.shape[1] <= (FULL_RANK if objective.num_outputs <= 2 else FRESH_RANK):
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
            objective.penalty,
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
        alpha = self.outputs[1]
        inside, outside = np.outer(alpha, self.features[1]), alpha * self.outside
        found = float(np.sum(inside / np.maximum(inside + self.penalty, self.floor)))
        return found + self.outside_dimensions * float(np.sum(outside / np.maximum(outside + self.penalty, self.floor)))

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
        by_feature, beta = self.features
        bias_gradient = self._contrasts(gradient[:, -1])
        rhs = gradient[:, :-1]
        if self.fit_intercept:
            rhs = rhs - np.outer(bias_gradient, self.shift)
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
        if self.penalty == 0:
            solution = self._contrasts(solution)
        out = np.empty_like(gradient)
        out[:, :-1] = solution
        out[:, -1] = 0.0
        if self.fit_intercept:
            out[:, -1] = self._contrasts(self.solve_intercept(bias_gradient) - solution @ self.shift)
        return out


def _sample_curvature(objective: Objective, theta: Array, basis: FeatureBasis) -> tuple[Array, Array]:
    """Return ω (n,) of the basis's rows and A, (K, K) or its diagonal, some rows at a time."""
    working = WorkingParameters.of(theta, objective.dtype)
    sample = basis.sample
    all_mass = basis.stride * sample.mass(slice(None))
    dense = objective.link == "softmax" and objective.num_outputs <= DENSE_OUTPUTS
    omega, between = np.empty(len(basis.columns)), np.zeros((objective.num_outputs,) * (2 if dense else 1))
    for start in range(0, len(omega), sample.cache_rows):
        rows = slice(start, start + sample.cache_rows)
        logits = basis.columns[rows].astype(objective.dtype, copy=False) @ working.weight.T
        logits += working.bias
        mass = all_mass[rows]
        if objective.link == "sigmoid":
            weighted = sample.variances(logits) * (mass if mass.ndim == 2 else mass[:, None])
            omega[rows] = weighted.sum(axis=1)
            between += weighted.sum(axis=0)
            continue
        p, top, rest = sample.probabilities(logits)
        omega[rows] = mass * _row_curvature(p, top, rest)[0]
        between += _between_outputs(p, mass) if dense else _output_diagonal(p, top, rest, mass)
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


def _between_outputs(p: NDArray[Any], mass: Array) -> Array:
    """Return ``Σ a (diag p - p pᵀ)`` (K, K), in float64: rare classes have small eigenvalues, and (1, …, 1) has 0.

    Rows sum to 0, so the diagonal is what the rest of a row adds up to. Summed as ``p (1 - p)`` it would miss that by
    the rounding of p, and shifting all classes together would seem to have a curvature.
    """
    double = p.astype(np.float64)
    between = -((double * mass[:, None]).T @ double)
    np.fill_diagonal(between, 0.0)
    np.fill_diagonal(between, -between.sum(axis=1))
    return between


def _output_diagonal(p: NDArray[Any], top: NDArray[np.intp], rest: NDArray[Any], mass: Array) -> Array:
    spread = p * (1 - p)
    rows = np.arange(len(p))
    spread[rows, top] = p[rows, top] * rest
    return mass @ spread


def _spectrum(between: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh(between)
    return vectors, np.maximum(values, 0.0)


def _eigenvectors(rooted: NDArray[Any]) -> NDArray[Any]:
    """Return the eigenvectors (D, r) of ``Σ r rᵀ`` over rows r: all for few features, else the leading `RANK`.

    The leading ones by two rounds of subspace iteration on random directions (Halko, Martinsson and Tropp 2011): what
    they cost is a few products with the rows, not the cube of D, and exactness would buy nothing here.
    """
    num_rows, num_features = rooted.shape
    if min(num_rows, num_features) <= FULL_RANK:
        if num_features <= num_rows:
            return np.linalg.eigh(rooted.T @ rooted)[1]
        values, vectors = np.linalg.eigh(rooted @ rooted.T)
        present = values > 1e2 * np.finfo(rooted.dtype).eps * values.max(initial=0.0)
        return rooted.T @ (vectors[:, present] / np.sqrt(values[present]))
    directions = np.random.default_rng(SEED).standard_normal((num_features, RANK), dtype=np.float32)
    vectors = directions.astype(rooted.dtype)
    for _ in range(2):
        vectors = np.linalg.qr(rooted.T @ (rooted @ vectors))[0]
    image = rooted @ vectors
    return vectors @ np.linalg.eigh(image.T @ image)[1]
