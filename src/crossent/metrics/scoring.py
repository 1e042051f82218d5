"""Scores of probabilistic predictions: proper ones, what they say beside the prior, and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import describe, refuse
from ..masked import refuse_masked
from .predictions import Predictions, check_predictions, weighted_mean

__all__ = [
    "accuracy",
    "brier_score",
    "log_loss",
    "perplexity",
    "ranked_probability_score",
    "skill_score",
    "spherical_score",
]


def log_loss(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    base: str = "nats",
    clip: float | None = None,
    validate: bool = True,
) -> float:
    r"""Mean surprise of the true labels, :math:`\frac{1}{\sum w_i} \sum_i w_i \, (-\log p_{i, y_i})`.

    The logarithmic score [1]_: strictly proper, 0 for a perfect prediction, and `inf` as soon as one label was called
    impossible, unless `clip` says otherwise. For labels with *logits*, use `crossent.cross_entropy`, which keeps the
    digits that rounding p to 1 loses.

    Parameters
    ----------
    y_true : array of shape (N,)
        Labels of any one type that sorts.
    y_prob : array of shape (N, K), or (N,) for two classes
        Probabilities; column k belongs to the k-th label. One-dimensional: P(second label).
    labels : array of shape (K,), optional
        The columns' labels, in the columns' order. None: those of `y_true`, sorted; a class that `y_true` does not show
        has to be named.
    sample_weight : array of shape (N,), optional
        Weight of each row, at least 0.
    base : {"nats", "bits"}
        Unit of the result: natural logarithm or base 2.
    clip : float, optional
        Count a smaller probability of the true label as this one, between 0 and 1. None: nothing is clipped.
    validate : bool
        False skips the pass over `y_prob` that makes sure that every row is a distribution; only the N entries of the
        true labels are read then. Labels, shapes and weights are always checked.

    Returns
    -------
    float
        In the unit asked for.

    Raises
    ------
    ValueError
        If an argument is malformed or, with `validate`, a row of `y_prob` is no distribution.

    References
    ----------
    .. [1] I. J. Good, "Rational Decisions", Journal of the Royal Statistical Society B 14 (1952).

    Examples
    --------
    >>> log_loss(["cat", "dog"], [[0.5, 0.5], [0.75, 0.25]], base="bits")
    1.5
    >>> log_loss([0, 1], [0.0, 0.0])
    inf
    >>> round(log_loss([0, 1], [0.0, 0.0], clip=1e-6), 6)
    6.907755
    """
    if base not in ("nats", "bits"):
        raise ValueError(refuse('base must be "nats" or "bits"', repr(base)))
    if clip is not None and not (isinstance(clip, int | float | np.floating) and 0 < clip < 1):
        raise ValueError(refuse("clip must be None or a probability between 0 and 1", repr(clip)))
    checked = check_predictions(y_true, y_prob, labels, sample_weight, validate=validate)
    chosen = checked.of_label()
    if clip is not None:
        chosen = np.maximum(chosen, clip)
    nats = weighted_mean(_surprise(chosen), checked.weights)
    return nats if base == "nats" else nats / math.log(2)


def _surprise(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):  # log 0 = -inf is the answer here
        return np.abs(np.log(probability))  # abs: -log 1 is -0.0


def perplexity(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    validate: bool = True,
) -> float:
    """The exponential of the log loss: how many equally likely classes would be as hard to guess.

    1 for a perfect prediction, K for the uniform one, `inf` once a label was called impossible (or the log loss exceeds
    709 nats, the logarithm of the largest float). Parameters and errors as in `log_loss`.

    Examples
    --------
    >>> round(perplexity([0, 1, 2], [[0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]), 12)
    3.174802103936
    """
    nats = log_loss(y_true, y_prob, labels=labels, sample_weight=sample_weight, validate=validate)
    with np.errstate(over="ignore"):  # inf beyond the largest float
        return float(np.exp(nats))


def brier_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    scale: str = "full",
) -> float:
    r"""Mean squared distance to the label, :math:`\frac{1}{\sum w_i} \sum_i w_i \sum_k (p_{ik} - [y_i = k])^2`.

    Brier's own definition [1]_, summed over all classes, for two as for more: between 0 (perfect) and 2.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight
        As in `log_loss`.
    scale : {"full", "half"}
        "half": half of it, between 0 and 1. For two classes that is the mean of ``(p - y)^2``, and what scikit-learn's
        ``brier_score_loss`` returns (its ``scale_by_half="auto"``); for more, scikit-learn returns the full one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `log_loss`, and if `scale` is another word.

    References
    ----------
    .. [1] G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).

    Examples
    --------
    >>> brier_score([0, 1], [[1.0, 0.0], [0.5, 0.5]]), brier_score([0, 1], [0.0, 0.5], scale="half")
    (0.25, 0.125)
    """
    if scale not in ("full", "half"):
        raise ValueError(refuse('scale must be "full" or "half"', repr(scale)))
    score = _brier(check_predictions(y_true, y_prob, labels, sample_weight))
    return score / 2 if scale == "half" else score


def _brier(checked: Predictions) -> float:
    rest = checked.of_rows(checked.kernels.squares_beside)
    return weighted_mean((1.0 - checked.of_label()) ** 2 + rest, checked.weights)


def spherical_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""Mean of :math:`p_{i, y_i} / \lVert p_i \rVert_2`: the spherical score [1]_, strictly proper.

    *Higher is better*: 1 is perfect, 0 the worst. Parameters and errors as in `log_loss`.

    References
    ----------
    .. [1] T. Gneiting, A. E. Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", Journal of the
       American Statistical Association 102 (2007).

    Examples
    --------
    >>> round(spherical_score([0, 1], [[0.6, 0.4], [0.0, 1.0]]), 6)
    0.916025
    """
    return _spherical(check_predictions(y_true, y_prob, labels, sample_weight))


