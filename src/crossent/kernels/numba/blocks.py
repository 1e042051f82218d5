"""Blocks of `LANES` short rows, with the classes outside and the rows inside: the steps that `narrow` is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .closed_forms import FIELDS, LANES, LOSS, LSE, MASS, MISS, NLL, PLAIN, PLAIN_LOW, number_fields
from .compile import helper, inlined, wide_vectors
from .exp import below_one, exp_difference, larger, log1p, log1p_pair, overload
from .wide import plain_nll

# More fields of a block, behind those of the closed forms.
TAIL, LOW, ONES, TRUE_LOGIT, TRUE_E, TRUE_MISS, GAP, GAP_LOW, FACTOR, OWN_WEIGHT = number_fields(FIELDS, FIELDS + 10)
HIT, HIT_LOW, OTHER, OTHER_LOW, SPREAD, SPREAD_LOW, INNER, INNER_LOW = number_fields(FIELDS + 10, FIELDS + 18)
OWN, ALONG, AGAINST, TOTAL, TOTAL_LOW = number_fields(FIELDS + 18, FIELDS + 23)
BLOCK_FIELDS = int(TOTAL_LOW) + 1


@inlined
def add_compensated(f: Any, field: Any, i: Any, v: Any) -> None:
    """Add ``v`` to a field; the next field gathers the rounding errors."""
    high = f[field * LANES + i]
    total = high + v
    shifted = total - high
    f[(field + 1) * LANES + i] += (high - (total - shifted)) + (v - shifted)
    f[field * LANES + i] = total


@inlined
def compensated(f: Any, field: Any, i: Any) -> Any:
    high = f[field * LANES + i]
    return high + f[(field + 1) * LANES + i] if abs(high) < np.inf else high


@helper
def clear_sum(f: Any, field: Any) -> None:
    for i in range(2 * LANES):
        f[field * LANES + i] = 0.0


@helper
def load_rows(rows: Any, f: Any, x: Any) -> None:
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
def load_targets(rows: Any, x: Any) -> None:
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
def store_rows(x: Any, rows: Any) -> None:
    lanes, classes = rows.shape
    for i in range(lanes):
        g = rows[i]
        for k in range(classes):
            g[k] = x[k * LANES + i]


@helper
def block_maximum(x: Any, m: Any) -> None:
    """The maxima; of a row that holds a NaN any number will do, as its exponentials hold one too."""
    wide_vectors()
    for i in range(LANES):
        m[i] = x[i]
    classes = len(x) // LANES
    for k in range(0, classes - 3, 4):
        z = x[k * LANES : (k + 4) * LANES]
        for i in range(LANES):
            top = larger(larger(z[i], z[i + LANES]), larger(z[i + 2 * LANES], z[i + 3 * LANES]))
            m[i] = larger(top, m[i])
    for k in range(classes - classes % 4, classes):
        z = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            m[i] = larger(z[i], m[i])


@helper
def block_exp(x: Any, m: Any) -> None:
    wide_vectors()
    for start in range(0, len(x), LANES):
        z = x[start : start + LANES]
        for i in range(LANES):
            z[i] = exp_difference(z[i], m[i])


@inlined
def is_one(v: Any) -> Any:
    return 1.0 if v == 1.0 else 0.0


@helper
def _tail_of_floats(x: Any, f: Any) -> None:
    # Doubles have 29 bits to spare here, which a plain sum leaves to 2^20 classes and more.
    wide_vectors()
    clear_sum(f, TAIL)
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
            f[TAIL * LANES + i] += (below_one(e0) + below_one(e1)) + (below_one(e2) + below_one(e3))
            f[ONES * LANES + i] += (is_one(e0) + is_one(e1)) + (is_one(e2) + is_one(e3))
    for k in range(classes - classes % 4, classes):
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            v = np.float64(e[i])
            f[TAIL * LANES + i] += below_one(v)
            f[ONES * LANES + i] += is_one(v)
    for i in range(LANES):
        f[TAIL * LANES + i] += f[ONES * LANES + i]


@helper
def _tail_of_doubles(x: Any, f: Any) -> None:
    wide_vectors()
    clear_sum(f, TAIL)
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
            add_compensated(f, TAIL, i, (below_one(e0) + below_one(e1)) + (below_one(e2) + below_one(e3)))
            f[ONES * LANES + i] += (is_one(e0) + is_one(e1)) + (is_one(e2) + is_one(e3))
    for k in range(classes - classes % 4, classes):
        e = x[k * LANES : (k + 1) * LANES]
        for i in range(LANES):
            v = np.float64(e[i])
            add_compensated(f, TAIL, i, below_one(v))
            f[ONES * LANES + i] += is_one(v)
    for i in range(LANES):
        f[TAIL * LANES + i] = f[ONES * LANES + i] + (f[TAIL * LANES + i] + f[LOW * LANES + i])


def block_tail(x: Any, f: Any) -> None:
    """The sums of the exponentials without the maximum's own 1, four classes at a time."""
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(block_tail, jit_options={"error_model": "numpy", "nogil": True})
def _typed_tail(x, f):
    if x.dtype == types.float32:
        return lambda x, f: _tail_of_floats(x, f)
    return lambda x, f: _tail_of_doubles(x, f)


