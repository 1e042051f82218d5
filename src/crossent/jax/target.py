"""How the values of a target in JAX arrays are looked at, for `crossent.core.target.encode`.

Where a program is traced nothing can raise: what is out of range becomes `BAD`, and its loss and gradient NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from crossent.core.target import Asked, Teacher
from crossent.errors import describe, refuse

from .arrays import as_array, is_known

__all__ = ["BAD", "JaxTargets"]

BAD = -2
"""The label of a row or entry that is out of range; of one that does not count it is -1."""


@dataclass(frozen=True)
class JaxTargets:
    """The library of JAX arrays.

    Parameters
    ----------
    dtype
        What is computed in: floating targets are held in it.
    counted : boolean array or None
        Which rows count, or with the sigmoid link which entries; labels of others are not looked at.
    """

    dtype: Any
    counted: jax.Array | None = None

    def array(self, value: Any, name: str) -> jax.Array:
        return as_array(value, name)

    def kind(self, array: jax.Array) -> Literal["integer", "bool", "floating"]:
        if array.dtype == bool:
            return "bool"
        return "integer" if jnp.issubdtype(array.dtype, jnp.integer) else "floating"

    def describe(self, value: Any) -> str:
        return describe(value)

    def _checked(self, target: jax.Array, ignore_index: int, num_classes: int, asked: str) -> jax.Array:
        """Return labels in 0..num_classes - 1, -1 where they do not count, `BAD` where they are out of range."""
        signed = jax.dtypes.canonicalize_dtype(np.int64)
        limits, given = jnp.iinfo(signed), target
        if jnp.issubdtype(target.dtype, jnp.unsignedinteger) and target.dtype.itemsize >= signed.itemsize:
            given = jnp.minimum(target, jnp.asarray(limits.max, target.dtype))  # which would wrap
        labels = given.astype(signed)
        ignored = jnp.zeros(labels.shape, bool)
        if int(limits.min) <= ignore_index <= int(limits.max):
            ignored = labels == ignore_index
        if self.counted is not None:
            ignored = ignored | ~self.counted
        bad = ~ignored & ((labels < 0) | (labels >= num_classes))
        if is_known(bad):
            found = np.argwhere(np.asarray(bad))
            if len(found):
                place = tuple(int(i) for i in found[0])
                where = f"row {place[0]}" if len(place) == 1 else f"row {place[0]}, label {place[-1]}"
                raise ValueError(refuse(asked, f"{target[place]} in {where}"))
        return jnp.where(ignored, -1, jnp.where(bad, BAD, labels)).astype(jnp.int32)

    def labels(self, target: jax.Array, asked: Asked) -> tuple[jax.Array, None]:
        last = asked.num_classes - 1
        words = f"labels must lie in 0..{last} or equal ignore_index={asked.ignore_index}"
        return self._checked(target.reshape(-1), asked.ignore_index, asked.num_classes, words), None

    def entry_labels(self, target: jax.Array, asked: Asked) -> jax.Array:
        words = f"integer targets must be 0, 1 or ignore_index={asked.ignore_index}"
        return self._checked(target.reshape(-1, asked.num_classes), asked.ignore_index, 2, words)

    def distributions(self, target: jax.Array, asked: Asked) -> jax.Array:
        soft = target.reshape(-1, asked.num_classes).astype(self.dtype)
        if is_known(soft):
            values = np.asarray(soft)
            words = "a target distribution must be finite and non-negative"
            _refuse_row(~(np.isfinite(values) & (values >= 0)).all(-1), values, words)
            if asked.loss.needs_unit_mass:
                off = ~(np.abs(values.sum(-1, dtype=np.float64) - 1) <= 1e-2)
                _refuse_row(off, values, f"{asked.loss!r} needs targets that sum to 1")
        return soft

    def probabilities(self, target: jax.Array, asked: Asked) -> jax.Array:
        soft = target.reshape(-1, asked.num_classes).astype(self.dtype)
        if is_known(soft):
            values = np.asarray(soft)
            _refuse_row(~((values >= 0) & (values <= 1)).all(-1), values, "floating targets must lie in [0, 1]")
        return soft

    def teacher(self, logits: jax.Array, asked: Asked) -> jax.Array:
        return logits.reshape(-1, asked.num_classes).astype(self.dtype)

    def top_k(self, indices: jax.Array, probabilities: jax.Array, asked: Asked) -> Teacher:
        k = indices.shape[-1]
        indices = indices.reshape(-1, k)
        listed = probabilities.reshape(-1, k).astype(self.dtype)
        ordered = jnp.sort(indices, axis=-1)
        bad = (ordered[:, 0] < 0) | (ordered[:, -1] >= asked.num_classes) | (jnp.diff(ordered, axis=-1) == 0).any(-1)
        if is_known(bad, listed):
            words = f"TopK indices must be distinct classes in 0..{asked.num_classes - 1}"
            _refuse_row(np.asarray(bad), np.asarray(indices), words)
            values = np.asarray(listed)
            off = ~((values >= 0).all(-1) & (values.sum(-1) <= 1 + 1e-4))
            _refuse_row(off, values, "TopK probabilities must be non-negative with sums ≤ 1")
        rest = 1 - listed.sum(-1)
        rounding = 4 * k * jnp.finfo(probabilities.dtype).eps
        remainder = jnp.where((rest > rounding) & (k < asked.num_classes), rest, 0)
        return Teacher(jnp.where(bad[:, None], BAD, indices).astype(jnp.int32), listed, remainder)


def _refuse_row(bad: Any, values: np.ndarray, asked: str) -> None:
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ValueError(refuse(asked, f"{values[row]} in row {row}"))
