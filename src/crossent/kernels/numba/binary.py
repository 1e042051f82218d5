"""Kernel for the sigmoid link: every entry is a row ``(0, z)`` of two classes.

Entries are taken `LANES` at a time, whatever the row length, and computed in double precision. With ``e = e^-|z|``,
``p1 = sigmoid(z)`` and ``p0 = 1 - p1`` (both formed without cancellation), the target
``t' = (1 - epsilon) t + epsilon/2`` and the class weights ``w0``, ``w1``::

    nll     w0 (1 - t') softplus(z) + w1 t' softplus(-z)      d/dz  w0 (1 - t') p1 - w1 t' p0
    miss    t' p0 + (1 - t') p1                               d/dz  (1 - 2 t') p0 p1
    lse     softplus(z)                                       d/dz  p1
    H       log(1 + e) + |z| e / (1 + e)                      d/dz  -z p0 p1
    brier   2 (p1 - t')^2                                     d/dz  4 (p1 - t') p0 p1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bits import copy_row
from .compile import helper, inlined, kernel, named, wide_vectors
from .exp import (
    exp_for_float,
    exp_sum,
    fused_multiply_add,
    log1p_pair,
    logistic_for_float,
    maximum,
    multiply_add,
)
from .statistics import add_square, over_square, plain_nll
from .sums import add_two_sum, sum_of
from .terms import (
    BRIER,
    BRIER_TERM,
    CROSS_ENTROPY,
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
    evaluate_terms,
    number_fields,
)

__all__ = ["sigmoid_rows"]

# More fields of a block, behind those of the closed forms.
LOGIT, TARGET, OTHER, W0, W1, FACTOR, ACTIVE, P0, P1, GRADIENT = number_fields(FIELDS, FIELDS + 10)
MASS_OF_BOTH, LINEAR, NEAR, FAR, E = number_fields(FIELDS + 10, FIELDS + 15)
BLOCK_FIELDS = int(E) + 1


@helper
def _block_statistics(f: Any) -> None:
    for i in range(LANES):
        z = f[LOGIT * LANES + i]
        e = exp_sum(-abs(z), 0.0)
        log_sum, log_low = log1p_pair(e)
        large = 1.0 / (1.0 + e)
        small = e * large
        p1 = large if z >= 0.0 else small
        p0 = small if z >= 0.0 else large
        t = f[TARGET * LANES + i]
        other = f[OTHER * LANES + i]
        positive = maximum(z, 0.0) + log_sum
        negative = maximum(-z, 0.0) + log_sum
        # 0 times an infinite logit is 0: what has no weight adds nothing.
        a0 = f[W0 * LANES + i] * other
        a1 = f[W1 * LANES + i] * t
        f[NLL * LANES + i] = (a0 * positive if a0 != 0.0 else 0.0) + (a1 * negative if a1 != 0.0 else 0.0)
        f[MASS * LANES + i] = a0 + a1
        gap = maximum(-z if t > 0.5 else z, 0.0)
        f[PLAIN * LANES + i], f[PLAIN_LOW * LANES + i] = plain_nll(gap, 0.0, log_sum, log_low)
        f[MISS * LANES + i] = t * p0 + other * p1
        f[LSE * LANES + i] = positive
        f[ENTROPY * LANES + i] = log_sum + (abs(z) * small if e != 0.0 else 0.0)
        f[E * LANES + i] = e
        f[P0 * LANES + i] = p0
        f[P1 * LANES + i] = p1


@helper
def _block_brier(f: Any) -> None:
    """The Brier score, and probabilities that are right enough for its square and its gradient's products."""
    for i in range(LANES):
        is_positive = f[LOGIT * LANES + i] >= 0.0
        e = f[E * LANES + i]
        total = 1.0 + e
        low = e - (total - 1.0)
        large = 1.0 / total
        large += large * (fused_multiply_add(-large, total, 1.0) - large * low)
        f[P0 * LANES + i] = e * large if is_positive else large
        f[P1 * LANES + i] = large if is_positive else e * large
        t = f[TARGET * LANES + i]
        other = f[OTHER * LANES + i]
        d = multiply_add(other, 1.0 if is_positive else e, -(t * (e if is_positive else 1.0)))
        above, above_low = add_square(0.0, d, 0.0)
        f[BRIER * LANES + i] = 2.0 * over_square(above, above_low, total, low)


