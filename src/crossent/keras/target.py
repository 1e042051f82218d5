"""How the values of a target in Keras' tensors are looked at, for `crossent.core.target.encode`.

Keras hands labels on as floats. Where a program is traced nothing can raise: what is out of range becomes `BAD`, and
its loss and gradient NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from crossent.core.target import Asked, Teacher
from crossent.errors import refuse

from .tensors import describe, known

__all__ = ["BAD", "KerasTargets"]

BAD = -2
"""The label of a row or entry that is out of range; of one that does not count it is -1."""


@dataclass(frozen=True)
class KerasTargets:
    """The library of Keras' tensors.

    Parameters
    ----------
    dtype : str
        What is computed in: floating targets are held in it.
    takes_labels : bool
        Whether a target is labels, whatever its dtype.
    ignore_class : int, optional
    """

    dtype: str
    takes_labels: bool
    ignore_class: int | None = None

    def array(self, value: Any, name: str) -> Any:
        return ops.convert_to_tensor(value)

    def kind(self, array: Any) -> Literal["integer", "bool", "floating"]:
        return "integer" if self.takes_labels else "floating"

    def describe(self, value: Any) -> str:
        return describe(value)

    def _checked(self, target: Any, num_classes: int, asked: str) -> Any:
        """Return labels in 0..num_classes - 1, -1 where they do not count, `BAD` where they are no label."""
        y = ops.cast(target, "float64" if self.dtype == "float64" else "float32")
        is_label = (y >= 0) & (y < num_classes) & (ops.floor(y) == y)
        ignored = ops.zeros_like(is_label) if self.ignore_class is None else y == float(self.ignore_class)
        bad = known(~is_label & ~ignored)
        if bad is not None and bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            where = f"row {place[0]}" if len(place) == 1 else f"row {place[0]}, label {place[-1]}"
            value = known(y)
            raise ValueError(refuse(asked, f"{value[place]:g} in {where}"))  # type: ignore[index]
        labels = ops.cast(ops.where(is_label, y, ops.zeros_like(y)), "int32")
        return ops.where(ignored, -1, ops.where(is_label, labels, BAD))

    def labels(self, target: Any, asked: Asked) -> tuple[Any, None]:
        words = f"labels must lie in 0..{asked.num_classes - 1} or equal ignore_class={self.ignore_class}"
        return self._checked(ops.reshape(target, (-1,)), asked.num_classes, words), None

    def entry_labels(self, target: Any, asked: Asked) -> Any:
        return self._checked(ops.reshape(target, (-1, asked.num_classes)), 2, f"{asked.loss!r} needs labels of 0 and 1")

    def distributions(self, target: Any, asked: Asked) -> Any:
        soft = ops.cast(ops.reshape(target, (-1, asked.num_classes)), self.dtype)
        values = known(soft)
        if values is not None:
            bad = ~(np.isfinite(values) & (values >= 0)).all(-1)
            _refuse_row(bad, values, "a target distribution must be finite and non-negative")
            if asked.loss.needs_unit_mass:
                off = ~(np.abs(values.sum(-1, dtype=np.float64) - 1) <= 1e-2)
                _refuse_row(off, values, f"{asked.loss!r} needs targets that sum to 1")
        return soft

    def probabilities(self, target: Any, asked: Asked) -> Any:
        soft = ops.cast(ops.reshape(target, (-1, asked.num_classes)), self.dtype)
        values = known(soft)
        if values is not None:
            _refuse_row(~((values >= 0) & (values <= 1)).all(-1), values, "targets must lie in [0, 1]")
        return soft

    def teacher(self, logits: Any, asked: Asked) -> Any:
        return ops.cast(ops.reshape(logits, (-1, asked.num_classes)), self.dtype)

    def top_k(self, indices: Any, probabilities: Any, asked: Asked) -> Teacher:
        raise TypeError(refuse("with Keras a teacher is its logits", "a TopK"))


def _refuse_row(bad: Any, values: np.ndarray, asked: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(refuse(asked, f"{values[row]} in row {row}"))


def refuse_half_labels(y_true: Any, num_classes: int) -> None:
    """Refuse labels of a half type that has not all of these classes: they were rounded before they came here.

    Raises
    ------
    TypeError
    """
    name = keras.backend.standardize_dtype(getattr(y_true, "dtype", "int32"))
    most = {"bfloat16": 256, "float16": 2048}.get(name)
    if most is not None and num_classes > most + 1:
        asked = f"labels of {num_classes} classes must be integers or float32"
        raise TypeError(refuse(asked, name, f"it rounds whole numbers above {most}"))