def _spherical(checked: Predictions) -> float:
    rest = checked.of_rows(checked.kernels.squares_beside)
    own = checked.of_label()
    return weighted_mean(own / np.sqrt(own * own + rest), checked.weights)


def ranked_probability_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""For *ordered* classes, mean of :math:`\sum_{k < K} \bigl(\sum_{j \le k} p_{ij} - [y_i \le k]\bigr)^2`.

    Being off by one class costs less than being off by two [1]_. A sum over the K - 1 thresholds (divide by K - 1 for
    the normalised form): between 0 (perfect) and K - 1; for two classes half of `brier_score`. The order is that of the
    columns: name words in theirs, ``labels=["low", "mid", "high"]``, because sorting them would be alphabetical.
    Parameters and errors as in `log_loss`.

    References
    ----------
    .. [1] E. S. Epstein, "A Scoring System for Probability Forecasts of Ranked Categories", Journal of Applied
       Meteorology 8 (1969).

    Examples
    --------
    >>> ranked_probability_score([0, 1, 2], [[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0]])
    0.75
    """
    return _ranked(check_predictions(y_true, y_prob, labels, sample_weight))


def _ranked(checked: Predictions) -> float:
    return weighted_mean(checked.of_rows(checked.kernels.ranked_terms), checked.weights)


def _log(checked: Predictions) -> float:
    return weighted_mean(_surprise(checked.of_label()), checked.weights)


_SCORES: dict[str, tuple[Callable[[Predictions], float], float]] = {
    "log": (_log, 0.0),
    "brier": (_brier, 0.0),
    "spherical": (_spherical, 1.0),
    "ranked": (_ranked, 0.0),
}
"""Each score's mean over predictions, and what it is of perfect ones."""


def skill_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    score: str = "log",
    reference: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    r"""The share of the way from a reference to perfection, :math:`(S - S_{ref}) / (S_{perfect} - S_{ref})`.

    1 is perfect, 0 no better than the reference, below 0 worse (`-inf` where the log loss is `inf`).

    Parameters
    ----------
    score : {"log", "brier", "spherical", "ranked"}
        `log_loss`, `brier_score`, `spherical_score` or `ranked_probability_score`.
    reference : array of shape (K,) or (N, K), optional
        What the reference predicts, for instance the class shares of the *training* rows. None: the weighted class
        shares of `y_true` itself, the best that any constant prediction could do.
    y_true, y_prob, labels, sample_weight
        As in `log_loss`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `log_loss`; also if the reference is perfect, so that there is no way to go.

    Examples
    --------
    >>> round(skill_score(["no", "yes"], [0.25, 0.75]), 6)
    0.584963
    """
    if score not in _SCORES:
        raise ValueError(refuse(f"score must be one of {', '.join(map(repr, _SCORES))}", repr(score)))
    refuse_masked(reference, "reference")
    mean, perfect = _SCORES[score]
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    beside = mean(_predictions_of(reference, checked))
    if beside == perfect:
        raise ValueError(refuse("a skill score needs a reference that is not perfect", f"its {score} score {beside:g}"))
    return (mean(checked) - beside) / (perfect - beside)


def _predictions_of(reference: ArrayLike | None, checked: Predictions) -> Predictions:
    """Return what a reference predicts; a constant one has a row for each class, which weighs what its rows do."""
    classes = checked.probabilities.shape[1]
    mass = np.bincount(checked.codes, weights=checked.weights, minlength=classes).astype(np.float64)
    distribution = mass / mass.sum() if reference is None else np.asarray(reference)
    if distribution.shape == (classes,):
        constant = check_predictions([0], distribution[None], np.arange(classes))
        codes = np.flatnonzero(mass)
        rows = np.broadcast_to(constant.probabilities, (len(codes), classes))
        return Predictions(codes, rows, mass[codes], constant.labels, None)
    if distribution.shape != checked.probabilities.shape:
        asked = f"reference must have shape ({classes},) or {checked.probabilities.shape}"
        raise ValueError(refuse(asked, describe(distribution)))
    return check_predictions(checked.codes, distribution, np.arange(classes), checked.weights)


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
    return weighted_mean(checked.rows().hit.astype(np.float64), checked.weights)
