"""Bins of predicted probabilities: where their edges are, and what lies in each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import describe, refuse
from ..kernels import registry
from ..masked import refuse_masked
from .predictions import Predictions

__all__ = ["Bins", "check_binning", "check_count", "check_edges", "class_wise_bins", "top_label_bins"]

Float64 = NDArray[np.float64]


class Bins(NamedTuple):
    """Sums over each bin, of shape (columns, bins); a column is a probability and the event that it predicts.

    `gap_squares` is the sum of ``(w (event - value))²``, from which a bin's squared gap is estimated without bias.
    """

    edges: Float64
    rows: Float64
    weight: Float64
    weight_squares: Float64
    value: Float64
    event: Float64
    gap_squares: Float64

    def gaps(self) -> Float64:
        """Return mean event minus mean value; NaN where a bin is empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.event - self.value) / self.weight)

    def squared_gaps(self, debiased: bool) -> Float64:
        """Return the squared gaps, 0 in empty bins.

        Debiased, the products of the same row are left out of the square: ``Σ_{i≠j} w_i w_j d_i d_j / Σ_{i≠j} w_i w_j``
        has the square of the expected gap as its expectation. A bin of one row tells nothing and counts 0.
        """
        total = (self.event - self.value) ** 2
        pairs = self.weight**2
        if debiased:
            total = total - self.gap_squares
            pairs = pairs - self.weight_squares
            pairs = np.where((self.rows > 1) & (pairs > 0), pairs, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, total / pairs, 0.0)


def check_count(bins: Any) -> int:
    """Return a number of bins; raise ValueError unless it is a positive integer."""
    if not isinstance(bins, int | np.integer) or isinstance(bins, bool) or bins < 1:
        raise ValueError(refuse("bins must be a positive integer", repr(bins)))
    return int(bins)


def check_binning(binning: str) -> None:
    """Raise ValueError unless `binning` is one of those that have edges."""
    if binning not in ("equal-width", "equal-mass"):
        raise ValueError(refuse("binning must be 'equal-width', 'equal-mass' or 'smooth'", repr(binning)))


def check_edges(bins: Any) -> int | Float64:
    """Return a number of bins, or their edges from 0 to 1.

    Raises
    ------
    ValueError
        If `bins` is neither a positive integer nor an increasing sequence from 0 to 1.
    """
    refuse_masked(bins, "bins")
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool) and bins >= 1:
        return int(bins)
    if isinstance(bins, list | tuple | np.ndarray):
        edges = np.asarray(bins, dtype=np.float64)
        if edges.ndim == 1 and len(edges) > 1 and edges[0] == 0 and edges[-1] == 1 and (np.diff(edges) > 0).all():
            return edges
    asked = "bins must be a positive integer or increasing edges from 0 to 1"
    raise ValueError(refuse(asked, describe(bins) if isinstance(bins, np.ndarray) else repr(bins)))


def _edges(values: NDArray[Any], weights: Float64 | None, bins: int | Float64, binning: str) -> Float64:
    """Return the edges of one column's bins."""
    check_binning(binning)
    if not isinstance(bins, int):
        if binning == "equal-mass":
            raise ValueError(refuse("equal-mass bins are asked for by their number", "their edges"))
        return bins
    if binning == "equal-width":
        return np.linspace(0.0, 1.0, bins + 1)
    # Edges are values that occur, so that equal values share a bin; ties leave fewer bins than asked for.
    order = np.sort(values) if weights is None else values[np.argsort(values, kind="stable")]
    if weights is None:
        places = np.ceil(np.arange(1, bins) * len(order) / bins).astype(np.intp) - 1
    else:
        mass = np.cumsum(weights[np.argsort(values, kind="stable")])
        places = np.searchsorted(mass, np.arange(1, bins) / bins * mass[-1])
    inner = np.unique(order[np.clip(places, 0, len(order) - 1)].astype(np.float64))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])


def _sums(
    values: NDArray[Any], events: NDArray[np.bool_] | None, codes: NDArray[np.intp], weights: Float64 | None, edges: Any
) -> Bins:
    sums = registry.find(values.dtype).bin_sums(values, events, codes, weights, np.ascontiguousarray(edges))
    return Bins(edges, *np.moveaxis(sums, -1, 0))


def top_label_bins(checked: Predictions, bins: Any, binning: str = "equal-width") -> Bins:
    """Return bins of the confidence, the largest probability of a row, beside "the prediction is right"."""
    rows = checked.rows()
    edges = _edges(rows.high, checked.weights, check_edges(bins), binning)
    return _sums(rows.high[:, None], rows.hit, checked.codes, checked.weights, edges[None])


def class_wise_bins(checked: Predictions, bins: Any, binning: str = "equal-width") -> list[Bins]:
    """Return bins of each class's probability beside "the label is this class", in one table where the edges agree."""
    prob, number = checked.probabilities, check_edges(bins)
    if binning != "equal-mass":
        edges = _edges(prob[:, 0], checked.weights, number, binning)
        shared = np.ascontiguousarray(np.broadcast_to(edges, (prob.shape[1], len(edges))))
        sums: Any = 0.0
        for part, block, codes in checked.blocks():
            weights = None if checked.weights is None else checked.weights[part]
            sums = sums + checked.kernels.bin_sums(block, None, codes, weights, shared)
        return [Bins(shared, *np.moveaxis(sums, -1, 0))]
    tables = []
    for k in range(prob.shape[1]):
        column = prob[:, k].astype(np.float64)
        edges = _edges(column, checked.weights, number, binning)
        tables.append(_sums(column[:, None], checked.codes == k, checked.codes, checked.weights, edges[None]))
    return tables
