"""The reference's twin for NumPy arrays on the CPU: Numba kernels in float32 and float64.

The same functions as `crossent.kernels.reference`, on arrays that were validated before: C-contiguous, native byte
order, logits of shape ``(N, K)``, labels int64 with -1 where a row does not count. This module chooses a compiled
driver and nothing more: short rows go to `narrow`, which works across rows; long rows with hard labels to `wide`; the
rest to `general`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.target import Target, Teacher
from ..losses import Loss
from . import curvature, entries, reference
from .affine import affine_moments, sigmoid_affine_moments, temperature_moments
from .numba import (
    bfloat16,
    binary,
    distillation,
    distributions,
    general,
    mean,
    narrow,
    planes,
    wide,
)
from .numba import labels as _labels
from .numba.closed_forms import LANES
from .probability import bin_sums, pool_adjacent, ranked_terms, squares_beside, summarize_rows
from .threads import SERIAL_ELEMENTS, run_rows

__all__ = [
    "affine_moments",
    "bin_sums",
    "draw_entries",
    "forms",
    "lies_within",
    "mean_at",
    "multiply_entries",
    "narrow_bfloat16",
    "pool_adjacent",
    "pullback",
    "ranked_terms",
    "row_losses",
    "scan_labels",
    "sigmoid_affine_moments",
    "softmax_curvature",
    "squares_beside",
    "statistics",
    "summarize_rows",
    "temperature_moments",
    "widen_bfloat16",
]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_FLOAT32 = np.dtype(np.float32)
_NO_DOUBLES = np.empty(0)
_NO_LABELS = np.empty(0, np.int64)
_NO_ROWS = {np.dtype(t): np.empty((0, 0), t) for t in (np.float32, np.float64, np.uint16)}
_NO_PLANES = {dtype: rows.reshape(0, 0, 0) for dtype, rows in _NO_ROWS.items()}
_NO_DOUBLE_ROWS = _NO_ROWS[np.dtype(np.float64)]
_NO_ENTRIES = np.empty((0, 0), np.int8)
_NO_FORMS: frozenset[str] = frozenset()
_BITS = frozenset({"bfloat16"})
_BITS_AND_PLANES = frozenset({"bfloat16", "planes"})
_PARTIALS = ("nll", "miss", "lse", "entropy", "brier")


class _Exposed:
    """An array's memory as a writable array, for arguments that are only read."""

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _plain(array: Array) -> Array:
    """The array as the one type that the kernels are compiled for; Numba takes a read-only one for another type."""
    if array.flags.carray:
        return array
    if not array.flags.aligned:
        return array.copy()
    return np.asarray(_Exposed(array))


Weights = tuple[Float64, Array, float, float]


@lru_cache(maxsize=16)
def _unit_weight(classes: int, dtype: np.dtype[Any]) -> Weights:
    double = np.ones(classes)
    typed = double.astype(dtype)
    return double, typed, 1.0, float(classes)


def _weights(class_weight: Float64 | None, classes: int, dtype: np.dtype[Any]) -> Weights:
    """Class weights in double; the same over a unit in the logits' precision, and that unit; their sum. None: ones.

    The unit is a power of two that brings the largest weight into [1, 2), so that float32 holds weights of any size.
    """
    if class_weight is None:
        return _unit_weight(classes, dtype)
    class_weight = _plain(class_weight)
    total = float(np.sum(class_weight))
    if dtype != _FLOAT32:
        return class_weight, class_weight, 1.0, total
    exponent = math.frexp(class_weight.max())[1] - 1
    return class_weight, np.ldexp(class_weight, -exponent).astype(dtype), math.ldexp(1.0, exponent), total


@lru_cache(maxsize=256)
def _terms(loss: Loss) -> Float64:
    """The loss's terms as the table that kernels read."""
    return np.array(loss.table(), dtype=np.float64)


@lru_cache(maxsize=256)
def _reads(loss: Loss) -> tuple[bool, bool]:
    """Whether a loss reads the entropy, and the Brier score: kernels compute them for such losses only."""
    return "entropy" in loss.reads, "brier" in loss.reads


