"""The sigmoid head: rows of K logits, each a yes-or-no question of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from crossent.core import composition
from crossent.core.target import Target
from crossent.errors import check_number, describe, refuse
from crossent.kernels import registry
from crossent.numpy.arrays import FLOAT64, lies_within, typed, weights
from crossent.numpy.heads.base import Head, target_array
from crossent.numpy.options import Options


class SigmoidHead(Head):
    """Rows of K logits, each a yes-or-no question of its own."""

    def __init__(self, target: Any, options: Options, shape: tuple[int, ...], num_classes: int, dtype: np.dtype):
        super().__init__(options, shape, num_classes, dtype)
        if self.loss.needs_teacher:
            raise TypeError(refuse("distillation needs the softmax link", 'link="sigmoid"'))
        self.twin = registry.find(dtype)
        self.label_smoothing = float(options.label_smoothing)
        self.class_weight = self._class_weight()
        self.soft: np.ndarray | None = None
        self.factor: np.ndarray | None = None
        full = (*shape, num_classes)
        if options.weight is not None:
            self.factor = weights(options.weight, "weight", full, "a shape that broadcasts to the logits'")
            self.factor = self.factor.reshape(self.num_rows, num_classes)
        target = target_array(target)
        if target.shape != full:
            raise ValueError(
                refuse(f"with the sigmoid link target must have the logits' shape {full}", describe(target))
            )
        target = target.reshape(self.num_rows, num_classes)
        if target.dtype.kind in "biu":
            self._take_labels(target)
        else:
            self._take_probabilities(target)

    def _class_weight(self) -> np.ndarray | None:
        options = self.options
        if options.pos_weight is None and options.alpha is None:
            return None
        table = np.ones((2, self.num_classes))
        if options.alpha is not None:
            alpha = check_number("alpha", options.alpha, minimum=0, maximum=1)
            table[0], table[1] = 1 - alpha, alpha
        if options.pos_weight is not None:
            table[1] *= weights(options.pos_weight, "pos_weight", (self.num_classes,), "one weight a label")
        return table

    def _take_labels(self, target: np.ndarray) -> None:
        ignore_index = int(self.options.ignore_index)
        counted = target != ignore_index
        bad = counted & (target != 0) & (target != 1)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                refuse(
                    f"integer targets must be 0, 1 or ignore_index={ignore_index}",
                    f"{target[row, column]} in row {row}, label {column}",
                )
            )
        self.labels = np.ascontiguousarray(np.where(counted, target, -1), dtype=np.int8)
        self._resolve(count := int(np.count_nonzero(counted)), count)

    def _take_probabilities(self, target: np.ndarray) -> None:
        if self.loss.needs_hard_target:
            raise ValueError(refuse(f"{self.loss!r} needs integer or bool targets", describe(target)))
        if self.options.ignore_index != -100:
            raise ValueError(
                refuse("ignore_index applies to integer targets", describe(target), "use weight with floating targets")
            )
        self.soft = typed(target, self.dtype)
        given = target if target.dtype == FLOAT64 else self.soft  # which float32 may round into the range
        if not self.options.target_in_range and not lies_within(given, 1.0):
            row, column = (int(i) for i in np.argwhere(~((given >= 0) & (given <= 1)))[0])
            raise ValueError(
                refuse("floating targets must lie in [0, 1]", f"{given[row, column]} in row {row}, label {column}")
            )
        self._resolve(target.size, target.size)

    @cached_property
    def target(self) -> Target:
        return Target(
            self.num_classes,
            labels=self.labels,
            soft=self.soft,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            link="sigmoid",
        )

    def evaluate(self, logits: np.ndarray, rows: slice, grad: np.ndarray | None, entries: np.ndarray | None) -> Any:
        if entries is None and self.factor is not None:
            entries = np.empty(logits.shape)
        weight = None if self.row_weight is None and self.factor is None else self._weights(rows)
        if self.factor is None and self.row_weight is not None:
            weight = self.row_weight[rows]
        target = self.target.rows(rows)
        sum_only = self.sum_only and weight is None
        twin = self.twin_of(logits)
        losses = twin.row_losses(logits, target, self.loss, self.scale * self.slope, weight, grad, entries, sum_only)
        if entries is None:
            return self._weighted(losses, rows)
        if weight is not None:
            weight = weight if weight.ndim == 2 else weight[:, None]
            # A weight of 0 silences an infinite or NaN entry, which a product would not.
            np.copyto(entries, np.where(weight == 0, 0.0, entries * weight))
        return np.sum(entries, axis=1)

    def _weights(self, rows: slice) -> np.ndarray:
        weight = np.ones((rows.stop - rows.start, self.num_classes)) if self.factor is None else self.factor[rows]
        return weight if self.row_weight is None else weight * self.row_weight[rows, None]

    def second_order(self, logits: np.ndarray, rows: slice, vector: np.ndarray | None) -> tuple[Any, Any, Any]:
        statistics = self.reference_rows(logits, rows)
        losses = composition.value(self.loss, statistics).reshape(logits.shape)
        gradient = composition.gradient(self.loss, statistics)[:, 1].reshape(logits.shape)
        second = composition.hessian_diagonal(self.loss, statistics)[:, 1].reshape(logits.shape)
        if vector is not None:
            second = second * vector
        return self._weigh(rows, statistics.mass.reshape(logits.shape), losses, gradient, second)
