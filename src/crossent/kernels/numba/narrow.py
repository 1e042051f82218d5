"""Kernels for rows of few classes: `LANES` rows at a time, so that every loop runs across rows.

A block of rows is copied into a scratch array with the classes outside and the rows inside; maxima, exponentials, sums,
the loss and the gradient are loops over rows of equal length, which become vector code whatever the number of classes;
the gradient is copied back. The formulas are those of `wide` and `general`. A row that does not count is computed as a
row of zeros with weight 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .blocks import (
    BLOCK_FIELDS,
    FACTOR,
    GAP,
    HIT,
    INNER,
    OTHER,
    OWN,
    OWN_WEIGHT,
    SPREAD,
    TAIL,
    TRUE_E,
    TRUE_LOGIT,
    TRUE_MISS,
    add_compensated,
    block_exp,
    block_gap,
    block_maximum,
    block_tail,
    clear_sum,
    compensated,
    gather,
    hard_statistics,
    load_labels,
    load_rows,
    load_targets,
    store_loss,
    store_rows,
    true_class,
)
from .brier import block_brier_of_distribution, block_brier_of_label
from .closed_forms import (
    D_BRIER,
    D_ENTROPY,
    D_LSE,
    D_MISS,
    D_NLL,
    ENTROPY,
    LANES,
    LSE,
    MASS,
    MISS,
    NLL,
    block_terms,
)
from .compile import helper, kernel
from .exp import log1p
from .hard_blocks import hard_block

__all__ = ["MAX_CLASSES", "narrow_distribution_rows", "narrow_hard_rows", "narrow_label_rows"]

MAX_CLASSES = 64
"""Above this the rows themselves are long enough for vector code, and a block would leave the first-level cache."""


@kernel
def narrow_hard_rows(
    logits: Any,
    labels: Any,
    weight: Any,
    typed_weight: Any,
    weight_unit: Any,
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
        load_labels(labels[first:last], weight, weight_sum, smoothing, share, factors, y, f)
        load_rows(logits[first:last], f, x)
        hard_block(
            x, m, a, b, y, weight, typed_weight, weight_unit, weight_sum, smoothing, terms, scale, len(grad) > 0, f
        )
        store_loss(f, loss[first:last])
        if len(grad) > 0:
            store_rows(x, grad[first:last])


@helper
def _target_mass(t: Any, weight: Any, kept: Any, share: Any, row_weight: Any, lanes: Any, f: Any) -> None:
    """``W = sum w t'`` and the rows' factors, 0 where the mass is 0."""
    clear_sum(f, GAP)
    for k in range(len(weight)):
        target = t[k * LANES : (k + 1) * LANES]
        w = weight[k]
        for i in range(LANES):
            add_compensated(f, GAP, i, w * (kept * np.float64(target[i]) + share))
    for i in range(LANES):
        mass = compensated(f, GAP, i)
        f[MASS * LANES + i] = mass
        f[FACTOR * LANES + i] = 0.0 if mass == 0.0 or i >= lanes else (row_weight[i] if len(row_weight) > 0 else 1.0)


@helper
def _target_gap(x: Any, m: Any, t: Any, weight: Any, kept: Any, share: Any, f: Any) -> None:
    """``sum w t' (m - z)``; what weighs nothing adds nothing."""
    clear_sum(f, GAP)
    for k in range(len(weight)):
        z = x[k * LANES : (k + 1) * LANES]
        target = t[k * LANES : (k + 1) * LANES]
        w = weight[k]
        for i in range(LANES):
            v = w * (kept * np.float64(target[i]) + share)
            v = v * (np.float64(m[i]) - np.float64(z[i])) if v != 0.0 else 0.0
            add_compensated(f, GAP, i, v)


