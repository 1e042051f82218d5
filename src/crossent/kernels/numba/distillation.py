"""Kernel for rows of a student beside the logits of a teacher: ``T² KL(softmax(v/T) ‖ softmax(z/T))``, in doubles.

With ``a = e^((z - max z)/T)``, ``b = e^((v - max v)/T)``, t = b / Σ b, p = a / Σ a, and W the differences ``z - v``
less their mean under t (`crossent.core.teachers` says why)::

    A = Σ t (e^w - 1 - w),  w = W/T          by a series of w where |w| <= 1.5, else  κ a - t (1 + w)
    value = T² log1p(A)                       beyond 30 nats  T² (Σ t w' + log Σ a - log Σ b)
    g_k = T t_k expm1(w_k - KL)               where p is close to t, else  T (p_k - t_k)

κ is the factor that makes ``t e^w`` of a. T² stays inside the terms, as ``W²``: neither overflows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from crossent.core.arrays import EXCESS, NEAR
from crossent.core.teachers import FAR

from .compile import helper, inlined, kernel, wide_vectors
from .exp import (
    add_in_any_order,
    difference,
    exp_sum,
    fused_multiply_add,
    log1p,
    multiply_add,
    pairwise_sum,
)
from .rows import count_ones, fill_row, row_maximum, tail_of
from .sums import CHUNK, add_two_sum

__all__ = ["teacher_rows"]

_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10 = EXCESS[:11]
_C11, _C12, _C13, _C14, _C15, _C16, _C17, _C18, _C19, _C20 = EXCESS[11:]


@inlined
def _excess(x: Any) -> Any:
    """``(e^x - 1 - x) / x²`` for ``|x| <= NEAR``."""
    s = multiply_add(x, _C20, _C19)
    s = multiply_add(s, x, _C18)
    s = multiply_add(s, x, _C17)
    s = multiply_add(s, x, _C16)
    s = multiply_add(s, x, _C15)
    s = multiply_add(s, x, _C14)
    s = multiply_add(s, x, _C13)
    s = multiply_add(s, x, _C12)
    s = multiply_add(s, x, _C11)
    s = multiply_add(s, x, _C10)
    s = multiply_add(s, x, _C9)
    s = multiply_add(s, x, _C8)
    s = multiply_add(s, x, _C7)
    s = multiply_add(s, x, _C6)
    s = multiply_add(s, x, _C5)
    s = multiply_add(s, x, _C4)
    s = multiply_add(s, x, _C3)
    s = multiply_add(s, x, _C2)
    s = multiply_add(s, x, _C1)
    return multiply_add(s, x, _C0)


@helper
def _exponentials(z: Any, m: Any, unit: Any, inverse: Any, out: Any) -> None:
    """``e^((z - m)/T)``; what difference and quotient round off is carried into the exponential."""
    wide_vectors()
    for i in range(len(out)):
        d, low = difference(np.float64(z[i]), m)
        q = d * inverse
        out[i] = exp_sum(q, (fused_multiply_add(-q, unit, d) + low) * inverse)


@helper
def _exp_tail(z: Any, m: Any, unit: Any, inverse: Any, out: Any, work: Any) -> Any:
    """Fill `out` with the exponentials; return their sum without the maximum's own 1, as `rows.exp_tail` does."""
    ones, tail, lost = 0.0, 0.0, 0.0
    for start in range(0, len(out), CHUNK):
        stop = min(start + CHUNK, len(out))
        piece = out[start:stop]
        _exponentials(z[start:stop], m, unit, inverse, piece)
        tail, lost = add_two_sum(tail, lost, tail_of(piece, 1.0, work))
        ones += count_ones(piece, 1.0)
    return (ones - 1.0) + (tail + lost)


@helper
def _index_of(v: Any, number: Any) -> Any:
    for i in range(len(v)):
        if v[i] == number:
            return i
    return 0


@inlined
def _apart(z: Any, v: Any, high: Any, low: Any) -> Any:
    """``(z - v) - (high + low)`` as a sum of two; 0 where z - v is infinite."""
    d, d_low = difference(z, v)
    is_finite = abs(d) < np.inf
    d = d if is_finite else high
    d_low = d_low if is_finite else low
    d, rounded = difference(d, high)
    return d, (d_low - low) + rounded


@inlined
def _less(d: Any, d_low: Any, first: Any, second: Any) -> Any:
    """``(d + d_low) - (first + second)``, rounded once."""
    ratio, rounded = difference(d, first)
    return ratio + (rounded + (d_low - second))


@helper
def _rough_mean(z: Any, v: Any, b: Any, high: Any, low: Any) -> Any:
    """``Σ b d``, and how many classes the student rules out that the teacher does not."""
    wide_vectors()
    total, impossible = 0.0, 0.0
    for i in range(len(b)):
        d, _ = _apart(np.float64(z[i]), np.float64(v[i]), high, low)
        total = add_in_any_order(total, b[i] * d)
        impossible = add_in_any_order(impossible, 1.0 if b[i] > 0.0 and z[i] == -np.inf else 0.0)
    return total, impossible


