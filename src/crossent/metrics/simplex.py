"""Cells of the probability simplex, for the calibration of the whole predicted vector."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .binning import check_binning, check_count
from .predictions import Predictions

__all__ = ["SimplexBins", "simplex_bins"]

Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]

_BLOCK_ELEMENTS = 1 << 16


class SimplexBins(NamedTuple):
    """Of each cell: weight (cells,), summed gap Σw(onehot - p) (cells, K), and what debiasing needs."""

    weight: Float64
    weight_squares: Float64
    gap: Float64
    gap_squares: Float64

    def error(self, norm: str, debiased: bool) -> float:
        """Return the error over the cells: total variation distances, or Euclidean ones for "l2"."""
        share = self.weight / self.weight.sum()
        if norm == "l2":
            total, pairs = np.sum(self.gap**2, axis=1), self.weight**2
            if debiased:
                total, pairs = total - self.gap_squares, pairs - self.weight_squares
            usable = pairs > 1e-12 * self.weight**2  # a cell of one row tells nothing
            squares = np.divide(total, pairs, out=np.zeros_like(total), where=usable)
            return math.sqrt(max(float(np.sum(share * squares)), 0.0))
        distance = 0.5 * np.sum(np.abs(self.gap), axis=1) / self.weight
        return float(distance.max()) if norm == "max" else float(np.sum(share * distance))


def simplex_bins(checked: Predictions, bins: Any, binning: str) -> SimplexBins:
    """Split the rows `bins - 1` times: always the heaviest cell, by the class that varies most in it.

    "equal-mass" splits at the weighted median of that class's probability, "equal-width" in the middle of its range.
    """
    check_count(bins)
    check_binning(binning)
    weights = checked.weight_or_ones()
    rows = np.flatnonzero(weights > 0)
    cells: list[tuple[float, int, Rows]] = [(-float(weights[rows].sum()), 0, rows)]
    done: list[Rows] = []
    made = 1
    while cells and len(cells) + len(done) < bins:
        rows = heapq.heappop(cells)[2]
        below = _split(checked.probabilities, rows, weights[rows], binning)
        if below is None:
            done.append(rows)
            continue
        for half in (below, ~below):
            heapq.heappush(cells, (-float(weights[rows[half]].sum()), made, rows[half]))
            made += 1
    members = [*done, *(cell[2] for cell in cells)]
    return SimplexBins(
        *(np.array(column) for column in zip(*(_sums(checked, weights, m) for m in members), strict=True))
    )


def _blocks(prob: NDArray[Any], rows: Rows) -> Iterator[tuple[slice, Float64]]:
    """Yield slices of `rows` and their probabilities, some thousand numbers at a time."""
    step = max(1, _BLOCK_ELEMENTS // prob.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        yield part, prob[rows[part]].astype(np.float64)


def _split(prob: NDArray[Any], rows: Rows, weights: Float64, binning: str) -> NDArray[np.bool_] | None:
    """Return which rows lie in the lower half by the column that varies most; None if no column varies."""
    mean: Any = sum(weights[part] @ p for part, p in _blocks(prob, rows)) / weights.sum()
    variance: Any = sum(weights[part] @ (p - mean) ** 2 for part, p in _blocks(prob, rows))
    column = prob[rows, int(np.argmax(variance))].astype(np.float64)
    least, most = float(column.min()), float(column.max())
    if least == most:
        return None
    if binning == "equal-width":
        middle = 0.5 * (least + most)
    else:
        order = np.argsort(column, kind="stable")
        mass = np.cumsum(weights[order])
        middle = float(column[order[int(np.searchsorted(mass, 0.5 * mass[-1]))]])
    return np.asarray(column <= middle if middle < most else column < most)


def _sums(checked: Predictions, weights: Float64, rows: Rows) -> tuple[float, float, Float64, float]:
    w, codes = weights[rows], checked.codes[rows]
    total, squares = np.zeros(checked.probabilities.shape[1]), 0.0
    for part, p in _blocks(checked.probabilities, rows):
        gap = -p
        gap[np.arange(len(gap)), codes[part]] += 1.0
        total += w[part] @ gap
        squares += float(w[part] ** 2 @ np.einsum("ij,ij->i", gap, gap))
    return float(w.sum()), float((w**2).sum()), total, squares