@lru_cache(maxsize=256)
def _cross_entropy_factor(loss: Loss) -> float:
    """The factor of a loss that is a multiple of cross-entropy; 0 for any other."""
    return loss.cross_entropy_factor or 0.0


def _labels_of(target: Target) -> Array:
    if target.labels is None:
        return _NO_LABELS
    return _plain(target.labels.astype(np.int64, copy=False))


def _soft_of(target: Target, dtype: np.dtype[Any]) -> Array:
    """Distributions in the logits' dtype, in float32 beside bits."""
    if target.soft is None:
        return _NO_ROWS[dtype]
    return _plain(target.soft.astype(_FLOAT32 if dtype == np.uint16 else dtype, copy=False))


def forms(target: Target, loss: Loss) -> frozenset[str]:
    """Which other forms of logits `row_losses` takes: bits of bfloat16 numbers, classes as planes."""
    if target.link == "sigmoid":
        return _BITS
    if target.teacher is not None:
        return _NO_FORMS
    if target.labels is not None:
        return _NO_FORMS if any(_reads(loss)) else _BITS_AND_PLANES
    is_long = target.num_classes > narrow.MAX_CLASSES
    return _BITS if is_long and target.is_plain and _cross_entropy_factor(loss) else _NO_FORMS


def row_losses(
    logits: Array,
    target: Target,
    loss: Loss,
    scale: float = 1.0,
    weight: Float64 | None = None,
    grad: Array | None = None,
    entries: Float64 | None = None,
    sum_only: bool = False,
) -> Float64:
    """Loss of each row, its gradient into ``grad``; `crossent.kernels.protocol` says what the arguments are."""
    if logits.size == 0:
        return np.zeros(len(logits) if logits.ndim == 2 else 0)
    weights = _NO_DOUBLES if weight is None else _plain(weight)
    if target.link == "sigmoid":
        return _entry_losses(logits, target, loss, scale, weights, grad, entries, sum_only)
    if isinstance(target.teacher, Teacher):
        return reference.row_losses(logits, target, loss, scale, weight, grad)
    rows = logits.size // target.num_classes
    losses = np.empty(rows)
    logits = _plain(logits)
    out = _NO_ROWS[logits.dtype] if grad is None else grad
    if target.teacher is not None:
        arguments: tuple[Any, ...] = (
            logits,
            _plain(target.teacher),
            loss.parameter,
            float(scale),
            weights,
            out,
            losses,
        )
        run_rows(distillation.teacher_rows, rows, target.num_classes, arguments)
    elif target.labels is not None and not any(_reads(loss)):
        _label_losses(logits, target, loss, scale, weights, grad, losses)
    elif target.soft is not None and logits.dtype != np.float64 and target.is_plain and _cross_entropy_factor(loss):
        soft = _soft_of(target, logits.dtype)
        arguments = (logits, soft, _cross_entropy_factor(loss), float(scale), weights, out, losses)
        if target.num_classes <= narrow.MAX_CLASSES:
            run_rows(distributions.short_rows, rows, target.num_classes, arguments, LANES)
        else:
            run_rows(distributions.wide_rows, rows, target.num_classes, arguments)
    else:
        class_weight, _, _, weight_sum = _weights(target.class_weight, target.num_classes, logits.dtype)
        arguments = (
            logits,
            _labels_of(target),
            _soft_of(target, logits.dtype),
            class_weight,
            weight_sum,
            float(target.label_smoothing),
            _terms(loss),
            float(scale),
            weights,
            *_reads(loss),
            out,
            losses,
        )
        if target.num_classes <= narrow.MAX_CLASSES:
            kernel = narrow.narrow_distribution_rows if target.labels is None else narrow.narrow_label_rows
            run_rows(kernel, rows, target.num_classes, arguments, LANES)
        else:
            run_rows(general.general_rows, rows, target.num_classes, arguments)
    return losses


