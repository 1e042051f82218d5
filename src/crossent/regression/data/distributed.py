"""The objective over Dask collections: rows stay on the workers, sums of the parameters' size travel.

Each part of the collection becomes a `partitions.Part` on the worker that has its rows. An
evaluation is one task for each part and a tree that adds `FAN_IN` results at a time, always in the same order: the bits
depend on how the rows are divided, and not on which worker was quicker or had to be replaced. If a part is computed
again and has other rows, the fit ends with an error: what was proved is not about them. Down go the parameters, in
working precision; up come values and gradients (K, D + 1) in float64. A product with the Hessian is the same, of rows
that each part draws and keeps. The only rows that ever travel are the sample for the preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.errors import refuse
from crossent.losses import Loss

from ..arrays import Array
from ..blas import single_threaded_blas
from ..interface import DualSums, Evaluation, Objective
from ..objective import LinearObjective, rows_like
from ..penalty import Ridge
from ..plan import Size, tuned
from ..targets import EncodedTarget
from . import partitions
from .dask_collections import in_parts, is_float32, tasks_of
from .dask_graphs import Tasks, count_workers, in_spite_of_losses, on_each, sending
from .partitions import Part, Shared, Summary


class DistributedRows:
    """The rows of collections, checked and kept on their workers.

    Parameters
    ----------
    X : dask.array.Array or dask.dataframe.DataFrame (N, D)
    y, sample_weight : Dask collection or array-like (N,)
        As `SoftmaxRegression.fit` takes them; `sample_weight` may be None.
    dtype : numpy.dtype or None
        float32 or float64; None keeps these and takes float64 otherwise.
    link : {"softmax", "sigmoid"}

    Raises
    ------
    ValueError
        If they cannot be used, with the partition and the row in it.
    """

    def __init__(self, X: Any, y: Any, sample_weight: Any, dtype: Any, link: str) -> None:
        self.dtype = np.dtype((np.float32 if is_float32(X) else np.float64) if dtype is None else dtype)
        self.num_features = int(X.shape[1])
        X = in_parts(X, "X", None)
        y = in_parts(y, "y", X)
        weight = None if sample_weight is None else tasks_of(in_parts(sample_weight, "sample_weight", X))
        first = tasks_of(X)
        places = list(range(len(first.keys)))
        self._source = on_each(
            partitions.read_rows, first, tasks_of(y), weight, places, self.dtype.str, link, self.num_features
        )
        self.summary = self._read()

    def read_again(self) -> None:
        """Have the rows read and checked anew, and compared with what they were."""
        again = self._read()
        for place, (before, now) in enumerate(zip(self.summary.checksums, again.checksums, strict=True)):
            if before != now:
                raise partitions.refuse_change(place)

    def _read(self) -> Summary:
        self._keep()
        summary: Summary = in_spite_of_losses(
            lambda: on_each(partitions.summary_of, self.kept).combined(Summary.merge), self._keep
        )
        if summary.problem:
            raise ValueError(summary.problem)
        if sum(summary.rows) == 0:
            raise ValueError(refuse("X must hold rows of positive weight", "none"))
        return summary

    def let_go(self) -> None:
        """Keep the rows no longer than others need them."""
        self.kept = Tasks({}, [])

    def _keep(self) -> None:
        self.kept = self._source.kept()


class DistributedObjective(Objective):
    """F of distributed rows; see the module's docstring.

    Parameters
    ----------
    rows : DistributedRows
    target, weight : EncodedTarget, ndarray
        The masses of all rows, as `Summary.encoded` returns them.
    outputs : ndarray
        Those that take part.
    scale : float
        Row weights are sample weights times this.
    loss : Loss
    fit_intercept : bool
    dtype : numpy.dtype
        What products run in at first.
    """

    def __init__(
        self,
        rows: DistributedRows,
        target: EncodedTarget,
        weight: Array,
        outputs: NDArray[np.intp],
        scale: float,
        loss: Loss,
        fit_intercept: bool,
        dtype: Any,
    ) -> None:
        summary, is_cross_entropy = rows.summary, loss.cross_entropy_factor is not None
        num_rows = sum(summary.rows)
        shape = (num_rows, rows.num_features, len(outputs), target.link, fit_intercept, np.dtype(dtype))
        super().__init__(Size(*shape, is_cross_entropy, num_rows, is_here=False), loss, Ridge(0.0), rows.dtype)
        self._rows = rows
        self._masses = target.restrict(outputs), weight * scale
        filled = [i for i, count in enumerate(summary.rows) if count]
        self.counts = [summary.rows[i] for i in filled]
        self._filled = filled
        self._shared = Shared(
            replace(target, labels=None, soft=None),
            outputs,
            scale,
            loss,
            self.dtype,
            fit_intercept,
            summary.columns / summary.weight if fit_intercept else None,
            tuned().cache_bytes * count_workers() // len(filled),
        )
        self.preparations = 0
        self._prepare()

    def _prepare(self) -> None:
        """Make the parts where their rows are; these are let go."""
        kept = Tasks(self._rows.kept.graph, [self._rows.kept.keys[i] for i in self._filled])
        first_rows = [int(row) for row in np.cumsum([0, *self.counts[:-1]])]
        checksums = [self._rows.summary.checksums[i] for i in self._filled]
        self.parts = on_each(Part, kept, self._shared, first_rows, self._filled, checksums).kept()
        self.preparations += 1
        self._rows.let_go()

    def _prepare_again(self) -> None:
        self._rows.read_again()
        self._prepare()

    def in_spite_of_losses(self, run: Callable[[], Any]) -> Any:
        """Return what `run` computes; where parts were lost, from parts that are made anew."""
        return in_spite_of_losses(run, self._prepare_again)

    def _gather(self, combine: Callable[[list[Any]], Any], function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `combine` makes of what a function returns of each part."""
        return self.in_spite_of_losses(
            lambda: on_each(function, self.parts, self.dtype.str, *arguments).combined(combine)
        )

    @property
    def center(self) -> Array:
        """μ (D,): what the intercept of the parameters refers to."""
        return np.zeros(self.num_features) if self._shared.mean is None else self._shared.mean

    def single_threaded_blas(self) -> AbstractContextManager[Any]:
        """Return the context to run a fit in: parts may be on threads of this process."""
        return single_threaded_blas()

    def total_mass(self) -> tuple[Array, Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""
        target, weight = self._masses
        return target.total_mass(weight)

    def evaluate(self, theta: Array) -> Evaluation:
        """Return F and its gradient at `theta`, in one pass."""
        self.evaluations += 1
        data_loss, gradient = self._gather(partitions.add, partitions.evaluate, theta.astype(self.dtype))
        return Evaluation.penalised(theta, data_loss, gradient, self.penalty)

    def dual_sums(self) -> DualSums:
        """Return the constants of the dual, in one pass."""
        return DualSums(*self._gather(partitions.add, partitions.constants))

    def sample(self, count: int | None) -> tuple[LinearObjective, int]:
        """Bring about `count` evenly spaced rows here (None: all): those that rows in memory would give."""
        stride = 1 if count is None else max(1, self.num_rows // max(1, count))
        columns, values, weight = self._gather(partitions.join, partitions.every, stride)
        return rows_like(self, columns, partitions.with_values(self._masses[0], values), weight), stride

    def hessian(
        self, theta: Array, sampling: float = np.inf, step: int = 0, most_rows: float = np.inf
    ) -> DistributedHessian:
        """Return what multiplies by ∇²F at `theta`; arguments as of `hessian.Hessian`."""
        return DistributedHessian(self, theta, sampling, step, most_rows)


class DistributedHessian:
    """Hessian products at one point, of rows that each part draws and keeps on its worker."""

    def __init__(
        self, objective: DistributedObjective, theta: Array, sampling: float, step: int, most_rows: float
    ) -> None:
        self._objective = objective
        share = [most_rows * count / objective.num_rows for count in objective.counts]
        self._arguments = theta.astype(objective.dtype), float(sampling), step, share

        def run() -> tuple[int, Array | None]:
            self._draw()
            found: tuple[int, Array | None] = on_each(partitions.kept, self._parts).combined(partitions.add)
            return found

        self.rows_kept, self.outputs = objective.in_spite_of_losses(run)

    def _draw(self) -> None:
        objective = self._objective
        drawn = on_each(partitions.hessian, objective.parts, objective.dtype.str, *self._arguments)
        with sending():
            self._parts = drawn.kept()
        self._drawn_from = objective.preparations

    @property
    def share(self) -> float:
        """The part of all rows that takes part in a product."""
        return self.rows_kept / self._objective.num_rows

    def __matmul__(self, vector: Array) -> Array:
        """Return (∇²F) V for V of the parameters' shape (K, D + 1)."""
        objective = self._objective
        objective.hessian_products += 1
        arguments = objective.dtype.str, vector.astype(objective.dtype)

        def run() -> tuple[Array]:
            if self._drawn_from != objective.preparations:
                self._draw()
            calls = on_each(partitions.product, objective.parts, self._parts, *arguments)
            found: tuple[Array] = calls.combined(partitions.add)
            return found

        (product,) = objective.in_spite_of_losses(run)
        objective.penalty.add_product(vector[:, :-1], product[:, :-1])
        return product
