"""The door: arguments become plain NumPy arrays, or one sentence says why they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossent.errors import describe, refuse

# Infinities and NaN are results with rules of their own here: NumPy's warnings about them would say nothing.
quietly = np.errstate(all="ignore")

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
FLOAT16 = np.dtype(np.float16)


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
    elif dtype.name == "bfloat16":  # ml_dtypes registers it with NumPy
        return FLOAT32
    works = f"convert with {name}.astype(np.float64)" if dtype.kind in "f" else "give float32 or float64"
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
    array = value if type(value) is np.ndarray else as_ndarray(value, name)
    compute_dtype(array.dtype, name)
    return array


def as_ndarray(value: Any, name: str) -> np.ndarray:
    """Return value as an array of whatever dtype.

    Raises
    ------
    TypeError
        If it is masked, or no array can be made of it.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(refuse(f"{name} must be a plain array", "a masked array", "fill it, or use sample_weight"))
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(refuse(f"{name} must be an array of numbers", f"{type(value).__name__} ({error})")) from error


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
