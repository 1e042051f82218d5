"""Rows with their targets and weights, gone through a block at a time.

No array of N·K elements is made beyond what a plan lets be kept. Four decisions that the rest of the package leans on:

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

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.kernels.threads import run_rows
from crossent.losses import Loss

from .arrays import Array
from .blas import single_threaded_blas
from .data.sources import source_of
from .interface import Objective
from .penalty import Penalty
from .plan import Size
from .targets import EncodedTarget

__all__ = ["BlockFunction", "BlockedRows", "WorkingParameters", "Workspace"]


@dataclass(frozen=True)
class WorkingParameters:
    """W (K, D) and b (K,) in working precision."""

    weight: NDArray[Any]
    bias: NDArray[Any]

    @classmethod
    def of(cls, theta: Array, dtype: Any) -> WorkingParameters:
        """Convert W beside b (K, D + 1)."""
        return cls(np.ascontiguousarray(theta[:, :-1], dtype=dtype), theta[:, -1].astype(dtype))


class Workspace:
    """The buffers of one thread."""

    def __init__(self, rows: BlockedRows) -> None:
        size, outputs, features = rows.plan.rows_at_a_time, rows.num_outputs, rows.num_features
        self.logits = np.empty(size * outputs, dtype=rows.dtype)
        self.product = np.empty((outputs, features), dtype=rows.dtype)
        self.columns = np.empty((0 if rows.holds_columns else size, features), dtype=rows.dtype)

    def outputs(self, shape: tuple[int, int]) -> NDArray[Any]:
        """Return a contiguous array for the logits of a block."""
        if self.logits.size < shape[0] * shape[1]:  # of rows that were drawn from several blocks
            self.logits = np.empty(shape[0] * shape[1], self.logits.dtype)
        return self.logits[: shape[0] * shape[1]].reshape(shape)


BlockFunction = Callable[[Workspace, Any, Any], float]


class BlockedRows(Objective):
    """Rows, centred and in working precision, with their targets and weights; see the module's docstring.

    Parameters
    ----------
    X : ndarray, CSR array or RowSource (N, D)
        float32 or float64, C-contiguous; not written to. Rows of a sparse matrix are made dense a block at a time; a
        row source is gone through window by window, all threads working on one.
    target : EncodedTarget
        N rows.
    row_weight : ndarray (N,)
        c, not negative, and not all 0.
    penalty : Penalty
    loss : Loss
    fit_intercept : bool
        Without an intercept the last column of every parameter and gradient stays 0.
    dtype : numpy.dtype, optional
        What products run in at first; that of X by default.
    mean : ndarray (D,), optional
        What the columns are centred at, where that is not to be the mean of these rows (they may be a part of all).
    cache_bytes : int, optional
        The most that may be kept between passes; the plan's by default. 0 is for samples.
    first_row : int, optional
        Where these rows begin among all; draws of rows are seeded by it.
    """

    def __init__(
        self,
        X: Any,
        target: EncodedTarget,
        row_weight: Array,
        penalty: Penalty,
        loss: Loss,
        fit_intercept: bool,
        dtype: Any = None,
        *,
        mean: Array | None = None,
        cache_bytes: int | None = None,
        first_row: int = 0,
    ) -> None:
        self.X, self.target, self.row_weight, self.first_row = X, target, row_weight, first_row
        self.num_counted = int(np.count_nonzero(row_weight))
        self._source = source_of(X)
        size = Size(
            X.shape[0],
            X.shape[1],
            target.num_outputs,
            target.link,
            fit_intercept,
            np.dtype(X.dtype if dtype is None else dtype),
            loss.cross_entropy_factor is not None,
            self._source.window_rows,
        )
        super().__init__(size, loss, penalty, X.dtype)
        self.cache_bytes = self.plan.cache_bytes if cache_bytes is None else cache_bytes
        self._window: tuple[int, NDArray[Any]] | None = None
        self._held: dict[np.dtype[Any], NDArray[Any]] = {}
        self.mean = mean
        self._set_precision(self.dtype)
        if fit_intercept and mean is None:
            self.mean = self._mean()
            self._set_precision(self.dtype)
        self._hold_columns()

    # -- where rows are, and in what precision --------------------------------------------------------------------

    def use_precision(self, dtype: Any) -> None:
        """Run all products in `dtype` from now on.

        Often one evaluation follows and nothing else: rows are kept converted from the third on.
        """
        if self.dtype != dtype:
            self._set_precision(dtype)

    def _set_precision(self, dtype: Any) -> None:
        super().use_precision(dtype)
        self._workspaces: list[Workspace] = []
        self._columns = self._held.get(self.dtype)
        self._passes = 0
        if self.mean is None and self.X.dtype == self.dtype:
            self._columns = self._source.whole

    def _mean(self) -> Array:
        def work(workspace: Workspace, rows: slice, total: Array) -> float:
            total += self.row_weight[rows] @ self.rows(rows)
            return 0.0

        return self.sum_arrays(work, (self.num_features,))[0] / self.row_weight.sum()

    def _note_pass(self) -> None:
        self._passes += 1
        if self._passes == 3:
            self._hold_columns()

    def _hold_columns(self) -> None:
        """Keep the rows centred and in working precision, if memory allows."""
        if self._columns is None and self.num_rows * self.num_features * self.dtype.itemsize <= self.cache_bytes:
            columns = np.empty(self.X.shape, dtype=self.dtype)

            def fill(workspace: Workspace, rows: slice, total: None) -> float:
                self._shift(rows, columns[rows])
                return 0.0

            self.sum_rows(fill, lambda: None)
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

    @property
    def center(self) -> Array:
        """μ (D,): what the parameters' intercept refers to."""
        return np.zeros(self.num_features) if self.mean is None else self.mean

    def single_threaded_blas(self) -> AbstractContextManager[Any]:
        """Return a context in which a product runs on the thread that asks for it: BLAS threads that spin at barriers
        would take the processors from ours. Where one chunk is all that memory allows, BLAS keeps its threads."""
        is_large = self.num_rows * self.num_outputs * self.num_features >= self.plan.parallel_work
        return nullcontext() if self.plan.num_chunks == 1 and is_large else single_threaded_blas()

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _windows(self) -> Generator[list[slice]]:
        """Yield the blocks that can be worked on at a time: all of them, or those of each window of a row source."""
        if self.holds_columns:
            yield self._split(0, self.num_rows)
            return
        try:
            with closing(self._source.windows()) as windows:
                for rows, window in windows:
                    self._window = rows.start, window
                    yield self._split(rows.start, rows.stop)
        finally:
            self._window = None

    def _split(self, start: int, stop: int) -> list[slice]:
        size = self.plan.rows_at_a_time
        return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]

    def rows(self, rows: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Return rows of X, dense; inside a pass a slice of the window that is worked on."""
        if self._window is not None and isinstance(rows, slice):
            first, window = self._window
            taken = window[rows.start - first : rows.stop - first]
        else:
            taken = self.X[rows]
        return taken if isinstance(taken, np.ndarray) else taken.toarray()

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

    def working(self, theta: Array) -> WorkingParameters:
        """Return parameters in working precision."""
        return WorkingParameters.of(theta, self.dtype)

    def mass(self, rows: slice | NDArray[np.intp]) -> Array:
        """Return a = c τ of some rows: (n,), or (n, K) for the sigmoid link with unequal class weights."""
        weight, target = self.row_weight[rows], self.target
        if target.class_weight is None:
            return weight
        if target.hard and target.link == "softmax":
            return weight * target.class_weight[target.labels[rows]]  # type: ignore[index]
        tau = target.dense(rows)[1]
        return weight * tau if tau.ndim == 1 else weight[:, None] * tau

    def total_mass(self) -> tuple[Array, Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""
        return self.target.total_mass(self.row_weight)

    # -- sums ------------------------------------------------------------------------------------------------------

    def sum_rows(
        self, work: BlockFunction, new_total: Callable[[], Any], chunks: int | None = None
    ) -> list[tuple[Any, float]]:
        """Call ``work(workspace, rows, total)`` on all blocks; return each chunk's total and summed results, in order.

        `work` runs on several threads, those of one chunk in order on one of them. Of a row source each chunk is a part
        of every window. `chunks` stands for `num_chunks` where totals are large, or work is more than a pass's.
        """
        out: list[Any] = [None] * (chunks or self.plan.num_chunks)
        with closing(self._windows()) as windows:
            for blocks in windows:
                self._add_blocks(_cut(blocks, chunks or 1), work, new_total, out)
        return [part for part in out if part is not None]

    def sum_blocks(
        self, blocks: Sequence[Any], work: BlockFunction, new_total: Callable[[], Any], chunks: int
    ) -> list[tuple[Any, float]]:
        """Do as `sum_rows` on blocks of rows that `work` itself knows how to read."""
        out: list[Any] = [None] * chunks
        self._add_blocks(blocks, work, new_total, out)
        return [part for part in out if part is not None]

    def sum_arrays(self, work: BlockFunction, shape: tuple[int, ...], chunks: int | None = None) -> tuple[Array, float]:
        """Return the sum of the arrays of this shape that `work` adds to, and that of its results."""
        parts = self.sum_rows(work, lambda: np.zeros(shape), chunks)
        (total, value), *others = parts or [(np.zeros(shape), 0.0)]
        for part, result in others:
            total += part
            value += result
        return total, value

    def _add_blocks(
        self, blocks: Sequence[Any], work: BlockFunction, new_total: Callable[[], Any], out: list[Any]
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

        run_rows(run, count, self.plan.parallel_work, ())


def _cut(blocks: list[slice], least: int) -> list[slice]:
    """Return the blocks in pieces, so that there are at least as many, if there are as many rows."""
    if len(blocks) >= least:
        return blocks
    pieces = -(-least // max(1, len(blocks)))
    edges = [[b.start + (b.stop - b.start) * i // pieces for i in range(pieces + 1)] for b in blocks]
    return [slice(i, j) for ends in edges for i, j in pairwise(ends) if i < j]
