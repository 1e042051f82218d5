"""The reference's twin for NumPy arrays on the CPU: Numba kernels in float32 and float64.

The same functions as `crossent.kernels.reference`, on arrays that were validated before: C-contiguous, native byte
order, logits of shape ``(N, K)``, labels int64 with -1 where a row does not count. This module chooses a compiled
driver and nothing more.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.target import Target, Teacher
from ..losses import DEFAULT_LOSS, Loss
from . import curvature, entries, logistic, reference
from .numba import binary, distillation, mean, softmax
from .numba import labels as _labels
from .numba.bits import copy_rows
from .numba.calibration import affine_moments, sigmoid_affine_moments, temperature_moments
from .numba.metrics import bin_sums, pool_adjacent, ranked_terms, squares_beside, summarize_rows
from .numba.terms import LANES
from .plain import plain
from .threads import SERIAL_ELEMENTS, run_rows

__all__ = [
    "affine_moments",
    "bin_sums",
    "draw_entries",
    "forms",
    "lies_within",
    "logistic_value_grad",
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
    "weigh_labels",
    "widen_bfloat16",
]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_FLOAT32 = np.dtype(np.float32)
_NO_DOUBLES = np.empty(0)
_NO_ROWS = {np.dtype(t): np.empty((0, 0), t) for t in (np.float32, np.float64, np.uint16)}
_NO_PLANES = {dtype: rows.reshape(0, 0, 0) for dtype, rows in _NO_ROWS.items()}
_NO_DOUBLE_ROWS = _NO_ROWS[np.dtype(np.float64)]
_NO_ENTRIES = np.empty((0, 0), np.int8)
_NO_FORMS: frozenset[str] = frozenset()
_BITS = frozenset({"bfloat16"})
_BITS_AND_PLANES = frozenset({"bfloat16", "planes"})
_LIKE: dict[str, Array] = {
    "float32": np.empty(0, np.float32),
    "float64": np.empty(0),
    "bfloat16": np.empty(0, np.uint16),
}
_PARTIALS = ("nll", "miss", "lse", "entropy", "brier")


Weights = tuple[Float64, Array, float, float, float, bool]
"""Class weights in double; the same over a unit in the logits' precision; the unit; their sum; the smoothing; whether
there are neither weights nor smoothing."""


@lru_cache(maxsize=16)
def _unit_weight(classes: int, dtype: np.dtype[Any], smoothing: float) -> Weights:
    double = np.ones(classes)
    return double, double.astype(dtype), 1.0, float(classes), smoothing, smoothing == 0.0


def _weights(class_weight: Float64 | None, smoothing: float, classes: int, dtype: np.dtype[Any]) -> Weights:
    """What kernels read of class weights (None: ones) and smoothing.

    The unit is a power of two that brings the largest weight into [1, 2), so that float32 holds weights of any size.
    """
    dtype = _FLOAT32 if dtype == np.uint16 else dtype
    if class_weight is None:
        return _unit_weight(classes, dtype, smoothing)
    class_weight = plain(class_weight)
    total = float(np.sum(class_weight))
    if dtype != _FLOAT32:
        return class_weight, class_weight, 1.0, total, smoothing, False
    exponent = math.frexp(class_weight.max())[1] - 1
    typed = np.ldexp(class_weight, -exponent).astype(dtype)
    return class_weight, typed, math.ldexp(1.0, exponent), total, smoothing, False


def _weights_of(target: Target, dtype: np.dtype[Any]) -> Weights:
    return _weights(target.class_weight, float(target.label_smoothing), target.num_classes, dtype)


@lru_cache(maxsize=256)
def _terms(loss: Loss) -> Float64:
    """The loss's terms as the table that kernels read."""
    return np.array(loss.table(), dtype=np.float64)


def _other_terms(loss: Loss) -> Float64 | None:
    """The same; None for plain cross-entropy."""
    return None if loss == DEFAULT_LOSS else _terms(loss)


