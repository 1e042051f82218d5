"""The objective of a linear model, evaluated a block of rows at a time.

``F(W, b) = Σ_i c_i ℓ(W x_i + b, t_i) + (λ/2) ‖W‖²`` with row weights c. No array of N·K elements is made beyond
`CACHE_BYTES`: the logits of a block of rows are written into a buffer, a kernel replaces them by their gradient, and
two matrix products take it from there.

Four decisions that the rest of the package leans on:

- **Parameters are one float64 array** (K, D + 1), W beside b, whatever the dtype of the data; sums over rows
  run in float64.
- **Columns are centred** when there is an intercept: ``W x + b = W (x - μ) + (b + W μ)``, and as b is free and not
  penalised the two problems are one. This keeps large offsets of the data out of the logits' rounding and out of the
  curvature's condition number.
- **Rows are summed in a fixed number of chunks**, each by one thread with a single-threaded BLAS, and the chunks in
  order: the bits do not depend on the number of threads, and nobody waits at a barrier inside each product.
- **Products run in a working precision**: float32 at first (also for float64 data, where the caller allows it), which
  halves their time, and float64 once `promote` is called. Sums over rows are float64 in both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from crossent.core.target import Target
from crossent.kernels import registry
from crossent.kernels.threads import run_rows
from crossent.losses import DEFAULT_LOSS, from_table

from .blas import single_threaded_blas
from .data.streaming import RowSource
from .interface import Array, DualSums, Evaluation, HessianProducts, RowSample
from .targets import EncodedTarget

BLOCK_ELEMENTS = 1 << 19
"""Elements of a block's largest buffer: 2 MiB in float32, which a core's second-level cache holds;"""
LARGE_SUM = 1 << 17
"""twice as many where the sums have so many elements: a cache holds neither then, and every block adds to them all."""
BLOCK_ROWS = 256
"""The fewest rows of a block of many features: with 100,000 classes the products of every block read all of W."""
ROWS_A_FEATURE = 4
"""With few features W is small, and a block has no more than so many rows for each: its logits stay in a cache."""
LEAST_ROWS = 32
"""No block has fewer rows, unless there are fewer."""
CACHE_BYTES = 1 << 28
"""The most that may be kept between passes: the centred columns, and the probabilities for Hessian products."""
CHUNKS = 16
"""Partial sums over rows; fewer where they would take more than `TOTALS_BYTES`."""
TOTALS_BYTES = 1 << 27
PARALLEL_WORK = 1 << 22
"""Multiplications in one pass below which threads cost more than they bring."""
SIZEABLE_WORK = 1 << 17
"""Below this many multiplications in a pass nothing is saved: all rows count, in the data's own precision."""
SMALL_WORK = 1 << 16
"""Up to so many a pass is one call of a kernel that does without vectors,"""
EXPONENTIAL = 32
"""in which an exponential takes as long as so many multiplications."""
NEGLIGIBLE: dict[np.dtype[Any], float] = {np.dtype(np.float32): 1e-26, np.dtype(np.float64): 1e-200}
"""Gradients and probabilities below this are set to 0. A product of matrices that hold subnormal numbers takes ten
times as long, and a confident model in float32 is full of them."""
PIECE_ELEMENTS = 1 << 16
"""They are rounded so many at a time."""
_SHIFTS = {dtype: least / float(np.finfo(dtype).eps) for dtype, least in NEGLIGIBLE.items()}
SHORT_ROW = 64
"""Rows are added up by a product with ones: of so few outputs in float64, of more in the rows' own dtype, because to
convert them takes as long as their exponentials."""
LONG_GAP = 64
"""So many rows of weight 0 in a row are worth an extra block."""
CROSS_ENTROPY_TERMS = np.array(DEFAULT_LOSS.table())


