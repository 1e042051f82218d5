"""Calibrators of one event at a time: Platt, isotonic, histogram; class by class and normalised for more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from crossent.errors import refuse

from ..estimator import all_or_nothing
from .affine import blocks_of, check_solver_options
from .base import Calibrator, Float64, Sample

__all__ = ["HistogramBinning", "IsotonicCalibration", "OneVersusRest", "PlattScaling", "log_odds"]

_LARGE = 100.0


def log_odds(logits: NDArray[Any]) -> NDArray[Any]:
    """Return ``log(p_k / (1 - p_k)) = z_k - LSE(z without k)`` of each class, exact where p_k is 0 or nearly 1."""
    rows = np.arange(len(logits))
    z = logits - logits.max(axis=1, keepdims=True)
    top = z.argmax(axis=1)
    others = z.copy()
    others[rows, top] = -np.inf
    second = others.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # one class that can happen: log-odds of inf
        tail = np.where(second > -np.inf, np.exp(others - second).sum(axis=1, keepdims=True), 0.0)
        rest = np.where(second > -np.inf, second + np.log(tail), -np.inf)
        # e^z_k is left out of the sum by subtraction only where the maximum's own 1 stays in it.
        odds = z - np.log1p(np.maximum(np.exp(rest) - np.exp(z), 0.0))
        odds[rows, top] = -rest[:, 0]
    return np.asarray(odds)


class OneVersusRest(Calibrator):
    """One map of the log-odds per column; rows of three classes or more are divided by their sum."""

    def __init__(self, *, input: str = "logits", link: str = "softmax") -> None:
        self.input = input
        self.link = link

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit one map per class (for two classes: one map of the second).

        Parameters
        ----------
        logits, y, sample_weight
            As in `TemperatureScaling.fit`.

        Returns
        -------
        The calibrator itself.

        Raises
        ------
        ValueError
            If an argument is malformed, looks like probabilities, or a logit is NaN or +inf.
        """
        with all_or_nothing(self):
            sample = self._check_sample(logits, y, sample_weight)
            bad = np.isnan(sample.logits).any(axis=1) | (sample.logits == np.inf).any(axis=1)
            if bad.any():
                self._refuse_row(sample)
            self._num_columns = sample.logits.shape[1]
            scores = self._scores(sample.logits)
            events = sample.events
            if self.link == "softmax" and self._num_columns == 2:
                events = (sample.codes == 1)[:, None]
            self._fit_columns(Sample(scores, sample.codes, events, sample.weights))
        return self

    def _scores(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the log-odds of each column; of the second class alone where there are two."""
        if self.link == "sigmoid":
            return logits
        if logits.shape[1] == 2:
            return np.ascontiguousarray(logits[:, 1:] - logits[:, :1])
        scores = np.empty_like(logits)
        for part in blocks_of(Sample(logits, np.zeros(len(logits), np.intp), None, None)):
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

    def _fit_columns(self, sample: Sample) -> None:
        raise NotImplementedError

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


def _columns(sample: Sample) -> Any:
    """Yield each column's scores and events, beside all weights."""
    for k in range(sample.logits.shape[1]):
        events = sample.codes == k if sample.events is None else sample.events[:, k]
        yield sample.logits[:, k].astype(np.float64), events


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

    scale_: Float64
    bias_: Float64

    def __init__(
        self,
        *,
        score: str = "auto",
        smooth_targets: bool = True,
        input: str = "logits",
        link: str = "softmax",
        tol: float = 1e-9,
        max_iter: int = 100,
    ) -> None:
        super().__init__(input=input, link=link)
        self.score = score  # type: ignore[method-assign, assignment]  # an option that hides the method
        self.smooth_targets = smooth_targets
        self.tol = tol
        self.max_iter = max_iter

    def _fit_columns(self, sample: Sample) -> None:
        check_solver_options(self.tol, self.max_iter)
        if self.score not in ("auto", "log-odds", "log-probability"):
            raise ValueError(refuse("score must be 'auto', 'log-odds' or 'log-probability'", repr(self.score)))
        self.score_ = "log-odds" if self.score == "auto" else self.score
        self.n_passes_ = 0
        if sample.events is not None:
            self.score_ = "log-odds"
        if self.score_ == "log-probability":
            sample = _log_probabilities(sample)
        self._fit_scores(sample)
        if self.score == "auto" and sample.events is None:
            loss, kept = self._loss(sample), (self.scale_, self.bias_)
            other = _log_probabilities(sample)
            self._fit_scores(other)
            if self._loss(other) < loss:
                self.score_ = "log-probability"
            else:
                self.scale_, self.bias_ = kept

    def _loss(self, sample: Sample) -> float:
        """Return the log loss of normalised predictions on these scores."""
        total = 0.0
        for part in blocks_of(sample):
            p = expit(self.scale_ * sample.logits[part] + self.bias_)
            own = p[np.arange(len(p)), sample.codes[part]]
            weights = np.ones(len(p)) if sample.weights is None else sample.weights[part]
            with np.errstate(divide="ignore"):
                loss = np.log(p.sum(axis=1)) - np.log(own)  # crossent: ignore[XE202] of a share, not of a sigmoid
            total += float(weights[weights > 0] @ loss[weights > 0])
        return total

    def _fit_scores(self, sample: Sample) -> None:
        columns = sample.logits.shape[1]
        scale, bias = np.ones(columns), np.zeros(columns)
        targets = self._targets(sample)
        unit = _units(sample.logits)
        if unit.max() > 1:
            sample = Sample(sample.logits / unit, sample.codes, sample.events, sample.weights)
        for stage in sample.stages(2):
            scale, bias = self._newton(stage, targets, scale, bias, stage is sample)
        self.scale_, self.bias_ = scale / unit, bias

    def _targets(self, sample: Sample) -> tuple[Float64, Float64]:
        columns = sample.logits.shape[1]
        if not self.smooth_targets:
            return np.zeros(columns), np.ones(columns)
        if sample.events is None:
            positive = np.bincount(sample.codes, weights=sample.weights, minlength=columns).astype(np.float64)
        else:
            weights = np.ones(len(sample.codes)) if sample.weights is None else sample.weights
            positive = weights @ sample.events
        return 1 / (sample.total - positive + 2), (positive + 1) / (positive + 2)

    def _newton(
        self, sample: Sample, targets: tuple[Float64, Float64], scale: Float64, bias: Float64, last: bool
    ) -> tuple[Float64, Float64]:
        """Newton steps of all columns at once; a column whose loss did not fall goes half the way back."""
        best = np.full(len(scale), np.inf)
        kept = (scale, bias)
        step = (np.zeros_like(scale), np.zeros_like(bias))
        for _ in range(self.max_iter):
            sums = sample.kernels.sigmoid_affine_moments(
                sample.logits, sample.codes, sample.events, targets, sample.weights, scale, bias
            )
            self.n_passes_ += last
            if not np.isfinite(sums[0]).all() and not np.isfinite(best).any():
                self._refuse_row(sample)
            loss, by_b, by_a, bb, ab, aa = sums / sample.total
            better = loss <= best * (1 + 1e-15)
            with np.errstate(all="ignore"):
                ridge = 1e-12 * (aa + bb) + 1e-300
                determinant = (aa + ridge) * (bb + ridge) - ab**2
                fresh = ((bb * by_a - ab * by_b) / determinant, (aa * by_b - ab * by_a) / determinant)
                decrement = np.where(better, 0.5 * (by_a * fresh[0] + by_b * fresh[1]), 0.0)
            if not (np.isfinite(determinant[better]).all() and np.isfinite(decrement).all()):
                self._refuse_row(sample)
            kept = (np.where(better, scale, kept[0]), np.where(better, bias, kept[1]))
            best = np.minimum(best, loss)
            step = tuple(np.where(better, -f, 0.5 * s) for f, s in zip(fresh, step, strict=True))  # type: ignore[assignment]
            small = np.max(np.abs(step[0])) + np.max(np.abs(step[1])) < 1e-12
            scale, bias = kept[0] + step[0], kept[1] + step[1]
            if (better.all() and decrement.max() <= self.tol) or small:
                break
        return kept if not better.all() else (scale, bias)

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        scores = -np.logaddexp(0.0, -scores) if self.score_ == "log-probability" else scores
        return np.asarray(expit(self.scale_ * scores + self.bias_))


def _units(scores: NDArray[Any]) -> Float64:
    """Return what to divide each column by: 1, or where most scores are large a power of two near their median.

    The sigmoid of most scores as they are would be 0 or 1, whose Hessian of nearly 0 sends Newton's method astray.
    """
    units = np.ones(scores.shape[1])
    for k in np.flatnonzero(np.maximum(scores.max(axis=0), -scores.min(axis=0)) > _LARGE):
        median = float(np.median(np.abs(scores[:, k])))
        if _LARGE < median < np.inf:
            units[k] = 2.0 ** (np.frexp(median)[1] - 1)
    return units


def _log_probabilities(sample: Sample) -> Sample:
    """Return a sample of log q in the place of log-odds."""
    return Sample(-np.logaddexp(0.0, -sample.logits), sample.codes, None, sample.weights)


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

    def __init__(self, *, smooth_ends: bool = True, input: str = "logits", link: str = "softmax") -> None:
        super().__init__(input=input, link=link)
        self.smooth_ends = smooth_ends

    def _fit_columns(self, sample: Sample) -> None:
        least = 1 / (sample.total + 2) if self.smooth_ends else 0.0
        self.maps_ = [
            IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(
                expit(scores), events, sample.weights
            )
            for scores, events in _columns(sample)
        ]

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        p = expit(scores.astype(np.float64))
        return np.stack([found.predict(column) for found, column in zip(self.maps_, p.T, strict=True)], axis=1)


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

    def __init__(
        self,
        *,
        bins: int = 15,
        binning: str = "equal-mass",
        pseudo_rows: float = 2.0,
        input: str = "logits",
        link: str = "softmax",
    ) -> None:
        super().__init__(input=input, link=link)
        self.bins = bins
        self.pseudo_rows = pseudo_rows
        self.binning = binning

    def _fit_columns(self, sample: Sample) -> None:
        if not isinstance(self.bins, int | np.integer) or isinstance(self.bins, bool) or self.bins < 1:
            raise ValueError(refuse("bins must be a positive integer", repr(self.bins)))
        if self.binning not in ("equal-mass", "equal-width"):
            raise ValueError(refuse("binning must be 'equal-mass' or 'equal-width'", repr(self.binning)))
        if not (isinstance(self.pseudo_rows, int | float) and self.pseudo_rows >= 0):
            raise ValueError(refuse("pseudo_rows must be a number of at least 0", repr(self.pseudo_rows)))
        weights = np.ones(len(sample.codes)) if sample.weights is None else sample.weights
        self.edges_, self.shares_ = [], []
        levels = np.arange(1, self.bins) / self.bins
        for scores, events in _columns(sample):
            p = expit(scores)
            edges = levels
            if self.binning == "equal-mass":
                counted = weights > 0
                edges = np.unique(np.quantile(p[counted], levels, weights=weights[counted], method="inverted_cdf"))
                edges = edges[edges < p[counted].max()]
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
