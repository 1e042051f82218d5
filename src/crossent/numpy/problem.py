"""One evaluation of a loss on NumPy logits: the arguments of a public function, checked and in canonical form."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from crossent.core.logit_maps import LogitMap
from crossent.core.target import TopK
from crossent.errors import check_number, describe, refuse
from crossent.kernels import reference
from crossent.numpy import buffers
from crossent.numpy.arrays import (
    FLOAT64,
    as_bits,
    as_ndarray,
    compute_dtype,
    is_bfloat16,
    narrow_into,
    quietly,
    real_array,
    weights,
    widened,
)
from crossent.numpy.heads import Head, SigmoidHead, make_head
from crossent.numpy.options import Options

LAST_AXIS = Options().axis
WORK_ELEMENTS = 1 << 20  # logits converted or mapped at a time
LEAST_POSITIONS = 16  # that lie together: below this, transposing costs less than blocks with so few rows
MOST_PLANES = 4096  # classes: a block of rows in float32 takes 256 bytes for each


def make_map(options: Options, num_classes: int) -> LogitMap:
    """Return the logits' map that the options ask for.

    Raises
    ------
    ValueError
    """
    if options.temperature is None and options.prior is None and options.margin is None and options.softcap is None:
        return _IDENTITY
    offset = margin = None
    if options.prior is not None:
        prior = weights(options.prior, "prior", (num_classes,), "one probability a class")
        if not (prior > 0).all():
            raise ValueError(
                refuse(
                    "prior must be positive", f"0 for class {int(np.argmin(prior))}", "give rare classes a small mass"
                )
            )
        if options.kind == "sigmoid":
            if not (prior < 1).all():
                raise ValueError(refuse("prior must be below 1 with the sigmoid link", float(prior.max())))
            offset = float(options.prior_strength) * (np.log(prior) - np.log1p(-prior))
        else:
            offset = float(options.prior_strength) * np.log(prior)
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


_IDENTITY = LogitMap()
# Of the first argument, where it is not logits.
_NAMES = {"probability": "probs", "log_probability": "log_probs", "binary_probability": "probs"}


def with_teacher_temperature(options: Options) -> Options:
    """Return options whose map leaves a division by the temperature to a distillation loss.

    The prior comes behind that division: ``z/T + κ log prior`` is ``(z + T κ log prior) / T``.
    """
    if options.loss is None or not options.loss.needs_teacher:
        return options
    if options.temperature is not None:
        raise TypeError(refuse("a distillation loss has its own temperature", f"temperature={options.temperature!r}"))
    return replace(options, prior_strength=options.loss.parameter * options.prior_strength)


class Evaluator:
    """A head behind a map: losses and gradients of blocks of unmapped logits.

    Parameters
    ----------
    head : Head
    logit_map : LogitMap
    """

    def __init__(self, head: Head, logit_map: LogitMap):
        self.head, self.map = head, logit_map
        head.slope = logit_map.constant_slope

    def with_factor(self, factor: np.ndarray) -> Evaluator:
        """Return an evaluator whose gradients have a factor more, float64: one a row or, for entries, one an entry."""
        head = copy.copy(self.head)
        if isinstance(head, SigmoidHead):
            factor = np.ascontiguousarray(factor.reshape(head.num_rows, head.num_classes))
            head.factor = factor if head.factor is None else head.factor * factor
        else:
            factor = factor.reshape(head.num_rows)
            head.row_weight = factor if head.row_weight is None else head.row_weight * factor
        return Evaluator(head, self.map)

    def with_scale(self, factor: float) -> Evaluator:
        """Return an evaluator whose gradients have one factor more."""
        head = copy.copy(self.head)
        head.scale *= factor
        return Evaluator(head, self.map)

    def _labels(self, rows: slice) -> np.ndarray | None:
        labels = getattr(self.head, "labels", None)
        return None if labels is None or self.map.margin is None else np.maximum(labels[rows], 0)

    def mapped(self, logits: np.ndarray, rows: slice) -> np.ndarray:
        """Return the mapped logits in float64, rounded to the dtype that the head computes in."""
        return self.map.forward(logits.astype(np.float64), self._labels(rows)).astype(self.head.dtype)

    def evaluate(
        self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None
    ) -> np.ndarray:
        """Return the weighted row losses of a block, of any dtype; fill `grad`, of the same, which may be `logits`."""
        if self.map.is_identity and logits.dtype == self.head.dtype:
            return self.head.evaluate(logits, rows, grad, entries)
        if is_bfloat16(logits.dtype) and self.map.is_identity and "bfloat16" in self.head.forms:
            return self.head.evaluate(as_bits(logits), rows, None if grad is None else as_bits(grad), entries)
        losses = [np.empty(0)]
        step = max(1, WORK_ELEMENTS // max(1, logits.shape[1]))
        scratch = np.empty((min(step, len(logits)), logits.shape[1]), self.head.dtype)
        for start in range(0, len(logits), step):
            part = slice(start, min(start + step, len(logits)))
            here = slice(rows.start + part.start, rows.start + part.stop)
            raw = widened(logits[part], self.head.dtype, scratch)
            part_entries = None if entries is None else entries[part]
            part_losses, slope = self._evaluate_mapped(raw, here, grad is not None, part_entries)
            losses.append(part_losses)
            if grad is not None:
                narrow_into(slope, grad[part])
        return np.concatenate(losses)

    def _evaluate_mapped(
        self, raw: np.ndarray, rows: slice, with_grad: bool, entries: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of a piece in the dtype that is computed in, and its gradient, which may take its place."""
        if self.map.is_identity:
            return self.head.evaluate(raw, rows, raw if with_grad else None, entries), raw
        work = self.mapped(raw, rows)
        if self.map.softcap is not None:
            # The slope is a factor per entry: in float64 it costs no digit of a float32 gradient.
            work = work.astype(np.float64)
        losses = self.head.evaluate(work, rows, work if with_grad else None, entries)
        if with_grad and self.map.softcap is not None:
            slope = self.map.cap_slope(raw.astype(np.float64))
            work *= np.where(work == 0, 0.0, slope)
        return losses, work


