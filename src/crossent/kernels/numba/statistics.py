"""From a row's sums to its statistics, and from the loss's slopes to the gradient's factors: for one row or a block.

With ``u = epsilon/K``, ``t'_k = (1 - epsilon) t_k + u``, ``W = sum w_k t'_k``, ``hit = (1 - epsilon) sum t_k p_k``,
``c = sum p_k (p_k - t'_k)`` and ``D = sum p_k (m - z_k)`` the gradient of the whole family is::

    g_k = p_k [phi_nll W + phi_lse + phi_miss (hit - (1 - epsilon) t_k)
               + phi_H (m - z_k - D) + 2 phi_b (p_k - t'_k - c)] - phi_nll w_k t'_k

A label's row has ``t_k = 0`` outside of its class y, whose own element is written from a formula that does not cancel.
Where a loss reads neither the entropy nor the Brier score (nor, of a distribution, the miss), the gradient is
``A e_k - B w_k t'_k``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .bits import as_number
from .compile import helper, inlined, wide_vectors
from .exp import difference, fused_multiply_add, log1p, log1p_pair
from .sums import (
    GAP,
    GAP_LOW,
    HIT,
    INNER,
    OTHER,
    SPREAD,
    SQUARES,
    SUM_FIELDS,
    TOP,
    TOTAL,
    TOTAL_LOW,
    WEIGHT,
    Scalars,
    compensated,
    sum_of_exponentials,
    sum_of_inner,
    sum_of_mass,
    sum_of_squares,
)
from .terms import (
    BRIER,
    D_BRIER,
    D_ENTROPY,
    D_LSE,
    D_MISS,
    D_NLL,
    ENTROPY,
    LSE,
    MASS,
    MISS,
    NLL,
    PLAIN,
    PLAIN_LOW,
    lanes_of,
    number_fields,
)

__all__ = [
    "ALL_FIELDS",
    "Slopes",
    "add_square",
    "distribution_statistics",
    "element",
    "entropy_statistics",
    "fill_brier",
    "gather",
    "label_statistics",
    "load_labels",
    "load_masses",
    "over_square",
    "own_element",
    "plain_nll",
    "scalars_of",
    "simple_slopes",
    "slopes_at",
    "with_target",
]

# The tail is the sum of the exponentials without the maximum's own 1, a row's factor is 0 if it does not count, and the
# simple gradient is ``ALONG e - AGAINST w t'``.
TAIL, TAIL_LOW, ONES, LOG_SUM, TRUE_LOGIT, TRUE_E, TRUE_MISS = number_fields(SUM_FIELDS, SUM_FIELDS + 7)
LABEL, OWN_WEIGHT, FACTOR, ALONG, AGAINST = number_fields(SUM_FIELDS + 7, SUM_FIELDS + 12)
ALL_FIELDS = int(AGAINST) + 1

MOST_FLOAT = 2.0**126
"""Up to this size float32 holds a gradient's factors, their products with numbers below 2, and differences of those."""


@helper
def scalars_of(weights: Any, scale: Any) -> Any:
    """The record of a loss's scalars, from a tuple as Python gives it."""
    smoothing, classes = weights[4], len(weights[0])
    share = smoothing / classes
    rest = share * (classes - 1)
    return Scalars(1.0 - smoothing, share, rest, smoothing, weights[3], weights[2], weights[5], scale)


@inlined
def with_target(s: Any, kept: Any, share: Any) -> Any:
    """The same with another smoothing."""
    return Scalars(kept, share, 0.0, s.smoothing, s.total, s.unit, s.is_plain, s.scale)


@inlined
def load_labels(labels: Any, row_weight: Any, first: Any, last: Any, weight: Any, s: Any, work: Any, f: Any) -> None:
    """Labels of the rows ``first:last``, weights of their classes and factors of the rows."""
    lanes = lanes_of(work)
    for i in range(lanes):
        label = labels[first + i] if first + i < last else -1
        factor = 0.0
        wy = 0.0
        if label >= 0:
            wy = weight[label]
            if s.kept * wy + s.share * s.total != 0.0:
                factor = row_weight[first + i] if len(row_weight) > 0 else 1.0
        f[LABEL * lanes + i] = np.float64(label if label > 0 else 0)
        f[OWN_WEIGHT * lanes + i] = wy
        f[FACTOR * lanes + i] = factor


