"""Arrays of NumPy, PyTorch, JAX, TensorFlow and lists become a `Batch`; the link and the class axis are found."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent.core.target import NO_INDEX, TopK
from crossent.errors import describe, first_line, refuse
from crossent.losses import Loss, is_member
from crossent.masked import refuse_masked
from crossent.numpy.elementwise import softmax

from .batch import Batch

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
    if has_teacher and link == "sigmoid":
        raise TypeError(refuse("distillation needs the softmax link", 'link="sigmoid"'))
    z = _array(logits, "logits")
    t = None if has_teacher and isinstance(target, TopK) else _array(target, "target")
    shape = tuple(z.shape)
    if _dtype(z) == "bool":
        raise TypeError(refuse("logits must be numbers", describe(z)))
    if math.prod(shape) == 0 or not shape:
        raise ValueError(refuse("logits must be a non-empty array (N, K) or (N,)", describe(z)))
    pairing = _pair(z, t, link, has_teacher)
    if pairing.is_one_logit:
        z, t = z.reshape(-1, 1), t.reshape(-1, 1)  # type: ignore[union-attr]
    rows, axis = _drawn(z, pairing.axis), pairing.axis
    labels = numbers = None
    if pairing.has_labels:
        labels = _numpy(t, "target").reshape(-1)
        if labels.dtype.kind != "f":  # beyond int64 a label is out of range as much as at 2^62
            labels = np.minimum(labels, np.array(1 << 62, labels.dtype) if labels.dtype == np.uint64 else labels)
            labels = labels.astype(np.int64)
    elif t is not None:
        given = _rows(t, axis, rows, "target")
        numbers = given.astype(np.float64)
        if has_teacher:
            numbers = np.asarray(softmax(numbers))
        elif given.dtype.kind != "f":
            numbers[given == ignore_index] = np.nan
    return Batch(
        logits=_rows(z, axis, rows, "logits").astype(np.float64),
        rows=rows,
        row_shape=tuple(z.shape[:axis]) + tuple(z.shape[axis + 1 :]),
        labels=labels,
        target=numbers,
        shape=shape,
        dtype=_dtype(z),
        target_dtype="TopK" if t is None else _dtype(t),
        link=pairing.link,
        link_from=pairing.reason,
        loss=loss,
        ignore_index=ignore_index,
    )


class _Pairing(NamedTuple):
    """How logits and target belong together, and why."""

    link: str
    axis: int
    reason: str
    has_labels: bool = False
    is_one_logit: bool = False


def _pair(z: Any, t: Any, link: str | None, has_teacher: bool) -> _Pairing:
    """Return how two arrays belong together, from their shapes and, where these leave it open, the target's sums.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    shape, last, is_torch = tuple(z.shape), z.ndim - 1, hasattr(z, "detach")
    target_shape = shape if t is None else tuple(t.shape)
    # PyTorch has the classes on axis 1, all others on the last one.
    axes = [1, last] if is_torch and last > 1 else [last, min(1, last)]
    if has_teacher:
        _need_two_classes(shape, axes[0])
        if target_shape != shape:
            raise ValueError(refuse(f"a teacher must have the logits' shape {shape}", f"shape {target_shape}"))
        return _Pairing("softmax", axes[0], "the loss is a distillation")
    of_labels = [axis for axis in axes if shape[:axis] + shape[axis + 1 :] == target_shape]
    is_one_logit = shape[-1] == 1 and target_shape in (shape, shape[:-1])
    if of_labels and link != "sigmoid" and not (is_one_logit and link is None):
        _need_two_classes(shape, of_labels[0])
        reason = "given" if link else f"target has one number a row, of {_dtype(t)}"
        return _Pairing("softmax", of_labels[0], reason, has_labels=True)
    if target_shape != shape and not is_one_logit:
        labels = "" if link == "sigmoid" else f"{shape[: axes[0]] + shape[axes[0] + 1 :]} of labels or "
        works = "logits come first" if len(target_shape) > len(shape) else ""
        asked = f"for logits of shape {shape} target must have the shape {labels}{shape}"
        raise ValueError(refuse(asked, f"shape {target_shape}", works))
    if link != "softmax" and (is_one_logit or last == 0):
        reason = "given" if link else "target has the logits' shape, one logit a row"
        return _Pairing("sigmoid", 1, reason, is_one_logit=True)
    if link == "sigmoid":
        return _Pairing("sigmoid", axes[0], "given")
    if link == "softmax":
        _need_two_classes(shape, axes[0])
    for axis in axes:
        if shape[axis] > 1:
            numbers = _rows(t, axis, _drawn(t, axis), "target").astype(np.float64)
            if (numbers >= 0).all() and (np.abs(numbers.sum(axis=1) - 1) <= _SUM_TOLERANCE).all():
                reason = "given" if link else "target has the logits' shape and its rows sum to 1"
                return _Pairing("softmax", axis, reason)
    reason = "given" if link else "target has the logits' shape and its rows do not sum to 1"
    return _Pairing(link or "sigmoid", axes[0], reason)


def _need_two_classes(shape: tuple[int, ...], axis: int) -> None:
    if shape[axis] < 2:
        works = "use link='sigmoid' for a single logit"
        raise ValueError(refuse("the softmax link needs two classes or more", f"logits of shape {shape}", works))


def _array(value: Any, name: str) -> Any:
    """Return an array: one of PyTorch or JAX as it is, anything else as NumPy's."""
    refuse_masked(value, name)
    if hasattr(value, "detach") and hasattr(value, "ndim"):
        return value.detach()
    if type(value).__module__.startswith("jax"):
        return value
    asked = f"{name} must be an array of numbers"
    try:
        array = np.asarray(value)
    except Exception as error:
        raise TypeError(refuse(asked, f"{type(value).__name__} ({first_line(error)})")) from None
    if array.dtype.kind not in "fiub" and str(array.dtype) != "bfloat16":
        raise TypeError(refuse(asked, f"{type(value).__name__} of {array.dtype}"))
    return array


def _numpy(array: Any, name: str) -> NDArray[Any]:
    """Return a copy in this machine's memory, floating numbers as float64."""
    try:
        if hasattr(array, "detach"):
            array = array.cpu()
            array = (array.double() if array.is_floating_point() else array).numpy()
        found = np.asarray(array)
        if found.dtype.kind == "c":
            raise TypeError("complex numbers")
        return found if found.dtype.kind in "iub" else found.astype(np.float64)
    except Exception as error:
        raise TypeError(refuse(f"{name} must hold real numbers that can be read now", first_line(error))) from None


def _drawn(array: Any, axis: int) -> NDArray[np.intp]:
    """Return which rows to look at: all, or some drawn with a fixed seed and the first that hold NaN or +inf."""
    shape = tuple(array.shape)
    total, classes = math.prod(shape) // shape[axis], shape[axis]
    most = max(1, min(_MOST_ROWS, _MOST_ENTRIES // classes))
    if total <= most:
        return np.arange(total)
    rows = np.random.default_rng(0).choice(total, most, replace=False)
    with np.errstate(all="ignore"):
        sums = _numpy(array.sum(axis), "logits").reshape(-1)
    # The sum of a row in half precision may overflow to +inf, so rows with NaN have places of their own.
    bad = [np.flatnonzero(which)[:_MOST_BAD_ROWS] for which in (np.isnan(sums), sums == np.inf)]
    return np.unique(np.concatenate([rows, *bad])).astype(np.intp)


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
