"""Kernels for rows of few classes: `LANES` rows at a time, so that every loop runs across rows.

A block of rows is copied into a scratch array with the classes outside and the rows inside; maxima, exponentials, sums, the loss and the
gradient are loops over rows of equal length, which become vector code whatever the number of classes; the gradient is copied back. The formulas are
those of `wide` and `general`. A row that does not count is computed as a row of zeros with weight 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._compile import helper, inlined, kernel
from .closed_forms import (
    BRIER,
    D_BRIER,
    D_ENTROPY,
    D_LSE,
    D_MISS,
    D_NLL,
    ENTROPY,
    FIELDS,
    LANES,
    LOSS,
    LSE,
    MASS,
    MISS,
    NLL,
    PLAIN,
    PLAIN_LOW,
    block_terms,
)
from .exp import exp_difference, log1p, maximum, multiply_add
from .wide import plain_nll

__all__ = ["MAX_CLASSES", "narrow_general_rows", "narrow_hard_rows"]

MAX_CLASSES = 64
"""Above this the rows themselves are long enough for vector code, and a block would leave the first-level cache."""

# More fields of a block, behind those of the closed forms.
TAIL, LOW, ONES, TRUE_LOGIT, TRUE_E, TRUE_MISS, GAP, GAP_LOW, FACTOR, OWN_WEIGHT = range(FIELDS, FIELDS + 10)
HIT, HIT_LOW, OTHER, OTHER_LOW, SPREAD, SPREAD_LOW, INNER, INNER_LOW, ALONG, ALONG_B, OWN = range(FIELDS + 10, FIELDS + 21)
BLOCK_FIELDS = FIELDS + 21


@inlined
def _add_compensated(f: Any, field: Any, i: Any, v: Any) -> None:
    """Add ``v`` to a field; the next field gathers the rounding errors."""
    high = f[field * LANES + i]
    total = high + v
    shifted = total - high
    f[(field + 1) * LANES + i] += (high - (total - shifted)) + (v - shifted)
    f[field * LANES + i] = total


@inlined
def _compensated(f: Any, field: Any, i: Any) -> Any:
    high = f[field * LANES + i]
    return high + f[(field + 1) * LANES + i] if abs(high) < np.inf else high


@helper
def _clear(f: Any, field: Any) -> None:
    for i in range(2 * LANES):
        f[field * LANES + i] = 0.0


@helper
def _load(rows: Any, f: Any, x: Any) -> None:
    """Copy rows into the block, classes outside; rows that do not count, or do not exist, become zeros."""
    lanes, classes = rows.shape
    for i in range(LANES):
        if i < lanes and f[FACTOR * LANES + i] != 0.0:
            z = rows[i]
            for k in range(classes):
                x[k * LANES + i] = z[k]
        else:
            for k in range(classes):
                x[k * LANES + i] = 0


@helper
def _store(x: Any, rows: Any) -> None:
    lanes, classes = rows.shape
    for i in range(lanes):
        g = rows[i]
        for k in range(classes):
            g[k] = x[k * LANES + i]


@helper
def _block_maximum(x: Any, m: Any) -> None:
    for i in range(LANES):
        m[i] = x[i]
    for start in range(LANES, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            m[i] = maximum(m[i], z[i])


@helper
def _block_exp(x: Any, m: Any) -> None:
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            z[i] = exp_difference(z[i], m[i])


@inlined
def _below_one(v: Any) -> Any:
    return 0.0 if v == 1.0 else v


@inlined
def _is_one(v: Any) -> Any:
    return 1.0 if v == 1.0 else 0.0


@helper
def _block_tail(x: Any, f: Any) -> None:
    """The sums of the exponentials without the maximum's own 1: ones are counted, the rest is added up, four classes at a time."""
    _clear(f, TAIL)
    for i in range(LANES):
        f[ONES * LANES + i] = -1.0
    classes = len(x) // LANES
    for k in range(0, classes - 3, 4):
        e = x[k * LANES : (k + 4) * LANES]
        for i in range(LANES):
            e0 = np.float64(e[i])
            e1 = np.float64(e[i + LANES])
            e2 = np.float64(e[i + 2 * LANES])
            e3 = np.float64(e[i + 3 * LANES])
            _add_compensated(f, TAIL, i, (_below_one(e0) + _below_one(e1)) + (_below_one(e2) + _below_one(e3)))
            f[ONES * LANES + i] += (_is_one(e0) + _is_one(e1)) + (_is_one(e2) + _is_one(e3))
    for k in range(classes - classes % 4, classes):
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            v = np.float64(e[i])
            _add_compensated(f, TAIL, i, _below_one(v))
            f[ONES * LANES + i] += _is_one(v)
    for i in range(LANES):
        f[TAIL * LANES + i] = f[ONES * LANES + i] + (f[TAIL * LANES + i] + f[LOW * LANES + i])


