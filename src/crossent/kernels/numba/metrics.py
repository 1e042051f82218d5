"""What `crossent.kernels.metrics` computes, compiled: one pass over the probabilities without N × K temporaries.

Arguments were checked and are contiguous; sums run in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import BIN_FIELDS, RowSummary
from ..plain import plain
from ..threads import run_rows
from .compile import helper, kernel, wide_vectors
from .exp import add_in_any_order

__all__ = ["bin_sums", "pool_adjacent", "ranked_terms", "squares_beside", "summarize_rows"]

Array = NDArray[Any]

_CHUNK = 512
_PIECES = 16
_MOST_SUMS = 1 << 23


@helper
def _sum_and_top(p: Any, bits: Any, zero: Any) -> Any:
    """Sum of a piece of a row, and the largest of its bit patterns as unsigned integers.

    Numbers from 0 to 1 are ordered like their patterns, and every other number (and NaN) has a larger pattern than 1:
    one integer maximum finds the largest probability and whether all of them are probabilities.
    """
    wide_vectors()
    total = zero
    top = bits[0]
    for j in range(len(p)):
        total = add_in_any_order(total, p[j])
        top = max(top, bits[j])
    return total, top


@kernel
def summary_rows(
    prob: Any, bits: Any, one: Any, codes: Any, tolerance: Any, bad: Any, high: Any, hit: Any, start: Any, stop: Any
) -> None:
    """Whether rows are no distributions, their maxima as patterns, and whether the first maximum is the label's.

    ``bits`` is ``prob`` seen as unsigned integers, ``one`` the pattern of 1.
    """
    wide_vectors()
    classes = prob.shape[1]
    zero = prob.dtype.type(0)
    zero_pattern = one - one
    for i in range(start, stop):
        row = prob[i]
        pattern = bits[i]
        if classes <= _CHUNK:
            s, top = _sum_and_top(row, pattern, zero)
            total = np.float64(s)
        else:
            total = np.float64(0.0)
            top = pattern[0]
            for begin in range(0, classes, _CHUNK):
                end = min(begin + _CHUNK, classes)
                s, t = _sum_and_top(row[begin:end], pattern[begin:end], zero)
                total += np.float64(s)
                top = max(top, t)
        wrong = not abs(total - 1.0) <= tolerance
        if top > one:  # no probability, or a negative zero, which is one
            top = zero_pattern
            for j in range(classes):
                wrong = wrong or not (row[j] >= 0 and row[j] <= 1)
                top = max(top, pattern[j] if pattern[j] <= one else zero_pattern)
        bad[i] = wrong
        high[i] = top
        y = codes[i]
        first = pattern[y] == top
        if first:
            for j in range(y):
                if pattern[j] == top:
                    first = False
                    break
        hit[i] = first


@helper
def _squares(p: Any) -> Any:
    wide_vectors()
    total = 0.0
    for j in range(len(p)):
        v = np.float64(p[j])
        total = add_in_any_order(total, v * v)
    return total


@kernel
def uneven_rows(prob: Any, codes: Any, out: Any, start: Any, stop: Any) -> None:
    """``Σ p_k²`` over the classes that are not the label's: summed without it, so that nothing cancels."""
    wide_vectors()
    for i in range(start, stop):
        row = prob[i]
        y = codes[i]
        out[i] = _squares(row[:y]) + _squares(row[y + 1 :])


@kernel
def ranked_rows(prob: Any, codes: Any, out: Any, start: Any, stop: Any) -> None:
    """``Σ_k (F_k - [y <= k])²`` over the K - 1 thresholds of ordered classes, each tail summed from its own end."""
    wide_vectors()
    classes = prob.shape[1]
    for i in range(start, stop):
        row = prob[i]
        y = codes[i]
        score = 0.0
        below = 0.0
        for j in range(y):
            below += np.float64(row[j])
            score += below * below
        above = 0.0
        for j in range(classes - 1, y, -1):
            above += np.float64(row[j])
            score += above * above
        out[i] = score


