"""How sure is a calibration error? An interval that can hold 0, and a test of the hypothesis "calibrated".

The squared error of the predicted class over fixed bins, ``θ = Σ_b π_b g_b²`` (π_b: a bin's share, g_b: its expected
gap), is estimated without bias by ``T``, from products of different rows. A bootstrap around T never covers θ = 0,
because resampling adds noise that looks like error. So the interval is the set of all θ that a test does not reject.
The test scales the observed gaps until their error is θ and simulates predictions with them (binomial hits in every
bin). It keeps θ if ``|√max(T, 0) - √θ|`` is no larger than in a share `level` of the simulations. The interval is
one-sided at 0, two-sided away from it, and never empty.

Three things are approximate. Hits of a bin are drawn with its mean confidence p. The variance ``p (1 - p)`` is a little
larger than that of the rows where confidences vary inside the bin, so wide bins are slightly conservative. The true
gaps are not known, and the observed ones spread an error over all bins. Where one bin of several has all of it, the
interval covers more than promised. Weighted rows count as ``(Σw)² / Σw²`` rows of a bin, Kish's effective number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import refuse
from .binning import Bins, top_label_bins
from .predictions import check_predictions

__all__ = ["CalibrationInterval", "calibration_interval", "calibration_test"]

Float64 = NDArray[np.float64]

_HALVINGS = 12


class CalibrationInterval(NamedTuple):
    """Squared calibration errors: the debiased estimate, which may be negative, and the interval's ends."""

    estimate: float
    lower: float
    upper: float
    level: float


class _Profile:
    """The bins of at least two rows, and the distribution of T for predictions like these with a given error."""

    def __init__(self, table: Bins, draws: int, seed: int) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            effective = table.weight[0] ** 2 / table.weight_squares[0]
        used = (table.rows[0] > 1) & (np.nan_to_num(effective) > 1.5)
        if not used.any():
            raise ValueError(
                refuse("some bin must hold two rows or more", f"{int(table.rows[0].sum())} rows, each alone")
            )
        self.rows = np.rint(effective[used]).astype(np.int64)
        self.share = table.weight[0][used] / table.weight[0][used].sum()
        self.confidence = np.clip(table.value[0][used] / table.weight[0][used], 0.0, 1.0)
        self.gap = table.gaps()[0][used]
        self.estimate = float(self.share @ table.squared_gaps(True)[0][used])
        self.draws, self.seed = draws, seed
        if not self.gap.any():
            self.gap = np.where(self.confidence > 0.5, -1.0, 1.0)
        # An accuracy that reaches 0 or 1 stays there. Between the scales at which bins do, the error is a parabola.
        self.room = np.where(self.gap > 0, 1 - self.confidence, self.confidence)
        with np.errstate(divide="ignore"):
            ends = np.where(self.gap == 0, math.inf, self.room / np.abs(self.gap))
        order = np.argsort(ends)
        squares = (self.share * self.gap**2)[order]
        self._ends = ends[order]
        self._reached = np.concatenate([[0.0], np.cumsum((self.share * self.room**2)[order])])
        self._moving = np.append(np.cumsum(squares[::-1])[::-1], 0.0)

    def largest(self) -> float:
        """Return the error at which every bin has come to 0 or 1."""
        return float(self.share[self.gap != 0] @ self.room[self.gap != 0] ** 2)

    def _accuracies(self, error: float) -> Float64:
        """Return accuracies whose gaps have the observed profile and the squared error asked for."""
        movable = int(np.searchsorted(self._ends, math.inf))
        errors = self._reached[:movable] + self._ends[:movable] ** 2 * self._moving[:movable]
        arrived = int(np.searchsorted(errors, error))
        if arrived == movable:
            scale = math.inf
        else:
            scale = math.sqrt(max(error - self._reached[arrived], 0.0) / self._moving[arrived])
        with np.errstate(invalid="ignore"):
            shift = np.where(self.gap == 0, 0.0, scale * self.gap)
        return np.asarray(np.clip(self.confidence + shift, 0.0, 1.0))

    def p_value(self, error: float) -> float:
        """Return how often predictions with this error are as far from it as the observed ones."""
        generator = np.random.default_rng(self.seed)
        n = self.rows
        hits = generator.binomial(n, self._accuracies(error), size=(self.draws, len(n))) / n
        simulated = ((hits - self.confidence) ** 2 - hits * (1 - hits) / (n - 1)) @ self.share
        root = math.sqrt(error)
        distance = np.abs(np.sqrt(np.maximum(simulated, 0.0)) - root)
        observed = abs(math.sqrt(max(self.estimate, 0.0)) - root)
        return float((1 + np.sum(distance >= observed * (1 - 1e-12))) / (1 + self.draws))