@helper
def _weighted_rest(z: Any, v: Any, b: Any, high: Any, low: Any, first: Any, out: Any) -> None:
    """``b (d - first)``, whose sum refines the mean."""
    wide_vectors()
    for i in range(len(out)):
        d, d_low = _apart(np.float64(z[i]), np.float64(v[i]), high, low)
        out[i] = b[i] * _less(d, d_low, first, 0.0)


class Apart(NamedTuple):
    """What is taken off a row's differences ``z - v``, in four parts; T, its inverse, and ``1 / Σ b``."""

    high: float
    low: float
    first: float
    second: float
    unit: float
    inverse: float
    share: float


@helper
def _terms(z: Any, v: Any, a: Any, b: Any, c: Any, factor: Any, out: Any) -> None:
    """``T² t (e^w - 1 - w)``; t = b · share, and t e^w = a · factor."""
    wide_vectors()
    for i in range(len(out)):
        d, d_low = _apart(np.float64(z[i]), np.float64(v[i]), c.high, c.low)
        ratio = _less(d, d_low, c.first, c.second)
        w = ratio * c.inverse
        is_near = abs(w) <= NEAR and a[i] > 0.0 and b[i] > 0.0
        t = b[i] * c.share
        near = t * (ratio * ratio) * _excess(w)
        far = c.unit * (c.unit * (factor * a[i] - (t * (1.0 + w) if b[i] > 0.0 else 0.0)))
        out[i] = near if is_near else far


@helper
def _gradient(z: Any, v: Any, a: Any, b: Any, c: Any, own_share: Any, shift: Any, scale: Any, out: Any) -> None:
    """``scale · T (p - t)``, by ``T t expm1(w - KL)`` where that keeps more digits; `shift` is ``T · KL``."""
    wide_vectors()
    for i in range(len(out)):
        d, d_low = _apart(np.float64(z[i]), np.float64(v[i]), c.high, c.low)
        ratio = _less(d, d_low, c.first, c.second)
        scaled = ratio - shift
        r = scaled * c.inverse
        is_near = abs(r) <= 0.5 and abs(ratio) <= c.unit and a[i] > 0.0 and b[i] > 0.0
        t = b[i] * c.share
        close = t * (scaled * multiply_add(r, _excess(r), 1.0))
        out[i] = scale * (close if is_near else c.unit * (a[i] * own_share - t))


@kernel
def teacher_rows(
    logits: Any,
    teacher: Any,
    unit: Any,
    scale: Any,
    row_weight: Any,
    grad: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """Rows ``start:stop``; `unit` is T. An empty ``row_weight`` or ``grad`` stands for none; it may be the logits."""
    wide_vectors()
    classes = logits.shape[1]
    with_grad = grad.shape[0] > 0
    inverse = min(1.0 / unit, 1e308)
    a, b, terms = np.empty(classes), np.empty(classes), np.empty(classes)
    work = np.empty(CHUNK)
    for i in range(start, stop):
        z, v = logits[i], teacher[i]
        factor = scale * (row_weight[i] if len(row_weight) > 0 else 1.0)
        if len(row_weight) > 0 and row_weight[i] == 0.0:
            loss[i] = 0.0
            if with_grad:
                fill_row(grad[i], 0.0)
            continue
        top = row_maximum(v)
        m, n = np.float64(row_maximum(z)), np.float64(top)
        if not (abs(m) < np.inf and abs(n) < np.inf):
            loss[i] = np.nan
            if with_grad:
                fill_row(grad[i], np.nan)
            continue
        tail = _exp_tail(z, m, unit, inverse, a, work)
        teacher_tail = _exp_tail(v, n, unit, inverse, b, work)
        share = 1.0 / (1.0 + teacher_tail)

        # Differences are taken from that of the teacher's first choice, then from their mean.
        chosen = np.float64(z[_index_of(v, top)])
        high, low = difference(chosen, n) if chosen > -np.inf else (0.0, 0.0)
        rough, impossible = _rough_mean(z, v, b, high, low)
        first = rough * share
        _weighted_rest(z, v, b, high, low, first, terms)
        second = pairwise_sum(terms) * share
        apart = Apart(high, low, first, second, unit, inverse, share)

        if impossible > 0.0:
            value = np.inf
        else:
            lead, lead_low = difference(m, chosen)
            lead, rounded = difference(lead, first)
            rest = (lead_low - second) + rounded
            lead, rest = difference(lead, -rest)
            shift = lead * inverse
            nats = shift + (log1p(tail) - log1p(teacher_tail))
            if nats < FAR:
                shift_low = (fused_multiply_add(-shift, unit, lead) + rest) * inverse
                if shift > 0.0:
                    own = share / exp_sum(-shift, -shift_low)
                else:
                    own = share * exp_sum(shift, shift_low)
                _terms(z, v, a, b, apart, own, terms)
                value = pairwise_sum(terms)
                excess = value * inverse * inverse
                if 0.0 < excess < np.inf:
                    value *= log1p(excess) / excess
            else:
                value = unit * (unit * nats)
        loss[i] = value
        if with_grad:
            own_share, distance = 1.0 / (1.0 + tail), value * inverse
            _gradient(z, v, a, b, apart, own_share, distance, factor, grad[i])
