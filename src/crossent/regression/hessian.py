"""Second derivatives of cross-entropy on a linear model: products with a vector, from some of the rows or all.

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
matrix product (`entry_cost`), so blocks whose entries are many draw rows instead.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from crossent.kernels import registry

from .arrays import Array, row_blocks
from .blocks import BlockedRows, WorkingParameters, Workspace
from .rows import between_outputs, drop_negligible, probabilities, row_curvature, variances

__all__ = ["SEED", "Hessian"]

LONG_ROWS = 64
"""Features from which ``(X Wᵀ)ᵀ`` takes half the time of ``W Xᵀ`` for few classes."""
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
    """Return the same rows in blocks of about `size`: those that were drawn from a block are few."""
    joined: list[_Rows] = []
    start = 0
    while start < len(blocks):
        stop, count = start, 0
        while stop < len(blocks) and (stop == start or count + len(blocks[stop].columns) <= size):
            count += len(blocks[stop].columns)
            stop += 1
        columns, values, top, mass = zip(*blocks[start:stop], strict=True)
        rest = (None, None) if top[0] is None else (np.concatenate(top), np.concatenate(mass))
        joined.append(_Rows(np.concatenate(columns), np.concatenate(values, axis=1), *rest))
        start = stop
    return joined


class Hessian:
    """Hessian products at one point.

    Parameters
    ----------
    objective : BlockedRows
    theta : ndarray (K, D + 1)
    sampling : float
        ``κ d / Σ tr S`` of the module's docstring; infinite keeps every row, and products are exact.
    step : int
        Which rows are drawn depends on it, and on nothing else.
    most_rows : float
        κ d: on average no more rows than this are kept, or `entries_per_row` times as many entries.
    """

    def __init__(
        self,
        objective: BlockedRows,
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
        self.rows_kept: float = objective.num_rows
        """An entry of p counts as 1/K of a row."""
        self.outputs: Array | None = None
        """A (K, K) over all rows, where it was cheap; it is what Newton's method for b alone needs."""
        plan = objective.plan
        num_rows, num_outputs, size = objective.num_rows, objective.num_outputs, objective.dtype.itemsize
        self._draws_entries = plan.draws_entries and bool(np.isfinite(sampling))
        wanted = plan.entries_per_row * most_rows
        copied = 0 if objective.holds_columns else objective.num_features
        most_entries = objective.cache_bytes // (plan.entry_bytes + copied * size)
        if self._draws_entries and most_entries < wanted < np.inf:
            if most_entries < num_outputs:
                self._draws_entries = False  # less than one for each class
            elif not plan.forms_between:
                self._sampling *= most_entries / wanted
            else:  # matrix products are not so much dearer that what memory allows would have to do
                self._draws_entries = False
        if most_rows < num_rows:
            copied = objective.num_features
        self._keeps_rows = min(most_rows, num_rows) * (num_outputs + copied) * size <= objective.cache_bytes
        if not (self._keeps_rows or self._draws_entries):
            return  # every product makes its blocks anew
        with_outputs = plan.forms_between

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
            size = -(-kept // max(1, min(plan.chunks, work // plan.parallel_work)))
            rows = _join(rows, min(plan.cache_rows, size))
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

    def __sizeof__(self) -> int:
        """Bytes that are kept for products, beyond the objective's own."""
        arrays = [array for block in self._kept or [] for array in block if array is not None]
        return sum(array.nbytes for array in arrays if array.base is None)

    def _block(self, workspace: Workspace, rows: slice, outputs: Array | None = None) -> _Rows | _Entries:
        objective = self._objective
        columns = objective.columns(workspace, rows)
        logits = objective.logits(workspace, self._theta, columns)
        mass = objective.mass(rows)
        if objective.target.link == "sigmoid":
            values = variances(logits)
            weighted = values * (mass if mass.ndim == 2 else mass[:, None])
            chosen, boost = self._draw(weighted.sum(axis=1), weighted.max(axis=1), rows)
            kept = np.ascontiguousarray(drop_negligible(weighted[chosen].astype(objective.dtype)).T)
            if boost is not None:
                kept *= boost.astype(objective.dtype)
            return _Rows(self._take(columns, chosen), kept, None, None)
        p, top, rest = probabilities(logits)
        if self._draws_entries:
            entries = self._draw_entries(columns, (p, top, rest, mass), rows)
            if entries is not None:
                if outputs is not None:
                    outputs += entries.between_outputs(p.shape[1])
                return entries
        if outputs is not None:
            outputs += between_outputs(p, mass)
        if np.isinf(self._sampling):
            chosen, boost = slice(None), None
        else:
            trace, largest = row_curvature(p, top, rest)
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
        plan = self._objective.plan
        least = 1.0 / (plan.entries_per_row * self._sampling)
        draw = registry.find(p.dtype).draw_entries
        num_rows, num_entries = draw(p, top, rest, mass, least, phase, kept, starts[1:], classes, values)
        near = p.shape[1] * self._objective.num_features * p.itemsize <= plan.near_bytes
        cost = plan.entry_cost if near else plan.far_entry_cost
        if self._keeps_rows and cost * num_entries > num_rows * p.shape[1]:
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
        v, shape = objective.working(vector), vector.shape
        if self._kept is None:

            def recompute(workspace: Workspace, rows: slice, total: Array) -> float:
                return self._add(v, workspace, self._block(workspace, rows), [total])

            product, _ = objective.sum_arrays(recompute, shape)
        else:
            totals = self._sum_kept(v, shape)
            product = totals.pop(0) if totals else np.zeros(shape)
            while totals:
                product += totals.pop(0)
        for rows in row_blocks(product):
            objective.penalty.add_product(vector[rows, :-1], product[rows, :-1])
        return product

    def _sum_kept(self, v: WorkingParameters, shape: tuple[int, ...]) -> list[Array]:
        kept, plan, count = self._kept or [], self._objective.plan, self._objective.plan.num_chunks
        if all(isinstance(block, _Entries) for block in kept):
            entries = sum(len(block.values) for block in kept)
            count = min(count, max(1, entries // (plan.entries_per_total * self._objective.num_outputs)))
        sums = self._objective.sum_blocks(kept, partial(self._add, v), lambda: [np.zeros(shape)], count)
        return [total[0] if len(total) == 1 else total[0] + total[1] for total, _ in sums]

    def _add(
        self, v: WorkingParameters, workspace: Workspace, block: _Rows | _Entries, total: list[NDArray[Any]]
    ) -> float:
        """Add ``Σ_i S_i (V x_i + b) (x_i, 1)ᵀ`` of a block; entries have a total of their own, in working precision."""
        objective = self._objective
        if isinstance(block, _Entries):
            if len(total) == 1:
                total.append(np.zeros(total[0].shape, objective.dtype))
            registry.find(objective.dtype).multiply_entries(*block, v.weight, v.bias, total[1])
            if not objective.fit_intercept:
                total[1][:, -1] = 0.0
            return 0.0
        u = workspace.outputs(block.values.shape)
        if objective.num_features >= LONG_ROWS:
            u[...] = (block.columns @ v.weight.T).T
        else:
            np.matmul(v.weight, block.columns.T, out=u)
        if objective.fit_intercept:
            u += v.bias[:, None]
        if block.top is not None:
            registry.find(u.dtype).softmax_curvature(block.values, block.top, block.mass, u)
        else:
            u *= block.values
        np.matmul(u, block.columns, out=workspace.product)
        total[0][:, :-1] += workspace.product
        if objective.fit_intercept:
            total[0][:, -1] += u.sum(axis=1, dtype=np.float64)
        return 0.0