@helper
def gather(x: Any, y: Any, f: Any, field: Any) -> None:
    for i in range(LANES):
        f[field * LANES + i] = x[y[i] * LANES + i]


@helper
def block_gap(x: Any, m: Any, weight: Any, f: Any) -> None:
    """``sum w_k (m - z_k)``, four classes at a time; a class of weight 0 adds 0 even if it is masked."""
    wide_vectors()
    clear_sum(f, GAP)
    classes = len(weight)
    for k in range(0, classes - 3, 4):
        z = x[k * LANES : (k + 4) * LANES]
        w0, w1, w2, w3 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for i in range(LANES):
            top = np.float64(m[i])
            v0 = w0 * (top - np.float64(z[i])) if w0 != 0.0 else 0.0
            v1 = w1 * (top - np.float64(z[i + LANES])) if w1 != 0.0 else 0.0
            v2 = w2 * (top - np.float64(z[i + 2 * LANES])) if w2 != 0.0 else 0.0
            v3 = w3 * (top - np.float64(z[i + 3 * LANES])) if w3 != 0.0 else 0.0
            add_compensated(f, GAP, i, (v0 + v1) + (v2 + v3))
    for k in range(classes - classes % 4, classes):
        z = x[k * LANES : (k + 1) * LANES]
        w = weight[k]
        if w != 0.0:
            for i in range(LANES):
                add_compensated(f, GAP, i, w * (np.float64(m[i]) - np.float64(z[i])))


@helper
def true_class(f: Any, m: Any) -> None:
    """The scalars of a row with a hard label, from its tail, ``z_y`` and ``e^(z_y - m)``."""
    wide_vectors()
    for i in range(LANES):
        top = np.float64(m[i])
        zy = f[TRUE_LOGIT * LANES + i]
        ey = f[TRUE_E * LANES + i]
        tail = f[TAIL * LANES + i]
        log_sum, log_low = log1p_pair(tail)
        n, low = plain_nll(top, zy, log_sum, log_low)
        f[PLAIN * LANES + i] = n
        f[PLAIN_LOW * LANES + i] = low
        f[LSE * LANES + i] = top + log_sum
        f[TRUE_MISS * LANES + i] = (tail if zy == top else 1.0 + (tail - ey)) / (1.0 + tail)


@helper
def hard_statistics(f: Any, weight_sum: Any, smoothing: Any, share: Any) -> None:
    wide_vectors()
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
            rest = compensated(f, GAP, i) + weight_sum * log1p(f[TAIL * LANES + i])
            f[MASS * LANES + i] = own + share * weight_sum
            f[NLL * LANES + i] = (own * f[PLAIN * LANES + i] if own != 0.0 else 0.0) + share * rest
            f[MISS * LANES + i] = kept * f[TRUE_MISS * LANES + i] + (smoothing - share)


@helper
def load_labels(
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
def store_loss(f: Any, loss: Any) -> None:
    for i in range(len(loss)):
        loss[i] = f[LOSS * LANES + i] if f[FACTOR * LANES + i] != 0.0 else 0.0