@helper
def _block_gradient(f: Any, scale: Any) -> None:
    for i in range(LANES):
        z = f[LOGIT * LANES + i]
        t = f[TARGET * LANES + i]
        other = f[OTHER * LANES + i]
        p0 = f[P0 * LANES + i]
        p1 = f[P1 * LANES + i]
        both = p0 * p1
        g = f[D_NLL * LANES + i] * (f[W0 * LANES + i] * other * p1 - f[W1 * LANES + i] * t * p0)
        g += f[D_MISS * LANES + i] * (other - t) * both
        g += f[D_LSE * LANES + i] * p1 if p1 != 0.0 else 0.0
        g -= f[D_ENTROPY * LANES + i] * (z * both if both != 0.0 else 0.0)
        g += f[D_BRIER * LANES + i] * 4.0 * (other * p1 - t * p0) * both
        f[GRADIENT * LANES + i] = scale * f[FACTOR * LANES + i] * g if f[ACTIVE * LANES + i] != 0.0 else 0.0


def _make_cross_entropy(exp: Any, logistic: Any, name: str) -> Any:
    """Loss and gradient of a block for plain cross-entropy: what most calls ask for, in a third of the operations.

    In steps: a processor overlaps the long chains of one step for many entries, of all together only for two or three;
    and without branches, every value loaded before it is chosen, or LLVM makes no vector code of it.
    """

    def block(f: Any, kept: Any, half: Any, weight: Any, scale: Any) -> None:
        wide_vectors()
        for i in range(LANES):
            given = f[TARGET * LANES + i]
            z = f[LOGIT * LANES + i]
            a1 = f[W1 * LANES + i] * (kept * given + half)
            a0 = f[W0 * LANES + i] * (kept * (1.0 - given) + half)
            mass = a0 + a1
            factor = f[FACTOR * LANES + i]
            active = (given >= 0.0) & (mass != 0.0) & (factor != 0.0)
            is_up = z >= 0.0
            down = -a1
            near = a0 if is_up else down
            far = down if is_up else a0
            near = near if active else 0.0
            far = far if active else 0.0
            mass = mass if active else 0.0
            linear = near * z
            fall = -abs(z)
            # 0 times an infinite logit is 0: what has no weight adds nothing.
            f[LINEAR * LANES + i] = linear if near != 0.0 else 0.0
            f[NEAR * LANES + i] = near
            f[FAR * LANES + i] = far
            f[MASS_OF_BOTH * LANES + i] = mass
            f[E * LANES + i] = fall if active else 0.0
        for i in range(LANES):
            f[E * LANES + i] = exp(f[E * LANES + i])
        for i in range(LANES):
            e = f[E * LANES + i]
            log_sum, large = logistic(e)
            f[LOSS * LANES + i] = weight * multiply_add(f[MASS_OF_BOTH * LANES + i], log_sum, f[LINEAR * LANES + i])
            gradient = multiply_add(f[FAR * LANES + i], e, f[NEAR * LANES + i]) * large
            f[GRADIENT * LANES + i] = (scale * weight) * f[FACTOR * LANES + i] * gradient

    return helper(named(block, name))


@inlined
def _exp_of_double(d: Any) -> Any:
    return exp_sum(d, 0.0)


@inlined
def _logistic_of_double(e: Any) -> Any:
    return log1p_pair(e)[0], 1.0 / (1.0 + e)


cross_entropy_of_floats = _make_cross_entropy(exp_for_float, logistic_for_float, "cross_entropy_of_floats")
cross_entropy_of_doubles = _make_cross_entropy(_exp_of_double, _logistic_of_double, "cross_entropy_of_doubles")


@helper
def _plain_weight(terms: Any) -> float:
    """The factor of a loss that is plain cross-entropy; 0 for any other."""
    return terms[0, 1] if len(terms) == 1 and terms[0, 0] == CROSS_ENTROPY else 0.0


@helper
def _add_to_rows(losses: Any, row: Any, k: Any, classes: Any, high: Any, low: Any, loss: Any, logits: Any) -> Any:
    """Add a block's losses, the first (row, k)'s, to their rows; (high, low) is the open row's sum."""
    done = 0
    while done < len(losses):
        part = losses[done : done + classes - k]
        high, low = add_two_sum(high, low, sum_of(part, logits))
        done += len(part)
        k += len(part)
        if k == classes:
            loss[row] = high + low
            high, low = 0.0, 0.0
            row += 1
            k = 0
    return high, low


@inlined
def load_entries(source: Any, f: Any, field: Any) -> None:
    """Fill a field with the numbers of some entries."""
    copy_row(source, f[field * LANES : field * LANES + len(source)])