@inlined
def load_masses(t: Any, row_weight: Any, first: Any, last: Any, weight: Any, s: Any, work: Any, f: Any) -> None:
    """The masses of the targets of rows ``first:last`` and factors of the rows."""
    sum_of_mass(WEIGHT, t, t, t, weight, s, work, f)
    lanes = lanes_of(work)
    for i in range(lanes):
        mass = compensated(f, WEIGHT, lanes, i)
        factor = 0.0
        if mass != 0.0 and first + i < last:
            factor = row_weight[first + i] if len(row_weight) > 0 else 1.0
        f[MASS * lanes + i] = mass
        f[FACTOR * lanes + i] = factor


@inlined
def gather(x: Any, work: Any, field: Any, f: Any) -> None:
    """Fill a field with the elements of the labels."""
    lanes = lanes_of(work)
    for i in range(lanes):
        f[field * lanes + i] = as_number(x[int(f[LABEL * lanes + i]) * lanes + i])


@helper
def plain_nll(m: Any, zy: Any, log_sum: Any, log_low: Any) -> Any:
    """``(m - z_y) + (log_sum + log_low)`` as a sum of two doubles: a power of the likelihood needs both."""
    gap, gap_low = difference(m, zy)
    first = gap + log_sum
    shifted = first - gap
    low = ((gap - (first - shifted)) + (log_sum - shifted)) + (gap_low + log_low)
    n = first + low
    return (n, low - (n - first)) if first < np.inf else (first, 0.0)


@inlined
def label_statistics(s: Any, work: Any, f: Any) -> None:
    """What a loss may read of a row with a label, but for entropy and Brier score."""
    wide_vectors()
    lanes = lanes_of(work)
    for i in range(lanes):
        top = f[TOP * lanes + i]
        zy = f[TRUE_LOGIT * lanes + i]
        ey = f[TRUE_E * lanes + i]
        tail = f[TAIL * lanes + i]
        log_sum, log_low = log1p_pair(tail)
        n, low = plain_nll(top, zy, log_sum, log_low)
        f[LOG_SUM * lanes + i] = log_sum
        f[PLAIN * lanes + i] = n
        f[PLAIN_LOW * lanes + i] = low
        f[LSE * lanes + i] = top + log_sum
        # The sum without y: no cancellation, because a maximum is left in it or y is a maximum itself.
        f[TRUE_MISS * lanes + i] = (tail if zy == top else 1.0 + (tail - ey)) / (1.0 + tail)
        f[HIT * lanes + i] = s.kept * (ey / (1.0 + tail))
    if s.smoothing == 0.0:
        for i in range(lanes):
            wy = f[OWN_WEIGHT * lanes + i]
            f[MASS * lanes + i] = wy
            f[NLL * lanes + i] = wy * f[PLAIN * lanes + i]
            f[MISS * lanes + i] = f[TRUE_MISS * lanes + i]
    else:
        for i in range(lanes):
            own = s.kept * f[OWN_WEIGHT * lanes + i]
            rest = compensated(f, GAP, lanes, i) + s.total * f[LOG_SUM * lanes + i]
            f[MASS * lanes + i] = own + s.share * s.total
            f[NLL * lanes + i] = (own * f[PLAIN * lanes + i] if own != 0.0 else 0.0) + s.share * rest
            f[MISS * lanes + i] = s.kept * f[TRUE_MISS * lanes + i] + (s.smoothing - s.share)


