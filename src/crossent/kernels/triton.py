"""Losses of rows of logits on a GPU: one launch for the statistics, one for the gradient. Triton.

``forward`` reads the logits once, and a second time where the target is a distribution or smoothed, or where the loss
reads more than the softmax's normaliser. It keeps a few numbers a row: the maximum m, the tail
``s₋ = Σ_{k≠argmax} e^{z_k - m}`` apart from it, and statistics of `crossent.core.statistics`. It computes cross-entropy
itself. ``backward`` reads the logits again and writes ``Σ_s φ_s · ∂s/∂z``, with the slopes φ_s of any loss.
Probabilities are in no memory in between. With a row's target u (class weights times the smoothed target) and
``U = Σ u_k`` the gradient of cross-entropy is ``U p_k - u_k``. At a label it is ``-w_y (1 - p_y)``, with ``1 - p_y``
summed without y: what is small is never a difference.

A program takes `BLOCK_ROWS` rows and goes through their classes `BLOCK_CLASSES` at a time, so one kernel serves many
short rows, one long row, and classes in any axis. Losses, sums and exponentials are float32, whatever the logits are.
"""

# mypy: ignore-errors

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

MOST_CLASSES = 4096
STRIDED_ROWS = 64
"""Rows of a tile whose classes lie apart in memory: neighbouring rows are then what is read together."""
NUMBERS, MORE_NUMBERS = 7, 11
"""Numbers that `forward` keeps of a row, and with `MORE`."""


class Matrix(NamedTuple):
    """Rows (outer × inner) of classes in memory: an address, and the strides of the three axes."""

    at: Any
    outer: int
    classes: int
    inner: int


class Target(NamedTuple):
    """Labels or distributions, laid out as `Matrix` says; weights of classes and rows, and smoothing, or None."""

    at: Any
    outer: int
    classes: int
    inner: int
    class_weight: Any
    row_weight: Any
    ignore_index: int
    smoothing: float | None


class Size(NamedTuple):
    """How many rows there are, how many of them in the inner axis, and how many classes."""

    rows: int
    inner: int
    classes: int


class Slopes(NamedTuple):
    """The loss's derivatives in the statistics, (rows,) each; None where it is 0. `nll` is plain for one label."""

    nll: Any = None
    lse: Any = None
    miss: Any = None
    entropy: Any = None
    brier: Any = None


class Scale(NamedTuple):
    """The upstream gradient and its stride; what the sum of the losses was divided by (0: an empty mean), or None."""

    upstream: Any
    stride: int
    denominator: Any