@helper
def _load_targets(f: Any, kept: Any, half: Any) -> None:
    """Smooth the targets and decide which entries count; the others are computed as harmless ones and dropped later."""
    for i in range(LANES):
        given = f[TARGET * LANES + i]
        t = kept * given + half
        other = kept * (1.0 - given) + half  # 1 - t without the rounding of t
        mass = f[W0 * LANES + i] * other + f[W1 * LANES + i] * t
        active = 0.0 if given < 0.0 or mass == 0.0 or f[FACTOR * LANES + i] == 0.0 else 1.0
        f[ACTIVE * LANES + i] = active
        f[TARGET * LANES + i] = t if active != 0.0 else 0.0
        f[OTHER * LANES + i] = other if active != 0.0 else 1.0
        f[LOGIT * LANES + i] = f[LOGIT * LANES + i] if active != 0.0 else 0.0


@helper
def load_factors(
    f: Any, lanes: Any, row: Any, k: Any, classes: Any, class_weight: Any, row_weight: Any, entry_weight: Any
) -> None:
    """Class weights of the entries' columns, and the weights of their rows times their own."""
    for i in range(lanes):
        if len(class_weight) > 0:
            f[W0 * LANES + i] = class_weight[0, k]
            f[W1 * LANES + i] = class_weight[1, k]
        if len(row_weight) > 0:
            f[FACTOR * LANES + i] = row_weight[row]
        if len(entry_weight) > 0:
            f[FACTOR * LANES + i] = (row_weight[row] if len(row_weight) > 0 else 1.0) * entry_weight[row, k]
        k += 1
        if k == classes:
            k = 0
            row += 1


@kernel
def sigmoid_rows(
    logits: Any,
    labels: Any,
    soft: Any,
    weights: Any,
    smoothing: Any,
    terms: Any,
    scale: Any,
    grad: Any,
    entry_loss: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """Rows ``start:stop`` of entries; unused arrays are empty, `weights` those of classes, rows and
    entries. Logits and gradient may be bits of bfloat16 numbers.

    With fewer losses than rows, of one entry each, there is one for every `LANES` rows: their sum.
    """
    wide_vectors()
    classes = logits.shape[1]
    class_weight, row_weight, entry_weight = weights
    is_single = logits.itemsize < 8
    flat_logits, flat_labels, flat_soft = logits.reshape(-1), labels.reshape(-1), soft.reshape(-1)
    flat_grad, flat_loss = grad.reshape(-1), entry_loss.reshape(-1)
    f = np.zeros(BLOCK_FIELDS * LANES)
    f[W0 * LANES : (W1 + 1) * LANES] = 1.0
    f[FACTOR * LANES : (FACTOR + 1) * LANES] = 1.0
    plain = _plain_weight(terms)
    with_brier = False
    for j in range(len(terms)):
        with_brier |= terms[j, 0] == BRIER_TERM
    high, low = 0.0, 0.0
    end = stop * classes
    for first in range(start * classes, end, LANES):
        last = min(first + LANES, end)
        row = first // classes
        k = first - row * classes
        load_entries(flat_logits[first:last], f, LOGIT)
        if len(flat_labels) > 0:
            load_entries(flat_labels[first:last], f, TARGET)
        else:
            load_entries(flat_soft[first:last], f, TARGET)
        if len(class_weight) > 0 or len(row_weight) > 0 or len(entry_weight) > 0:
            load_factors(f, last - first, row, k, classes, class_weight, row_weight, entry_weight)
        if plain != 0.0 and is_single:
            cross_entropy_of_floats(f, 1.0 - smoothing, 0.5 * smoothing, plain, scale)
        elif plain != 0.0:
            cross_entropy_of_doubles(f, 1.0 - smoothing, 0.5 * smoothing, plain, scale)
        else:
            _load_targets(f, 1.0 - smoothing, 0.5 * smoothing)
            _block_statistics(f)
            if with_brier:
                _block_brier(f)
            evaluate_terms(f, terms, None)
            for i in range(LANES):
                f[LOSS * LANES + i] = f[LOSS * LANES + i] if f[ACTIVE * LANES + i] != 0.0 else 0.0
            if len(flat_grad) > 0:
                _block_gradient(f, scale)
        if len(flat_loss) > 0:
            copy_row(f[LOSS * LANES : (LOSS + 1) * LANES], flat_loss[first:last])
        if len(flat_grad) > 0:
            copy_row(f[GRADIENT * LANES : (GRADIENT + 1) * LANES], flat_grad[first:last])
        losses = f[LOSS * LANES : LOSS * LANES + last - first]
        if len(loss) < len(logits):
            loss[row // LANES] = sum_of(losses, logits)
        elif classes == 1:
            copy_row(losses, loss[row : row + len(losses)])
        else:
            high, low = _add_to_rows(losses, row, k, classes, high, low, loss, logits)
