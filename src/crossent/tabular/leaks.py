"""Columns that know the answer: which of them alone explains the target, on rows that were not trained on."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

__all__ = ["leak_notes"]

_BINS = 32
_LIKELY = 0.05
"""A column, or the model, that leaves this share of the loss of the class shares, or less, is likely a leak."""
_FEW_ROWS = 30


def leak_notes(
    cells: pl.DataFrame,
    codes: NDArray[np.intp],
    training: NDArray[np.intp],
    test: NDArray[np.intp],
    test_loss: float,
) -> list[str]:
    """Return what a person should know of a score that is too good, and of columns that alone explain the target.

    A column alone predicts the class shares of the training rows in the same bin (32 bins of equal numbers of rows) or
    of the same word.

    Parameters
    ----------
    cells : polars.DataFrame (N rows)
        Columns of numbers and of words.
    codes : array of int (N,)
        Class indices.
    training, test : arrays of int
        Rows.
    test_loss : float
        The model's mean loss of the test rows, in nats.
    """
    if len(test) < _FEW_ROWS:
        return []
    num_classes = int(codes.max()) + 1
    shares = (np.bincount(codes[training], minlength=num_classes) + 1) / (len(training) + num_classes)
    prior_loss = float(-np.log(shares[codes[test]]).mean())
    left = {
        column.name: _loss_of_bins(_bins(column, training), codes, training, test, shares) / prior_loss
        for column in cells.iter_columns()
    }
    if not left:
        return []
    notes = [
        f"column {name!r} alone explains {1 - share:.0%} of the log-loss of the test rows: likely a leak, known only "
        f"when the answer is; if so, leave it out with --drop {name!r}"
        for name, share in left.items()
        if share <= _LIKELY
    ]
    if not notes and test_loss <= _LIKELY * prior_loss:
        best = min(left, key=lambda name: left[name])
        notes.append(
            f"the score is nearly perfect ({test_loss / prior_loss:.1%} of the log-loss of the class shares is left): "
            f"look for a leak, first in column {best!r}, which alone explains {1 - left[best]:.0%}"
        )
    return notes


def _bins(column: pl.Series, training: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return a bin for each row: of equal numbers of training rows, or one for each word; missing cells share one."""
    if column.dtype == pl.String:
        return column.fill_null("").rank("dense").to_numpy().astype(np.intp)
    values = column.to_numpy()
    known = values[training][~np.isnan(values[training])]
    edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)) if len(known) else np.empty(0)
    between = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(np.isnan(values), 2 * _BINS, between)  # a value as common as an edge has a bin of its own


def _loss_of_bins(
    bins: NDArray[np.intp],
    codes: NDArray[np.intp],
    training: NDArray[np.intp],
    test: NDArray[np.intp],
    shares: NDArray[np.float64],
) -> float:
    """Return the mean loss of the test rows, each predicted by the classes of the training rows in its bin."""
    names, places = np.unique(bins, return_inverse=True)
    counts = np.zeros((len(names), len(shares)))
    np.add.at(counts, (places[training], codes[training]), 1)
    counts += shares  # one row of the class shares, so that no class is impossible
    predicted = counts[places[test], codes[test]] / counts[places[test]].sum(1)
    return float(-np.log(predicted).mean())
