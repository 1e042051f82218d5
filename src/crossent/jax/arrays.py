"""What the front end asks of arrays: whether their values can be looked at, and how they become JAX's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from crossent.errors import check_number, describe, refuse

__all__ = ["as_array", "as_mask", "broadcast", "floating", "is_known", "number", "weights", "wide"]

FLOATING = ("float16", "bfloat16", "float32", "float64")
NUMBERS = ("temperature", "softcap", "prior_strength", "alpha", "normalizer")
"""Options that are numbers, or arrays of one number, which may want a gradient or be traced."""


def is_known(*arrays: Any) -> bool:
    """Whether the values of arrays can be looked at: none is a part of a program that is being traced."""
    return not any(isinstance(array, jax.core.Tracer) for array in arrays)


def as_array(value: Any, name: str) -> jax.Array:
    """Return the value as an array of JAX; integers that JAX's own would wrap keep out of every range.

    Raises
    ------
    TypeError
        If it is none.
    """
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(refuse(f"{name} must be an array", type(value).__name__)) from error
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(refuse(f"{name} must be an array of numbers", describe(array)))
    if array.dtype.kind in "iu":
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(np.int64))
        array = np.clip(array, max(limits.min, np.iinfo(array.dtype).min), min(limits.max, np.iinfo(array.dtype).max))
    return jnp.asarray(array)


def as_mask(where: Any) -> jax.Array:
    """Return a mask as an array of JAX.

    Raises
    ------
    TypeError
        If it is no array of bool.
    """
    mask = as_array(where, "where")
    if mask.dtype != bool:
        raise TypeError(refuse("where must be a mask, an array of bool", describe(mask)))
    return mask


def floating(value: Any, name: str) -> jax.Array:
    """Return the value as an array of a floating dtype that can be computed with.

    Raises
    ------
    TypeError
    """
    array = as_array(value, name)
    if array.dtype.name not in FLOATING:
        raise TypeError(refuse(f"{name} must be float16, bfloat16, float32 or float64", describe(array)))
    return array


def wide(dtype: Any) -> Any:
    """The dtype that logits of a dtype are computed in: float32, and float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def number(name: str, value: Any, **bounds: Any) -> Any:
    """Return a number within bounds; an array of one number stays one, with its gradient.

    Raises
    ------
    ValueError
        If it is none, or lies outside the bounds and can be looked at.
    """
    if value is None or not isinstance(value, jax.Array):
        return None if value is None else check_number(name, value, **bounds)
    if value.shape != () or value.dtype.kind == "b":
        raise ValueError(refuse(f"{name} must be a finite number", describe(value)))
    if is_known(value):
        check_number(name, float(value), **bounds)
    return value


def broadcast(name: str, array: jax.Array, shape: tuple[int, ...], what: str) -> jax.Array:
    """Return an array of the given shape.

    Raises
    ------
    ValueError
        If it does not broadcast to it.
    """
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(refuse(f"{name} must have {what}, shape {shape}", describe(array))) from None


def weights(name: str, value: Any, shape: tuple[int, ...], what: str, dtype: Any) -> jax.Array | None:
    """Return weights of the given shape, or None.

    Raises
    ------
    ValueError
        If they do not fit, or one is negative or not finite and can be looked at.
    """
    if value is None:
        return None
    array = as_array(value, name)
    if is_known(array):
        bad = ~(np.isfinite(array) & (np.asarray(array) >= 0))
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(refuse(f"{name} must be finite and at least 0", f"{array[place]} at {place}"))
    return broadcast(name, array, shape, what).astype(dtype)
