"""Calibrators of one event at a time: Platt, isotonic, histogram; class by class and normalised for more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from crossent.errors import refuse
from crossent.metrics.binning import check_count
from crossent.numpy.elementwise import log_softmax, logsumexp

from .base import Calibrator
from .linear import LinearMap, Prior, fit
from .sample import Float64, Sample, row_blocks

__all__ = ["HistogramBinning", "IsotonicCalibration", "OneVersusRest", "PlattScaling", "log_odds"]


def log_odds(logits: NDArray[Any]) -> NDArray[Any]:
    """Return ``log(p_k / (1 - p_k)) = z_k - LSE(z without k)`` of each class, exact where p_k is 0 or nearly 1."""
    rows, top = np.arange(len(logits)), logits.argmax(axis=1)
    others = logits.copy()
    others[rows, top] = -np.inf
    log_p, rest = log_softmax(logits), logsumexp(others)
    with np.errstate(divide="ignore"):  # one class that can happen: log-odds of inf
        odds = log_p - np.log(-np.expm1(log_p))
    odds[rows, top] = logits[rows, top] - np.where(np.isnan(rest), -np.inf, rest)  # whose 1 - p may underflow
    return np.asarray(odds)


class OneVersusRest(Calibrator):
    """One map of the log-odds per column; rows of three classes or more are divided by their sum."""

    def _fit(self, sample: Sample) -> None:
        sample.refuse_infinite()
        events, link = sample.events, sample.link
        if link == "softmax" and self._num_columns == 2:
            events, link = (sample.codes == 1)[:, None], "sigmoid"
        self._fit_scores(replace(sample, logits=self._scores(sample.logits), events=events, link=link))

    def _scores(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the log-odds of each column; of the second class alone where there are two."""
        if self.link == "sigmoid":
            return logits
        if logits.shape[1] == 2:
            return np.ascontiguousarray(logits[:, 1:] - logits[:, :1])
        scores = np.empty_like(logits)
        for part in row_blocks(*logits.shape):
            scores[part] = log_odds(logits[part])
        return scores

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        p = self._map(self._scores(z))
        if self.link == "sigmoid":
            return p
        if p.shape[1] == 1:
            return np.concatenate([1 - p, p], axis=1)
        total = p.sum(axis=1, keepdims=True)
        # Where every class says 0 there is nothing to divide: all are equally likely, as in scikit-learn.
        return np.where(total == 0, 1 / p.shape[1], p / np.where(total == 0, 1.0, total))

    def _fit_scores(self, sample: Sample) -> None:
        raise NotImplementedError

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


