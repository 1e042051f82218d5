"""Rows of probabilities through the compiled kernels: what the metrics call (see `probability_reference`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import probability_rows as rows
from .probability_reference import BIN_FIELDS, RowSummary
from .threads import run_rows

__all__ = ["bin_sums", "pool_adjacent", "ranked_terms", "squares_beside", "summarize_rows"]

Array = NDArray[Any]
_PIECES = 16
_MOST_SUMS = 1 << 23


def summarize_rows(prob: Array, codes: NDArray[np.intp], tolerance: float) -> RowSummary:
    """Return what one pass over the probabilities tells about each row."""
    n = len(prob)
    unsigned = np.dtype(f"u{prob.itemsize}")
    one = np.ones(1, prob.dtype).view(unsigned)[0]
    bad, high, hit = np.empty(n, np.bool_), np.empty(n, unsigned), np.empty(n, np.bool_)
    arguments = (prob, prob.view(unsigned), one, codes, tolerance, bad, high, hit)
    run_rows(rows.summary_rows, n, prob.shape[1], arguments)
    return RowSummary(bad, high.view(prob.dtype).astype(np.float64), hit)


def squares_beside(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ``Σ p_k²`` of each row over the classes that are not its label's."""
    out = np.empty(len(prob))
    run_rows(rows.uneven_rows, len(prob), prob.shape[1], (prob, codes, out))
    return out


def ranked_terms(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the ranked probability score of each row."""
    out = np.empty(len(prob))
    run_rows(rows.ranked_rows, len(prob), prob.shape[1], (prob, codes, out))
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
        values,
        no_events if events is None else events,
        codes,
        no_weights if weights is None else weights,
        edges,
        out,
        step,
    )
    run_rows(rows.bin_rows, pieces, step * columns, arguments)
    return np.asarray(out.sum(axis=0))


def pool_adjacent(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted isotonic regression of a sequence on its index."""
    out = np.empty(len(values))
    rows.pool_rows(values, weights, out)
    return out