@lru_cache(maxsize=256)
def _reads(statistics: frozenset[str], has_labels: bool) -> int | None:
    """What a gradient reads besides the numbers of the simple one; None if nothing (`softmax` says more)."""
    reads = ("entropy" in statistics) * softmax.WITH_ENTROPY + ("brier" in statistics) * softmax.WITH_BRIER
    reads_miss = not has_labels and "miss" in statistics
    return reads if reads or reads_miss else None


def _labels_of(target: Target) -> Array | None:
    return None if target.labels is None else plain(target.labels.astype(np.int64, copy=False))


def _soft_of(target: Target, dtype: np.dtype[Any]) -> Array | None:
    """Distributions in the logits' dtype, in float32 beside bits."""
    if target.soft is None:
        return None
    return plain(target.soft.astype(_FLOAT32 if dtype == np.uint16 else dtype, copy=False))


def forms(target: Target, loss: Loss) -> frozenset[str]:
    """Which other forms of logits `row_losses` takes: bits of bfloat16 numbers, classes as planes."""
    if target.teacher is not None:
        return _NO_FORMS
    return _BITS_AND_PLANES if target.link == "softmax" and target.labels is not None else _BITS


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
    weights = _NO_DOUBLES if weight is None else plain(weight)
    if target.link == "sigmoid":
        return _entry_losses(logits, target, loss, scale, weights, grad, entries, sum_only)
    if isinstance(target.teacher, Teacher):
        return reference.row_losses(logits, target, loss, scale, weight, grad)
    rows = logits.size // target.num_classes
    losses = np.empty(rows)
    logits = plain(logits)
    out = (_NO_PLANES if logits.ndim == 3 else _NO_ROWS)[logits.dtype] if grad is None else grad
    if target.teacher is not None:
        teacher = plain(target.teacher)
        arguments: tuple[Any, ...] = (logits, teacher, loss.parameter, float(scale), weights, out, losses)
        run_rows(distillation.teacher_rows, rows, target.num_classes, arguments)
        return losses
    arguments = (
        logits,
        _labels_of(target),
        _soft_of(target, logits.dtype),
        _weights_of(target, logits.dtype),
        _other_terms(loss),
        float(scale),
        weights,
        _reads(loss.reads, target.labels is not None),
        out,
        losses,
    )
    if target.num_classes <= softmax.MAX_CLASSES or logits.ndim == 3:
        run_rows(softmax.blocks_value_grad, rows, target.num_classes, arguments, LANES)
    else:
        run_rows(softmax.rows_value_grad, rows, target.num_classes, arguments)
    return losses


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
    soft = _soft_of(target, logits.dtype)
    all_weights = (
        _NO_DOUBLE_ROWS if target.class_weight is None else plain(target.class_weight),
        weights if weights.ndim == 1 else _NO_DOUBLES,
        weights if weights.ndim == 2 else _NO_DOUBLE_ROWS,
    )
    arguments = (
        plain(logits),
        _NO_ENTRIES if target.labels is None else plain(target.labels),
        _NO_ROWS[_FLOAT32 if logits.dtype == np.uint16 else logits.dtype] if soft is None else soft,
        all_weights,
        float(target.label_smoothing),
        _terms(loss),
        float(scale),
        _NO_ROWS[logits.dtype] if grad is None else grad,
        _NO_DOUBLE_ROWS if entries is None else entries,
        losses,
    )
    run_rows(binary.sigmoid_rows, rows, classes, arguments, LANES if classes == 1 else 1)
    return losses


def mean_at(
    dtype: str, logits: int, labels: int, grad: int, rows: int, classes: int, ignore_index: int
) -> float | None:
    """The mean of cross-entropy over the rows that count, its gradient to ``grad``; all contiguous, at addresses.

    None, and nothing computed, where a label is out of range, no row counts, or there is enough to compute for several
    threads.
    """
    if rows * classes >= SERIAL_ELEMENTS:
        return None
    like = _LIKE[dtype]
    lengths = (True, None) if classes <= softmax.MAX_CLASSES else (None, True)
    weights = _weights(None, 0.0, classes, like.dtype)
    value: float = mean.mean_at(logits, labels, grad, rows, classes, ignore_index, weights, like, *lengths)
    return None if value < 0.0 else value