def blocks(num_classes: int, is_strided: bool) -> tuple[int, int, int]:
    """Return (BLOCK_ROWS, BLOCK_CLASSES, warps) for rows of so many classes."""
    classes = min(triton.next_power_of_2(num_classes), MOST_CLASSES)
    if is_strided:
        return STRIDED_ROWS, min(classes, 32), 4
    rows = max(1, min(64, 1024 // classes))
    return rows, classes, 4 if classes <= 1024 else 8


@triton.jit
def log1p(x):
    """``log(1 + x)`` for x ≥ 0 by Kahan's correction: the rounding of 1 + x is divided out."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.where(u == float("inf"), u, tl.log(u) * (x / (u - 1.0))))


@triton.jit
def _distribution(target, target_at, labels, classes, inside, size, SOFT: tl.constexpr):
    """Return a tile of the rows' distributions, smoothed."""
    if SOFT:
        tile = target_at[:, None] + classes[None, :] * target.classes
        wanted = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    else:
        wanted = tl.where(labels[:, None] == classes[None, :], 1.0, 0.0)
    if target.smoothing is not None:
        wanted = (1.0 - target.smoothing) * wanted + tl.where(inside, target.smoothing / size.classes, 0.0)
    return wanted


@triton.jit
def _weighted(target, wanted, classes, size):
    """Return a tile of distributions times the classes' weights."""
    if target.class_weight is not None:
        weight = tl.load(target.class_weight + classes, mask=classes < size.classes, other=0.0)
        wanted *= weight.to(tl.float32)[None, :]
    return wanted


@triton.jit
def forward(
    z, target, found, size,
    SOFT: tl.constexpr, COUNT: tl.constexpr, MORE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """Write into `found`, (numbers, rows): the weighted cross-entropy, the row's part of the mean's denominator, m, s₋,
    U (0 for a silent row, NaN for a bad one), nll (plain for one label), 1 - p_y; and with `MORE` p_y,
    ``Σ p_k (m - z_k)``, the Brier score and ``Σ p_k (p_k - t_k)``."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = row < size.rows
    outer, inner = row // size.inner, row % size.inner
    z_at = z.at + outer * z.outer + inner * z.inner
    target_at = target.at + outer * target.outer + inner * target.inner
    lane = tl.arange(0, BLOCK_CLASSES)

    # 1. Each lane has a maximum and a tail of its own; they meet once, at the end of the row.
    peaks = tl.full((BLOCK_ROWS, BLOCK_CLASSES), float("-inf"), tl.float32)
    tails = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.float32)
    tops = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.int32)
    for start in range(0, size.classes, BLOCK_CLASSES):
        classes = (start + lane).to(tl.int64)
        inside = is_row[:, None] & (classes < size.classes)[None, :]
        tile = tl.load(z_at[:, None] + classes[None, :] * z.classes, mask=inside, other=float("-inf")).to(tl.float32)
        is_higher = tile > peaks
        # Of two maxima the lower joins the tail of the higher; NaN is not higher, and stays in the tail.
        ratio = tl.where(tile == float("-inf"), 0.0, tl.exp(tl.where(is_higher, peaks - tile, tile - peaks)))
        tails = tl.where(is_higher, (tails + 1.0) * ratio, tails + ratio)
        tops = tl.where(is_higher, start, tops)
        peaks = tl.where(is_higher, tile, peaks)
    peak, top_lane = tl.max(peaks, 1, return_indices=True)
    is_top = lane[None, :] == top_lane[:, None]
    tail = tl.sum(tl.where(is_top, tails, (tails + 1.0) * tl.exp(peaks - peak[:, None])), 1)
    top = tl.sum(tl.where(is_top, tops, 0), 1) + top_lane
    # A row of only masked classes has no distribution; an infinite logit leaves none either.
    tail = tl.where((peak == float("-inf")) | (peak == float("inf")), float("nan"), tail)
    log_sum = log1p(tail)
    inverse = 1.0 / (1.0 + tail)

    # 2. The label, and whether it counts.
    labels = tl.zeros((BLOCK_ROWS,), tl.int64)
    ignored, bad = row < 0, row < 0
    if not SOFT:
        labels = tl.load(target_at, mask=is_row, other=0).to(tl.int64)
        ignored = labels == target.ignore_index
        bad = ((labels < 0) | (labels >= size.classes)) & (labels != target.ignore_index)
        labels = tl.where(ignored | bad, 0, labels)
    own_weight = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    if not SOFT and target.class_weight is not None:
        own_weight = tl.load(target.class_weight + labels, mask=is_row, other=0.0).to(tl.float32)

    # 3. What only the whole row's maximum and tail let one compute.
    mass = own_weight
    nll = log_sum
    miss = tail
    hit = tail
    if not SOFT and target.smoothing is None:
        own = tl.load(z_at + labels * z.classes, mask=is_row, other=0.0).to(tl.float32)
        nll = (peak - own) + log_sum
        hit = tl.exp(own - peak) * inverse
        # 1 - p_y: all but the largest, or all but y, which is not the largest then
        miss = tl.where(labels == top, tail, 1.0 + (tail - tl.exp(own - peak))) * inverse
    if SOFT or target.smoothing is not None or MORE:
        zero = tl.zeros((BLOCK_ROWS, BLOCK_CLASSES), tl.float32)
        masses, below, misses, hits, heats, squares, dots = zero, zero, zero, zero, zero, zero, zero
        for start in range(0, size.classes, BLOCK_CLASSES):
            classes = (start + lane).to(tl.int64)
            inside = is_row[:, None] & (classes < size.classes)[None, :]
            at_tile = z_at[:, None] + classes[None, :] * z.classes
            tile = tl.load(at_tile, mask=inside, other=float("-inf")).to(tl.float32)
            t = _distribution(target, target_at, labels, classes, inside, size, SOFT)
            lead = peak[:, None] - tile
            if SOFT or target.smoothing is not None:
                wanted = _weighted(target, t, classes, size)
                masses += wanted
                below += tl.where(wanted == 0.0, 0.0, wanted * lead)
            if MORE:
                p = tl.exp(-lead) * inverse[:, None]
                heats += tl.where(p == 0.0, 0.0, p * lead)
                if SOFT or target.smoothing is not None:
                    misses += (1.0 - t) * p
                    hits += t * p
                    squares += tl.where(inside, (p - t) * (p - t), 0.0)
                    dots += p * (p - t)
                else:
                    others = tl.where(labels[:, None] == classes[None, :], 0.0, p)
                    squares += others * others
        if SOFT or target.smoothing is not None:
            mass = tl.sum(masses, 1)
            nll = mass * log_sum + tl.sum(below, 1)
        if MORE:
            at, count = found + row, tl.zeros((), tl.int64) + size.rows
            brier = tl.sum(squares, 1)
            if SOFT or target.smoothing is not None:
                miss, hit, dot = tl.sum(misses, 1), tl.sum(hits, 1), tl.sum(dots, 1)
            else:
                dot = brier - hit * miss
                brier += miss * miss
            tl.store(at + 7 * count, hit, mask=is_row)
            tl.store(at + 8 * count, tl.sum(heats, 1), mask=is_row)
            tl.store(at + 9 * count, brier, mask=is_row)
            tl.store(at + 10 * count, dot, mask=is_row)

    # 4. Cross-entropy and the mean's denominator; that of smoothed labels has the weights of the labels.
    loss = nll if SOFT or target.smoothing is not None else mass * nll
    counted = tl.full((BLOCK_ROWS,), 1.0, tl.float32) if COUNT else own_weight
    silent = ignored | (mass == 0.0)
    if target.row_weight is not None:
        row_weight = tl.load(target.row_weight + row, mask=is_row, other=0.0).to(tl.float32)
        silent = silent | (row_weight == 0.0)
        loss *= row_weight
        if not COUNT:
            counted *= row_weight
    at, count = found + row, tl.zeros((), tl.int64) + size.rows
    tl.store(at, tl.where(silent, 0.0, tl.where(bad, float("nan"), loss)), mask=is_row)
    tl.store(at + count, tl.where(ignored, 0.0, counted), mask=is_row)
    tl.store(at + 2 * count, peak, mask=is_row)
    tl.store(at + 3 * count, tail, mask=is_row)
    tl.store(at + 4 * count, tl.where(silent, 0.0, tl.where(bad, float("nan"), mass)), mask=is_row)
    tl.store(at + 5 * count, nll, mask=is_row)
    tl.store(at + 6 * count, miss, mask=is_row)


@triton.jit
def backward(
    z, gradient, target, found, slopes, scale, size,
    SOFT: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """Write the gradient of ``Σ upstream · loss / denominator``; `gradient` may be the logits' own memory.

    Without slopes the loss is cross-entropy. An empty mean has no gradient.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = row < size.rows
    outer, inner = row // size.inner, row % size.inner
    z_at = z.at + outer * z.outer + inner * z.inner
    gradient_at = gradient.at + outer * gradient.outer + inner * gradient.inner
    target_at = target.at + outer * target.outer + inner * target.inner
    lane = tl.arange(0, BLOCK_CLASSES)

    # 1. The factor of each row; a bad row's is NaN.
    at, count = found + row, tl.zeros((), tl.int64) + size.rows
    peak = tl.load(at + 2 * count, mask=is_row, other=0.0)
    tail = tl.load(at + 3 * count, mask=is_row, other=0.0)
    mass = tl.load(at + 4 * count, mask=is_row, other=0.0)
    miss = tl.load(at + 6 * count, mask=is_row, other=0.0)
    factor = tl.load(scale.upstream + row * scale.stride, mask=is_row, other=0.0).to(tl.float32)
    if scale.denominator is not None:
        divisor = tl.load(scale.denominator).to(tl.float32)
        factor = tl.where(divisor == 0.0, 0.0, factor / divisor)
    if target.row_weight is not None:
        factor *= tl.load(target.row_weight + row, mask=is_row, other=0.0).to(tl.float32)
    factor = tl.where(mass == mass, factor, mass)
    silent = mass == 0.0
    inverse = 1.0 / (1.0 + tail)
    labels = tl.zeros((BLOCK_ROWS,), tl.int64)
    if not SOFT:
        labels = tl.load(target_at, mask=is_row, other=0).to(tl.int64)
        labels = tl.where((labels < 0) | (labels >= size.classes), 0, labels)

    # 2. The slopes of the statistics.
    of_nll = mass
    if SOFT or target.smoothing is not None:
        of_nll = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    of_lse = tl.zeros((BLOCK_ROWS,), tl.float32)
    of_miss, of_entropy, of_brier, hit, heat, dot = of_lse, of_lse, of_lse, of_lse, of_lse, of_lse
    if slopes is not None:
        of_nll = of_lse
        if slopes.nll is not None:
            of_nll = tl.load(slopes.nll + row, mask=is_row, other=0.0)
        if slopes.lse is not None:
            of_lse = tl.load(slopes.lse + row, mask=is_row, other=0.0)
        if slopes.miss is not None:
            of_miss = tl.load(slopes.miss + row, mask=is_row, other=0.0)
            hit = tl.load(at + 7 * count, mask=is_row, other=0.0)
        if slopes.entropy is not None:
            of_entropy = tl.load(slopes.entropy + row, mask=is_row, other=0.0)
            heat = tl.load(at + 8 * count, mask=is_row, other=0.0)
        if slopes.brier is not None:
            of_brier = 2.0 * tl.load(slopes.brier + row, mask=is_row, other=0.0)
            dot = tl.load(at + 10 * count, mask=is_row, other=0.0)

    # 3. The gradient, a tile at a time.
    for start in range(0, size.classes, BLOCK_CLASSES):
        classes = (start + lane).to(tl.int64)
        inside = is_row[:, None] & (classes < size.classes)[None, :]
        tile = tl.load(z_at[:, None] + classes[None, :] * z.classes, mask=inside, other=float("-inf")).to(tl.float32)
        lead = peak[:, None] - tile
        p = tl.exp(-lead) * inverse[:, None]
        if SOFT or target.smoothing is not None:
            t = _distribution(target, target_at, labels, classes, inside, size, SOFT)
            residual = p - t
            slope = of_nll[:, None] * (mass[:, None] * p - _weighted(target, t, classes, size))
        else:
            t = tl.where(labels[:, None] == classes[None, :], 1.0, 0.0)
            residual = tl.where(t == 1.0, -miss[:, None], p)
            slope = of_nll[:, None] * residual
        if slopes is not None:
            slope += of_lse[:, None] * p
            if slopes.miss is not None:
                slope += of_miss[:, None] * p * (hit[:, None] - t)
            if slopes.entropy is not None:
                slope += tl.where(p == 0.0, 0.0, of_entropy[:, None] * p * (lead - heat[:, None]))
            if slopes.brier is not None:
                slope += of_brier[:, None] * p * (residual - dot[:, None])
        slope = tl.where(silent[:, None], 0.0, slope * factor[:, None])
        at_tile = gradient_at[:, None] + classes[None, :] * gradient.classes
        tl.store(at_tile, slope.to(gradient.at.dtype.element_ty), mask=inside)
