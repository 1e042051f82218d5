"""Arrays of NumPy, PyTorch, JAX, TensorFlow and lists become a `Batch`; the link and the class axis are found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.core.target import NO_INDEX, TopK
from crossent.errors import describe, first_line, refuse
from crossent.losses import Loss, is_member
from crossent.masked import refuse_masked

from .batch import Batch, Float64

__all__ = ["read"]

_MOST_ROWS = 4096
_MOST_ENTRIES = 1 << 21
_MOST_BAD_ROWS = 16
_SUM_TOLERANCE = 1e-2


def read(logits: Any, target: Any, link: str | None, loss: Loss | None, ignore_index: int = NO_INDEX) -> Batch:
    """Return the batch that a caller gave.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """
    if link not in (None, "softmax", "sigmoid"):
        raise ValueError(refuse("link must be 'softmax', 'sigmoid' or None", repr(link)))
    if loss is not None and not is_member(loss):
        asked = "loss must be a loss of crossent, such as crossent.Focal(2.0), or None"
        raise TypeError(refuse(asked, type(loss).__name__))
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int | np.integer):
        raise TypeError(refuse("ignore_index must be an integer", repr(ignore_index)))
    has_teacher = loss is not None and loss.needs_teacher
    z = _array(logits, "logits")
    t = None if has_teacher and isinstance(target, TopK) else _array(target, "target")
    shape, is_torch = tuple(z.shape), hasattr(z, "detach")
    if math.prod(shape) == 0 or not shape:
        raise ValueError(refuse("logits must be a non-empty array (N, K) or (N,)", describe_as_numpy(z)))
    if _dtype(z) == "bool":
        raise TypeError(refuse("logits must be numbers", describe(z)))
    target_shape = shape if t is None else tuple(t.shape)
    # PyTorch has the classes on axis 1, all others on the last one.
    axes = [1, len(shape) - 1] if is_torch and len(shape) > 2 else [len(shape) - 1, min(1, len(shape) - 1)]
    of_labels = [axis for axis in axes if shape[:axis] + shape[axis + 1 :] == target_shape]
    is_full, is_one_logit = target_shape == shape, shape[-1] == 1 and target_shape in (shape, shape[:-1])
    if of_labels and link != "sigmoid" and not (is_one_logit and link is None):
        return _of_labels(z, t, shape, of_labels[0], loss, ignore_index, link)
    if not (is_full or is_one_logit):
        raise ValueError(refuse(*_misfit(shape, target_shape, link, is_torch)))
    if link != "softmax" and t is not None and (is_one_logit or len(shape) == 1):
        z, t, axes = z.reshape(-1, 1), t.reshape(-1, 1), [1]
    return _of_entries(z, t, shape, axes, loss, ignore_index, link)


def _misfit(shape: tuple[int, ...], target_shape: tuple[int, ...], link: str | None, is_torch: bool) -> tuple[str, ...]:
    """Return what was asked, what came and what would work, where shapes do not fit."""
    rows = shape[:-1] if not is_torch or len(shape) < 3 else (shape[0], *shape[2:])
    labels = "" if link == "sigmoid" else f"{rows} of labels or "
    works = "logits come first" if len(target_shape) == len(shape) + 1 else ""
    return f"for logits of shape {shape} target must have the shape {labels}{shape}", f"shape {target_shape}", works


def _array(value: Any, name: str) -> Any:
    """Return an array: one of PyTorch or JAX as it is, anything else as NumPy's."""
    refuse_masked(value, name)
    if hasattr(value, "detach") or type(value).__module__.startswith("jax"):
        return value
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(refuse(f"{name} must be an array of numbers", f"{type(value).__name__} ({first_line(error)})"))  # noqa: B904
    if array.dtype.kind not in "fiubV" or (array.dtype.kind == "V" and str(array.dtype) != "bfloat16"):
        raise TypeError(refuse(f"{name} must be an array of numbers", describe_as_numpy(array, value)))
    return array


def describe_as_numpy(array: Any, value: Any = None) -> str:
    """Return shape and dtype in words, or the type of what is no array."""
    if value is not None and not hasattr(value, "shape"):
        return f"{type(value).__name__} of {array.dtype}" if array.ndim else type(value).__name__
    return describe(array)


def _numpy(array: Any, name: str) -> NDArray[Any]:
    """Return a copy in this machine's memory, floating numbers as float64."""
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = (array.double() if array.is_floating_point() else array).numpy()
        found = np.asarray(array)
        if found.dtype.kind not in "iub":
            found = found.astype(np.float64)
    except Exception as error:
        raise TypeError(refuse(f"{name} must hold numbers that can be read now", first_line(error)))  # noqa: B904
    return found