@dataclass(frozen=True)
class WorkingParameters:
    """W (K, D) and b (K,) in working precision."""

    weight: NDArray[Any]
    bias: NDArray[Any]

    @classmethod
    def of(cls, theta: Array, dtype: Any) -> WorkingParameters:
        """Convert W beside b (K, D + 1)."""
        return cls(np.ascontiguousarray(theta[:, :-1], dtype=dtype), theta[:, -1].astype(dtype))


def drop_negligible(array: NDArray[Any]) -> NDArray[Any]:
    """Round in place to multiples of about `NEGLIGIBLE`, by adding and subtracting a number with no finer bits."""
    shift = _SHIFTS[array.dtype]
    flat = array.reshape(-1, copy=False)
    for start in range(0, flat.size, PIECE_ELEMENTS):  # the second operation finds a piece where the first left it
        piece = flat[start : start + PIECE_ELEMENTS]
        piece += shift
        piece -= shift
    return array


def can_copy(X: Any) -> bool:
    """Whether a second X is small beside what is kept anyway; the rows of a larger one stay where they are."""
    return bool((X.data.nbytes if issparse(X) else X.nbytes) <= CACHE_BYTES)


def _without_gaps(blocks: list[slice], row_weight: Array) -> Iterator[slice]:
    """Yield the blocks without the rows of weight 0 at their ends, and cut where many such rows are in a row."""
    for block in blocks:
        counted = np.flatnonzero(row_weight[block]) + block.start
        if len(counted):
            ends = np.flatnonzero(np.diff(counted) > LONG_GAP)
            starts, stops = counted[np.append(0, ends + 1)], counted[np.append(ends, -1)] + 1
            yield from (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def _cut(blocks: list[slice], least: int) -> list[slice]:
    """Return the blocks in pieces, so that there are at least as many, if there are as many rows."""
    if len(blocks) >= least:
        return blocks
    pieces = -(-least // max(1, len(blocks)))
    edges = [[b.start + (b.stop - b.start) * i // pieces for i in range(pieces + 1)] for b in blocks]
    return [slice(i, j) for ends in edges for i, j in pairwise(ends) if i < j]


def is_shift_invariant(link: str, terms: Array) -> bool:
    """Whether F stays the same when the logits of all classes are shifted together: a softmax does not see it, and of
    the losses only the z-penalty does."""
    return link == "softmax" and from_table(terms).is_shift_invariant


class Workspace:
    """The buffers of one thread."""

    def __init__(self, objective: LinearObjective) -> None:
        rows, outputs, features = objective.block_rows, objective.num_outputs, objective.num_features
        self.logits = np.empty(rows * outputs, dtype=objective.dtype)
        self.product = np.empty((outputs, features), dtype=objective.dtype)
        self.columns = np.empty((0 if objective.holds_columns else rows, features), dtype=objective.dtype)

    def outputs(self, shape: tuple[int, int]) -> NDArray[Any]:
        """Return a contiguous array for the logits of a block."""
        return self.logits[: shape[0] * shape[1]].reshape(shape)


BlockFunction = Callable[[Workspace, slice, Any], float]


class LinearObjective:
    """F of a data set; see the module's docstring.

    Parameters
    ----------
    X : ndarray, CSR array or RowSource (N, D)
        float32 or float64, C-contiguous; not written to. Rows of a sparse matrix are made dense a block at a time; a
        row source is gone through window by window, all threads working on one.
    target : EncodedTarget
        N rows.
    row_weight : ndarray (N,)
        c, not negative, and not all 0.
    penalty : float
        λ ≥ 0.
    terms : ndarray (n, 3)
        The loss as its table (code, scale, parameter).
    fit_intercept : bool
        Without an intercept the last column of every parameter and gradient stays 0.
    dtype : numpy.dtype, optional
        What products run in at first; that of X by default.
    mean : ndarray (D,), optional
        What the columns are centred at, where that is not to be the mean of these rows (they may be a part of all).
    cache_bytes : int, optional
        The most that may be kept between passes, `CACHE_BYTES` by default: once for the centred columns, once for
        Hessian products.
    first_row : int, optional
        Where these rows begin among all; draws of rows are seeded by it.
    """

    def __init__(
        self,
        X: Any,
        target: EncodedTarget,
        row_weight: Array,
        penalty: float,
        terms: Array,
        fit_intercept: bool,
        dtype: Any = None,
        *,
        mean: Array | None = None,
        cache_bytes: int | None = None,
        first_row: int = 0,
    ) -> None:
        self.X = X
        self.target = target
        self.row_weight = row_weight
        self.penalty = penalty
        self.terms = terms
        self.fit_intercept = fit_intercept
        self.num_rows, self.num_features = X.shape
        self.num_counted = int(np.count_nonzero(row_weight))
        self.num_outputs = target.num_outputs
        self.link = target.link
        self.data_dtype = np.dtype(X.dtype)
        self.cache_bytes = CACHE_BYTES if cache_bytes is None else cache_bytes
        self.first_row = first_row
        self.is_cross_entropy = bool((terms[:, 0] == 0).all())
        self.is_shift_invariant = is_shift_invariant(target.link, terms)
        self.evaluations = 0
        self.hessian_products = 0
        self.num_chunks = max(1, min(CHUNKS, TOTALS_BYTES // (8 * self.num_outputs * (self.num_features + 1))))
        if self.num_rows * self.num_outputs * self.num_features < PARALLEL_WORK:
            self.num_chunks = 1
        elements = BLOCK_ELEMENTS * (2 if self.num_outputs * self.num_features >= LARGE_SUM else 1)
        fewest = min(BLOCK_ROWS, max(LEAST_ROWS, ROWS_A_FEATURE * self.num_features))
        self.cache_rows = max(fewest, elements // max(self.num_outputs, self.num_features))
        rows_at_a_time = X.window_rows if isinstance(X, RowSource) else self.num_rows
        self.block_rows = max(1, min(self.cache_rows, -(-rows_at_a_time // self.num_chunks)))
        self._blocks = list(_without_gaps(self._split(0, self.num_rows), row_weight))
        self._window: tuple[int, NDArray[Any]] | None = None
        self._spare: dict[tuple[int, ...], list[Array]] = {}
        self._columns: NDArray[Any] | None = None
        self.mean = mean
        if fit_intercept and mean is None:
            total = np.zeros(self.num_features)
            for part in self._of_each_block(lambda block: row_weight[block] @ self.rows(block)):
                total += part
            self.mean = total / row_weight.sum()
        self._first_dtype = np.dtype(X.dtype if dtype is None else dtype)
        self._held: dict[np.dtype[Any], NDArray[Any]] = {}
        self._set_precision(self._first_dtype)
        self._hold_columns()
        self.basis: Any = None
        self.certificate: Any = None
        """What `kronecker.FeatureBasis.shared` and `certificate.Certificate.shared` keep here between fits."""

    def reweigh(self, row_weight: Array, target: EncodedTarget) -> None:
        """Give the rows other weights, some of them 0, and their targets other class weights.

        What depends on X alone is kept: the centred columns, which need no exact mean, and the basis of the features.
        """
        self.row_weight, self.target = row_weight, target
        self.num_counted = int(np.count_nonzero(row_weight))
        self._blocks = list(_without_gaps(self._split(0, self.num_rows), row_weight))
        self.certificate = None
        if self.basis is not None:
            sampled = slice(None, None, self.basis.stride)
            self.basis = self.basis.reweigh(row_weight[sampled], target.take(sampled))

    def restart(self, penalty: float) -> None:
        """Begin a fit with another λ, in the precision of the first."""
        self.penalty = penalty
        self.evaluations = self.hessian_products = 0
        if self.dtype != self._first_dtype:
            self._set_precision(self._first_dtype)

    def _set_precision(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._workspaces: list[Workspace] = []
        self._columns = self._held.get(self.dtype)
        self._passes = 0
        if self.mean is None and self.X.dtype == self.dtype and isinstance(self.X, np.ndarray):
            self._columns = self.X

    def _hold_columns(self) -> None:
        """Keep the rows centred and in working precision, if memory allows."""
        if self._columns is None and self.num_rows * self.num_features * self.dtype.itemsize <= self.cache_bytes:
            columns = np.empty(self.X.shape, dtype=self.dtype)
            for _ in self._of_each_block(lambda block: self._shift(block, columns[block]), every=True):
                pass
            self._columns = self._held[self.dtype] = columns
            self._workspaces = []

    @property
    def holds_columns(self) -> bool:
        """Whether the rows are kept centred and in working precision, instead of being made so in every pass."""
        return self._columns is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of the columns that are kept, beyond X itself."""
        return sum(columns.nbytes for columns in self._held.values())

    def use_precision(self, dtype: Any) -> None:
        """Run all products in `dtype` from now on."""
        if self.dtype != dtype:
            self._set_precision(dtype)

    @property
    def can_promote(self) -> bool:
        """Whether float64 would be more precise than what the products run in now."""
        return self.dtype == np.float32

    def promote(self) -> None:
        """Run all products in float64 from now on.

        Often one evaluation follows and nothing else: rows are kept converted from the third on.
        """
        self._set_precision(np.float64)

    def _windows(self, every: bool = False) -> Generator[list[slice]]:
        """Yield the blocks that can be worked on at a time: all of them, or those of each window of a row source.

        Long gaps, of rows of weight 0, are left out of them unless `every` row is asked for.
        """
        if not isinstance(self.X, RowSource) or self.holds_columns:
            yield self._split(0, self.num_rows) if every else self._blocks
            return
        try:
            with closing(self.X.windows()) as windows:
                for rows, window in windows:
                    self._window = rows.start, window
                    blocks = self._split(rows.start, rows.stop)
                    yield blocks if every else list(_without_gaps(blocks, self.row_weight))
        finally:
            self._window = None

    def _split(self, start: int, stop: int) -> list[slice]:
        return [slice(i, min(i + self.block_rows, stop)) for i in range(start, stop, self.block_rows)]

    def _of_each_block(self, function: Callable[[slice], Any], every: bool = False) -> Iterator[Any]:
        """Call a function on every block, on several threads, and yield what it returns in order."""

        def run(start: int, stop: int) -> None:
            for place in range(start, stop):
                found[place] = function(blocks[place])

        with closing(self._windows(every)) as windows, single_threaded_blas():
            for blocks in windows:
                found: list[Any] = [None] * len(blocks)
                run_rows(run, len(blocks), self.block_rows * self.num_features, ())
                yield from found

    def rows(self, rows: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Return rows of X, dense."""
        if self._window is not None and isinstance(rows, slice):
            first, window = self._window
            return window[rows.start - first : rows.stop - first]
        taken = self.X[rows]
        return taken.toarray() if issparse(taken) else taken

    def _shift(self, rows: slice, out: NDArray[Any]) -> NDArray[Any]:
        if self.mean is None:
            out[...] = self.rows(rows)
        else:
            np.subtract(self.rows(rows), self.mean, out=out, casting="same_kind")
        return out

    def columns(self, workspace: Workspace, rows: slice) -> NDArray[Any]:
        """Return a block of (centred) rows in working precision; in the workspace if they are not held."""
        if self._columns is not None:
            return self._columns[rows]
        return self._shift(rows, workspace.columns[: rows.stop - rows.start])

    def logits(self, workspace: Workspace, theta: WorkingParameters, columns: NDArray[Any]) -> NDArray[Any]:
        """Return the logits (n, K) of some rows, in the workspace."""
        logits = workspace.outputs((len(columns), self.num_outputs))
        np.matmul(columns, theta.weight.T, out=logits)
        if self.fit_intercept:
            logits += theta.bias
        return logits

    @property
    def center(self) -> Array:
        """μ (D,): what `theta`'s intercept refers to."""
        return np.zeros(self.num_features) if self.mean is None else self.mean

    def working(self, theta: Array) -> WorkingParameters:
        """Return parameters in working precision."""
        return WorkingParameters.of(theta, self.dtype)

    def hessian(
        self, theta: Array, sampling: float = np.inf, step: int = 0, most_rows: float = np.inf
    ) -> HessianProducts:
        """Return what multiplies by ∇²F at `theta`; see :class:`~crossent.regression.hessian.Hessian`."""
        from .hessian import Hessian  # it builds on this module

        return Hessian(self, theta, sampling, step, most_rows)

    def dual_sums(self) -> DualSums:
        """Return the constants of the dual, in one pass."""
        from .certificate import dual_sums  # it builds on this module

        return dual_sums(self)

    def sample(self, count: int | None) -> RowSample:
        """Return about `count` evenly spaced rows (None: all), centred as these are."""
        stride = 1 if count is None else max(1, self.num_rows // max(1, count))
        return RowSample(self.every(stride), stride)

    def every(self, stride: int) -> LinearObjective:
        """Return the rows whose place among all is a multiple of `stride`."""
        rows = slice(-self.first_row % stride, self.num_rows, stride)
        return self.take(rows, self.row_weight[rows], self.target.take(rows))

    def take(self, rows: slice | NDArray[np.intp], row_weight: Array, target: EncodedTarget) -> LinearObjective:
        """Return some rows, in memory and centred as these are, with other weights and targets."""
        return LinearObjective(
            self.rows(rows),
            target,
            row_weight,
            self.penalty,
            self.terms,
            self.fit_intercept,
            self.dtype,
            mean=self.mean,
            cache_bytes=0,
        )

    def total_mass(self) -> tuple[Array, Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""
        return self.target.total_mass(self.row_weight)

    def sum_rows(
        self, work: BlockFunction, new_total: Callable[[], Any], chunks: int | None = None
    ) -> list[tuple[Any, float]]:
        """Call ``work(workspace, rows, total)`` on all blocks; return each chunk's total and summed results, in order.

        `work` runs on several threads, those of one chunk in order on one of them. Of a row source each chunk is a part
        of every window. `chunks` stands for `num_chunks` where totals are large, or work is more than a pass's.
        """
        out: list[Any] = [None] * (chunks or self.num_chunks)
        with closing(self._windows()) as windows:
            for blocks in windows:
                self._add_blocks(_cut(blocks, chunks or 1), work, new_total, out)
        return [part for part in out if part is not None]

    def sum_arrays(self, work: BlockFunction, shape: tuple[int, ...], chunks: int | None = None) -> tuple[Array, float]:
        """Return the sum of the arrays of this shape that `work` adds to, and that of its results.

        Partial sums are kept for the next time: fresh pages take longer to touch than many a sum to compute.
        """
        spare = self._spare.setdefault(shape, [])

        def new_total() -> Array:
            try:
                total = spare.pop()
            except IndexError:  # asking first would be a race between threads
                return np.zeros(shape)
            total.fill(0.0)
            return total

        parts = self.sum_rows(work, new_total, chunks)
        (total, value), *others = parts or [(np.zeros(shape), 0.0)]
        held = sum(array.nbytes for arrays in self._spare.values() for array in arrays) if others else 0
        for part, result in others:
            total += part
            value += result
            held += part.nbytes
            if held <= TOTALS_BYTES:
                spare.append(part)
        return total, value

    def _add_blocks(
        self, blocks: list[slice], work: BlockFunction, new_total: Callable[[], Any], out: list[Any]
    ) -> None:
        count = min(len(out), len(blocks))
        bounds = [len(blocks) * i // max(1, count) for i in range(count + 1)]

        def run(start: int, stop: int) -> None:
            for chunk in range(start, stop):
                try:
                    workspace = self._workspaces.pop()
                except IndexError:  # all in use: asking first would be a race between threads
                    workspace = Workspace(self)
                total, value = out[chunk] or (new_total(), 0.0)
                for rows in blocks[bounds[chunk] : bounds[chunk + 1]]:
                    value += work(workspace, rows, total)
                self._workspaces.append(workspace)
                out[chunk] = (total, value)

        run_rows(run, count, PARALLEL_WORK, ())

    def single_threaded_blas(self) -> AbstractContextManager[Any]:
        """Return a context in which a product runs on the thread that asks for it: BLAS threads that spin at barriers
        would take the processors from ours. Where one chunk is all that memory allows, BLAS keeps its threads."""
        return nullcontext() if self.num_chunks == 1 and self.is_large else single_threaded_blas()

    @property
    def is_large(self) -> bool:
        """Whether one pass is worth several threads."""
        return self.num_rows * self.num_outputs * self.num_features >= PARALLEL_WORK

    @property
    def _is_small(self) -> bool:
        """Whether the calls of a pass take longer than its exponentials and products."""
        return self.num_rows * self.num_outputs * (self.num_features + EXPONENTIAL) <= SMALL_WORK

    @property
    def is_sizeable(self) -> bool:
        """Whether one pass takes long enough for rows to be left out, and for float32 to be worth a change of dtype."""
        return self.num_rows * self.num_outputs * self.num_features >= SIZEABLE_WORK

    def evaluate(self, theta: Array) -> Evaluation:
        """Return F and its gradient at `theta`, in one pass."""
        self.evaluations += 1
        self._passes += 1
        if self._passes == 3:
            self._hold_columns()
        gradient, data_loss = self.sum_arrays(self._pass(theta), theta.shape)
        return Evaluation.penalised(theta, data_loss, gradient, self.penalty)

    def _pass(self, theta: Array) -> BlockFunction:
        """Return what adds the gradient of a block of rows at `theta` and returns its loss: by products, or in one
        call where that is faster."""
        if self.is_cross_entropy and self.link == "sigmoid" and self.num_outputs == 1:
            return partial(self._add_logistic, self.working(theta))
        if self.is_cross_entropy and self.link == "softmax" and self.target.hard and self._is_small:
            return partial(self._add_multinomial, theta)
        return partial(self._add_products, self.working(theta))

    def _add_products(self, working: WorkingParameters, workspace: Workspace, rows: slice, total: Array) -> float:
        columns = self.columns(workspace, rows)
        logits = self.logits(workspace, working, columns)
        weight = self.row_weight[rows]
        losses = self.gradient_in_place(self.target.take(rows), logits, self.terms, weight)
        self.accumulate(workspace, total, drop_negligible(logits), columns)
        return float(weight @ losses)

    def _add_logistic(self, working: WorkingParameters, workspace: Workspace, rows: slice, total: Array) -> float:
        value = registry.find(self.dtype).logistic_value_grad(
            self.columns(workspace, rows),
            working.weight[0],
            working.bias[0],
            *self.target.for_kernels(self.dtype, rows),
            self.row_weight[rows],
            NEGLIGIBLE[self.dtype],
            total[0],
        )
        if not self.fit_intercept:
            total[0, -1] = 0.0
        return float(value)

    def _add_multinomial(self, theta: Array, workspace: Workspace, rows: slice, total: Array) -> float:
        labels, _, class_weight, _ = self.target.for_kernels(self.dtype, rows)
        value = registry.find(self.dtype).multinomial_value_grad(
            self.columns(workspace, rows), theta, labels, class_weight, self.row_weight[rows], total
        )
        if not self.fit_intercept:
            total[:, -1] = 0.0
        return float(value)

    def accumulate(
        self, workspace: Workspace, total: Array, rows_by_outputs: NDArray[Any], columns: NDArray[Any]
    ) -> None:
        """Add ``Σ_i g_i (x_i, 1)ᵀ`` of a block to `total`, in float64."""
        np.matmul(rows_by_outputs.T, columns, out=workspace.product)
        total[:, :-1] += workspace.product
        if self.fit_intercept:
            dtype = np.float64 if self.num_outputs <= SHORT_ROW else rows_by_outputs.dtype
            total[:, -1] += np.ones(len(rows_by_outputs), dtype) @ rows_by_outputs

    def probabilities(self, logits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[Any]]:
        """Replace softmax logits (n, K) by probabilities; return them, the likeliest class m and 1 - p_m, accurately.

        The gradient of cross-entropy for the target m is p - e_m, whose entry at m is not 1 - p_m rounded but the sum
        of the others: curvature is p (1 - p), and where a model is sure that is all there is.
        """
        top = logits.argmax(axis=1)
        target = EncodedTarget("softmax", self.target.classes, self.num_outputs, top.astype(np.int64), None)
        self.gradient_in_place(target, logits, CROSS_ENTROPY_TERMS, None)
        rows = np.arange(len(logits))
        rest = -logits[rows, top]
        logits[rows, top] = 1 - rest
        return logits, top, rest

    def variances(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Replace sigmoid logits (n, K) by σ(z) σ(-z), accurately on both sides."""
        target = EncodedTarget("sigmoid", self.target.classes, self.num_outputs, (logits > 0).astype(np.int8), None)
        self.gradient_in_place(target, logits, CROSS_ENTROPY_TERMS, None)  # ±σ(-|z|)
        np.abs(logits, out=logits)
        logits *= 1 - logits
        return logits

    def curvature_in_place(
        self, p: NDArray[Any], top: NDArray[np.intp], mass: NDArray[Any] | None, u: NDArray[Any]
    ) -> None:
        """Replace u (K, n) by ``a_i (diag p_i - p_i p_iᵀ) u_i``."""
        registry.find(u.dtype).softmax_curvature(p, top, mass, u)

    def draw_entries(self, *arguments: Any) -> tuple[int, int]:
        """Draw entries of p, as the kernel `draw_entries` says."""
        return registry.find(self.dtype).draw_entries(*arguments)

    def multiply_entries(self, entries: Any, v: WorkingParameters, total: NDArray[Any]) -> None:
        """Add ``Σ_i S_i (V x_i + b) (x_i, 1)ᵀ`` of drawn entries to `total`, in its dtype."""
        registry.find(self.dtype).multiply_entries(*entries, v.weight, v.bias, total)
        if not self.fit_intercept:
            total[:, -1] = 0.0

    def mass(self, rows: slice | NDArray[np.intp]) -> Array:
        """Return a = c τ of some rows: (n,), or (n, K) for the sigmoid link with unequal class weights."""
        weight, target = self.row_weight[rows], self.target
        if target.class_weight is None:
            return weight
        if target.hard and target.link == "softmax":
            return weight * target.class_weight[target.labels[rows]]  # type: ignore[index]
        tau = target.dense(rows)[1]
        return weight * tau if tau.ndim == 1 else weight[:, None] * tau

    def gradient_in_place(
        self, target: EncodedTarget, logits: NDArray[Any], terms: Array, weight: Array | None
    ) -> Array:
        """Replace the logits of some rows by the gradient of their losses, times their weights; return the losses."""
        labels, soft, class_weight, smoothing = target.for_kernels(logits.dtype)
        asked = Target(
            target.num_outputs,
            labels,
            soft,
            class_weight=class_weight,
            label_smoothing=smoothing,
            link=target.link,  # type: ignore[arg-type]
        )
        twin = registry.find(logits.dtype)
        losses: Array = twin.row_losses(logits, asked, from_table(terms.tolist()), 1.0, weight, logits)
        return losses
