"""Temperature scaling: one factor for all logits."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from crossent.errors import refuse
from crossent.numpy.elementwise import sigmoid, softmax

from .base import Calibrator
from .sample import Float64, Sample

__all__ = ["TemperatureScaling", "best_factor"]

_LARGEST = 1e6
"""Largest inverse temperature: where every row is classified right, the loss falls for ever."""
_LEAST = 1e-9


@dataclass(kw_only=True, eq=False, repr=False)
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

    tol: float = 1e-6

    def _check_options(self) -> None:
        if not (isinstance(self.tol, int | float) and 0 < self.tol < 1):
            raise ValueError(refuse("tol must lie between 0 and 1", repr(self.tol)))

    def _fit(self, sample: Sample) -> None:
        sample, units = sample.scaled(lazily=True)
        unit = float(units[0])
        found = best_factor(sample, self.tol)
        beta, self.n_passes_ = found.beta, found.passes
        if beta < _LEAST:
            warnings.warn(
                "the logits are worse than none: no temperature below infinity is best, so every class gets the same "
                "probability; are the labels those of these rows?",
                ConvergenceWarning,
                stacklevel=3,
            )
            beta = 0.0
        elif beta >= _LARGEST or (found.loss < 1e-12 and found.previous > 1):
            warnings.warn(
                f"every row is classified right, so the loss falls for ever as T goes to 0; stopped at "
                f"{unit / beta:.1e}: calibrate on rows that the model was not trained on",
                ConvergenceWarning,
                stacklevel=3,
            )
        elif abs(beta - unit) <= 10 * abs(beta - found.previous) + 1e-12:  # too near to be told from T = 1
            self.n_passes_ += 2
            beta = beta if _moments(sample, beta)[0] <= _moments(sample, unit)[0] else unit
        self.temperature_ = math.inf if beta == 0 else unit / beta

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        if math.isfinite(self.temperature_):
            scaled = z * z.dtype.type(1 / self.temperature_)
        else:  # 0 times the logits, but what is masked stays masked
            scaled = np.where(np.isfinite(z), z.dtype.type(0), z)
        return np.asarray(softmax(scaled) if self.link == "softmax" else sigmoid(scaled))


class _Factor(NamedTuple):
    """Inverse temperature, the one before the last step and the mean loss there, and passes over all rows."""

    beta: float
    previous: float
    loss: float
    passes: int


def best_factor(sample: Sample, tol: float) -> _Factor:
    """Return the β of least mean cross-entropy of ``softmax(β z)`` between 0 and a million, to a relative `tol`."""
    beta = 1.0
    *starts, whole = sample.stages(1)
    for start in starts:
        found = _newton(start, beta, tol).beta
        beta = found if _LEAST < found < _LARGEST else 1.0
    return _newton(whole, beta, tol)


def _newton(sample: Sample, beta: float, tol: float) -> _Factor:
    """Return the best β, bracketed by the signs of the slope; Newton's step where it stays inside."""
    low, high = 0.0, _LARGEST
    loss, previous = math.inf, beta
    for passes in range(1, 201):
        loss, slope, curvature = _moments(sample, beta).tolist()
        low, high = (low, beta) if slope > 0 else (beta, high)
        if slope == 0 and curvature == 0:  # every p is 0 or 1 by now, or all logits of a row are equal
            return _Factor(beta, beta, loss, passes)
        step = -slope / curvature if curvature > 0 else math.copysign(math.inf, -slope)
        inside = min(max(beta + step, beta / 10 if low < beta / 10 else low), beta * 10 if beta else 1.0)
        if not low <= inside <= high:
            inside = 0.5 * (low + high)
        previous, beta = beta, inside
        # Newton's next error is about the square of this step's.
        if abs(beta - previous) <= math.sqrt(tol) * 0.1 * beta or beta < _LEAST or beta >= _LARGEST:
            break
    return _Factor(beta, previous, loss, passes)


def _moments(sample: Sample, beta: float) -> Float64:
    """Return mean loss and its derivatives by β."""
    if sample.link == "softmax":
        moments = sample.kernels.temperature_moments(sample.logits, sample.codes, sample.weights, beta)
    else:
        no, yes = np.zeros(sample.logits.shape[1]), np.ones(sample.logits.shape[1])
        sums = sample.kernels.sigmoid_affine_moments(
            sample.logits, sample.codes, sample.events, (no, yes), sample.weights, beta * yes, no
        )
        moments = sums[[0, 2, 5]].sum(axis=1)
    if not np.isfinite(moments).all():
        sample.refuse_infinite()
    return np.asarray(moments) / sample.total