def _drawn(array: Any, axis: int) -> NDArray[np.intp]:
    """Return which rows to look at: all, or some drawn with a fixed seed and the first that hold NaN or +inf."""
    shape = tuple(array.shape)
    total, classes = math.prod(shape) // shape[axis], shape[axis]
    most = max(1, min(_MOST_ROWS, _MOST_ENTRIES // classes))
    if total <= most:
        return np.arange(total)
    rows = np.random.default_rng(0).choice(total, most, replace=False)
    with np.errstate(all="ignore"):
        sums = _numpy(array.detach().sum(axis) if hasattr(array, "detach") else array.sum(axis), "logits").reshape(-1)
        bad = np.flatnonzero(np.isnan(sums) | (sums == np.inf))[:_MOST_BAD_ROWS]
    return np.union1d(rows, bad).astype(np.intp)


def _rows(array: Any, axis: int, rows: NDArray[np.intp], name: str) -> NDArray[Any]:
    """Return some rows (n, K) of an array whose classes lie along an axis."""
    shape = tuple(array.shape)
    row_shape = shape[:axis] + shape[axis + 1 :]
    if len(rows) == math.prod(row_shape):
        return np.moveaxis(_numpy(array, name), axis, -1).reshape(-1, shape[axis])
    place: list[Any] = list(np.unravel_index(rows, row_shape))
    place.insert(axis, slice(None))
    return _numpy(array[tuple(place)], name)


def _dtype(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


def _of_labels(
    z: Any, t: Any, shape: tuple[int, ...], axis: int, loss: Loss | None, ignore_index: int, link: str | None
) -> Batch:
    """Return the batch of a softmax over an axis, with one label a row."""
    if shape[axis] < 2:
        works = "use link='sigmoid' for a single logit"
        raise ValueError(refuse("the softmax link needs two classes or more", f"logits of shape {shape}", works))
    rows = _drawn(z, axis)
    labels = _numpy(t, "target").reshape(-1)
    if labels.dtype == np.uint64:
        labels = np.minimum(labels, np.uint64(1 << 62))
    where = "given" if link else f"target has one number a row, of {_dtype(t)}"
    return Batch(
        _rows(z, axis, rows, "logits").astype(np.float64),
        rows,
        shape[:axis] + shape[axis + 1 :],
        labels if labels.dtype.kind == "f" else labels.astype(np.int64),
        None,
        shape,
        _dtype(z),
        _dtype(t),
        "softmax",
        where,
        loss,
        ignore_index,
    )


def _of_entries(
    z: Any, t: Any, shape: tuple[int, ...], axes: list[int], loss: Loss | None, ignore_index: int, link: str | None
) -> Batch:
    """Return the batch of a target of the logits' shape: entries of yes or no, distributions, or a teacher's logits."""
    has_teacher = loss is not None and loss.needs_teacher
    axis, where, numbers = axes[0], "given", None
    if link is None and not has_teacher:
        link, axis, where = _link_of_entries(t, axes)
    elif has_teacher:
        where = "the loss is a distillation"
        if link == "sigmoid":
            raise TypeError(refuse("distillation needs the softmax link", 'link="sigmoid"'))
        link = "softmax"
    elif link == "softmax":
        axis = _link_of_entries(t, axes)[1]
    rows = _drawn(z, axis)
    if t is not None:
        numbers = _rows(t, axis, rows, "target")
        is_integer = numbers.dtype.kind != "f"
        numbers = numbers.astype(np.float64)
        if has_teacher:
            numbers = _softmax(numbers)
        elif is_integer:
            numbers = np.where(numbers == ignore_index, np.nan, numbers)
    return Batch(
        _rows(z, axis, rows, "logits").astype(np.float64),
        rows,
        tuple(z.shape)[:axis] + tuple(z.shape)[axis + 1 :],
        None,
        numbers,
        shape,
        _dtype(z),
        "TopK" if t is None else _dtype(t),
        str(link),
        where,
        loss,
        ignore_index,
    )


def _link_of_entries(t: Any, axes: list[int]) -> tuple[str, int, str]:
    """Return link, class axis and reason for a target of the logits' shape: do its rows sum to 1?"""
    for axis in axes:
        if t.shape[axis] > 1:
            numbers = _rows(t, axis, _drawn(t, axis), "target").astype(np.float64)
            if (numbers >= 0).all() and (np.abs(numbers.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
                return "softmax", axis, "target has the logits' shape and its rows sum to 1"
    return "sigmoid", axes[0], "target has the logits' shape and its rows do not sum to 1"


def _softmax(z: Float64) -> Float64:
    from crossent.numpy.elementwise import log_softmax

    return np.exp(np.asarray(log_softmax(z)))
