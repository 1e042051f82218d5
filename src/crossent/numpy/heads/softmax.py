"""The softmax head: rows of K logits with one class, a distribution or a teacher each."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from crossent.core import composition
from crossent.core.arrays import two_sum
from crossent.core.target import Target, Teacher, TopK
from crossent.errors import describe, refuse
from crossent.kernels import registry
from crossent.losses import Loss
from crossent.numpy.arrays import (
    as_ndarray,
    compute_dtype,
    lies_within,
    real_array,
    typed,
    weights,
)
from crossent.numpy.heads.base import Head, target_array
from crossent.numpy.options import Options

_MASS_TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-6}  # by the item size of the targets' dtype


def _check_distributions(target: np.ndarray, loss: Loss, tolerance: float, in_range: bool) -> None:
    if not in_range and not lies_within(target):
        if not np.min(target) >= 0:
            row = int(np.argmax(~np.all(target >= 0, axis=1)))
            asked = "a target distribution must be non-negative"
            raise ValueError(refuse(asked, f"{np.min(target[row])} in row {row}"))
        row = int(np.argmax(~np.isfinite(target).all(axis=1)))
        raise ValueError(refuse(f"a target distribution must be finite in {target.dtype}", f"inf in row {row}"))
    if loss.needs_unit_mass:
        mass = target.sum(axis=1, dtype=np.float64)
        off = np.abs(mass - 1) > tolerance
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(refuse(f"{loss!r} needs targets that sum to 1", f"a sum of {mass[row]} in row {row}"))


class SoftmaxHead(Head):
    """Rows of K logits with one class, a distribution or a teacher each."""

    def __init__(self, target: Any, options: Options, shape: tuple[int, ...], num_classes: int, dtype: np.dtype):
        super().__init__(options, shape, num_classes, dtype)
        self.soft: np.ndarray | None = None
        self.teacher: np.ndarray | Teacher | None = None
        self.class_weight: np.ndarray | None = None
        self.label_smoothing = float(options.label_smoothing)
        if options.weight is not None:
            self.class_weight = weights(options.weight, "weight", (num_classes,), "one weight a class")
        self.twin = registry.find(dtype)
        if self.loss.needs_teacher:
            self._take_teacher(target)
        else:
            if isinstance(target, TopK):
                raise TypeError(
                    refuse("a TopK target needs a distillation loss", repr(self.loss), "use distillation_loss")
                )
            target = target_array(target)
            if target.dtype.kind in "iu":
                self._take_labels(target)
            else:
                self._take_distributions(target)

    def _take_labels(self, target: np.ndarray) -> None:
        if target.shape != self.shape:
            hint = ""
            if target.shape == (*self.shape, self.num_classes):
                hint = "integers are class indices: give one-hot targets as floats"
            raise ValueError(refuse(f"labels must have shape {self.shape}, one a row", describe(target), hint))
        labels = np.ascontiguousarray(target).reshape(-1)
        if labels.dtype != np.int64:
            if labels.dtype == np.uint64:  # beyond int64 a label is out of range as much as at num_classes
                labels = np.minimum(labels, np.uint64(max(self.num_classes, int(self.options.ignore_index) + 1, 0)))
            labels = labels.astype(np.int64)
        self.labels = np.empty(labels.size, dtype=np.int64)
        ignore_index = int(self.options.ignore_index)
        bad, count, weighted = self.twin.scan_labels(
            labels, self.num_classes, ignore_index, self.class_weight, self.row_weight, self.labels
        )
        if bad >= 0:
            raise ValueError(
                refuse(
                    f"labels must lie in 0..{self.num_classes - 1} or equal ignore_index={ignore_index}",
                    f"{target.reshape(-1)[bad]} in row {bad}",
                )
            )
        if self.row_weight is not None:
            self.labels[self.row_weight == 0] = -1
        if weighted == 0 and self._has_weight():
            weighted = math.ulp(0.0)  # their products underflow, which is no empty mean
        self._resolve(count, weighted)

    def _has_weight(self) -> bool:
        """Whether a row that counts has a positive weight, and its label's class too."""
        assert self.labels is not None
        labels = self.labels[self.labels >= 0]
        return bool(labels.size) and (self.class_weight is None or bool((self.class_weight[labels] > 0).any()))

    def _take_distributions(self, target: np.ndarray) -> None:
        if target.dtype.kind == "b":
            raise TypeError(refuse("target must be integer labels or floating distributions", describe(target)))
        expected = (*self.shape, self.num_classes)
        if target.shape != expected:
            raise ValueError(
                refuse(
                    f"a floating target must have the logits' shape {expected}",
                    describe(target),
                    "class labels must be integers" if target.shape == self.shape else "",
                )
            )
        if self.loss.needs_hard_target:
            raise ValueError(refuse(f"{self.loss!r} needs integer labels", describe(target)))
        if self.options.ignore_index != -100:
            raise ValueError(
                refuse(
                    "ignore_index applies to integer labels", describe(target), "use sample_weight with soft targets"
                )
            )
        if self.options.margin is not None:
            raise ValueError(refuse("margin needs integer labels", describe(target)))
        target = target.reshape(self.num_rows, self.num_classes)
        soft = typed(target, self.dtype)
        in_range = self.options.target_in_range and target.dtype.itemsize <= soft.dtype.itemsize  # else it may overflow
        _check_distributions(soft, self.loss, _MASS_TOLERANCE.get(target.dtype.itemsize, 1e-6), in_range)
        self.soft = soft
        self._count_rows()

    def _count_rows(self) -> None:
        """Resolve the reduction where every row counts."""
        weighted = float(self.num_rows) if self.row_weight is None else float(np.sum(self.row_weight))
        self._resolve(self.num_rows, weighted)

    def _take_teacher(self, teacher: Any) -> None:
        for name in ("weight", "margin"):
            if getattr(self.options, name) is not None:
                raise TypeError(refuse(f"{name} does not apply to distillation", repr(getattr(self.options, name))))
        if self.label_smoothing:
            raise TypeError(refuse("label_smoothing does not apply to distillation", self.label_smoothing))
        if isinstance(teacher, TopK):
            self._take_top_k(teacher)
            return
        logits = real_array(teacher, "teacher")
        if logits.dtype.kind in "iu" or logits.shape != (*self.shape, self.num_classes):
            raise ValueError(
                refuse(
                    f"a teacher must be floating logits of the student's shape {(*self.shape, self.num_classes)}",
                    describe(logits),
                    "or a TopK(indices, probabilities)",
                )
            )
        dtype = compute_dtype(logits.dtype, "teacher")
        teacher = typed(logits.reshape(self.num_rows, self.num_classes), dtype)
        largest = teacher.max(axis=1)
        bad = ~np.isfinite(largest)
        if bad.any():
            row = int(np.argmax(bad))
            got = f"a largest logit of {largest[row]} in row {row}"
            raise ValueError(refuse("a teacher's logits must define a softmax", got))
        self.teacher = teacher
        self._count_rows()

    def _take_top_k(self, teacher: TopK) -> None:
        indices = as_ndarray(teacher.indices, "indices")
        probabilities = real_array(teacher.probabilities, "probabilities")
        is_list = indices.ndim > 0 and indices.shape[-1] > 0 and indices.dtype.kind in "iu"
        if not is_list or indices.shape != probabilities.shape or indices.shape[:-1] != self.shape:
            is_swapped = indices.dtype.kind == "f" and probabilities.dtype.kind in "iu"
            raise ValueError(
                refuse(
                    f"TopK needs integer indices and floating probabilities, both of shape {(*self.shape, 'k')}, k ≥ 1",
                    f"{describe(indices)} and {describe(probabilities)}",
                    "indices come first, though torch.topk returns them second" if is_swapped else "",
                )
            )
        k = indices.shape[-1]
        rounding = 4 * k * np.finfo(compute_dtype(probabilities.dtype)).eps
        indices = indices.reshape(self.num_rows, k).astype(np.int64)
        probabilities = probabilities.reshape(self.num_rows, k).astype(np.float64)
        ordered = np.sort(indices, axis=1)
        bad = (ordered < 0).any(1) | (ordered >= self.num_classes).any(1) | (np.diff(ordered, axis=1) == 0).any(1)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                refuse(
                    f"TopK indices must be distinct classes in 0..{self.num_classes - 1}",
                    f"{indices[row]} in row {row}",
                )
            )
        total = probabilities.sum(1)
        left, lost = np.ones(self.num_rows), np.zeros(self.num_rows)
        for column in probabilities.T:  # of a nearly full list the rest is small, and its digits are those lost here
            left, error = two_sum(left, -column)
            lost += error
        left += lost
        bad = ~(probabilities >= 0).all(1) | ~(total <= 1 + 1e-4)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                refuse("TopK probabilities must be non-negative with sums ≤ 1", f"{probabilities[row]} in row {row}")
            )
        # What rounding left of a full list is no mass: an empty bucket would make it an infinite loss.
        remainder = np.where((left > rounding) & (k < self.num_classes), left, 0.0)
        self.teacher = Teacher(indices, probabilities, remainder)
        self._count_rows()

    @cached_property
    def target(self) -> Target:
        return Target(
            self.num_classes,
            labels=self.labels,
            soft=self.soft,
            teacher=self.teacher,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            temperature=self.loss.parameter if self.loss.needs_teacher else 1.0,
        )

    def evaluate(self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None) -> Any:
        weight = None if self.row_weight is None else self.row_weight[rows]
        target = self.target.rows(rows)
        losses = self.twin_of(logits).row_losses(logits, target, self.loss, self.scale * self.slope, weight, grad)
        return self._weighted(losses, rows)

    def second_order(self, logits: np.ndarray, rows: slice, vector: np.ndarray | None) -> tuple[Any, Any, Any]:
        statistics = self.reference_rows(logits, rows)
        losses = composition.value(self.loss, statistics)
        gradient = composition.gradient(self.loss, statistics)
        if vector is None:
            second = composition.hessian_diagonal(self.loss, statistics)
        else:
            second = composition.hessian_product(self.loss, statistics, vector)
        return self._weigh(rows, statistics.mass, losses, gradient, second)
