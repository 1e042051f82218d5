"""What was asked of rows of logits, in one frozen record, and how a block of them is computed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np

from crossent.core import composition
from crossent.core.logit_maps import LogitMap
from crossent.core.reduction import Reduction, is_silent
from crossent.core.target import Asked, Target, encode
from crossent.errors import check_number, describe, refuse
from crossent.kernels import reference, registry
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.numpy.arrays import (
    FLOAT64,
    as_bits,
    is_bfloat16,
    narrow_into,
    real_array,
    weights,
    widened,
)
from crossent.numpy.options import Options
from crossent.numpy.target import NumPyTargets

__all__ = ["WORK_ELEMENTS", "Evaluator", "make_map"]

WORK_ELEMENTS = 1 << 20
"""Logits that are converted or mapped at a time."""
_IDENTITY = LogitMap()
_DEFAULT_REDUCTION = Reduction()


class Evaluator(NamedTuple):
    """Losses and gradients of blocks of unmapped logits (n, K).

    Parameters
    ----------
    loss, target, map, reduction
        The rows' target is that of all N rows.
    shape : tuple of int
        Of the rows, before they were flattened.
    dtype : numpy.dtype
        What is computed in.
    weight : (N,) or, with the sigmoid link, (N, K) float64, or None
        Factors of the losses and of the gradient.
    scale : float
        Factor of the gradient: 1 / denominator for a mean.
    empty : float
        The value of a mean whose denominator is 0.
    sum_only : bool
        Whether nothing but the sum of the losses is read.
    """

    loss: Loss
    target: Target
    map: LogitMap
    reduction: Reduction
    shape: tuple[int, ...]
    dtype: np.dtype
    weight: np.ndarray | None
    scale: float
    empty: float
    sum_only: bool = False

    @classmethod
    def of(
        cls,
        target: Any,
        options: Options,
        shape: tuple[int, ...],
        num_classes: int,
        dtype: np.dtype,
        *,
        sum_only: bool = False,
        is_in_range: bool = False,
    ) -> Self:
        """Return the evaluator of what the options ask for rows of a shape.

        Parameters
        ----------
        sum_only : bool
            Whether nothing but the sum of the losses is read, unless the reduction is "none".
        is_in_range : bool
            Whether the values of a floating target are known to be allowed.

        Raises
        ------
        TypeError, ValueError
            If the target or an option does not fit.
        """
        loss, reduction = options.loss or DEFAULT_LOSS, _reduction(options)
        row_weight = None
        if options.sample_weight is not None:
            row_weight = weights(options.sample_weight, "sample_weight", shape, "one weight a row").ravel()
        asked = Asked(
            loss,
            options.kind,
            shape,
            num_classes,
            class_weight=_class_weight(options, num_classes),
            label_smoothing=options.label_smoothing,
            ignore_index=int(options.ignore_index),
            margin=options.margin,
        )
        encoded = encode(target, asked, NumPyTargets(dtype, is_in_range))
        scale, empty = reduction.resolve(*_totals(encoded, math.prod(shape), row_weight, dtype))
        weight = row_weight
        if encoded.link == "sigmoid":
            weight = _entry_weight(options, asked, row_weight)
        elif encoded.labels is not None and row_weight is not None:
            encoded = encoded._replace(labels=np.where(row_weight == 0, -1, encoded.labels), num_counted=None)
        return cls(
            loss=loss,
            target=encoded,
            map=make_map(options, num_classes),
            reduction=reduction,
            shape=shape,
            dtype=dtype,
            weight=weight,
            scale=scale,
            empty=empty,
            sum_only=sum_only and reduction.kind != "none",
        )

    @property
    def num_rows(self) -> int:
        return math.prod(self.shape)

    @property
    def is_binary(self) -> bool:
        """Whether every entry of a row is a question of its own."""
        return self.target.link == "sigmoid"

    @property
    def result_dtype(self) -> type:
        """The dtype of values: float64 only where it is computed in."""
        return np.float64 if self.dtype == FLOAT64 else np.float32

    @property
    def wants_entries(self) -> bool:
        """Whether the losses of single entries are asked for."""
        return self.is_binary and self.reduction.kind == "none"

    @property
    def forms(self) -> frozenset[str]:
        """Which other forms of unmapped logits are computed as they are: "bfloat16", "planes"."""
        if not self.map.is_identity:
            return frozenset()
        forms: frozenset[str] = registry.find(self.dtype).forms(self.target, self.loss)
        return forms

    @property
    def silent_rows(self) -> np.ndarray | None:
        """Which rows have no part in the loss, (N,); None where all have."""
        weight, labels = self.weight, self.target.labels
        found = [] if weight is None else [weight == 0]
        if labels is not None:
            found.append(labels < 0)
        of_rows = [silent if silent.ndim == 1 else silent.all(axis=1) for silent in found]
        return np.logical_or.reduce(of_rows) if of_rows else None

    def with_factor(self, factor: np.ndarray) -> Evaluator:
        """Return an evaluator whose losses have a factor more, float64: one a row or, for entries, one an entry."""
        factor = factor.reshape((self.num_rows, self.target.num_classes) if self.is_binary else self.num_rows)
        if self.weight is not None:
            weight = self.weight if self.weight.ndim == factor.ndim else self.weight[:, None]
            factor = weight * factor
        return self._replace(weight=np.ascontiguousarray(factor))

    def with_scale(self, factor: float) -> Evaluator:
        """Return an evaluator whose gradients have one factor more."""
        return self._replace(scale=self.scale * factor)

    def reduce(self, losses: np.ndarray) -> Any:
        """Return the reduced value of the losses of all rows, float64."""
        if self.reduction.kind == "none":
            return losses.reshape(self.shape)
        if self.scale == 0.0:  # an empty mean
            return np.float64(self.empty)
        return np.add.reduce(losses) * self.scale

    def mapped(self, logits: np.ndarray, rows: slice) -> np.ndarray:
        """Return the mapped logits in float64, rounded to the dtype that is computed in."""
        labels = None if self.map.margin is None else self._part(rows).counted_labels
        return self.map.forward(logits.astype(np.float64), labels).astype(self.dtype)

    def evaluate(
        self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None
    ) -> np.ndarray:
        """Return the weighted losses of some rows of logits of any dtype.

        Parameters
        ----------
        logits : (n, K) array, or planes
        rows : slice
            Which rows of all they are.
        grad : array like the logits, or None
            Filled with the gradient; it may be the logits.
        entries : (n, K) float64, or None
            With the sigmoid link, filled with the loss of each entry.
        """
        if self.map.is_identity and logits.dtype == self.dtype:
            return self.compute(logits, rows, grad, entries)
        if is_bfloat16(logits.dtype) and "bfloat16" in self.forms:
            return self.compute(as_bits(logits), rows, None if grad is None else as_bits(grad), entries)
        losses = [np.empty(0)]
        step = max(1, WORK_ELEMENTS // max(1, logits.shape[1]))
        scratch = np.empty((min(step, len(logits)), logits.shape[1]), self.dtype)
        for start in range(0, len(logits), step):
            part = slice(start, min(start + step, len(logits)))
            here = slice(rows.start + part.start, rows.start + part.stop)
            raw = widened(logits[part], self.dtype, scratch)
            part_losses, slope = self._evaluate_mapped(
                raw, here, grad is not None, None if entries is None else entries[part]
            )
            losses.append(part_losses)
            if grad is not None:
                narrow_into(slope, grad[part])
        return np.concatenate(losses)

    def _evaluate_mapped(
        self, raw: np.ndarray, rows: slice, with_grad: bool, entries: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of a piece in the dtype that is computed in, and its gradient, which may take its place."""
        work = raw if self.map.is_identity else self.mapped(raw, rows)
        if self.map.softcap is not None:
            # The slope is a factor per entry: in float64 it costs no digit of a float32 gradient.
            work = work.astype(np.float64)
        losses = self.compute(work, rows, work if with_grad else None, entries)
        if with_grad and self.map.softcap is not None:
            slope = self.map.cap_slope(raw.astype(np.float64))
            work *= np.where(work == 0, 0.0, slope)
        return losses, work

    def _part(self, rows: slice) -> Target:
        """Return the target of some rows."""
        return self.target if rows.start == 0 and rows.stop == self.num_rows else self.target.rows(rows)

    def compute(
        self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None
    ) -> np.ndarray:
        """`evaluate` of mapped logits that a backend takes; the gradient lacks the slope of a soft cap."""
        weight = None if self.weight is None else self.weight[rows]
        if entries is None and weight is not None and weight.ndim == 2:
            entries = np.empty(logits.shape)
        backend = registry.find(self.dtype if logits.dtype == np.uint16 else logits.dtype)
        factor = self.scale * self.map.constant_slope
        sum_only = self.sum_only and weight is None
        target = self._part(rows)
        losses: np.ndarray = backend.row_losses(logits, target, self.loss, factor, weight, grad, entries, sum_only)
        if weight is None:
            return losses
        # A weight of 0 silences an infinite or NaN loss, which a product would not.
        if entries is None:
            return np.where(weight == 0, 0.0, losses * weight)
        weight = weight if weight.ndim == 2 else weight[:, None]
        np.copyto(entries, np.where(weight == 0, 0.0, entries * weight))
        return np.sum(entries, axis=1)

    def second_order(
        self, logits: np.ndarray, rows: slice, vector: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weighted losses, gradient and the Hessian's diagonal (or Hessian · vector) of mapped logits, float64.

        With the sigmoid link the losses are those of the entries.
        """
        statistics = reference.rows_of(logits, self._part(rows))
        shape = logits.shape if self.is_binary else (-1,)
        losses = composition.value(self.loss, statistics).reshape(shape)
        gradient = composition.gradient(self.loss, statistics)
        if vector is None or self.is_binary:
            second = composition.hessian_diagonal(self.loss, statistics)
        else:
            second = composition.hessian_product(self.loss, statistics, vector)
        if self.is_binary:
            gradient, second = (of_two[:, 1].reshape(shape) for of_two in (gradient, second))
            second = second if vector is None else second * vector
        return self.weigh(rows, statistics.mass.reshape(shape), losses, gradient, second)

    def weigh(
        self, rows: slice, mass: np.ndarray, losses: np.ndarray, gradient: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return losses times weights, derivatives times weights and scale; 0 where silent."""
        weight = np.ones(len(losses)) if self.weight is None else self.weight[rows]
        if losses.ndim == 2 and weight.ndim == 1:
            weight = weight[:, None]
        silent = is_silent(mass, self._part(rows).labels, weight)
        of_entries, silent_entries = (a if a.ndim == 2 else a[:, None] for a in (self.scale * weight, silent))
        return (
            np.where(silent, 0.0, losses * weight),
            np.where(silent_entries, 0.0, of_entries * gradient),
            np.where(silent_entries, 0.0, of_entries * second),
        )


def _reduction(options: Options) -> Reduction:
    if options.reduction == "mean" and options.normalizer is None and options.on_empty == "nan":
        return _DEFAULT_REDUCTION
    return Reduction(options.reduction, options.normalizer, options.on_empty)  # type: ignore[arg-type]


def _class_weight(options: Options, num_classes: int) -> np.ndarray | None:
    """Return class weights as `Target` has them."""
    if options.kind == "softmax":
        if options.weight is None:
            return None
        return weights(options.weight, "weight", (num_classes,), "one weight a class")
    if options.pos_weight is None and options.alpha is None:
        return None
    table = np.ones((2, num_classes))
    if options.alpha is not None:
        alpha = check_number("alpha", options.alpha, minimum=0, maximum=1)
        table[0], table[1] = 1 - alpha, alpha
    if options.pos_weight is not None:
        table[1] *= weights(options.pos_weight, "pos_weight", (num_classes,), "one weight a label")
    return table


def _entry_weight(options: Options, asked: Asked, row_weight: np.ndarray | None) -> np.ndarray | None:
    """Return the factors of rows, or of entries where each has one."""
    if options.weight is None:
        return row_weight
    weight = weights(options.weight, "weight", asked.full_shape, "a shape that broadcasts to the logits'")
    weight = weight.reshape(-1, asked.num_classes)
    return weight if row_weight is None else weight * row_weight[:, None]


def _totals(target: Target, num_rows: int, row_weight: np.ndarray | None, dtype: np.dtype) -> tuple[float, float]:
    """Return how many rows count and what they weigh together; with the sigmoid link, how many entries, twice."""
    labels = target.labels
    if target.link == "sigmoid":
        count = num_rows * target.num_classes if labels is None else int(np.count_nonzero(labels >= 0))
        return count, count
    if labels is None:
        return num_rows, float(num_rows) if row_weight is None else float(np.sum(row_weight))
    count = int(np.count_nonzero(labels >= 0)) if target.num_counted is None else target.num_counted
    if target.class_weight is None and row_weight is None:
        return count, count
    weighted = registry.find(dtype).weigh_labels(labels, target.class_weight, row_weight)
    if weighted == 0 and count:
        counted = labels[labels >= 0] if row_weight is None else labels[(labels >= 0) & (row_weight > 0)]
        if counted.size and (target.class_weight is None or bool((target.class_weight[counted] > 0).any())):
            weighted = math.ulp(0.0)  # their products underflow, which is no empty mean
    return count, weighted


def make_map(options: Options, num_classes: int) -> LogitMap:
    """Return the logits' map that the options ask for.

    A distillation loss divides by its temperature itself. The prior comes behind that division, where
    ``z/T + κ log prior`` is ``(z + T κ log prior) / T``.

    Raises
    ------
    TypeError, ValueError
    """
    strength = float(options.prior_strength)
    if options.loss is not None and options.loss.needs_teacher:
        if options.temperature is not None:
            got = f"temperature={options.temperature!r}"
            raise TypeError(refuse("a distillation loss has its own temperature", got))
        strength *= options.loss.parameter
    if options.temperature is None and options.prior is None and options.margin is None and options.softcap is None:
        return _IDENTITY
    offset = margin = None
    if options.prior is not None:
        prior = weights(options.prior, "prior", (num_classes,), "one probability a class")
        if not (prior > 0).all():
            got = f"0 for class {int(np.argmin(prior))}"
            raise ValueError(refuse("prior must be positive", got, "give rare classes a small mass"))
        offset = strength * np.log(prior)
        if options.kind == "sigmoid":
            if not (prior < 1).all():
                raise ValueError(refuse("prior must be below 1 with the sigmoid link", float(prior.max())))
            offset = strength * (np.log(prior) - np.log1p(-prior))
    if options.margin is not None:
        margin = real_array(options.margin, "margin").astype(np.float64)
        if margin.shape not in ((), (num_classes,)) or not np.isfinite(margin).all():
            raise ValueError(refuse("margin must be a finite number or one a class", describe(margin)))
    return LogitMap(
        softcap=None if options.softcap is None else check_number("softcap", options.softcap, above=0),
        temperature=None if options.temperature is None else check_number("temperature", options.temperature, above=0),
        offset=offset,
        margin=margin,
    )