@kernel
def bin_rows(
    values: Any, events: Any, codes: Any, weights: Any, edges: Any, out: Any, step: Any, start: Any, stop: Any
) -> None:
    """Sums over bins of column k of ``values`` beside its event, for the pieces ``start:stop`` of ``step`` rows.

    The event is ``events`` (one column) or, where that is empty, "the label is k". A value lies in bin b when
    ``edges[k, b] < v <= edges[k, b + 1]``. ``out[piece, k, b]``: rows, Σw, Σw², Σwv, Σw·event, Σ(w(event - v))².
    """
    wide_vectors()
    rows, columns = values.shape
    bins = edges.shape[1] - 1
    for piece in range(start, stop):
        sums = out[piece]
        for i in range(piece * step, min(rows, (piece + 1) * step)):
            row = values[i]
            w = weights[i] if len(weights) > 0 else 1.0
            for k in range(columns):
                v = np.float64(row[k])
                b = min(int(v * bins), bins - 1)
                while b > 0 and v <= edges[k, b]:
                    b -= 1
                while b < bins - 1 and v > edges[k, b + 1]:
                    b += 1
                event = (1.0 if events[i] else 0.0) if len(events) > 0 else (1.0 if codes[i] == k else 0.0)
                f = sums[k, b]
                f[0] += 1.0
                f[1] += w
                f[2] += w * w
                f[3] += w * v
                f[4] += w * event
                gap = w * (event - v)
                f[5] += gap * gap


@kernel
def pool_rows(values: Any, weights: Any, out: Any) -> None:
    """The non-decreasing sequence nearest to ``values`` in weighted squares: pool adjacent violators."""
    n = len(values)
    mean = np.empty(n)
    mass = np.empty(n)
    size = np.empty(n, np.int64)
    blocks = 0
    for i in range(n):
        m, w, s = values[i], weights[i], 1
        while blocks > 0 and mean[blocks - 1] >= m:
            blocks -= 1
            total = mass[blocks] + w
            m = (mean[blocks] * mass[blocks] + m * w) / total if total > 0.0 else m
            w = total
            s += size[blocks]
        mean[blocks] = m
        mass[blocks] = w
        size[blocks] = s
        blocks += 1
    i = 0
    for b in range(blocks):
        for _ in range(size[b]):
            out[i] = mean[b]
            i += 1


def summarize_rows(prob: Array, codes: NDArray[np.intp], tolerance: float) -> RowSummary:
    """Return what one pass over the probabilities tells about each row."""
    n, prob = len(prob), plain(prob)
    unsigned = np.dtype(f"u{prob.itemsize}")
    one = np.ones(1, prob.dtype).view(unsigned)[0]
    bad, high, hit = np.empty(n, np.bool_), np.empty(n, unsigned), np.empty(n, np.bool_)
    arguments = (prob, prob.view(unsigned), one, codes, tolerance, bad, high, hit)
    run_rows(summary_rows, n, prob.shape[1], arguments)
    return RowSummary(bad, high.view(prob.dtype).astype(np.float64), hit)


def squares_beside(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ``Σ p_k²`` of each row over the classes that are not its label's."""
    out = np.empty(len(prob))
    run_rows(uneven_rows, len(prob), prob.shape[1], (plain(prob), codes, out))
    return out


def ranked_terms(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the ranked probability score of each row."""
    out = np.empty(len(prob))
    run_rows(ranked_rows, len(prob), prob.shape[1], (plain(prob), codes, out))
    return out


def bin_sums(
    values: Array,
    events: NDArray[np.bool_] | None,
    codes: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    edges: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (columns, bins, 6): rows, Σw, Σw², Σwv, Σw·event, Σ(w(event - v))² of every bin of every column.

    Pieces of rows are cut by their number alone and added in their order: the bits do not depend on the threads.
    """
    n, columns = values.shape
    size = columns * (edges.shape[1] - 1) * BIN_FIELDS
    pieces = max(1, min(_PIECES, _MOST_SUMS // size, n))
    step = -(-n // pieces)
    out = np.zeros((pieces, columns, edges.shape[1] - 1, BIN_FIELDS))
    no_events, no_weights = np.empty(0, np.bool_), np.empty(0)
    arguments = (
        plain(values),
        no_events if events is None else events,
        codes,
        no_weights if weights is None else plain(weights),
        edges,
        out,
        step,
    )
    run_rows(bin_rows, pieces, step * columns, arguments)
    return np.asarray(out.sum(axis=0))


def pool_adjacent(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted isotonic regression of a sequence on its index."""
    out = np.empty(len(values))
    pool_rows(values, weights, out)
    return out
