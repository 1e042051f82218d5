"""Kernels for any target and any loss, a row at a time: all row statistics, and the pullback of a gradient on each.

A hard label is served as a one-hot row, and its true class is then written from formulas that do not cancel.
With ``t' = (1 - epsilon) t + u``, ``u = epsilon/K``, ``W = sum w_k t'_k``, ``hit = <t', p>``, ``c = <p, p - t'>`` and
``D = sum p_k (m - z_k)`` (``H`` without ``log sum e^(z - m)``) the gradient of the whole family is::

    g_k = p_k [phi_nll W + phi_lse + phi_miss (hit - t'_k) + phi_H (m - z_k - D) + 2 phi_b (p_k - t'_k - c)]
        - phi_nll w_k t'_k

The arithmetic of the sums and of the gradient is double; exponentials are in the logits' precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .brier import row_brier
from .closed_forms import (
    BRIER,
    D_BRIER,
    D_ENTROPY,
    D_LSE,
    D_MISS,
    D_NLL,
    ENTROPY,
    FIELDS,
    LOSS,
    LSE,
    MASS,
    MISS,
    NLL,
    PLAIN,
    PLAIN_LOW,
    number_fields,
    row_terms,
)
from .compile import helper, kernel
from .exp import exp_difference, log1p, log1p_pair, pairwise_sum
from .rows import CHUNK, add_two_sum, copy_row, exp_tail, fill_row, row_maximum
from .wide import plain_nll

__all__ = ["STATISTICS", "general_rows", "pullback_rows", "statistics_rows"]

# More fields of a row, behind those of the closed forms.
MAXIMUM, TAIL, HIT, SPREAD, INNER, TRUE_P, TRUE_MISS, TRUE_LOGIT = number_fields(FIELDS, FIELDS + 8)
ROW_FIELDS = int(TRUE_LOGIT) + 1

STATISTICS = ("maximum", "tail", "lse", "nll", "nll_plain", "mass", "miss", "hit", "entropy", "brier")


@helper
def _target_sums(z: Any, m: Any, t: Any, weight: Any, kept: Any, share: Any, work: Any) -> Any:
    """``sum w t'`` and ``sum w t' (m - z)``; what weighs nothing adds nothing, even where it is masked."""
    top = np.float64(m)
    mass, mass_low = 0.0, 0.0
    gap, gap_low = 0.0, 0.0
    for start in range(0, len(z), CHUNK):
        stop = min(start + CHUNK, len(z))
        target, w, logits, out = t[start:stop], weight[start:stop], z[start:stop], work[: stop - start]
        for i in range(len(out)):
            out[i] = w[i] * (kept * np.float64(target[i]) + share)
        mass, mass_low = add_two_sum(mass, mass_low, pairwise_sum(out))
        for i in range(len(out)):
            v = w[i] * (kept * np.float64(target[i]) + share)
            out[i] = v * (top - np.float64(logits[i])) if v != 0.0 else 0.0
        gap, gap_low = add_two_sum(gap, gap_low, pairwise_sum(out))
    return mass + mass_low, gap + gap_low


@helper
def _plain_gap(z: Any, m: Any, t: Any, work: Any) -> Any:
    """``sum t`` and ``sum t (m - z)`` of the target as it was given."""
    top = np.float64(m)
    mass, gap, low = 0.0, 0.0, 0.0
    for start in range(0, len(z), CHUNK):
        stop = min(start + CHUNK, len(z))
        target, logits, out = t[start:stop], z[start:stop], work[: stop - start]
        for i in range(len(out)):
            out[i] = np.float64(target[i])
        mass += pairwise_sum(out)
        for i in range(len(out)):
            v = np.float64(target[i])
            out[i] = v * (top - np.float64(logits[i])) if v != 0.0 else 0.0
        gap, low = add_two_sum(gap, low, pairwise_sum(out))
    return mass, gap + low


@helper
def _hit_and_miss(e: Any, t: Any, kept: Any, share: Any, work: Any) -> Any:
    """``sum t' e`` and ``sum (1 - t') e``, without the rounding of t' in ``1 - t' = kept (1 - t) + (K - 1) share``."""
    rest = share * (len(e) - 1)
    hit, hit_low = 0.0, 0.0
    miss, miss_low = 0.0, 0.0
    for start in range(0, len(e), CHUNK):
        stop = min(start + CHUNK, len(e))
        piece, target, out = e[start:stop], t[start:stop], work[: stop - start]
        for i in range(len(out)):
            out[i] = np.float64(piece[i]) * (kept * np.float64(target[i]) + share)
        hit, hit_low = add_two_sum(hit, hit_low, pairwise_sum(out))
        for i in range(len(out)):
            out[i] = np.float64(piece[i]) * (kept * (1.0 - np.float64(target[i])) + rest)
        miss, miss_low = add_two_sum(miss, miss_low, pairwise_sum(out))
    return hit + hit_low, miss + miss_low


@helper
def _spread(z: Any, m: Any, e: Any, work: Any) -> Any:
    """``sum e (m - z)``: a masked class adds 0."""
    top = np.float64(m)
    high, low = 0.0, 0.0
    for start in range(0, len(e), CHUNK):
        stop = min(start + CHUNK, len(e))
        piece, logits, out = e[start:stop], z[start:stop], work[: stop - start]
        for i in range(len(out)):
            v = np.float64(piece[i])
            out[i] = v * (top - np.float64(logits[i])) if v != 0.0 else 0.0
        high, low = add_two_sum(high, low, pairwise_sum(out))
    return high + low


@helper
def row_statistics(
    z: Any, e: Any, t: Any, y: Any, weight: Any, smoothing: Any, with_entropy: Any, with_brier: Any, work: Any, f: Any
) -> None:
    """Fill the fields of a row and leave ``e^(z - m)`` in ``e``, another array; y is -1 for a soft target."""
    share = smoothing / len(z)
    kept = 1.0 - smoothing
    m = row_maximum(z)
    tail = exp_tail(z, e, m, work)
    total = 1.0 + tail
    log_sum, log_low = log1p_pair(tail)
    f[MAXIMUM] = m
    f[TAIL] = tail
    f[LSE] = np.float64(m) + log_sum
    mass, gap = _target_sums(z, m, t, weight, kept, share, work)
    hit, miss = _hit_and_miss(e, t, kept, share, work)
    f[MASS] = mass
    f[NLL] = gap + (mass * log_sum if mass != 0.0 else 0.0)
    f[HIT] = hit / total
    f[MISS] = miss / total
    ey = 0.0
    if y >= 0:
        zy = z[y]
        ey = np.float64(exp_difference(zy, m))
        f[TRUE_LOGIT] = zy
        f[TRUE_P] = ey / total
        f[TRUE_MISS] = (tail if zy == m else 1.0 + (tail - ey)) / total
        f[PLAIN], f[PLAIN_LOW] = plain_nll(np.float64(m), np.float64(zy), log_sum, log_low)
        f[HIT] = kept * f[TRUE_P] + share
        f[MISS] = kept * f[TRUE_MISS] + (smoothing - share)
        if smoothing == 0.0:
            f[MASS] = weight[y]
            f[NLL] = weight[y] * f[PLAIN]
    if with_entropy:
        f[SPREAD] = _spread(z, m, e, work) / total
        f[ENTROPY] = log_sum + f[SPREAD]
    if with_brier:
        f[BRIER], f[INNER] = row_brier(e, t, y, tail, smoothing, work)


@helper
def _pull_elements(z: Any, e: Any, t: Any, w: Any, f: Any, kept: Any, share: Any, factor: Any, write: Any) -> None:
    """The gradient's elements, in place of the exponentials."""
    top = f[MAXIMUM]
    total = 1.0 + f[TAIL]
    hit = f[HIT]
    spread = f[SPREAD]
    inner = f[INNER]
    d_nll = factor * f[D_NLL]
    d_miss = factor * f[D_MISS]
    d_entropy = factor * f[D_ENTROPY]
    d_square = 2.0 * factor * f[D_BRIER]
    along = d_nll * f[MASS] + factor * f[D_LSE]
    for i in range(len(e)):
        p = np.float64(e[i]) / total
        target = kept * np.float64(t[i]) + share
        gap = top - np.float64(z[i]) if p != 0.0 else 0.0
        inside = along + d_miss * (hit - target) + d_entropy * (gap - spread) + d_square * ((p - target) - inner)
        e[i] = write(p * inside - d_nll * w[i] * target)