@helper
def _gather(x: Any, y: Any, f: Any, field: Any) -> None:
    for i in range(LANES):
        f[field * LANES + i] = x[y[i] * LANES + i]


@helper
def _block_gap(x: Any, m: Any, weight: Any, f: Any) -> None:
    """``sum w_k (m - z_k)``; a class of weight 0 adds 0 even if it is masked."""
    _clear(f, GAP)
    for k in range(len(weight)):
        z = x[k * LANES : (k + 1) * LANES]
        w = weight[k]
        if w != 0.0:
            for i in range(LANES):
                _add_compensated(f, GAP, i, w * (np.float64(m[i]) - np.float64(z[i])))


@helper
def _true_class(f: Any, m: Any) -> None:
    """The scalars of a row with a hard label, from its tail, ``z_y`` and ``e^(z_y - m)``."""
    for i in range(LANES):
        top = np.float64(m[i])
        zy = f[TRUE_LOGIT * LANES + i]
        ey = f[TRUE_E * LANES + i]
        tail = f[TAIL * LANES + i]
        log_sum = log1p(tail)
        n, low = plain_nll(top, zy, log_sum)
        f[PLAIN * LANES + i] = n
        f[PLAIN_LOW * LANES + i] = low
        f[LSE * LANES + i] = top + log_sum
        f[TRUE_MISS * LANES + i] = (tail if zy == top else 1.0 + (tail - ey)) / (1.0 + tail)


@helper
def _hard_statistics(f: Any, m: Any, weight_sum: Any, smoothing: Any, share: Any) -> None:
    kept = 1.0 - smoothing
    if smoothing == 0.0:
        for i in range(LANES):
            wy = f[OWN_WEIGHT * LANES + i]
            f[MASS * LANES + i] = wy
            f[NLL * LANES + i] = wy * f[PLAIN * LANES + i]
            f[MISS * LANES + i] = f[TRUE_MISS * LANES + i]
    else:
        for i in range(LANES):
            own = kept * f[OWN_WEIGHT * LANES + i]
            rest = _compensated(f, GAP, i) + weight_sum * (f[LSE * LANES + i] - np.float64(m[i]))
            f[MASS * LANES + i] = own + share * weight_sum
            f[NLL * LANES + i] = (own * f[PLAIN * LANES + i] if own > 0.0 else 0.0) + share * rest
            f[MISS * LANES + i] = kept * f[TRUE_MISS * LANES + i] + (smoothing - share)


@helper
def _load_labels(
    labels: Any, weight: Any, weight_sum: Any, smoothing: Any, share: Any, row_weight: Any, y: Any, f: Any
) -> None:
    """Labels, weights of the true classes and of the rows; a factor of 0 marks a row that does not count."""
    for i in range(LANES):
        label = labels[i] if i < len(labels) else -1
        factor = 0.0
        wy = 0.0
        if label >= 0:
            wy = weight[label]
            if (1.0 - smoothing) * wy + share * weight_sum != 0.0:
                factor = row_weight[i] if len(row_weight) > 0 else 1.0
        y[i] = max(label, 0)
        f[OWN_WEIGHT * LANES + i] = wy
        f[FACTOR * LANES + i] = factor


@helper
def _store_loss(f: Any, loss: Any) -> None:
    for i in range(len(loss)):
        loss[i] = f[LOSS * LANES + i] if f[FACTOR * LANES + i] != 0.0 else 0.0