@helper
def _hit_and_miss(x: Any, t: Any, kept: Any, share: Any, f: Any) -> None:
    """``sum t' e`` and ``sum (1 - t') e``, without the rounding of t' in ``1 - t' = kept (1 - t) + (K - 1) share``."""
    rest = share * (len(x) // LANES - 1)
    clear_sum(f, HIT)
    clear_sum(f, OTHER)
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        target = t[start : start + LANES]
        for i in range(LANES):
            add_compensated(f, HIT, i, np.float64(e[i]) * (kept * np.float64(target[i]) + share))
        for i in range(LANES):
            add_compensated(f, OTHER, i, np.float64(e[i]) * (kept * (1.0 - np.float64(target[i])) + rest))


@helper
def _spread(x: Any, z: Any, m: Any, f: Any) -> None:
    """``sum e (m - z)``; a masked class adds 0."""
    clear_sum(f, SPREAD)
    for start in range(0, len(x), LANES):
        e = x[start : start + LANES]
        logits = z[start : start + LANES]
        for i in range(LANES):
            mass = np.float64(e[i])
            gap = mass * (np.float64(m[i]) - np.float64(logits[i])) if mass != 0.0 else 0.0
            add_compensated(f, SPREAD, i, gap)


@helper
def _general_gradient(
    x: Any, z: Any, m: Any, t: Any, w: Any, kept: Any, share: Any, scale: Any, f: Any, convert: Any
) -> None:
    """The gradient's elements (the formula of `general`), in place of the exponentials."""
    for k in range(len(w)):
        e = x[k * LANES : (k + 1) * LANES]
        logits = z[k * LANES : (k + 1) * LANES]
        target = t[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            d_nll = f[D_NLL * LANES + i]
            p = np.float64(e[i]) / (1.0 + f[TAIL * LANES + i])
            goal = kept * np.float64(target[i]) + share
            gap = np.float64(m[i]) - np.float64(logits[i]) if p != 0.0 else 0.0
            inside = d_nll * f[MASS * LANES + i] + f[D_LSE * LANES + i]
            inside += f[D_MISS * LANES + i] * (f[HIT * LANES + i] - goal)
            inside += f[D_ENTROPY * LANES + i] * (gap - f[SPREAD * LANES + i])
            inside += 2.0 * f[D_BRIER * LANES + i] * ((p - goal) - f[INNER * LANES + i])
            e[i] = convert(scale * f[FACTOR * LANES + i] * (p * inside - d_nll * w[k] * goal))


@helper
def _true_class_gradient(f: Any, scale: Any, weight_sum: Any, smoothing: Any, share: Any, m: Any) -> None:
    """For hard labels the true class's own gradient, without the cancellation in ``p_y - t'_y``."""
    kept = 1.0 - smoothing
    for i in range(LANES):
        d_nll = f[D_NLL * LANES + i]
        py = f[TRUE_E * LANES + i] / (1.0 + f[TAIL * LANES + i])
        miss = f[TRUE_MISS * LANES + i]
        wy = f[OWN_WEIGHT * LANES + i]
        gap = np.float64(m[i]) - f[TRUE_LOGIT * LANES + i] if py > 0.0 else 0.0
        inside = d_nll * (share * (weight_sum - wy)) + f[D_LSE * LANES + i] - f[D_MISS * LANES + i] * kept * miss
        inside += f[D_ENTROPY * LANES + i] * (gap - f[SPREAD * LANES + i])
        inside += 2.0 * f[D_BRIER * LANES + i] * (((smoothing - share) - miss) - f[INNER * LANES + i])
        own = py * inside - d_nll * (wy * (kept + share)) * miss
        f[OWN * LANES + i] = scale * f[FACTOR * LANES + i] * own


def _general(hard: bool, name: str) -> Any:
    """What `general.general_rows` computes, for labels or for distributions: compiling both takes 5 s and more."""

    def rows(
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
        classes = logits.shape[1]
        number = logits.dtype.type
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
                load_labels(labels[first:last], weight, weight_sum, smoothing, share, factors, y, f)
                for i in range(LANES):
                    t[y[i] * LANES + i] = 1
            else:
                load_targets(soft[first:last], t)
                _target_mass(t, weight, kept, share, factors, last - first, f)
            load_rows(logits[first:last], f, z)
            for j in range(len(x)):
                x[j] = z[j]
            block_maximum(x, m)
            block_exp(x, m)
            block_tail(x, f)
            if hard:
                gather(z, y, f, TRUE_LOGIT)
                gather(x, y, f, TRUE_E)
                true_class(f, m)
                if smoothing > 0.0:
                    block_gap(z, m, weight, f)
                hard_statistics(f, weight_sum, smoothing, share)
                for i in range(LANES):
                    f[HIT * LANES + i] = kept * f[TRUE_E * LANES + i] / (1.0 + f[TAIL * LANES + i]) + share
            else:
                _target_gap(z, m, t, weight, kept, share, f)
                _hit_and_miss(x, t, kept, share, f)
                for i in range(LANES):
                    total = 1.0 + f[TAIL * LANES + i]
                    log_sum = log1p(f[TAIL * LANES + i])
                    f[LSE * LANES + i] = np.float64(m[i]) + log_sum
                    f[NLL * LANES + i] = compensated(f, GAP, i) + f[MASS * LANES + i] * log_sum
                    f[HIT * LANES + i] = compensated(f, HIT, i) / total
                    f[MISS * LANES + i] = compensated(f, OTHER, i) / total
            if with_entropy:
                _spread(x, z, m, f)
                for i in range(LANES):
                    f[SPREAD * LANES + i] = compensated(f, SPREAD, i) / (1.0 + f[TAIL * LANES + i])
                    f[ENTROPY * LANES + i] = log1p(f[TAIL * LANES + i]) + f[SPREAD * LANES + i]
            if with_brier:
                if hard:
                    block_brier_of_label(x, t, y, smoothing, share, f)
                else:
                    block_brier_of_distribution(x, t, kept, share, f)
            block_terms(f, terms)
            store_loss(f, loss[first:last])
            if len(grad) > 0:
                _general_gradient(x, z, m, t, weight, kept, share, scale, f, number)
                if hard:
                    _true_class_gradient(f, scale, weight_sum, smoothing, share, m)
                    for i in range(LANES):
                        x[y[i] * LANES + i] = f[OWN * LANES + i]
                store_rows(x, grad[first:last])
            if hard:
                for i in range(LANES):
                    t[y[i] * LANES + i] = 0

    rows.__name__ = rows.__qualname__ = name  # machine code is kept under it
    return kernel(rows)


narrow_label_rows = _general(True, "narrow_label_rows")
narrow_distribution_rows = _general(False, "narrow_distribution_rows")