class Problem:
    """Logits, target and options in canonical form: logits (N, K) contiguous, their axis last."""

    @quietly
    def __init__(self, logits: Any, target: Any, options: Options):
        name = _NAMES.get(options.link, "logits")
        array = real_array(logits, name)
        self.dtype = compute_dtype(array.dtype, name)
        if array.dtype.kind in "iu":
            array = array.astype(np.float64)
        is_sigmoid = options.kind == "sigmoid"
        self.is_single_label = is_sigmoid and array.ndim <= 1
        if array.ndim == 0 and not is_sigmoid:
            raise ValueError(refuse("logits must have a class axis", "a number"))
        self.axis = self._axis(options.axis, max(array.ndim, 1))
        planes: np.ndarray | None = None
        if is_sigmoid and options.weight is not None:
            # Broadcast against the logits as they came, before an axis moves.
            what = "a shape that broadcasts to the logits'"
            options.weight = weights(options.weight, "weight", array.shape, what)
        if self.is_single_label:
            array, target = array[..., None], as_ndarray(target, "target")[..., None]
            if options.weight is not None:
                options.weight = options.weight[..., None]
            self.axis = array.ndim - 1
        elif self.axis != array.ndim - 1:
            if not isinstance(target, TopK) and np.ndim(target) == array.ndim:
                target = np.moveaxis(as_ndarray(target, "target"), self.axis, -1)
            if is_sigmoid and options.weight is not None:
                options.weight = np.moveaxis(options.weight, self.axis, -1)
            if array.flags.c_contiguous:
                before, (classes, *after) = array.shape[: self.axis], array.shape[self.axis :]
                planes = array.reshape(math.prod(before), classes, math.prod(after))
            array = np.moveaxis(array, self.axis, -1)
        self.shape = array.shape
        num_classes = array.shape[-1]
        if num_classes == 0:
            raise ValueError(refuse("logits must have at least one class", describe(array)))
        options = with_teacher_temperature(options)
        self.head = make_head(target, options, array.shape[:-1], num_classes, self.dtype)
        self.evaluator = Evaluator(self.head, make_map(options, num_classes))
        self.head.sum_only = self.is_single_label and self.head.reduction.kind != "none"
        self._array = array
        self.planes = planes if planes is not None and self._takes(planes) else None
        if self.planes is None:
            _ = self.logits  # what is wrong with their memory should be known at the door
        self.result_dtype = np.float64 if self.dtype == FLOAT64 else np.float32

    def _takes(self, planes: np.ndarray) -> bool:
        """Whether the logits (n, K, positions) are computed where they lie, and need not be transposed."""
        return (
            "planes" in self.head.forms
            and self.evaluator.map.is_identity
            and (planes.dtype == self.dtype or is_bfloat16(planes.dtype))
            and planes.shape[2] >= LEAST_POSITIONS
            and planes.shape[1] <= MOST_PLANES
        )

    @cached_property
    def logits(self) -> np.ndarray:
        """Logits (N, K), contiguous."""
        array = self._array.reshape(-1, self.shape[-1]) if self._array.ndim != 2 else self._array
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)

    @staticmethod
    def _axis(axis: Any, ndim: int) -> int:
        if axis is LAST_AXIS:
            return ndim - 1
        if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
            raise ValueError(refuse(f"axis must be an integer between {-ndim} and {ndim - 1}", repr(axis)))
        return int(axis) % ndim

    @property
    def wants_entries(self) -> bool:
        return self.head.options.kind == "sigmoid" and self.head.reduction.kind == "none"

    def _restore(self, array: np.ndarray) -> np.ndarray:
        """Return (N, K) values in the shape of the logits as they came."""
        array = array.reshape(self.shape)
        if self.is_single_label:
            return array[..., 0]
        return array if self.axis == len(self.shape) - 1 else np.moveaxis(array, -1, self.axis)

    def _value(self, losses: np.ndarray, entries: np.ndarray | None) -> Any:
        if entries is not None:
            return self._restore(entries.astype(self.result_dtype, copy=False))
        value = self.head.reduce(losses)
        if self.is_single_label and self.head.reduction.kind == "none":
            value = value.reshape(self.shape[:-1])
        return value.astype(self.result_dtype)

    @quietly
    def solve(self, *, with_grad: bool) -> tuple[Any, np.ndarray | None]:
        """Return the reduced value and, in the logits' shape and dtype, its gradient."""
        if self.planes is not None:
            return self._solve_planes(self.planes, with_grad)
        logits = self.logits
        entries = np.empty(logits.shape) if self.wants_entries else None
        grad = buffers.empty(logits.shape, logits.dtype) if with_grad else None
        losses = self.evaluator.evaluate(logits, slice(0, len(logits)), grad, entries)
        value = self._value(losses, entries)
        return value, None if grad is None else self._restore(grad)

    def _solve_planes(self, planes: np.ndarray, with_grad: bool) -> tuple[Any, np.ndarray | None]:
        grad = buffers.empty(planes.shape, planes.dtype) if with_grad else None
        logits, out = planes, grad
        if is_bfloat16(planes.dtype):
            logits, out = as_bits(planes), None if grad is None else as_bits(grad)
        rows = slice(0, self.head.num_rows)
        value = self._value(self.evaluator.head.evaluate(logits, rows, out, None), None)
        shape = (*self.shape[: self.axis], self.shape[-1], *self.shape[self.axis : -1])
        return value, None if grad is None else grad.reshape(shape)

    @quietly
    def second_order(self, vector: Any = None) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return value, gradient and the Hessian's diagonal or, with a vector, the Hessian times the vector."""
        logits, head, logit_map = self.logits, self.head, self.evaluator.map
        if vector is not None:
            vector = self._canonical_vector(vector)
        losses = np.empty(len(logits))
        entries = np.empty(logits.shape) if self.wants_entries else None
        grad, second = np.empty(logits.shape, dtype=logits.dtype), np.empty(logits.shape, dtype=logits.dtype)
        for rows in reference.blocks(len(logits), 2 * logits.shape[1]):
            raw = widened(logits[rows], FLOAT64)
            work = self.evaluator.mapped(raw, rows) if not logit_map.is_identity else raw
            slope = logit_map.slope(raw)
            along = None if vector is None else vector[rows] * slope
            block_losses, gradient, hessian = head.second_order(work.astype(np.float64), rows, along)
            if entries is not None:
                entries[rows] = block_losses
            losses[rows] = block_losses.sum(axis=1) if block_losses.ndim == 2 else block_losses
            hessian = hessian * slope * (slope if vector is None else 1.0)
            if logit_map.softcap is not None:
                curvature = gradient * logit_map.curvature(raw)
                hessian += curvature if vector is None else curvature * vector[rows]
            narrow_into(gradient * slope, grad[rows])
            narrow_into(hessian, second[rows])
        return self._value(losses, entries), self._restore(grad), self._restore(second)

    def _canonical_vector(self, vector: Any) -> np.ndarray:
        vector = real_array(vector, "vector").astype(np.float64)
        if self.is_single_label:
            vector = vector[..., None]
        elif self.axis != len(self.shape) - 1 and vector.ndim == len(self.shape):
            vector = np.moveaxis(vector, self.axis, -1)
        if vector.shape != self.shape:
            raise ValueError(refuse("vector must have the logits' shape", describe(vector)))
        return vector.reshape(self.logits.shape)
