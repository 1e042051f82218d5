"""How the values of a target in NumPy arrays are looked at: copied in the kernels' form, counted, or refused."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from crossent.core.arrays import two_sum
from crossent.core.target import Asked, Teacher
from crossent.errors import describe, refuse
from crossent.kernels import registry
from crossent.numpy.arrays import FLOAT64, as_ndarray, compute_dtype, lies_within, real_array, typed

__all__ = ["NumPyTargets"]

_MASS_TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-6}  # by the item size of the targets' dtype


class NumPyTargets(NamedTuple):
    """The library of NumPy arrays, for `crossent.core.target.encode`.

    Parameters
    ----------
    dtype : numpy.dtype
        What is computed in: distributions are held in it.
    is_in_range : bool
        Whether floating targets are known to be finite and, for the sigmoid link, to lie in 0..1.
    """

    dtype: np.dtype
    is_in_range: bool = False

    def array(self, value: Any, name: str) -> np.ndarray:
        array = as_ndarray(value, name)
        if name != "indices" and not (name == "target" and array.dtype == np.bool_):
            compute_dtype(array.dtype, name)
        return array

    def kind(self, array: np.ndarray) -> Literal["integer", "bool", "floating"]:
        kind = array.dtype.kind
        return "integer" if kind in "iu" else "bool" if kind == "b" else "floating"

    def describe(self, value: Any) -> str:
        return describe(value)

    def labels(self, target: np.ndarray, asked: Asked) -> tuple[np.ndarray, int]:
        given = np.ascontiguousarray(target).reshape(-1)
        labels = given
        if labels.dtype == np.uint64:  # beyond int64 a label is out of range as much as at num_classes
            labels = np.minimum(labels, np.uint64(max(asked.num_classes, asked.ignore_index + 1, 0)))
        labels = labels.astype(np.int64, copy=False)
        out = np.empty(labels.size, dtype=np.int64)
        bad, count = registry.find(self.dtype).scan_labels(labels, asked.num_classes, asked.ignore_index, out)
        if bad >= 0:
            asked_for = f"labels must lie in 0..{asked.num_classes - 1} or equal ignore_index={asked.ignore_index}"
            raise ValueError(refuse(asked_for, f"{given[bad]} in row {bad}"))
        return out, count

    def distributions(self, target: np.ndarray, asked: Asked) -> np.ndarray:
        target = target.reshape(-1, asked.num_classes)
        soft = typed(target, self.dtype)
        is_in_range = self.is_in_range and target.dtype.itemsize <= soft.dtype.itemsize  # else it may overflow
        if not is_in_range and not lies_within(soft):
            if not np.min(soft) >= 0:
                row = int(np.argmax(~np.all(soft >= 0, axis=1)))
                asked_for = "a target distribution must be non-negative"
                raise ValueError(refuse(asked_for, f"{np.min(soft[row])} in row {row}"))
            row = int(np.argmax(~np.isfinite(soft).all(axis=1)))
            raise ValueError(refuse(f"a target distribution must be finite in {soft.dtype}", f"inf in row {row}"))
        if asked.loss.needs_unit_mass:
            mass = soft.sum(axis=1, dtype=np.float64)
            off = np.abs(mass - 1) > _MASS_TOLERANCE.get(target.dtype.itemsize, 1e-6)
            if off.any():
                row = int(np.argmax(off))
                asked_for = f"{asked.loss!r} needs targets that sum to 1"
                raise ValueError(refuse(asked_for, f"a sum of {mass[row]} in row {row}"))
        return soft

    def entry_labels(self, target: np.ndarray, asked: Asked) -> np.ndarray:
        target = target.reshape(-1, asked.num_classes)
        counted = target != asked.ignore_index
        bad = counted & (target != 0) & (target != 1)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            asked_for = f"integer targets must be 0, 1 or ignore_index={asked.ignore_index}"
            raise ValueError(refuse(asked_for, f"{target[row, column]} in row {row}, label {column}"))
        return np.ascontiguousarray(np.where(counted, target, -1), dtype=np.int8)

    def probabilities(self, target: np.ndarray, asked: Asked) -> np.ndarray:
        target = target.reshape(-1, asked.num_classes)
        soft = typed(target, self.dtype)
        given = target if target.dtype == FLOAT64 else soft  # which float32 may round into the range
        if not self.is_in_range and not lies_within(given, 1.0):
            row, column = (int(i) for i in np.argwhere(~((given >= 0) & (given <= 1)))[0])
            asked_for = "floating targets must lie in [0, 1]"
            raise ValueError(refuse(asked_for, f"{given[row, column]} in row {row}, label {column}"))
        return soft

    def teacher(self, logits: np.ndarray, asked: Asked) -> np.ndarray:
        dtype = compute_dtype(logits.dtype, "teacher")
        teacher = typed(logits.reshape(-1, asked.num_classes), dtype)
        largest = teacher.max(axis=1)
        bad = ~np.isfinite(largest)
        if bad.any():
            row = int(np.argmax(bad))
            got = f"a largest logit of {largest[row]} in row {row}"
            raise ValueError(refuse("a teacher's logits must define a softmax", got))
        return teacher

    def top_k(self, indices: np.ndarray, probabilities: np.ndarray, asked: Asked) -> Teacher:
        k = indices.shape[-1]
        rounding = 4 * k * np.finfo(compute_dtype(probabilities.dtype)).eps
        indices = indices.reshape(-1, k).astype(np.int64)
        probabilities = real_array(probabilities, "probabilities").reshape(-1, k).astype(np.float64)
        ordered = np.sort(indices, axis=1)
        bad = (ordered < 0).any(1) | (ordered >= asked.num_classes).any(1) | (np.diff(ordered, axis=1) == 0).any(1)
        if bad.any():
            row = int(np.argmax(bad))
            asked_for = f"TopK indices must be distinct classes in 0..{asked.num_classes - 1}"
            raise ValueError(refuse(asked_for, f"{indices[row]} in row {row}"))
        total = probabilities.sum(1)
        left, lost = np.ones(len(total)), np.zeros(len(total))
        for column in probabilities.T:  # of a nearly full list the rest is small, and its digits are those lost here
            left, error = two_sum(left, -column)
            lost += error
        left += lost
        bad = ~(probabilities >= 0).all(1) | ~(total <= 1 + 1e-4)
        if bad.any():
            row = int(np.argmax(bad))
            asked_for = "TopK probabilities must be non-negative with sums ≤ 1"
            raise ValueError(refuse(asked_for, f"{probabilities[row]} in row {row}"))
        # What rounding left of a full list is no mass: an empty bucket would make it an infinite loss.
        remainder = np.where((left > rounding) & (k < asked.num_classes), left, 0.0)
        return Teacher(indices, probabilities, remainder)
