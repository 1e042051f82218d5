"""The door: arguments become plain NumPy arrays, or one sentence says why they cannot."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from crossent.errors import describe, refuse
from crossent.kernels import registry
from crossent.masked import refuse_masked

# Infinities and NaN are results here, with rules of their own; NumPy is not to warn of them.
quietly = np.errstate(all="ignore")

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
FLOAT16 = np.dtype(np.float16)
# NumPy has no bfloat16. Front ends whose library has one hand its bits over in this dtype.
BFLOAT16_BITS = np.dtype([("bfloat16", np.uint16)])


def is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.name == "bfloat16" or dtype == BFLOAT16_BITS  # ml_dtypes registers the name with NumPy


def compute_dtype(dtype: np.dtype, name: str = "logits") -> np.dtype:
    """Return the dtype to compute in: float32 for float16, bfloat16 and float32, float64 for float64 and integers.

    Raises
    ------
    TypeError
        For any other dtype, and for big-endian ones.
    """
    if dtype in (FLOAT32, FLOAT64):
        if dtype.isnative:
            return dtype
    elif dtype == FLOAT16 and dtype.isnative:
        return FLOAT32
    elif dtype.kind in "iu" and dtype.isnative:
        return FLOAT64
    elif is_bfloat16(dtype):
        return FLOAT32
    works = f"convert with {name}.astype(np.float64)" if dtype.kind in "fb" else "give float32 or float64"
    if name == "target" and dtype.kind in "USO":
        works = "number the labels from 0: np.unique(target, return_inverse=True)[1]"
    raise TypeError(
        refuse(
            f"{name} must be float16, bfloat16, float32, float64 or integers in native byte order",
            f"dtype {dtype.str if dtype.kind == 'f' else dtype}",
            works,
        )
    )


def real_array(value: Any, name: str) -> np.ndarray:
    """Return value as an array of a dtype that can be computed with.

    Raises
    ------
    TypeError
        If it cannot.
    """
    array = as_ndarray(value, name)
    compute_dtype(array.dtype, name)
    return array


def as_ndarray(value: Any, name: str) -> np.ndarray:
    """Return value as an array of whatever dtype.

    Raises
    ------
    TypeError
        If it is masked or holds a masked array, or no array can be made of it.
    """
    if type(value) is np.ndarray and value.dtype != object:
        return value
    refuse_masked(value, name)
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(refuse(f"{name} must be an array of numbers", f"{type(value).__name__} ({error})")) from error


def checked_axis(axis: Any, ndim: int) -> int:
    """Return the place of an axis, counted from 0.

    Raises
    ------
    ValueError
        If there is no such axis.
    """
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        raise ValueError(refuse(f"axis must be an integer between {-ndim} and {ndim - 1}", repr(axis)))
    return int(axis) % ndim


def as_bits(array: np.ndarray) -> np.ndarray:
    """Return the bits of a bfloat16 array: the form in which kernels take it."""
    return array.view(np.uint16)


def lies_within(array: np.ndarray, most: float = math.inf) -> bool:
    """Return whether all numbers, of any dtype that can be computed with, are finite and lie in ``0..most``."""
    is_bits = is_bfloat16(array.dtype)
    twin = registry.find(FLOAT32 if is_bits else array.dtype)
    return bool(twin.lies_within(as_bits(array) if is_bits else array, min(most, sys.float_info.max)))


def typed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an array (n, K) in the dtype that is computed in, contiguous; itself if it is that."""
    array = np.ascontiguousarray(array)
    return array if array.dtype == dtype else widened(array, dtype)


def widened(array: np.ndarray, dtype: np.dtype, scratch: np.ndarray | None = None) -> np.ndarray:
    """Return a copy of a contiguous array (n, K) in the dtype that is computed in; it may lie in `scratch` (m, K)."""
    out = np.empty(array.shape, dtype) if scratch is None else scratch[: len(array)]
    if not is_bfloat16(array.dtype) or array.size == 0:
        out[...] = array
        return out
    if dtype == FLOAT32:
        registry.find(FLOAT32).widen_bfloat16(as_bits(array), out)
    else:
        out[...] = widened(array, FLOAT32)
    return out


def narrow_into(values: np.ndarray, out: np.ndarray) -> None:
    """Round values (n, K) into a contiguous array of logits' dtype; half precision gets what float32 would, rounded."""
    if out.dtype == FLOAT16:
        values = values.astype(np.float32, copy=False)
    if not is_bfloat16(out.dtype) or out.size == 0:
        out[...] = values
        return
    registry.find(FLOAT32).narrow_bfloat16(values.astype(np.float32, copy=False), as_bits(out))


def weights(value: Any, name: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return non-negative finite weights as float64, broadcast to `shape`.

    Raises
    ------
    ValueError
        If they do not broadcast, or one is negative, infinite or NaN.
    """
    array = real_array(value, name).astype(np.float64)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(refuse(f"{name} must have {what}, shape {shape}", describe(array))) from None
    bad = ~(array >= 0) | np.isinf(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(refuse(f"{name} must be non-negative and finite", f"{array[where]} at index {where}"))
    return np.ascontiguousarray(array)