@helper
def distribution_statistics(full: Any, work: Any, f: Any) -> None:
    """The same of a row with a distribution, whose sums are done; its miss only if `full` is not None."""
    wide_vectors()
    lanes = lanes_of(work)
    for i in range(lanes):
        log_sum = log1p(f[TAIL * lanes + i])
        mass = f[MASS * lanes + i]
        f[LOG_SUM * lanes + i] = log_sum
        f[LSE * lanes + i] = f[TOP * lanes + i] + log_sum
        f[NLL * lanes + i] = compensated(f, GAP, lanes, i) + (mass * log_sum if mass != 0.0 else 0.0)
        if full is not None:
            total = 1.0 + f[TAIL * lanes + i]
            f[HIT * lanes + i] = compensated(f, HIT, lanes, i) / total
            f[MISS * lanes + i] = compensated(f, OTHER, lanes, i) / total


@helper
def entropy_statistics(work: Any, f: Any) -> None:
    lanes = lanes_of(work)
    for i in range(lanes):
        f[SPREAD * lanes + i] = compensated(f, SPREAD, lanes, i) / (1.0 + f[TAIL * lanes + i])
        f[ENTROPY * lanes + i] = f[LOG_SUM * lanes + i] + f[SPREAD * lanes + i]


@inlined
def over_square(above: Any, above_low: Any, total: Any, total_low: Any) -> Any:
    """``(above + above_low) / (total + total_low)^2``, rounded once.

    With plain arithmetic the Brier score is 4.4 ulps off, and without the low parts its gradient is 8.2.
    """
    below = total * total
    below_low = fused_multiply_add(total, total, -below) + 2.0 * total * total_low
    ratio = above / below
    return ratio + (fused_multiply_add(-ratio, below, above) + above_low - ratio * below_low) / below


@inlined
def add_square(x: Any, base: Any, low: Any) -> Any:
    """``x + (base + low)^2`` and what its rounding lost."""
    square = base * base
    above = x + square
    shifted = above - x
    lost = (x - (above - shifted)) + (square - shifted)
    return above, lost + (fused_multiply_add(base, base, -square) + 2.0 * base * low)


@helper
def fill_brier(e: Any, t: Any, labels: Any, weight: Any, s: Any, work: Any, f: Any) -> None:
    """The Brier score and ``sum p (p - t')``, which its gradient needs.

    Everything is summed times ``s^2``, where s is the sum of the exponentials, and divided once: a square doubles the
    relative errors of its factors, so those of s and of ``1 - p_y`` are carried to the end.
    """
    lanes = lanes_of(work)
    if labels is not None:
        # The label's class apart: (p_y - t'_y) s = (epsilon - u) s - (the sum of the other e).
        for i in range(lanes):
            e[int(f[LABEL * lanes + i]) * lanes + i] = 0
        sum_of_exponentials(GAP, e, e, t, weight, s, work, f)
        for i in range(lanes):
            ey = f[TRUE_E * lanes + i]
            missed = f[GAP * lanes + i]
            total = missed + ey
            shifted = total - missed
            f[TOTAL * lanes + i] = total
            f[TOTAL_LOW * lanes + i] = ((missed - (total - shifted)) + (ey - shifted)) + f[GAP_LOW * lanes + i]
    if t is not None:
        for i in range(lanes):
            tail = f[TAIL * lanes + i]
            total = 1.0 + tail
            f[TOTAL * lanes + i] = total
            f[TOTAL_LOW * lanes + i] = (tail - (total - 1.0)) if tail < 1.0 else (1.0 - (total - tail))
    sum_of_squares(SQUARES, e, e, t, weight, s, work, f)
    sum_of_inner(INNER, e, e, t, weight, s, work, f)
    for i in range(lanes):
        total = f[TOTAL * lanes + i]
        low = f[TOTAL_LOW * lanes + i]
        squares, squares_low = compensated(f, SQUARES, lanes, i), 0.0
        inner = compensated(f, INNER, lanes, i)
        if labels is not None:
            missed = f[GAP * lanes + i]
            carried = (s.smoothing - s.share) * total
            own = carried - missed
            squares = max(squares - (s.share * total) * (s.share * total), 0.0)  # less what the label's class added
            squares, squares_low = add_square(squares, own, (carried - (own + missed)) - f[GAP_LOW * lanes + i])
            inner += f[TRUE_E * lanes + i] * own
        f[BRIER * lanes + i] = over_square(squares, squares_low, total, low)
        f[INNER * lanes + i] = over_square(inner, 0.0, total, low)
    if labels is not None:
        for i in range(lanes):
            e[int(f[LABEL * lanes + i]) * lanes + i] = e.dtype.type(f[TRUE_E * lanes + i])


