"""Temperature scaling."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from crossent.errors import refuse
from crossent.numpy.elementwise import sigmoid, softmax

from ..estimator import all_or_nothing
from .base import Calibrator, Float64, Sample

__all__ = ["TemperatureScaling"]

_LARGEST = 1e6
"""Largest inverse temperature: where every row is classified right, the loss falls for ever."""


class TemperatureScaling(Calibrator):
    r"""One number for all logits: :math:`p = softmax(z / T)`, with the T > 0 of least cross-entropy.

    The predicted class stays the same. In ``β = 1/T`` the loss is convex, with derivatives
    :math:`\sum_k p_k z_k - z_y` and :math:`Var_p(z)`, which one pass gives together: Newton's method needs two or three
    passes over all rows after a start on a part of them. The loss of the fitted rows is never above that of T = 1.
    A masked class (a logit of -inf) keeps its probability of 0 at every temperature.

    Parameters
    ----------
    input : {"logits", "any-logits", "probabilities"}
        What `fit` and `predict_proba` are given. Logits that look like probabilities are refused, unless "any-logits"
        says that they are logits which happen to lie between 0 and 1. "probabilities" takes their logarithms, which are
        logits up to a constant (a probability of 0 stays 0).
    link : {"softmax", "sigmoid"}
        "sigmoid": each column is a label of its own (`y`: label sets of 0 and 1, or two classes for a single column).
    tol : float
        Relative precision of T.

    Attributes
    ----------
    temperature_ : float
        T; `inf` where the logits are worse than none.
    classes_ : array (K,)
    n_passes_ : int
        Passes over all rows; those over the part of them that the fit starts on are not counted.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import TemperatureScaling
    >>> logits = np.array([[4.0, 0.0]] * 4)
    >>> model = TemperatureScaling().fit(logits, [0, 0, 0, 1])
    >>> round(model.temperature_, 6), model.predict_proba(logits[:1]).round(6).tolist()
    (3.640957, [[0.75, 0.25]])
    """

    def __init__(self, *, input: str = "logits", link: str = "softmax", tol: float = 1e-6) -> None:
        self.input = input
        self.link = link
        self.tol = tol

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> TemperatureScaling:
        """Find the temperature.

        Parameters
        ----------
        logits : array (N, K), or (N,) for two classes (the logit of the second)
            Best from rows that the model was not trained on. ``-inf`` is a class that cannot happen.
        y : array (N,), or (N, K) of 0 and 1 with the sigmoid link
            Labels: column k belongs to the k-th in sorted order; class indices below K need not all occur.
        sample_weight : array (N,), optional
            Weights, at least 0.

        Returns
        -------
        TemperatureScaling
            Itself.

        Raises
        ------
        ValueError
            If an argument is malformed, looks like probabilities, or a logit is NaN or +inf.

        Warns
        -----
        ConvergenceWarning
            If no finite temperature is best: every row is classified right, or the logits are worse than none.
        """
        if not (isinstance(self.tol, int | float) and 0 < self.tol < 1):
            raise ValueError(refuse("tol must lie between 0 and 1", repr(self.tol)))
        with all_or_nothing(self):
            sample = self._check_sample(logits, y, sample_weight)
            self._num_columns = sample.logits.shape[1]
            self.n_passes_ = 0
            beta = 1.0
            for stage in sample.stages(1):
                beta = self._newton(stage, beta, stage is sample)
            self.temperature_ = math.inf if beta == 0 else 1 / beta
        return self

    def _moments(self, sample: Sample, beta: float) -> Float64:
        """Return mean loss and its derivatives by β."""
        if self.link == "softmax":
            moments = sample.kernels.temperature_moments(sample.logits, sample.codes, sample.weights, beta)
        else:
            columns = sample.logits.shape[1]
            targets = (np.zeros(columns), np.ones(columns))
            sums = sample.kernels.sigmoid_affine_moments(
                sample.logits, sample.codes, sample.events, targets, sample.weights, np.full(columns, beta), targets[0]
            )
            moments = sums[[0, 2, 5]].sum(axis=1)
        if not np.isfinite(moments).all():
            self._refuse_row(sample)
        return np.asarray(moments) / sample.total

    def _newton(self, sample: Sample, beta: float, last: bool) -> float:
        """Return the best β, bracketed by the signs of the slope; Newton's step where it stays inside."""
        low, high = 0.0, _LARGEST
        step = math.inf
        for _ in range(200):
            loss, slope, curvature = self._moments(sample, beta).tolist()
            self.n_passes_ += last
            low, high = (low, beta) if slope > 0 else (beta, high)
            step = -slope / curvature if curvature > 0 else math.copysign(math.inf, -slope)
            if slope == 0 and curvature == 0:  # every p is 0 or 1 by now, or all logits of a row are equal
                previous, change = beta, 0.0
                break
            inside = min(max(beta + step, beta / 10 if low < beta / 10 else low), beta * 10 if beta else 1.0)
            if not low <= inside <= high:
                inside = 0.5 * (low + high)
            change = abs(inside - beta)
            previous, beta = beta, inside
            # Newton's next error is about the square of this step's.
            if change <= math.sqrt(self.tol) * 0.1 * beta or beta < 1e-9 or beta >= _LARGEST:
                break
        if not last:
            return beta if 1e-9 < beta < _LARGEST else 1.0
        if beta < 1e-9:
            warnings.warn(
                "the logits are worse than none: no temperature below infinity is best, so every class gets the same "
                "probability; are the labels those of these rows?",
                ConvergenceWarning,
                stacklevel=3,
            )
            return 0.0
        if beta >= _LARGEST or (loss < 1e-12 and previous > 1):
            warnings.warn(
                f"every row is classified right, so the loss falls for ever as T goes to 0; stopped at {1 / beta:.1e}: "
                "calibrate on rows that the model was not trained on",
                ConvergenceWarning,
                stacklevel=3,
            )
            return beta
        return self._not_worse_than_one(sample, beta, change)

    def _not_worse_than_one(self, sample: Sample, beta: float, change: float) -> float:
        """Return β, or 1 where it is too near to be told from it and has the lower loss."""
        if abs(beta - 1) > 10 * change + 1e-12:
            return beta
        self.n_passes_ += 2
        return beta if self._moments(sample, beta)[0] <= self._moments(sample, 1.0)[0] else 1.0

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        if math.isfinite(self.temperature_):
            scaled = z * z.dtype.type(1 / self.temperature_)
        else:  # 0 times the logits, but what is masked stays masked
            scaled = np.where(np.isfinite(z), z.dtype.type(0), z)
        return np.asarray(softmax(scaled) if self.link == "softmax" else sigmoid(scaled))
