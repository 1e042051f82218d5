"""Keras' tensors: whether their values can be looked at, and `keras.ops` as a namespace that `crossent.core` reads."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from crossent.core.arrays import register_namespace

__all__ = ["BACKEND", "describe", "known", "like_static", "nan_where"]

BACKEND: str = keras.backend.backend()


class _Namespace:
    """`keras.ops` under the names of the array-API standard, where they differ."""

    inf, nan = math.inf, math.nan
    float32, int8, int64 = "float32", "int8", "int64"  # TensorFlow's dtypes are equal to their names
    astype = staticmethod(ops.cast)

    def __getattr__(self, name: str) -> Any:
        return getattr(ops, name)

    def asarray(self, value: Any, device: Any = None) -> Any:
        return ops.convert_to_tensor(value)

    def finfo(self, dtype: Any) -> Any:
        limits = np.finfo(keras.backend.standardize_dtype(dtype))
        return SimpleNamespace(smallest_normal=float(limits.smallest_normal), max=float(limits.max))


if BACKEND == "tensorflow":  # tensors of the other two have a namespace already
    register_namespace(ops.is_tensor, _Namespace())


def known(tensor: Any) -> np.ndarray | None:
    """Return the values of a tensor; None where a program is traced, or the tensor lies in another memory."""
    if BACKEND == "torch":
        from crossent.torch.tensors import is_readable

        return tensor.detach().numpy() if is_readable() and tensor.device.type == "cpu" else None
    if BACKEND == "jax":
        from crossent.jax.arrays import is_known

        return np.asarray(tensor) if is_known(tensor) else None
    return tensor.numpy() if hasattr(tensor, "numpy") else None


def describe(tensor: Any) -> str:
    """Return shape and dtype in words."""
    return f"a tensor of shape {tuple(tensor.shape)} and dtype {keras.backend.standardize_dtype(tensor.dtype)}"


def like_static(tensor: Any, other: Any, axes: int) -> Any:
    """Return a tensor whose lengths that TensorFlow does not know yet are those of the other's first axes."""
    shape, wanted = tuple(tensor.shape), tuple(other.shape)
    if None in shape and len(shape) >= axes <= len(wanted):
        first = [w if s is None else s for s, w in zip(shape[:axes], wanted[:axes], strict=True)]
        tensor.set_shape([*first, *shape[axes:]])
    return tensor


def nan_where(bad: Any, losses: Any) -> Any:
    """Return losses that are NaN, with their gradients, where something is bad."""
    return losses * ops.where(bad, ops.full_like(losses, math.nan), ops.ones_like(losses))
