"""One evaluation of a loss on NumPy logits: the arguments of a public function, checked and in canonical form."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from crossent.core.target import NO_INDEX, TopK
from crossent.errors import describe, refuse
from crossent.kernels import reference, registry
from crossent.numpy import buffers
from crossent.numpy.arrays import (
    FLOAT32,
    FLOAT64,
    as_ndarray,
    checked_axis,
    compute_dtype,
    is_bfloat16,
    narrow_into,
    quietly,
    real_array,
    weights,
    widened,
)
from crossent.numpy.evaluator import Evaluator
from crossent.numpy.links import EVALUATORS
from crossent.numpy.options import Options

__all__ = ["LEAST_POSITIONS", "Problem", "make_problem", "mean_of_labels"]

LEAST_POSITIONS = 16
"""Logits are transposed if fewer positions than these lie together: that costs less than blocks of so few rows."""
MOST_PLANES = 4096
"""Logits of more classes are transposed: a block of rows takes 256 bytes a class, and should stay in cache."""
_NAMES_OF_KERNELS = {FLOAT32: "float32", FLOAT64: "float64"}
# What the first argument is called where it does not hold logits.
_NAMES = {"probability": "probs", "log_probability": "log_probs", "binary_probability": "probs"}


class Problem(NamedTuple):
    """Logits and what was asked of them.

    Parameters
    ----------
    logits : (N, K) array, or planes (M, K, P) of N = M · P rows that are computed where they lie
        Contiguous.
    shape : tuple of int
        Of the rows before they were flattened, the class axis last.
    axis : int
        Where the class axis was.
    is_single_label : bool
        Whether the logits had no class axis: every entry is a row of one label.
    evaluator : Evaluator
    """

    logits: np.ndarray
    shape: tuple[int, ...]
    axis: int
    is_single_label: bool
    evaluator: Evaluator

    def with_scale(self, factor: float) -> Problem:
        """Return the problem with a factor on the gradient of what "mean" or "sum" returns."""
        return self._replace(evaluator=self.evaluator.with_scale(factor))

    def with_factor(self, factor: np.ndarray) -> Problem:
        """Return the problem with a factor on each of the losses that "none" returns."""
        if self.evaluator.wants_entries and factor.ndim > 1:
            factor = np.moveaxis(factor, self.axis, -1)
        return self._replace(evaluator=self.evaluator.with_factor(factor))

    def _restore(self, array: np.ndarray) -> np.ndarray:
        """Return rows (N, K) or planes of values in the shape of the logits as they came."""
        if array.ndim == 3:
            return array.reshape((*self.shape[: self.axis], self.shape[-1], *self.shape[self.axis : -1]))
        array = array.reshape(self.shape)
        if self.is_single_label:
            return array[..., 0]
        return array if self.axis == len(self.shape) - 1 else np.moveaxis(array, -1, self.axis)

    def _value(self, losses: np.ndarray, entries: np.ndarray | None) -> Any:
        if entries is not None:
            return self._restore(entries.astype(self.evaluator.result_dtype, copy=False))
        return self.evaluator.reduce(losses).astype(self.evaluator.result_dtype)

    @quietly
    def solve(self, *, with_grad: bool) -> tuple[Any, np.ndarray | None]:
        """Return the reduced value and, in the logits' shape and dtype, its gradient."""
        logits = self.logits
        entries = np.empty(logits.shape) if self.evaluator.wants_entries else None
        grad = buffers.empty(logits.shape, logits.dtype) if with_grad else None
        losses = self.evaluator.evaluate(logits, slice(0, self.evaluator.num_rows), grad, entries)
        value = self._value(losses, entries)
        return value, None if grad is None else self._restore(grad)

    @quietly
    def second_order(self, vector: Any = None) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return value, gradient and the Hessian's diagonal or, with a vector, the Hessian times the vector."""
        evaluator, logit_map = self.evaluator, self.evaluator.map
        logits = self.logits
        if logits.ndim == 3:
            logits = np.ascontiguousarray(np.moveaxis(logits, 1, -1)).reshape(-1, logits.shape[1])
        if vector is not None:
            vector = self._canonical_vector(vector)
        losses = np.empty(len(logits))
        entries = np.empty(logits.shape) if evaluator.wants_entries else None
        grad, second = np.empty(logits.shape, dtype=logits.dtype), np.empty(logits.shape, dtype=logits.dtype)
        for rows in reference.blocks(len(logits), 2 * logits.shape[1]):
            raw = widened(logits[rows], FLOAT64)
            work = evaluator.mapped(raw, rows) if not logit_map.is_identity else raw
            slope = logit_map.slope(raw)
            along = None if vector is None else vector[rows] * slope
            found, gradient, hessian = evaluator.second_order(work.astype(np.float64), rows, along)
            if entries is not None:
                entries[rows] = found
            losses[rows] = found.sum(axis=1) if found.ndim == 2 else found
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
        return vector.reshape(-1, self.shape[-1])


