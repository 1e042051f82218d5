"""Scores of probabilistic predictions: the two proper ones that matter most, and accuracy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..errors import refuse
from ._validation import check_predictions, weighted_mean

__all__ = ["accuracy", "brier_score", "log_loss"]


def log_loss(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    base: str = "nats",
) -> float:
    r"""Mean surprise of the true labels, :math:`\frac{1}{\sum w_i} \sum_i w_i \, (-\log p_{i, y_i})`.

    The logarithmic score [1]_: strictly proper, 0 for a perfect prediction, and `inf` as soon as one label was called
    impossible (nothing is clipped). For labels with *logits*, use `crossent.cross_entropy`, which keeps the digits that
    rounding p to 1 loses.

    Parameters
    ----------
    y_true : array of shape (N,)
        Labels of any one type that sorts.
    y_prob : array of shape (N, K), or (N,) for two classes
        Probabilities; column k belongs to the k-th label in sorted order. One-dimensional: P(second label).
    labels : array of shape (K,), optional
        All labels, where `y_true` does not show them all.
    sample_weight : array of shape (N,), optional
        Weight of each row, at least 0.
    base : {"nats", "bits"}
        Unit of the result: natural logarithm or base 2.

    Returns
    -------
    float
        In the unit asked for.

    Raises
    ------
    ValueError
        If an argument is malformed or a row of `y_prob` is no distribution.

    References
    ----------
    .. [1] I. J. Good, "Rational Decisions", Journal of the Royal Statistical Society B 14 (1952).

    Examples
    --------
    >>> log_loss(["cat", "dog"], [[0.5, 0.5], [0.75, 0.25]], base="bits")
    1.5
    >>> log_loss([0, 1], [0.0, 0.0])
    inf
    """
    if base not in ("nats", "bits"):
        raise ValueError(refuse('base must be "nats" or "bits"', repr(base)))
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    chosen = checked.probabilities[np.arange(checked.codes.shape[0]), checked.codes]
    with np.errstate(divide="ignore"):  # log 0 = -inf is the answer here
        surprise = -np.log(chosen)
    nats = weighted_mean(np.abs(surprise), checked.weights)  # abs: -log 1 is -0.0
    return nats if base == "nats" else nats / math.log(2)


def brier_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Mean squared distance to the label, :math:`\frac{1}{\sum w_i} \sum_i w_i \sum_k (p_{ik} - [y_i = k])^2`.

    Brier's own definition [1]_, summed over the classes: between 0 and 2, for two classes twice the number that some
    libraries give. Parameters and errors as in `log_loss`.

    References
    ----------
    .. [1] G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).

    Examples
    --------
    >>> brier_score([0, 1], [[1.0, 0.0], [0.5, 0.5]])
    0.25
    """
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    error = checked.probabilities.copy()
    error[np.arange(checked.codes.shape[0]), checked.codes] -= 1.0
    return weighted_mean(np.sum(error**2, axis=1), checked.weights)


def accuracy(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Weighted share of rows whose label has the largest probability (of equal ones, the first counts).

    Parameters and errors as in `log_loss`.

    Examples
    --------
    >>> accuracy(["cat", "dog"], [[0.9, 0.1], [0.75, 0.25]])
    0.5
    """
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    hits = np.argmax(checked.probabilities, axis=1) == checked.codes
    return weighted_mean(hits.astype(np.float64), checked.weights)