def statistics(logits: Array, target: Target) -> dict[str, Array]:
    """Every row statistic: `softmax.STATISTICS` in float64 and ``argmax`` in int64, each of shape (N,)."""
    rows, classes = logits.shape
    out = np.empty((len(softmax.STATISTICS), rows))
    argmax = np.empty(rows, np.int64)
    if rows:
        arguments = (
            plain(logits),
            _labels_of(target),
            _soft_of(target, logits.dtype),
            _weights_of(target, logits.dtype),
            out,
            argmax,
        )
        run_rows(softmax.statistics_rows, rows, classes, arguments)
    found: dict[str, Array] = dict(zip(softmax.STATISTICS, out, strict=True))
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
    arguments = (
        plain(logits),
        _labels_of(target),
        _soft_of(target, logits.dtype),
        _weights_of(target, logits.dtype),
        table,
        _reads(frozenset(partials), target.labels is not None),
        out,
    )
    run_rows(softmax.pullback_rows, rows, classes, arguments)


def logistic_value_grad(
    columns: Array,
    weight: Array,
    bias: Any,
    target: Target,
    row_weight: Float64,
    negligible: float,
    total: Float64,
) -> float:
    """``Σ_i c_i ℓ_i`` for the logits ``X w + b``; ``Σ_i g_i (x_i, 1)`` is added to ``total``; in the calling thread."""
    given: Any = target.soft if target.labels is None else target.labels
    class_weight = np.ones((2, 1)) if target.class_weight is None else target.class_weight
    value: float = logistic.logistic_rows(
        plain(columns),
        plain(weight),
        bias,
        plain(given.reshape(-1)),
        plain(class_weight.reshape(-1)),
        float(target.label_smoothing),
        plain(row_weight),
        negligible,
        total,
    )
    return value


def softmax_curvature(p: Array, top: NDArray[np.intp], mass: Array, u: Array) -> None:
    """``a_i (diag p_i - p_i p_iᵀ) u_i`` in place of ``u``; all class-major, (K, n); in the calling thread."""
    curvature.curvature_columns(plain(p), plain(top), plain(mass), u)


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
    return entries.draw(p, top, rest, plain(mass), float(least), float(phase), rows, ends, classes, values)


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
    entries.multiply(plain(columns), rows, starts, classes, values, mass, weight, bias, u, out)


def scan_labels(labels: Array, num_classes: int, ignore_index: int, out: NDArray[np.int64]) -> tuple[int, int]:
    """Copy labels to ``out``, -1 where they are ignored.

    Returns the first row whose label is out of range (or -1), and the number of rows that count.
    """
    found: tuple[int, int] = _labels.scan(plain(labels), num_classes, ignore_index, out)
    return found


def weigh_labels(labels: NDArray[np.int64], class_weight: Float64 | None, row_weight: Float64 | None) -> float:
    """The summed weight of the rows whose label is not negative."""
    weights = [_NO_DOUBLES if weight is None else plain(weight) for weight in (class_weight, row_weight)]
    found: float = _labels.weigh(plain(labels), *weights)
    return found


def lies_within(values: Array, greatest: float) -> bool:
    """Whether all numbers lie in ``0..greatest``, which NaN does not; bfloat16 by its bits in uint16."""
    if values.size < SERIAL_ELEMENTS:
        return reference.lies_within(values, greatest)
    flat = plain(np.ascontiguousarray(values).reshape(-1))
    outside = np.empty(-(-len(flat) // _labels.PART), np.bool_)
    run_rows(_labels.find_outside, len(outside), _labels.PART, (flat, float(greatest), outside))
    return not outside.any()


def widen_bfloat16(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Fill ``out`` with the numbers whose bfloat16 bits are given; both (N, K) and contiguous."""
    rows, classes = bits.shape
    run_rows(copy_rows, rows, classes, (plain(bits), out))


def narrow_bfloat16(values: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    """Fill ``out`` with the bits of the nearest bfloat16 numbers; both (N, K) and contiguous."""
    rows, classes = values.shape
    run_rows(copy_rows, rows, classes, (plain(values), out))