@helper
def pull_row(
    z: Any, e: Any, t: Any, y: Any, weight: Any, weight_sum: Any, smoothing: Any, factor: Any, f: Any, write: Any
) -> None:
    """Turn ``e`` into ``factor`` times the gradient of what the fields ``D_*`` say."""
    share = smoothing / len(z)
    kept = 1.0 - smoothing
    _pull_elements(z, e, t, weight, f, kept, share, factor, write)
    if y >= 0:
        py = f[TRUE_P]
        miss = f[TRUE_MISS]
        gap = f[MAXIMUM] - f[TRUE_LOGIT] if py > 0.0 else 0.0
        own = weight[y] * (kept + share)
        others = share * (weight_sum - weight[y])
        inside = f[D_NLL] * others + f[D_LSE] - f[D_MISS] * kept * miss + f[D_ENTROPY] * (gap - f[SPREAD])
        inside += 2.0 * f[D_BRIER] * (((smoothing - share) - miss) - f[INNER])
        e[y] = write(factor * (py * inside - f[D_NLL] * own * miss))


@kernel
def general_rows(
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
    """Value and gradient of rows ``start:stop``; of ``labels`` and ``soft`` the unused one is empty."""
    classes = logits.shape[1]
    number = logits.dtype.type
    hard = len(labels) > 0
    with_grad = grad.shape[0] > 0
    in_place = with_grad and grad.ctypes.data == logits.ctypes.data
    f = np.zeros(ROW_FIELDS)
    work = np.empty(CHUNK)
    buffer = np.empty(0 if with_grad else classes, logits.dtype)
    kept_logits = np.empty(classes if in_place else 0, logits.dtype)
    one_hot = np.zeros(classes if hard else 0, logits.dtype)
    for i in range(start, stop):
        e = grad[i] if with_grad else buffer
        y = labels[i] if hard else -1
        counts = not hard or (y >= 0 and (1.0 - smoothing) * weight[y] + smoothing / classes * weight_sum != 0.0)
        if len(row_weight) > 0 and row_weight[i] == 0.0:
            counts = False
        if counts:
            z = logits[i]
            if in_place:
                copy_row(z, kept_logits)
                z = kept_logits
            if hard:
                one_hot[y] = 1
            t = one_hot if hard else soft[i]
            row_statistics(z, e, t, y, weight, smoothing, with_entropy, with_brier, work, f)
            counts = f[MASS] != 0.0
            if counts:
                row_terms(f, terms)
                loss[i] = f[LOSS]
                if with_grad:
                    factor = scale * (row_weight[i] if len(row_weight) > 0 else 1.0)
                    pull_row(z, e, t, y, weight, weight_sum, smoothing, factor, f, number)
            if hard:
                one_hot[y] = 0
        if not counts:
            loss[i] = 0.0
            if with_grad:
                fill_row(e, number(0))


@helper
def _first_maximum(z: Any) -> Any:
    """NumPy's rule: the first NaN, else the first of the largest."""
    best = 0
    for i in range(len(z)):
        if z[i] != z[i]:
            return i
        if z[i] > z[best]:
            best = i
    return best


@kernel
def statistics_rows(
    logits: Any,
    labels: Any,
    soft: Any,
    weight: Any,
    weight_sum: Any,
    smoothing: Any,
    out: Any,
    argmax: Any,
    start: Any,
    stop: Any,
) -> None:
    """All statistics (`STATISTICS`, one row of ``out`` each); those of the target are 0 where the label is -1."""
    classes = logits.shape[1]
    hard = len(labels) > 0
    f = np.zeros(ROW_FIELDS)
    work = np.empty(CHUNK)
    e = np.empty(classes, logits.dtype)
    one_hot = np.zeros(classes if hard else 0, logits.dtype)
    for i in range(start, stop):
        z = logits[i]
        y = labels[i] if hard else -1
        counts = not hard or y >= 0
        if hard and counts:
            one_hot[y] = 1
        t = one_hot if hard else soft[i]
        row_statistics(z, e, t, y, weight, smoothing, True, True, work, f)
        out[0, i] = f[MAXIMUM]
        out[1, i] = f[TAIL]
        out[2, i] = f[LSE]
        out[8, i] = f[ENTROPY]
        argmax[i] = _first_maximum(z)
        plain = f[PLAIN]
        if counts and not hard:
            mass, gap = _plain_gap(z, np.float64(f[MAXIMUM]), t, work)
            plain = gap + mass * log1p(f[TAIL])
        out[3, i] = f[NLL] if counts else 0.0
        out[4, i] = plain if counts else 0.0
        out[5, i] = f[MASS] if counts else 0.0
        out[6, i] = f[MISS] if counts else 0.0
        out[7, i] = f[HIT] if counts else 0.0
        out[9, i] = f[BRIER] if counts else 0.0
        if hard and counts:
            one_hot[y] = 0


@kernel
def pullback_rows(
    logits: Any,
    labels: Any,
    soft: Any,
    weight: Any,
    weight_sum: Any,
    smoothing: Any,
    partials: Any,
    with_entropy: Any,
    with_brier: Any,
    out: Any,
    start: Any,
    stop: Any,
) -> None:
    """``sum_s partials[s] * (gradient row of s)`` for nll, miss, lse, entropy and brier; 0 where the label is -1."""
    classes = logits.shape[1]
    number = logits.dtype.type
    hard = len(labels) > 0
    in_place = out.ctypes.data == logits.ctypes.data
    f = np.zeros(ROW_FIELDS)
    work = np.empty(CHUNK)
    kept_logits = np.empty(classes if in_place else 0, logits.dtype)
    one_hot = np.zeros(classes if hard else 0, logits.dtype)
    for i in range(start, stop):
        e = out[i]
        y = labels[i] if hard else -1
        some = False
        for s in range(5):
            some |= partials[s, i] != 0.0
        if (hard and y < 0) or not some:
            fill_row(e, number(0))
            continue
        z = logits[i]
        if in_place:
            copy_row(z, kept_logits)
            z = kept_logits
        if hard:
            one_hot[y] = 1
        t = one_hot if hard else soft[i]
        row_statistics(z, e, t, y, weight, smoothing, with_entropy, with_brier, work, f)
        for s in range(5):
            f[D_NLL + s] = partials[s, i]
        pull_row(z, e, t, y, weight, weight_sum, smoothing, 1.0, f, number)
        if hard:
            one_hot[y] = 0
