"""Kernels for the softmax link: value and gradient of rows, all row statistics, and the pullback of a gradient on them.

Every kernel takes any target and any loss, and what these do not need is left out when it is compiled: labels or
distributions are None, and `full` is None for a loss whose gradient is ``A e - B w t'`` (`statistics` says which). Else
`full` says what the loss reads besides: the sum of `WITH_ENTROPY` and `WITH_BRIER`.

The steps are those of one row, and of a block of short rows:

1. maximum m                                      4. the loss and its slopes (`terms`)
2. sums over the logits, exponentials, their sum   5. the gradient in place of the exponentials
3. sums over the exponentials, statistics
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .bits import copy_row
from .blocks import (
    block_exponentials,
    block_gradient,
    block_maxima,
    end_of_block,
    full_block_gradient,
    load,
    store,
    store_loss,
)
from .compile import COMPILED, INLINED, OWNING, helper, inlined, kernel, wide_vectors
from .exp import log1p, overload
from .rows import fill_row, full_row_gradient, place_of, row_exponentials, row_gradient, row_maxima
from .statistics import (
    ALL_FIELDS,
    FACTOR,
    GAP,
    HIT,
    OTHER,
    SPREAD,
    TAIL,
    TOP,
    TRUE_E,
    TRUE_LOGIT,
    distribution_statistics,
    entropy_statistics,
    fill_brier,
    gather,
    label_statistics,
    load_labels,
    load_masses,
    own_element,
    scalars_of,
    with_target,
)
from .sums import CHUNK, compensated, sum_of_gaps, sum_of_hits, sum_of_mass, sum_of_misses, sum_of_spread
from .terms import (
    BRIER,
    D_NLL,
    ENTROPY,
    LANES,
    LOSS,
    LSE,
    MASS,
    MISS,
    NLL,
    PLAIN,
    evaluate_terms,
    lanes_of,
)

__all__ = [
    "MAX_CLASSES",
    "STATISTICS",
    "WITH_BRIER",
    "WITH_ENTROPY",
    "blocks_value_grad",
    "pullback_rows",
    "rows_value_grad",
    "statistics_rows",
]

MAX_CLASSES = 128
"""Above this the rows themselves are long enough for vector code, and a block would leave the first-level cache."""

WITH_ENTROPY, WITH_BRIER = 1, 2

STATISTICS = ("maximum", "tail", "lse", "nll", "nll_plain", "mass", "miss", "hit", "entropy", "brier")


def _block_maxima(x: Any, m: Any, work: Any) -> Any:
    block_maxima(x, m)


def _maxima(x: Any, m: Any, work: Any) -> Any:
    raise NotImplementedError("runs only inside compiled code")


# Numba requires the two signatures to agree in every detail, annotations included.
@overload(_maxima, jit_options=INLINED)
def _typed_maxima(x: Any, m: Any, work: Any) -> Any:
    return _block_maxima if isinstance(work, types.NoneType) else row_maxima


def _block_exponentials(z: Any, x: Any, m: Any, work: Any, f: Any) -> Any:
    block_exponentials(x, m, f)


def _exponentials(z: Any, x: Any, m: Any, work: Any, f: Any) -> Any:
    raise NotImplementedError("runs only inside compiled code")


@overload(_exponentials, jit_options=INLINED)
def _typed_exponentials(z: Any, x: Any, m: Any, work: Any, f: Any) -> Any:
    return _block_exponentials if isinstance(work, types.NoneType) else row_exponentials


@inlined
def _fill_statistics(
    z: Any, e: Any, t: Any, labels: Any, m: Any, weight: Any, s: Any, full: Any, work: Any, f: Any
) -> None:
    """Steps 1 to 3. For a block `work` is None, and `e` holds the logits, too."""
    _maxima(z, m, work)
    lanes = lanes_of(work)
    for i in range(lanes):
        f[TOP * lanes + i] = m[i]
    if labels is not None:
        gather(z, work, TRUE_LOGIT, f)
        if s.smoothing > 0.0:
            sum_of_gaps(GAP, z, e, t, weight, with_target(s, 0.0, 1.0), work, f)
    if t is not None:
        sum_of_gaps(GAP, z, e, t, weight, s, work, f)
    _exponentials(z, e, m, work, f)
    if labels is not None:
        gather(e, work, TRUE_E, f)
        label_statistics(s, work, f)
    if t is not None:
        if full is not None:
            sum_of_hits(HIT, e, e, t, weight, s, work, f)
            sum_of_misses(OTHER, e, e, t, weight, s, work, f)
        distribution_statistics(full, work, f)
    if full is not None:
        if full & WITH_ENTROPY:
            sum_of_spread(SPREAD, z, e, t, weight, s, work, f)
            entropy_statistics(work, f)
        if full & WITH_BRIER:
            fill_brier(e, t, labels, weight, s, work, f)


def _elements(z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any) -> Any:
    raise NotImplementedError("runs only inside compiled code")


@overload(_elements, jit_options=COMPILED)
def _typed_elements(
    z: Any, e: Any, t: Any, weight: Any, typed: Any, s: Any, full: Any, m: Any, work: Any, f: Any
) -> Any:
    if isinstance(work, types.NoneType):
        return block_gradient if isinstance(full, types.NoneType) else full_block_gradient
    return row_gradient if isinstance(full, types.NoneType) else full_row_gradient


def _target_of(soft: Any, i: Any) -> Any:
    """The distribution of a row; None with labels."""
    raise NotImplementedError("runs only inside compiled code")


@overload(_target_of, jit_options=OWNING)
def _typed_target(soft, i):
    if isinstance(soft, types.NoneType):
        return lambda soft, i: None
    return lambda soft, i: soft[i]


def _block_of(soft: Any, x: Any) -> Any:
    """A block like x for distributions; None with labels."""
    raise NotImplementedError("runs only inside compiled code")


@overload(_block_of, jit_options=OWNING)
def _typed_block(soft, x):
    if isinstance(soft, types.NoneType):
        return lambda soft, x: None
    return lambda soft, x: np.empty(len(x), x.dtype)


@kernel
def rows_value_grad(
    logits: Any,
    labels: Any,
    soft: Any,
    weights: Any,
    terms: Any,
    scale: Any,
    row_weight: Any,
    full: Any,
    grad: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """Losses of the rows ``start:stop``, and ``scale * row_weight_i`` times their gradients, one long row at a time.

    Empty arrays stand for no weights of rows and no gradient. Logits and gradient may be bits of bfloat16 numbers, and
    the gradient may take the logits' place.
    """
    wide_vectors()
    weight, typed, s = weights[0], weights[1], scalars_of(weights, scale)
    f = np.empty(ALL_FIELDS)
    fill_row(f, 0.0)
    work = np.empty(CHUNK)
    classes = logits.shape[1]
    typed_work = np.empty(classes + 1, typed.dtype)
    buffer, m = typed_work[:classes], typed_work[classes:]
    nothing = logits.dtype.type(0)
    for i in range(start, stop):
        t = _target_of(soft, i)
        if labels is not None:
            load_labels(labels, row_weight, i, stop, weight, s, work, f)
        if soft is not None:
            load_masses(t, row_weight, i, stop, weight, s, work, f)
        if f[FACTOR] == 0.0:
            loss[i] = 0.0
            if len(grad) > 0:
                fill_row(grad[i], nothing)
            continue
        z = logits[i]
        e = place_of(grad, i, buffer, full)
        _fill_statistics(z, e, t, labels, m, weight, s, full, work, f)
        evaluate_terms(f, terms, work)
        loss[i] = f[LOSS]
        if len(grad) > 0:
            _elements(z, e, t, weight, typed, s, full, m, work, f)
            if labels is not None:
                own_element(e, s, full, work, f)
            if full is not None or e.itemsize != grad.itemsize:
                copy_row(e, grad[i])


@kernel
def blocks_value_grad(
    logits: Any,
    labels: Any,
    soft: Any,
    weights: Any,
    terms: Any,
    scale: Any,
    row_weight: Any,
    full: Any,
    grad: Any,
    loss: Any,
    start: Any,
    stop: Any,
) -> None:
    """What `rows_value_grad` computes, many short rows at a time.

    Of arrays (N, C, P), row ``n P + p`` is position p of sample n.
    """
    wide_vectors()
    weight, typed, s = weights[0], weights[1], scalars_of(weights, scale)
    f = np.empty(ALL_FIELDS * LANES)
    fill_row(f, 0.0)
    counts = f[FACTOR * LANES : (FACTOR + 1) * LANES]
    size = len(weight) * LANES
    typed_work = np.empty(size + 3 * LANES, typed.dtype)
    x, m = typed_work[:size], typed_work[size:]
    z = x if full is None else np.empty(len(x), x.dtype)
    t = _block_of(soft, x)
    first = start
    while first < stop:
        last = end_of_block(logits, first, stop)
        if labels is not None:
            load_labels(labels, row_weight, first, last, weight, s, None, f)
        if soft is not None:
            f[FACTOR * LANES : (FACTOR + 1) * LANES] = 1.0
            load(soft, first, last, counts, t)
            load_masses(t, row_weight, first, last, weight, s, None, f)
        load(logits, first, last, counts, z)
        if full is not None:
            copy_row(z, x)
        _fill_statistics(z, x, t, labels, m, weight, s, full, None, f)
        evaluate_terms(f, terms, None)
        store_loss(f, loss[first:last])
        if len(grad) > 0:
            _elements(z, x, t, weight, typed, s, full, m, None, f)
            if labels is not None:
                own_element(x, s, full, None, f)
            store(x, grad, first, last)
        first = last


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
    logits: Any, labels: Any, soft: Any, weights: Any, out: Any, argmax: Any, start: Any, stop: Any
) -> None:
    """All statistics (`STATISTICS`, one row of ``out`` each); those of the target are 0 where the label is -1."""
    wide_vectors()
    weight, s = weights[0], scalars_of(weights, 1.0)
    nobody = weight[:0]
    f = np.empty(ALL_FIELDS)
    fill_row(f, 0.0)
    work = np.empty(CHUNK)
    e = np.empty(logits.shape[1], logits.dtype)
    m = np.empty(1, logits.dtype)
    ones = np.ones(logits.shape[1])
    for i in range(start, stop):
        z = logits[i]
        t = _target_of(soft, i)
        counts = True
        if labels is not None:
            load_labels(labels, nobody, i, stop, weight, s, work, f)
            counts = labels[i] >= 0
        if soft is not None:
            load_masses(t, nobody, i, stop, weight, s, work, f)
        _fill_statistics(z, e, t, labels, m, weight, s, WITH_ENTROPY + WITH_BRIER, work, f)
        plain = f[PLAIN]
        if soft is not None:  # of the target as it was given
            sum_of_gaps(GAP, z, e, t, ones, with_target(s, 1.0, 0.0), work, f)
            plain = compensated(f, GAP, 1, 0)
            sum_of_mass(GAP, z, e, t, ones, with_target(s, 1.0, 0.0), work, f)
            plain += compensated(f, GAP, 1, 0) * log1p(f[TAIL])
        out[0, i] = f[TOP]
        out[1, i] = f[TAIL]
        out[2, i] = f[LSE]
        out[3, i] = f[NLL] if counts else 0.0
        out[4, i] = plain if counts else 0.0
        out[5, i] = f[MASS] if counts else 0.0
        out[6, i] = f[MISS] if counts else 0.0
        out[7, i] = f[HIT] + s.share if counts else 0.0
        out[8, i] = f[ENTROPY]
        out[9, i] = f[BRIER] if counts else 0.0
        argmax[i] = _first_maximum(z)


@kernel
def pullback_rows(
    logits: Any, labels: Any, soft: Any, weights: Any, partials: Any, full: Any, out: Any, start: Any, stop: Any
) -> None:
    """``sum_s partials[s] * (gradient row of s)`` for nll, miss, lse, entropy and brier; 0 where the label is -1."""
    wide_vectors()
    weight, typed, s = weights[0], weights[1], scalars_of(weights, 1.0)
    nobody = weight[:0]
    f = np.empty(ALL_FIELDS)
    fill_row(f, 0.0)
    work = np.empty(CHUNK)
    e = np.empty(logits.shape[1], logits.dtype)
    m = np.empty(1, logits.dtype)
    nothing = logits.dtype.type(0)
    for i in range(start, stop):
        counts = False
        for j in range(5):
            counts |= partials[j, i] != 0.0
        if labels is not None:
            counts &= labels[i] >= 0
        if not counts:
            fill_row(out[i], nothing)
            continue
        z, t = logits[i], _target_of(soft, i)
        if labels is not None:
            load_labels(labels, nobody, i, stop, weight, s, work, f)
        if soft is not None:
            load_masses(t, nobody, i, stop, weight, s, work, f)
        f[FACTOR] = 1.0
        _fill_statistics(z, e, t, labels, m, weight, s, full, work, f)
        for j in range(5):
            f[D_NLL + j] = partials[j, i]
        _elements(z, e, t, weight, typed, s, full, m, work, f)
        if labels is not None:
            own_element(e, s, full, work, f)
        copy_row(e, out[i])