@quietly
def make_problem(
    logits: Any, target: Any, options: Options, axis: int | None = None, *, is_in_range: bool = False
) -> Problem:
    """Return the problem of the arguments of a public function.

    Parameters
    ----------
    axis : int, optional
        The class axis, if it is not that of the options.
    is_in_range : bool
        Whether the values of a floating target are known to be allowed.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    name = _NAMES.get(options.link, "logits")
    array = real_array(logits, name)
    dtype = compute_dtype(array.dtype, name)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    is_binary = options.kind == "sigmoid"
    is_single_label = is_binary and array.ndim <= 1
    if array.ndim == 0 and not is_binary:
        raise ValueError(refuse("logits must have a class axis", "a number"))
    axis = checked_axis(options.axis if axis is None else axis, max(array.ndim, 1))
    weight = options.weight
    if is_binary and weight is not None:  # broadcast against the logits as they came, before an axis moves
        weight = weights(weight, "weight", array.shape, "a shape that broadcasts to the logits'")
    rows_or_planes = None
    if is_single_label:
        array, target = array[..., None], as_ndarray(target, "target")[..., None]
        weight = None if weight is None else weight[..., None]
        axis = array.ndim - 1
    elif axis != array.ndim - 1:
        if not isinstance(target, TopK) and np.ndim(target) == array.ndim:
            target = np.moveaxis(as_ndarray(target, "target"), axis, -1)
        if is_binary and weight is not None:
            weight = np.moveaxis(weight, axis, -1)
        if array.flags.c_contiguous:
            before, (classes, *after) = array.shape[:axis], array.shape[axis:]
            rows_or_planes = array.reshape(math.prod(before), classes, math.prod(after))
        array = np.moveaxis(array, axis, -1)
    num_classes = array.shape[-1]
    if num_classes == 0:
        raise ValueError(refuse("logits must have at least one class", describe(array)))
    if weight is not options.weight:
        options = options._replace(weight=weight)
    evaluator = EVALUATORS[options.link].of(
        target, options, array.shape[:-1], num_classes, dtype, sum_only=is_single_label, is_in_range=is_in_range
    )
    if rows_or_planes is None or not _stay(rows_or_planes, evaluator):
        rows_or_planes = np.ascontiguousarray(array.reshape(-1, num_classes) if array.ndim != 2 else array)
    return Problem(rows_or_planes, array.shape, axis, is_single_label, evaluator)


def mean_of_labels(logits: Any, target: Any, *, with_grad: bool) -> tuple[Any, Any] | None:
    """Return the mean cross-entropy of a small batch of logits (N, K) and labels (N,), and its gradient.

    It is None if anything is unusual. What `make_problem` decides takes longer than a small batch's arithmetic. The
    kernel gives the bits of the general way.
    """
    if not (
        type(logits) is type(target) is np.ndarray
        and (name := _NAMES_OF_KERNELS.get(logits.dtype)) is not None
        and target.dtype == np.int64
        and logits.ndim == 2
        and target.shape == logits.shape[:1]
        and logits.size > 0
        and logits.flags.carray
        and target.flags.carray
    ):
        return None
    grad = np.empty(logits.shape, logits.dtype) if with_grad else None
    out = 0 if grad is None else grad.ctypes.data
    twin = registry.find(logits.dtype)
    addresses = logits.ctypes.data, target.ctypes.data, out
    value = twin.mean_at(name, *addresses, *logits.shape, NO_INDEX)
    return None if value is None else (logits.dtype.type(value), grad)


def _stay(planes: np.ndarray, evaluator: Evaluator) -> bool:
    """Whether logits (M, K, P) are computed where they lie, and need not be transposed."""
    return (
        "planes" in evaluator.forms
        and (planes.dtype == evaluator.dtype or is_bfloat16(planes.dtype))
        and planes.shape[2] >= LEAST_POSITIONS
        and planes.shape[1] <= MOST_PLANES
    )
