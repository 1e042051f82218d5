"""What `crossent.kernels.calibration` computes, compiled: sums over rows of a loss and of its derivatives.

The loss is that of ``softmax(β z)`` or ``softmax(a ∘ z + b)``, its derivatives are those by β, or by a and b class by
class. One pass over the logits each; nothing of their size is written. Pieces of rows are cut by their number alone, so
that sums do not depend on the threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..plain import plain
from ..threads import run_rows
from .blocks import block_maxima, load
from .compile import helper, kernel, wide_vectors
from .exp import add_in_any_order, exp_difference, exp_sum, log1p
from .rows import row_maximum
from .terms import LANES

__all__ = ["affine_moments", "sigmoid_affine_moments", "temperature_moments"]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

_MOMENTS = 6
_PIECES = 64
_MOST_SUMS = 1 << 21
_SHORT = 64
_NONE = np.empty(0)
_NO_EVENTS = np.empty((0, 0), np.bool_)


@helper
def _scaled_sums(z: Any, m: Any, beta: Any, zero: Any) -> Any:
    """``Σ e``, ``Σ e u`` and ``Σ e u²`` with ``u = z - m`` and ``e = exp(β u)``; a masked class adds 0."""
    wide_vectors()
    s = 0.0
    s1 = 0.0
    s2 = 0.0
    for j in range(len(z)):
        u = z[j] - m
        e = exp_sum(u * beta, zero)
        v = zero if e == zero else e * u
        w = zero if e == zero else v * u
        s = add_in_any_order(s, np.float64(e))
        s1 = add_in_any_order(s1, np.float64(v))
        s2 = add_in_any_order(s2, np.float64(w))
    return s, s1, s2


@kernel
def temperature_rows(
    logits: Any, codes: Any, weights: Any, beta: Any, out: Any, step: Any, start: Any, stop: Any
) -> None:
    """Long rows of the pieces ``start:stop``; ``out[piece]``: Σwℓ, Σw ∂ℓ/∂β, Σw ∂²ℓ/∂β²."""
    wide_vectors()
    number = logits.dtype.type
    zero = number(0)
    inverse = number(beta)
    for piece in range(start, stop):
        loss, slope, curvature = 0.0, 0.0, 0.0
        for i in range(piece * step, min(len(logits), (piece + 1) * step)):
            w = weights[i] if len(weights) > 0 else 1.0
            if w == 0.0:
                continue
            z = logits[i]
            m = row_maximum(z)
            s, s1, s2 = _scaled_sums(z, m, inverse, zero)
            own = np.float64(z[codes[i]]) - np.float64(m)
            mean = s1 / s
            loss += w * (math.log(s) - beta * own)
            slope += w * (mean - own)
            curvature += w * (s2 / s - mean * mean)
        out[piece, 0] = loss
        out[piece, 1] = slope
        out[piece, 2] = curvature


@helper
def _block_sums(x: Any, m: Any, beta: Any, zero: Any, s: Any, s1: Any, s2: Any) -> None:
    wide_vectors()
    for i in range(LANES):
        s[i] = zero
        s1[i] = zero
        s2[i] = zero
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            u = z[i] - m[i]
            e = exp_sum(u * beta, zero)
            v = zero if e == zero else e * u
            w = zero if e == zero else v * u
            s[i] += e
            s1[i] += v
            s2[i] += w


@helper
def _block_finish(m: Any, own: Any, w: Any, beta: Any, s: Any, s1: Any, s2: Any, sums: Any) -> None:
    wide_vectors()
    loss, slope, curvature = 0.0, 0.0, 0.0
    for i in range(LANES):
        total = np.float64(s[i])
        gap = own[i] - np.float64(m[i])
        mean = np.float64(s1[i]) / total
        loss = add_in_any_order(loss, w[i] * (log1p(total - 1.0) - beta * gap))
        slope = add_in_any_order(slope, w[i] * (mean - gap))
        curvature = add_in_any_order(curvature, w[i] * (np.float64(s2[i]) / total - mean * mean))
    sums[0] += loss
    sums[1] += slope
    sums[2] += curvature


@kernel
def temperature_blocks(
    logits: Any, codes: Any, weights: Any, beta: Any, out: Any, step: Any, start: Any, stop: Any
) -> None:
    """As `temperature_rows`, for short rows: 64 at a time, the classes outside and the rows inside."""
    wide_vectors()
    rows, classes = logits.shape
    number = logits.dtype.type
    zero = number(0)
    inverse = number(beta)
    x = np.empty(classes * LANES, logits.dtype)
    m = np.empty(LANES, logits.dtype)
    s = np.empty(LANES, logits.dtype)
    s1 = np.empty(LANES, logits.dtype)
    s2 = np.empty(LANES, logits.dtype)
    own = np.empty(LANES)
    w = np.empty(LANES)
    for piece in range(start, stop):
        sums = out[piece]
        end = min(rows, (piece + 1) * step)
        for begin in range(piece * step, end, LANES):
            last = min(begin + LANES, end)
            for i in range(LANES):
                w[i] = 0.0
                own[i] = 0.0
                if begin + i < last:
                    w[i] = weights[begin + i] if len(weights) > 0 else 1.0
            load(logits, begin, last, w, x)
            for i in range(last - begin):
                if w[i] != 0.0:
                    own[i] = np.float64(x[codes[begin + i] * LANES + i])
            block_maxima(x, m)
            _block_sums(x, m, inverse, zero, s, s1, s2)
            _block_finish(m, own, w, beta, s, s1, s2, sums)


@helper
def _mapped(z: Any, a: Any, b: Any, x: Any) -> None:
    wide_vectors()
    for k in range(len(z)):
        x[k] = a[k] * z[k] + b[k]


@helper
def _exponentials(x: Any, m: Any, zero: Any) -> Any:
    wide_vectors()
    s = 0.0
    for k in range(len(x)):
        x[k] = exp_difference(x[k], m)
        s = add_in_any_order(s, np.float64(x[k]))
    return s


@helper
def _add_moments(z: Any, e: Any, share: Any, w: Any, gb: Any, ga: Any, hbb: Any, hab: Any, haa: Any) -> None:
    wide_vectors()
    for k in range(len(z)):
        p = np.float64(e[k]) * share
        v = 0.0 if p == 0.0 else np.float64(z[k])
        q = w * p
        c = q * (1.0 - p)
        gb[k] += q
        ga[k] += q * v
        hbb[k] += c
        hab[k] += c * v
        haa[k] += c * v * v


@kernel
def affine_rows(
    logits: Any, codes: Any, weights: Any, a: Any, b: Any, out: Any, step: Any, start: Any, stop: Any
) -> None:
    """``softmax(a ∘ z + b)``; ``out[piece, :, k]``: Σwℓ (in k = 0), the gradient by b and a, the Hessian's diagonals
    by bb, ab and aa, of class k."""
    wide_vectors()
    rows, classes = logits.shape
    zero = logits.dtype.type(0)
    x = np.empty(classes, logits.dtype)
    for piece in range(start, stop):
        sums = out[piece]
        gb, ga, hbb, hab, haa = sums[1], sums[2], sums[3], sums[4], sums[5]
        loss = 0.0
        for i in range(piece * step, min(rows, (piece + 1) * step)):
            w = weights[i] if len(weights) > 0 else 1.0
            if w == 0.0:
                continue
            z = logits[i]
            _mapped(z, a, b, x)
            y = codes[i]
            own = np.float64(x[y])
            m = row_maximum(x)
            s = _exponentials(x, m, zero)
            loss += w * (math.log(s) - (own - np.float64(m)))
            _add_moments(z, x, 1.0 / s, w, gb, ga, hbb, hab, haa)
            gb[y] -= w
            ga[y] -= w * np.float64(z[y])
        sums[0, 0] = loss


@helper
def _add_sigmoid(z: Any, a: Any, b: Any, t: Any, w: Any, sums: Any) -> None:
    wide_vectors()
    loss, gb, ga, hbb, hab, haa = sums
    for k in range(len(z)):
        v = np.float64(z[k])
        x = a[k] * v + b[k]
        e = exp_sum(-abs(x), 0.0)
        p = (1.0 if x >= 0.0 else e) / (1.0 + e)
        c = w * e / ((1.0 + e) * (1.0 + e))
        gap = w * (p - t[k])
        loss[k] += w * (max(x, 0.0) - t[k] * x + log1p(e))
        gb[k] += gap
        ga[k] += gap * v
        hbb[k] += c
        hab[k] += c * v
        haa[k] += c * v * v


@kernel
def sigmoid_affine_rows(
    scores: Any,
    codes: Any,
    events: Any,
    low: Any,
    high: Any,
    weights: Any,
    a: Any,
    b: Any,
    out: Any,
    step: Any,
    start: Any,
    stop: Any,
) -> None:
    """One binary problem a column, ``σ(a_k s_k + b_k)`` beside the target ``high[k]`` where column k's event happened
    and ``low[k]`` where not. Events are ``events`` or, where that is empty, "the label is k"."""
    wide_vectors()
    rows, columns = scores.shape
    t = np.empty(columns)
    for piece in range(start, stop):
        x = out[piece]
        sums = x[0], x[1], x[2], x[3], x[4], x[5]
        for i in range(piece * step, min(rows, (piece + 1) * step)):
            w = weights[i] if len(weights) > 0 else 1.0
            if w == 0.0:
                continue
            if len(events) > 0:
                for k in range(columns):
                    t[k] = high[k] if events[i, k] else low[k]
            else:
                for k in range(columns):
                    t[k] = low[k]
                t[codes[i]] = high[codes[i]]
            _add_sigmoid(scores[i], a, b, t, w, sums)


def _pieces(rows: int, sums: int) -> tuple[int, int]:
    """Return number and length of the pieces that a pass is cut into, whatever the number of threads."""
    pieces = max(1, min(_PIECES, _MOST_SUMS // sums, rows // 256))
    step = -(-rows // pieces)
    return -(-rows // step), step


def temperature_moments(logits: Array, codes: NDArray[np.intp], weights: Float64 | None, beta: float) -> Float64:
    """Return Σwℓ, Σw ∂ℓ/∂β and Σw ∂²ℓ/∂β² of the cross-entropy of ``softmax(β z)``."""
    n, classes = logits.shape
    pieces, step = _pieces(n, 3)
    out = np.zeros((pieces, 3))
    function = temperature_blocks if classes <= _SHORT else temperature_rows
    arguments = (plain(logits), codes, _NONE if weights is None else plain(weights), float(beta), out, step)
    run_rows(function, pieces, step * classes, arguments)
    return np.asarray(out.sum(axis=0))


def affine_moments(
    logits: Array, codes: NDArray[np.intp], weights: Float64 | None, scale: Float64, bias: Float64
) -> tuple[float, Float64]:
    """Return Σwℓ of ``softmax(scale ∘ z + bias)``, and (5, K): gradients by bias and scale, Hessian bb, ab and aa."""
    n, classes = logits.shape
    pieces, step = _pieces(n, classes * _MOMENTS)
    out = np.zeros((pieces, _MOMENTS, classes))
    typed = [np.ascontiguousarray(v, dtype=logits.dtype) for v in (scale, bias)]
    arguments = (plain(logits), codes, _NONE if weights is None else plain(weights), *typed, out, step)
    run_rows(affine_rows, pieces, step * classes, arguments)
    total = out.sum(axis=0)
    return float(total[0, 0]), total[1:]


def sigmoid_affine_moments(
    scores: Array,
    codes: NDArray[np.intp],
    events: NDArray[np.bool_] | None,
    targets: tuple[Float64, Float64],
    weights: Float64 | None,
    scale: Float64,
    bias: Float64,
) -> Float64:
    """Return (6, K): loss, gradients by bias and scale and Hessian bb, ab, aa of a binary problem per column."""
    n, columns = scores.shape
    pieces, step = _pieces(n, columns * _MOMENTS)
    out = np.zeros((pieces, _MOMENTS, columns))
    arguments = (
        plain(scores),
        codes,
        _NO_EVENTS if events is None else events,
        *targets,
        _NONE if weights is None else plain(weights),
        np.ascontiguousarray(scale, dtype=np.float64),
        np.ascontiguousarray(bias, dtype=np.float64),
        out,
        step,
    )
    run_rows(sigmoid_affine_rows, pieces, step * columns, arguments)
    return np.asarray(out.sum(axis=0))
