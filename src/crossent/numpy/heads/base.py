"""A head is a target with its weights and reduction, able to turn blocks of logits into losses and gradients."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from crossent.core.reduction import Reduction, is_silent
from crossent.core.statistics import Rows
from crossent.core.target import Target
from crossent.kernels import reference, registry
from crossent.losses import DEFAULT_LOSS
from crossent.numpy.arrays import as_ndarray, compute_dtype, weights
from crossent.numpy.options import Options

_DEFAULT_REDUCTION = Reduction()


def _reduction(kind: Any, normalizer: Any, on_empty: Any) -> Reduction:
    if kind == "mean" and normalizer is None and on_empty == "nan":
        return _DEFAULT_REDUCTION
    return Reduction(kind, normalizer, on_empty)


def target_array(target: Any) -> np.ndarray:
    """Return the target as an array of numbers or, which as labels only the sigmoid link takes, of bools.

    Raises
    ------
    TypeError
        If it is neither.
    """
    target = as_ndarray(target, "target")
    if target.dtype != np.bool_:
        compute_dtype(target.dtype, "target")
    return target


class Head:
    """A target with its weights and reduction, able to turn blocks of logits (n, K) into losses and gradients.

    Attributes
    ----------
    scale : float
        Factor of a row's loss in the reduced value: 1 / denominator for a mean.
    slope : float
        A constant slope of the logits' map: a further factor of the gradient that `evaluate` writes.
    sum_only : bool
        Nothing but the sum of the losses is read: `evaluate` may return those of several rows as one.
    """

    scale: float
    offset: float
    slope: float = 1.0
    sum_only: bool = False
    labels: np.ndarray | None = None
    soft: np.ndarray | None = None
    twin: Any = None

    def __init__(self, options: Options, shape: tuple[int, ...], num_classes: int, dtype: np.dtype):
        self.options = options
        self.shape = shape  # of the rows, before they were flattened
        self.num_rows = math.prod(shape)
        self.num_classes = num_classes
        self.dtype = dtype
        self.loss = options.loss or DEFAULT_LOSS
        self.row_weight: np.ndarray | None = None
        if options.sample_weight is not None:
            self.row_weight = weights(options.sample_weight, "sample_weight", shape, "one weight a row").ravel()
        self.reduction = _reduction(options.reduction, options.normalizer, options.on_empty)

    def _resolve(self, count: float, weighted: float) -> None:
        self.scale, self.offset = self.reduction.resolve(count, weighted)

    @property
    def silent_rows(self) -> np.ndarray | None:
        """Which rows have no part in the loss, (N,); None where all have."""
        silent = None if self.row_weight is None else self.row_weight == 0
        if self.labels is not None:
            ignored = self.labels < 0 if self.labels.ndim == 1 else (self.labels < 0).all(axis=1)
            silent = ignored if silent is None else silent | ignored
        return silent

    def reduce(self, row_losses: np.ndarray) -> Any:
        """Return the reduced value of the weighted row losses (all rows), float64."""
        if self.reduction.kind == "none":
            return row_losses.reshape(self.shape)
        if self.scale == 0.0:  # an empty mean
            return np.float64(self.offset)
        return np.add.reduce(row_losses) * self.scale

    @property
    def target(self) -> Target:
        """The target of all rows."""
        raise NotImplementedError

    @cached_property
    def forms(self) -> frozenset[str]:
        """Which other forms of logits `evaluate` takes: "bfloat16", their bits in uint16; "planes"."""
        forms: frozenset[str] = self.twin.forms(self.target, self.loss)
        return forms

    def evaluate(self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None) -> Any:
        """Return the weighted loss of each row of a block; fill `grad` (which may be `logits`) with its gradient."""
        raise NotImplementedError

    def reference_rows(self, logits: np.ndarray, rows: slice) -> Rows:
        """Return the block's statistics in float64, for what only `core` computes."""
        return reference.rows_of(logits, self.target.rows(rows))

    def second_order(self, logits: np.ndarray, rows: slice, vector: np.ndarray | None) -> tuple[Any, Any, Any]:
        """Return weighted losses, gradient and (Hessian diagonal, or Hessian · vector) of a block, float64."""
        raise NotImplementedError

    def _weights(self, rows: slice) -> np.ndarray:
        """Return the weights of the block's losses: (n,), or (n, K) where every entry has one."""
        return np.ones(rows.stop - rows.start) if self.row_weight is None else self.row_weight[rows]

    def twin_of(self, logits: np.ndarray) -> Any:
        """Return the kernels for a block of logits."""
        return self.twin if logits.dtype in (self.dtype, np.uint16) else registry.find(logits.dtype)

    def _weighted(self, losses: np.ndarray, rows: slice) -> np.ndarray:
        """Return losses of rows times their weights; 0 where a weight is 0, whatever the loss."""
        if self.row_weight is None:
            return losses
        weight = self.row_weight[rows]
        return np.where(weight == 0, 0.0, losses * weight)

    def _weigh(
        self, rows: slice, mass: np.ndarray, losses: np.ndarray, gradient: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return losses times weights, derivatives times weights and scale; 0 where silent."""
        weight = self._weights(rows)
        silent = is_silent(mass, None if self.labels is None else self.labels[rows], weight)
        entry_weight, entry_silent = (a if a.ndim == 2 else a[:, None] for a in (self.scale * weight, silent))
        return (
            np.where(silent, 0.0, losses * weight),
            np.where(entry_silent, 0.0, entry_weight * gradient),
            np.where(entry_silent, 0.0, entry_weight * second),
        )
