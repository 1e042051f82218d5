"""The temperature of a model that was trained on all of its rows: cross-fitted, and as near to 1 as the rows allow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

import crossent as ce

from ..sklearn import TemperatureScaling
from .errors import InputError
from .fitting import Calibration
from .splitting import deal_folds

# The 95 % point of chi-squared with one degree of freedom, for twice the gain in log-likelihood.
_LIKELIHOOD_RATIO = 3.84
# These are enough for one number: its standard error is below 2 %, and further fold models would only cost time.
_ENOUGH_ROWS = 20_000
# Inverse temperatures beyond these are as good as 0 and as infinity: labels told apart without an error, or not at all.
_STEEPEST = 1e6

Estimator = Any


def cross_fit(
    make: Callable[[], Estimator],
    matrix: NDArray[np.float64],
    codes: NDArray[np.intp],
    training: NDArray[np.intp],
    share: float,
    seed: int,
    groups: NDArray[np.intp] | None = None,
) -> tuple[Calibration | None, list[str]]:
    """Find a temperature from logits that no model gave to rows it was trained on.

    The training rows are dealt into ``1/share`` stratified folds, the logits of each come from a model fitted to the
    others, and the temperature is fitted to all of them together. So the final model can have every training row.

    Parameters
    ----------
    make : callable
        Returns a new estimator with `fit` and `logits`.
    matrix : array (N, D)
    codes : array (N,)
        Class indices.
    training : array of int
        Row numbers to work with.
    share : float
        Share of the training rows in a fold, at most one half; 0 calibrates nothing.
    seed : int
        Deals the folds.
    groups : array (N,), optional
        Rows of the same number stay in one fold.

    Returns
    -------
    Calibration or None, list of str
        None with a note where a class has a single row, or all its rows in one group, which no fold could be without.

    Raises
    ------
    InputError
        If the share is not one.
    """
    if not 0 <= share <= 0.5:
        raise InputError(f"the calibration part must be a share of the rows from 0 to 0.5, and is {share}")
    if share == 0:
        return None, []
    codes = codes[training]
    groups = None if groups is None else groups[training]
    counts = np.bincount(codes)
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        return None, ["not calibrated: a class has 1 training row, and calibration needs at least 2 of each"]
    folds = min(round(1 / share), fewest, len(training if groups is None else np.unique(groups)))
    parts = list(deal_folds(codes, folds, seed, groups)) if folds > 1 else []
    if not parts or any((np.bincount(codes[kept], minlength=len(counts))[counts > 0] == 0).any() for kept, _ in parts):
        return None, ["not calibrated: without one fold of the groups, a class has no row to train on"]
    logits = np.empty((len(training), len(counts)))
    seen = np.zeros(len(training), dtype=bool)
    for kept, held_out in parts:
        logits[held_out] = make().fit(matrix[training[kept]], codes[kept]).logits(matrix[training[held_out]])
        seen[held_out] = True
        if seen.sum() >= _ENOUGH_ROWS:
            break
    best, temperature = cautious_temperature(logits[seen], codes[seen])
    return Calibration(training[seen], folds, best, temperature), []


def cautious_temperature(logits: NDArray[np.float64], codes: NDArray[np.intp]) -> tuple[float, float]:
    """Return the temperature of least loss, and the one nearest to 1 that these rows do not contradict.

    "Do not contradict" is the likelihood-ratio interval of 95 %: twice the summed loss at T is less than 3.84 above
    that of the best. On few rows that is T = 1, so that calibration helps where there is something to gain and hardly
    ever does harm; on many it is the best T.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.tile([[4.0, 0.0]], (200, 1))
    >>> codes = np.arange(200) % 4 // 3  # right in 3 of 4 rows, 98 % sure
    >>> [round(t, 2) for t in cautious_temperature(logits, codes)]
    [3.64, 2.8]
    >>> cautious_temperature(logits[:2], codes[:2])[1]
    1.0
    """
    # A shift changes no probability. Without it, logits from 0 to 1 would be refused as probabilities.
    logits = logits - logits.max(axis=1, keepdims=True)

    def summed(inverse: float) -> float:
        return float(ce.cross_entropy(logits * inverse, codes, reduction="sum"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no finite temperature is best: the interval has a finite end all the same
        best = TemperatureScaling().fit(logits, codes).temperature_
    inverse = min(1 / best, _STEEPEST) if best else _STEEPEST
    ceiling = summed(inverse) + _LIKELIHOOD_RATIO / 2
    if not summed(1.0) > ceiling:
        return best, 1.0
    return best, 1 / float(brentq(lambda b: summed(b) - ceiling, *sorted((inverse, 1.0)), xtol=1e-9))
