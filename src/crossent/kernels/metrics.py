"""What metrics ask of kernels, in NumPy: sums over each row of probabilities and over each bin.

`crossent.kernels.numba.metrics` computes the same, compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BIN_FIELDS", "RowSummary", "bin_sums", "pool_adjacent", "ranked_terms", "squares_beside", "summarize_rows"]

Array = NDArray[Any]
BIN_FIELDS = 6
_BLOCK_ELEMENTS = 1 << 18


class RowSummary(NamedTuple):
    """Of each row: whether it is no distribution, its maximum, and whether the first maximum is the label's."""

    bad: NDArray[np.bool_]
    high: NDArray[np.float64]
    hit: NDArray[np.bool_]


def _blocks(prob: Array) -> Iterator[slice]:
    step = max(1, _BLOCK_ELEMENTS // max(1, prob.shape[1]))
    for start in range(0, len(prob), step):
        yield slice(start, min(start + step, len(prob)))


def summarize_rows(prob: Array, codes: NDArray[np.intp], tolerance: float) -> RowSummary:
    """Return what one pass over the probabilities tells about each row."""
    high = prob.max(axis=1).astype(np.float64)
    fine = (prob.min(axis=1) >= 0) & (high <= 1)  # written so that NaN is bad
    fine &= np.abs(prob.sum(axis=1, dtype=np.float64) - 1) <= tolerance
    return RowSummary(~fine, high, np.asarray(prob.argmax(axis=1) == codes))


def squares_beside(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return ``Σ p_k²`` of each row over the classes that are not its label's."""
    out = np.empty(len(prob))
    for part in _blocks(prob):
        p = prob[part].astype(np.float64)
        p[np.arange(len(p)), codes[part]] = 0.0
        out[part] = np.einsum("ij,ij->i", p, p)
    return out


def ranked_terms(prob: Array, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the ranked probability score of each row."""
    out = np.empty(len(prob))
    classes = np.arange(prob.shape[1])
    for part in _blocks(prob):
        p = prob[part].astype(np.float64)
        y = codes[part, None]
        below = np.cumsum(np.where(classes < y, p, 0.0), axis=1) * (classes < y)
        above = np.cumsum(np.where(classes > y, p, 0.0)[:, ::-1], axis=1)[:, ::-1] * (classes > y)
        out[part] = (below**2).sum(axis=1) + (above**2).sum(axis=1)
    return out


def bin_sums(
    values: Array,
    events: NDArray[np.bool_] | None,
    codes: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    edges: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (columns, bins, 6): rows, Σw, Σw², Σwv, Σw·event, Σ(w(event - v))² of every bin of every column."""
    n, columns = values.shape
    bins = edges.shape[1] - 1
    w = np.ones(n) if weights is None else weights
    out = np.empty((columns, bins, BIN_FIELDS))
    for k in range(columns):
        v = values[:, k].astype(np.float64)
        event = (codes == k if events is None else events).astype(np.float64)
        place = np.minimum(np.maximum(np.searchsorted(edges[k], v, side="left") - 1, 0), bins - 1)
        for field, term in enumerate((np.ones(n), w, w * w, w * v, w * event, (w * (event - v)) ** 2)):
            out[k, :, field] = np.bincount(place, weights=term, minlength=bins)
    return out


def pool_adjacent(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted isotonic regression of a sequence on its index."""
    means: list[float] = []
    masses: list[float] = []
    sizes: list[int] = []
    for m, w in zip(values.tolist(), weights.tolist(), strict=True):
        size = 1
        while means and means[-1] >= m:
            total = masses[-1] + w
            m = (means.pop() * masses[-1] + m * w) / total if total > 0 else m
            masses.pop()
            w = total
            size += sizes.pop()
        means.append(m)
        masses.append(w)
        sizes.append(size)
    return np.repeat(means, sizes)