@inlined
def simple_slopes(s: Any, most: Any, work: Any, f: Any) -> Any:
    """Fill ``A`` and ``B`` of ``A e_k - B w_k t'_k``; return whether all can be rounded to the logits' precision."""
    lanes = lanes_of(work)
    beyond = 0
    for i in range(lanes):
        factor = s.scale * f[FACTOR * lanes + i]
        mass = f[MASS * lanes + i]
        against = factor * f[D_NLL * lanes + i]
        along = against * mass + factor * f[D_MISS * lanes + i] * f[HIT * lanes + i] + factor * f[D_LSE * lanes + i]
        along = along / (1.0 + f[TAIL * lanes + i])
        f[ALONG * lanes + i] = along
        f[AGAINST * lanes + i] = against
        beyond += (abs(along) > most) | (abs(against) * max(s.unit, mass, 1.0) > most)
    return beyond == 0


class Slopes(NamedTuple):
    """The numbers of a row that its gradient's elements are made of, those of the loss times the row's factor."""

    top: float
    total: float
    mass: float
    hit: float
    spread: float
    inner: float
    nll: float
    miss: float
    lse: float
    entropy: float
    brier: float


@inlined
def slopes_at(i: Any, lanes: Any, s: Any, f: Any) -> Any:
    factor = s.scale * f[FACTOR * lanes + i]
    return Slopes(
        f[TOP * lanes + i],
        1.0 + f[TAIL * lanes + i],
        f[MASS * lanes + i],
        f[HIT * lanes + i],
        f[SPREAD * lanes + i],
        f[INNER * lanes + i],
        factor * f[D_NLL * lanes + i],
        factor * f[D_MISS * lanes + i],
        factor * f[D_LSE * lanes + i],
        factor * f[D_ENTROPY * lanes + i],
        2.0 * factor * f[D_BRIER * lanes + i],
    )


@inlined
def element(z: Any, e: Any, t: Any, w: Any, s: Any, d: Any) -> Any:
    """The gradient at one class."""
    p = e / d.total
    goal = s.kept * t
    gap = d.top - z if p != 0.0 else 0.0
    inside = d.nll * d.mass + d.lse + d.miss * (d.hit - goal) + d.entropy * (gap - d.spread)
    inside += d.brier * ((p - (goal + s.share)) - d.inner)
    return p * inside - d.nll * w * (goal + s.share)


@inlined
def own_element(e: Any, s: Any, full: Any, work: Any, f: Any) -> None:
    """Write the gradient at the label's class, without the cancellation in ``p_y - t'_y``."""
    lanes = lanes_of(work)
    number = e.dtype.type
    for i in range(lanes):
        factor = s.scale * f[FACTOR * lanes + i]
        d_nll = factor * f[D_NLL * lanes + i]
        wy = f[OWN_WEIGHT * lanes + i]
        miss = f[TRUE_MISS * lanes + i]
        p = f[TRUE_E * lanes + i] / (1.0 + f[TAIL * lanes + i])
        inside = d_nll * (s.share * (s.total - wy)) + factor * (
            f[D_LSE * lanes + i] - f[D_MISS * lanes + i] * s.kept * miss
        )
        if full is not None:
            gap = f[TOP * lanes + i] - f[TRUE_LOGIT * lanes + i] if p > 0.0 else 0.0
            far = ((s.smoothing - s.share) - miss) - f[INNER * lanes + i]
            inside += factor * f[D_ENTROPY * lanes + i] * (gap - f[SPREAD * lanes + i])
            inside += 2.0 * factor * f[D_BRIER * lanes + i] * far
        e[int(f[LABEL * lanes + i]) * lanes + i] = number(p * inside - d_nll * (wy * (s.kept + s.share)) * miss)
