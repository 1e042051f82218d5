"""Cells of the probability simplex, for the calibration of the whole predicted vector."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import refuse
from ._validation import Predictions

__all__ = ["SimplexBins", "simplex_bins"]

Float64 = NDArray[np.float64]


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
    """Split the rows `bins - 1` times: always the largest cell, at the median of the class that varies most in it."""
    if not isinstance(bins, int | np.integer) or isinstance(bins, bool) or bins < 1:
        raise ValueError(refuse("bins must be a positive integer", repr(bins)))
    if binning not in ("equal-width", "equal-mass"):
        raise ValueError(refuse("binning must be 'equal-width', 'equal-mass' or 'smooth'", repr(binning)))
    weights = checked.weight_or_ones()
    rows = np.flatnonzero(weights > 0)
    cells: list[tuple[int, int, NDArray[np.intp]]] = [(-len(rows), 0, rows)]
    done: list[NDArray[np.intp]] = []
    made = 1
    while cells and len(cells) + len(done) < bins:
        rows = heapq.heappop(cells)[2]
        halves = _split(checked.probabilities[rows])
        if halves is None:
            done.append(rows)
            continue
        for half in (halves, ~halves):
            heapq.heappush(cells, (-int(half.sum()), made, rows[half]))
            made += 1
    members = [*done, *(cell[2] for cell in cells)]
    return SimplexBins(
        *(np.array(column) for column in zip(*(_sums(checked, weights, m) for m in members), strict=True))
    )


def _split(prob: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return which rows lie at or below the median of the column that varies most; None if no column varies."""
    variance = prob.var(axis=0, dtype=np.float64)
    column = prob[:, int(np.argmax(variance))]
    below = column <= np.sort(column)[(len(column) - 1) // 2]
    if below.all():
        below = column < column.max()
    return below if below.any() else None


def _sums(checked: Predictions, weights: Float64, rows: NDArray[np.intp]) -> tuple[float, float, Float64, float]:
    w = weights[rows]
    gap = -checked.probabilities[rows].astype(np.float64)
    gap[np.arange(len(rows)), checked.codes[rows]] += 1.0
    return float(w.sum()), float((w**2).sum()), w @ gap, float(w**2 @ np.einsum("ij,ij->i", gap, gap))
