"""Does 90 % mean 90 %? The reliability curve of the predicted class, and the error it adds up to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import refuse
from ._validation import check_predictions

__all__ = ["ReliabilityCurve", "calibration_error", "reliability_curve"]


class ReliabilityCurve(NamedTuple):
    """Rows grouped by confidence, the probability of their predicted class.

    Attributes
    ----------
    edges : array of shape (bins + 1,)
        Bin b holds the confidences in ``(edges[b], edges[b + 1]]``; the first bin also holds 0.
    counts : array of shape (bins,)
        Rows in each bin.
    confidence, accuracy : arrays of shape (bins,)
        Mean confidence and share of right predictions; NaN where the bin is empty.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability_curve(
    y_true: ArrayLike, y_prob: ArrayLike, *, labels: ArrayLike | None = None, bins: int = 10
) -> ReliabilityCurve:
    """Accuracy against confidence of the predicted class, in bins of equal width.

    A bin is open on the left and closed on the right, ``(lower, upper]``: a confidence of exactly 0.8 counts in
    (0.7, 0.8] when `bins` is 10, and 1 in the last bin. Edges are ``numpy.linspace(0, 1, bins + 1)``, compared as
    floating-point numbers.

    Parameters
    ----------
    y_true : array of shape (N,)
        Labels.
    y_prob : array of shape (N, K), or (N,) for two classes
        Probabilities; columns in the labels' sorted order.
    labels : array of shape (K,), optional
        All labels, where `y_true` does not show them all.
    bins : int
        Number of bins, at least 1.

    Returns
    -------
    ReliabilityCurve
        Named tuple ``edges, counts, confidence, accuracy``.

    Raises
    ------
    ValueError
        If `bins` is not a positive integer, an argument is malformed or a row of `y_prob` is no distribution.

    Examples
    --------
    >>> curve = reliability_curve([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2)
    >>> curve.counts.tolist(), curve.accuracy.tolist()
    ([0, 4], [nan, 0.75])
    """
    if not isinstance(bins, int | np.integer) or isinstance(bins, bool) or bins < 1:
        raise ValueError(refuse("bins must be a positive integer", repr(bins)))
    checked = check_predictions(y_true, y_prob, labels)
    confidence = checked.probabilities.max(axis=1)
    hits = np.argmax(checked.probabilities, axis=1) == checked.codes
    edges = np.linspace(0.0, 1.0, int(bins) + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, int(bins) - 1)
    count = np.bincount(place, minlength=int(bins))
    with np.errstate(invalid="ignore"):  # 0/0 = NaN marks an empty bin
        mean_confidence = np.bincount(place, weights=confidence, minlength=int(bins)) / count
        mean_accuracy = np.bincount(place, weights=hits, minlength=int(bins)) / count
    return ReliabilityCurve(edges, count, mean_confidence, mean_accuracy)


def calibration_error(
    y_true: ArrayLike, y_prob: ArrayLike, *, labels: ArrayLike | None = None, bins: int = 10
) -> float:
    r"""Expected calibration error of the predicted class, :math:`\sum_b \frac{n_b}{N} |acc_b - conf_b|`.

    The binned, top-label, L1 form [1]_ over the bins of `reliability_curve`. It is biased upwards when bins hold few
    rows: a perfectly calibrated model does not score 0 on a small sample. Parameters and errors as in
    `reliability_curve`.

    References
    ----------
    .. [1] M. Pakdaman Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
       Binning", AAAI (2015).

    Examples
    --------
    >>> round(calibration_error([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2), 12)
    0.1
    """
    curve = reliability_curve(y_true, y_prob, labels=labels, bins=bins)
    filled = curve.counts > 0
    gap = np.abs(curve.accuracy[filled] - curve.confidence[filled])
    return float(np.sum(gap * curve.counts[filled]) / np.sum(curve.counts))
