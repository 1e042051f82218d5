"""The reference: the protocol of backends on `core`, in NumPy and float64, a block of rows at a time.

It serves where no compiled backend does, and computes what only `core` knows (Hessians, a top-k teacher).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from crossent.core import composition
from crossent.core.reduction import is_silent
from crossent.core.statistics import Rows
from crossent.core.target import Target
from crossent.losses import DEFAULT_LOSS, Loss

from .calibration import affine_moments, sigmoid_affine_moments, temperature_moments
from .metrics import bin_sums, pool_adjacent, ranked_terms, squares_beside, summarize_rows

__all__ = [
    "affine_moments",
    "bin_sums",
    "blocks",
    "forms",
    "lies_within",
    "logistic_value_grad",
    "mean_at",
    "pool_adjacent",
    "pullback",
    "ranked_terms",
    "row_losses",
    "rows_of",
    "scan_labels",
    "sigmoid_affine_moments",
    "squares_beside",
    "statistics",
    "summarize_rows",
    "temperature_moments",
    "weigh_labels",
]

BLOCK_ELEMENTS = 1 << 18  # float64 temporaries of 2 MiB each


def blocks(num_rows: int, row_elements: int) -> Iterator[slice]:
    """Yield slices of rows that hold about BLOCK_ELEMENTS elements each."""
    step = max(1, BLOCK_ELEMENTS // max(1, row_elements))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def scan_labels(labels: np.ndarray, num_classes: int, ignore_index: int, out: np.ndarray) -> tuple[int, int]:
    """Fill `out` with the labels, -1 where ignored; return the first bad row or -1, and how many rows count."""
    counted = labels != ignore_index
    bad = counted & ((labels < 0) | (labels >= num_classes))
    if bad.any():
        return int(np.argmax(bad)), 0
    out[...] = np.where(counted, labels, -1)
    return -1, int(np.count_nonzero(counted))


def weigh_labels(labels: np.ndarray, class_weight: np.ndarray | None, row_weight: np.ndarray | None) -> float:
    """Return the summed weight of the rows whose label is not negative."""
    counted = labels >= 0
    weight = np.ones(int(np.count_nonzero(counted))) if class_weight is None else class_weight[labels[counted]]
    if row_weight is not None:
        weight = weight * row_weight[counted]
    with np.errstate(over="ignore"):  # an infinite sum is refused where the denominator is decided
        return float(np.sum(weight))


def lies_within(values: np.ndarray, greatest: float) -> bool:
    """Return whether all numbers lie in ``0..greatest``, which NaN does not; bfloat16 by its bits in uint16."""
    if values.dtype == np.uint16:
        bits, values = values, np.empty(values.shape, np.float32)
        widen_bfloat16(bits, values)
    return values.size == 0 or bool(np.min(values) >= 0 and float(np.max(values)) <= greatest)


def rows_of(logits: np.ndarray, target: Target) -> Rows:
    """Return the statistics of one block of rows, or of their entries, in float64."""
    return composition.rows_of(logits.astype(np.float64), target)


def forms(target: Target, loss: Loss) -> frozenset[str]:
    """Return which other forms of logits `row_losses` takes: none, here."""
    return frozenset()


def row_losses(
    logits: np.ndarray,
    target: Target,
    loss: Loss,
    scale: float = 1.0,
    weight: np.ndarray | None = None,
    grad: np.ndarray | None = None,
    entries: np.ndarray | None = None,
    sum_only: bool = False,
) -> np.ndarray:
    """Return the loss of each row; `crossent.kernels.protocol` says what the arguments are."""
    is_binary = target.link == "sigmoid"
    found = np.empty(len(logits))
    weights = np.ones((len(logits), 1)) if weight is None else weight.reshape(len(logits), -1)
    with np.errstate(all="ignore"):
        for block in blocks(*logits.shape):
            part = target.rows(block)
            rows = rows_of(logits[block], part)
            shape = logits[block].shape if is_binary else (-1, 1)
            labels = None if part.labels is None else part.labels.reshape(shape)
            silent = is_silent(rows.mass.reshape(shape), labels)
            weighs_nothing = weights[block] == 0
            if weight is not None and weight.ndim == 2:
                silent = silent | weighs_nothing
            losses = np.where(silent, 0.0, composition.value(loss, rows).reshape(shape))
            found[block] = losses.sum(axis=1)
            if entries is not None:
                entries[block] = losses
            if grad is not None:
                gradient = composition.gradient(loss, rows)
                gradient = gradient[:, 1].reshape(shape) if is_binary else gradient
                grad[block] = np.where(silent | weighs_nothing, 0.0, scale * weights[block] * gradient)
    return found


def mean_at(
    dtype: str, logits: int, labels: int, grad: int, rows: int, classes: int, ignore_index: int
) -> float | None:
    """Return the mean of a loss over rows that lie at addresses, or None if it is not computed: never, here."""
    return None


def statistics(logits: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """Return every row statistic, each (N,)."""
    names = ["maximum", "tail", "lse", "nll", "mass", "miss", "hit", "entropy", "brier"]
    if target.labels is not None:
        names.append("nll_plain")
    collected: dict[str, np.ndarray] = {name: np.zeros(len(logits)) for name in names}
    collected["argmax"] = np.zeros(len(logits), dtype=np.int64)
    with np.errstate(all="ignore"):
        for block in blocks(*logits.shape):
            rows = rows_of(logits[block], target.rows(block))
            for name, values in collected.items():
                values[block] = getattr(rows, name)
    if target.labels is not None:
        for name in ("nll", "nll_plain", "mass", "miss", "hit", "brier"):
            collected[name][target.labels < 0] = 0.0
    return collected


def pullback(logits: np.ndarray, target: Target, partials: dict[str, np.ndarray], out: np.ndarray) -> None:
    """Fill `out` with Σ_s partials_s · ∂s/∂z; the statistics are computed anew here."""
    labels = target.labels
    with np.errstate(all="ignore"):
        for block in blocks(*logits.shape):
            rows = rows_of(logits[block], target.rows(block))
            total: Any = 0.0
            for name, partial in partials.items():
                total = total + partial[block][:, None] * rows.gradient_row(name)
            out[block] = total if labels is None else np.where(labels[block][:, None] < 0, 0.0, total)


def logistic_value_grad(
    columns: np.ndarray,
    weight: np.ndarray,
    bias: Any,
    target: Target,
    row_weight: np.ndarray,
    negligible: float,
    total: np.ndarray,
) -> float:
    """Return ``Σ_i c_i ℓ_i`` of cross-entropy for the logits ``X w + b``; add ``Σ_i g_i (x_i, 1)`` to `total` (D + 1,).

    ``|g_i| < negligible`` counts as 0: products of subnormal numbers are slow.
    """
    logits = (columns @ weight + bias)[:, None]
    losses = row_losses(logits, target, DEFAULT_LOSS, 1.0, row_weight, logits)
    gradient = np.where(np.abs(logits) < negligible, 0, logits)[:, 0]
    total[:-1] += gradient @ columns
    total[-1] += gradient.sum(dtype=np.float64)
    return float(row_weight @ losses)


def softmax_curvature(p: np.ndarray, top: np.ndarray, mass: np.ndarray, u: np.ndarray) -> None:
    """Replace `u` (K, n) by ``a_i (diag p_i - p_i p_iᵀ) u_i``; relative to the likeliest class nothing cancels."""
    u -= u[top, np.arange(u.shape[1])]
    u -= np.einsum("kn,kn->n", p, u)
    u *= p * mass


def draw_entries(
    p: np.ndarray,
    top: np.ndarray,
    rest: np.ndarray,
    mass: np.ndarray,
    least: float,
    phase: float,
    rows: np.ndarray,
    ends: np.ndarray,
    classes: np.ndarray,
    values: np.ndarray,
) -> tuple[int, int]:
    """Keep the entries of p (n, K) whose curvature counts; return how many rows and entries were kept.

    An entry with ``mass · p < least`` is kept with probability ``mass · p / least`` as one of that size (systematic
    sampling from `phase` in [0, 1)). Each row keeps its likeliest class `top`, first, and is left out if that is all.
    `ends` are where the rows' entries end. `rest` is 1 minus the probability of `top`.
    """
    share = p.astype(np.float64) * (mass / least)[:, None]
    share[np.arange(len(p)), top] = 0.0
    certain = share >= 1.0
    reached = np.cumsum(np.where(certain, 0.0, share)).reshape(share.shape) + phase
    drawn = np.diff(np.floor(reached).ravel(), prepend=0.0).reshape(share.shape) > 0
    num_rows = num_entries = 0
    for i in np.flatnonzero((certain | drawn).any(axis=1)):
        others = np.flatnonzero(certain[i] | drawn[i])
        kept = np.concatenate([top[i : i + 1], others])
        stop = num_entries + len(kept)
        classes[num_entries:stop] = kept
        values[num_entries:stop] = p[i, kept]
        values[num_entries + 1 : stop][~certain[i, others]] = least / mass[i]
        rows[num_rows], ends[num_rows] = i, stop
        num_rows, num_entries = num_rows + 1, stop
    return num_rows, num_entries


def multiply_entries(
    columns: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    classes: np.ndarray,
    values: np.ndarray,
    mass: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add ``Σ_i a_i (diag p_i - p_i p_iᵀ / Σ_k p_ik) (V x_i + b) (x_i, 1)ᵀ`` to `out` (K, D + 1), entries of p only.

    V is `weight` (K, D), b `bias`, x_i ``columns[rows[i]]``; row i's entries are ``starts[i]:starts[i + 1]`` of
    `classes` and `values`, the likeliest class first.
    """
    for i, row in enumerate(rows):
        entries = slice(starts[i], starts[i + 1])
        kept, p = classes[entries], values[entries]
        u = weight[kept] @ columns[row] + bias[kept]
        u -= u[0]
        v = mass[i] * p * (u - (p @ u) / p.sum())
        out[kept, :-1] += np.outer(v, columns[row])
        out[kept, -1] += v


def widen_bfloat16(bits: np.ndarray, out: np.ndarray) -> None:
    """Fill `out`, float32, with the numbers whose bfloat16 bits are given in uint16."""
    np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)


def narrow_bfloat16(values: np.ndarray, out: np.ndarray) -> None:
    """Fill `out`, uint16, with the bits of the nearest bfloat16 numbers; ties go to even."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    out[...] = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded)