def _label_losses(
    logits: Array, target: Target, loss: Loss, scale: float, weights: Array, grad: Array | None, losses: Float64
) -> None:
    """Fill the losses of rows or planes with labels, for a loss that reads neither entropy nor Brier score."""
    rows, classes = len(losses), target.num_classes
    is_bits, are_planes = logits.dtype == np.uint16, logits.ndim == 3
    unread = _NO_PLANES if are_planes else _NO_ROWS
    arguments = (
        logits,
        _labels_of(target),
        *_weights(target.class_weight, classes, _FLOAT32 if is_bits else logits.dtype),
        float(target.label_smoothing),
        _terms(loss),
        float(scale),
        weights,
        unread[logits.dtype] if grad is None else grad,
        losses,
    )
    if are_planes:
        run_rows(planes.planes_hard_rows, rows, classes, arguments, LANES)
    elif classes <= narrow.MAX_CLASSES:
        kernel = bfloat16.short_hard_rows_of_bits if is_bits else narrow.narrow_hard_rows
        run_rows(kernel, rows, classes, arguments, LANES)
    else:
        run_rows(bfloat16.wide_hard_rows_of_bits if is_bits else wide.hard_rows, rows, classes, arguments)


def _entry_losses(
    logits: Array,
    target: Target,
    loss: Loss,
    scale: float,
    weights: Array,
    grad: Array | None,
    entries: Float64 | None,
    sum_only: bool,
) -> Float64:
    """`row_losses` of a target with the sigmoid link."""
    rows, classes = logits.shape
    losses = np.empty(-(-rows // LANES) if sum_only and classes == 1 else rows)
    arguments = (
        _plain(logits),
        _NO_ENTRIES if target.labels is None else _plain(target.labels),
        _soft_of(target, _FLOAT32 if logits.dtype == np.uint16 else logits.dtype),
        _NO_DOUBLE_ROWS if target.class_weight is None else _plain(target.class_weight),
        float(target.label_smoothing),
        _terms(loss),
        float(scale),
        weights if weights.ndim == 1 else _NO_DOUBLES,
        weights if weights.ndim == 2 else _NO_DOUBLE_ROWS,
        _NO_ROWS[logits.dtype] if grad is None else grad,
        _NO_DOUBLE_ROWS if entries is None else entries,
        losses,
    )
    run_rows(binary.sigmoid_rows, rows, classes, arguments, LANES if classes == 1 else 1)
    return losses


def mean_at(
    dtype: str, logits: int, labels: int, grad: int, rows: int, classes: int, ignore_index: int, loss: Loss
) -> float | None:
    """The mean of a loss over the rows that count, its gradient to ``grad``; everything contiguous, at addresses.

    None, and nothing computed, where a label is out of range, no row counts, or there is enough to compute for several
    threads. The loss is one that is never negative.
    """
    if rows * classes >= SERIAL_ELEMENTS:
        return None
    kernel, like = mean.KERNELS[dtype, classes <= narrow.MAX_CLASSES]
    value: float = kernel(logits, labels, grad, rows, classes, ignore_index, _terms(loss), like)
    return None if value < 0.0 else value


def statistics(logits: Array, target: Target) -> dict[str, Array]:
    """Every row statistic: `general.STATISTICS` in float64 and ``argmax`` in int64, each of shape (N,)."""
    rows, classes = logits.shape
    out = np.empty((len(general.STATISTICS), rows))
    argmax = np.empty(rows, np.int64)
    if rows:
        weight, _, _, weight_sum = _weights(target.class_weight, classes, logits.dtype)
        arguments = (
            _plain(logits),
            _labels_of(target),
            _soft_of(target, logits.dtype),
            weight,
            weight_sum,
            float(target.label_smoothing),
            out,
            argmax,
        )
        run_rows(general.statistics_rows, rows, classes, arguments)
    found: dict[str, Array] = dict(zip(general.STATISTICS, out, strict=True))
    found["argmax"] = argmax
    return found


def pullback(logits: Array, target: Target, partials: dict[str, Float64], out: Array) -> None:
    """``sum_s partials[s] * (gradient row of s)`` into ``out``; the statistics are cheap enough to be computed anew."""
    rows, classes = logits.shape
    if rows == 0:
        return
    table = np.zeros((len(_PARTIALS), rows))
    for row, name in zip(table, _PARTIALS, strict=True):
        if name in partials:
            row[:] = partials[name]
    weight, _, _, weight_sum = _weights(target.class_weight, classes, logits.dtype)
    arguments = (
        _plain(logits),
        _labels_of(target),
        _soft_of(target, logits.dtype),
        weight,
        weight_sum,
        float(target.label_smoothing),
        table,
        "entropy" in partials,
        "brier" in partials,
        out,
    )
    run_rows(general.pullback_rows, rows, classes, arguments)


def softmax_curvature(p: Array, top: NDArray[np.intp], mass: Array, u: Array) -> None:
    """``a_i (diag p_i - p_i p_iᵀ) u_i`` in place of ``u``; all class-major, (K, n); in the calling thread."""
    curvature.curvature_columns(_plain(p), _plain(top), _plain(mass), u)


def draw_entries(
    p: Array,
    top: NDArray[np.intp],
    rest: Array,
    mass: Float64,
    least: float,
    phase: float,
    rows: NDArray[np.int64],
    ends: NDArray[np.int64],
    classes: NDArray[np.int32],
    values: Array,
) -> tuple[int, int]:
    """Keep the entries of p (n, K) that count; return how many rows and entries were kept."""
    return entries.draw(p, top, rest, _plain(mass), float(least), float(phase), rows, ends, classes, values)


def multiply_entries(
    columns: Array,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    classes: NDArray[np.int32],
    values: Array,
    mass: Array,
    weight: Array,
    bias: Array,
    out: Array,
) -> None:
    """Add ``Σ_i a_i (diag p_i - p_i p_iᵀ / Σ_k p_ik) (V x_i + b) (x_i, 1)ᵀ`` to `out`; in the calling thread."""
    u = np.empty(len(bias), bias.dtype)
    entries.multiply(_plain(columns), rows, starts, classes, values, mass, weight, bias, u, out)


def scan_labels(
    labels: Array,
    num_classes: int,
    ignore_index: int,
    class_weight: Float64 | None,
    row_weight: Float64 | None,
    out: NDArray[np.int64],
) -> tuple[int, int, float]:
    """Copy labels to ``out``, -1 where they are ignored.

    Returns the first row whose label is out of range (or -1), the number of rows that count, and their summed weight.
    """
    if labels.dtype != np.int64:
        if labels.dtype == np.uint64:
            labels = np.minimum(labels, np.uint64(np.iinfo(np.int64).max))  # no wrapping to a valid or ignored label
        labels = labels.astype(np.int64)
    return _labels.scan(
        _plain(labels),
        num_classes,
        ignore_index,
        _NO_DOUBLES if class_weight is None else _plain(class_weight),
        _NO_DOUBLES if row_weight is None else _plain(row_weight),
        out,
    )


def lies_within(values: Array, greatest: float) -> bool:
    """Whether all numbers lie in ``0..greatest``, which NaN does not; bfloat16 by its bits in uint16."""
    if values.size < SERIAL_ELEMENTS:
        return reference.lies_within(values, greatest)
    flat = _plain(np.ascontiguousarray(values).reshape(-1))
    outside = np.empty(-(-len(flat) // _labels.PART), np.bool_)
    run_rows(_labels.find_outside, len(outside), _labels.PART, (flat, float(greatest), outside))
    return not outside.any()


def widen_bfloat16(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Fill ``out`` with the numbers whose bfloat16 bits are given; both (N, K) and contiguous."""
    rows, classes = bits.shape
    run_rows(bfloat16.widen_rows, rows, classes, (_plain(bits), out))


def narrow_bfloat16(values: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    """Fill ``out`` with the bits of the nearest bfloat16 numbers; both (N, K) and contiguous."""
    rows, classes = values.shape
    run_rows(bfloat16.narrow_rows, rows, classes, (_plain(values), out))
