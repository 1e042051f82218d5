"""Kernel for rows of many classes and hard labels: every loss but those with entropy or Brier; smoothing and weights.

One pass per row, which stays in the cache: maximum, exponentials into the gradient's row and their sums piece by piece
(a long row is written once before it leaves the cache), a handful of scalars, the loss, and the gradient
``A e_k - B w_k`` in place; the true class is written apart. With ``u = epsilon/K``, ``t'_k = u``
(``t'_y = 1 - epsilon + u``) and ``W = sum w_k t'_k``::

    g_k = phi_nll (W p_k - w_k u) + phi_miss p_k (1 - epsilon) p_y + phi_lse p_k
    g_y = phi_nll ((W - w_y t'_y) p_y - w_y t'_y (1 - p_y)) - phi_miss (1 - epsilon) p_y (1 - p_y) + phi_lse p_y
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .closed_forms import (
    D_LSE,
    D_MISS,
    D_NLL,
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
from .exp import difference, exp_difference, log1p_pair
from .rows import (
    CHUNK,
    MOST_FLOAT,
    exp_tail,
    fill_row,
    row_maximum,
    scale_row,
    scale_row_in_double,
    scale_row_minus,
    weighted_gap,
)

__all__ = ["ROW_FIELDS", "hard_rows", "hard_slopes", "hard_statistics", "plain_nll"]

(TRUE_MISS,) = number_fields(FIELDS, FIELDS + 1)  # behind the fields of the closed forms
ROW_FIELDS = int(TRUE_MISS) + 1


@helper
def plain_nll(m: Any, zy: Any, log_sum: Any, log_low: Any) -> Any:
    """``(m - z_y) + (log_sum + log_low)`` as a sum of two doubles: a power of the likelihood needs both."""
    gap, gap_low = difference(m, zy)
    first = gap + log_sum
    shifted = first - gap
    low = ((gap - (first - shifted)) + (log_sum - shifted)) + (gap_low + log_low)
    n = first + low
    return (n, low - (n - first)) if first < np.inf else (first, 0.0)


@helper
def hard_statistics(
    m: Any,
    zy: Any,
    ey: Any,
    is_top: Any,
    tail: Any,
    gap: Any,
    wy: Any,
    mass: Any,
    weight_sum: Any,
    smoothing: Any,
    share: Any,
    f: Any,
) -> None:
    """Fill the fields of a row from its maximum, its true class's logit and ``e^(z_y - m)``, and its tail."""
    kept = 1.0 - smoothing
    log_sum, log_low = log1p_pair(tail)
    # The sum without y: no cancellation, because a maximum is left in it or y is a maximum itself.
    miss = (tail if is_top else 1.0 + (tail - ey)) / (1.0 + tail)
    n, n_low = plain_nll(m, zy, log_sum, log_low)
    f[MASS] = mass
    f[PLAIN] = n
    f[PLAIN_LOW] = n_low
    f[LSE] = m + log_sum
    f[TRUE_MISS] = miss
    if smoothing > 0.0:
        f[NLL] = (kept * wy * n if kept * wy != 0.0 else 0.0) + share * (gap + weight_sum * log_sum)
        f[MISS] = kept * miss + (smoothing - share)
    else:
        f[NLL] = wy * n
        f[MISS] = miss


@helper
def hard_slopes(
    factor: Any, ey: Any, total: Any, wy: Any, weight_sum: Any, kept: Any, share: Any, f: Any
) -> tuple[float, float, float]:
    """``A`` and ``B`` of the gradient, and the true class's own."""
    py = ey / total
    d_nll = factor * f[D_NLL]
    d_miss = factor * f[D_MISS] * kept * py
    d_lse = factor * f[D_LSE]
    own = wy * (kept + share)
    rest = share * (weight_sum - wy)
    return (
        (d_nll * f[MASS] + d_miss + d_lse) / total,
        d_nll * share,
        (d_nll * rest + d_lse) * py - (d_nll * own + d_miss) * f[TRUE_MISS],
    )


@kernel
def hard_rows(
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
    """Rows ``start:stop``. An empty ``row_weight`` or ``grad`` stands for none.

    ``typed_weight`` is ``weight / weight_unit`` in the logits' precision.
    """
    classes = logits.shape[1]
    number = logits.dtype.type
    most = MOST_FLOAT if logits.itemsize == 4 else np.inf
    with_grad = grad.shape[0] > 0
    f = np.empty(ROW_FIELDS)
    work = np.empty(CHUNK)
    buffer = np.empty(0 if with_grad else classes, logits.dtype)
    share = smoothing / classes
    kept = 1.0 - smoothing
    for i in range(start, stop):
        z = logits[i]
        e = grad[i] if with_grad else buffer
        y = labels[i]
        factor = scale * (row_weight[i] if len(row_weight) > 0 else 1.0)
        wy = weight[y] if y >= 0 else 0.0
        mass = kept * wy + share * weight_sum
        if y < 0 or mass == 0.0 or (len(row_weight) > 0 and row_weight[i] == 0.0):
            loss[i] = 0.0
            if with_grad:
                fill_row(e, number(0))
            continue

        m = row_maximum(z)
        gap = weighted_gap(z, m, weight, work) if smoothing > 0.0 else 0.0
        zy = z[y]
        ey = np.float64(exp_difference(zy, m))
        tail = exp_tail(z, e, m, work)
        hard_statistics(
            np.float64(m), np.float64(zy), ey, zy == m, tail, gap, wy, mass, weight_sum, smoothing, share, f
        )
        row_terms(f, terms)
        loss[i] = f[LOSS]

        if with_grad:
            a, b, own = hard_slopes(factor, ey, 1.0 + tail, wy, weight_sum, kept, share, f)
            if abs(a) > most or abs(b * weight_unit) > most:
                scale_row_in_double(e, a, b, weight)
            elif smoothing > 0.0:
                scale_row_minus(e, number(a), number(b * weight_unit), typed_weight)
            else:
                scale_row(e, number(a))
            e[y] = own