@kernel
def narrow_hard_rows(
    logits: Any,
    labels: Any,
    weight: Any,
    typed_weight: Any,
    weight_sum: Any,
    smoothing: Any,
    terms: Any,
    scale: Any,
    row_weight: Any,
    grad: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """What `wide.hard_rows` computes."""
    classes = logits.shape[1]
    x = np.empty(classes * LANES, logits.dtype)
    m = np.empty(LANES, logits.dtype)
    a = np.empty(LANES, logits.dtype)
    b = np.empty(LANES, logits.dtype)
    y = np.empty(LANES, np.int64)
    f = np.zeros(BLOCK_FIELDS * LANES)
    share = smoothing / classes
    for first in range(start, stop, LANES):
        last = min(first + LANES, stop)
        factors = row_weight[first:last] if len(row_weight) > 0 else row_weight
        _load_labels(labels[first:last], weight, weight_sum, smoothing, share, factors, y, f)
        _load(logits[first:last], f, x)
        _block_maximum(x, m)
        _gather(x, y, f, TRUE_LOGIT)
        if smoothing > 0.0:
            _block_gap(x, m, weight, f)
        _block_exp(x, m)
        _block_tail(x, f)
        _gather(x, y, f, TRUE_E)
        _true_class(f, m)
        _hard_statistics(f, m, weight_sum, smoothing, share)
        block_terms(f, terms)
        _store_loss(f, loss[first:last])
        if len(grad) > 0:
            _hard_coefficients(f, weight_sum, smoothing, share, scale, a, b)
            _hard_gradient(x, a, b, typed_weight, smoothing > 0.0)
            for i in range(LANES):
                x[y[i] * LANES + i] = f[OWN * LANES + i]
            _store(x, grad[first:last])


@helper
def _hard_coefficients(f: Any, weight_sum: Any, smoothing: Any, share: Any, scale: Any, a: Any, b: Any) -> None:
    """``g_k = a e_k - b w_k`` and the true class's own gradient (the formulas of `wide`)."""
    kept = 1.0 - smoothing
    for i in range(LANES):
        factor = scale * f[FACTOR * LANES + i]
        total = 1.0 + f[TAIL * LANES + i]
        py = f[TRUE_E * LANES + i] / total
        d_nll = factor * f[D_NLL * LANES + i]
        d_miss = factor * f[D_MISS * LANES + i] * kept * py
        d_lse = factor * f[D_LSE * LANES + i]
        wy = f[OWN_WEIGHT * LANES + i]
        a[i] = (d_nll * f[MASS * LANES + i] + d_miss + d_lse) / total
        b[i] = d_nll * share
        along = d_nll * (share * (weight_sum - wy)) + d_lse
        f[OWN * LANES + i] = along * py - (d_nll * (wy * (kept + share)) + d_miss) * f[TRUE_MISS * LANES + i]


@helper
def _hard_gradient(x: Any, a: Any, b: Any, w: Any, smoothed: Any) -> None:
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        if smoothed:
            for i in range(LANES):
                e[i] = multiply_add(e[i], a[i], -(b[i] * w[k]))
        else:
            for i in range(LANES):
                e[i] *= a[i]


@helper
def _load_targets(rows: Any, x: Any) -> None:
    lanes, classes = rows.shape
    for i in range(LANES):
        if i < lanes:
            t = rows[i]
            for k in range(classes):
                x[k * LANES + i] = t[k]
        else:
            for k in range(classes):
                x[k * LANES + i] = 0


@helper
def _target_mass(t: Any, weight: Any, kept: Any, share: Any, row_weight: Any, lanes: Any, f: Any) -> None:
    """``W = sum w t'`` and the rows' factors, 0 where the mass is 0."""
    _clear(f, GAP)
    for k in range(len(weight)):
        target = t[k * LANES : (k + 1) * LANES]
        w = weight[k]
        for i in range(LANES):
            _add_compensated(f, GAP, i, w * (kept * np.float64(target[i]) + share))
    for i in range(LANES):
        mass = _compensated(f, GAP, i)
        f[MASS * LANES + i] = mass
        f[FACTOR * LANES + i] = 0.0 if mass == 0.0 or i >= lanes else (row_weight[i] if len(row_weight) > 0 else 1.0)


@helper
def _target_gap(x: Any, m: Any, t: Any, weight: Any, kept: Any, share: Any, f: Any) -> None:
    """``sum w t' (m - z)``; what weighs nothing adds nothing."""
    _clear(f, GAP)
    for k in range(len(weight)):
        z = x[k * LANES : (k + 1) * LANES]
        target = t[k * LANES : (k + 1) * LANES]
        w = weight[k]
        for i in range(LANES):
            v = w * (kept * np.float64(target[i]) + share)
            v = v * (np.float64(m[i]) - np.float64(z[i])) if v != 0.0 else 0.0
            _add_compensated(f, GAP, i, v)


@helper
def _hit_and_miss(x: Any, t: Any, kept: Any, share: Any, f: Any) -> None:
    """``sum t' e`` and ``sum (1 - t') e``."""
    _clear(f, HIT)
    _clear(f, OTHER)
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            _add_compensated(f, HIT, i, np.float64(e[i]) * (kept * np.float64(target[i]) + share))
        for i in range(LANES):
            _add_compensated(f, OTHER, i, np.float64(e[i]) * (1.0 - (kept * np.float64(target[i]) + share)))


@helper
def _spread(x: Any, z: Any, m: Any, f: Any) -> None:
    """``sum e (m - z)``; a masked class adds 0."""
    _clear(f, SPREAD)
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        logits = z[start : start + LANES]
        for i in range(LANES):
            v = np.float64(e[i])
            v = v * (np.float64(m[i]) - np.float64(logits[i])) if v != 0.0 else 0.0
            _add_compensated(f, SPREAD, i, v)


@helper
def _brier_sums(x: Any, t: Any, kept: Any, share: Any, f: Any) -> None:
    """``sum (p - t')^2`` (into OTHER) and ``sum p (p - t')``."""
    _clear(f, OTHER)
    _clear(f, INNER)
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            p = np.float64(e[i]) / (1.0 + f[TAIL * LANES + i])
            d = p - (kept * np.float64(target[i]) + share)
            _add_compensated(f, OTHER, i, d * d)
            _add_compensated(f, INNER, i, p * d)


@helper
def _general_gradient(x: Any, z: Any, m: Any, t: Any, w: Any, kept: Any, share: Any, scale: Any, f: Any, convert: Any) -> None:
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        logits = z[k * LANES : (k + 1) * LANES]
        target = t[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            p = np.float64(e[i]) / (1.0 + f[TAIL * LANES + i])
            share_k = kept * np.float64(target[i]) + share
            gap = np.float64(m[i]) - np.float64(logits[i]) if p != 0.0 else 0.0
            square = 2.0 * f[D_BRIER * LANES + i]
            inside = f[ALONG * LANES + i] + f[D_ENTROPY * LANES + i] * gap
            inside += square * p - (f[D_MISS * LANES + i] + square) * share_k
            g = p * inside - f[D_NLL * LANES + i] * w[k] * share_k
            e[i] = convert(scale * f[FACTOR * LANES + i] * g)


@helper
def _general_coefficients(f: Any, hard: Any, scale: Any, weight_sum: Any, smoothing: Any, share: Any, m: Any) -> None:
    """``A`` of `general` and, for hard labels, the true class's own gradient."""
    kept = 1.0 - smoothing
    for i in range(LANES):
        d_nll = f[D_NLL * LANES + i]
        d_miss = f[D_MISS * LANES + i]
        d_entropy = f[D_ENTROPY * LANES + i]
        square = 2.0 * f[D_BRIER * LANES + i]
        rest = f[D_LSE * LANES + i]
        rest -= d_entropy * f[SPREAD * LANES + i] if d_entropy != 0.0 else 0.0
        rest -= square * f[INNER * LANES + i] if square != 0.0 else 0.0
        f[ALONG * LANES + i] = d_nll * f[MASS * LANES + i] + d_miss * f[HIT * LANES + i] + rest
        if hard:
            py = f[TRUE_E * LANES + i] / (1.0 + f[TAIL * LANES + i])
            miss = f[TRUE_MISS * LANES + i]
            wy = f[OWN_WEIGHT * LANES + i]
            gap = np.float64(m[i]) - f[TRUE_LOGIT * LANES + i] if py > 0.0 else 0.0
            along = d_nll * (share * (weight_sum - wy)) + rest + d_entropy * gap + square * ((smoothing - share) - miss)
            own = along * py - (d_nll * (wy * (kept + share)) + d_miss * kept * py) * miss
            f[OWN * LANES + i] = scale * f[FACTOR * LANES + i] * own


@kernel
def narrow_general_rows(
    logits: Any,
    labels: Any,
    soft: Any,
    weight: Any,
    weight_sum: Any,
    smoothing: Any,
    terms: Any,
    scale: Any,
    row_weight: Any,
    with_entropy: Any,
    with_brier: Any,
    grad: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """What `general.general_rows` computes."""
    classes = logits.shape[1]
    number = logits.dtype.type
    hard = len(labels) > 0
    x = np.empty(classes * LANES, logits.dtype)
    z = np.empty(classes * LANES, logits.dtype)
    t = np.zeros(classes * LANES, logits.dtype)
    m = np.empty(LANES, logits.dtype)
    y = np.zeros(LANES, np.int64)
    f = np.zeros(BLOCK_FIELDS * LANES)
    share = smoothing / classes
    kept = 1.0 - smoothing
    for first in range(start, stop, LANES):
        last = min(first + LANES, stop)
        factors = row_weight[first:last] if len(row_weight) > 0 else row_weight
        if hard:
            _load_labels(labels[first:last], weight, weight_sum, smoothing, share, factors, y, f)
            for i in range(LANES):
                t[y[i] * LANES + i] = 1
        else:
            _load_targets(soft[first:last], t)
            _target_mass(t, weight, kept, share, factors, last - first, f)
        _load(logits[first:last], f, z)
        for j in range(len(x)):
            x[j] = z[j]
        _block_maximum(x, m)
        _block_exp(x, m)
        _block_tail(x, f)
        if hard:
            _gather(z, y, f, TRUE_LOGIT)
            _gather(x, y, f, TRUE_E)
            _true_class(f, m)
            if smoothing > 0.0:
                _block_gap(z, m, weight, f)
            _hard_statistics(f, m, weight_sum, smoothing, share)
            for i in range(LANES):
                f[HIT * LANES + i] = kept * f[TRUE_E * LANES + i] / (1.0 + f[TAIL * LANES + i]) + share
        else:
            _target_gap(z, m, t, weight, kept, share, f)
            _hit_and_miss(x, t, kept, share, f)
            for i in range(LANES):
                total = 1.0 + f[TAIL * LANES + i]
                log_sum = log1p(f[TAIL * LANES + i])
                f[LSE * LANES + i] = np.float64(m[i]) + log_sum
                f[NLL * LANES + i] = _compensated(f, GAP, i) + f[MASS * LANES + i] * log_sum
                f[HIT * LANES + i] = _compensated(f, HIT, i) / total
                f[MISS * LANES + i] = _compensated(f, OTHER, i) / total
        if with_entropy:
            _spread(x, z, m, f)
            for i in range(LANES):
                f[SPREAD * LANES + i] = _compensated(f, SPREAD, i) / (1.0 + f[TAIL * LANES + i])
                f[ENTROPY * LANES + i] = log1p(f[TAIL * LANES + i]) + f[SPREAD * LANES + i]
        if with_brier:
            if hard:
                # The true class apart: p_y - t'_y = (epsilon - u) - (1 - p_y).
                for i in range(LANES):
                    x[y[i] * LANES + i] = 0
                    t[y[i] * LANES + i] = 0
            _brier_sums(x, t, kept, share, f)
            for i in range(LANES):
                square = _compensated(f, OTHER, i)
                inner = _compensated(f, INNER, i)
                if hard:
                    own = (smoothing - share) - f[TRUE_MISS * LANES + i]
                    square = max(square - share * share, 0.0) + own * own
                    inner += f[TRUE_E * LANES + i] / (1.0 + f[TAIL * LANES + i]) * own
                    x[y[i] * LANES + i] = f[TRUE_E * LANES + i]
                    t[y[i] * LANES + i] = 1
                f[BRIER * LANES + i] = square
                f[INNER * LANES + i] = inner
        block_terms(f, terms)
        _store_loss(f, loss[first:last])
        if len(grad) > 0:
            _general_coefficients(f, hard, scale, weight_sum, smoothing, share, m)
            _general_gradient(x, z, m, t, weight, kept, share, scale, f, number)
            if hard:
                for i in range(LANES):
                    x[y[i] * LANES + i] = f[OWN * LANES + i]
            _store(x, grad[first:last])
        if hard:
            for i in range(LANES):
                t[y[i] * LANES + i] = 0