@dataclass(kw_only=True, eq=False, repr=False)
class PlattScaling(OneVersusRest):
    r"""Platt's scaling: :math:`p_k = \sigma(a_k s_k + b_k)` of a score s, fitted by binary cross-entropy [1]_.

    Two classes: one sigmoid of the difference of their logits. More: one per class against the rest, normalised. All
    classes are fitted in the same passes, by Newton's method on each one's 2 × 2 Hessian.

    Parameters
    ----------
    score : {"auto", "log-odds", "log-probability"}
        For three classes or more: what the sigmoid sees of a class, ``log(q / (1 - q))`` or ``log q``, q its
        probability. "auto" fits both and keeps the one of lower log loss on the fitted rows.
    smooth_targets : bool
        Platt's targets ``(n₊ + 1) / (n₊ + 2)`` and ``1 / (n₋ + 2)`` in the place of 1 and 0, which keep a perfectly
        separated class finite.
    input, link
        As in `TemperatureScaling`.
    tol : float
        Stop when every class's loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    scale_, bias_ : arrays (K,), or (1,) for two classes
        a and b.
    score_ : str
        The score that was chosen.
    classes_ : array (K,)
    n_passes_ : int

    References
    ----------
    .. [1] J. Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers (1999).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import PlattScaling
    >>> model = PlattScaling(smooth_targets=False).fit(np.repeat([-2.0, 2.0], 4), [0, 0, 0, 1, 1, 1, 1, 0])
    >>> model.predict_proba(np.array([-2.0, 2.0]))[:, 1].round(6).tolist()
    [0.25, 0.75]
    """

    score: str = "auto"  # type: ignore[assignment]  # an option that hides the method
    smooth_targets: bool = True
    tol: float = 1e-9
    max_iter: int = 100

    def _check_options(self) -> None:
        self._check_solver()
        if self.score not in ("auto", "log-odds", "log-probability"):
            raise ValueError(refuse("score must be 'auto', 'log-odds' or 'log-probability'", repr(self.score)))

    def _fit_scores(self, sample: Sample) -> None:
        sample = replace(sample, link="sigmoid")
        names = ["log-odds", "log-probability"] if self.score == "auto" else [self.score]
        if sample.events is not None:
            names = ["log-odds"]
        least, self.n_passes_ = np.inf, 0
        for name in names:
            scores = sample.logits if name == "log-odds" else _log_probability(sample.logits)
            one = replace(sample, logits=scores)
            scale, bias = self._sigmoids(one)
            loss = _loss(one, scale, bias) if len(names) > 1 else 0.0
            if name == names[0] or loss < least:
                least, self.score_, self.scale_, self.bias_ = loss, name, scale, bias

    def _sigmoids(self, sample: Sample) -> tuple[Float64, Float64]:
        """Return factor and shift of each column."""
        targets = self._targets(sample)
        sample, factor = sample.scaled(by_column=True)
        start = np.stack([np.ones_like(factor), np.zeros_like(factor)])
        unit, prior = np.stack([factor, np.ones_like(factor)]), Prior(np.zeros(start.shape))
        (scale, bias), passes = fit(
            lambda part: LinearMap(part, None, prior, unit, targets=targets), sample, start, self.tol, self.max_iter
        )
        self.n_passes_ += passes
        return scale, bias

    def _targets(self, sample: Sample) -> tuple[Float64, Float64]:
        columns = sample.logits.shape[1]
        if not self.smooth_targets:
            return np.zeros(columns), np.ones(columns)
        if sample.events is None:
            positive = np.bincount(sample.codes, weights=sample.weights, minlength=columns).astype(np.float64)
        else:
            positive = sample.weight(slice(None)) @ sample.events
        return 1 / (sample.total - positive + 2), (positive + 1) / (positive + 2)

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        scores = _log_probability(scores) if self.score_ == "log-probability" else scores
        return np.asarray(expit(self.scale_ * scores + self.bias_))


