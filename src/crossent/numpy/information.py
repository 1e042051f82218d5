"""The information measures of `crossent.core.information` behind a door.

Lists and NumPy arrays are checked as everywhere, and half precision is computed in float32; arrays of other libraries
go through as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from crossent.core import information as core
from crossent.errors import check_number, describe, refuse
from crossent.numpy.arrays import compute_dtype, quietly, real_array, widened

__all__ = [
    "bits_per_byte",
    "bits_per_dimension",
    "bits_per_token",
    "cross_entropy",
    "entropy",
    "js_divergence",
    "kl_divergence",
    "mutual_information",
    "perplexity",
]

P = ParamSpec("P")
R = TypeVar("R")


def _is_foreign(value: Any) -> bool:
    """Whether the value is an array of another library: one of the array-API standard, or PyTorch's."""
    if isinstance(value, np.ndarray | np.generic):
        return False
    return hasattr(type(value), "__array_namespace__") or hasattr(type(value), "__torch_function__")


def _numbers(value: Any, name: str) -> Any:
    """Return the value as an array to compute with: float32 or float64, or another library's."""
    if _is_foreign(value):
        return value
    array = real_array(value, name)
    dtype = compute_dtype(array.dtype, name)
    if array.dtype == dtype:
        return array
    return widened(np.ascontiguousarray(array).reshape(-1, 1), dtype).reshape(array.shape)


def _check_axis(axis: Any, ndim: int) -> None:
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        if ndim == 0:
            raise ValueError(refuse("a distribution must have an axis of outcomes", "a number"))
        raise ValueError(refuse(f"axis must be an integer between {-ndim} and {ndim - 1}", repr(axis)))


def _behind_door(function: Callable[P, R], arrays: tuple[str, ...], counts: tuple[str, ...] = ()) -> Callable[P, R]:
    """Return the function with the named arguments checked."""
    signature = inspect.signature(function)

    @wraps(function)
    @quietly
    def checked(*args: P.args, **options: P.kwargs) -> R:
        bound = signature.bind(*args, **options)
        given = bound.arguments
        for name in arrays:
            given[name] = _numbers(given[name], name)
        for name in counts:
            check_number(name, given[name], above=0)
        if "axis" in signature.parameters:
            _check_axis(given.get("axis", -1), max(given[name].ndim for name in arrays))
        if "joint" in given and given["joint"].ndim < 2:
            raise ValueError(refuse("a joint distribution must have two axes", describe(given["joint"])))
        return function(*bound.args, **bound.kwargs)

    return checked


entropy = _behind_door(core.entropy, ("p",))
cross_entropy = _behind_door(core.cross_entropy, ("p", "q"))
kl_divergence = _behind_door(core.kl_divergence, ("p", "q"))
js_divergence = _behind_door(core.js_divergence, ("p", "q"))
mutual_information = _behind_door(core.mutual_information, ("joint",))
perplexity = _behind_door(core.perplexity, ("cross_entropy",))
bits_per_token = _behind_door(core.bits_per_token, ("nats",))
bits_per_byte = _behind_door(core.bits_per_byte, ("nats",), ("tokens", "byte_count"))
bits_per_dimension = _behind_door(core.bits_per_dimension, ("nats",), ("dimensions",))
