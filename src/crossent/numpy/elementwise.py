"""softmax, sigmoid and their logarithms on NumPy arrays, each digit right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crossent.core.links import SigmoidRows
from crossent.core.statistics import Rows
from crossent.core.target import Target
from crossent.errors import refuse
from crossent.kernels import registry
from crossent.kernels.reference import blocks
from crossent.numpy.arrays import checked_axis, compute_dtype, real_array


def _rows(logits: Any, axis: int) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Return the logits with their axis last, the same as rows (N, K), and the dtype of results."""
    array = real_array(logits, "logits")
    if array.ndim == 0:
        raise ValueError(refuse("logits must have a class axis", "a number"))
    moved = np.moveaxis(array, checked_axis(axis, array.ndim), -1)
    num_classes = moved.shape[-1]
    if num_classes == 0:
        raise ValueError(refuse("logits must have at least one class", f"shape {array.shape}"))
    dtype = np.dtype(np.float64) if array.dtype.kind in "iu" else array.dtype
    return moved, moved.reshape(-1, num_classes), dtype


def _by_rows(rows: np.ndarray, out: np.ndarray, compute: Callable[[Rows], np.ndarray]) -> None:
    """Fill `out` with what `compute` makes of blocks of rows."""
    with np.errstate(all="ignore"):
        for block in blocks(*rows.shape):
            out[block] = compute(Rows(rows[block].astype(np.float64), Target(rows.shape[1])))


def softmax(logits: Any, *, axis: int = -1) -> np.ndarray:
    """Return ``p_k = e^{z_k} / Σ_j e^{z_j}`` along an axis.

    Parameters
    ----------
    logits : array
        ``-inf`` is probability 0. A NaN, a +inf or only -inf along the axis gives NaN there.
    axis : int

    Returns
    -------
    array of the logits' shape and dtype (float64 for integers)

    Raises
    ------
    TypeError, ValueError
        If logits are no numbers or the axis is not theirs.

    Examples
    --------
    >>> softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    moved, rows, dtype = _rows(logits, axis)
    ready = np.ascontiguousarray(rows, dtype=compute_dtype(dtype))
    out = np.empty(ready.shape, dtype=ready.dtype)
    # The probabilities are the gradient of log-sum-exp, which every twin knows.
    target = Target(ready.shape[1], labels=np.zeros(len(ready), dtype=np.int64))
    registry.find(ready.dtype).pullback(ready, target, {"lse": np.ones(len(ready))}, out)
    return np.moveaxis(out.astype(dtype, copy=False).reshape(moved.shape), -1, axis)


def log_softmax(logits: Any, *, axis: int = -1) -> np.ndarray:
    """Return ``log p_k = z_k - LSE(z)`` along an axis, in nats; the largest one is ``-log1p(Σ of the others)``.

    Parameters, result and errors as :func:`softmax`.

    Examples
    --------
    >>> float(log_softmax([30.0, 0.0, -1.0])[0])
    -1.280010007730933e-13
    """
    moved, rows, dtype = _rows(logits, axis)
    out = np.empty(rows.shape, dtype=dtype)
    _by_rows(rows, out, lambda block: -block.surprisal)
    return np.moveaxis(out.reshape(moved.shape), -1, axis)


def logsumexp(logits: Any, *, axis: int = -1) -> Any:
    """Return ``LSE(z) = log Σ e^{z_k} = m + log1p(Σ_{k≠argmax} e^{z_k - m})`` along an axis.

    Parameters and errors as :func:`softmax`; the result lacks the axis.

    Examples
    --------
    >>> round(float(logsumexp([0.0, 0.0])), 6)
    0.693147
    """
    moved, rows, dtype = _rows(logits, axis)
    out = np.empty(len(rows), dtype=dtype)
    _by_rows(rows, out, lambda block: block.lse)
    return out.reshape(moved.shape[:-1])[()]


def _entrywise(logits: Any, compute: Callable[[SigmoidRows], np.ndarray]) -> Any:
    array = real_array(logits, "logits")
    compute_dtype(array.dtype)
    dtype = np.dtype(np.float64) if array.dtype.kind in "iu" else array.dtype
    flat = array.reshape(-1)
    out = np.empty(flat.shape, dtype=dtype)
    with np.errstate(all="ignore"):
        for block in blocks(flat.size, 2):
            out[block] = compute(SigmoidRows(flat[block].astype(np.float64), Target(2)))
    return out.reshape(array.shape)[()]


def sigmoid(logits: Any) -> Any:
    """Return ``σ(z) = 1 / (1 + e^{-z})``, entry by entry.

    Parameters
    ----------
    logits : array, ±inf allowed

    Returns
    -------
    array of the logits' shape and dtype (float64 for integers)

    Raises
    ------
    TypeError
        If logits are no numbers.

    Examples
    --------
    >>> float(sigmoid(0.0))
    0.5
    """
    return _entrywise(logits, lambda rows: rows.probability[:, 1])


def log_sigmoid(logits: Any) -> Any:
    """Return ``log σ(z) = -softplus(-z)``, entry by entry, in nats; arguments as :func:`sigmoid`.

    Examples
    --------
    >>> round(float(log_sigmoid(0.0)), 6)
    -0.693147
    """
    return _entrywise(logits, lambda rows: -rows.surprisal[:, 1])


def softplus(logits: Any) -> Any:
    """Return ``log(1 + e^z)``, entry by entry; arguments as :func:`sigmoid`.

    Examples
    --------
    >>> round(float(softplus(0.0)), 6)
    0.693147
    """
    return _entrywise(logits, lambda rows: rows.lse)