def _log_probability(log_odds: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(-np.logaddexp(0.0, -log_odds))


def _loss(sample: Sample, scale: Float64, bias: Float64) -> float:
    """Return the log loss of normalised predictions on these scores."""
    total = 0.0
    for part in sample.blocks():
        p = expit(scale * sample.logits[part] + bias)
        own = p[np.arange(len(p)), sample.codes[part]]
        with np.errstate(divide="ignore"):
            loss = np.log(p.sum(axis=1)) - np.log(own)  # crossent: ignore[XE202] of a share, not of a sigmoid
        total += float(sample.weight(part) @ loss)
    return total


@dataclass(kw_only=True, eq=False, repr=False)
class IsotonicCalibration(OneVersusRest):
    """The best non-decreasing map of each probability: scikit-learn's `IsotonicRegression`, class by class.

    Squared error and cross-entropy have the same best map, so this minimises both. Wants a thousand rows per class.

    Parameters
    ----------
    smooth_ends : bool
        Keep the map between ``1 / (N + 2)`` and ``(N + 1) / (N + 2)``, N the rows (Laplace's rule of succession): a map
        that says 0 because nothing happened yet has an infinite loss at the first surprise. False: scikit-learn's map.
    input, link
        As in `TemperatureScaling`.

    Attributes
    ----------
    maps_ : list of sklearn.isotonic.IsotonicRegression
        One per class (one for two classes), of the uncalibrated probability.
    classes_ : array (K,)

    Examples
    --------
    >>> from crossent.sklearn import IsotonicCalibration
    >>> model = IsotonicCalibration(input="probabilities").fit([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1])
    >>> model.predict_proba([0.2, 0.5, 0.8])[:, 1].round(3).tolist()
    [0.167, 0.5, 0.833]
    """

    smooth_ends: bool = True

    def _fit_scores(self, sample: Sample) -> None:
        least = 1 / (sample.total + 2) if self.smooth_ends else 0.0
        self.maps_ = [
            IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(
                expit(scores), events, sample.weights
            )
            for scores, events in sample.columns()
        ]

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        p = expit(scores.astype(np.float64))
        return np.stack([found.predict(column) for found, column in zip(self.maps_, p.T, strict=True)], axis=1)


@dataclass(kw_only=True, eq=False, repr=False)
class HistogramBinning(OneVersusRest):
    """Each probability becomes the share of events in its bin [1]_.

    Parameters
    ----------
    bins : int
        Number of bins, at least 1.
    binning : {"equal-mass", "equal-width"}
        Bins that hold the same number of rows, or of the same width.
    pseudo_rows : float
        So many rows with the class's overall share of events are added to each bin, at least 0; by default two, as by
        Laplace's rule of succession, which knows no share and adds an event and a row without. With 0 a bin without an
        event says 0, whose loss at the first surprise is infinite, and an empty bin keeps its middle.
    input, link
        As in `TemperatureScaling`.

    Attributes
    ----------
    edges_, shares_ : lists of arrays
        Of each class (one for two classes): the inner edges, and the share of events in each bin ``(lower, upper]``.
    classes_ : array (K,)

    References
    ----------
    .. [1] B. Zadrozny, C. Elkan, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
       classifiers", ICML (2001).

    Examples
    --------
    >>> from crossent.sklearn import HistogramBinning
    >>> model = HistogramBinning(bins=2, pseudo_rows=0, input="probabilities").fit([0.2, 0.4, 0.6, 0.8], [0, 1, 1, 1])
    >>> model.predict_proba([0.3, 0.7])[:, 1].tolist()
    [0.5, 1.0]
    """

    bins: int = 15
    binning: str = "equal-mass"
    pseudo_rows: float = 2.0

    def _check_options(self) -> None:
        check_count(self.bins)
        if self.binning not in ("equal-mass", "equal-width"):
            raise ValueError(refuse("binning must be 'equal-mass' or 'equal-width'", repr(self.binning)))
        self._check_not_negative("pseudo_rows")

    def _fit_scores(self, sample: Sample) -> None:
        weights = sample.weight(slice(None))
        self.edges_, self.shares_ = [], []
        levels = np.arange(1, self.bins) / self.bins
        for scores, events in sample.columns():
            p = expit(scores)
            edges = levels
            if self.binning == "equal-mass":
                edges = np.unique(np.quantile(p, levels, weights=weights, method="inverted_cdf"))
                edges = edges[edges < p.max()]
            place = np.searchsorted(edges, p, side="left")
            mass = self.pseudo_rows + np.bincount(place, weights=weights, minlength=len(edges) + 1)
            own = np.bincount(place, weights=weights * events, minlength=len(edges) + 1)
            happened = own + self.pseudo_rows * float(weights @ events) / sample.total
            bounds = np.concatenate([[0.0], edges, [1.0]])
            middle = 0.5 * (bounds[1:] + bounds[:-1])
            self.edges_.append(edges)
            self.shares_.append(np.where(mass > 0, happened / np.where(mass > 0, mass, 1.0), middle))

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        p = expit(scores.astype(np.float64))
        columns = zip(self.edges_, self.shares_, p.T, strict=True)
        return np.stack([share[np.searchsorted(edge, column, side="left")] for edge, share, column in columns], axis=1)