def calibration_test(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bins: int | ArrayLike = 10,
    squared_error: float = 0.0,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """p-value of the hypothesis that confidences are calibrated (or have another squared error).

    A small p-value is evidence that the predicted class's probability is not its frequency. Binned: errors that cancel
    inside a bin are not seen. Confidences that vary inside a bin count as their mean: with wide bins p-values are a
    little too large.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight
        As in `crossent.metrics.reliability_curve`.
    bins : int, or increasing edges from 0 to 1
        Number of bins of equal width, or their edges. They must not be chosen by looking at the labels.
    squared_error : float
        The squared L2 error of the hypothesis: 0 for "calibrated".
    draws, seed : int
        Number of simulations, and the seed: the same call gives the same p-value.

    Returns
    -------
    float
        Between 1 / (draws + 1) and 1.

    Raises
    ------
    ValueError
        If an argument is malformed, no bin holds two rows, or no predictions have so large an error.

    Examples
    --------
    >>> prob = np.full(1000, 0.8)
    >>> calibration_test(np.arange(1000) % 5 > 0, prob) > 0.9, calibration_test(np.arange(1000) % 2, prob) < 0.001
    (True, True)
    """
    profile = _profile(y_true, y_prob, labels, sample_weight, bins, draws, seed)
    if not (isinstance(squared_error, int | float | np.floating) and 0 <= squared_error <= profile.largest()):
        asked = f"squared_error must lie between 0 and the largest that these confidences allow, {profile.largest():g}"
        raise ValueError(refuse(asked, repr(squared_error)))
    return profile.p_value(float(squared_error))


def calibration_interval(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bins: int | ArrayLike = 10,
    level: float = 0.9,
    draws: int = 2000,
    seed: int = 0,
) -> CalibrationInterval:
    """Confidence interval of the squared L2 calibration error of the predicted class, over fixed bins.

    All `squared_error` whose `calibration_test` has a p-value of at least ``1 - level``. It holds 0 where calibrated
    predictions could look like these, and its coverage is the nominal one there too, which no percentile bootstrap's
    is. Where few bins have all of the error it covers more than promised. Take square roots for the error itself.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight, bins, draws, seed
        As in `calibration_test`.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    CalibrationInterval
        Named tuple ``estimate, lower, upper, level``; the estimate is unbiased and may be negative.

    Raises
    ------
    ValueError
        If an argument is malformed or no bin holds two rows.

    Examples
    --------
    >>> found = calibration_interval(np.arange(1000) % 2, np.full(1000, 0.8))
    >>> round(found.estimate, 4), bool(found.lower < 0.09 < found.upper)
    (0.0897, True)
    """
    if not (isinstance(level, float) and 0 < level < 1):
        raise ValueError(refuse("level must lie between 0 and 1", repr(level)))
    profile = _profile(y_true, y_prob, labels, sample_weight, bins, draws, seed)
    alpha, largest = 1 - level, profile.largest()
    inside = min(max(profile.estimate, 0.0), largest)
    lower = 0.0
    if profile.p_value(0.0) < alpha:
        lower = _boundary(profile, 0.0, inside, alpha)
    upper, reach = largest, max(inside, 1e-6)
    while inside + reach < largest and profile.p_value(inside + reach) >= alpha:
        reach *= 2
    outside = min(inside + reach, largest)
    if profile.p_value(outside) < alpha:
        upper = _boundary(profile, outside, inside, alpha)
    return CalibrationInterval(profile.estimate, lower, upper, level)


def _boundary(profile: _Profile, outside: float, inside: float, alpha: float) -> float:
    """Return where the p-value crosses alpha, in the square root of the error."""
    out, kept = math.sqrt(outside), math.sqrt(inside)
    for _ in range(_HALVINGS):
        middle = 0.5 * (out + kept)
        if profile.p_value(middle**2) < alpha:
            out = middle
        else:
            kept = middle
    return kept**2


def _profile(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    labels: ArrayLike | None,
    sample_weight: ArrayLike | None,
    bins: int | ArrayLike,
    draws: int,
    seed: int,
) -> _Profile:
    if not isinstance(draws, int | np.integer) or draws < 1:
        raise ValueError(refuse("draws must be a positive integer", repr(draws)))
    return _Profile(top_label_bins(check_predictions(y_true, y_prob, labels, sample_weight), bins), int(draws), seed)
